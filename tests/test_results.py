"""What a training is worth: baselines of each objective, paired tests over items, groups, steps and sentences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from runs import make_run, write_batches

from trm_nb import CapsuleDataset
from trm_nb.training.objective import Confusion, Groups, Note, constant_baseline
from trm_nb.training.objectives.grid import Grids
from trm_nb.training.objectives.label import Labels
from trm_nb.training.objectives.next_page import NextPages
from trm_nb.training.predictions import Predictions
from trm_nb.training.results import Result, result_of


def with_columns(folder: Path, **columns: object) -> CapsuleDataset:
    table = pq.read_table(folder / "samples.parquet")
    for name, values in columns.items():
        table = table.drop_columns([name] if name in table.column_names else []).append_column(name, [values])
    pq.write_table(table, folder / "samples.parquet")
    return CapsuleDataset(folder)


def predicted(objective: Labels, predictions: list[int], items: list[int] | None = None) -> Result:
    """The result of a model that predicts these labels after two recursion steps, and only zeros after the first."""
    targets, given = objective.labels[objective.test], np.array(predictions, np.int32)[:, None]
    exact = np.stack([(targets == 0)[:, 0], (targets == given)[:, 0]])
    grouped = None if items is None else np.array(items)
    rows = objective.rows[objective.test]
    return result_of(objective, Predictions(exact, exact.astype(float), given[None], targets, rows, (1, 1), grouped))


LABELS = ["a", "b", None] * 8
SPLITS = (["train"] * 6 + ["test"] * 6) * 2


def test_labels_are_compared_with_the_nearest_neighbour_and_the_most_common_label(tmp_path: Path) -> None:
    make_run(tmp_path, ["a", "b", *"aab"], ["train", "train", "test", "test", "test"])
    found = predicted(Labels(CapsuleDataset(tmp_path)), [0, 1, 1])
    looked_up, constant = found.baselines
    assert (looked_up.name, constant.name) == ("the nearest neighbour", "always predicting the most common label")
    assert looked_up.against.second == 1.0, "the pattern of a label is in each of its capsules"
    assert constant.against.second == pytest.approx(2 / 3), "a is two of three"
    assert (constant.against.gained, constant.against.lost) == (1, 1)
    assert (found.longer.gained, found.longer.lost) == (1, 1), "the first step predicts a everywhere"
    assert [(step.number, step.exact) for step in found.steps] == [(1, 2 / 3), (2, 2 / 3)]
    assert found.sentences()[0].startswith("**66.7 %** of 3 held-out labels are predicted correctly (95 % interval")
    assert len(found.sentences()) == 4
    assert found.sentences()[3].startswith("The class-balanced accuracy, the mean over 2 classes, is **75.0 %** (95 %")
    assert found.sentences()[3].endswith(
        "the nearest neighbour: 100.0 %; always predicting the most common label: 50.0 %)."
    )


def test_samples_without_a_label_are_left_out_and_each_held_out_sample_is_counted_once(tmp_path: Path) -> None:
    make_run(tmp_path, LABELS, SPLITS)
    labels = Labels(CapsuleDataset(tmp_path))
    found = predicted(labels, labels.labels[labels.test, 0].tolist())
    (confusion,) = found.details
    assert isinstance(confusion, Confusion)
    assert confusion.matrix.tolist() == [[4, 0], [0, 4]] and confusion.classes == ("a", "b")
    assert labels.counts() == {"a": (4, 0, 4), "b": (4, 0, 4)}
    assert sum(score.accuracy.rows for score in found.modalities) == 8
    assert [(one.name, one.accuracy.rows) for one in found.classes] == [("a", 4), ("b", 4)]


def test_each_group_has_a_baseline_of_its_own(tmp_path: Path) -> None:
    make_run(tmp_path, ["a", "b", *"aab"], ["train", "train", "test", "test", "test"])
    found = predicted(Labels(CapsuleDataset(tmp_path)), [0, 1, 1])
    grid, text = found.by_group(Groups("", "", np.array(["text", "text", "grid"])))
    assert (text.name, text.accuracy.share, text.against.second) == ("text", 0.5, 1.0), "both are a"
    assert (grid.name, grid.accuracy.share, grid.against.second) == ("grid", 1.0, 1.0), "it is b, as no other is"
    assert (text.against.gained, text.against.lost) == (0, 1)


def test_each_class_has_its_recall_and_its_precision(tmp_path: Path) -> None:
    """Six samples: a is read as a, a, b; b as b, a; and c, which nothing is taken for, as a."""
    make_run(tmp_path, [*"abc", *"aaabbc"], ["train"] * 3 + ["test"] * 6)
    found = predicted(Labels(CapsuleDataset(tmp_path)), [0, 0, 1, 1, 0, 0])
    a, b, c = found.classes
    assert [(one.name, one.accuracy.share, one.accuracy.rows) for one in (a, b, c)] == [
        ("a", pytest.approx(2 / 3), 3), ("b", 0.5, 2), ("c", 0.0, 1),
    ]  # fmt: skip
    assert (a.precision, b.precision, np.isnan(c.precision)) == (0.5, 0.5, True)
    assert found.balanced is not None and found.balanced.share == pytest.approx((2 / 3 + 0.5) / 3)
    assert [one.baseline for one in (a, b, c)] == [1.0, 1.0, 1.0], "the nearest neighbour is always right here"
    held = json.loads(json.dumps({**found.summary(), **found.tables()}, allow_nan=False))
    assert [one["precision"] for one in held["by_class"]] == [0.5, 0.5, None]
    assert held["balanced_accuracy"]["value"] == pytest.approx(found.balanced.share)
    assert (held["value"], held["baseline"]["name"], held["verdict"]) == (
        0.5, "the nearest neighbour", found.baselines[0].against.outcome,
    )  # fmt: skip
    assert {one["modality"] for one in held["by_modality"]} == {"text", "image", "grid"}


def test_samples_of_one_item_are_one_unit(tmp_path: Path) -> None:
    make_run(tmp_path, ["a", "b"] * 10, ["train"] * 2 + ["test"] * 18, signal=0.0)
    labels = Labels(CapsuleDataset(tmp_path))
    found = predicted(labels, labels.labels[labels.test, 0].tolist(), items=sorted([*range(6)] * 3))
    assert {one.against.items for one in found.baselines} == {6}
    assert found.accuracy.items == found.longer.items == 6 and found.longer.p == pytest.approx(1 / 32)
    (group,) = found.by_group(Groups("", "", np.full(18, "all")))
    assert group.accuracy.items == 6


def test_the_gap_to_training_counts_distinct_items_of_a_batch(tmp_path: Path) -> None:
    make_run(tmp_path, ["a", "b"] * 20, ["train"] * 20 + ["test"] * 20)
    labels = Labels(CapsuleDataset(tmp_path))
    found = predicted(labels, [0] * 20)
    assert "**is shown**" in found.gap(1.0, batch=64), "20 training samples, all right, against 10 of 20"
    assert "the gap between them is not significant" in found.gap(1.0, batch=4)


def test_a_grid_is_compared_with_that_of_the_nearest_sample(tmp_path: Path) -> None:
    """Six samples whose capsules are near those of their label; each label but one has the same grid everywhere."""
    make_run(tmp_path, ["a", "b", "c", "c", "b", "a"], ["train"] * 3 + ["test"] * 3)
    grids = [[[[1, 2]]], [[[3, 4]]], [[[5, 6]]], [[[5, 0]]], [[[3, 4]]], [[[1, 2]]]]
    objective = Grids(with_columns(tmp_path, target=grids))
    targets, exact = objective.labels[objective.test], np.array([[True, True, False]])
    predictions = Predictions(
        exact, np.array([[1.0, 1.0, 0.5]]), targets[None], targets, objective.rows[objective.test], (1, 2)
    )
    looked_up, constant = objective.baselines(predictions)
    assert looked_up.correct.tolist() == [[True, False], [True, True], [True, True]]
    assert constant.correct.tolist() == [[False, False], [False, False], [True, True]]
    found = result_of(objective, predictions)
    assert found.baselines[0].cells == pytest.approx(5 / 6)
    assert found.baselines[0].against.second == pytest.approx(2 / 3)
    assert found.sentences()[-1] == (
        "Of all cells **83.3 %** are right (the answer of the nearest training sample: 83.3 %; always predicting the "
        "most common grid: 33.3 %)."
    )
    note, boards = found.details
    assert isinstance(note, Note) and note.about.startswith("These answers are **3** different grids; the interval")
    assert boards.rows[0] == 5 and boards.true.shape == (3, 1, 2), "the worst one comes first"  # type: ignore[union-attr]


def test_the_most_similar_page_is_never_the_page_itself(tmp_path: Path) -> None:
    """Pages that drift: the next page is the most similar one of the pool but for the page itself."""
    n = 30
    make_run(tmp_path, [None] * n, ["train"] * 15 + ["test"] * 15, signal=0.0)
    drift = np.cumsum(np.random.default_rng(0).standard_normal((n, 12, 512)), axis=0)
    drift += 40 * np.random.default_rng(1).standard_normal((n // 5, 12, 512)).repeat(5, axis=0)
    write_batches(tmp_path, drift.astype(np.float16), 8)
    dataset = with_columns(tmp_path, item_id=[f"book{row // 5}" for row in range(n)])
    rows = np.array([row for row in range(15, 30) if row % 5 != 4])
    labels = np.tile(np.arange(6), 2)[:, None]
    guessed = np.where(np.arange(12) == 3, 4, labels[:, 0])[:, None]
    exact = (guessed == labels).T
    found = result_of(NextPages(dataset), Predictions(exact, exact.astype(float), guessed[None], labels, rows, (1, 1)))
    assert found.baselines[0].against.second > 0.5
    assert found.chance == ("guessing among 6 pages", 1 / 6) and "not comparable" in found.gap(1.0, 64)
    (missed,) = found.details
    assert missed.rows.tolist() == [[rows[3], rows[4] + 1, rows[3] + 1]]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        pytest.param([[0], [1], [1]], [[False], [True], [True]], id="labels"),
        pytest.param([[1], [0]], [[False], [True]], id="the first of a tie"),
        pytest.param([[1, 2], [1, 0], [1, 2]], [[True, True], [True, False], [True, True]], id="grids"),
    ],
)
def test_the_best_constant_prediction(targets: list[list[int]], expected: list[list[bool]]) -> None:
    assert constant_baseline(np.array(targets)).tolist() == expected
