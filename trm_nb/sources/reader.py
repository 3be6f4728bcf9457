"""Files and folders -> items, always in the same order.

What a file is, its content decides: magic bytes make an image, or an item of a kind in the table of modalities that
recognises them; `.json` of ARC's shape makes grids, whatever holds no NUL is a text, in UTF-8 or the encoding that
`text_decoding` finds. A suffix adds a refusal (`.png` that is no image)
or a form (`.csv`, `.jsonl`, `.parquet` are tables: `tables/rows.py`), and a path's other words mean nothing. An image
that a table names belongs to the table. Whatever cannot be used is named with its reason.

Memory does not follow from the size of a file: tables are read row by row, a text above 8 MiB is cut at line ends into
several items, an image is only hashed. What must be read whole has a limit. Nothing but a regular file is waited for.
Cost: a file above 8 MiB is read twice, for its hash (and encoding) and for its items.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError
from trm_nb.records import GridTask, ImageFile, Item, Modality, Rejected, StoredFile
from trm_nb.render.modalities import MODALITIES, kind_of_file
from trm_nb.sources.arc import tasks as arc_tasks
from trm_nb.sources.arc.augment import forms
from trm_nb.sources.arc.task_files import MAX_JSON_BYTES, arc_entries
from trm_nb.sources.byte_streams import RefusedError, blocks, is_image, open_file, read_up_to, sha256_of_rest, stamp
from trm_nb.sources.files import Skipped, SourceFile, left_out, list_source_files
from trm_nb.sources.foreign_formats import foreign, no_image
from trm_nb.sources.roots import printable
from trm_nb.sources.tables.named_images import NamedImages
from trm_nb.sources.tables.rows import table_entries
from trm_nb.sources.text.decoding import Encoding, NotTextError, decode, find_encoding, text_parts

__all__ = ["Entry", "NamedImages", "Reading", "Skipped", "SourceFile", "list_files", "read", "read_items", "scan"]

MAX_FILE_BYTES = 256 * 2**20  # of an image, and of another file that is one item
PART = 8 * 2**20  # bytes of a file that is read whole, and characters of an item of a larger text
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif"}
)

Entry: TypeAlias = Item | Rejected | Skipped


@dataclass(slots=True)
class Reading:
    """What one file holds: its entries, to be walked once and before the next file is asked for.

    No entries: another file's reading uses it (Kaggle's solutions, an image that a table names).
    """

    file: SourceFile
    entries: Iterator[Entry]
    _sha256: str | Callable[[], str] = field(default="", repr=False)

    def sha256(self) -> str:
        """The hash of the file's bytes, "" where they were not all read. To be asked for after the entries.

        Raises UserError when the file was changed meanwhile.
        """
        if not isinstance(self._sha256, str):
            self._sha256 = self._sha256()
        return self._sha256


def scan(
    config: MultimodalDatasetConfig,
    known_items: Callable[[SourceFile], int | None] | None = None,
    named_images: Container[Path] | None = None,
) -> Iterator[Reading]:
    """Read every file of the sources, in order, up to `config.limit` items a source. Raises as `list_files`.

    A file for which `known_items` tells how many items it holds is counted, and not read. The entries of each reading
    have to be walked before the next is asked for, as the limit counts them. `named_images` are the images that tables
    name; None: they are looked for.
    """
    named_images = NamedImages(config) if named_images is None else named_images
    found: dict[int, int] = {}
    for file in list_files(config):
        left = None if config.limit is None else config.limit - found.get(file.source, 0)
        if left == 0:
            continue
        items = known_items(file) if known_items else None
        if items is not None:
            found[file.source] = found.get(file.source, 0) + items
            continue
        reading = read(file, config, named_images)
        if left is None:
            yield reading
            continue
        reading.entries = _first_items(reading.entries, left, found, file.source)
        yield reading


def _first_items(entries: Iterator[Entry], count: int, found: dict[int, int], source: int) -> Iterator[Entry]:
    """Entries up to the `count`-th item, which ends the reading; `found` counts them."""
    for entry in entries:
        yield entry
        if isinstance(entry, Item):
            found[source] = found.get(source, 0) + 1
            count -= 1
            if count == 0:
                return


def list_files(config: MultimodalDatasetConfig) -> Iterator[SourceFile]:
    """All files of `config.source_paths`, sources in their order, then by the bytes of the posix path.

    Raises UserError before the first file for a path that is missing, a folder without files, and a glob that matches
    none.
    """
    return list_source_files(config.source_paths)


def read_items(file: SourceFile, config: MultimodalDatasetConfig) -> Iterator[Entry]:
    """The items of one file in their order in it; what cannot be used as Rejected, what is left out as Skipped."""
    return read(file, config).entries


def read(file: SourceFile, config: MultimodalDatasetConfig, named_images: Container[Path] = ()) -> Reading:
    """Open one file, an image among `named_images` without entries. Never raises for what the file holds."""
    reading = _opened(file, config, named_images)
    if config.arc_side is not None:
        reading.entries = _with_small_grids(reading.entries, config.arc_side)
    if config.arc_forms:
        reading.entries = _with_forms(reading.entries, config.arc_forms, config.seed)
    return reading


def _with_small_grids(entries: Iterator[Entry], most: int) -> Iterator[Entry]:
    """The entries, with ARC tasks left out that have a grid of more rows or columns than `most`."""
    for entry in entries:
        if isinstance(entry, Item) and isinstance(entry.payload, GridTask) and (side := entry.payload.side) > most:
            yield Skipped(entry.item_id, f"a grid of {side} rows or columns; arc_side is {most}")
        else:
            yield entry


def _with_forms(entries: Iterator[Entry], count: int, seed: int) -> Iterator[Entry]:
    """Behind each ARC task its further forms, as items of their own."""
    for entry in entries:
        yield entry
        if isinstance(entry, Item) and isinstance(entry.payload, GridTask):
            for number, form in enumerate(forms(entry.payload, count, seed), 1):
                yield replace(entry, item_id=f"{entry.item_id}@{number}", payload=form)


def _opened(file: SourceFile, config: MultimodalDatasetConfig, named_images: Container[Path]) -> Reading:
    if file.refusal is not None:
        return Reading(file, iter([file.refusal]))
    if file.generated is not None:
        reason = left_out("grid", config)
        made = file.generated.items(file.name, config.seed)
        return Reading(file, made if reason is None else iter([Skipped(file.name, reason)]))
    try:
        with open_file(file.path) as stream:
            return _OpenFile(file, config, stream).reading(named_images)
    except RefusedError as refusal:
        return Reading(file, iter([Rejected(file.name, str(refusal))]))


class _OpenFile:
    """One opened file on its way to a Reading."""

    def __init__(self, file: SourceFile, config: MultimodalDatasetConfig, stream: io.BufferedReader) -> None:
        self.file, self.config, self.stream = file, config, stream
        self.suffix = file.path.suffix.lower()
        self.source = printable(str(file.path), also="")
        self.stamp, self.size = stamp(stream), os.fstat(stream.fileno()).st_size
        self.gave_up = False

    def reading(self, named_images: Container[Path]) -> Reading:
        head = read_up_to(self.stream, PART + 1)
        known, kind = is_image(head), kind_of_file(head)
        image = known or (known is None and (self.suffix in IMAGE_SUFFIXES or b"\0" in head))
        other = None if image else foreign(head, self.suffix)
        not_text = image or kind is not None or other is not None or self.suffix in IMAGE_SUFFIXES
        if not_text and self.file.path in named_images:
            return Reading(self.file, iter([]), self._sha256_unless_large(head))
        if kind is not None:
            return self._whole(head, MODALITIES[kind].name, MODALITIES[kind].payloads[0])
        if image:
            return self._whole(head, "image", ImageFile)
        if other is not None:
            return self._refused(other, head)
        if self.suffix in IMAGE_SUFFIXES:
            return self._refused(no_image(head, f" in a {self.suffix} file"), head)
        try:
            rows = table_entries(self.file, self.source, self.config)
            if rows is not None:
                return Reading(self.file, self._until_refused(rows), self._hash_again)
            if self.suffix == ".json":
                return self._json(head)
            if (packed := foreign(head)) is not None:
                return self._refused(packed, head)
            return self._text(head) if len(head) <= PART else self._long_text(head)
        except (RefusedError, NotTextError, arc_tasks.ArcError) as refusal:
            return self._refused(str(refusal), head)

    def _refused(self, reason: str, head: bytes) -> Reading:
        rejected = Rejected(self.file.name, printable(reason, also=""))
        return Reading(self.file, iter([rejected]), self._sha256_unless_large(head))

    def _sha256_unless_large(self, head: bytes) -> str:
        """The hash of a file without items; "" for a large one: then changing it is no change of the sources."""
        self.stream.seek(len(head))
        return sha256_of_rest(self.stream, head) if self.size <= MAX_FILE_BYTES else ""

    def _whole(self, head: bytes, modality: Modality, payload: type[StoredFile]) -> Reading:
        """The file as one item, which is only hashed here."""
        if self.size > MAX_FILE_BYTES:
            what = "image" if payload is ImageFile else "file"
            return self._refused(f"a {what} larger than {MAX_FILE_BYTES // 2**20} MiB, the most that is read", head)
        sha256 = sha256_of_rest(self.stream, head)
        reason = left_out(modality, self.config)
        if reason is not None:
            return Reading(self.file, iter([Skipped(self.file.name, reason)]), sha256)
        stored = payload(self.file.path, sha256)
        return Reading(self.file, iter([Item(self.file.name, modality, stored, self.source, self.file.label)]), sha256)

    def _json(self, head: bytes) -> Reading:
        data = head + read_up_to(self.stream, MAX_JSON_BYTES + 1 - len(head)) if len(head) > PART else head
        if len(data) > MAX_JSON_BYTES:
            raise RefusedError(f"JSON larger than {MAX_JSON_BYTES // 2**20} MiB, the most that is parsed; split it")
        grids = arc_entries(self.file, decode(data)[0], self.source)
        if grids is None:
            self.stream.seek(len(head))
            return self._text(head) if len(head) <= PART else self._long_text(head)
        reason = left_out("grid", self.config)
        entries: list[Entry] = [*grids] if reason is None else [Skipped(self.file.name, reason)]
        return Reading(self.file, iter(entries), hashlib.sha256(data).hexdigest())

    def _text(self, data: bytes) -> Reading:
        text, encoding = decode(data)
        reason = left_out("text", self.config)
        entry: Entry = Item(self.file.name, "text", text, self.source, self.file.label, encoding)
        if reason is not None:
            entry = Skipped(self.file.name, reason)
        return Reading(self.file, iter([entry]), hashlib.sha256(data).hexdigest())

    def _long_text(self, head: bytes) -> Reading:
        digest = hashlib.sha256()

        def hashed() -> Iterator[bytes]:
            for block in chain([head], blocks(self.stream)):
                digest.update(block)
                yield block

        encoding = find_encoding(hashed())
        reason = left_out("text", self.config)
        if reason is not None:
            return Reading(self.file, iter([Skipped(self.file.name, reason)]), digest.hexdigest())
        return Reading(self.file, self._parts(encoding), lambda: self._unchanged(digest.hexdigest()))

    # -- what is read after the file was closed, and opened again ----------------------------------------------------

    def _parts(self, encoding: Encoding) -> Iterator[Entry]:
        with self._opened_again() as stream:
            for number, (text, name) in enumerate(text_parts(blocks(stream), encoding, PART)):
                item_id = f"{self.file.name}#{number}"
                yield Item(item_id, "text", text, self.source, self.file.label, name)

    def _until_refused(self, rows: Iterator[Entry]) -> Iterator[Entry]:
        try:
            yield from rows
        except RefusedError as refusal:
            self.gave_up = True
            yield Rejected(self.file.name, printable(str(refusal), also=""))

    def _hash_again(self) -> str:
        with self._opened_again() as stream:
            return "" if self.gave_up and self.size > MAX_FILE_BYTES else sha256_of_rest(stream)

    def _unchanged(self, sha256: str) -> str:
        with self._opened_again():
            return sha256

    def _opened_again(self) -> io.BufferedReader:
        try:
            stream = open_file(self.file.path)
        except RefusedError as refusal:
            raise UserError(f"{self.file.path}: {refusal}, though it was read a moment ago; run again") from None
        if stamp(stream) != self.stamp:
            stream.close()
            raise UserError(
                f"{self.file.path} was changed while it was read: let the sources rest while they are planned, "
                "and run again"
            )
        return stream
