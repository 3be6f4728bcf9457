"""A run's progress in a terminal: bars that redraw in place, or now and then a line where the output is no terminal.

And what came out of it, as the last words of a command: lines that fit 80 columns.
"""

from __future__ import annotations

import sys
import textwrap
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from trm_nb.notebook.progress_view import ProgressView
from trm_nb.progress.run_folder import RunPaths

if TYPE_CHECKING:
    from rich.live import Live

    from trm_nb.progress.tracker import TrainingProgressTracker
    from trm_nb.training.results import Result

_REDRAW_SECONDS = 0.5
_LINE_SECONDS = 10.0
_COLUMNS = 80


class TerminalView:
    """Shows what the tracker holds while a command works. The working loop calls `tick`; there is no thread."""

    def __init__(self, tracker: TrainingProgressTracker, title: str) -> None:
        self.tracker = tracker
        self._title = title
        self._view = ProgressView(tracker)
        self._next = time.monotonic() + (_REDRAW_SECONDS if sys.stdout.isatty() else _LINE_SECONDS)
        self._last_line = ""
        self._live: Live | None = None

    def tick(self) -> None:
        """Redraw when it is time."""
        started = time.monotonic()
        if started < self._next:
            return
        if sys.stdout.isatty():
            self._redraw()
        else:
            self._print_line()
        now = time.monotonic()
        pause = _REDRAW_SECONDS if sys.stdout.isatty() else _LINE_SECONDS
        self._next = now + max(pause, 20 * (now - started))  # at most a twentieth of the time

    def _redraw(self) -> None:
        from rich.live import Live
        from rich.text import Text

        if self._live is None:
            self._live = Live(auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(Text(f"{self._title}  {self._view.snapshot()}", no_wrap=True, overflow="crop"), refresh=True)

    def _print_line(self) -> None:
        stages = self.tracker.get_stats()["stages"]
        at_work = [
            f"{name} {s['done']:,} of {s['total'] or '?'} {s['unit']}"
            for name, s in stages.items()
            if s["status"] == "running"
        ]
        line = f"{self._title}: {', '.join(at_work)}"
        if at_work and line != self._last_line:
            print(line, flush=True)
            self._last_line = line

    def close(self) -> None:
        """Take the bars away; what was printed stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def say_what_came_out(run: Path, new: bool) -> None:
    """Print each executed notebook's finding, how much is quarantined, and where the report is.

    The report is written again where something in it is `new`.
    """
    from trm_nb.notebook.prose import NO_BREAK
    from trm_nb.progress.tracker import TrainingProgressTracker
    from trm_nb.report.report import headlines, write_report

    index = RunPaths(run).report / "index.html"
    if new or not index.is_file():
        write_report(run)
    found = headlines(run)
    width = max((len(name) for name, _ in found), default=0)
    for name, finding in found:
        hanging = {"initial_indent": f"{name:{width}}  ", "subsequent_indent": " " * (width + 2)}
        print(textwrap.fill(finding, _COLUMNS, **hanging).replace(NO_BREAK, " ") if finding else name)  # type: ignore[arg-type]
    tracker = TrainingProgressTracker(run)
    for line in quarantined(run, tracker.quarantined()):
        print(line)
    tracker.close()
    print(f"report: {from_here(index)}", flush=True)


def quarantined(run: Path, count: int) -> list[str]:
    """How many items and samples could not be used and where to read why; no line where there are none."""
    reasons = RunPaths(run).quarantine
    where = f"reasons: {from_here(reasons)}" if reasons.is_file() else f"reasons: trm-nb status {from_here(run)}"
    return [f"{count:,} quarantined, {where}"] if count else []


def result_of(result: Result, model: Path) -> str:
    """A training's result on the held-out samples, the best constant prediction, and where the model is."""
    from trm_nb.training.objective import constant_baseline

    constant = constant_baseline(result.predictions.labels).all(1).mean()
    objective, measured = result.objective, result.accuracy
    return (
        f"trained: {measured.share:.1%} of {measured.rows:,} held-out {objective.correct}\n"
        f"  (95 % interval {measured.low:.1%} to {measured.high:.1%};\n"
        f"  {objective.constant}: {constant:.1%})\n"
        f"{_chosen(result)}"
        f"model: {from_here(model)}"
    )


def _chosen(result: Result) -> str:
    """Which step's weights these are."""
    trained, validation = result.trained, result.val_accuracy
    if trained is None or validation is None:
        return ""
    early = ", which stopped early" if trained.stopped_early else ""
    best = f"step {trained.best_step:,} of {trained.steps:,}{early}"
    return f"chosen by validation: {best} ({validation.share:.1%} of {validation.rows:,} validation samples)\n"


def from_here(path: Path) -> str:
    """A path as short as it can be said: relative where it lies below the current folder."""
    whole, here = path.absolute(), Path.cwd()
    return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)
