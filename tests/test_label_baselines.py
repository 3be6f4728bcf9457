"""What stands beside an accuracy about labels: two baselines, the confusion, and the modalities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from runs import make_run

from trm_nb import CapsuleDataset
from trm_nb.evaluation import label_baselines as figures
from trm_nb.evaluation.label_baselines import figures_of, label_figures, nearest_labels
from trm_nb.training.answers import Answers


@pytest.mark.parametrize("rows_at_once", [3, 1000])
def test_nearest_labels_agree_with_the_definition(monkeypatch: pytest.MonkeyPatch, rows_at_once: int) -> None:
    monkeypatch.setattr(figures, "ROWS_AT_ONCE", rows_at_once)
    rng = np.random.default_rng(0)
    capsules = (rng.standard_normal((40, 12, 512)) + 3).astype(np.float16)
    labels, test = rng.integers(0, 5, 40), np.arange(40) % 4 == 1
    capsules[1] = capsules[20]  # a copy of a training row is its own nearest
    flat = capsules.reshape(40, -1).astype(np.float64)
    flat -= flat[~test].mean(axis=0)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    expected = labels[~test][(flat[test] @ flat[~test].T).argmax(axis=1)]
    found = nearest_labels(capsules, labels, test)
    assert found.tolist() == expected.tolist() and found[0] == labels[20]


def test_the_majority_is_the_best_constant_answer_in_each_part() -> None:
    read, labels, nearest = np.array([0, 1, 1]), np.array([0, 0, 1]), np.array([1, 0, 1])
    found = figures_of(read, labels, nearest, np.array(["text", "grid", "text"]), classes=3)
    assert found.neighbour == pytest.approx(2 / 3)
    assert found.majority == pytest.approx(2 / 3), "class a is two of three"
    assert found.by_modality["text"].majority == 0.5 and found.by_modality["grid"].majority == 1.0
    assert found.by_modality["text"].accuracy == 1.0 and found.by_modality["grid"].accuracy == 0.0
    assert found.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert (found.against_neighbour.gained, found.against_neighbour.lost) == (1, 1)
    assert (found.against_majority.gained, found.against_majority.lost) == (1, 1)
    assert (found.by_modality["text"].against.gained, found.by_modality["grid"].against.lost) == (1, 1)


def test_rows_of_one_item_are_one_unit() -> None:
    labels, items = np.repeat([0, 1], [9, 9]), np.arange(18) // 3
    kinds = np.where(np.arange(18) < 9, "text", "grid")
    found = figures_of(labels, labels, 1 - labels, kinds, classes=2, items=items)
    assert found.against_neighbour.items == 6 and found.against_neighbour.p == pytest.approx(1 / 32)
    assert found.by_modality["text"].measured.items == 3


def test_rows_without_a_label_are_left_out_and_every_test_row_is_counted_once(tmp_path: Path) -> None:
    make_run(tmp_path, ["a", "b", None] * 8, (["train"] * 6 + ["test"] * 6) * 2)
    dataset = CapsuleDataset(tmp_path)
    asked = [i for i, split in enumerate(dataset.splits) if split == "test" and dataset.labels[i] >= 0]
    labels = dataset.labels[asked][:, None]
    answers = Answers(
        np.ones((1, 8), bool), np.ones((1, 8)), labels, labels, dataset.rows[asked], shape=(1, 1)
    )  # fmt: skip
    found = label_figures(dataset, answers)
    assert found.confusion.tolist() == [[4, 0], [0, 4]]
    assert found.neighbour > 0.9, "the pattern of a label is in each of its capsules"
    assert sum(score.rows for score in found.by_modality.values()) == 8
