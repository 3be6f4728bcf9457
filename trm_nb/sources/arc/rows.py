"""ARC data in tables: a task, a list of pairs or a pair per row of JSON Lines, CSV or Parquet.

The first rows decide whether a table is one, as in `tables/rows.py` for puzzles. Columns may be nested, or text that
holds JSON. A row gives the item `file#row`, and `file#row/list` for each list of pairs beside a task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.records import Item, Rejected
from trm_nb.sources.arc import layouts as arc_layouts
from trm_nb.sources.arc import tasks as arc_tasks
from trm_nb.sources.arc.items import arc_items
from trm_nb.sources.byte_streams import RefusedError
from trm_nb.sources.files import Skipped, SourceFile, left_out
from trm_nb.sources.roots import printable
from trm_nb.sources.tables.columns import lacking
from trm_nb.sources.tables.csv_files import csv_rows
from trm_nb.sources.tables.lines import BadRow, Row, json_rows
from trm_nb.sources.tables.nested_parquet import nested_rows
from trm_nb.sources.tables.parquet import parquet_columns, parquet_rows

_SIGHT = 10  # rows looked at
_MOST_COLUMNS = 100  # that are read of a Parquet file
_TASK = {"train", "test"}
_NESTED = ("list", "large_list", "fixed_size_list", "struct", "extension")

Rows = Callable[[], Iterator[Row | BadRow]]


def arc_rows(
    file: SourceFile,
    source: str,
    kind: str,
    config: MultimodalDatasetConfig,
    label_of: Callable[[object], str | None],
) -> Iterator[Item | Rejected | Skipped] | None:
    """The items of a table of ARC data, streamed; None for any other table, and where the config names its columns.

    Args:
        file: The table.
        source: The file, as `Item.source` has it.
        kind: "jsonl", "csv" or "parquet".
        config: `text_column` and `image_column` win where the table has them; `label_column` is used.
        label_of: A class name out of a cell of the label column; raises RefusedError.

    Raises:
        RefusedError: For grids in a layout that is not known, and for a table without the label column.
    """
    try:
        rows, names = _reader(file, kind, config)
        sight = _Sight(rows, names) if rows else None
    except RefusedError:
        return None  # reading it as another kind of table reports why
    if rows is None or sight is None or not sight.is_arc(config):
        return None
    if sight.unknown and not sight.read:
        raise RefusedError(sight.unknown)
    if config.label_column is not None and config.label_column not in sight.names:
        raise RefusedError(lacking(config.label_column, sight.names))
    return _entries(file, source, rows, config, label_of)


def _reader(file: SourceFile, kind: str, config: MultimodalDatasetConfig) -> tuple[Rows | None, Sequence[str]]:
    """How the rows are read, None where the columns tell that they hold no grids; and the columns, where known."""
    if kind == "jsonl":
        return partial(json_rows, file.path, lists=True), ()
    if kind == "csv":
        return partial(csv_rows, file.path), ()
    types = dict(parquet_columns(file.path))
    nested = [name for name, of in types.items() if of.startswith(_NESTED) and of.count("list") > 1 and "int" in of]
    texts = [name for name in types if name in arc_layouts.NAMES and name not in nested]
    if not (nested or texts) or (_TASK.isdisjoint(types) and not {"text", "image"}.isdisjoint(types)):
        return None, ()
    plain = [name for name in types if name in arc_layouts.IDS or name == config.label_column]
    columns = list(dict.fromkeys([*nested, *texts, *plain]))[:_MOST_COLUMNS]
    return partial(nested_rows if nested else parquet_rows, file.path, columns), list(types)


class _Sight:
    """What the first rows are, one in memory at a time: how many there are, `known` as grids, and `read`."""

    def __init__(self, rows: Rows, names: Sequence[str]) -> None:
        self.names = dict.fromkeys(names)
        self.rows = self.known = self.read = self.tasks = 0
        self.unknown = ""
        with closing(rows()) as opened:  # type: ignore[type-var]
            for row in islice(opened, _SIGHT):
                if isinstance(row, Row):
                    self._look(row)

    def _look(self, row: Row) -> None:
        self.rows += 1
        self.names |= dict.fromkeys(row.values)
        try:
            leaves = arc_layouts.find(_value(row))
        except arc_tasks.ArcError as error:
            self.known += 1
            self.unknown = self.unknown or printable(f"row {row.number}: {error}", also="")
        else:
            self.known += leaves is not None
            self.read += leaves is not None
            self.tasks += any(leaf.task is not None for leaf in leaves or ())

    def is_arc(self, config: MultimodalDatasetConfig) -> bool:
        """Whether most rows are; in tables of texts or images only whole tasks count, as other data holds grids too."""
        if not {config.text_column, config.image_column}.isdisjoint(self.names):
            return False
        if not self.rows:
            return self.names.keys() >= _TASK  # none can be read; each says why
        return (self.known if {"text", "image"}.isdisjoint(self.names) else self.tasks) * 2 > self.rows


def _value(row: Row) -> Any:
    """What the row holds; a line of JSON that is a list has no columns (`tasks.parse_row`)."""
    return row.values[""] if list(row.values) == [""] else dict(row.values)


def _entries(
    file: SourceFile,
    source: str,
    rows: Rows,
    config: MultimodalDatasetConfig,
    label_of: Callable[[object], str | None],
) -> Iterator[Item | Rejected | Skipped]:
    reason = left_out("grid", config)
    if reason is not None:
        yield Skipped(file.name, reason)
        return
    for row in rows():
        name = f"{file.name}#{row.number}"
        if isinstance(row, BadRow):
            yield Rejected(name, printable(row.reason, also=""))
            continue
        try:
            label = file.label if config.label_column is None else label_of(row.values.get(config.label_column))
            leaves = arc_layouts.find(_value(row))
        except (RefusedError, arc_tasks.ArcError) as refusal:
            yield Rejected(name, printable(str(refusal), also=""))
            continue
        if leaves is None:
            yield Rejected(name, "no task, no list of pairs and no grid in this row")
            continue
        yield from arc_items(leaves, name, source, label, below="/")
