"""Batches into chunks, by concatenation.

A batch file is a Zarr chunk: the same bytes that a shard of `capsules.zarr` holds inside. So a chunk is made by
writing its batch files one after the other and an index behind them: at the disk's speed, with one batch in memory.
Each batch's size and crc32c are checked on the way; the batches are deleted only after the chunk, its receipt and the
tracker are durable, so a crash at any point leaves one form whole.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from trm_nb.errors import DamagedError
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import Progress, Receipt
from trm_nb.storage.arrays import Layout, batch_layout, chunk_layout, write_metadata
from trm_nb.storage.files import Staged, commit, fault_point, sha256_of, stage_pieces, trouble_with
from trm_nb.storage.receipts import file_numbers, read_receipt, receipt_path, write_receipt
from trm_nb.storage.shards import read_stored, shard_index


class Consolidator:
    """Makes chunks of a run's batches as they become complete."""

    def __init__(self, tracker: TrainingProgressTracker, batch_size: int, batches_per_chunk: int) -> None:
        self.tracker, self.per_chunk = tracker, batches_per_chunk
        self.batch, self.chunk = batch_layout(batch_size), chunk_layout(batch_size, batches_per_chunk)
        self.loose, self.array = tracker.paths.batches, tracker.paths.capsules
        self.batch_receipts, self.chunk_receipts = self.loose / "receipts", self.array / "receipts"
        self._hashed: dict[tuple[str, int], str] = {}  # (sha256 of a receipt, time of its file) -> sha256 of the file

    def ready(self, full_only: bool = False) -> list[int]:
        """Chunks that are not made yet and whose batches all are; once the plan is frozen, the last may hold fewer."""
        total = None if full_only else self.batches_total()
        built = self.tracker.loose_batches(self.per_chunk)
        return [chunk for chunk, count in built.items() if count == len(self.members(chunk, total))]

    def batches_total(self) -> int | None:
        """Batches of the whole run; None while the plan still grows."""
        frozen = self.tracker.get("plan_frozen", False)
        return -(-self.tracker.rows_planned() // self.batch.rows) if frozen else None

    def complete(self) -> bool:
        """Whether the whole run is consolidated."""
        total = self.batches_total()
        made = self.tracker.value("SELECT coalesce(sum(batches), 0) FROM chunks")
        return total is not None and int(made) >= total

    def members(self, chunk: int, total: int | None) -> range:
        """The numbers of the batches in a chunk."""
        first, end = chunk * self.per_chunk, (chunk + 1) * self.per_chunk
        return range(first, end if total is None else min(end, total))

    def consolidate_ready(self, on_progress: Progress | None = None, full_only: bool = False) -> int:
        """Make every chunk that is ready; returns how many. Raises DamagedError naming a batch that is not whole."""
        ready = self.ready(full_only)
        for chunk in ready:
            members = self.members(chunk, self.batches_total())
            receipt = self._made_already(chunk, members) or self._make(chunk, members)
            self.tracker.add_chunk(receipt)
            fault_point("chunk-recorded")
            self.drop_loose(members)
            if on_progress:
                on_progress()
        return len(ready)

    def adopt(self) -> None:
        """Take over every chunk that is durable but not in the tracker, as that was lost."""
        for chunk in self.ready():
            receipt = self._made_already(chunk, self.members(chunk, self.batches_total()))
            if receipt is not None:
                self.tracker.add_chunk(receipt)

    def _made_already(self, chunk: int, members: Sequence[int]) -> Receipt | None:
        """The receipt of a chunk that is durable, to the last byte, but not in the tracker."""
        receipt = self.receipt_or_none(chunk)
        if receipt is None or self._chunk_trouble(receipt, deep=True):
            return None
        same = [(p.nbytes, p.sha256) for p in receipt.parts] == [self.tracker.batch_file(batch) for batch in members]
        return receipt if same else None

    def durable_receipt(self, batch: int) -> Receipt | None:
        """The receipt of a batch whose bytes are on disk, loose or in a chunk (known to the tracker or not)."""
        receipt, path = self.batch_receipt_or_none(batch), self.batch.file(self.loose, batch)
        if receipt is not None and path.is_file():
            return receipt if sha256_of(path) == receipt.sha256 else None
        chunk = self.receipt_or_none(batch // self.per_chunk)
        if chunk is None or self._chunk_trouble(chunk, deep=True):
            return None
        return next((part for part in chunk.parts if part.number == batch), None)

    def batch_receipt_or_none(self, batch: int) -> Receipt | None:
        """The receipt of a loose batch; None when it is missing or damaged."""
        try:
            return read_receipt(receipt_path(self.loose, batch))
        except (FileNotFoundError, DamagedError):
            return None

    def receipt_or_none(self, chunk: int) -> Receipt | None:
        """The receipt of a chunk; None when it is missing or damaged."""
        try:
            return self.receipt(chunk)
        except (FileNotFoundError, DamagedError):
            return None

    def _make(self, chunk: int, members: Sequence[int]) -> Receipt:
        old = self.receipt_or_none(chunk)  # of a chunk with other batches, after a lost tracker; it is written anew
        inside = {part.number: part for part in old.parts} if old else {}
        parts = [self.batch_receipt_or_none(batch) or inside.get(batch) or self._forget(batch) for batch in members]
        staged = self._stitch(parts, old)
        fault_point("chunk-staged")
        commit(staged, self.chunk.file(self.array, chunk))
        fault_point("chunk-renamed")
        rows = sum(part.rows for part in parts)
        write_metadata(self.array, self.chunk, max(self.rows_so_far(), chunk * self.chunk.rows + rows))
        receipt = Receipt("chunk", chunk, rows, staged.nbytes, staged.sha256, parts=parts)
        write_receipt(self.array, receipt)
        fault_point("chunk-receipt")
        return receipt

    def rows_so_far(self) -> int:
        """Rows of the array, up to the end of the last chunk."""
        last = max(self.tracker.chunks(), default=None)
        return 0 if last is None else last * self.chunk.rows + self.receipt(last).rows

    def receipt(self, chunk: int) -> Receipt:
        """The receipt of a chunk; raises DamagedError or FileNotFoundError."""
        return read_receipt(receipt_path(self.array, chunk))

    def _stitch(self, parts: Sequence[Receipt], old: Receipt | None) -> Staged:
        index = shard_index([part.nbytes for part in parts], self.chunk.chunks)
        sizes = [*(part.nbytes for part in parts), len(index)]

        def fill(piece: int, data: memoryview) -> None:
            if piece < len(parts):
                self._read_checked(parts[piece], old, data)
            else:
                data[:] = index

        path = stage_pieces(self.chunk_receipts, sizes, fill)
        return Staged(str(path), sum(sizes), _tree_sha256([part.sha256 for part in parts], index))

    def _read_checked(self, part: Receipt, old: Receipt | None, data: memoryview) -> None:
        """Fill `data` with a batch's bytes, loose or out of an old chunk, its size and crc32c checked."""
        path, offset = self.batch.file(self.loose, part.number), 0
        try:
            if not path.is_file() and old is not None and part in old.parts:
                path = self.chunk.file(self.array, old.number)
                offset = sum(before.nbytes for before in old.parts[: old.parts.index(part)])
            elif _size(path) != part.nbytes:
                raise DamagedError("its size")
            read_stored(path, data, offset)
        except (DamagedError, FileNotFoundError):
            self._forget(part.number)

    def _forget(self, batch: int) -> NoReturn:
        self.tracker.drop(batches=[batch])
        self.drop_loose([batch])
        path = self.batch.file(self.loose, batch)
        raise DamagedError(f"{path}: missing or not the bytes that were written; run again to encode it anew")

    def chunk_sha256(self, receipt: Receipt) -> str:
        """The hash of a chunk's file as it is now, to compare with its receipt's; reads all of it.

        It is over the sha256 of each batch inside and the index, and so follows from the batches' receipts: making a
        chunk needs no hashing of its gigabyte.
        """
        digests = []
        with self.chunk.file(self.array, receipt.number).open("rb") as file:
            for part in receipt.parts:
                digests.append(hashlib.sha256(file.read(part.nbytes)).hexdigest())
            return _tree_sha256(digests, file.read())

    # -- is it what was written? ------------------------------------------------------------------------------------

    def damaged_chunks(self, deep: bool = False) -> dict[int, str]:
        """Chunk -> what is wrong with its file: no receipt, missing, of another size or, `deep`, of other bytes."""
        found = {}
        for chunk in sorted(self.tracker.chunks()):
            path = self.chunk.file(self.array, chunk)
            try:
                trouble = self._chunk_trouble(self.receipt(chunk), deep)
            except (DamagedError, FileNotFoundError) as error:
                trouble = f"{path}: its receipt cannot be read ({error})"
            if trouble:
                found[chunk] = trouble
        return found

    def _chunk_trouble(self, receipt: Receipt, deep: bool) -> str | None:
        """One sentence when a chunk's file is not what its receipt says; `deep` reads it, once if it stays as it is."""
        path = self.chunk.file(self.array, receipt.number)
        trouble = trouble_with(path, receipt.nbytes, "", deep=False)
        if trouble or not deep:
            return trouble
        state = (receipt.sha256, path.stat().st_mtime_ns)
        if state not in self._hashed:
            self._hashed[state] = self.chunk_sha256(receipt)
        same = self._hashed[state] == receipt.sha256
        return None if same else f"{path}: its bytes are not those that were written (sha256)"

    def damaged_batches(self, deep: bool = False) -> dict[int, str]:
        """The same for the batches that are in no chunk yet."""
        found, chunks = {}, self.tracker.chunks()
        for batch in sorted(batch for batch in self.tracker.batches() if batch // self.per_chunk not in chunks):
            path, receipt = self.batch.file(self.loose, batch), self.batch_receipt_or_none(batch)
            if receipt is None or (receipt.nbytes, receipt.sha256) != self.tracker.batch_file(batch):
                trouble: str | None = f"{path}: its receipt is missing or damaged"
            else:
                trouble = trouble_with(path, receipt.nbytes, receipt.sha256, deep)
            if trouble:
                found[batch] = trouble
        return found

    def unknown_files(self) -> list[Path]:
        """Files that neither a receipt nor the tracker knows: a kill came between a file and its receipt."""
        batches = set(_files_without_receipt(self.loose, self.batch)) - self.tracker.batches()
        chunks = set(_files_without_receipt(self.array, self.chunk)) - self.tracker.chunks()
        paths = [self.batch.file(self.loose, number) for number in sorted(batches)]
        return paths + [self.chunk.file(self.array, number) for number in sorted(chunks)]

    # -- tidying up -------------------------------------------------------------------------------------------------

    def drop_loose(self, batches: Sequence[int]) -> None:
        """Delete batch files and their receipts (they are in a chunk, or are to be made again)."""

        def drop(batch: int) -> None:
            shutil.rmtree(self.loose / "c" / str(batch), ignore_errors=True)
            receipt_path(self.loose, batch).unlink(missing_ok=True)

        with ThreadPoolExecutor(4) as threads:  # the system needs 3 ms for a batch's file
            list(threads.map(drop, batches))

    def restore_metadata(self) -> None:
        """Write the metadata of capsules.zarr again where it is missing or damaged."""
        write_metadata(self.array, self.chunk, self.rows_so_far())

    def remove_batches_zarr(self) -> None:
        """Once everything is consolidated, the batches' folder goes."""
        shutil.rmtree(self.loose.parent, ignore_errors=True)


def _files_without_receipt(array: Path, layout: Layout) -> list[int]:
    numbers = file_numbers(array)
    return [n for n in numbers if layout.file(array, n).is_file() and not receipt_path(array, n).is_file()]


def _tree_sha256(parts: Sequence[str], index: bytes) -> str:
    return hashlib.sha256("".join(parts).encode() + index).hexdigest()


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
