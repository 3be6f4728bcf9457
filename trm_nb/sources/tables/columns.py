"""What a table is, which columns it has, and which of them hold texts, images, puzzles and labels.

The config names the columns; where it does not, they are `text` and `image`. A name is matched exactly or, where only
one column comes into question, whatever its case and the spaces around it. A table of Sudokus or mazes is recognised by
its columns and by what its first rows hold. A CSV, JSON Lines or Parquet file without any of these is refused, never
read as plain text: labels and solutions would be rendered into the image. A JSON list of objects is read as a table
only where it has such a column; otherwise it is a document.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.sources.byte_streams import PACKED, RefusedError
from trm_nb.sources.puzzles.text import SHAPES, is_puzzle, puzzle_columns, resembles_puzzle
from trm_nb.sources.roots import printable
from trm_nb.sources.tables.csv_files import csv_columns, csv_rows
from trm_nb.sources.tables.lines import (
    MAX_COLUMNS,
    BadRow,
    Row,
    is_json_lines,
    json_columns,
    json_records,
    json_rows,
    record_rows,
)
from trm_nb.sources.tables.parquet import parquet_columns, parquet_rows

_SIGHT = 10  # rows looked at for a puzzle

Kind: TypeAlias = Literal["jsonl", "json", "csv", "parquet"]
_KINDS: dict[str, Kind] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "csv", ".tab": "csv",
    ".parquet": "parquet",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """A file that is a table: its columns with their types ("" where any row may hold another one).

    `doubled` are the names that several columns have. `records` are the rows of a JSON list, None for other files.
    """

    path: Path
    kind: Kind
    types: Mapping[str, str]
    doubled: frozenset[str] = frozenset()
    records: list[dict[str, Any]] | None = None

    def rows(self, columns: Sequence[str]) -> Iterator[Row | BadRow]:
        """The rows, with at least these columns; raises RefusedError where the rest of the file cannot be read."""
        if self.records is not None:
            return record_rows(self.records)
        if self.kind == "parquet":
            return parquet_rows(self.path, columns)
        return csv_rows(self.path) if self.kind == "csv" else json_rows(self.path)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns are used; None: there is no such one. `absent` is asked for, and another one is there."""

    text: str | None = None
    image: str | None = None
    question: str | None = None
    answer: str | None = None
    label: str | None = None
    absent: str | None = None


def table_kind(path: Path) -> Kind | None:
    """What kind of table a file may be, by its suffixes; None: no table. Parquet is never packed from outside.

    Under `.json` it is "jsonl" where the content is JSON Lines, else "json": a list of objects, or a document.
    """
    suffix, packed = path.suffix.lower(), path.suffix.lower() in PACKED
    kind = _KINDS.get(path.with_suffix("").suffix.lower() if packed else suffix)
    if kind == "json" and is_json_lines(path, alone=packed):
        return "jsonl"
    return None if packed and kind == "parquet" else kind


def find_columns(path: Path, config: MultimodalDatasetConfig) -> tuple[Table, Columns] | None:
    """The table in a file, and what is used of it; None for a file that is no table.

    Raises RefusedError for a table that cannot be used.
    """
    table = _table_in(path, config)
    if table is None:
        return None
    columns = _choose(table, config)
    if columns is None:
        return None
    _check_types(columns, table.types)
    return table, columns


def _table_in(path: Path, config: MultimodalDatasetConfig) -> Table | None:
    kind = table_kind(path)
    if kind is None:
        return None
    records = json_records(path) if kind == "json" else None
    if kind == "json" and records is None:
        if path.suffix.lower() in PACKED:
            raise RefusedError("packed JSON that is neither JSON Lines nor a list of objects; unpack it")
        return None
    if records is not None:
        found = [(name, "") for name in dict.fromkeys(name for row in records for name in row)]
    elif kind == "parquet":
        found = parquet_columns(path)
    elif kind == "csv":
        found = [(name, "") for name in csv_columns(path)]
    else:
        found = [(name, "") for name in json_columns(path, lambda names: _enough(names, config))]
    if len(found) > MAX_COLUMNS:
        raise RefusedError(f"expected at most {MAX_COLUMNS} columns, got {len(found)}")
    doubled = frozenset(name for name, count in Counter(name for name, _ in found).items() if count > 1)
    return Table(path, kind, dict(found), doubled, records)


