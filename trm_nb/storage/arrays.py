"""Arrays on disk: Zarr v3 metadata, shards made whole in memory, and reads that never invent a zero.

This is the only module that imports zarr, and it uses it for what a format needs an authority for: the metadata. The
bytes of a shard are put together here (compressed chunks one after the other, then the index that Zarr's sharding codec
defines), because that is faster than writing through zarr, needs no second copy in memory, and lets a chunk of 100
batches be made by concatenation. Any Zarr v3 reader opens the result.

Reading checks what zarr does not: a missing shard and a missing inner chunk read as fill values there in silence.
Here the shard's index and every chunk's crc32c are verified, and anything missing or altered raises DamagedError.

    images.zarr/images      uint8 (rows, h, w, 3), shards of `shard_rows`, zstd level 1 + crc32c inside
    batches.zarr/capsules   float16 (N, 12, 512), one file a batch, crc32c
    capsules.zarr/capsules  float16 (N, 12, 512), shards of `batches_per_chunk` such batches
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs import zstd
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from trm_nb.errors import DamagedError
from trm_nb.records import CAPSULES, FEATURES
from trm_nb.storage.files import Staged, stage, write_file

MAX_CHUNK_IMAGES = 20  # images compressed together: 2x the speed and 2/3 of the size of one by one (text pages)
READERS = min(4, os.cpu_count() or 1)  # threads that unpack chunks
_MISSING = 2**64 - 1
_CRC_BYTES = 4
_ENTRY = struct.Struct("<QQ")


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


# -- writing ---------------------------------------------------------------------------------------------------------


def encode_chunk(rows: np.ndarray, layout: Layout) -> bytes:
    """The stored bytes of one chunk: (n <= chunk_rows, *item), padded with the fill value, compressed, with crc32c."""
    whole = rows
    if len(rows) < layout.chunk_rows:
        whole = np.full((layout.chunk_rows, *layout.item), layout.fill, layout.dtype)
        whole[: len(rows)] = rows
    data = np.ascontiguousarray(whole, layout.dtype).tobytes()
    if layout.level is not None:
        data = zstd.compress(data, layout.level)
    return data + struct.pack("<I", google_crc32c.value(data))


def shard_index(sizes: Sequence[int], chunks: int) -> bytes:
    """The index that ends a shard: (offset, nbytes) of each of `chunks` chunks stored in order, then a crc32c.

    Chunks beyond `sizes` are marked missing. Zarr v3 `sharding_indexed`, index_location "end".
    """
    entries, offset = [], 0
    for size in sizes:
        entries.append(_ENTRY.pack(offset, size))
        offset += size
    entries += [_ENTRY.pack(_MISSING, _MISSING)] * (chunks - len(sizes))
    data = b"".join(entries)
    return data + struct.pack("<I", google_crc32c.value(data))


def stage_shard(folder: Path, images: np.ndarray, layout: Layout) -> Staged:
    """Write up to `layout.rows` images (n, h, w, 3) uint8 as one shard file, staged in `folder`."""
    starts = range(0, len(images), layout.chunk_rows)
    chunks = [encode_chunk(images[s : s + layout.chunk_rows], layout) for s in starts]
    return stage(folder, b"".join([*chunks, shard_index([len(c) for c in chunks], layout.chunks)]))


def stage_batch(folder: Path, capsules: np.ndarray, layout: Layout) -> Staged:
    """Write a batch of capsules (n <= batch_size, 12, 512) float16, padded with NaN, staged in `folder`."""
    return stage(folder, encode_chunk(capsules, layout))


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


# -- checked reading -------------------------------------------------------------------------------------------------


def read_rows(array: Path, layout: Layout, number: int, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Rows (0-based inside file `number`), (n, *item); raises DamagedError for anything missing or altered.

    Chunks that are wanted whole and in order are read straight into the result, several at once where they are
    compressed; others are kept for the next call.
    """
    path = layout.file(array, number)
    wanted = np.asarray(rows, np.int64)
    result = np.empty((len(wanted), *layout.item), layout.dtype)
    chunks, inside = np.divmod(wanted, layout.chunk_rows)
    whole: list[tuple[int, int]] = []
    for chunk in np.unique(chunks).tolist():
        here = np.flatnonzero(chunks == chunk)
        first, end = int(here[0]), int(here[-1]) + 1
        if end - first == layout.chunk_rows and np.array_equal(inside[first:end], np.arange(layout.chunk_rows)):
            whole.append((first, chunk))
        else:
            result[here] = _read_chunk(path, _stamp(path), layout, chunk)[inside[here]]

    def read(place: tuple[int, int]) -> None:
        first, chunk = place
        _read_into(result[first : first + layout.chunk_rows], path, _stamp(path), layout, chunk)

    if len(whole) > 1 and layout.level is not None:
        with ThreadPoolExecutor(READERS) as threads:  # new ones, as old ones would be missing in a forked child
            list(threads.map(read, whole))
    else:
        for place in whole:
            read(place)
    return result


