"""ImageCache: every image rendered once, found again by its content.

A key hashes the content and everything that shapes the pixels (renderer, its settings, the glyph atlas, the denoiser),
so a hit is always right and a change of settings is simply a miss. A task renders up to `shard_size` missing keys and
writes them as one new shard of the store (image_store.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trm_nb.cache.image_store import SHARD_SIZE, ImageStore
from trm_nb.cache.render_task import Recipe, marker, render_shard
from trm_nb.denoise import checkpoint_of, load_denoiser
from trm_nb.errors import RejectedError, UserError
from trm_nb.records import CONFIGURED, CacheReport, DenoiserSize, ImageBytes, Item, Modality, Precision, Sample
from trm_nb.render.renderer import Renderer, RenderSettings
from trm_nb.sources.memory import as_items
from trm_nb.storage.files import fault_point
from trm_nb.workers.pool import MIN_POOL, WorkerDied, run_tasks, worker_count

if TYPE_CHECKING:
    from trm_nb.denoise import AnyDenoiser

MAX_TASK_BYTES = 64 * 2**20  # of images that are not in files
Resolved = Callable[[list[str], dict[str, str]], None]


class ImageCache(ImageStore):
    """Images by content key, uint8 (h, w, 3), rendered where they are missing.

    Args:
        cache_dir: a Zarr group of its own (a run's is `<output_dir>/images.zarr`), made where it is not there.
        use_denoiser: the modalities whose images are denoised before they are cached; True: "image", that is,
            photographs and scans.
        denoiser_path: where `denoise.load_denoiser` looks for the denoiser; nothing there means none, and a warning.
            None: the package's own.
        denoiser: which of the package's own, "base" or "large".
        denoiser_precision: that of its convolutions; bfloat16 is about twice as fast where the processor has it.
        render: the settings of the renderer; None: their defaults.
        shard_size: images in a file of a new cache; an existing one keeps its own.
        workers: rendering processes; None: one a core, 0: none.
        cluster: the address of a Dask scheduler whose workers render (see workers/dask_cluster.py).

    Raises:
        UserError: for an unknown modality or denoiser, a checkpoint that does not fit, and a cache of another image
            size.
    """

    def __init__(
        self,
        cache_dir: str | Path,
        use_denoiser: bool | Sequence[Modality] = False,
        denoiser_path: str | Path | None = None,
        *,
        denoiser: DenoiserSize = "base",
        denoiser_precision: Precision = "float32",
        render: RenderSettings | None = None,
        shard_size: int = SHARD_SIZE,
        workers: int | None = None,
        cluster: str | None = None,
    ) -> None:
        self.workers, self.cluster, self.denoiser_precision = workers, cluster, denoiser_precision
        self._denoised: tuple[Modality, ...] = ("image",) if use_denoiser is True else tuple(use_denoiser or ())
        if not set(self._denoised) <= set(CONFIGURED):
            raise UserError(f"use_denoiser: expected True, False or some of {CONFIGURED}, got {use_denoiser!r}")
        checkpoint = checkpoint_of(denoiser_path or None, denoiser)
        self.denoiser: AnyDenoiser | None = (
            load_denoiser(checkpoint, precision=denoiser_precision) if self._denoised else None
        )
        self.renderer = Renderer(render)
        at = str(Path(denoiser_path).absolute()) if denoiser_path else None  # as a worker sees it
        fingerprint = self.denoiser.fingerprint if self.denoiser else ""
        self._recipe = Recipe(self.renderer.settings, at, denoiser, denoiser_precision, fingerprint, self._denoised)
        super().__init__(cache_dir, self.renderer.settings.image_size, shard_size)

    # -- from items to keys -----------------------------------------------------------------------------------------

    def denoises(self, modality: Modality) -> bool:
        """Whether images pass through the denoiser.

        Args:
            modality: of the images.

        Returns:
            False also where there is no denoiser.
        """
        return self.denoiser is not None and modality in self._denoised

    def samples(self, item: Item) -> list[Sample]:
        """Lay an item out.

        Args:
            item: of any modality.

        Returns:
            Its samples in order, with their keys; nothing is rendered.

        Raises:
            RejectedError: when the item cannot be used.
        """
        return self.renderer.samples(item, self._salt(item.modality))

    def _salt(self, modality: Modality) -> str:
        return self.denoiser.fingerprint if self.denoiser and self.denoises(modality) else ""

    def fingerprints(self) -> dict[str, str]:
        """By modality that the config names, what shapes its pixels besides the content; a run is bound to them.

        Those of further kinds are in their samples' keys alone: an update of one of their decoders must not stop a run
        that has no such content.
        """
        return {m: f"{self.renderer.fingerprint(m)} {self._salt(m)}".strip() for m in CONFIGURED}

    def keys_for(self, item: Any) -> list[str]:
        """The keys of an item, whether or not its images are there.

        Args:
            item: a text, a PIL image, an integer grid, or an Item.

        Returns:
            A key of 32 hex digits for each page.

        Raises:
            RejectedError: when the item cannot be used.
        """
        return [sample.key for whole in as_items([item]) for sample in self.samples(whole)]

    # -- rendering --------------------------------------------------------------------------------------------------

    def populate(self, samples: Iterable[Any]) -> CacheReport:
        """Render what is missing of some samples.

        Args:
            samples: text, PIL images, integer grids and Items in any mixture.

        Returns:
            `keys`, one for each page in order; `hits` (already there, or twice in `samples`), `misses` (rendered now)
            and `failed` (key -> reason; for an item that cannot be laid out, its id -> reason).

        Raises:
            UserError: for a value of another type, and while another process writes the cache.
        """
        keys: list[str] = []
        failed: dict[str, str] = {}
        rejected: dict[str, str] = {}

        def planned() -> Iterator[Sample]:
            for item in as_items(samples):
                try:
                    laid_out = self.samples(item)
                except RejectedError as error:
                    rejected[item.item_id] = str(error)
                    continue
                for sample in laid_out:
                    keys.append(sample.key)
                    yield sample

        rendered = self.fill(planned(), lambda _, bad: failed.update(bad))
        hits = sum(key not in failed for key in keys) - rendered
        return CacheReport(keys, hits, rendered, {**failed, **rejected})

    def fill(self, samples: Iterable[Sample], resolved: Resolved, on_wait: Callable[[], None] | None = None) -> int:
        """Render the missing images of a stream of samples, shard by shard.

        Holds the cache's lock meanwhile. Memory is bounded by the shards in flight, whatever the length of the stream.
        A few samples are rendered in this very process, unless a run died at that the last time.

        Args:
            samples: laid out by `samples`.
            resolved: called with keys whose images are there and with the reasons of those that failed, after each
                shard is durable, and for keys that were there already.
            on_wait: called often.

        Returns:
            How many images were rendered.

        Raises:
            UserError: while another process writes the cache.
        """
        with self.writing("rendering images"):
            number, rendered = self.next_number(), 0
            folder = self._receipts.absolute()  # a worker keeps the working directory that it began in
            render = partial(render_shard, recipe=self._recipe, layout=self.layout, folder=str(folder))
            died, harmless = marker(self._receipts).exists(), True
            under_way: set[str] = set()  # keys given to tasks
            transient: dict[str, str] = {}  # keys that failed for a reason that is not kept, for their copies
            results = run_tasks(
                render,
                self._missing(samples, resolved, under_way, transient),
                workers=max(1, worker_count(self.workers)) if died else self.workers,
                cluster=self.cluster,
                on_wait=on_wait,
                min_pool=0 if died else MIN_POOL,
                notes=folder,
                name=lambda sample: sample.sample_id,
            )
            for task, result in results:
                if isinstance(result, WorkerDied):
                    failed = {sample.key: result.reason for sample in task}
                    transient |= failed
                    resolved([], failed)
                    harmless = False
                else:
                    receipt = self.add(number, result)
                    number += 1
                    rendered += sum(1 for key in receipt.keys if key)
                    failed = {key: failure.reason for key, failure in result.failed.items()}
                    transient |= {key: reason for key, reason in failed.items() if key not in receipt.failed}
                    resolved([key for key in receipt.keys if key], failed)
                    fault_point("images-resolved")
                under_way.difference_update(sample.key for sample in task)
            if harmless:
                marker(self._receipts).unlink(missing_ok=True)
        return rendered

    def _missing(
        self, samples: Iterable[Sample], resolved: Resolved, under_way: set[str], transient: dict[str, str]
    ) -> Iterator[list[Sample]]:
        """Group unknown keys into tasks in the order of the samples; report the others as resolved.

        A task that carries many bytes of images is closed early: a short shard is as good, and memory has its bound.
        """
        task: list[Sample] = []
        carried, last = 0, b""
        here: list[str] = []
        for sample in samples:
            if sample.key not in under_way:
                reason = transient.get(sample.key) or self.failure(sample.key)
                if reason is not None:
                    resolved([], {sample.key: reason})
                elif sample.key in self:
                    here.append(sample.key)
                else:
                    under_way.add(sample.key)
                    task.append(sample)
                    if isinstance(sample.content, ImageBytes) and sample.content.data is not last:
                        last = sample.content.data
                        carried += len(last)
            if len(here) == self.layout.rows:
                resolved(here, {})
                here = []
            if len(task) == self.layout.rows or carried >= MAX_TASK_BYTES:
                yield task
                task, carried, last = [], 0, b""
        if here:
            resolved(here, {})
        if task:
            yield task

    def stats(self) -> dict[str, Any]:
        """Counts and sizes.

        Returns:
            `path`, `images`, `shards`, `failed`, `cleared`, `nbytes` (on disk), `bytes_per_image` and `part_of_raw`
            (the ratio to raw pixels; both None for an empty cache), `image_size` in pixels, and the fingerprint of the
            `denoiser`, None where there is none.
        """
        return {**super().stats(), "denoiser": self.denoiser.fingerprint if self.denoiser else None}