def _enough(names: Collection[str], config: MultimodalDatasetConfig) -> bool:
    """Whether later rows of JSON Lines need not be searched for further columns."""
    text, image, label = config.text_column or "text", config.image_column or "image", config.label_column
    used = _named(text, names) or _named(image, names) or puzzle_columns(names)
    return bool(used) and (label is None or _named(label, names) is not None)


def _named(name: str, columns: Collection[str]) -> str | None:
    """The column of this name; if there is none, the only one that has it in another case or with spaces around it."""
    if name in columns:
        return name
    alike = [column for column in columns if _folded(column) == _folded(name)]
    return alike[0] if len(alike) == 1 else None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()


def _choose(table: Table, config: MultimodalDatasetConfig) -> Columns | None:
    def named(name: str) -> str | None:
        found = _named(name, table.types)
        if found in table.doubled:
            raise RefusedError(f"the column {printable(found, also='')!r} is there twice; rename one of them")
        return found

    text, image = named(config.text_column or "text"), named(config.image_column or "image")
    label = None if config.label_column is None else named(config.label_column)
    asked = [name for name in (config.text_column, config.image_column) if name is not None]
    absent = [name for name in asked if named(name) is None]
    none_asked_for = absent == asked != []
    columns = Columns(text, image, label=label, absent=next(iter(absent), None))
    if none_asked_for or (text is None and image is None):
        puzzles = _puzzles(table, label)
        if puzzles is None and table.records is not None:
            return None
        if puzzles is None and none_asked_for:
            raise RefusedError(lacking(absent[0], table.types))
        if puzzles is None:
            needed = f"a table without a column text or image: {_listed(table.types)}"
            raise RefusedError(f"{needed}; set text_column or image_column")
        columns = puzzles
    if config.label_column is not None and label is None:
        raise RefusedError(lacking(config.label_column, table.types))
    return columns


def _puzzles(table: Table, label: str | None) -> Columns | None:
    """The columns of a table of puzzles; None for a table of something else.

    Raises RefusedError for puzzles none of which can be read.
    """
    question, answer = puzzle_columns(table.types) or (None, None)
    if question is None or question in table.doubled or answer in table.doubled:
        return None
    wanted = [question] if answer is None else [question, answer]
    try:
        seen = [row.values.get(question) for row in islice(table.rows(wanted), _SIGHT) if isinstance(row, Row)]
    except RefusedError:
        return None
    alike = [value for value in seen if is_puzzle(value) or resembles_puzzle(value)]
    if not alike or len(alike) * 2 < len(seen):
        return None
    if not any(map(is_puzzle, alike)):
        first = str(alike[0])
        raise RefusedError(
            f"the column {printable(question, also='')!r} seems to hold puzzles, but none of the first {len(seen)} can "
            f"be read: expected {SHAPES}, got {len(first)} characters: {first[:20]!r}"
        )
    return Columns(question=question, answer=answer, label=label)


def _check_types(columns: Columns, types: Mapping[str, str]) -> None:
    """Refuse a Parquet file whose column cannot hold what is asked of it; elsewhere each row is checked."""
    text, no_class = ("string", "large_string", "string_view", "dictionary<values=string"), ("list", "struct", "map")
    for name in (columns.text, columns.question, columns.answer):
        if name is not None and types[name] and not types[name].startswith(text):
            raise RefusedError(f"column {name!r}: expected text, got {types[name]}")
    if columns.label is not None and types[columns.label].startswith(no_class):
        raise RefusedError(f"column {columns.label!r}: expected a class name or number, got {types[columns.label]}")


def lacking(name: str, columns: Collection[str]) -> str:
    """That a table has no such column, and which ones it has."""
    return f"no column {printable(name, also='')!r}: {_listed(columns)}"


def _listed(columns: Collection[str]) -> str:
    names = [printable(name, also="")[:60] for name in columns]
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"it has {', '.join(names[:20])}{more}" if names else "it has none"
