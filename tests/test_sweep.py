"""A sweep as a user runs it, killed in the middle and continued: six models, one encoding, a comparison."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from trm_nb.evaluation.trained_models import differing, trained_models
from trm_nb.pipeline.run import open_run
from trm_nb.pipeline.verify import verify
from trm_nb.progress.run_folder import RunPaths
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.storage.lock_holder import holder_of

ROOT = Path(__file__).parents[1]
SEEDS, RATES = ("1", "2", "3"), ("1e-3", "3e-4")
NAMES = {f"train_seed-{seed}_learning_rate-{rate}" for seed in SEEDS for rate in RATES}
SWEEP = ["-p", "train_seed=1,2,3", "-p", "learning_rate=1e-3,3e-4"]


def command(*arguments: str) -> subprocess.Popen[str]:
    process = [sys.executable, "-m", "trm_nb.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(process, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def output_of(*arguments: str) -> str:
    process = command(*arguments)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said


def made(folder: Path) -> dict[str, Any]:
    """What tells that images were rendered or capsules encoded: times of stages and batches, and the files'."""
    with closing(TrainingProgressTracker(folder)) as tracker:
        stages = tracker.query("SELECT * FROM stages WHERE name IN ('render', 'encode', 'consolidate')")
        batches = tracker.query("SELECT * FROM batches")
    files = [*RunPaths(folder).images.rglob("*"), *RunPaths(folder).capsules.rglob("*")]
    times = {str(path): path.stat().st_mtime_ns for path in files if path.is_file() and ".lock" not in path.name}
    assert len(stages) == 3 and batches
    return {"stages": stages, "batches": batches, "times": times}


@pytest.mark.parametrize(
    "jobs", [pytest.param("2", marks=pytest.mark.slow(minutes=1)), pytest.param("1", marks=pytest.mark.soak)]
)
def test_a_sweep_that_was_killed_ends_with_six_models_of_one_encoding(tmp_path: Path, jobs: str) -> None:
    folder = tmp_path / "smoke"
    output_of("build", "params/smoke.yaml", "--output-dir", str(folder))
    paths = RunPaths(folder)
    shutil.rmtree(paths.models)
    before = made(folder)

    sweep = command("sweep", str(folder), *SWEEP, "--jobs", jobs)
    until = time.monotonic() + 300
    while not sum(paths.model(name).is_finished() for name in NAMES) >= 1 and time.monotonic() < until:
        time.sleep(0.05)
    sweep.send_signal(signal.SIGKILL)
    sweep.communicate()
    assert 1 <= sum(paths.model(name).is_finished() for name in NAMES) < 6
    while any((holder := holder_of(paths.model(name).root)) and holder.alive for name in NAMES):
        assert time.monotonic() < until, "the processes of a sweep end when it is killed"
        time.sleep(0.05)

    assert "6 of 6 models are trained" in output_of("sweep", str(folder), *SWEEP, "--jobs", jobs)
    models = trained_models([folder])
    assert {model.name for model in models} == NAMES and {model.state for model in models} == {"done"}
    assert differing(models) == ["train_seed", "learning_rate"]

    assert made(folder) == before, "the dataset was made once"
    assert len({model.settings["content_digest"] for model in models}) == 1
    with closing(open_run(output_dir=folder)) as run:
        assert run.info()["content_digest"] == models[0].settings["content_digest"]
        with run.writing("looking for cached images"):
            report = run.cache.populate(run.items())
    assert (report.misses, report.failed) == (0, {}) and report.hits > 0
    assert verify(folder, deep=True) == []

    listed = output_of("list", str(folder)).splitlines()
    assert len(listed) == 2 + 6 and all("done" in line and "%" in line for line in listed[2:])
    compared = output_of("compare", str(folder))
    assert "learning_rate=0.0003" in compared and "on 17 samples of 7 items" in compared and "after Holm" in compared
