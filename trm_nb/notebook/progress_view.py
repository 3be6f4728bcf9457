"""ProgressView: what the tracker holds, as bars, in a cell that works or in one that only watches.

Everything shown is read from `tracker.get_stats()`, so it is also right after a crash: a silent run is "stalled", never
a frozen bar. The view has text and HTML forms of its own (bars are characters, which survive every sanitiser) and
updates through a display handle of its own cell. That leaves the final state in the saved notebook, which tqdm,
threads, asyncio tasks and widgets do not. A front end that is there live gets widgets, which are closed at the end and
replaced by the snapshot. No threads: the working loop calls `tick`.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from html import escape
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

from trm_nb.progress.following import followed
from trm_nb.progress.stats_text import (
    bar,
    count,
    curve,
    duration,
    for_output,
    headline,
    notes_of,
    part_done,
    rate,
    said,
    shown_stages,
)

if TYPE_CHECKING:
    from trm_nb.progress.tracker import TrainingProgressTracker

_REFRESH_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of a run in two forms. Displays as HTML where there is HTML, and prints as text."""

    text: str
    html: str
    state: str

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": self.text, "text/html": self.html}

    def __str__(self) -> str:
        """The text, with bars and curves of ASCII where standard output cannot take it as it is."""
        return for_output(self.text)


_Line: TypeAlias = tuple[str, str, str, str]


class _Handle(Protocol):
    def update(self, obj: object) -> None: ...


class ProgressView:
    """A run's progress. `ProgressView(tracker)` as a cell's last line shows it once; `watch` follows it.

    `with ProgressView(run.tracker) as view: run.up_to("encode", on_progress=view.tick)` follows the cell's own work.
    """

    def __init__(self, tracker: TrainingProgressTracker) -> None:
        self.tracker = tracker
        self._first_seen: dict[str, tuple[float, int]] = {}
        self._next_refresh = 0.0
        self._handle: _Handle | None = None
        self._widgets: _Widgets | None = None

    def snapshot(self) -> Snapshot:
        """The state of this moment, as the tracker holds it."""
        return self._render(self.tracker.get_stats())

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return self.snapshot()._repr_mimebundle_()

    def watch(self, timeout: float | None = None, poll: float = 1.0) -> str:
        """Follow a run that another process works on, until it is done, failed, stalled or `timeout` seconds passed.

        It also ends when that process is gone, or was seen at work and then rests for half a minute. Returns the last
        state. Reads the tracker every `poll` seconds; interrupting the cell ends the watching only.
        """
        with self, contextlib.suppress(KeyboardInterrupt):
            for _ in followed(self._refresh, timeout, poll):
                pass
        return self.snapshot().state

    def __enter__(self) -> Self:
        self._first_seen.clear()
        if live_front_end():
            self._widgets = _Widgets()
            self._handle = _display(self._widgets.box)
        else:
            self._handle = _display(self.snapshot())
        self._refresh()
        return self

    def tick(self) -> None:
        """Called often by the working loop; reads the tracker and redraws at most twice a second."""
        if time.monotonic() >= self._next_refresh:
            self._refresh()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        last = self.snapshot()
        if self._handle is not None:
            self._handle.update(last)
        else:  # a plain script: there is nothing to update, so the end is printed too
            print(last)
        if self._widgets is not None:
            self._widgets.close()
        self._handle = self._widgets = None

    def _refresh(self) -> dict[str, Any]:
        started = time.monotonic()
        stats = self.tracker.get_stats()
        if self._widgets is not None:
            lines = self._lines(stats)
            self._widgets.show(shown_stages(stats), lines, headline(stats), self._all_notes(stats))
        elif self._handle is not None:
            self._handle.update(self._render(stats))
        now = time.monotonic()
        self._next_refresh = now + max(_REFRESH_SECONDS, 20 * (now - started))  # at most a twentieth of the time
        return stats

    def _lines(self, stats: dict[str, Any]) -> list[_Line]:
        """A line a stage: its name, bar, count, and what else there is to say."""
        return [
            (name, bar(stage), count(stage), said(stage) + self._pace(name, stage))
            for name, stage in shown_stages(stats).items()
        ]

    def _all_notes(self, stats: dict[str, Any]) -> list[str]:
        return [*self._losses(stats), *notes_of(stats)]

    def _render(self, stats: dict[str, Any]) -> Snapshot:
        title, lines, notes = headline(stats), self._lines(stats), self._all_notes(stats)
        widths = [max(len(line[column]) for line in lines) for column in range(3)]
        rows = ["  ".join(part.ljust(width) for part, width in zip(line, [*widths, 0], strict=True)) for line in lines]
        text = "\n".join([title, *(row.rstrip() for row in rows), *notes])
        return Snapshot(text, _html(title, lines, notes), stats["state"])

    def _losses(self, stats: dict[str, Any]) -> list[str]:
        """The loss and the validation accuracy of each training that has begun, as curves of characters."""
        found = []
        for name in ("fit", "train"):
            if name not in stats["stages"] or stats["stages"][name]["status"] == "waiting":
                continue
            steps = self.tracker.training_curve(name)
            losses = [step["loss"] for step in steps if "loss" in step]
            if len(losses) > 1:
                found.append(f"loss of {name}: {losses[0]:.3g} {curve(losses)} {losses[-1]:.3g}")
            right = [step["val_exact_accuracy"] for step in steps if "val_exact_accuracy" in step]
            if len(right) > 1:
                found.append(f"validation of {name}: {right[0]:.1%} {curve(right)} {right[-1]:.1%}")
        return found

    def _pace(self, name: str, stage: dict[str, Any]) -> str:
        """How fast a running stage is, and how long it will still take, from what this view itself has seen of it."""
        if stage["status"] != "running":
            self._first_seen.pop(name, None)
            return ""
        now = time.monotonic()
        since, done = self._first_seen.setdefault(name, (now, stage["done"]))
        if now - since < 5 or stage["done"] <= done:
            return ""
        a_second = (stage["done"] - done) / (now - since)
        left = f", about {duration((stage['total'] - stage['done']) / a_second)} left" if stage["total"] else ""
        return f", {rate(a_second, stage['unit'])}{left}"


