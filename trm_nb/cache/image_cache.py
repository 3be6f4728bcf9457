"""ImageCache: every image rendered once, found again by its content.

A folder with one Zarr array and, beside it, a receipt a shard that names the keys in it. A key hashes the content and
everything that shapes the pixels (renderer, its settings, the glyph atlas, the denoiser), so a hit is always right
and a change of settings is simply a miss. A task renders up to `shard_size` missing keys and writes them as one new
shard; shards are never rewritten. An SQLite index over the receipts keeps memory flat; it is derived, and made again
when it is missing or does not agree with them.

One process writes (a lock says who); any number read.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trm_nb.cache.index import ImageIndex
from trm_nb.cache.render_task import Recipe, RenderedShard, marker, render_shard
from trm_nb.denoise import checkpoint_of, load_denoiser
from trm_nb.errors import DamagedError, RejectedError, UserError
from trm_nb.records import (
    CONFIGURED,
    CacheReport,
    DenoiseResult,
    DenoiserSize,
    ImageBytes,
    Item,
    Modality,
    Receipt,
    Sample,
)
from trm_nb.render.renderer import Renderer, RenderSettings
from trm_nb.sources.memory import as_items
from trm_nb.storage.arrays import Layout, image_layout, read_places, write_metadata
from trm_nb.storage.files import commit, fault_point, locked, sweep, trouble_with
from trm_nb.storage.receipts import file_numbers, read_receipt, receipt_numbers, receipt_path, write_receipt
from trm_nb.workers.pool import MIN_POOL, WorkerDied, run_tasks, worker_count

if TYPE_CHECKING:
    from trm_nb.denoise import AnyDenoiser

SHARD_SIZE = 1000
MAX_TASK_BYTES = 64 * 2**20  # of images that are not in files
Resolved = Callable[[list[str], dict[str, str]], None]


def whole_shard(cache_dir: Path) -> tuple[int, ...] | None:
    """(slots, h, w, 3) of a whole shard, as the receipts tell it, which have checksums; None for an empty cache."""
    for path in sorted((cache_dir / "images" / "receipts").glob("[0-9]*.json")):
        with suppress(DamagedError):
            return tuple(read_receipt(path).shape)
    return None


class ImageCache:
    """Images by content key, uint8 (h, w, 3). `array` is the Zarr array's folder and `layout` how it is cut.

    Args:
        cache_dir: a Zarr group of its own (a run's is `<output_dir>/images.zarr`), made where it is not there.
        use_denoiser: the modalities whose images are denoised before they are cached; True: "image", that is,
            photographs and scans.
        denoiser_path: where `denoise.load_denoiser` looks for the denoiser; nothing there means none, and a warning.
            None: the package's own.
        denoiser: which of the package's own, "base" or "large".
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
        render: RenderSettings | None = None,
        shard_size: int = SHARD_SIZE,
        workers: int | None = None,
        cluster: str | None = None,
    ) -> None:
        self.path = Path(cache_dir)
        self.workers, self.cluster = workers, cluster
        self._denoised: tuple[Modality, ...] = ("image",) if use_denoiser is True else tuple(use_denoiser or ())
        if not set(self._denoised) <= set(CONFIGURED):
            raise UserError(f"use_denoiser: expected True, False or some of {CONFIGURED}, got {use_denoiser!r}")
        checkpoint = checkpoint_of(denoiser_path or None, denoiser)
        self.denoiser: AnyDenoiser | None = load_denoiser(checkpoint) if self._denoised else None
        self.renderer = Renderer(render)
        at = str(Path(denoiser_path).absolute()) if denoiser_path else None  # as a worker sees it
        self._recipe = Recipe(
            self.renderer.settings, at, denoiser, self.denoiser.fingerprint if self.denoiser else "", self._denoised
        )
        self.array = self.path / "images"
        self._receipts = self.array / "receipts"  # inside the array, where readers of the store do not look
        self.layout = self._layout_for(self.renderer.settings.image_size, shard_size)
        self._index = ImageIndex(self._receipts)

    def _layout_for(self, image_size: int, shard_size: int) -> Layout:
        shape = whole_shard(self.path)
        layout = image_layout(shape[0] if shape else shard_size, image_size)
        if shape is not None and shape[1:] != layout.item:
            raise UserError(f"{self.path} holds images of {shape[1:]}, not {layout.item}; choose another cache folder")
        return layout

    def close(self) -> None:
        """Close the index's file."""
        self._index.close()

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.layout.item[0]

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

    # -- reading ----------------------------------------------------------------------------------------------------

    def __contains__(self, key: str) -> bool:
        return bool(self._index.slots([key]))

    def __len__(self) -> int:
        return self._index.counts()[0]

    def failure(self, key: str) -> str | None:
        """Why an image could not be made.

        Args:
            key: of the image.

        Returns:
            The reason in one sentence; None where the image was made or never tried.
        """
        return self._index.failure(key)

    def get(self, key: str) -> np.ndarray:
        """Read one image.

        Args:
            key: of the image.

        Returns:
            uint8 (h, w, 3).

        Raises:
            KeyError: for a key whose image is not here.
            DamagedError: for a shard that is missing or altered.
        """
        image: np.ndarray = self.get_many([key])[0]
        return image

    def get_many(self, keys: Sequence[str]) -> np.ndarray:
        """Read several images; each shard is read once.

        Args:
            keys: of the images; one may be there several times.

        Returns:
            uint8 (n, h, w, 3), in the order of the keys.

        Raises:
            KeyError, DamagedError: as `get` does.
        """
        return read_places(self.array, self.layout, self.places(keys))

    def places(self, keys: Sequence[str]) -> np.ndarray:
        """Where images lie.

        Args:
            keys: of the images.

        Returns:
            int64 (n, 2), the shard and the slot of each key.

        Raises:
            KeyError: for a key whose image is not here.
        """
        found = self._index.slots(keys)
        missing = next((key for key in keys if key not in found), None)
        if missing is not None:
            raise KeyError(f"{missing} is not in {self.path}")
        return np.array([found[key] for key in keys], np.int64).reshape(-1, 2)

    # -- writing ----------------------------------------------------------------------------------------------------

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
            number, rendered = self._next_number(), 0
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
                    receipt = self._commit(number, result)
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

    @contextmanager
    def writing(self, purpose: str) -> Iterator[None]:
        """Hold the cache's lock, and clear up what a killed writer left.

        Args:
            purpose: what others are told who want to write.

        Raises:
            UserError: while another process holds the lock; it names which.
        """
        with locked(self._receipts, purpose):
            sweep(self._receipts)
            self._index.sync()
            for shard in self.without_receipt():
                shutil.rmtree(self.array / "c" / str(shard))
            yield

    def without_receipt(self) -> list[int]:
        """Files that no receipt names, left by a kill in between: nothing says which images they hold."""
        named = self._index.shards().keys() | self._index.unreadable.keys()
        return [shard for shard in file_numbers(self.array) if shard not in named]

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

    def _commit(self, number: int, shard: RenderedShard) -> Receipt:
        fault_point("images-staged")
        commit(shard.staged, self.layout.file(self.array, number))
        fault_point("images-renamed")
        write_metadata(self.array, self.layout, (number + 1) * self.layout.rows)
        receipt = Receipt(
            "images",
            number,
            len(shard.keys),
            shard.staged.nbytes,
            shard.staged.sha256,
            shard.keys,
            {key: failure.reason for key, failure in shard.failed.items() if not failure.retryable},
            shard.denoised,
            shape=(self.layout.rows, *self.layout.item),
        )
        write_receipt(self.array, receipt)
        fault_point("images-receipt")
        self._index.add(receipt)
        return receipt

    def _next_number(self) -> int:
        return max([-1, *file_numbers(self.array), *receipt_numbers(self.array)]) + 1

    # -- keeping it whole -------------------------------------------------------------------------------------------

    def damaged(self, deep: bool = False) -> dict[int, str]:
        """Compare the files with their receipts.

        Args:
            deep: read and hash all of them; otherwise only their sizes are compared.

        Returns:
            Shard -> what is wrong with its file: missing, or another size or another sha256 than its receipt's.
        """
        if deep:
            self._index.make_again()
        found = dict(self._index.unreadable)
        if deep:
            for shard in self.without_receipt():
                found[shard] = f"{self.layout.file(self.array, shard)}: its receipt is missing"
        for shard, (nbytes, sha256) in self._index.shards().items():
            trouble = trouble_with(self.layout.file(self.array, shard), nbytes, sha256, deep)
            if trouble:
                found[shard] = trouble
        return found

    def restore_metadata(self) -> None:
        """Write the array's metadata again where it is missing or damaged."""
        shards = self._next_number()
        if shards:
            write_metadata(self.array, self.layout, shards * self.layout.rows)

    def drop_shard(self, shard: int) -> None:
        """Forget a damaged shard; its keys are missing afterwards and are rendered again into a new one.

        Args:
            shard: its number.
        """
        receipt_path(self.array, shard).unlink(missing_ok=True)
        shutil.rmtree(self.array / "c" / str(shard), ignore_errors=True)
        self._index.sync()

    def clear(self, keep_index: bool = False) -> None:
        """Delete all images.

        Args:
            keep_index: keep what is known of the images: which were rendered, and which cannot be. Then only what is
                asked for is rendered again, what failed is not tried again, and a tracker that is lost needs no image
                for the batches that are encoded.

        Raises:
            UserError: while another process writes the cache.
        """
        with self.writing("clearing the cache"):
            for path in sorted(self._receipts.glob("[0-9]*.json")):
                try:
                    receipt = replace(read_receipt(path), nbytes=0, sha256="") if keep_index else None
                except DamagedError:
                    receipt = None
                if receipt is None:
                    path.unlink()
                else:
                    write_receipt(self.array, receipt)
                    self._index.add(receipt)
            if not keep_index:
                (self._receipts / "cleared").touch()
            shutil.rmtree(self.array / "c", ignore_errors=True)
            (self.array / "zarr.json").unlink(missing_ok=True)
            self._index.sync()

    def denoise_results(self, keys: Sequence[str]) -> dict[str, DenoiseResult]:
        """What the denoiser made of images, also of those cleared since with `keep_index`.

        Args:
            keys: of the images.

        Returns:
            What was taken away, for those of the keys whose images passed through the denoiser.
        """
        return self._index.denoise_results(keys)

    def was_cleared(self) -> bool:
        """Whether images were once deleted on purpose without keeping the index."""
        return (self._receipts / "cleared").exists()

    def present(self, keys: Sequence[str]) -> set[str]:
        """Which images are there.

        Args:
            keys: of the images.

        Returns:
            Those of the keys whose image is there.
        """
        return set(self._index.slots(keys))

    def known(self, keys: Sequence[str]) -> set[str]:
        """Which images were rendered once.

        Args:
            keys: of the images.

        Returns:
            Those of the keys whose image is there, or was cleared since by `clear(keep_index=True)`.
        """
        return self._index.known(keys)

    def stats(self) -> dict[str, Any]:
        """Counts and sizes.

        Returns:
            `path`, `images`, `shards`, `failed`, `cleared`, `nbytes` (on disk), `bytes_per_image` and `part_of_raw`
            (the ratio to raw pixels; both None for an empty cache), `image_size` in pixels, and the fingerprint of the
            `denoiser`, None where there is none.
        """
        sizes = [nbytes for nbytes, _ in self._index.shards().values()]
        (images, failed, cleared), nbytes = self._index.counts(), sum(sizes)
        each = nbytes / images if images else None
        raw = int(np.prod(self.layout.item))
        return {
            "path": str(self.path), "images": images, "shards": len(sizes), "failed": failed, "cleared": cleared,
            "nbytes": nbytes, "bytes_per_image": each, "part_of_raw": each and each / raw,
            "image_size": self.layout.item[0], "denoiser": self.denoiser.fingerprint if self.denoiser else None,
        }  # fmt: skip
