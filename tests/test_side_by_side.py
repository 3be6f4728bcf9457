"""Models of one run trained at the same time, by real processes, and what else may be done to the run meanwhile."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import config_for, make_sources

from trm_nb import build
from trm_nb.errors import UserError
from trm_nb.models.checkpoints import read_weights
from trm_nb.pipeline.maintenance import rebuild_tracker, reset
from trm_nb.pipeline.run import open_run
from trm_nb.pipeline.verify import verify
from trm_nb.progress.run_folder import RunPaths
from trm_nb.progress.tables import TRAININGS
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.training.state import KIND

SHORT = {"train_steps": 3, "train_width": 64, "train_batch_size": 8, "test_fraction": 0.5}
TRAIN = """
import sys
from trm_nb.pipeline.run import open_run

def pause():
    if run.tracker.training_curve("train/" + sys.argv[2]) and not said:
        said.append(print("at work", flush=True))
        sys.stdin.readline()

said, run = [], open_run(output_dir=sys.argv[1], model=sys.argv[2], train_seed=int(sys.argv[3]), train_steps=11)
run.train(pause)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with the model `main`."""
    sources = make_sources(tmp_path_factory.mktemp("side by side"))
    return build(config_for(sources, sources.parent / "run", **SHORT)).output_dir


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "run"))


def begin(folder: Path, model: str, seed: int) -> subprocess.Popen[str]:
    """A process that trains a model, and waits for a line after its tenth step."""
    command = [sys.executable, "-c", TRAIN, str(folder), model, str(seed)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def two(folder: Path) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Two trainings, by model, both at their tenth step."""
    processes = {name: begin(folder, name, seed) for seed, name in enumerate("ab", 1)}
    for process in processes.values():
        assert process.stdout is not None and process.stdout.readline() == "at work\n"
    yield processes
    for process in processes.values():
        process.kill()
        process.communicate()


def weights(folder: Path, model: str) -> dict[str, bytes]:
    held, _ = read_weights(RunPaths(folder).model(model).weights, KIND)
    return {name: weight.numpy().tobytes() for name, weight in held.items()}


@pytest.mark.slow
def test_two_models_are_trained_at_the_same_time(
    folder: Path, built: Path, tmp_path: Path, two: dict[str, subprocess.Popen[str]]
) -> None:
    paths = RunPaths(folder)
    with closing(TrainingProgressTracker(folder)) as tracker:
        stats = tracker.get_stats()
    assert stats["state"] == "running train"
    assert {name: (one["status"], one["done"], one["total"]) for name, one in stats["trainings"].items()} == {
        "a": ("running", 10, 11), "b": ("running", 10, 11), "main": ("done", 3, 3),
    }  # fmt: skip
    for name in "ab":  # by whom depends on who began first
        with pytest.raises(UserError, match=f"models/{name} is being written by process {two[name].pid} \\(training"):
            open_run(output_dir=folder, model=name).train()
    with pytest.raises(UserError, match=r"models/a: this model is being trained by process \d+ \(training\); wait for"):
        reset(folder)
    with pytest.raises(UserError, match="this model is being trained"):
        rebuild_tracker(folder)
    assert verify(folder, deep=True) == []
    open_run(output_dir=folder, model="c", train_seed=5).train()  # which completes the dataset as well
    for process in two.values():
        process.communicate("\n", timeout=120)
        assert process.returncode == 0
    assert verify(folder, deep=True) == [] and all(paths.model(name).is_finished() for name in "abc")
    with closing(TrainingProgressTracker(folder)) as tracker:
        stats, steps = tracker.get_stats(), {name: tracker.last_step(TRAININGS + name)[0] for name in ("a", "b", "c")}
    assert stats["state"] == "done" and steps == {"a": 11, "b": 11, "c": 3}

    alone = Path(shutil.copytree(built, tmp_path / "alone"))
    open_run(output_dir=alone, model="a", train_seed=1, train_steps=11).train()
    assert weights(folder, "a") == weights(alone, "a") != weights(folder, "b")
    assert paths.model("a").metrics.read_bytes() == RunPaths(alone).model("a").metrics.read_bytes()
    assert "models" in reset(folder) and not paths.models.exists()


@pytest.mark.slow
def test_one_that_is_killed_does_not_disturb_the_other(folder: Path, two: dict[str, subprocess.Popen[str]]) -> None:
    two["a"].send_signal(signal.SIGKILL)
    two["a"].wait()
    with closing(TrainingProgressTracker(folder, create=True)) as tracker:
        known = tracker.trainings()
        assert (known["a"]["status"], known["b"]["status"]) == ("stopped", "running")
        assert tracker.get_stats()["state"] == "running train"
        tracker.end_stages_of_the_dead()
        assert (tracker.stage_status("train/a"), tracker.stage_status("train/b")) == ("stopped", "running")
    open_run(output_dir=folder, model="a").train()
    two["b"].communicate("\n", timeout=120)
    assert two["b"].returncode == 0 and all(RunPaths(folder).model(name).is_finished() for name in "ab")
