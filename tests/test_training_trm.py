"""Training on labels: what is learnt, honest figures, resume after SIGKILL, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import make_run

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.records import UserError
from trm_nb.training import label_figures
from trm_nb.training import trm as training
from trm_nb.training.label_figures import nearest_labels, report_of, restored, stored, wilson
from trm_nb.training.trm import CHECKPOINT_EVERY, LOG_EVERY, N_SUP, train
from trm_nb.training_progress import TrainingProgressTracker

LABELS = ["a", "b", "c"] * 14
SPLITS = (["train"] * 6 + ["test"] * 3) * 5
SPLITS = SPLITS[: len(LABELS)]


def config_for(folder: Path, **changes: object) -> MultimodalDatasetConfig:
    values = {"train_steps": 12, "train_width": 64, "train_batch_size": 8, "torch_threads": 1, **changes}
    return MultimodalDatasetConfig(source_paths=["unused"], output_dir=str(folder), **values)


def trained(folder: Path, on_step=None, **changes: object) -> training.TrainReport:
    (folder / "progress.sqlite").touch()  # the capsules were made by hand, and a tracker starts in no foreign folder
    tracker = TrainingProgressTracker(folder, create=True)
    try:
        return train(folder, config_for(folder, **changes), tracker, on_step)
    finally:
        tracker.close()


def weights(folder: Path) -> dict[str, bytes]:
    saved = torch.load(folder / "model" / "trm.pt", weights_only=True)
    parts = {f"{part}.{name}": w for part in ("model", "average") for name, w in saved[part].items()}
    moments = {f"{i}.{name}": w for i, of in saved["optimiser"]["state"].items() for name, w in of.items()}
    return {name: w.numpy().tobytes() for name, w in (parts | moments).items()}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_run(tmp_path, list(LABELS), SPLITS)
    return tmp_path


@pytest.fixture(scope="module")
def in_one_go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of 110 steps, past its first checkpoint, with nothing in its way."""
    folder = tmp_path_factory.mktemp("whole")
    make_run(folder, list(LABELS), SPLITS)
    trained(folder, train_steps=110)
    return folder


def test_it_learns_what_is_there_and_the_report_adds_up(in_one_go: Path) -> None:
    report = trained(in_one_go, train_steps=110)
    assert report.steps == 110 and report.classes == ("a", "b", "c")
    assert (report.train_rows, report.test_rows) == (SPLITS.count("train"), SPLITS.count("test"))
    assert report.accuracy > 0.9 > 0.5 > report.majority
    assert report.confusion.sum() == report.test_rows and report.confusion.dtype == np.int64
    assert report.confusion.trace() / report.test_rows == pytest.approx(report.accuracy)
    assert report.accuracy_by_step[-1] == report.accuracy
    assert report.neighbour > 0.9, "the pattern of a label is in each of its capsules"
    assert report.interval[0] < report.accuracy <= report.interval[1]
    assert sum(score.rows for score in report.by_modality.values()) == report.test_rows


