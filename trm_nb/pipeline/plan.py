"""The plan: which sample is which row, for ever.

Sources are read in a stable order; an item is laid out, which fixes its samples, and each sample gets the next row.
Planning streams: rows are recorded in blocks, also in the middle of a file, and their samples handed on to be rendered
while what comes later is still unread. A file is recorded with its last row. Running again walks the same order. A file
that has not changed and has nothing waiting is not opened; for the others, one that was left half recorded among them,
every row must come out as it was recorded, or the run refuses and says what was added, changed or gone. When all rows
are recorded, they get their splits (splits.py), and the plan is frozen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import NOT_HIGHLIGHTED, RejectedError, UserError
from trm_nb.pipeline.check import ADVICE
from trm_nb.pipeline.splits import assign_splits, group_of
from trm_nb.progress.planned import PlannedFile, PlannedRow
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import ImageBytes, Item, Rejected, Sample, targets_of
from trm_nb.sources.files import Skipped, SourceFile
from trm_nb.sources.reader import NamedImages, Reading, scan
from trm_nb.storage.files import fault_point

BLOCK = 1000  # rows recorded in one transaction
BLOCK_BYTES = 32 * 2**20  # of images out of tables, which are held until their rows are recorded


@dataclass(slots=True)
class _Block:
    """What is recorded together, and then handed on."""

    rows: list[PlannedRow] = field(default_factory=list)
    files: list[PlannedFile] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    held_bytes: int = 0

    def full(self) -> bool:
        return len(self.rows) + len(self.files) + len(self.rejected) >= BLOCK or self.held_bytes >= BLOCK_BYTES


@dataclass(frozen=True, slots=True)
class _Laid:
    """An item, its samples and their rows, not yet recorded."""

    samples: list[Sample]
    split_group: str
    target: str | None


class Planner:
    """Turns sources into rows.

    `lay_out` gives an item's samples; it raises RejectedError for what cannot be used. `on_first_rows` is called
    before the first rows of all are recorded.
    """

    def __init__(
        self,
        tracker: TrainingProgressTracker,
        lay_out: Callable[[Item], list[Sample]],
        *,
        seed: int = 0,
        test_fraction: float = 0.2,
        val_fraction: float = 0.1,
        split_sudokus: Literal["solution", "relabelled"] = "solution",
        arc_forms: int = 0,
        max_errors: int | float | None = None,
        on_first_rows: Callable[[], None] = lambda: None,
    ) -> None:
        self.tracker, self.lay_out, self.on_first_rows = tracker, lay_out, on_first_rows
        self.seed, self.fractions, self.max_errors = seed, (test_fraction, val_fraction), max_errors
        self._together = {"names_count": split_sudokus == "solution", "forms_count": not arc_forms}
        self._named_images: Container[Path] = ()
        self._next_row = 0
        self._recorded = tracker.rows_planned()
        self._frozen = bool(tracker.get("plan_frozen", False))
        if not self._frozen:
            tracker.forget_what_has_no_row()

    def from_sources(self, config: MultimodalDatasetConfig) -> Iterator[Sample]:
        """The samples of the config's sources, in row order, without those of files that have nothing waiting."""
        self._named_images = NamedImages(config)
        yield from self.from_readings(scan(config, self._resolved_items, self._named_images))

    def from_items(self, items: Iterable[Item]) -> Iterator[Sample]:
        """The samples of items handed over in memory, in row order."""
        yield from self.from_readings(_as_reading(item) for item in items)

    def _resolved_items(self, file: SourceFile) -> int | None:
        """How many items an unchanged file holds of which no sample is waiting; None: it must be read."""
        known = self.tracker.file(file.name)
        if known is None or (known.size, known.mtime_ns) != (file.size, file.mtime_ns):
            return None
        if self.tracker.pending(known.first_row, known.first_row + known.rows):
            return None
        if not self._frozen and known.rows and file.path in self._named_images:
            return None  # by a table that was added since: its row must not come out as it was
        self._next_row += known.rows
        return known.items

    def from_readings(self, readings: Iterable[Reading]) -> Iterator[Sample]:
        """Lay out, record or compare, hand on; then freeze the plan. Raises UserError when nothing is usable."""
        block = _Block()
        for reading in readings:
            first, items, left_out = self._next_row, 0, 0
            for entry in reading.entries:
                if isinstance(entry, Skipped):
                    left_out += 1
                    continue
                items += isinstance(entry, Item)  # as `scan` counts them, also when they cannot be laid out
                self._add(entry, block)
                if block.full():
                    self._record(block)
                    yield from block.samples
                    block = _Block()
            stat = (reading.file.size, reading.file.mtime_ns, reading.sha256())
            block.files.append(PlannedFile(reading.file.name, *stat, first, self._next_row - first, items, left_out))
            if block.full():
                self._record(block)
                yield from block.samples
                block = _Block()
        self._record(block)
        yield from block.samples
        self._freeze()

    def _add(self, entry: Item | Rejected, block: _Block) -> None:
        laid = entry if isinstance(entry, Rejected) else self._lay(entry)
        if isinstance(laid, Rejected):
            block.rejected.append(laid)
            return
        for sample in laid.samples:
            block.rows.append(_row(self._next_row, sample, laid))
            self._next_row += 1
        block.samples += laid.samples
        block.notes |= {sample.item_id: sample.note for sample in laid.samples[:1] if sample.note}
        if isinstance(entry, Item) and isinstance(entry.payload, ImageBytes):
            block.held_bytes += len(entry.payload.data)

    def _lay(self, item: Item) -> _Laid | Rejected:
        if self._next_row < self._recorded:
            item = as_noted(item, self.tracker)
        try:
            samples = self.lay_out(item)
            return _Laid(samples, group_of(item, self.seed, **self._together), _target(item))
        except RejectedError as error:
            return Rejected(item.item_id, str(error))

    def _record(self, block: _Block) -> None:
        old = [row for row in block.rows if row.row < self._recorded]
        waiting: list[Sample] = []  # those of the old rows that are still to be rendered
        for now, sample in zip(old, block.samples, strict=False):  # one at a time: files in between were not opened
            was = self.tracker.rows(now.row, now.row + 1)[0]
            if replace(was, status="planned", split="") != now:
                raise UserError(
                    f"the sources changed: row {now.row} was {was.sample_id} and is now {_changed(was, now)}{ADVICE}"
                )
            if was.status == "planned":
                waiting.append(sample)
        block.samples[: len(old)] = waiting
        new = block.rows[len(old) :]
        if new and self._frozen:
            raise UserError(f"the sources changed: {new[0].sample_id} was added{ADVICE}")
        if new and not self._recorded:
            self.on_first_rows()  # what the rows are made with is frozen before they are recorded
        self.tracker.add_rows(new, block.files, block.rejected, block.notes)
        refuse_too_many_errors(self.tracker, self.max_errors)
        fault_point("rows-planned")

    def _freeze(self) -> None:
        refuse_too_many_errors(self.tracker, self.max_errors, final=True)
        if self._next_row == 0:
            raise UserError(_nothing_usable(self.tracker))
        if self._next_row < self._recorded:
            gone = self.tracker.rows(self._next_row, self._next_row + 1)[0]
            raise UserError(f"the sources changed: {gone.sample_id} is gone{ADVICE}")
        if not self._frozen:
            with self.tracker.transaction():
                assign_splits(self.tracker, *self.fractions)
                self.tracker.set("plan_frozen", True)


