"""ImageStore: images on disk by their keys, in whole shards, each with a receipt that names the keys in it.

Shards are never rewritten: images are added in new ones, and a damaged shard is forgotten as a whole. An SQLite index
over the receipts keeps memory flat; it is derived, and made again when it is missing or does not agree with them.
Cost: a listing of the receipts' folder to open one; a write costs a few fsyncs a shard.

One process writes (a lock says who); any number read.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trm_nb.cache.index import ImageIndex
from trm_nb.cache.render_task import RenderedShard
from trm_nb.errors import DamagedError, UserError
from trm_nb.records import DenoiseResult, Receipt
from trm_nb.render.modality import RenderSettings
from trm_nb.storage.arrays import Layout, image_layout, write_metadata
from trm_nb.storage.files import commit, fault_point, locked, sweep, trouble_with
from trm_nb.storage.receipts import file_numbers, read_receipt, receipt_numbers, receipt_path, write_receipt
from trm_nb.storage.shards import read_places

SHARD_SIZE = 1000


class ImageStore:
    """The images of a folder, uint8 (h, w, 3), by key: read, added to, checked and cleared.

    `path` is a Zarr group of its own, `array` the folder of its array, and `layout` how that is cut into files.
    `image_size` and `shard_size` hold for a new store; an existing one keeps its own, and refuses another image size
    (None: any).
    """

    def __init__(self, path: str | Path, image_size: int | None = None, shard_size: int = SHARD_SIZE) -> None:
        self.path = Path(path)
        self.array = self.path / "images"
        self._receipts = self.array / "receipts"  # inside the array, where readers of the store do not look
        self.layout = self._layout_for(image_size, shard_size)
        self._index = ImageIndex(self._receipts)

    def _layout_for(self, image_size: int | None, shard_size: int) -> Layout:
        shape = self._whole_shard()
        slots, side = (shape[0], shape[1]) if shape else (shard_size, image_size or RenderSettings().image_size)
        if shape and image_size and image_size != side:
            wanted = image_layout(slots, image_size).item
            raise UserError(f"{self.path} holds images of {shape[1:]}, not {wanted}; choose another cache folder")
        return image_layout(slots, side)

    def _whole_shard(self) -> tuple[int, ...] | None:
        """(slots, h, w, 3) of a whole shard, as the receipts tell it, which have checksums; None for an empty store."""
        for path in sorted(self._receipts.glob("[0-9]*.json")):
            with suppress(DamagedError):
                return tuple(read_receipt(path).shape)
        return None

    def close(self) -> None:
        """Close the index's file."""
        self._index.close()

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.layout.item[0]

    # -- reading ----------------------------------------------------------------------------------------------------

    def __contains__(self, key: str) -> bool:
        return bool(self._index.slots([key]))

    def __len__(self) -> int:
        return self._index.counts()[0]

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

    def failure(self, key: str) -> str | None:
        """Why an image could not be made.

        Args:
            key: of the image.

        Returns:
            The reason in one sentence; None where the image was made or never tried.
        """
        return self._index.failure(key)

    def denoise_results(self, keys: Sequence[str]) -> dict[str, DenoiseResult]:
        """What the denoiser made of images, also of those cleared since with `keep_index`.

        Args:
            keys: of the images.

        Returns:
            What was taken away, for those of the keys whose images passed through the denoiser.
        """
        return self._index.denoise_results(keys)

    # -- writing ----------------------------------------------------------------------------------------------------

    @contextmanager
    def writing(self, purpose: str) -> Iterator[None]:
        """Hold the cache's lock, and clear up what a killed writer left.

        Args:
            purpose: what the error says to others who want to write.

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

    def add(self, number: int, shard: RenderedShard) -> Receipt:
        """Take over a staged shard as file `number`, durably; the caller is `writing`. Returns its receipt."""
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

    def next_number(self) -> int:
        """The number of the next new shard."""
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
        shards = self.next_number()
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

    def was_cleared(self) -> bool:
        """Whether images were once deleted on purpose without keeping the index."""
        return (self._receipts / "cleared").exists()

    def stats(self) -> dict[str, Any]:
        """Counts and sizes.

        Returns:
            `path`, `images`, `shards`, `failed`, `cleared`, `nbytes` (on disk), `bytes_per_image` and `part_of_raw`
            (the ratio to raw pixels; both None for an empty cache), and `image_size` in pixels.
        """
        sizes = [nbytes for nbytes, _ in self._index.shards().values()]
        (images, failed, cleared), nbytes = self._index.counts(), sum(sizes)
        each = nbytes / images if images else None
        raw = int(np.prod(self.layout.item))
        return {
            "path": str(self.path), "images": images, "shards": len(sizes), "failed": failed, "cleared": cleared,
            "nbytes": nbytes, "bytes_per_image": each, "part_of_raw": each and each / raw,
            "image_size": self.layout.item[0],
        }  # fmt: skip
