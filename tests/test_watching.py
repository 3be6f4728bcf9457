"""A notebook's run watches while another process works on it, and goes on when that is done."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.notebook.watching import WatchingRun
from trm_nb.progress.following import RUNNER

HOLD = """
import sys
from pathlib import Path
from trm_nb.storage.files import locked
with locked(Path(sys.argv[1]), "at work"):
    print("held", flush=True)
    sys.stdin.read()
"""
Make = Callable[..., MultimodalDatasetConfig]


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a folder's lock until its standard input is closed."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout and child.stdin
        assert child.stdout.readline() == "held\n"
        try:
            yield child
        finally:
            child.stdin.close()


@contextmanager
def released(child: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    """End the process after so long, so that whoever waits for it wrongly fails and does not hang."""
    assert child.stdin
    timer = threading.Timer(seconds, child.stdin.close)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def ended_soon(child: subprocess.Popen[str]) -> list[float]:
    """End a process shortly, and note when it was asked to."""
    asked: list[float] = []

    def end() -> None:
        asked.append(time.monotonic())
        assert child.stdin
        child.stdin.close()

    threading.Timer(0.3, end).start()
    return asked


@pytest.mark.parametrize("where", ["the dataset", "the notebooks", "the model"])
def test_it_watches_until_the_other_process_is_done(
    where: str, make_config: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(WatchingRun(make_config())) as run:
        run.tracker.beat()
        paths = {
            "the dataset": run.path,
            "the notebooks": run.paths.notebooks,
            "the model": run.paths.model("main").root,
        }
        with held(paths[where]) as child:
            asked = ended_soon(child)
            with run._training_alone() if where == "the model" else run.writing("a test"):
                assert asked, "it went on while the other process was at work"
        assert f"process {child.pid} (at work) works on {run.path}: watching" in capsys.readouterr().out


@pytest.mark.parametrize("why", ["nobody is at work", "it is executed by the other", "the dataset is there"])
def test_it_goes_on_at_once(why: str, make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(WatchingRun(make_config())) as run:
        run.tracker.beat()
        if why == "nobody is at work":
            assert not run.watch_others()
            return
        with held(run.paths.notebooks) as child, released(child, 30):
            if why == "the dataset is there":
                for stage in ("render", "encode", "consolidate"):
                    run.tracker.already_done(stage)
            else:
                monkeypatch.setenv(RUNNER, str(child.pid))
            assert not run.watch_others()


def test_its_own_lock_is_not_waited_for(make_config: Make) -> None:
    with closing(WatchingRun(make_config())) as run, run.writing("a test"):
        assert not run.watch_others()
        with closing(WatchingRun(run.config)) as other:
            assert not other.watch_others()
