"""A time limit on a block of Python code, in any thread and on any system.

Choice: one watching thread raises TimeLimitError inside the block, by CPython's PyThreadState_SetAsyncExc. An alarm
signal would reach the main thread only, and images are planned and, when they are few, rendered in another one. Neither
interrupts C code, only what comes after it; a worker process has workers/worker.py's watchdog for that.
Cost: about a microsecond a block, and a thread that checks four times a second while a limit is running, else sleeps.
"""

from __future__ import annotations

import ctypes
import threading
import time
from itertools import count

CHECK_SECONDS = 0.25


class TimeLimitError(BaseException):
    """The block took too long. No Exception, so that no `except Exception` on the way swallows it."""


class time_limit:  # noqa: N801
    """`with time_limit(seconds):` raises TimeLimitError in the block when it takes longer, give or take CHECK_SECONDS.

    Whoever removes a limit from `_running`, the block that ends or the watcher, has it: so it is never raised after the
    block. It may be raised at the block's very end, from `__exit__`. Limits may be nested; each raises in its own time,
    or when its block ends.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        self.thread, self.deadline = threading.get_ident(), time.monotonic() + self.seconds
        self.raised = threading.Event()
        self._number = next(_numbers)
        _start_watching()
        _running[self._number] = self
        _wake.set()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if _running.pop(self._number, None) is not None:
            return
        self.raised.wait()  # the watcher has it: the error comes here if it did not come in the block
        _raise_in(self.thread, None)
        if kind is None:
            raise TimeLimitError


_running: dict[int, time_limit] = {}  # its single operations are atomic; a lock could be left locked by the error
_numbers = count()
_wake = threading.Event()
_watcher: threading.Thread | None = None


def _start_watching() -> None:
    global _watcher
    if _watcher is None or not _watcher.is_alive():  # a forked process has the variable, not the thread
        _watcher = threading.Thread(target=_watch, name="time limits", daemon=True)
        _watcher.start()


def _watch() -> None:
    while True:
        if not _running:
            _wake.wait()
        _wake.clear()
        time.sleep(CHECK_SECONDS)
        now = time.monotonic()
        for number, limit in list(_running.items()):
            if limit.deadline <= now and _running.pop(number, None) is not None:
                _raise_in(limit.thread, TimeLimitError)
                limit.raised.set()


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Let `error` come up in a thread at its next step in Python; None takes back one that has not come up."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error and ctypes.py_object(error))
