"""Following a run that another process works on, until there is nothing more to wait for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

RUNNER = "TRM_NB_RUNNER"  # the variable that names, to a process and what it starts, the one that waits for it
ENDS = ("done", "failed", "stalled")
REST_SECONDS = 30.0  # between two stages a run is at rest for less


def followed(
    read: Callable[[], dict[str, Any]], timeout: float | None = None, poll: float = 1.0
) -> Iterator[dict[str, Any]]:
    """The run's states, every `poll` seconds, until it ends.

    That is when it is done, failed or stalled, when the process is gone, when it was seen at work and then rests for
    half a minute, or after `timeout` seconds.

    Args:
        read: reads what `TrainingProgressTracker.get_stats` returns.
        timeout: in seconds; None waits without end.
        poll: seconds between two looks.
    """
    end = None if timeout is None else time.monotonic() + timeout
    worked = math.inf  # when the run was last seen at work
    while True:
        stats, now = read(), time.monotonic()
        yield stats
        if stats["state"].startswith("running"):
            worked = now
        over = stats["state"] in ENDS or now - worked > REST_SECONDS
        if over or (stats["state"] == "stopped" and stats["gone"]) or (end is not None and now >= end):
            return
        time.sleep(poll if end is None else max(0.0, min(poll, end - now)))
