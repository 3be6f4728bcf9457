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
        """One image, uint8 (h, w, 3). Raises KeyError for an unknown key, DamagedError for a damaged shard."""
        image: np.ndarray = self.get_many([key])[0]
        return image

    def get_many(self, keys: Sequence[str]) -> np.ndarray:
        """Images in the order of `keys`, uint8 (n, h, w, 3); each shard is read once. Raises as `get` does."""
        return read_places(self.array, self.layout, self.places(keys))

    def places(self, keys: Sequence[str]) -> np.ndarray:
        """(shard, slot) of each key, int64 (n, 2). Raises KeyError for an unknown key."""
        found = self._index.slots(keys)
        missing = next((key for key in keys if key not in found), None)
        if missing is not None:
            raise KeyError(f"{missing} is not in {self.path}")
        return np.array([found[key] for key in keys], np.int64).reshape(-1, 2)

    def present(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys whose image is there."""
        return set(self._index.slots(keys))

    def known(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys whose image was rendered once, also if it was cleared since (`clear(keep_index=True)`)."""
        return self._index.known(keys)

    def failure(self, key: str) -> str | None:
        """Why the image of this key could not be made; None where it was made or never tried."""
        return self._index.failure(key)

    def denoise_results(self, keys: Sequence[str]) -> dict[str, DenoiseResult]:
        """What the denoiser made of those of the keys that passed through it, also of images cleared since
        with `keep_index`."""
        return self._index.denoise_results(keys)

    # -- writing ----------------------------------------------------------------------------------------------------

    @contextmanager
    def writing(self, purpose: str) -> Iterator[None]:
        """Hold the cache's lock, and clear up what a killed writer left. Raises UserError that names who has it."""
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
        """Shard -> what is wrong with its file: missing, another size than its receipt's or, `deep`, another sha256."""
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
        """Forget a damaged shard; its keys are missing afterwards and are rendered again into a new one."""
        receipt_path(self.array, shard).unlink(missing_ok=True)
        shutil.rmtree(self.array / "c" / str(shard), ignore_errors=True)
        self._index.sync()

    def clear(self, keep_index: bool = False) -> None:
        """Delete all images; with `keep_index` it stays known which were rendered and which cannot be.

        Then only what is asked for is rendered again, what failed is not tried again, and a tracker that is lost needs
        no image for the batches that are encoded. Waits for nobody: raises UserError while another process writes.
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
        """images, shards, failed, cleared, bytes on disk, bytes an image, the ratio to raw pixels (None: empty)."""
        sizes = [nbytes for nbytes, _ in self._index.shards().values()]
        (images, failed, cleared), nbytes = self._index.counts(), sum(sizes)
        each = nbytes / images if images else None
        raw = int(np.prod(self.layout.item))
        return {
            "path": str(self.path), "images": images, "shards": len(sizes), "failed": failed, "cleared": cleared,
            "nbytes": nbytes, "bytes_per_image": each, "part_of_raw": each and each / raw,
            "image_size": self.layout.item[0],
        }  # fmt: skip
