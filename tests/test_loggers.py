"""The metrics of a training in TensorBoard and trackio, where they are installed: equal to metrics.jsonl."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runs import stop_at, train_in
from test_reasoning import SETTINGS, tokens

from trm_nb.cli.main import main
from trm_nb.errors import UserError
from trm_nb.progress.loggers import metric_logger
from trm_nb.progress.run_folder import RunPaths


def recorded(folder: Path) -> dict[tuple[str, int], float]:
    """metrics.jsonl by metric and step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    steps = [(line.pop("global_step"), line) for line in lines]
    return {(name, step): value for step, metrics in steps for name, value in metrics.items()}


def in_tensorboard(folder: Path) -> dict[tuple[str, int], float]:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    held = reader.EventAccumulator(str(folder / "tensorboard")).Reload()
    return {(name, e.step): e.value for name in held.Tags()["scalars"] for e in held.Scalars(name)}


def assert_alike(held: dict[tuple[str, int], float], wanted: dict[tuple[str, int], float]) -> None:
    assert held.keys() == wanted.keys() and len(wanted) > 20
    assert all(math.isclose(held[one], value, rel_tol=1e-6) for one, value in wanted.items())  # as float32


def test_tensorboard_holds_what_is_recorded_also_after_an_interruption(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    settings = replace(SETTINGS, logger="tensorboard")
    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path, tokens(), settings, on_step=stop_at(25))
    train_in(tmp_path, tokens(), settings)
    assert_alike(in_tensorboard(tmp_path), recorded(tmp_path))


@pytest.mark.slow  # a process that imports trackio's server
def test_trackio_holds_what_is_recorded(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    code = (
        "import sys; from pathlib import Path; from dataclasses import replace\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from runs import train_in; from test_reasoning import SETTINGS, tokens\n"
        "train_in(Path(sys.argv[1]), tokens(), replace(SETTINGS, logger='trackio'))"
    )
    folder, home = tmp_path / "a run" / "models" / "main", tmp_path / "trackio"
    folder.mkdir(parents=True)
    environment = {**os.environ, "TRACKIO_DIR": str(home)}
    subprocess.run([sys.executable, "-c", code, str(folder)], env=environment, check=True, timeout=300)
    (path,) = home.glob("*.db")
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT run_name, step, metrics FROM metrics").fetchall()
    assert {name for name, _, _ in rows} == {"main"} and path.stem == "arun"
    held = {(name, step): value for _, step, metrics in rows for name, value in json.loads(metrics).items()}
    assert_alike(held, recorded(folder))


def test_by_default_nothing_is_logged_elsewhere(tmp_path: Path) -> None:
    train_in(tmp_path, tokens(), replace(SETTINGS, steps=10))
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("trackio", "trackio")])
def test_a_logger_that_is_not_installed_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # Python's own way to make a package absent
    with pytest.raises(UserError, match=rf"{name} is not installed; `pip install 'trm-nb\[{name}\]'`"):
        train_in(tmp_path, tokens(), replace(SETTINGS, logger=name))
    with pytest.raises(UserError), metric_logger(name, RunPaths(tmp_path).model("main")):
        pass


def test_the_config_knows_the_loggers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values: dict[str, Any] = {"source_paths": ["."], "output_dir": str(tmp_path / "run"), "logger": "wandb"}
    (tmp_path / "params.yaml").write_text(json.dumps(values))
    assert main(["build", str(tmp_path / "params.yaml")]) == 2
    assert "logger: input should be 'tensorboard' or 'trackio', got 'wandb'" in capsys.readouterr().err
