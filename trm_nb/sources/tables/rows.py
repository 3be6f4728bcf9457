"""Tables -> items: what a row becomes.

`columns.py` says which columns hold texts, images, labels or puzzles. A row becomes one item, `file#row`; where a
table has texts and images, a row becomes two, `file#row/text` and `file#row/image`. An image in a file belongs to the
row that names it (`named_images.py`). Tables of ARC data are left to `arc/rows.py`.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.records import ImageBytes, ImageFile, Item, Modality, Payload, Rejected
from trm_nb.sources.arc.rows import arc_rows
from trm_nb.sources.byte_streams import RefusedError, is_image, open_file, read_up_to, sha256_of_rest
from trm_nb.sources.files import Skipped, SourceFile, left_out
from trm_nb.sources.foreign_formats import HEAD_BYTES, foreign, no_image
from trm_nb.sources.puzzles.text import PuzzleError, to_puzzle
from trm_nb.sources.roots import printable
from trm_nb.sources.tables.columns import Columns, Table, find_columns, table_kind
from trm_nb.sources.tables.lines import NO_ROWS, BadRow, Row
from trm_nb.sources.tables.paths import named_file

MAX_IMAGE_BYTES = 256 * 2**20
MAX_TEXT = 8 * 2**20  # characters of one row; files of text may be longer, as they are cut
MAX_LABEL = 200  # characters; a longer one is no class's name
_LONGEST_PATH = 300  # characters; base64 that is longer and holds a known format is no path


def table_entries(
    file: SourceFile, source: str, config: MultimodalDatasetConfig
) -> Iterator[Item | Rejected | Skipped] | None:
    """The items of a table, streamed; None for a file that is no table.

    Raises RefusedError, at once or after some rows, for what makes (the rest of) the file unusable.
    """
    kind = table_kind(file.path)
    if kind is None:
        return None
    if kind != "json" and (tasks := arc_rows(file, source, kind, config, _label)) is not None:
        return tasks
    found = find_columns(file.path, config)
    return None if found is None else _entries(file, source, *found, config)


# -- rows ------------------------------------------------------------------------------------------------------------


def _entries(
    file: SourceFile, source: str, table: Table, columns: Columns, config: MultimodalDatasetConfig
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
    wanted = [name for name in (*parts.values(), columns.answer, columns.label) if name is not None]
    empty = True
    for row in table.rows(list(dict.fromkeys(wanted))):
        empty = False
        if isinstance(row, BadRow):
            yield Rejected(f"{file.name}#{row.number}", printable(row.reason, also=""))
        else:
            yield from _row_entries(file, source, row, parts, columns)
    if empty:
        yield Rejected(file.name, NO_ROWS)


def _row_entries(
    file: SourceFile, source: str, row: Row, parts: dict[Modality, str], columns: Columns
) -> Iterator[Item | Rejected | Skipped]:
    both = columns.text is not None and columns.image is not None
    there = [column for column in parts.values() if row.values.get(column) is not None]
    made: dict[Modality, Payload | RefusedError | PuzzleError] = {}
    for modality, column in parts.items():
        try:
            made[modality] = _payload(modality, column, row, columns, file)
        except (RefusedError, PuzzleError) as refusal:
            made[modality] = refusal
    for modality, payload in made.items():
        item_id = f"{file.name}#{row.number}" + (f"/{modality}" if both else "")
        if there and parts[modality] not in there:
            yield Skipped(item_id, f"no {printable(parts[modality], also='')!r} in this row, only {there[0]!r}")
            continue
        try:
            if isinstance(payload, RefusedError | PuzzleError):
                raise payload
            label = _folder(file, made.get("image")) if columns.label is None else _label(row.values.get(columns.label))
        except (RefusedError, PuzzleError) as refusal:
            yield Rejected(item_id, printable(str(refusal), also=""))
            continue
        yield Item(item_id, modality, payload, source, label, row.encoding if modality == "text" else None)


def _folder(file: SourceFile, image: object) -> str:
    """The label of a row without a label column: as the walk labels the image in a file, or else the table."""
    if isinstance(image, ImageFile) and "/" not in file.name.partition("/")[2]:
        folders = image.path.relative_to(file.path.parent).parts[:-1]
        return printable(folders[0]) if folders else file.label
    return file.label


def _payload(modality: Modality, column: str, row: Row, columns: Columns, file: SourceFile) -> Payload:
    value = row.values.get(column)
    if value is None:
        raise RefusedError(f"no {printable(column, also='')!r} in this row")
    if modality == "image":
        return _image(value, file)
    if not isinstance(value, str):
        raise RefusedError(f"{printable(column, also='')!r}: expected text, got {type(value).__name__}")
    if len(value) > MAX_TEXT:
        raise RefusedError(f"a text of {len(value)} characters; at most {MAX_TEXT} are taken from one row")
    if modality == "text":
        return value
    answer = row.values.get(columns.answer) if columns.answer is not None else None
    return to_puzzle(value, answer if isinstance(answer, str) else None)


def _label(value: object) -> str | None:
    """A class's name: a text without the spaces around it, a number, 3 for 3.0 as well, or a truth value as text.

    None for none, not-a-number and the empty text.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)  # as programs write a column of integers in which some are missing
    if value is None or value != value:
        return None
    if isinstance(value, bytes | list | tuple | dict):
        raise RefusedError(f"label: expected a class name or number, got {type(value).__name__}")
    label = str(value).strip()
    if len(label) > MAX_LABEL:
        raise RefusedError(f"label: {len(label)} characters, {MAX_LABEL} are the most a class name has")
    return printable(label, also="") or None


