"""A sweep in a terminal: a line for each training that is at work, redrawn in place, below those that are done.

Where the output is no terminal, a line now and then. Everything is read from the run's tracker, so that trainings in
other processes are shown as well as those in this one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from trm_nb.batch.sweep import Trained
from trm_nb.progress.stats_text import bar, for_output
from trm_nb.progress.tracker import TrainingProgressTracker

if TYPE_CHECKING:
    from rich.live import Live

_REDRAW_SECONDS, _LINE_SECONDS = 0.5, 30.0


class SweepView:
    """Shows a sweep of models with these names. The sweep calls `tick`, and `say` gets what became of each."""

    def __init__(self, tracker: TrainingProgressTracker, names: Sequence[str]) -> None:
        self.tracker, self.names = tracker, names
        self.done: list[Trained] = []
        self._live: Live | None = None
        self._pause = _REDRAW_SECONDS if sys.stdout.isatty() else _LINE_SECONDS
        self._next = time.monotonic() + self._pause

    def say(self, trained: Trained) -> None:
        """Print what became of a model, above the lines of those that are at work."""
        self.done.append(trained)
        width = max(map(len, self.names))
        outcome = trained.error or f"{trained.accuracy:.1%}"
        line = f"{len(self.done)} of {len(self.names)}  {trained.trial.name:{width}}  {outcome}"
        if self._live is None:
            print(line, flush=True)
        else:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def tick(self) -> None:
        """Redraw when it is time."""
        started = time.monotonic()
        if started < self._next:
            return
        lines = self._lines()
        if sys.stdout.isatty():
            self._redraw(lines)
        elif lines:
            print(f"{len(self.done)} of {len(self.names)} done; " + "; ".join(lines), flush=True)
        now = time.monotonic()
        self._next = now + max(self._pause, 20 * (now - started))  # at most a twentieth of the time

    def _lines(self) -> list[str]:
        """A line for each training at work."""
        known = self.tracker.trainings()
        at_work = {name: known[name] for name in self.names if name in known and known[name]["status"] == "running"}
        width = max(map(len, at_work), default=0)
        tty = sys.stdout.isatty()
        return [
            f"{name:{width}}  {bar(one) + '  ' if tty else ''}{one['done']:,} of {one['total'] or '?'} steps"
            for name, one in at_work.items()
        ]

    def _redraw(self, lines: Sequence[str]) -> None:
        from rich.live import Live
        from rich.text import Text

        if self._live is None:
            self._live = Live(auto_refresh=False, transient=True)
            self._live.start()
        head = f"{len(self.done)} of {len(self.names)} models done, {len(lines)} at work"
        self._live.update(Text(for_output("\n".join([head, *lines])), no_wrap=True, overflow="crop"), refresh=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
