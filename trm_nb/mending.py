"""Going on after an interruption: what is damaged is forgotten and made anew, what is durable is taken over.

The tracker, the receipts and the files may disagree after a kill, a full disk, a lost tracker or damaged bytes. Files
and receipts decide; the tracker is made to agree. Everything here can be killed and done again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path

from trm_nb.consolidate import Consolidator
from trm_nb.durable import file_numbers, receipt_numbers, receipt_path, sha256_of, sweep, write_receipt
from trm_nb.image_cache import ImageCache
from trm_nb.records import Receipt
from trm_nb.store import Layout
from trm_nb.training_progress import PlannedRow, TrainingProgressTracker

ROWS_AT_ONCE = 10_000


def mend(tracker: TrainingProgressTracker, cache: ImageCache, consolidator: Consolidator) -> list[str]:
    """Forget what is missing or not what its receipt says, so that it is made again; returns what it was.

    Pictures in a damaged shard wait again, and so do pictures that an encoding still to come needs and the cache no
    longer has. A cache cleared on purpose is not damage: encoded batches do not need it. What `verify --deep` found
    is in the tracker.
    """
    deep = tracker.get("damaged", {})
    found = _mend_cache(tracker, cache, deep.get("images", ()))
    sweep_run(tracker.output_dir)
    found += _mend_chunks(tracker, consolidator, deep.get("chunks", ()))
    found += _mend_batches(tracker, consolidator, deep.get("batches", ()))
    _drop_unknown(tracker, consolidator)
    for first, end in batches_to_come(tracker, consolidator):
        keys = {row.key for row in tracker.rows(first, end) if row.status == "ok"}
        tracker.unsettle(keys - cache.present(sorted(keys)))
    if deep:
        tracker.set("damaged", {})
    return found


def sweep_run(output_dir: Path) -> None:
    """Remove the temporary files that a killed run left anywhere but in the image cache, which sweeps itself."""
    sweep(output_dir)
    sweep(output_dir / "model")
    for array in ("batches.zarr/capsules", "capsules.zarr/capsules", "capsules.zarr/labels"):
        folder = output_dir / array
        for where in (folder.parent, folder, folder / "receipts", folder / "c"):
            sweep(where)


def batches_to_come(tracker: TrainingProgressTracker, consolidator: Consolidator) -> Iterable[tuple[int, int]]:
    """The rows (first, end) of each planned batch that is not encoded."""
    done, size = tracker.batches(), consolidator.batch.rows
    for batch in range(-(-tracker.rows_planned() // size)):
        if batch not in done:
            yield batch * size, (batch + 1) * size


def _mend_cache(tracker: TrainingProgressTracker, cache: ImageCache, damaged: Iterable[int]) -> list[str]:
    nameless = bool(cache.without_receipt())
    with cache.writing("looking for damaged pictures"):
        found = {**dict.fromkeys(damaged, "by its hash"), **cache.damaged()}
        for shard in found:
            keys = cache.keys_in(shard)
            nameless |= not keys
            tracker.unsettle(keys)
            cache.drop_shard(shard)
        cache.restore_metadata()
    if nameless and not cache.was_cleared():  # without its receipt, a shard's pictures are those that are missing
        for first in range(0, tracker.rows_planned(), ROWS_AT_ONCE):
            keys = [row.key for row in tracker.rows(first, first + ROWS_AT_ONCE) if row.status == "ok"]
            tracker.unsettle(key for key in keys if not cache.known(key))
    return list(found.values())


def _mend_chunks(tracker: TrainingProgressTracker, consolidator: Consolidator, damaged: Collection[int]) -> list[str]:
    found = []
    for chunk in sorted(tracker.chunks()):
        path = consolidator.chunk.file(consolidator.array, chunk)
        receipt = consolidator.receipt_or_none(chunk) or _chunk_receipt(tracker, consolidator, chunk)
        size = path.stat().st_size if path.is_file() else None
        whole = receipt is not None and size == receipt.nbytes
        if receipt is not None and whole and chunk in damaged:
            whole = consolidator.chunk_sha256(receipt) == receipt.sha256
        if not whole:
            receipt_path(consolidator.array, chunk).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            tracker.drop(batches=consolidator.members(chunk, consolidator.batches_total()), chunks=[chunk])
            found.append(f"{path}: {'missing' if size is None else 'not what its receipt says'}")
    return found


def _mend_batches(tracker: TrainingProgressTracker, consolidator: Consolidator, damaged: Collection[int]) -> list[str]:
    found, chunks = [], tracker.chunks()
    on_disk = {*file_numbers(consolidator.loose), *receipt_numbers(consolidator.loose)}
    consolidator.drop_loose([batch for batch in on_disk if batch // consolidator.per_chunk in chunks])  # left by a kill
    for batch in sorted(batch for batch in tracker.batches() if batch // consolidator.per_chunk not in chunks):
        path = consolidator.batch.file(consolidator.loose, batch)
        receipt = consolidator.batch_receipt_or_none(batch) or _batch_receipt(tracker, consolidator, batch)
        size = path.stat().st_size if path.is_file() else None
        same = receipt is not None and (size, receipt.sha256) == tracker.batch_file(batch)
        if not same or (batch in damaged and receipt is not None and sha256_of(path) != receipt.sha256):
            consolidator.drop_loose([batch])
            tracker.drop(batches=[batch])
            found.append(f"{path}: {'missing' if size is None else 'not what its receipt says'}")
    return found


def _drop_unknown(tracker: TrainingProgressTracker, consolidator: Consolidator) -> None:
    """Delete files that neither a receipt nor the tracker knows: a kill came between the file and its receipt."""
    batches, chunks = tracker.batches(), tracker.chunks()
    for batch in files_without_receipt(consolidator.loose, consolidator.batch):
        if batch not in batches:
            consolidator.drop_loose([batch])
    for chunk in files_without_receipt(consolidator.array, consolidator.chunk):
        if chunk not in chunks:
            consolidator.chunk.file(consolidator.array, chunk).unlink()


def files_without_receipt(array: Path, layout: Layout) -> list[int]:
    """The numbers of an array's files that have no receipt."""
    numbers = file_numbers(array)
    return [n for n in numbers if layout.file(array, n).is_file() and not receipt_path(array, n).is_file()]


