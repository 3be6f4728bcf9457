"""Tables -> items: which columns hold texts, pictures, labels or puzzles, and what a row of them becomes.

The config names the columns; where it does not, they are `text` and `image`. A table without either is, as a packed
or a Parquet file, refused with the names of the columns that it has, and else a plain text like any other file. A row
becomes one item, `file#row`; where a table has texts and pictures, a row becomes two, `file#row/text` and
`file#row/image`. A table of Sudokus or mazes is known by its columns and what stands in them.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.records import ImageBytes, ImageFile, Item, Modality, Payload, Rejected
from trm_nb.sources.byte_streams import PACKED, RefusedError, is_picture, open_file, read_up_to, sha256_of_rest
from trm_nb.sources.files import Skipped, SourceFile, left_out, named_file
from trm_nb.sources.foreign_formats import HEAD_BYTES, foreign, no_image
from trm_nb.sources.line_tables import BadRow, Row, csv_columns, csv_rows, json_columns, json_rows
from trm_nb.sources.parquet_tables import parquet_columns, parquet_rows
from trm_nb.sources.puzzles import PuzzleError, is_puzzle, puzzle_columns, to_puzzle
from trm_nb.sources.roots import printable

MAX_PICTURE_BYTES = 256 * 2**20
MAX_TEXT = 8 * 2**20  # characters of one row; files of text may be longer, as they are cut
MAX_LABEL = 200  # characters; a longer one is no class's name
MAX_COLUMNS = 10_000
_LONGEST_PATH = 300  # characters; base64 that is longer and holds a known format is no path
_SIGHT = 10  # rows looked at for a puzzle

Kind: TypeAlias = Literal["jsonl", "csv", "parquet"]
_KINDS: dict[str, Kind] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which columns are used; None: there is no such one. `absent` is asked for, and another one is there."""

    text: str | None = None
    image: str | None = None
    question: str | None = None
    answer: str | None = None
    label: str | None = None
    absent: str | None = None


def table_entries(
    file: SourceFile, source: str, config: MultimodalDatasetConfig
) -> Iterator[Item | Rejected | Skipped] | None:
    """The items of a table, streamed; None for a file that is no table, or one to be read as a plain text.

    Raises RefusedError, at once or after some rows, for what makes (the rest of) the file unusable.
    """
    kind = table_kind(file.path)
    if kind is None:
        return None
    try:
        types = _columns_of(file.path, kind)
        columns = _choose(file.path, kind, types, config)
    except RefusedError:
        if _needs_columns(file.path, kind) or config.text_column or config.image_column or config.label_column:
            raise
        return None
    return None if columns is None else _entries(file, source, kind, columns, config)


def _needs_columns(path: Path, kind: Kind) -> bool:
    """Whether it can be read in no other way: JSON Lines and CSV are plain texts too."""
    return kind == "parquet" or path.suffix.lower() in PACKED


def table_kind(path: Path) -> Kind | None:
    """What kind of table a file is, by its suffixes; None: no table. Parquet is never packed from outside."""
    suffix = path.suffix.lower()
    if suffix in PACKED:
        kind = _KINDS.get(path.with_suffix("").suffix.lower())
        return None if kind == "parquet" else kind
    return _KINDS.get(suffix)


def _columns_of(path: Path, kind: Kind) -> dict[str, str]:
    """A table's columns with the type of each ("" where any row may hold another one); raises RefusedError."""
    columns = json_columns if kind == "jsonl" else csv_columns
    found = parquet_columns(path) if kind == "parquet" else [(name, "") for name in columns(path)]
    if len(found) > MAX_COLUMNS:
        raise RefusedError(f"expected at most {MAX_COLUMNS} columns, got {len(found)}")
    twice = next((name for name, count in Counter(name for name, _ in found).items() if count > 1), None)
    if twice is not None:
        raise RefusedError(f"the column {printable(twice, also='')!r} is there twice")
    return dict(found)


