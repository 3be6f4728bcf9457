"""What a worker process does besides its task: it says which sample it is at, and ends where it would hang.

Choice: the note is a small file that the run reads when the worker is gone, and the watchdog a thread of C
(`faulthandler`), as a decoder that hangs may never come back to Python. A sample at which a worker stays longer than
SAMPLE_SECONDS kills it: a task of 1000 with one that hangs ends after three times that and two renderings of the
others. Cost: two system calls a note.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import TypeAlias, TypeVar

T = TypeVar("T")
R = TypeVar("R")
Task: TypeAlias = Sequence[T]

SAMPLE_SECONDS = 60.0  # a worker that is longer at one sample hangs, and ends itself
_ONE_AT_A_TIME = threading.Lock()  # a worker with several threads has one note and one watchdog all the same


class _Worker:
    """What this process knows of itself when it is a worker: the file of its note, and when its watchdog was set."""

    note: FileIO | None = None
    watched_since: float | None = None


def in_worker() -> bool:
    """Whether a task of `run_tasks` is at work in this process because it is a worker of the pool."""
    return _Worker.note is not None


def working_on(sample: int | None, seconds: float = SAMPLE_SECONDS) -> None:
    """Say, in a worker, at which sample of its task it is from now on; None: at none that could do harm.

    A sample that takes longer than `seconds` (up to a quarter more) ends the process. Elsewhere this does nothing.
    """
    if _Worker.note is None:
        return
    with contextlib.suppress(OSError):  # a full disk: the note only makes a search shorter
        _Worker.note.seek(0)
        _Worker.note.write(b"%12d" % (-1 if sample is None else sample))
    since, now = _Worker.watched_since, time.monotonic()
    if sample is None:
        faulthandler.cancel_dump_traceback_later()
        _Worker.watched_since = None
    elif since is None or now - since > seconds / 4:  # setting it starts a thread, which small images would feel
        # a thread of C, so that code that never comes back to Python is no hindrance
        faulthandler.dump_traceback_later(1.25 * seconds, exit=True, file=_nowhere())
        _Worker.watched_since = now


@lru_cache(maxsize=1)
def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def noted(function: Callable[[Task[T]], R], task: Task[T], note: str) -> R:
    """Do a task in a worker, which writes on the note that the run made for it.

    A task without a note was given up: when a process of the pool dies, the run hears of it a moment before the
    others are killed, and until then they take further tasks.
    """
    with _ONE_AT_A_TIME, Path(note).open("r+b", buffering=0) as _Worker.note:
        try:
            working_on(None)
            return function(task)
        finally:
            working_on(None)
            _Worker.note = None


def start_worker(parent: int) -> None:
    """In a new worker: yield to the encoder, which needs the cores more, and end when the run was killed."""
    for signum in (signal.SIGINT, signal.SIGTERM):  # sent to all processes of a job, they are the run's to handle
        signal.signal(signum, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(5)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="watch the parent", daemon=True).start()
