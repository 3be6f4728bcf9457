"""Encoding batches as their rows are resolved, alone or while images are still being rendered.

The producer (a thread that feeds rendering processes) plans rows and fills the image cache; the consumer (the caller's
thread) encodes a batch as soon as all its rows are resolved, and consolidates a chunk as soon as its batches are there.
They meet only in the tracker and the cache, both durable, so that either may run alone, be killed and go on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import TYPE_CHECKING

from trm_nb.cache.image_cache import ImageCache
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import DamagedError, UserError
from trm_nb.pipeline.check import encode_settings
from trm_nb.pipeline.consolidate import Consolidator
from trm_nb.pipeline.encode_task import (
    COMPUTED_IN,
    ENCODER,
    Batch,
    EncodedBatch,
    EncodeRecipe,
    Place,
    encode_batch,
    encode_with,
    precision_of,
)
from trm_nb.pipeline.repair import adopt_batch, made_from
from trm_nb.progress.planned import PlannedRow
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import Progress, Receipt, Sample
from trm_nb.render.typesetting import lexing
from trm_nb.storage.arrays import write_metadata
from trm_nb.storage.files import commit, fault_point
from trm_nb.storage.receipts import write_receipt
from trm_nb.workers.pool import WorkerDied, run_tasks
from trm_nb.workers.worker import Task

if TYPE_CHECKING:
    from trm_nb.models.encoder import Encoder

POLL_SECONDS = 0.1


class BatchEncoder:
    """Encodes the batches of a run that are missing, in order, and consolidates on the way.

    Args:
        encoder: on its device.
        config: the run's; its fields of encoding are frozen when the first batch is ready.
        cache: the run's images.
        consolidator: of the run's batches and chunks.
        tracker: the run's.
    """

    def __init__(
        self,
        encoder: Encoder,
        config: MultimodalDatasetConfig,
        cache: ImageCache,
        consolidator: Consolidator,
        tracker: TrainingProgressTracker,
    ) -> None:
        self.encoder, self.config, self.cache = encoder, config, cache
        self.consolidator, self.tracker = consolidator, tracker
        self._recipe: EncodeRecipe | None = None

    def encode(self, on_progress: Progress | None = None, producer: Producer | None = None) -> int:
        """Encode every batch that is missing.

        Args:
            on_progress: called often.
            producer: what is still rendering; None: all rows are resolved.

        Returns:
            How many batches were encoded.

        Raises:
            UserError: for a batch that kills its worker each time, and for other settings than those that are frozen.
            DamagedError: for images that are damaged.
        """
        tick = self.tracker.beating(on_progress)

        def here(task: Task[Batch]) -> EncodedBatch:
            return encode_with(self.encoder, task[0], tick)

        encoded = 0
        for (batch,), result in run_tasks(
            here if self.config.cluster is None else encode_batch,
            self._batches(producer),
            workers=0,
            cluster=self.config.cluster,
            on_wait=tick,
            min_pool=0,
            notes=self.consolidator.batch_receipts.absolute(),
        ):
            if isinstance(result, WorkerDied):
                raise UserError(f"{batch} killed its worker each time; give workers more memory, or lower micro_batch")
            self._record(batch, result)
            encoded += 1
            self.consolidator.consolidate_ready(on_progress, full_only=True)
        return encoded

    def _batches(self, producer: Producer | None) -> Iterator[list[Batch] | None]:
        """Each batch that is not encoded, in order, once all its rows are resolved; None while the next is not."""
        done = self.tracker.batches()
        for number in count():
            if number in done:
                continue
            while (rows := self._resolved_rows(number, producer)) is None:
                yield None
            if not rows:
                return
            recipe = self._recipe = self._recipe or self._frozen_recipe()
            source = made_from(recipe.encoding, rows)
            if not adopt_batch(self.tracker, self.consolidator, number, rows, source):
                yield [Batch(number, self._places(rows), source, recipe)]

    def _resolved_rows(self, batch: int, producer: Producer | None) -> list[PlannedRow] | None:
        """The rows of a batch when all are resolved; after the last batch: []; not yet: None.

        Raises what the producer raised.
        """
        finished = producer is None or not producer.alive()
        if producer is not None and finished:
            producer.raise_error()
        size = self.consolidator.batch.rows
        first, end = batch * size, (batch + 1) * size
        complete = self.tracker.rows_planned() >= end or bool(self.tracker.get("plan_frozen", False))
        if complete and not self.tracker.pending(first, end):
            return self.tracker.rows(first, end)
        if finished:
            raise RuntimeError(f"rows {first}..{end} are pending, though rendering has ended; run again")
        return None

    def _frozen_recipe(self) -> EncodeRecipe:
        """How to encode; freezes the settings of it first."""
        c, fingerprint = self.config, self.encoder.fingerprint
        precision = precision_of(self.tracker.frozen(), c)
        self.tracker.freeze("encode", {**encode_settings(c), ENCODER: fingerprint, COMPUTED_IN: precision})
        folder = self.consolidator.batch_receipts.absolute()  # a worker has another working directory
        weights = folder / f"encoder-{fingerprint}.tmp"  # swept when the run begins the next time
        if c.cluster is not None:
            self.encoder.save(weights)
        return EncodeRecipe(
            str(weights), fingerprint, c.micro_batch, c.torch_threads, c.device, precision,
            str(self.cache.array.absolute()), self.cache.layout, str(folder), self.consolidator.batch,
        )  # fmt: skip

    def _places(self, rows: list[PlannedRow]) -> tuple[Place | None, ...]:
        """Where the rows' images are, None for a quarantined row."""
        usable = [row.key for row in rows if row.status == "ok"]
        try:
            found = iter(self.cache.places(usable).tolist())
        except KeyError as error:
            raise DamagedError(
                f"{error.args[0]}: it was cleared or damaged meanwhile; run again, it is rendered again"
            ) from None
        return tuple(tuple(next(found)) if row.status == "ok" else None for row in rows)

    def _record(self, batch: Batch, encoded: EncodedBatch) -> None:
        """Make a staged batch durable, and then known."""
        number, rows, staged = batch.number, len(batch.places), encoded.staged
        fault_point("batch-staged")
        layout = self.consolidator.batch
        write_metadata(self.consolidator.loose, layout, self.tracker.rows_planned())
        write_metadata(self.consolidator.array, self.consolidator.chunk, self.consolidator.rows_so_far())
        commit(staged, layout.file(self.consolidator.loose, number))
        fault_point("batch-renamed")
        receipt = Receipt("batch", number, rows, staged.nbytes, staged.sha256, made_from=batch.made_from)
        write_receipt(self.consolidator.loose, receipt)
        fault_point("batch-receipt")
        self.tracker.add_batch(receipt, encoded.seconds)
        fault_point("batch-recorded")