def _rows_of(path: Path, kind: Kind, columns: Sequence[str]) -> Iterator[Row | BadRow]:
    if kind == "parquet":
        return parquet_rows(path, columns)
    return csv_rows(path) if kind == "csv" else json_rows(path)


def _choose(path: Path, kind: Kind, types: Mapping[str, str], config: MultimodalDatasetConfig) -> _Columns | None:
    asked = [name for name in (config.text_column, config.image_column) if name is not None]
    missing = [name for name in asked if name not in types]
    text, image = config.text_column or "text", config.image_column or "image"
    label = config.label_column
    columns = _Columns(
        text if text in types else None,
        image if image in types else None,
        label=label,
        absent=next(iter(missing), None),
    )
    question, answer = puzzle_columns(types) or ("", None)
    no_other = (columns.text is None and columns.image is None) or (missing == asked != [])
    if no_other and question and _holds_puzzles(path, kind, question):
        columns = _Columns(question=question, answer=answer, label=label)
    elif missing and missing == asked:
        raise RefusedError(_lacking(missing[0], types))
    if columns.text is None and columns.image is None and columns.question is None:
        if _needs_columns(path, kind):
            raise RefusedError(f"a table without a column text or image: {_told(types)}; set text_column")
        return None
    if label is not None and label not in types:
        raise RefusedError(_lacking(label, types))
    _check_types(columns, types)
    return columns


def _holds_puzzles(path: Path, kind: Kind, question: str) -> bool:
    try:
        rows = list(islice(_rows_of(path, kind, [question]), _SIGHT))
    except RefusedError:
        return False
    whole = [row for row in rows if isinstance(row, Row)]
    return bool(whole) and sum(is_puzzle(row.values.get(question)) for row in whole) * 2 > len(whole)


def _check_types(columns: _Columns, types: Mapping[str, str]) -> None:
    """Refuse a Parquet file whose column cannot hold what is asked of it; elsewhere each row is checked."""
    text, no_class = ("string", "large_string", "string_view", "dictionary<values=string"), ("list", "struct", "map")
    for name in (columns.text, columns.question, columns.answer):
        if name is not None and types[name] and not types[name].startswith(text):
            raise RefusedError(f"column {name!r}: expected text, got {types[name]}")
    if columns.label is not None and types[columns.label].startswith(no_class):
        raise RefusedError(f"column {columns.label!r}: expected a class name or number, got {types[columns.label]}")


def _lacking(name: str, types: Mapping[str, str]) -> str:
    return f"no column {printable(name, also='')!r}: {_told(types)}"


def _told(types: Mapping[str, str]) -> str:
    names = [printable(name, also="")[:60] for name in types]
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"it has {', '.join(names[:20])}{more}" if names else "it has none"


# -- rows ------------------------------------------------------------------------------------------------------------


def _entries(
    file: SourceFile, source: str, kind: Kind, columns: _Columns, config: MultimodalDatasetConfig
) -> Iterator[Item | Rejected | Skipped]:
    if columns.absent is not None:
        yield Skipped(file.name, f"no column {printable(columns.absent, also='')!r} in it")
    parts: dict[Modality, str] = {}
    held: tuple[tuple[Modality, str | None], ...]
    held = (("text", columns.text), ("image", columns.image), ("grid", columns.question))
    for modality, column in held:
        reason = left_out(modality, config)
        if column is not None and reason is not None:
            yield Skipped(file.name, reason)
        elif column is not None:
            parts[modality] = column
    if not parts:
        return
    both = columns.text is not None and columns.image is not None
    wanted = [name for name in (*parts.values(), columns.answer, columns.label) if name is not None]
    empty = True
    for row in _rows_of(file.path, kind, list(dict.fromkeys(wanted))):
        empty = False
        name = f"{file.name}#{row.number}"
        if isinstance(row, BadRow):
            yield Rejected(name, printable(row.reason, also=""))
            continue
        there = [column for column in parts.values() if row.values.get(column) is not None]
        for modality, column in parts.items():
            item_id = f"{name}/{modality}" if both else name
            if there and column not in there:
                yield Skipped(item_id, f"no {printable(column, also='')!r} in this row, only {there[0]!r}")
                continue
            try:
                payload = _payload(modality, column, row, columns, file)
                label = file.label if columns.label is None else _label(row.values.get(columns.label))
            except (RefusedError, PuzzleError) as refusal:
                yield Rejected(item_id, printable(str(refusal), also=""))
                continue
            encoding = row.encoding if modality == "text" else None
            yield Item(item_id, modality, payload, source, label, encoding)
    if empty:
        yield Rejected(file.name, "a table without rows")


