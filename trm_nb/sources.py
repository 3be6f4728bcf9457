"""Files and folders -> items, always in the same order.

What a file is, its content decides: magic bytes make a picture, `.json` of ARC's shape makes grids, strict UTF-8
without NUL makes a text. A suffix only ever adds a refusal (`.png` that is no picture), and a path's words mean
nothing. Whatever cannot be used is named with its reason, and nothing is guessed: another encoding than UTF-8 is
refused, not decoded approximately.

A file is opened once and read whole, which bounds memory by `MAX_FILE_BYTES` and gives its sha256 for free (only
Kaggle's solutions are read twice, for themselves and for their tasks). Nothing but a regular file is ever waited for.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from trm_nb import arc_json
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.records import ImageFile, Item, Rejected
from trm_nb.source_files import Skipped, SourceFile, kind, list_source_files, printable, why

__all__ = ["Entry", "Reading", "Skipped", "SourceFile", "list_files", "read", "read_items", "scan"]

MAX_FILE_BYTES = 256 * 2**20
MAX_JSON_BYTES = 64 * 2**20  # parsed JSON takes ten times its size in memory
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp"})
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_CHALLENGES, _SOLUTIONS = "_challenges.json", "_solutions.json"

Entry: TypeAlias = Item | Rejected | Skipped


@dataclass(frozen=True, slots=True)
class Reading:
    """What one file held. `sha256` is of its bytes, "" where they could not be read.

    No entries: another file's reading used it (Kaggle's solutions).
    """

    file: SourceFile
    sha256: str
    entries: tuple[Entry, ...]


class _RefusedError(Exception):
    """Why a file cannot be used; becomes its Rejected."""


def scan(
    config: MultimodalDatasetConfig, known_items: Callable[[SourceFile], int | None] | None = None
) -> Iterator[Reading]:
    """Read every file of the sources, in order, up to `config.limit` items a source. Raises as `list_files`.

    A file for which `known_items` tells how many items it holds is counted, and not read.
    """
    found: dict[int, int] = {}
    for file in list_files(config):
        left = None if config.limit is None else config.limit - found.get(file.source, 0)
        if left == 0:
            continue
        items = known_items(file) if known_items else None
        if items is not None:
            found[file.source] = found.get(file.source, 0) + items
            continue
        reading = read(file, config)
        entries = reading.entries if left is None else _first_items(reading.entries, left)
        found[file.source] = found.get(file.source, 0) + sum(isinstance(entry, Item) for entry in entries)
        yield Reading(file, reading.sha256, entries)


def list_files(config: MultimodalDatasetConfig) -> Iterator[SourceFile]:
    """All files of `config.source_paths`, sources in their order, then by the bytes of the posix path.

    Raises UserError before the first file for a path that is missing and for a folder without files.
    """
    return list_source_files(config.source_paths)


def read_items(file: SourceFile, config: MultimodalDatasetConfig) -> Iterator[Entry]:
    """The items of one file in their order in it; what cannot be used as Rejected, what is left out as Skipped."""
    return iter(read(file, config).entries)


def read(file: SourceFile, config: MultimodalDatasetConfig) -> Reading:
    """Open one file, once. Never raises for what the file holds."""
    if file.refusal is not None:
        return Reading(file, "", (file.refusal,))
    try:
        data = _read_bytes(file.path)
    except _RefusedError as refusal:
        return Reading(file, "", (Rejected(file.name, str(refusal)),))
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        entries = tuple(_entries(file, data, sha256, config))
    except (_RefusedError, arc_json.ArcError) as refusal:
        entries = (Rejected(file.name, str(refusal)),)
    return Reading(file, sha256, entries)


def _first_items(entries: tuple[Entry, ...], count: int) -> tuple[Entry, ...]:
    kept: list[Entry] = []
    for entry in entries:
        if isinstance(entry, Item):
            if count == 0:
                break
            count -= 1
        kept.append(entry)
    return tuple(kept)


def _read_bytes(path: Path) -> bytes:
    """The bytes of a regular file; refuses anything that became something else since it was listed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise _RefusedError(f"not a file but a {kind(mode)}")
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _RefusedError(f"cannot be read: {why(error)}") from None
    if len(data) > MAX_FILE_BYTES:
        raise _RefusedError(f"larger than {MAX_FILE_BYTES // 2**20} MiB, the most that is read; split it")
    return data


