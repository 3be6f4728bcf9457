"""A pipeline in the background: `trm-nb run` or `trm-nb build` in a process of its own, to be watched and stopped.

A process and not a thread, so that it has an interpreter to itself, outlives the notebook, and stops as it does on the
command line: SIGTERM keeps what was done, and running again continues.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trm_nb.progress.following import RUNNER

# Variables that mark a kernel as displayed by a front end or executed by a runner; the child's notebooks are neither.
_OURS = ("JPY_SESSION_NAME", "JPY_PARENT_PID", "MPLBACKEND", RUNNER)
LOG_BYTES = 20_000  # of the end of what the child says


class Background:
    """A command of the command line at work.

    Args:
        command: what follows `trm-nb`.
        folder: its working directory.
    """

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in _OURS}
        home, given = str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{home}{os.pathsep}{given}" if given else home
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as this object
        weakref.finalize(self, self._log.close)
        self._child = subprocess.Popen(
            [sys.executable, "-m", "trm_nb.cli", *command], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
            stdout=self._log, stderr=self._log, start_new_session=True,
        )  # fmt: skip

    @property
    def running(self) -> bool:
        """Whether it is at work."""
        return self._child.poll() is None

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._child.poll()

    def stop(self) -> None:
        """Ask it to stop as Ctrl-C does: what was done is kept. Returns at once; asking twice kills it."""
        if self.running:
            self._child.send_signal(signal.SIGTERM)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for its end; False where it is still at work after so many seconds."""
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def last_line(self) -> str:
        """The last line of what it said, "" for nothing."""
        size = os.fstat(self._log.fileno()).st_size
        tail = os.pread(self._log.fileno(), LOG_BYTES, max(0, size - LOG_BYTES)).decode(errors="replace")
        return next((line.strip() for line in reversed(tail.splitlines()) if line.strip()), "")


def command_for(name: str, params: Path, overrides: Mapping[str, Any]) -> list[str]:
    """The words behind `trm-nb` that run or build a params file with other values for some fields."""
    pairs = [f"{field}={json.dumps(value, ensure_ascii=False)}" for field, value in overrides.items()]
    return [name, str(params), *(word for pair in pairs for word in ("-p", pair))]
