"""The command line, run in this process and, where speed or signals matter, in one of its own."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from trm_nb.cli import main
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.training_progress import TrainingProgressTracker

CLI = [sys.executable, "-m", "trm_nb.cli"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two tiny text files and no notebooks; it is the current folder."""
    for name in ("notebooks", "params", "data/a", "data/b"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data" / "a" / "one.txt").write_text("first text", encoding="utf-8")
    (tmp_path / "data" / "b" / "two <b>.txt").write_text("second text", encoding="utf-8")
    lines = ["source_paths: [data]", "output_dir: outputs/demo", "encoder: tiny", "batch_size: 2", "workers: 0"]
    (tmp_path / "params" / "demo.yaml").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def out(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_help_is_instant_and_light() -> None:
    subprocess.run([*CLI, "--help"], check=True, capture_output=True)
    best = min(_timed([*CLI, "--help"]) for _ in range(3))
    assert best < 1.5, f"trm-nb --help took {best:.2f} s"  # 0.4 s on an idle machine
    code = "import sys, trm_nb.cli; print({'torch', 'zarr', 'numpy', 'pydantic', 'IPython'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def _timed(command: list[str]) -> float:
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - started


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        pytest.param(["run", "nope.yaml"], 2, "params file not found: nope.yaml", id="no-params"),
        pytest.param(["run", "params/demo.yaml"], 2, "`trm-nb build` needs none", id="no-notebooks"),
        pytest.param(["build", "params/demo.yaml", "-p", "limt=3"], 2, "did you mean 'limit'?", id="misspelt"),
        pytest.param(["build", "params/demo.yaml", "-p", "limit"], 2, "-p expects key=value", id="no-value"),
        pytest.param(["build", "params/demo.yaml", "-p", "limit=-1"], 2, "limit", id="bad-value"),
        pytest.param(["status", "nowhere"], 2, "nowhere: no run here", id="status"),
        pytest.param(["verify", "nowhere"], 2, "nowhere: no run here", id="verify"),
        pytest.param(["report", "nowhere"], 2, "nowhere: no run here", id="report"),
        pytest.param(["cache", "stats", "nowhere"], 2, "nowhere: no run here", id="cache"),
        pytest.param(["reset", "nowhere", "--yes"], 2, "nowhere: no run here", id="reset"),
        pytest.param(["nonsense"], 2, "No such command", id="unknown-command"),
        pytest.param(["status", "--nonsense"], 2, "No such option", id="unknown-option"),
    ],
)
def test_a_users_mistake_is_a_sentence_and_exit_code_2(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert said in captured.err and "Traceback" not in captured.err
    assert not (project / "nowhere").exists()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_command_works_whatever_the_terminal_can_show(
    project: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    bad = project / "data" / "漢" / "ü.json"
    bad.parent.mkdir()
    bad.write_text("{bad")
    outputs = {}
    for command in COMMANDS_ON_A_RUN:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding, errors="backslashreplace"))
        assert main(list(command)) in (0, 2), command
        assert isinstance(sys.stdout, io.TextIOWrapper) and isinstance(sys.stdout.buffer, io.BytesIO)
        outputs[command] = sys.stdout.buffer.getvalue().decode(encoding)
    assert ("run é漢" if encoding == "utf-8" else "\\u6f22") in outputs[COMMANDS_ON_A_RUN[0]]
    assert ("█" if encoding == "utf-8" else "####") in outputs[("status", "run é漢")]
    assert json.loads(outputs[("status", "run é漢", "--json")])["rows_planned"] == 2


COMMANDS_ON_A_RUN = [
    ("build", "params/demo.yaml", "--output-dir", "run é漢"),
    ("status", "run é漢"),
    ("status", "run é漢", "--json"),
    ("verify", "run é漢", "--deep"),
    ("report", "run é漢"),
    ("doctor",),
    ("cache", "stats", "run é漢"),
    ("cache", "clear", "run é漢"),
    ("status", "nicht da ü漢"),
    ("reset", "run é漢", "--yes"),
]


def test_a_reader_that_goes_away_ends_the_output_alone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (["build", "params/demo.yaml"], ["build", "params/demo.yaml"], ["status", "outputs/demo"]):
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as stream, monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", stream)
            assert main(command) == 0
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", None)  # as after `>&-`
        assert main(["verify", "outputs/demo"]) == 0


def test_a_run_from_build_to_reset(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "params/demo.yaml"]) == 0
    built = out(capsys)
    assert "2 samples" in built and "content_digest" in built
    run = "outputs/demo"
    assert main(["status", run]) == 0 and "done: 2 samples planned" in out(capsys)
    assert main(["status", run, "--json"]) == 0
    assert json.loads(out(capsys))["samples_encoded"] == 2
    assert main(["verify", run, "--deep"]) == 0 and "whole" in out(capsys)
    assert main(["cache", "stats", run]) == 0 and "pictures" in out(capsys)
    assert main(["report", run]) == 0
    assert Path(out(capsys).strip()).read_text(encoding="utf-8").count("<main") == 1
    (chunk,) = [path for path in (project / run / "capsules.zarr" / "capsules" / "c").rglob("*") if path.is_file()]
    data = bytearray(chunk.read_bytes())
    data[10] ^= 1
    chunk.write_bytes(data)
    assert main(["verify", run, "--deep"]) == 1 and "1 damaged" in out(capsys)
    assert main(["build", "params/demo.yaml"]) == 0  # which mends it
    assert out(capsys).splitlines()[-1] == built.splitlines()[-1]
    assert main(["cache", "clear", run]) == 0 and "2 pictures deleted" in out(capsys)
    assert main(["reset", run, "--yes"]) == 0 and "progress.sqlite" in out(capsys)
    assert not (project / run / "progress.sqlite").exists()


def test_a_run_of_notebooks_says_what_it_did(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = nbformat.v4.new_code_cell("from trm_nb.records import UserError\nraise UserError('expected <a>, got b')")
    made = nbformat.v4.new_notebook(cells=[cell])
    nbformat.write(made, project / "notebooks" / "01_first.ipynb")
    assert main(["run", "params/demo.yaml", "-p", "limit=1"]) == 2
    captured = capsys.readouterr()
    assert "01_first: failed in " in captured.out and "index.html" in captured.out
    assert "01_first.ipynb, cell 2: expected <a>, got b (the executed notebook is" in captured.err
    assert "Traceback" not in captured.err
    assert "expected &lt;a&gt;" in (project / "outputs/demo/report/01_first.html").read_text(encoding="utf-8")


def test_doctor_lists_every_field(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = out(capsys)
    assert all(name in said for name in MultimodalDatasetConfig.model_fields)
    assert str(project) in said and "torch" in said and "GB free" in said


def test_interrupted_is_130_and_says_what_next(project: Path) -> None:
    (project / "data" / "a" / "one.txt").write_text("many lines\n" * 200_000, encoding="utf-8")
    child = subprocess.Popen(
        [*CLI, "build", "params/demo.yaml"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    path = project / "outputs" / "demo"
    end = time.monotonic() + 30
    while not (path / "progress.sqlite").exists() or not _planned(path):
        assert time.monotonic() < end and child.poll() is None, child.communicate()
        time.sleep(0.1)
    os.kill(child.pid, signal.SIGINT)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 130, errors
    assert "run again to continue" in errors and "Traceback" not in errors


def _planned(path: Path) -> int:
    tracker = TrainingProgressTracker(path)
    try:
        return tracker.rows_planned()
    finally:
        tracker.close()