def as_noted(item: Item, tracker: TrainingProgressTracker) -> Item:
    """The item, plain if the plan found that it cannot be highlighted: a time limit decides that once for a run."""
    return replace(item, plain=tracker.note(item.item_id).startswith(NOT_HIGHLIGHTED))


def refuse_too_many_errors(tracker: TrainingProgressTracker, limit: int | float | None, final: bool = False) -> None:
    """Raise UserError when more items and samples are quarantined than `limit`, a count or, below 1, a part of all.

    A part is looked at when all is known, `final`: a build may begin with its worst.
    """
    if limit is None or (limit < 1 and not final and limit > 0):
        return
    bad = tracker.quarantined()
    if bad > (limit if limit >= 1 else limit * (tracker.rows_planned() + tracker.items_quarantined())):
        first = tracker.rejected()[0]
        raise UserError(f"{bad} quarantined, and max_errors is {limit}; the first: {first.path}: {first.reason}")


def _changed(was: PlannedRow, now: PlannedRow) -> str:
    return "of other content" if was.sample_id == now.sample_id else now.sample_id


def _row(row: int, sample: Sample, laid: _Laid) -> PlannedRow:
    return PlannedRow(
        row, sample.sample_id, sample.item_id, sample.modality, sample.source, sample.page, sample.pages,
        sample.label, "", sample.key, target=laid.target, split_group=laid.split_group,
    )  # fmt: skip


def _target(item: Item) -> str | None:
    grids = [grid.tolist() for grid in targets_of(item.payload)]
    return json.dumps(grids, separators=(",", ":")) if grids else None


def _as_reading(item: Item) -> Reading:
    return Reading(SourceFile(Path(item.item_id), item.item_id, item.label or "", 0), iter([item]))


def _nothing_usable(tracker: TrainingProgressTracker) -> str:
    bad, left_out = tracker.rejected(), tracker.left_out()
    if bad:
        return f"nothing usable in the sources: {len(bad)} quarantined, the first {bad[0].path}: {bad[0].reason}"
    if left_out:
        settings = "include_text, _images, _grids or arc_side"
        return f"nothing usable in the sources: all {left_out} files are left out by {settings}"
    return "nothing usable in the sources: they hold no items"
