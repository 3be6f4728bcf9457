"""StreamingEncoderBuilder: samples in, capsules out, drawing and encoding at the same time.

The producer (a thread that feeds drawing processes) plans rows and fills the image cache; the consumer (this thread)
encodes a batch as soon as all its rows are settled, and consolidates a chunk as soon as its batches are there. They
meet only in the tracker and the cache, both durable, so that either may run alone, be killed and go on: the notebooks
call the same methods one after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trm_nb.cache.image_cache import ImageCache
from trm_nb.errors import DamagedError, UserError
from trm_nb.pipeline.consolidate import Consolidator
from trm_nb.pipeline.dataset_files import finish_dataset
from trm_nb.pipeline.encode_task import (
    COMPUTED_IN,
    Batch,
    EncodedBatch,
    EncodeRecipe,
    Place,
    encode_batch,
    encode_with,
    precision_for,
)
from trm_nb.pipeline.plan import Planner, refuse_too_many_errors
from trm_nb.pipeline.repair import adopt_batch, made_from, mend, noting_damage
from trm_nb.progress.tables import PlannedRow
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import Progress, Receipt, Sample
from trm_nb.render.renderer import Renderer, RenderSettings
from trm_nb.render.typesetting import lexing
from trm_nb.sources.memory import as_items
from trm_nb.storage.arrays import write_metadata
from trm_nb.storage.files import commit, fault_point, locked
from trm_nb.storage.receipts import write_receipt
from trm_nb.workers.pool import Task, WorkerDied, run_tasks

if TYPE_CHECKING:
    from trm_nb.models.vision_encoder import TRMVisionEncoder

START_THRESHOLD = 50_000


@dataclass(frozen=True, slots=True)
class StreamReport:
    """What a streaming build did: rows of the whole dataset, pictures drawn and batches encoded in this call."""

    rows: int
    pictures_drawn: int
    batches_encoded: int
    batches_total: int
    chunks_total: int


class StreamingEncoderBuilder:
    """Builds the capsules of one run in `checkpoint_dir`; made again after an interruption, it continues.

    `cache` defaults to `<checkpoint_dir>/images.zarr`, `encoder` to the trained encoder of the preset `base`; it may be
    a function that makes one, called when the first batch is encoded. `seed` decides the split. `settings` are what a
    run is bound to when its first batch is made; by default the sizes given here. `micro_batch` and `torch_threads`
    are fixed for a run, since they can change the last bits of a capsule. With a `cluster`
    (workers/dask_cluster.py) its workers draw and encode. More than `max_errors` quarantined items and samples
    (below 1: that part of all) end a build.
    """

    def __init__(
        self,
        checkpoint_dir: str | Path,
        batch_size: int = 1000,
        *,
        batches_per_chunk: int = 100,
        cache: ImageCache | None = None,
        encoder: TRMVisionEncoder | Callable[[], TRMVisionEncoder] | None = None,
        micro_batch: int = 64,
        torch_threads: int = 2,
        device: str = "cpu",
        precision: str = "auto",
        seed: int = 0,
        workers: int | None = None,
        cluster: str | None = None,
        max_errors: int | float | None = None,
        tracker: TrainingProgressTracker | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.path = Path(checkpoint_dir)
        self.batch_size, self.batches_per_chunk = batch_size, batches_per_chunk
        self.micro_batch, self.torch_threads = micro_batch, torch_threads
        self.device, self.precision = device, precision
        self.seed, self.workers, self.cluster = seed, workers, cluster
        self.max_errors = max_errors
        self.tracker = tracker or TrainingProgressTracker(self.path, create=True)
        self._cache, self._encoder, self._given_settings = cache, encoder, settings
        self.consolidator = Consolidator(self.path, batch_size, batches_per_chunk, self.tracker)

    @property
    def cache(self) -> ImageCache:
        """The run's image cache."""
        if self._cache is None:
            self._cache = self._new_cache(None)
        return self._cache

    @property
    def encoder(self) -> TRMVisionEncoder:
        """The encoder, on its device."""
        from trm_nb.models.vision_encoder import TRMVisionEncoder  # torch, only when something is encoded

        if self._encoder is None:
            self._encoder = TRMVisionEncoder("base", seed=self.seed, image_size=self.cache.image_size)
        elif not isinstance(self._encoder, TRMVisionEncoder):
            self._encoder = self._encoder()
        try:
            return self._encoder.to(self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"device {self.device!r} cannot be used here: {reason}; `trm-nb doctor` lists them"
            ) from None

    # -- all of it --------------------------------------------------------------------------------------------------

    def stream_build(
        self,
        samples: Iterable[Any],
        renderer: Renderer | None = None,
        start_threshold: int = START_THRESHOLD,
        on_progress: Progress | None = None,
    ) -> StreamReport:
        """Draw, cache, encode and consolidate samples: text, PIL images, integer grids and Items in any mixture.

        `renderer` replaces the default one (other text size or picture size). Encoding starts once `start_threshold`
        samples are cached, or all of them. `samples` are walked in order, and again after an interruption; they must
        be the same then.
        """
        if renderer is not None:
            self._use(renderer)
        with locked(self.path, "stream_build"), noting_damage(lambda: self.tracker):
            self.tracker.bind("plan", {"seed": self.seed, "renderers": self.cache.fingerprints()})
            mend(self.tracker, self.cache, self.consolidator)
            self.announce()
            planner = Planner(self.tracker, self.cache.samples, seed=self.seed, max_errors=self.max_errors)
            report = self.stream(planner.from_items(as_items(samples)), start_threshold, on_progress)
            settings = {**self._settings(), "seed": self.seed, "image_size": self.cache.image_size}
            finish_dataset(self.path, settings, self.tracker, self.consolidator, self.cache, lambda: self.encoder)
        return report

    def _use(self, renderer: Renderer) -> None:
        if self._cache is not None:
            raise UserError(
                "a cache was given, and it has its own renderer: give the renderer's settings to ImageCache"
            )
        self._cache = self._new_cache(renderer.settings)

    def _new_cache(self, render: RenderSettings | None) -> ImageCache:
        return ImageCache(
            self.path / "images.zarr", render=render, shard_size=self.batch_size, workers=self.workers,
            cluster=self.cluster,
        )  # fmt: skip

    def _settings(self) -> dict[str, Any]:
        """What can change the bytes of a batch or of a chunk; bound with the first batch."""
        return self._given_settings or {
            "batch_size": self.batch_size,
            "batches_per_chunk": self.batches_per_chunk,
            "micro_batch": self.micro_batch,
            "torch_threads": self.torch_threads,
            "device": self.device,
            "encoder_precision": self.precision,
        }

    def stream(
        self, planned: Iterator[Sample], start_threshold: int = START_THRESHOLD, on_progress: Progress | None = None
    ) -> StreamReport:
        """The same for samples that a Planner hands on."""
        drawing = _Drawing(lambda tick: self.draw(_each_after(tick, planned), tick))
        with drawing, self.tracker.stage("encode"):
            encoded = self._encode_as_ready(drawing, start_threshold, on_progress)
        self.consolidate(on_progress)
        total = self.consolidator.batches_total() or 0
        chunks = -(-total // self.batches_per_chunk)
        return StreamReport(self.tracker.rows_planned(), drawing.result, encoded, total, chunks)

    def announce(self) -> None:
        """Say what an interrupted run left, as its first line."""
        batches, chunks = len(self.tracker.batches()), len(self.tracker.chunks())
        if batches or chunks:
            with suppress(BrokenPipeError):  # output that nobody reads ends no build
                print(f"Found existing progress: {batches} batches + {chunks} chunks", flush=True)

    # -- the stages -------------------------------------------------------------------------------------------------

    def draw(self, planned: Iterable[Sample], on_progress: Progress | None = None, stage: str = "render") -> int:
        """Draw what is missing of a plan's samples as `stage`; returns how many pictures were new."""

        def settled(keys: list[str], failed: dict[str, str]) -> None:
            self.tracker.settle(keys, failed)
            if failed:
                refuse_too_many_errors(self.tracker, self.max_errors)
            self._tick(on_progress)

        with self.tracker.stage(stage):
            drawn = self.cache.fill(planned, settled, lambda: self._tick(on_progress))
            refuse_too_many_errors(self.tracker, self.max_errors, final=True)
            return drawn

    def encode(self, on_progress: Progress | None = None) -> int:
        """Encode every batch that is missing; all rows must be settled. Returns how many batches were encoded."""
        with self.tracker.stage("encode"):
            return self._encode_as_ready(None, 1, on_progress)

    def consolidate(self, on_progress: Progress | None = None) -> int:
        """Make the chunks that are still missing; returns how many."""
        with self.tracker.stage("consolidate"):
            return self.consolidator.consolidate_ready(on_progress)

    def _encode_as_ready(self, drawing: _Drawing | None, start_threshold: int, on_progress: Progress | None) -> int:
        """Encode batch after batch as its rows are settled, consolidating on the way."""

        def tick() -> None:
            self._tick(on_progress)

        def here(task: Task[Batch]) -> EncodedBatch:
            return encode_with(self.encoder, task[0], tick)

        encoded = 0
        for (batch,), result in run_tasks(
            here if self.cluster is None else encode_batch,
            self._batches_to_encode(drawing, start_threshold, on_progress),
            workers=0,
            cluster=self.cluster,
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

    def _batches_to_encode(
        self, drawing: _Drawing | None, start_threshold: int, on_progress: Progress | None
    ) -> Iterator[list[Batch] | None]:
        """Each batch that is not encoded yet, in order, once all its rows are settled; None while the next is not."""
        done, number, started = self.tracker.batches(), 0, False
        recipe: EncodeRecipe | None = None
        self.consolidator.consolidate_ready(on_progress, full_only=True)
        while True:
            if number in done:
                number += 1
                continue
            started = started or drawing is None or not drawing.alive() or self.tracker.settled() >= start_threshold
            rows = self._ready_rows(number, drawing) if started else None
            if rows is None:
                yield None
                continue
            if not rows:
                return
            recipe = recipe or self._encode_recipe()
            source = made_from(recipe.encoding, rows)
            if adopt_batch(self.tracker, self.consolidator, number, rows, source):
                self.consolidator.consolidate_ready(on_progress, full_only=True)
            else:
                yield [Batch(number, self._places(rows), source, recipe)]
            number += 1

    def _encode_recipe(self) -> EncodeRecipe:
        """Make the encoder, and then bind the run to it: one that cannot be used binds nothing."""
        fingerprint = self.encoder.fingerprint
        precision = self.tracker.bound().get(COMPUTED_IN) or precision_for(self.precision, self.device)
        self.tracker.bind("encode", {**self._settings(), "encoder_fingerprint": fingerprint, COMPUTED_IN: precision})
        folder = self.consolidator.batch_receipts.absolute()  # a worker has another working directory
        weights = folder / f"encoder-{fingerprint}.tmp"  # swept when the run begins the next time
        if self.cluster is not None:
            self.encoder.save(weights)
        return EncodeRecipe(
            str(weights), fingerprint, self.micro_batch, self.torch_threads, self.device, precision,
            str(self.cache.array.absolute()), self.cache.layout, str(folder), self.consolidator.batch,
        )  # fmt: skip

    def _ready_rows(self, batch: int, drawing: _Drawing | None) -> list[PlannedRow] | None:
        """The rows of a batch when all are settled; none left: []; not yet: None. Raises what the drawing raised."""
        finished = drawing is None or not drawing.alive()
        if drawing is not None and finished:
            drawing.raise_error()
        first, end = batch * self.batch_size, (batch + 1) * self.batch_size
        complete = self.tracker.rows_planned() >= end or bool(self.tracker.get("plan_frozen", False))
        if complete and not self.tracker.waiting(first, end):
            return self.tracker.rows(first, end)
        if finished:
            raise RuntimeError(f"rows {first}..{end} are not drawn, though drawing has ended; run again")
        return None

    def _places(self, rows: list[PlannedRow]) -> tuple[Place | None, ...]:
        """Where the rows' pictures lie, None for a quarantined row."""
        usable = [row.key for row in rows if row.status == "ok"]
        try:
            found = iter(self.cache.places(usable).tolist())
        except KeyError as error:
            raise DamagedError(
                f"{error.args[0]}: it was cleared or damaged meanwhile; run again, it is drawn anew"
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

    def _tick(self, on_progress: Progress | None) -> None:
        self.tracker.beat()
        if on_progress:
            on_progress()


def _each_after(check: Progress, samples: Iterable[Sample]) -> Iterator[Sample]:
    """The samples, each after a check whether to go on: planning a shard of large files may take long."""
    for sample in samples:
        check()
        yield sample


class _Drawing:
    """The producer's thread; leaving the block waits for it, and raises what it raised."""

    def __init__(self, work: Callable[[Progress], int]) -> None:
        self.result = 0
        self._work = work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drawing", daemon=True)
        self._error: BaseException | None = None

    def _run(self) -> None:
        try:
            self.result = self._work(self._check)
        except _StoppedError:
            return
        except BaseException as error:  # carried over to the consumer's thread
            self._error = error

    def _check(self) -> None:
        if self._stop.is_set():
            raise _StoppedError

    def alive(self) -> bool:
        return self._thread.is_alive()

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def __enter__(self) -> _Drawing:
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
