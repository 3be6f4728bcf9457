"""Sweeps, the list of models and their comparison, from the command line: what is trained, shown and refused."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import config_for, make_sources

from trm_nb import build
from trm_nb.batch.sweep import trials_of, values_of
from trm_nb.cli.main import main
from trm_nb.errors import UserError
from trm_nb.evaluation.trained_models import differing, outcomes_of, to_dataframe, trained_models
from trm_nb.progress.run_folder import RunPaths

SHORT = {"train_steps": 3, "train_width": 64, "train_batch_size": 8, "test_fraction": 0.5}
SWEEP = ["-p", "train_seed=1,2", "-p", "learning_rate=1e-3,1e-2"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the model `main` and those of a sweep."""
    sources = make_sources(tmp_path_factory.mktemp("experiments"))
    folder = build(config_for(sources, sources.parent / "run", **SHORT)).output_dir
    assert main(["sweep", str(folder), *SWEEP]) == 0
    return folder


def test_a_sweep_trains_each_combination_on_one_dataset(swept: Path) -> None:
    models = trained_models([swept])
    assert [model.name for model in models] == [
        "main", "train_seed-1_learning_rate-1e-2", "train_seed-1_learning_rate-1e-3",
        "train_seed-2_learning_rate-1e-2", "train_seed-2_learning_rate-1e-3",
    ]  # fmt: skip
    assert {model.state for model in models} == {"done"} and {model.steps for model in models} == {3}
    assert differing(models) == ["train_seed", "learning_rate"]
    assert len({model.settings["content_digest"] for model in models}) == 1


def test_a_second_sweep_trains_nothing_again(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in swept.rglob("training.pt")}
    assert main(["sweep", str(swept), *SWEEP]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in swept.rglob("training.pt")} and len(before) == 5
    assert "4 of 4 models are trained" in capsys.readouterr().out


def test_one_that_fails_does_not_stop_the_others(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(swept, tmp_path / "run"))
    assert main(["sweep", str(folder), "-p", "train_width=63,64", "--name", "w"]) == 1
    said = capsys.readouterr().out
    assert "w_train_width-63" in said and "multiple of 64" in said and "1 of 2 models are trained" in said
    assert RunPaths(folder).model("w_train_width-64").is_finished()


def test_a_sweep_that_was_killed_continues(
    swept: Path, tmp_path: Path, run_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    folder = Path(shutil.copytree(swept, tmp_path / "run"))
    for path in RunPaths(folder).models.glob("train_seed*"):
        shutil.rmtree(path)
    program = "import sys; from trm_nb.cli.main import main; sys.exit(main(sys.argv[1:]))"
    killed = run_python(program, "sweep", str(folder), *SWEEP, fault="train-step:8")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert 0 < sum(model.state == "done" for model in trained_models([folder])) < 5
    assert main(["sweep", str(folder), *SWEEP]) == 0
    predictions = {model.name: model.paths.predictions.read_bytes() for model in trained_models([folder])}
    assert predictions == {model.name: model.paths.predictions.read_bytes() for model in trained_models([swept])}


@pytest.mark.slow
def test_in_a_terminal_each_training_has_bars_of_its_own(swept: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(swept, tmp_path / "run"))
    leader, terminal = os.openpty()
    command = [sys.executable, "-m", "trm_nb.cli", "sweep", str(folder), "--name", "long"]
    command += ["-p", "train_steps=60", "-p", "train_seed=1,2"]
    with subprocess.Popen(command, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        said = b""
        with suppress(OSError):  # the end, on Linux
            while part := os.read(leader, 4096):
                said += part
    os.close(leader)
    assert process.returncode == 0, said.decode()
    assert b"1 of 2: long" in said and b"2 of 2: long" in said and b"2 of 2 models are trained" in said
    hidden, shown = said.count(b"\x1b[?25l"), said.count(b"\x1b[?25h")
    assert hidden == shown == 2, "the bars take the cursor away, and give it back before the next ones"


def test_the_list_shows_what_differs(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", str(swept)]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "model",
        "objective",
        "train_seed",
        "learning_rate",
        "state",
        "steps",
        "accuracy",
        "changed",
    ]
    assert len(rows) == 5 and all("done" in row and "%" in row for row in rows)
    frame = to_dataframe(trained_models([swept]))
    assert frame["accuracy"].between(frame["low"], frame["high"]).all() and set(frame["run"]) == {str(swept)}


def test_seeds_of_a_method_are_compared_together(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(swept)]) == 0
    said = capsys.readouterr().out
    assert "learning_rate=0.001, 3 seeds" in said and "learning_rate=0.01, 2 seeds" in said
    assert "learning_rate=0.001" in said.splitlines()[-1] and "after Holm" in said
    outcomes = outcomes_of(trained_models([swept]))
    assert all(np.array_equal(np.sort(one.keys), np.sort(outcomes[0].keys)) for one in outcomes)
    assert len(set(outcomes[0].keys)) == len(outcomes[0].keys)


def test_models_of_two_runs_are_compared_on_the_samples_they_share(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = make_sources(tmp_path / "other")
    other = build(config_for(sources, tmp_path / "b", **SHORT | {"test_fraction": 0.8, "learning_rate": 0.1}))
    assert main(["compare", str(swept), str(other.output_dir)]) == 0
    assert "samples that only one of them has answered are left out" in capsys.readouterr().out


def test_an_unfinished_model_is_listed_and_left_out(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(swept, tmp_path / "run"))
    RunPaths(folder).model("main").card.unlink()
    assert main(["list", str(folder)]) == 0
    assert "begun" in capsys.readouterr().out
    assert main(["compare", str(folder)]) == 0
    assert "1 of 5 models not finished, left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        pytest.param(["seed=1,2"], "seed is one of the dataset", id="of the dataset"),
        pytest.param(["train_seed=1", "train_seed=2"], "train_seed is given twice", id="twice"),
        pytest.param(["learning_rat=1"], "did you mean 'learning_rate'", id="misspelt"),
        pytest.param(["train_seed"], "expected KEY=V1,V2", id="no values"),
    ],
)
def test_wrong_values_are_one_sentence(pairs: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        values_of(pairs)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"train_seed": [1, 1]}, "the same name", id="twice the same"),
        pytest.param({"train_seed": range(40), "train_width": range(40)}, "more than 1,000 models", id="too many"),
    ],
)
def test_a_sweep_that_cannot_be(values: dict[str, list[int]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        trials_of(values)


def test_a_folder_without_a_run_is_one_sentence(tmp_path: Path) -> None:
    for command in ("list", "compare"):
        done = subprocess.run(
            [sys.executable, "-m", "trm_nb.cli", command, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (2, "") and "no run here" in done.stderr
