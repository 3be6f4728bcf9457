"""Training in several processes: the loss curve of one process, one writer, and a killed process ends the job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import config_for, make_sources

from trm_nb import build
from trm_nb.errors import UserError
from trm_nb.models.checkpoints import read_weights
from trm_nb.pipeline.run import open_run
from trm_nb.progress.run_folder import ModelPaths, RunPaths
from trm_nb.training.state import KIND
from trm_nb.workers.distributed import Ranks, ranks

STEPS, TOLERANCE = 120, 1e-5
# The command in each process; the second one is killed where the environment says so.
PROGRAM = """
import os, sys
if os.environ["RANK"] == "1" and "KILLED_AT" in os.environ:
    os.environ["TRM_NB_FAULT"] = os.environ["KILLED_AT"]
from trm_nb.cli.main import main
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


def test_alone_nothing_is_divided_or_sent() -> None:
    alone, batch = ranks(), {"labels": torch.arange(6)}
    assert alone == Ranks(0, 1) and alone.part(6) == (0, 6)
    assert torch.equal(alone.own(batch)["labels"], batch["labels"])
    assert torch.equal(alone.whole(batch)["labels"], batch["labels"])
    alone.add_up([batch["labels"]])
    assert batch["labels"].tolist() == [0, 1, 2, 3, 4, 5]


def test_the_parts_of_a_batch_are_its_rows_in_order() -> None:
    batch = {"labels": torch.arange(12).view(6, 2)}
    parts = [Ranks(rank, 3).own(batch)["labels"] for rank in range(3)]
    assert torch.equal(torch.cat(parts), batch["labels"])
    assert [Ranks(rank, 3).part(6) for rank in range(3)] == [(0, 6), (2, 6), (4, 6)]


def test_a_batch_that_cannot_be_divided_evenly_is_refused() -> None:
    with pytest.raises(UserError, match="expected a multiple of the 4 processes, got 6"):
        Ranks(0, 4).part(6)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a model that one process trained."""
    folder = tmp_path_factory.mktemp("distributed")
    settings: dict[str, Any] = {"train_steps": STEPS, "train_width": 64, "train_batch_size": 8, "test_fraction": 0.3}
    settings |= {"train_precision": "float32"}  # in bfloat16 halves of a batch add up to another sum
    return build(config_for(make_sources(folder), folder / "run", **settings)).output_dir


def torchrun(folder: Path, run: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "command.py").write_text(PROGRAM)
    command = ["torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint"]
    command += ["localhost:0", str(folder / "command.py"), "train", str(run), *arguments]
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


def curve(paths: ModelPaths) -> dict[str, list[float]]:
    lines: list[dict[str, Any]] = [json.loads(line) for line in paths.metrics.read_text("utf-8").splitlines()]
    assert lines[-1]["global_step"] == STEPS
    return {name: [line.get(name, 0.0) for line in lines] for name in lines[0]}


def assert_alike(one: ModelPaths, other: ModelPaths) -> None:
    """Two trainings that differ in the order of sums alone."""
    held, wanted = curve(one), curve(other)
    assert held.keys() == wanted.keys() and len(wanted["loss"]) >= STEPS / 10
    first = [n for n, step in enumerate(wanted["global_step"]) if step <= 50]
    for name, values in wanted.items():
        np.testing.assert_allclose(np.array(held[name])[first], np.array(values)[first], rtol=0, atol=TOLERANCE)
    weights, others = (read_weights(paths.weights, KIND)[0] for paths in (one, other))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], rtol=0, atol=1e-3)
    predictions, expected = (pd.read_parquet(paths.predictions) for paths in (one, other))
    assert (predictions["prediction"] == expected["prediction"]).mean() > 0.95


@pytest.mark.slow  # three starts of two processes that import torch
def test_two_processes_train_as_one_and_go_on_after_one_was_killed(run: Path, tmp_path: Path) -> None:
    paths = RunPaths(run)
    done = torchrun(tmp_path, run, "--model", "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained: ") == 1
    assert_alike(paths.model("two"), paths.model("main"))

    killed = torchrun(tmp_path, run, "--model", "killed", KILLED_AT="train-step:110")
    assert killed.returncode != 0 and not paths.model("killed").is_finished()
    said = [line for line in killed.stderr.splitlines() if line.startswith("trm-nb: ")]
    assert len(said) == 1 and ("run the same command again" in said[0] or "run again to continue" in said[0])
    traced = [line for line in killed.stderr.splitlines() if line.strip().startswith("File ") and "trm_nb" in line]
    assert not traced, "the only traceback is torchrun's own, of its report"
    assert paths.model("killed").checkpoint.is_file()
    again = torchrun(tmp_path, run, "--model", "killed")
    assert again.returncode == 0, again.stderr
    assert_alike(paths.model("killed"), paths.model("main"))
    assert {path.name for path in paths.models.iterdir()} == {"main", "two", "killed"}


@pytest.mark.slow
def test_a_checkpoint_of_two_processes_is_one_of_one_process(run: Path, tmp_path: Path) -> None:
    paths = RunPaths(run)
    done = torchrun(tmp_path, run, "--model", "begun", "-p", "train_steps=40")
    assert done.returncode == 0, done.stderr
    open_run(output_dir=run, model="begun", train_steps=STEPS).train()
    assert_alike(paths.model("begun"), paths.model("main"))