class Producer:
    """A thread that renders; leaving the block waits for it, and raises what it raised.

    Args:
        work: renders the samples it is given, calling its second argument often; returns how many images are new.
        samples: what to render.
    """

    def __init__(self, work: Callable[[Iterable[Sample], Progress], int], samples: Iterable[Sample]) -> None:
        self.rendered = 0
        self._work, self._samples = work, samples
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rendering", daemon=True)
        self._error: BaseException | None = None

    def _run(self) -> None:
        try:
            self.rendered = self._work(self._checked(), self._check)
        except _StoppedError:
            return
        except BaseException as error:  # carried over to the consumer's thread
            self._error = error

    def _checked(self) -> Iterator[Sample]:
        """The samples, each after a check whether to go on: planning a shard of large files may take long."""
        for sample in self._samples:
            self._check()
            yield sample

    def _check(self) -> None:
        if self._stop.is_set():
            raise _StoppedError

    def wait(self, enough: Callable[[], bool], on_wait: Progress) -> None:
        """Wait until there is enough to begin with, or all; raises what the work raised."""
        while self.alive() and not enough():
            on_wait()
            time.sleep(POLL_SECONDS)
        if not self.alive():
            self.raise_error()

    def alive(self) -> bool:
        """Whether there is more to come."""
        return self._thread.is_alive()

    def raise_error(self) -> None:
        """Raise what the work raised."""
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Producer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._stop.set()
            while self._thread.is_alive():
                lexing.stop()
                self._thread.join(0.2)
        self._thread.join()
        if error is None:
            self.raise_error()


class _StoppedError(BaseException):
    """The consumer failed or was interrupted, so the producer ends at its next step."""