def _payload(modality: Modality, column: str, row: Row, columns: _Columns, file: SourceFile) -> Payload:
    value = row.values.get(column)
    if value is None:
        raise RefusedError(f"no {printable(column, also='')!r} in this row")
    if modality == "image":
        return _picture(value, file)
    if not isinstance(value, str):
        raise RefusedError(f"{printable(column, also='')!r}: expected text, got {type(value).__name__}")
    if len(value) > MAX_TEXT:
        raise RefusedError(f"a text of {len(value)} characters; at most {MAX_TEXT} are taken from one row")
    if modality == "text":
        return value
    answer = row.values.get(columns.answer) if columns.answer is not None else None
    return to_puzzle(value, answer if isinstance(answer, str) else None)


def _label(value: object) -> str | None:
    """A class's name: str() of a text, a number or a truth value; None for none, not-a-number and the empty text."""
    if value is None or value == "" or value != value:
        return None
    if isinstance(value, bytes | list | tuple | dict):
        raise RefusedError(f"label: expected a class name or number, got {type(value).__name__}")
    label = str(value)
    if len(label) > MAX_LABEL:
        raise RefusedError(f"label: {len(label)} characters, {MAX_LABEL} are the most a class name has")
    return printable(label, also="")


def _picture(value: object, file: SourceFile) -> ImageBytes | ImageFile:
    """A picture from its bytes, from Hugging Face's `{"bytes": ..., "path": ...}`, from base64, or beside the table."""
    if isinstance(value, dict):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if isinstance(value, str):
        data = _from_base64(value)
        if data is None:
            return _beside(value, file)
        value = data
    if not isinstance(value, bytes):
        got = "nothing" if value is None else type(value).__name__
        raise RefusedError(f"expected a picture as bytes, base64 or a relative path, got {got}")
    if is_picture(value) is False:
        raise RefusedError(no_image(value))
    return ImageBytes(value)


def _from_base64(text: str) -> bytes | None:
    """The bytes of a data URL, or of base64 that holds a picture; None: then it is a path."""
    url = text.startswith("data:")
    try:
        data = base64.b64decode(text.partition(",")[2] if url else text, validate=True)
    except (binascii.Error, ValueError):
        if url:
            raise RefusedError("a data URL that is no base64") from None
        return None
    is_path = not url and is_picture(data) is False and (len(text) < _LONGEST_PATH or foreign(data) is None)
    return None if is_path else data


def _beside(name: str, table: SourceFile) -> ImageFile:
    """An image in a file that the table names; raises RefusedError."""
    shown = printable(name[:100], also="")
    if "://" in name:
        raise RefusedError(f"the address {shown!r}: pictures are not fetched; download it, and name the file")
    try:
        path = named_file(table, name)
        if os.path.isdir(path):  # noqa: PTH112 - as Path's raises for a name that is too long
            raise RefusedError("not a file but a folder; name one image in each row")
        with open_file(path) as file:
            if os.fstat(file.fileno()).st_size > MAX_PICTURE_BYTES:
                raise RefusedError(f"larger than {MAX_PICTURE_BYTES // 2**20} MiB, the most that is read of a picture")
            head = read_up_to(file, HEAD_BYTES)
            if is_picture(head) is False:
                raise RefusedError(no_image(head))
            return ImageFile(path, sha256_of_rest(file, head))
    except RefusedError as refusal:
        raise RefusedError(f"{shown!r}: {refusal}") from None
