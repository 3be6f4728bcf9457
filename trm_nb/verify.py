"""verify: is a run's dataset what was written?

The quick look compares files with their receipts by existence and size, and the tables with each other. `deep` hashes
every shard, batch and chunk and recomputes the content digest, at the disk's speed; what it finds damaged is recorded,
so that the next run makes it anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from trm_nb.consolidate import Consolidator
from trm_nb.dataset_files import content_digest
from trm_nb.durable import locked, sha256_of
from trm_nb.image_cache import ImageCache
from trm_nb.records import DamagedError, Receipt
from trm_nb.store import read_shape
from trm_nb.training_progress import TrainingProgressTracker


def verify(output_dir: str | Path, deep: bool = False) -> list[str]:
    """One sentence for each thing that is damaged, missing or unfinished; nothing when all is whole.

    Raises UserError when `output_dir` holds no run or, with `deep`, when it is being written.
    """
    path = Path(output_dir)
    tracker = TrainingProgressTracker(path)
    try:
        if not deep:
            return _Check(path, tracker, deep=False).all()
        with locked(path, "verify --deep"):
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
        found += self._finished()
        if self.deep and not found:
            found += self._digest()
        return found

    def _images(self) -> list[str]:
        root = self.path / "images.zarr"
        if not root.is_dir():  # cleared on purpose, or nothing drawn yet; encoded capsules do not need it
            return []
        try:
            damaged = ImageCache(root, image_size=self.tracker.bound().get("image_size", 224)).damaged(self.deep)
        except DamagedError as error:
            return [str(error)]
        self.damaged["images"] = sorted(damaged)
        return list(damaged.values())

    def _chunks(self, consolidator: Consolidator) -> list[str]:
        found = []
        for chunk in sorted(self.tracker.chunks()):
            path = consolidator.chunk.file(consolidator.array, chunk)
            try:
                trouble = self._file(path, consolidator.receipt(chunk))
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
            nbytes, sha256 = self.tracker.batch_file(batch)
            trouble = self._file(path, Receipt("batch", batch, 0, nbytes, sha256))
            if trouble:
                found.append(trouble)
                self.damaged["batches"].append(batch)
        return found

    def _file(self, path: Path, receipt: Receipt) -> str | None:
        if not path.is_file():
            return f"{path}: missing"
        if path.stat().st_size != receipt.nbytes:
            return f"{path}: {path.stat().st_size} bytes, expected {receipt.nbytes}"
        if self.deep and sha256_of(path) != receipt.sha256:
            return f"{path}: its bytes are not those that were written (sha256)"
        return None

    def _finished(self) -> list[str]:
        rows = self.tracker.rows_planned()
        total = self.consolidator.batches_total() if self.consolidator else None
        stats = self.tracker.get_stats()
        if total is None or stats["consolidation"]["total_batches_consolidated"] < total:
            return [f"{self.path}: not finished ({stats['samples_encoded']} samples encoded); run again, it continues"]
        found = []
        try:
            shape = read_shape(self.path / "capsules.zarr" / "capsules")
            if shape is None or shape[0] != rows:
                found.append(f"{self.path / 'capsules.zarr'}: shape {shape}, expected {rows} rows")
            held = pq.read_metadata(self.path / "samples.parquet").num_rows
            if held != rows:
                found.append(f"{self.path / 'samples.parquet'}: {held} rows, expected {rows}")
            json.loads((self.path / "dataset_info.json").read_bytes())
        except DamagedError as error:
            found.append(str(error))
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors and OSErrors
            found.append(f"{self.path}: a file of the finished dataset cannot be read ({error})")
        return found

    def _digest(self) -> list[str]:
        info = json.loads((self.path / "dataset_info.json").read_bytes())
        try:
            digest = content_digest(self.path, self.tracker)
        except DamagedError as error:
            return [str(error)]
        wrong = digest != info.get("content_digest")
        return [f"{self.path}: content digest {digest[:16]}..., dataset_info.json says otherwise"] if wrong else []