# -- receipts out of the tracker -------------------------------------------------------------------------------------


def _chunk_receipt(tracker: TrainingProgressTracker, consolidator: Consolidator, chunk: int) -> Receipt | None:
    """The receipt of a chunk that lost it, made again when the file has the bytes that the tracker knows."""
    nbytes, sha256 = tracker.chunk_file(chunk)
    members = consolidator.members(chunk, consolidator.batches_total())
    parts = [_receipt_of(tracker, consolidator, batch) for batch in members]
    receipt = Receipt("chunk", chunk, sum(part.rows for part in parts), nbytes, sha256, parts=parts)
    if not consolidator.chunk.file(consolidator.array, chunk).is_file() or consolidator.chunk_sha256(receipt) != sha256:
        return None
    write_receipt(consolidator.array, receipt)
    return receipt


def _batch_receipt(tracker: TrainingProgressTracker, consolidator: Consolidator, batch: int) -> Receipt | None:
    """The same for a batch that is not consolidated."""
    path = consolidator.batch.file(consolidator.loose, batch)
    if not path.is_file() or sha256_of(path) != tracker.batch_file(batch)[1]:
        return None
    receipt = _receipt_of(tracker, consolidator, batch)
    write_receipt(consolidator.loose, receipt)
    return receipt


def _receipt_of(tracker: TrainingProgressTracker, consolidator: Consolidator, batch: int) -> Receipt:
    rows = tracker.rows(batch * consolidator.batch.rows, (batch + 1) * consolidator.batch.rows)
    weights = tracker.bound().get("encoder_weights", "")
    return Receipt("batch", batch, len(rows), *tracker.batch_file(batch), made_from=made_from(weights, rows))


# -- taking over what is durable -------------------------------------------------------------------------------------


def made_from(weights: str, rows: list[PlannedRow]) -> str:
    """What a batch follows from: the encoder's fingerprint, and the keys and status of its rows."""
    digest = hashlib.sha256(weights.encode())
    for row in rows:
        digest.update(f"{row.key} {row.status}\n".encode())
    return digest.hexdigest()


def adopt_batch(
    tracker: TrainingProgressTracker, consolidator: Consolidator, batch: int, rows: list[PlannedRow], source: str
) -> bool:
    """Take over a batch that is durable but not in the tracker, if `source` (see `made_from`) is what it follows from.

    A kill came in between, or the tracker was lost.
    """
    receipt = consolidator.durable_receipt(batch)
    if receipt is None or (receipt.rows, receipt.made_from) != (len(rows), source):
        return False
    tracker.add_batch(receipt, 0.0)
    return True


def take_stock(tracker: TrainingProgressTracker, cache: ImageCache, consolidator: Consolidator, weights: str) -> None:
    """After the plan was made again for a lost tracker: settle its rows, and take over every batch and chunk."""
    size = consolidator.batch.rows
    for first in range(0, tracker.rows_planned(), size):
        keys = {row.key for row in tracker.rows(first, first + size)}
        failed = {key: reason for key in keys if (reason := cache.failure(key)) is not None}
        tracker.settle([key for key in keys - failed.keys() if cache.known(key)], failed)
    for first, end in batches_to_come(tracker, consolidator):
        if not tracker.waiting(first, end):
            rows = tracker.rows(first, end)
            adopt_batch(tracker, consolidator, first // size, rows, made_from(weights, rows))
    consolidator.adopt()
