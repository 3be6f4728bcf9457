"""verify: is a run's dataset what was written?

The quick look compares files with their receipts by existence and size, and the tables with each other. `deep` hashes
every shard, batch and chunk and recomputes the content digest, at the disk's speed; what it finds damaged is recorded,
so that the next run makes it anew.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trm_nb.consolidate import Consolidator
from trm_nb.dataset_files import content_digest, damaged_files
from trm_nb.durable import locked, trouble_with
from trm_nb.image_cache import ImageCache, whole_shard
from trm_nb.mending import files_without_receipt
from trm_nb.records import DamagedError, Receipt
from trm_nb.render import RenderSettings
from trm_nb.store import metadata_trouble
from trm_nb.training_progress import TrainingProgressTracker

log = logging.getLogger(__name__)


@contextmanager
def noting_damage(output_dir: Path, tracker: Callable[[], TrainingProgressTracker]) -> Iterator[None]:
    """In a run that the caller has locked: when damage is met, look for all there is, so that the next run mends it.

    That reads and hashes everything, as `verify --deep` does.
    """
    try:
        yield
    except DamagedError as error:
        log.warning("%s; looking for what else is damaged", error)
        check = _Check(output_dir, tracker(), deep=True)
        check.all()
        tracker().set("damaged", check.damaged)
        raise


def verify(output_dir: str | Path, deep: bool = False) -> list[str]:
    """One sentence for each thing that is damaged, missing or unfinished; nothing when all is whole.

    Raises UserError when `output_dir` holds no run or, with `deep`, when it is being written.
    """
    path = Path(output_dir)
    try:
        tracker = TrainingProgressTracker(path)
    except DamagedError as error:
        return [str(error)]
    try:
        if not deep:
            return _Check(path, tracker, deep=False).all()
        with locked(path, "verify --deep"):
            trouble = tracker.trouble()
            if trouble:
                return [trouble]
            tracker.end_stages_of_the_dead()
            check = _Check(path, tracker, deep=True)
            found = check.all()
            tracker.set("damaged", check.damaged)
            return found
    finally:
        tracker.close()


class _Check:
    def __init__(self, path: Path, tracker: TrainingProgressTracker, deep: bool) -> None:
        self.path, self.tracker, self.deep = path, tracker, deep
        self.damaged: dict[str, list[int]] = {"images": [], "batches": [], "chunks": []}
        bound = tracker.bound()
        self.consolidator = (
            Consolidator(path, bound["batch_size"], bound["batches_per_chunk"], tracker)
            if "batch_size" in bound
            else None
        )

    def all(self) -> list[str]:
        found = self._images()
        if self.consolidator:
            found += self._chunks(self.consolidator) + self._batches(self.consolidator)
            found += self._unknown(self.consolidator) if self.deep else []
        found += self._finished()
        if self.deep and not found:
            found += self._digest()
        return found

    def _images(self) -> list[str]:
        root = self.path / "images.zarr"
        if not root.is_dir():  # cleared on purpose, or nothing drawn yet; encoded capsules do not need it
            return []
        shape = whole_shard(root)
        cache = ImageCache(root, render=RenderSettings(image_size=shape[1]) if shape else None)
        try:
            damaged = cache.damaged(self.deep)
            self.damaged["images"] = sorted(damaged)
            trouble = metadata_trouble(cache.array, cache.layout) if len(cache) else None
            return [*([trouble] if trouble else []), *damaged.values()]
        finally:
            cache.close()

    def _chunks(self, consolidator: Consolidator) -> list[str]:
        found = []
        for chunk in sorted(self.tracker.chunks()):
            path = consolidator.chunk.file(consolidator.array, chunk)
            try:
                receipt = consolidator.receipt(chunk)
                trouble = trouble_with(path, receipt.nbytes, "", deep=False)
                if self.deep and not trouble and consolidator.chunk_sha256(receipt) != receipt.sha256:
                    trouble = f"{path}: its bytes are not those that were written (sha256)"
            except (DamagedError, FileNotFoundError) as error:
                trouble = f"{path}: its receipt cannot be read ({error})"
            if trouble:
                found.append(trouble)
                self.damaged["chunks"].append(chunk)
        return found

    def _batches(self, consolidator: Consolidator) -> list[str]:
        found, chunks = [], self.tracker.chunks()
        for batch in sorted(self.tracker.batches()):
            if batch // consolidator.per_chunk in chunks:
                continue
            path = consolidator.batch.file(consolidator.loose, batch)
            receipt, held = consolidator.batch_receipt_or_none(batch), self.tracker.batch_file(batch)
            if receipt is None or (receipt.nbytes, receipt.sha256) != held:
                trouble: str | None = f"{path}: its receipt is missing or damaged"
            else:
                trouble = self._file(path, receipt)
            if trouble:
                found.append(trouble)
                self.damaged["batches"].append(batch)
        return found

    def _unknown(self, consolidator: Consolidator) -> list[str]:
        """Files of capsules that neither a receipt nor the tracker knows."""
        batches = set(files_without_receipt(consolidator.loose, consolidator.batch)) - self.tracker.batches()
        chunks = set(files_without_receipt(consolidator.array, consolidator.chunk)) - self.tracker.chunks()
        paths = [consolidator.batch.file(consolidator.loose, n) for n in sorted(batches)]
        paths += [consolidator.chunk.file(consolidator.array, n) for n in sorted(chunks)]
        return [f"{path}: its receipt is missing, so nothing says what it holds" for path in paths]

    def _file(self, path: Path, receipt: Receipt) -> str | None:
        return trouble_with(path, receipt.nbytes, receipt.sha256, self.deep)

    def _finished(self) -> list[str]:
        total = self.consolidator.batches_total() if self.consolidator else None
        stats = self.tracker.get_stats()
        if total is None or stats["consolidation"]["total_batches_consolidated"] < total:
            return [f"{self.path}: not finished ({stats['samples_encoded']} samples encoded); run again, it continues"]
        found = damaged_files(self.path, self.tracker, self.deep)
        if self.deep and found:
            self.tracker.set("dataset_made_of", None)  # so that the next run writes them again
        if found or self.tracker.get("dataset_made_of"):
            return found
        return [f"{self.path}: its tables and card are not written yet; run again, it continues"]

    def _digest(self) -> list[str]:
        info = json.loads((self.path / "dataset_info.json").read_bytes())
        try:
            digest = content_digest(self.path, self.tracker)
        except DamagedError as error:
            return [str(error)]
        wrong = digest != info.get("content_digest")
        if wrong:
            self.tracker.set("dataset_made_of", None)
        return [f"{self.path}: content digest {digest[:16]}..., dataset_info.json says otherwise"] if wrong else []
