"""The bytes of an array's files: made whole in memory, and read so that no zero is invented.

A shard is put together here (compressed chunks one after the other, then the index that Zarr's sharding codec defines),
because that is faster than writing through zarr, needs no second copy in memory, and lets a chunk of 100 batches be
made by concatenation.

Reading checks what zarr does not: a missing shard and a missing inner chunk read as fill values there in silence.
Here the shard's index and every chunk's crc32c are verified, and anything missing or altered raises DamagedError.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from io import FileIO
from pathlib import Path

import google_crc32c
import numpy as np
from numcodecs import zstd

from trm_nb.errors import DamagedError
from trm_nb.storage.arrays import Layout
from trm_nb.storage.files import Staged, stage

READERS = min(4, os.cpu_count() or 1)  # threads that unpack chunks
_MISSING = 2**64 - 1
_CRC_BYTES = 4
_ENTRY = struct.Struct("<QQ")


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
