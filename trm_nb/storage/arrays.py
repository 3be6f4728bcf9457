"""How arrays lie on disk: how each is cut into files, and its Zarr v3 metadata.

This is the only module that imports zarr, and it uses it for what a format needs an authority for: the metadata. The
bytes of the files are made and read in shards.py. Any Zarr v3 reader opens the result.

    images.zarr/images      uint8 (rows, h, w, 3), shards of `shard_rows`, zstd level 1 + crc32c inside
    batches.zarr/capsules   float16 (N, 12, 512), one file a batch, crc32c
    capsules.zarr/capsules  float16 (N, 12, 512), shards of `batches_per_chunk` such batches
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from trm_nb.errors import DamagedError
from trm_nb.records import CAPSULES, FEATURES
from trm_nb.storage.files import write_file

MAX_CHUNK_IMAGES = 20  # images compressed together: 2x the speed and 2/3 of the size of one by one (text pages)


@dataclass(frozen=True, slots=True)
class Layout:
    """How one array lies on disk: `rows` in a file, of which `chunk_rows` are stored (and checked) together.

    `item` is the shape of one row. `level` is the zstd level, None for no compression. `sharded` says whether a file
    is a shard (an index at its end) or a single chunk.
    """

    rows: int
    chunk_rows: int
    item: tuple[int, ...]
    dtype: str
    fill: float
    level: int | None
    sharded: bool

    @property
    def chunks(self) -> int:
        """Chunks in a file."""
        return self.rows // self.chunk_rows

    def file(self, array: Path, number: int) -> Path:
        """The file that holds rows number*rows .. (number+1)*rows - 1 of the array at `array`."""
        return array.joinpath("c", str(number), *("0" for _ in self.item))


def image_layout(shard_rows: int, image_size: int) -> Layout:
    """Shards of `shard_rows` images, compressed in the largest equal groups of at most MAX_CHUNK_IMAGES."""
    together = max(n for n in range(1, MAX_CHUNK_IMAGES + 1) if shard_rows % n == 0)
    return Layout(shard_rows, together, (image_size, image_size, 3), "uint8", 0, 1, sharded=True)


def batch_layout(batch_size: int) -> Layout:
    """A batch: one uncompressed chunk (fp16 capsules do not compress)."""
    return Layout(batch_size, batch_size, (CAPSULES, FEATURES), "float16", float("nan"), None, sharded=False)


def chunk_layout(batch_size: int, batches_per_chunk: int) -> Layout:
    """A chunk: a shard whose inner chunks are batch files, byte for byte."""
    rows = batch_size * batches_per_chunk
    return Layout(rows, batch_size, (CAPSULES, FEATURES), "float16", float("nan"), None, sharded=True)


# -- metadata --------------------------------------------------------------------------------------------------------


def write_metadata(array: Path, layout: Layout, rows: int) -> None:
    """Write (or enlarge to `rows`) an array's zarr.json, and its group's, durably, unless it is that already."""
    _write_if_new(array / "zarr.json", _metadata(layout, rows))
    _write_if_new(array.parent / "zarr.json", _group_metadata())


def metadata_trouble(array: Path, layout: Layout) -> str | None:
    """One sentence when the zarr.json of an array or of its group is missing or not what `write_metadata` writes.

    The number of rows may be any.
    """
    path = array / "zarr.json"
    try:
        shape = read_shape(array)
    except DamagedError as error:
        return str(error)
    if shape is None:
        return f"{path}: missing"
    try:
        same = path.read_bytes() == _metadata(layout, shape[0])
    except (ValueError, TypeError, IndexError, OverflowError):  # what zarr says to a number of rows that is none
        same = False
    if not same:
        return f"{path}: not the metadata of these arrays"
    group = array.parent / "zarr.json"
    return None if group.is_file() and group.read_bytes() == _group_metadata() else f"{group}: not a group's metadata"


def _group_metadata() -> bytes:
    memory = MemoryStore()
    zarr.create_group(memory)
    return bytes(memory._store_dict["zarr.json"].to_bytes())


def _metadata(layout: Layout, rows: int) -> bytes:
    memory = MemoryStore()
    codecs = [] if layout.level is None else [ZstdCodec(level=layout.level)]
    zarr.create_array(
        memory,
        shape=(rows, *layout.item),
        dtype=layout.dtype,
        chunks=(layout.chunk_rows, *layout.item),
        shards=(layout.rows, *layout.item) if layout.sharded else None,
        serializer=BytesCodec(endian=None if layout.dtype == "uint8" else "little"),
        compressors=[*codecs, Crc32cCodec()],
        filters=None,
        fill_value=layout.fill,
    )
    return bytes(memory._store_dict["zarr.json"].to_bytes())


def _write_if_new(path: Path, data: bytes) -> None:
    if not path.exists() or path.read_bytes() != data:
        write_file(path, data)


def read_shape(array: Path) -> tuple[int, ...] | None:
    """The array's shape, None where there is no array; raises DamagedError for metadata that cannot be read."""
    path = array / "zarr.json"
    try:
        return tuple(json.loads(path.read_bytes())["shape"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path}: not Zarr metadata ({error})") from None


def file_rows(array: Path) -> tuple[int, int] | None:
    """(rows in a file, rows in a chunk) of an existing sharded array; None where there is no array."""
    if read_shape(array) is None:
        return None
    metadata: dict[str, Any] = json.loads((array / "zarr.json").read_bytes())
    try:
        chunk = metadata["codecs"][0]["configuration"]["chunk_shape"]
        return int(metadata["chunk_grid"]["configuration"]["chunk_shape"][0]), int(chunk[0])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DamagedError(f"{array / 'zarr.json'}: not the metadata of a sharded array ({error})") from None


def write_labels(array: Path, labels: np.ndarray) -> None:
    """Write class numbers int32 (N,), -1 for none, as an array of its own beside the capsules."""
    memory = MemoryStore()
    made = zarr.create_array(
        memory,
        shape=labels.shape,
        chunks=(max(1, len(labels)),),
        dtype="int32",
        fill_value=-1,
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
        config={"write_empty_chunks": True},
    )
    made[:] = labels
    for name, data in sorted(memory._store_dict.items(), reverse=True):  # the metadata after the data
        write_file(array / name, data.to_bytes())