def read_places(array: Path, layout: Layout, places: np.ndarray) -> np.ndarray:
    """Rows by place, int (n, 2) of file number and row inside it: (n, *item). Raises as `read_rows` does."""
    return by_file(places[:, 0], layout, lambda number, here: read_rows(array, layout, number, places[here, 1]))


def by_file(numbers: np.ndarray, layout: Layout, read: Callable[[int, np.ndarray], np.ndarray]) -> np.ndarray:
    """Rows in order, the i-th out of file numbers[i]; `read(number, here)` gives those at `here`, which are of one."""
    result = np.empty((len(numbers), *layout.item), layout.dtype)
    for number in np.unique(numbers).tolist():
        here = np.flatnonzero(numbers == number)
        found = read(number, here)
        if len(here) == len(numbers):  # no second copy
            return found
        result[here] = found
    return result


def read_stored(path: Path, stored: memoryview, offset: int = 0) -> None:
    """Fill `stored` with an uncompressed chunk's bytes, checksum and all; raises DamagedError, FileNotFoundError."""
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        _read_checked(file, stored[:-_CRC_BYTES], str(path), stored[-_CRC_BYTES:])


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise DamagedError(f"{path}: missing") from None
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=8)
def _read_chunk(path: Path, stamp: tuple[int, int], layout: Layout, chunk: int) -> np.ndarray:
    rows = np.empty((layout.chunk_rows, *layout.item), layout.dtype)
    _read_into(rows, path, stamp, layout, chunk)
    rows.flags.writeable = False  # it is shared through the cache
    return rows


def _read_into(rows: np.ndarray, path: Path, stamp: tuple[int, int], layout: Layout, chunk: int) -> None:
    """Read, check and decode one chunk into `rows`, C-contiguous (chunk_rows, *item)."""
    offset, nbytes = _index(path, stamp, layout)[chunk] if layout.sharded else (0, stamp[0])
    if offset == _MISSING:
        raise DamagedError(f"{path}: chunk {chunk} of {layout.chunks} is missing")
    what, out = f"{path}: chunk {chunk}", rows.view(np.uint8).reshape(-1).data
    if layout.level is None and nbytes != len(out) + _CRC_BYTES:
        raise DamagedError(f"{what} holds {nbytes} bytes, expected {len(out) + _CRC_BYTES}")
    stored = out if layout.level is None else memoryview(bytearray(max(0, nbytes - _CRC_BYTES)))
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        _read_checked(file, stored, what)
    if layout.level is not None:
        try:
            zstd.decompress(stored, out)
        except (RuntimeError, ValueError) as error:
            raise DamagedError(f"{what} cannot be unpacked to {len(out)} bytes ({error})") from None


@lru_cache(maxsize=256)
def _index(path: Path, stamp: tuple[int, int], layout: Layout) -> list[tuple[int, int]]:
    length = layout.chunks * _ENTRY.size + _CRC_BYTES
    if stamp[0] < length:
        raise DamagedError(f"{path}: {stamp[0]} bytes, too short for its index of {length}")
    data = memoryview(bytearray(length - _CRC_BYTES))
    with path.open("rb", buffering=0) as file:
        file.seek(stamp[0] - length)
        _read_checked(file, data, f"{path}: its index")
    entries = list(_ENTRY.iter_unpack(data))
    if any(offset != _MISSING and offset + nbytes > stamp[0] - length for offset, nbytes in entries):
        raise DamagedError(f"{path}: its index points beyond the file")
    return entries


def _read_checked(file: FileIO, data: memoryview, what: str, crc: memoryview | None = None) -> None:
    """Fill `data` with the next bytes of a file and compare them with the crc32c that follows, which goes to `crc`."""
    crc = memoryview(bytearray(_CRC_BYTES)) if crc is None else crc
    got = 0
    while got < len(data):
        more = file.readinto(data[got:])
        if not more:
            raise DamagedError(f"{what} is truncated: {got} bytes, expected {len(data)}")
        got += more
    if file.readinto(crc) != _CRC_BYTES or not got:
        raise DamagedError(f"{what} is truncated: its checksum is missing")
    if google_crc32c.value(np.frombuffer(data, np.uint8)) != int.from_bytes(crc, "little"):
        raise DamagedError(f"{what} fails its crc32c check")


# -- a run's capsules ------------------------------------------------------------------------------------------------