def _image(value: object, file: SourceFile) -> ImageBytes | ImageFile:
    """An image from its bytes, from Hugging Face's `{"bytes": ..., "path": ...}`, from base64, or beside the table."""
    if isinstance(value, dict):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if isinstance(value, str):
        data = _from_base64(value)
        if data is None:
            return _beside(value, file)
        value = data
    if not isinstance(value, bytes):
        got = "nothing" if value is None else type(value).__name__
        raise RefusedError(f"expected an image as bytes, base64 or a relative path, got {got}")
    if is_image(value) is False:
        raise RefusedError(no_image(value))
    return ImageBytes(value)


def _from_base64(text: str) -> bytes | None:
    """The bytes of a data URL, or of base64 that holds an image; None: then it is a path."""
    url = text.startswith("data:")
    try:
        data = base64.b64decode(text.partition(",")[2] if url else text, validate=True)
    except (binascii.Error, ValueError):
        if url:
            raise RefusedError("a data URL that is no base64") from None
        return None
    is_path = not url and is_image(data) is False and (len(text) < _LONGEST_PATH or foreign(data) is None)
    return None if is_path else data


def _beside(name: str, table: SourceFile) -> ImageFile:
    """An image in a file that the table names; raises RefusedError."""
    shown = printable(name[:100], also="")
    if "://" in name:
        raise RefusedError(f"the address {shown!r}: images are not fetched; download it, and name the file")
    try:
        path = named_file(table, name)
        if os.path.isdir(path):  # noqa: PTH112 - as Path's raises for a name that is too long
            raise RefusedError("not a file but a folder; name one image in each row")
        with open_file(path) as file:
            if os.fstat(file.fileno()).st_size > MAX_IMAGE_BYTES:
                raise RefusedError(f"larger than {MAX_IMAGE_BYTES // 2**20} MiB, the most that is read of an image")
            head = read_up_to(file, HEAD_BYTES)
            if is_image(head) is False:
                raise RefusedError(no_image(head))
            return ImageFile(path, sha256_of_rest(file, head))
    except RefusedError as refusal:
        raise RefusedError(f"{shown!r}: {refusal}") from None
