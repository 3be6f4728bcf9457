"""A job in a process of its own: the parent's side (`supervise`) and the child's (`obey_the_parent`).

The job is one line of JSON on the child's standard input. The end of standard input means that the parent is gone, or
wants the child to stop, so a child never outlives a parent, however that was ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from trm_nb.progress.following import RUNNER

SECONDS_TO_STOP = 20.0  # a child that was asked to stop saves what it has
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: its exit code, and the last line that it said."""

    code: int
    last_line: str


def supervise(
    module: str,
    job: Mapping[str, Any],
    folder: Path,
    tick: Callable[[], None],
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run `python -m module` in `folder` to its end, with the job on its standard input.

    Args:
        module: whose `main` reads the job.
        job: JSON values.
        folder: the child's working directory.
        tick: called every fifth of a second; whatever it raises stops the child and passes on.
        environment: variables in addition to those of this process.
    """
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=folder,
            env=_environment() | dict(environment or {}), start_new_session=True,
        )  # fmt: skip
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(job).encode() + b"\n")
            child.stdin.flush()
            while True:
                try:
                    child.wait(timeout=0.2)
                    break
                except subprocess.TimeoutExpired:
                    tick()
        finally:
            _end(child, child.stdin)
        return Ended(child.returncode, _last_line(log))


def _end(child: subprocess.Popen[bytes], stdin: IO[bytes]) -> None:
    try:
        stdin.close()
        child.wait(timeout=SECONDS_TO_STOP)
    except BrokenPipeError:
        child.wait()
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _environment() -> dict[str, str]:
    """The child finds the trm_nb that is running here, installed or not, and knows who waits for it."""
    home = str(Path(__file__).parents[2])
    given = os.environ.get("PYTHONPATH")
    path = home if not given else f"{home}{os.pathsep}{given}"
    return {**os.environ, "PYTHONPATH": path, RUNNER: str(os.getpid())}


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def obey_the_parent() -> dict[str, Any]:
    """In the child: read the job; from then on SIGINT, SIGTERM and the parent's end raise KeyboardInterrupt, once."""
    job: dict[str, Any] = json.loads(sys.stdin.readline())
    for signum in (signal.SIGINT, signal.SIGTERM):  # what a shell starts with & inherits that SIGINT is ignored
        signal.signal(signum, _stop)
    threading.Thread(target=_follow_the_parent, daemon=True).start()
    return job


def _stop(signum: int, frame: FrameType | None) -> None:
    """Interrupt once: the parent's SIGINT may follow a SIGTERM to all processes of a job while this one cleans up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise KeyboardInterrupt


def _follow_the_parent() -> None:
    """Interrupt this process when standard input ends: the parent has gone, however it went."""
    while os.read(0, 1024):  # not sys.stdin: a thread that waits inside its buffer would block the interpreter's end
        pass
    os.kill(os.getpid(), signal.SIGINT)
