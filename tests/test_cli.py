"""The command line, run in this process and, where speed or signals matter, in one of its own."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest

from trm_nb.cli.main import main
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.progress.tracker import TrainingProgressTracker

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


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import contextlib, os, sys\n"
        "from trm_nb.cli.main import main\n"
        "with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):\n"
        "    assert main(['--help']) == 0\n"
        "print({'torch', 'zarr', 'pydantic', 'IPython', 'ipywidgets', 'matplotlib'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


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
    assert main(["status", run, "--watch"]) == 0 and "done: 2 samples planned" in out(capsys)  # it has ended
    assert main(["status", run, "--json"]) == 0
    assert json.loads(out(capsys))["samples_encoded"] == 2
    assert main(["verify", run, "--deep"]) == 0 and "whole" in out(capsys)
    assert main(["cache", "stats", run]) == 0 and "images" in out(capsys)
    assert main(["report", run]) == 0
    assert Path(out(capsys).strip()).read_text(encoding="utf-8").count("<main") == 1
    (chunk,) = [path for path in (project / run / "capsules.zarr" / "capsules" / "c").rglob("*") if path.is_file()]
    data = bytearray(chunk.read_bytes())
    data[10] ^= 1
    chunk.write_bytes(data)
    assert main(["verify", run, "--deep"]) == 1 and "1 damaged" in out(capsys)
    assert main(["build", "params/demo.yaml"]) == 0  # which repairs it
    assert out(capsys).splitlines()[-1] == built.splitlines()[-1]
    assert main(["cache", "clear", run]) == 0 and "2 images deleted" in out(capsys)
    assert main(["reset", run, "--yes"]) == 0 and "progress.sqlite" in out(capsys)
    assert not (project / run / "progress.sqlite").exists()
    for option in ([], ["--with-cache"]):
        assert main(["reset", run, "--yes", *option]) == 0
        for command in (["status"], ["verify"], ["report"], ["cache", "stats"]):
            assert main([*command, run]) == 2
            assert f"{run}: no dataset here yet; `trm-nb build PARAMS.yaml` makes one" in capsys.readouterr().err


def test_a_run_of_notebooks_says_what_it_did(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = nbformat.v4.new_code_cell("from trm_nb.errors import UserError\nraise UserError('expected <a>, got b')")
    made = nbformat.v4.new_notebook(cells=[cell])
    nbformat.write(made, project / "notebooks" / "01_first.ipynb")
    assert main(["run", "params/demo.yaml", "-p", "limit=1"]) == 2
    captured = capsys.readouterr()
    assert "01_first: failed in " in captured.out and "index.html" in captured.out
    assert "01_first.ipynb, cell 2: expected <a>, got b (the executed notebook is" in captured.err
    assert "Traceback" not in captured.err
    assert "expected &lt;a&gt;" in (project / "outputs/demo/report/01_first.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_several_runs_are_executed_one_after_the_other(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [nbformat.v4.new_code_cell("output_dir = None", metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell("assert 'broken' not in output_dir")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), project / "notebooks" / "01_only.ipynb")  # type: ignore[no-untyped-call]
    text = (project / "params" / "demo.yaml").read_text(encoding="utf-8")
    for name, old, new in [("broken", "demo", "broken"), ("misspelt", "encoder", "encodr"), ("other", "demo", "other")]:
        (project / "params" / f"{name}.yaml").write_text(text.replace(old, new), encoding="utf-8")
    files = [f"params/{name}.yaml" for name in ("broken", "misspelt", "other")]
    assert main(["run", *files]) == 1
    said = capsys.readouterr()
    assert said.out.endswith(
        "params/broken.yaml    failed\nparams/misspelt.yaml  failed\nparams/other.yaml     done\n1 of 3 runs are done\n"
    )
    assert "01_only.ipynb, cell 3: AssertionError" in said.err and "did you mean 'encoder'?" in said.err
    assert (project / "outputs" / "other" / "report" / "index.html").is_file()
    assert main(["run", files[2]]) == 0
    assert main(["run", *files, "-p", "output_dir=x"]) == 2 and "would share one output_dir" in capsys.readouterr().err


def test_doctor_lists_every_field(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = out(capsys)
    assert all(name in said for name in MultimodalDatasetConfig.model_fields)
    assert str(project) in said and "torch" in said and "GB free" in said


@pytest.mark.parametrize(
    ("signum", "workers", "said"),
    [
        pytest.param(signal.SIGINT, "0", "trm-nb: interrupted; what was done is kept", id="ctrl-c"),
        pytest.param(signal.SIGTERM, "1", "trm-nb: stopped by SIGTERM; what was done is kept", id="sigterm"),
    ],
)
def test_a_build_that_is_stopped_says_what_next(project: Path, signum: int, workers: str, said: str) -> None:
    (project / "data" / "a" / "one.txt").write_text("many lines\n" * 1_000_000, encoding="utf-8")
    command = [*CLI, "build", "params/demo.yaml", "-p", f"workers={workers}"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    path = project / "outputs" / "demo"
    _wait_until(lambda: (path / "progress.sqlite").exists() and bool(_planned(path)), child)
    os.killpg(child.pid, signum)  # as SLURM does, to all of them; the workers leave it to the build
    _, errors = child.communicate(timeout=30)  # the workers have its standard error, so they are gone too
    assert child.returncode == 128 + signum, errors
    assert errors == f"{said}, run again to continue\n"
    tracker = TrainingProgressTracker(path)
    stats = tracker.get_stats()
    tracker.close()
    assert (stats["state"], stats["stages"]["render"]["status"], stats["gone"]) == ("stopped", "stopped", None)


def test_sigterm_stops_a_run_publishes_the_notebook_and_writes_the_report(project: Path) -> None:
    sleeps = "from pathlib import Path\nimport os, time\nPath('started').write_text(str(os.getpid()))\ntime.sleep(600)"
    cells = [nbformat.v4.new_code_cell(source) for source in ("print('before')", sleeps, "print('never')")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), project / "notebooks" / "01_first.ipynb")
    command = [*CLI, "run", "params/demo.yaml"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    started = project / "started"
    _wait_until(lambda: started.is_file() and bool(started.read_text()), child)
    child.send_signal(signal.SIGTERM)
    output, errors = child.communicate(timeout=60)
    assert child.returncode == 143, errors
    assert errors == "trm-nb: stopped by SIGTERM; what was done is kept, run again to continue\n"
    assert "01_first  interrupted" in output and output.endswith("report: outputs/demo/report/index.html\n")
    run = project / "outputs" / "demo"
    made = json.loads((run / "notebooks" / "01_first.ipynb").read_text(encoding="utf-8"))
    assert made["metadata"]["trm_nb"]["status"] == "interrupted"
    statuses = [cell["metadata"]["papermill"]["status"] for cell in made["cells"]]
    assert statuses == ["completed", "completed", "failed", "pending"]
    assert "interrupted" in (run / "report" / "index.html").read_text(encoding="utf-8")
    assert not Path("/proc", started.read_text()).exists()


def test_a_command_leaves_the_handlers_of_its_caller_alone(project: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    assert main(["build", "params/demo.yaml"]) == 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == before


def _wait_until(condition: Callable[[], bool], child: subprocess.Popen[str], seconds: float = 120) -> None:
    """Wait for what a process does; if it ends before, or takes too long on a busy machine, kill it and fail."""
    end = time.monotonic() + seconds
    while not condition():
        if child.poll() is not None or time.monotonic() > end:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            pytest.fail(f"it did not begin: {child.communicate()}")
        time.sleep(0.1)


def _planned(path: Path) -> int:
    tracker = TrainingProgressTracker(path)
    try:
        return tracker.rows_planned()
    finally:
        tracker.close()