def test_labels_that_mean_nothing_are_not_learnt(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = [str(name) for name in rng.choice(["a", "b"], 300)]
    make_run(tmp_path, labels, ["train"] * 60 + ["test"] * 240, signal=0.0)
    report = trained(tmp_path, train_steps=40)
    assert report.interval[0] < 0.5 < report.interval[1]


def test_the_test_rows_do_not_shape_the_weights(tmp_path: Path) -> None:
    for name in ("one", "other"):
        capsules = make_run(tmp_path / name, list(LABELS), SPLITS)
        if name == "other":
            capsules[np.array(SPLITS) == "test"] *= -3
            from runs import write_batches

            write_batches(tmp_path / name, capsules, 8)
        trained(tmp_path / name)
    assert weights(tmp_path / "one") == weights(tmp_path / "other")


def test_rows_without_a_label_are_left_out(tmp_path: Path) -> None:
    labels = [*LABELS, None, None, None, None]
    make_run(tmp_path, labels, [*SPLITS, "train", "test", "train", "test"])
    report = trained(tmp_path)
    assert report.train_rows + report.test_rows == len(LABELS)


def test_killed_and_resumed_gives_the_same_weights(run: Path, in_one_go: Path) -> None:
    """SIGKILL after step 106, and again three steps after the checkpoint it resumed from."""
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from test_training_trm import trained\n"
        "left = int(sys.argv[3])\n"
        "def on_step():\n"
        "    global left\n"
        "    left -= 1\n"
        "    if not left: os.kill(os.getpid(), signal.SIGKILL)\n"
        "trained(Path(sys.argv[2]), on_step, train_steps=110)\n"
    )
    for steps_until_death in (106, 3):
        command = [sys.executable, "-c", program, str(Path(__file__).parent), str(run), str(steps_until_death)]
        died = subprocess.run(command, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
        assert died.returncode == -signal.SIGKILL, died.stderr.decode()
        assert torch.load(run / "model" / "trm.pt", weights_only=True)["step"] == CHECKPOINT_EVERY
    ahead = TrainingProgressTracker(run).training_curve()[-1]["global_step"]
    assert ahead == CHECKPOINT_EVERY, "steps that were lost are not shown as done"
    steps: list[int] = []
    trained(run, lambda: steps.append(1), train_steps=110)
    assert len(steps) == 110 - CHECKPOINT_EVERY
    assert weights(run) == weights(in_one_go)
    curves = [TrainingProgressTracker(folder).training_curve() for folder in (run, in_one_go)]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("first", [N_SUP, N_SUP + 1, 2 * N_SUP - 1])
def test_more_steps_go_on_as_if_never_stopped(tmp_path: Path, first: int) -> None:
    """Also from the middle of a batch, where the carry matters."""
    for name, stops in (("whole", [14]), ("parts", [first, 14])):
        make_run(tmp_path / name, list(LABELS), SPLITS)
        for steps in stops:
            assert trained(tmp_path / name, train_steps=steps).steps == steps
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")


def test_a_finished_training_only_returns_its_figures(run: Path) -> None:
    first = trained(run)
    before = (run / "model" / "trm.pt").read_bytes()

    def never() -> None:
        raise AssertionError("a step was taken")

    again = trained(run, never)
    assert stored(again) == stored(first)
    assert (run / "model" / "trm.pt").read_bytes() == before


def test_a_report_from_before_the_neighbour_is_measured_again(run: Path) -> None:
    first = trained(run)
    path = run / "model" / "trm.pt"
    saved = torch.load(path, weights_only=True)
    del saved["report"]["neighbour"]
    torch.save(saved, path)
    steps: list[int] = []
    assert stored(trained(run, lambda: steps.append(1))) == stored(first) and not steps
    assert torch.load(path, weights_only=True)["report"] == stored(first)


def test_the_seed_fixes_everything_and_global_state_is_left_alone(tmp_path: Path) -> None:
    states = torch.get_rng_state(), torch.get_num_threads(), np.random.get_state()[1].tobytes()
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        make_run(tmp_path / name, list(LABELS), SPLITS)
        trained(tmp_path / name, seed=seed)
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == torch.get_num_threads()
    assert states[2] == np.random.get_state()[1].tobytes()
    assert weights(tmp_path / "one") == weights(tmp_path / "again")
    assert weights(tmp_path / "one") != weights(tmp_path / "other")


def test_steps_are_logged_and_the_stage_ends(run: Path) -> None:
    trained(run, train_steps=20)
    tracker = TrainingProgressTracker(run)
    curve = tracker.training_curve()
    assert [point["global_step"] for point in curve] == [LOG_EVERY, 2 * LOG_EVERY, 20]
    assert all(0 < point["chunk_progress"] <= 1 and 0 <= point["accuracy"] <= 1 for point in curve)
    assert curve[0]["loss"] > curve[-1]["loss"] > 0
    assert tracker.stage_status("train") == "done"


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"seed": 1}, "seed"), ({"learning_rate": 0.1}, "learning_rate"), ({"train_width": 128}, "train_width")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_checkpoint_of_other_settings_is_refused(run: Path, changes: dict[str, object], named: str) -> None:
    trained(run, train_steps=1)
    with pytest.raises(UserError, match=rf"trm\.pt: {named}: the training was begun with"):
        trained(run, train_steps=2, **changes)


def test_a_checkpoint_of_another_dataset_is_refused(run: Path) -> None:
    trained(run, train_steps=1)
    make_run(run, list(LABELS), SPLITS, seed=1)
    with pytest.raises(UserError, match=r"trm\.pt: dataset: the training was begun with"):
        trained(run, train_steps=1)
    make_run(run, LABELS[::-1], SPLITS)
    with pytest.raises(UserError, match=r"trm\.pt: labels and splits"):
        trained(run, train_steps=1)


@pytest.mark.parametrize(
    ("labels", "splits", "message"),
    [
        (["a"] * 4, ["train", "train", "test", "test"], "at least two different labels"),
        ([None] * 4, ["train", "train", "test", "test"], "at least two different labels"),
        (["a", "a", "b", "b"], ["train", "train", "test", "test"], "at least two different labels"),
        (["a", "b", "a", "b"], ["train"] * 4, "test rows to measure on"),
        (["a", "b", None, None], ["train", "train", "test", "test"], "test rows to measure on"),
    ],
    ids=["one class", "no labels", "one class to learn", "no test rows", "no labelled test rows"],
)
def test_what_cannot_be_learnt_is_refused(
    tmp_path: Path, labels: list[str | None], splits: list[str], message: str
) -> None:
    make_run(tmp_path, labels, splits)
    with pytest.raises(UserError, match=message):
        trained(tmp_path)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_gives_the_published_intervals(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right, n) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize("rows_at_once", [3, 1000])
def test_nearest_labels_agree_with_the_definition(monkeypatch: pytest.MonkeyPatch, rows_at_once: int) -> None:
    monkeypatch.setattr(label_figures, "ROWS_AT_ONCE", rows_at_once)
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
    labels = np.array([0, 0, 1, 1, 1, 0, 0, 1])
    test = np.array([0, 0, 0, 0, 0, 1, 1, 1], bool)
    modalities = np.array(["text", "text", "grid", "grid", "grid", "text", "grid", "text"])
    nearest = np.array([1, 0, 1])
    report = report_of(
        np.array([[0, 0, 0], [0, 1, 1]]), labels, test, modalities, ("a", "b"), nearest=nearest, steps=1, seconds=0.0
    )
    assert report.neighbour == pytest.approx(2 / 3)
    assert report.accuracy_by_step == pytest.approx((2 / 3, 2 / 3)) and report.accuracy == pytest.approx(2 / 3)
    assert report.majority == pytest.approx(2 / 3), "class a is two of three"
    assert report.by_modality["text"].majority == 0.5 and report.by_modality["grid"].majority == 1.0
    assert report.confusion.tolist() == [[1, 1], [0, 1]]
    assert stored(restored(stored(report))) == stored(report)
