"""Going on after an interruption: what is damaged is forgotten and made anew, what is durable is taken over.

The tracker, the receipts and the files may disagree after a kill, a full disk, a lost tracker or damaged bytes. Files
and receipts decide; the tracker is made to agree. Everything here can be killed and done again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from typing import Any

from trm_nb.cache.image_cache import ImageCache
from trm_nb.pipeline.consolidate import Consolidator
from trm_nb.pipeline.dataset_files import damaged_files
from trm_nb.pipeline.encode_task import COMPUTED_IN, ENCODER, encoding_of
from trm_nb.pipeline.verify import Damage, inspect
from trm_nb.progress.planned import PlannedRow
from trm_nb.progress.run_folder import RunPaths
from trm_nb.progress.tables import SUSPECT
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.storage.files import sweep
from trm_nb.storage.receipts import file_numbers, receipt_numbers, receipt_path

ROWS_AT_ONCE = 10_000
log = logging.getLogger(__name__)


def recover(
    tracker: TrainingProgressTracker,
    cache: ImageCache,
    consolidator: Consolidator,
    settings: dict[str, Any],
    replan: Callable[[], dict[str, str]],
) -> None:
    """Make the tracker agree with what is durable: again where it was lost, and without what is damaged.

    Args:
        tracker: the run's, whose folder the caller has locked.
        cache: the run's.
        consolidator: of the run.
        settings: the config's fields of encoding, which the batches that are there were made with.
        replan: plans all rows again, and returns the encoder's fingerprint and precision by ENCODER and COMPUTED_IN.
    """
    tracker.end_stages_of_the_dead()
    if tracker.was_lost():
        tracker.set("lost", True)  # until all is taken over, also if this is killed
    if tracker.get("lost", False):
        log.warning("%s: its tracker was lost and is made again from the receipts", tracker.output_dir)
        made_with = replan()
        _take_over(tracker, cache, consolidator, encoding_of(made_with[ENCODER], made_with[COMPUTED_IN]))
        if tracker.batches():  # encoded with these settings, which `.frozen.json` may have lost too
            tracker.freeze("encode", {**settings, **made_with})
        tracker.set("lost", False)
    repair(tracker, cache, consolidator)


def repair(tracker: TrainingProgressTracker, cache: ImageCache, consolidator: Consolidator) -> None:
    """Forget what is missing or not what its receipt says, so that it is made again.

    Existence and size are compared; every byte is hashed when the run is SUSPECT. Images in a damaged shard are pending
    again, and so are images that an encoding still to come needs and the cache no longer has. A cache cleared on
    purpose is not damage: encoded batches do not need it.
    """
    deep = bool(tracker.get(SUSPECT, False))
    lost = bool(cache.without_receipt())  # `writing` deletes them
    with cache.writing("looking for damaged images"):
        damages = inspect(cache, consolidator, deep)
        shards = [damage.number for damage in damages if damage.what == "shard"]
        for shard in shards:
            cache.drop_shard(shard)
        cache.restore_metadata()
    if (lost or shards) and not cache.was_cleared():
        _render_again(tracker, cache)
    sweep_run(tracker.paths)
    _forget(damages, tracker, consolidator)
    for first, end in batches_to_come(tracker, consolidator):
        keys = {row.key for row in tracker.rows(first, end) if row.status == "ok"}
        tracker.make_pending(keys - cache.present(sorted(keys)))
    tracker.write_frozen_copy()
    if deep:
        if damaged_files(tracker, deep):
            tracker.set("dataset_made_of", None)  # they are written again
        tracker.set(SUSPECT, False)


def sweep_run(paths: RunPaths) -> None:
    """Remove the temporary files that a killed run left anywhere but in the image cache, which sweeps itself."""
    sweep(paths.root)
    for array in (paths.batches, paths.capsules, paths.labels):
        for where in (array.parent, array, array / "receipts", array / "c"):
            sweep(where)


def batches_to_come(tracker: TrainingProgressTracker, consolidator: Consolidator) -> Iterable[tuple[int, int]]:
    """The rows (first, end) of each planned batch that is not encoded."""
    done, size = tracker.batches(), consolidator.batch.rows
    for batch in range(-(-tracker.rows_planned() // size)):
        if batch not in done:
            yield batch * size, (batch + 1) * size


def _render_again(tracker: TrainingProgressTracker, cache: ImageCache) -> None:
    """Make the rows pending whose image the cache does not know."""
    for first in range(0, tracker.rows_planned(), ROWS_AT_ONCE):
        keys = {row.key for row in tracker.rows(first, first + ROWS_AT_ONCE) if row.status == "ok"}
        tracker.make_pending(keys - cache.known(sorted(keys)))


def _forget(damages: Iterable[Damage], tracker: TrainingProgressTracker, consolidator: Consolidator) -> None:
    """Remove damaged files of capsules, and batch files that a kill left though they are in a chunk."""
    damaged_batches = []
    for damage in damages:
        if damage.what == "chunk":
            chunk = damage.number
            receipt_path(consolidator.array, chunk).unlink(missing_ok=True)
            consolidator.chunk.file(consolidator.array, chunk).unlink(missing_ok=True)
            tracker.drop(batches=consolidator.members(chunk, consolidator.batches_total()), chunks=[chunk])
        elif damage.what == "batch":
            damaged_batches.append(damage.number)
        elif damage.what == "stray":
            damage.path.unlink(missing_ok=True)
    chunks = tracker.chunks()
    on_disk = {*file_numbers(consolidator.loose), *receipt_numbers(consolidator.loose)}
    in_a_chunk = [batch for batch in on_disk if batch // consolidator.per_chunk in chunks]
    consolidator.drop_loose([*in_a_chunk, *damaged_batches])
    tracker.drop(batches=damaged_batches)


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


def _take_over(tracker: TrainingProgressTracker, cache: ImageCache, consolidator: Consolidator, encoding: str) -> None:
    """After the plan was made again for a lost tracker: resolve its rows, and take over every batch and chunk."""
    size = consolidator.batch.rows
    for first in range(0, tracker.rows_planned(), size):
        keys = {row.key for row in tracker.rows(first, first + size)}
        failed = {key: reason for key in keys if (reason := cache.failure(key)) is not None}
        tracker.resolve(cache.known(sorted(keys - failed.keys())), failed)
    for first, end in batches_to_come(tracker, consolidator):
        if not tracker.pending(first, end):
            rows = tracker.rows(first, end)
            adopt_batch(tracker, consolidator, first // size, rows, made_from(encoding, rows))
    consolidator.adopt()
