"""verify: is a run's dataset what was written?

The quick look compares files with their receipts by existence and size, and the tables with each other. `deep` hashes
every shard, batch and chunk and recomputes the content digest, at the disk's speed. Where it finds damage, the run is
marked as suspect, so that the next run hashes everything too and repairs what is damaged (`repair.repair`). A dataset
that cannot be written is checked in the same way; its damage is reported, but not recorded.
"""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trm_nb.cache.image_store import ImageStore
from trm_nb.errors import DamagedError, NotWritableError, UserError
from trm_nb.pipeline.consolidate import Consolidator
from trm_nb.pipeline.dataset_files import content_digest, damaged_files
from trm_nb.progress.tables import SUSPECT
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.storage.arrays import metadata_trouble
from trm_nb.storage.files import locked

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Damage:
    """One file that is missing, altered or unknown.

    `what` says of what: a "shard" of images, a "chunk" or a "batch" of capsules, which have a `number`, or a "stray"
    file of capsules at `path`, which neither a receipt nor the tracker knows.
    """

    what: Literal["shard", "chunk", "batch", "stray"]
    message: str
    number: int = -1
    path: Path = Path()


def inspect(images: ImageStore | None, consolidator: Consolidator | None, deep: bool) -> list[Damage]:
    """Inspect what there is of a run's arrays.

    Args:
        images: the run's; None where there are none.
        consolidator: of the run's batches and chunks; None where nothing was encoded.
        deep: read everything and compare the hashes.

    Returns:
        The damages: of images first, then of chunks and batches, then stray files.
    """
    found: list[Damage] = []
    if images is not None:
        found += [Damage("shard", message, shard) for shard, message in images.damaged(deep).items()]
    if consolidator is not None:
        found += [Damage("chunk", message, chunk) for chunk, message in consolidator.damaged_chunks(deep).items()]
        found += [Damage("batch", message, batch) for batch, message in consolidator.damaged_batches(deep).items()]
        unknown = "its receipt is missing, so its content cannot be verified"
        found += [Damage("stray", f"{path}: {unknown}", path=path) for path in consolidator.unknown_files()]
    return found


def verify(output_dir: str | Path, deep: bool = False) -> list[str]:
    """Check a run's data.

    Args:
        output_dir: the run's folder.
        deep: read everything and check every hash; the run's lock is held meanwhile.

    Returns:
        One sentence for each thing that is damaged, missing or unfinished; nothing when all is whole.

    Raises:
        UserError: `output_dir` holds no run or, with `deep`, is being written.
    """
    path = Path(output_dir)
    try:
        tracker = TrainingProgressTracker(path)
    except DamagedError as error:
        return [str(error)]
    with ExitStack() as stack:
        stack.callback(tracker.close)
        if not deep:
            return _Check(path, tracker, deep=False).all()
        writable = _lock(path, tracker, stack)
        if trouble := tracker.trouble():
            return [trouble]
        if writable:
            tracker.end_stages_of_the_dead()
        check = _Check(path, tracker, deep=True)
        found = check.all()
        check.note()
        return found


def _lock(path: Path, tracker: TrainingProgressTracker, stack: ExitStack) -> bool:
    """Keep writers out where the run can be locked, and return whether it can: locking needs to write.

    Elsewhere only the tracker can tell that another process is writing; then UserError is raised.
    """
    try:
        stack.enter_context(locked(path, "verify --deep"))
        return True
    except NotWritableError:
        if tracker.get_stats()["state"].startswith("running"):
            raise UserError(f"{path} is being written by another process; wait for it, or stop it") from None
        return False


class _Check:
    """What is damaged in `arrays`, in `tables` (and the card), in `copies` that every run compares and writes again.

    `unfinished` is no damage: the next run goes on with it.
    """

    def __init__(self, path: Path, tracker: TrainingProgressTracker, deep: bool) -> None:
        self.path, self.tracker, self.deep = path, tracker, deep
        self.arrays: list[str] = []
        self.tables: list[str] = []
        self.copies: list[str] = []
        self.unfinished: list[str] = []

    def all(self) -> list[str]:
        frozen, paths = self.tracker.frozen(), self.tracker.paths
        consolidator = (
            Consolidator(self.tracker, frozen["batch_size"], frozen["batches_per_chunk"])
            if "batch_size" in frozen
            else None
        )
        with ExitStack() as stack:
            images = _images(paths.images, stack)
            damages = inspect(images, consolidator, self.deep)
            if images and len(images) and (trouble := metadata_trouble(images.array, images.layout)):
                self.copies.append(trouble)
        # while another process writes, a file may be there a moment before its receipt is
        self.arrays += [damage.message for damage in damages if self.deep or damage.what != "stray"]
        self.tables += damaged_files(self.tracker, self.deep)  # also where chunks are missing: they may come back
        if consolidator and consolidator.complete():
            self._finished()
        else:
            encoded = f"{self.tracker.get_stats()['samples_encoded']} samples encoded"
            self.unfinished.append(f"{self.path}: not finished ({encoded}); run again, it continues")
        if self.deep and (trouble := self.tracker.frozen_copy_trouble()):
            self.copies.append(trouble)
        return [*self.copies, *self.arrays, *self.tables, *self.unfinished]

    def note(self) -> None:
        """Record the damage, so that the next run repairs it."""
        try:
            if self.arrays:
                self.tracker.set(SUSPECT, True)
            if self.tables:
                self.tracker.set("dataset_made_of", None)
        except NotWritableError:
            again = "once it can be, `trm-nb verify --deep` notes what is damaged and running again repairs it"
            log.warning("%s cannot be written, so the damage is not noted: %s", self.path, again)

    def _finished(self) -> None:
        if not self.tables and not self.tracker.get("dataset_made_of"):
            self.unfinished.append(f"{self.path}: its tables and card are not written yet; run again, it continues")
        elif self.deep and not self.arrays and not self.tables:
            self._digest()

    def _digest(self) -> None:
        info = json.loads(self.tracker.paths.info.read_bytes())
        try:
            digest = content_digest(self.tracker)
        except DamagedError as error:
            self.arrays.append(str(error))
            return
        if digest != info.get("content_digest"):
            self.tables.append(f"{self.path}: content digest {digest[:16]}..., dataset_info.json says otherwise")


def _images(root: Path, stack: ExitStack) -> ImageStore | None:
    """The run's images; None where they were deleted on purpose, or nothing is rendered yet."""
    if not root.is_dir():
        return None
    images = ImageStore(root)
    stack.callback(images.close)
    return images