def _html(title: str, lines: list[_Line], notes: list[str]) -> str:
    cells = 3 * ['<td style="text-align:left;padding:0 0.8em 0 0;white-space:pre">']
    cells += ['<td style="text-align:left;white-space:pre-wrap">']  # what a stage said may be long
    body = "".join(
        f"<tr>{''.join(f'{cell}{escape(part)}</td>' for cell, part in zip(cells, line, strict=True))}</tr>"
        for line in lines
    )
    said = "".join(f'<div class="trm-note">{escape(note)}</div>' for note in notes)
    table = f'<table class="trm-bars" style="font-family:monospace">{body}</table>'
    return f'<div class="trm-progress"><strong>{escape(title)}</strong>{table}{said}</div>'


def _display(obj: object) -> _Handle | None:
    """Show something in this cell, and get the handle to change it; None outside a kernel, where it is printed."""
    from IPython.display import display

    handle: _Handle | None = display(obj, display_id=True)  # type: ignore[no-untyped-call]
    return handle


def live_front_end() -> bool:
    """Whether a Jupyter server started this kernel for somebody (it then names the notebook; nbclient does not)."""
    return bool(os.environ.get("JPY_SESSION_NAME"))


class _Widgets:
    """The live form: a title and a bar a stage. Owned by the view, closed at its end, so no widget is ever saved."""

    def __init__(self) -> None:
        import ipywidgets

        self._new_bar = ipywidgets.FloatProgress
        self._new_label = ipywidgets.Label
        self._title = ipywidgets.Label()
        self._note = ipywidgets.Label()
        self._bars: dict[str, tuple[Any, Any]] = {}
        self._row = ipywidgets.HBox
        self.box = ipywidgets.VBox([self._title, self._note])

    def show(self, stages: dict[str, dict[str, Any]], lines: list[_Line], title: str, notes: list[str]) -> None:
        for name, _, counted, status in lines:
            if name not in self._bars:
                self._bars[name] = (self._new_bar(description=name, max=1.0), self._new_label())
            bar, label = self._bars[name]
            bar.value = part_done(stages[name])
            bar.bar_style = {"done": "success", "failed": "danger"}.get(stages[name]["status"], "")
            label.value = ", ".join(part for part in (counted, status) if part)
        self._title.value = title
        self._note.value = " · ".join(notes)
        if len(self.box.children) == 2:
            self.box.children = [self._title, *(self._row(pair) for pair in self._bars.values()), self._note]

    def close(self) -> None:
        for row in self.box.children:
            for child in getattr(row, "children", ()):
                child.close()
            row.close()
        self.box.close()
