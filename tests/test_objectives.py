"""Training on a finished run: labels, answer grids and next pages by one loop, and what cannot be learnt."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from runs import make_run, walk_through, write_batches

from trm_nb import CapsuleDataset, build
from trm_nb.cli.main import main
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError
from trm_nb.evaluation.controls import shuffled_between
from trm_nb.notebook.training_report import LearningProblem, TrainingReport
from trm_nb.pipeline.run import Run
from trm_nb.pipeline.verify import verify
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.training.objectives import OBJECTIVES
from trm_nb.training.objectives.label import Labels
from trm_nb.training.objectives.next_page import NextPages, has_next_page, predicted_rows
from trm_nb.training.predictions import Predictions
from trm_nb.training.state import ROW
from trm_nb.training.train_objective import examples_of, train_objective
from trm_nb.training.verdicts import accuracy

LABELS = ["a", "b", "c"] * 14
SPLITS = ((["train"] * 6 + ["test"] * 3) * 5)[: len(LABELS)]


def trained(folder: Path, **changes: object) -> Predictions:
    values = {"train_steps": 12, "train_width": 64, "train_batch_size": 8, "torch_threads": 1, **changes}
    config = MultimodalDatasetConfig(source_paths=["unused"], output_dir=str(folder), **values)
    (folder / "progress.sqlite").touch()  # the capsules were made by hand, and a tracker starts in no foreign folder
    with closing(TrainingProgressTracker(folder, create=True)) as tracker:
        return train_objective(folder / "model", examples_of(folder, config), config, tracker)


def weights(folder: Path) -> dict[str, bytes]:
    saved = torch.load(folder / "model" / "training.pt", weights_only=True)
    return {name: weight.numpy().tobytes() for name, weight in saved["average"].items()}


def make_books(folder: Path, books: int, pages: int, *, signal: float = 1.0) -> None:
    """A run of books whose pages have something of the book in common, and else are noise."""
    n = books * pages
    make_run(folder, [None] * n, ["train" if row // pages % 3 else "test" for row in range(n)], signal=0.0)
    rng = np.random.default_rng(1)
    capsules = rng.standard_normal((n, 12, 512)) + signal * rng.standard_normal((books, 12, 512)).repeat(pages, axis=0)
    write_batches(folder, capsules.astype(np.float16), 8)
    table = pq.read_table(folder / "samples.parquet")
    names = [f"book{row // pages}" for row in range(n)]
    pq.write_table(
        table.set_column(table.column_names.index("item_id"), "item_id", [names]), folder / "samples.parquet"
    )


def test_labels_are_learnt_where_they_are_there(tmp_path: Path) -> None:
    make_run(tmp_path, [*LABELS, None, None], [*SPLITS, "train", "test"])
    answers = trained(tmp_path, train_steps=80)
    assert len(answers.rows) == SPLITS.count("test"), "rows without a label are left out"
    assert answers.accuracy > 0.9 and answers.shape == (1, 1)
    assert answers.exact.shape[0] == 2 and trained(tmp_path, train_steps=80, test_steps=7).exact.shape[0] == 7


def test_labels_that_mean_nothing_are_not_learnt(tmp_path: Path) -> None:
    labels = [str(name) for name in np.random.default_rng(0).choice(["a", "b"], 300)]
    make_run(tmp_path, labels, ["train"] * 60 + ["test"] * 240, signal=0.0)
    answers = trained(tmp_path, train_steps=40)
    measured = accuracy(answers.exact[-1], answers.items)
    low, high = measured.low, measured.high
    assert low < 0.5 < high


def test_the_test_rows_do_not_shape_the_weights(tmp_path: Path) -> None:
    for name in ("one", "other"):
        capsules = make_run(tmp_path / name, list(LABELS), SPLITS)
        if name == "other":
            capsules[np.array(SPLITS) == "test"] *= -3
            write_batches(tmp_path / name, capsules, 8)
        trained(tmp_path / name)
    assert weights(tmp_path / "one") == weights(tmp_path / "other")


@pytest.mark.parametrize("signal", [1.0, 0.0])
def test_the_next_page_is_found_where_pages_tell_of_it(tmp_path: Path, signal: float) -> None:
    make_books(tmp_path, 150, 2, signal=signal)
    answers = trained(tmp_path, objective="next", train_steps=20, train_batch_size=16)
    assert len(answers.rows) == 48, "fifty held-out pages have a next one, and three pools of sixteen are whole"
    assert np.array_equal(answers.items, CapsuleDataset(tmp_path).items_of(answers.rows))
    measured = accuracy(answers.exact[-1], answers.items)
    assert measured.items == 48, "each of these books has one page with a next one"
    chance = 1 / 16
    assert answers.accuracy > 0.6 if signal else measured.low < chance
    right = answers.exact[-1]
    assert np.array_equal(predicted_rows(answers)[right], answers.rows[right] + 1)
    assert (predicted_rows(answers)[~right] != answers.rows[~right] + 1).all()


def test_only_pages_of_one_item_follow_each_other(tmp_path: Path) -> None:
    make_books(tmp_path, 4, 3)
    assert has_next_page(CapsuleDataset(tmp_path)).tolist() == [True, True, False] * 4
    assert has_next_page(CapsuleDataset(tmp_path, "test")).tolist() == [True, True, False] * 2
    table = pq.read_table(tmp_path / "samples.parquet")
    status = ["bad" if row == 1 else "ok" for row in range(12)]
    gap = table.set_column(table.column_names.index("status"), "status", [status])
    pq.write_table(gap, tmp_path / "samples.parquet")
    assert has_next_page(CapsuleDataset(tmp_path)).tolist() == [False, False] + [True, True, False] * 3


@pytest.mark.parametrize(
    ("objective", "labels", "splits", "message"),
    [
        ("label", ["a"] * 4, ["train", "train", "test", "test"], "at least two different labels"),
        ("label", [None] * 4, ["train", "train", "test", "test"], "at least two different labels"),
        ("label", ["a", "a", "b", "b"], ["train", "train", "test", "test"], "at least two different labels"),
        ("label", ["a", "b", "a", "b"], ["train"] * 4, "0 to measure on"),
        ("label", ["a", "b", None, None], ["train", "train", "test", "test"], "0 to measure on"),
        ("grid", ["a", "b"] * 2, ["train", "train", "test", "test"], "0 samples to learn from and 0 to measure on"),
        ("next", ["a", "b"] * 2, ["train", "train", "test", "test"], "0 to learn from and 0 to measure on"),
    ],
    ids=[
        "one class",
        "no labels",
        "one class to learn",
        "no test rows",
        "no labelled test rows",
        "no grids",
        "no pages",
    ],
)
def test_what_cannot_be_learnt_is_refused(
    tmp_path: Path, objective: str, labels: list[str | None], splits: list[str], message: str
) -> None:
    make_run(tmp_path, labels, splits)
    with pytest.raises(UserError, match=message):
        trained(tmp_path, objective=objective)


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"seed": 1}, "seed=0, not 1"), ({"learning_rate": 0.1}, "learning_rate="), ({"train_width": 128}, "hidden_size")],
    ids=["seed", "rate", "width"],
)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    make_run(tmp_path, list(LABELS), SPLITS)
    trained(tmp_path, train_steps=1)
    with pytest.raises(UserError, match=rf"training\.pt: this training has .*{named}"):
        trained(tmp_path, train_steps=2, **changes)


def test_a_checkpoint_of_another_dataset_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path, list(LABELS), SPLITS)
    trained(tmp_path, train_steps=1)
    for labels, seed in ((list(LABELS), 1), (LABELS[::-1], 0)):
        make_run(tmp_path, labels, SPLITS, seed=seed)
        with pytest.raises(UserError, match=r"training\.pt: this training has examples="):
            trained(tmp_path, train_steps=1)


def test_a_page_that_stands_twice_in_a_batch_is_no_wrong_answer(tmp_path: Path) -> None:
    make_books(tmp_path, 12, 2)
    examples = NextPages(CapsuleDataset(tmp_path), hidden_size=64, num_heads=2, halt_max_steps=1)
    model = examples.new_model(torch.Generator().manual_seed(0))
    batch = examples.train_batch(0, 20, 0)
    rows = batch[ROW]
    assert len(set(rows.tolist())) == 8
    _, outputs = model(model.initial_carry(batch), batch)
    again = (rows[:, None] == rows) & ~torch.eye(20, dtype=torch.bool)
    logits = outputs["logits"][:, 0]
    assert (logits[again] == logits.min()).all() and (logits.diagonal() > logits.min()).all()


def test_a_lost_tracker_is_told_what_was_trained(tmp_path: Path) -> None:
    make_run(tmp_path, list(LABELS), SPLITS)
    trained(tmp_path)
    for name in tmp_path.glob("progress.sqlite*"):
        name.unlink()
    trained(tmp_path)
    with closing(TrainingProgressTracker(tmp_path)) as tracker:
        assert [step["global_step"] for step in tracker.training_curve()] == [10, 12]


def test_shuffled_capsules_move_and_answers_do_not(tmp_path: Path) -> None:
    make_run(tmp_path, list(LABELS), SPLITS)
    plain, mixed = (Labels(CapsuleDataset(tmp_path), hidden_size=64, num_heads=2) for _ in range(2))
    shuffled_between(mixed, 0)
    moved = (plain.capsules != mixed.capsules).any((1, 2))
    assert moved.mean() > 0.9 and np.array_equal(plain.labels, mixed.labels) and plain.name != mixed.name


def test_an_objective_is_added_as_contributing_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page_counts.py").write_text(walk_through("Add an objective"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(OBJECTIVES, "pages", "page_counts:PageCounts")

    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(24):
        (texts / f"{number:02d}.txt").write_text(f"Text {number} of some length. " * (1 + 20 * (number % 3)))
    config = MultimodalDatasetConfig(
        source_paths=[str(texts)], output_dir=str(tmp_path / "run"), encoder="tiny", workers=0, torch_threads=1,
        test_fraction=0.4, objective="pages", train_steps=12, train_width=64, train_batch_size=8,
    )  # fmt: skip
    report = build(config)
    assert report.training is not None and verify(report.output_dir, deep=True) == []

    pages = pq.read_table(report.output_dir / "samples.parquet")["pages"].to_numpy()
    assert set(pages) == {1, 2}, "the texts differ in length"
    assert np.array_equal(report.training.predictions.labels[:, 0], pages[report.training.predictions.rows])
    shown = LearningProblem.of(Run(config)).train()
    assert isinstance(shown, TrainingReport) and shown.steps.parts and "page counts" in shown.headline.parts[0].markdown
    found = report.training
    assert len(found.baselines) == 2 and found.accuracy.rows == len(found.predictions.rows)
    assert "held-out page counts are predicted correctly" in found.sentences()[0]
    assert build(config).content_digest == report.content_digest
    assert main(["verify", str(report.output_dir), "--deep"]) == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lable", "expected one of label, grid, next, got 'lable', did you mean 'label'?"),
        ("next_page", "expected one of label, grid, next, got 'next_page', did you mean 'next'?"),
        ("", "expected one of label, grid, next, got ''"),
        ("zzz", "expected one of label, grid, next, got 'zzz'"),
    ],
    ids=["misspelt", "too long", "empty", "something else"],
)
def test_an_unknown_objective_is_refused_before_anything_is_written(tmp_path: Path, name: str, message: str) -> None:
    config = MultimodalDatasetConfig(source_paths=["."], output_dir=str(tmp_path / "run"), objective=name)
    with pytest.raises(UserError) as refused:
        Run(config)
    assert str(refused.value) == f"objective: {message}" and not (tmp_path / "run").exists()


@pytest.mark.parametrize("objective", ["label", "next"])
def test_single_answers_have_no_neighbours_to_mix_with(tmp_path: Path, objective: str) -> None:
    values = {"output_dir": str(tmp_path / "run"), "objective": objective, "mixing": "neighbours"}
    with pytest.raises(UserError, match=rf"mixing=neighbours: an answer of objective={objective} is one cell"):
        Run(MultimodalDatasetConfig(source_paths=["."], **values))  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_the_default_objective_is_in_the_table(tmp_path: Path) -> None:
    assert MultimodalDatasetConfig(source_paths=["."], output_dir=str(tmp_path)).objective in OBJECTIVES