def _entries(file: SourceFile, data: bytes, sha256: str, config: MultimodalDatasetConfig) -> Iterator[Entry]:
    suffix = file.path.suffix.lower()
    source = printable(str(file.path), also="")
    if _is_image(data, suffix):
        if config.include_images:
            yield Item(file.name, "image", ImageFile(file.path, sha256), source, file.label)
        else:
            yield Skipped(file.name, "pictures are left out: include_images is false")
        return
    if suffix in IMAGE_SUFFIXES:
        raise _RefusedError(f"no picture in a {suffix} file" + (": it is empty" if not data else ""))
    text = _decode(data)
    grids = _grids(file, text, source) if suffix == ".json" else None
    if grids is not None:
        yield from grids if config.include_grids else [Skipped(file.name, "grids are left out: include_grids is false")]
    elif not config.include_text:
        yield Skipped(file.name, "text is left out: include_text is false")
    elif not config.render_text_to_image:
        yield Skipped(file.name, "text is left out: render_text_to_image is false")
    else:
        yield Item(file.name, "text", text, source, file.label)


def _is_image(data: bytes, suffix: str) -> bool:
    """Magic bytes decide, but prose that begins with GIF89a stays prose."""
    magic = (
        data.startswith(_MAGIC)
        or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
        or (data[:2] == b"BM" and data[6:10] == bytes(4))
    )
    return magic and (suffix in IMAGE_SUFFIXES or not _is_text(data))


def _is_text(data: bytes) -> bool:
    try:
        _decode(data)
    except _RefusedError:
        return False
    return True


def _decode(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _RefusedError("UTF-16 or UTF-32 text, by its first bytes; convert it to UTF-8")
    nul = data.find(0)
    if nul >= 0:
        raise _RefusedError(f"neither text nor a picture: binary, with a NUL at byte {nul}")
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        at = error.start + (len(data) - len(error.object))
        raise _RefusedError(f"not UTF-8 text: byte {data[at]:#04x} at offset {at}; convert it to UTF-8") from None


def _grids(file: SourceFile, text: str, source: str) -> list[Entry] | None:
    """The tasks of a JSON file, or [] for answers that belong to one beside it; None: JSON that is not ARC."""
    if len(text) > MAX_JSON_BYTES:
        raise _RefusedError(f"JSON larger than {MAX_JSON_BYTES // 2**20} MiB, the most that is parsed; split it")
    value = arc_json.parse(text)
    if file.path.name.endswith(_SOLUTIONS) and (answers := arc_json.find_answers(value)):
        return _orphans(file, answers)
    tasks = arc_json.find_tasks(value)
    if tasks is None:
        return None
    answers = _answers_beside(file.path)
    entries: list[Entry] = []
    for task_id, raw in tasks.items():
        name = f"{file.name}#{printable(task_id)}" if task_id else file.name
        try:
            task = arc_json.to_task(raw, answers.get(task_id))
            entries.append(Item(name, "grid", task, source, file.label))
        except arc_json.ArcError as error:
            entries.append(Rejected(name, str(error)))
    return entries


def _orphans(file: SourceFile, answers: dict[str, object]) -> list[Entry]:
    challenges = file.path.with_name(file.path.name.removesuffix(_SOLUTIONS) + _CHALLENGES)
    tasks = _json_beside(challenges)
    if tasks is None:
        raise _RefusedError(f"answers without their tasks: no readable {printable(challenges.name)} beside it")
    return [
        Rejected(f"{file.name}#{printable(task_id)}", f"an answer to no task of {printable(challenges.name)}")
        for task_id in answers
        if task_id not in tasks
    ]


def _answers_beside(path: Path) -> dict[str, object]:
    if not path.name.endswith(_CHALLENGES):
        return {}
    solutions = _json_beside(path.with_name(path.name.removesuffix(_CHALLENGES) + _SOLUTIONS))
    return (arc_json.find_answers(solutions) if solutions else None) or {}


def _json_beside(path: Path) -> dict[str, object] | None:
    """The JSON object in a neighbouring file, None where there is no readable one: its own reading says why."""
    try:
        value = arc_json.parse(_decode(_read_bytes(path)))
    except (_RefusedError, arc_json.ArcError):
        return None
    return value if isinstance(value, dict) else None
