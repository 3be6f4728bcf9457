"""arrays.py and shards.py: plain zarr reads what we write, and our reader raises where zarr would invent zeros."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from trm_nb.dataset.capsules import read_capsules
from trm_nb.errors import DamagedError
from trm_nb.records import Receipt
from trm_nb.storage.arrays import (
    Layout,
    batch_layout,
    chunk_layout,
    file_rows,
    image_layout,
    read_shape,
    write_labels,
    write_metadata,
)
from trm_nb.storage.files import Staged, commit, stage
from trm_nb.storage.receipts import receipt_path, write_receipt
from trm_nb.storage.shards import encode_chunk, read_rows, shard_index, stage_batch, stage_shard

SHARD_ROWS, SIZE = 8, 28


def _images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (count, SIZE, SIZE, 3), np.uint8)


def _write_shard(root: Path, number: int, images: np.ndarray, layout: Layout) -> Path:
    array = root / "images.zarr" / "images"
    commit(stage_shard(root, images, layout), layout.file(array, number))
    write_metadata(array, layout, (number + 1) * layout.rows)
    return array


def test_plain_zarr_reads_the_images_without_a_warning(tmp_path: Path) -> None:
    layout, images = image_layout(SHARD_ROWS, SIZE), _images(13)
    _write_shard(tmp_path, 0, images[:8], layout)
    _write_shard(tmp_path, 1, images[8:], layout)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(tmp_path / "images.zarr", mode="r")
        assert sorted(name for name, _ in group.members()) == ["images"]
    assert np.array_equal(group["images"][:13], images)


@given(
    shard_rows=st.integers(1, 40), count=st.integers(1, 40), picks=st.lists(st.integers(0, 39), min_size=1, max_size=9)
)
@settings(max_examples=30)
def test_shards_round_trip(
    tmp_path_factory: pytest.TempPathFactory, shard_rows: int, count: int, picks: list[int]
) -> None:
    count = min(count, shard_rows)
    layout, images = image_layout(shard_rows, SIZE), _images(count, shard_rows)
    array = _write_shard(tmp_path_factory.mktemp("shard"), 0, images, layout)
    rows = [pick % count for pick in picks]
    assert np.array_equal(read_rows(array, layout, 0, rows), images[rows])
    assert np.array_equal(zarr.open_array(array, mode="r")[:count], images)
    assert file_rows(array) == (layout.rows, layout.chunk_rows)


@pytest.mark.parametrize(("rows", "chunk"), [(1000, 20), (50, 10), (7, 7), (23, 1), (1, 1)])
def test_images_are_grouped_evenly(rows: int, chunk: int) -> None:
    assert image_layout(rows, SIZE).chunk_rows == chunk


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "zero length": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "NUL-filled": lambda path: path.write_bytes(b"\0" * path.stat().st_size),
    "a flipped bit in the data": lambda path: _flip(path, 100),
    "a flipped bit in the index": lambda path: _flip(path, -20),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_shard_raises(tmp_path: Path, how: str) -> None:
    layout = image_layout(SHARD_ROWS, SIZE)
    array = _write_shard(tmp_path, 0, _images(8), layout)
    DAMAGE[how](layout.file(array, 0))
    with pytest.raises(DamagedError, match=r"images/c/0"):
        read_rows(array, layout, 0, [0, 3])


def test_a_missing_inner_chunk_raises_where_zarr_reads_zeros(tmp_path: Path) -> None:
    layout = image_layout(46, SIZE)  # 2 chunks of 23 would be 46; only the first is stored
    array = tmp_path / "images.zarr" / "images"
    chunk = encode_chunk(_images(layout.chunk_rows), layout)
    commit(stage(tmp_path, chunk + shard_index([len(chunk)], layout.chunks)), layout.file(array, 0))
    write_metadata(array, layout, 46)
    assert not zarr.open_array(array, mode="r")[layout.chunk_rows :].any()
    with pytest.raises(DamagedError, match="chunk 1 of"):
        read_rows(array, layout, 0, [layout.chunk_rows])


def _commit(
    staged: Staged, layout: Layout, array: Path, number: int, kind: Literal["batch", "chunk"], rows: int
) -> None:
    commit(staged, layout.file(array, number))
    write_receipt(array, Receipt(kind, number, rows, staged.nbytes, staged.sha256))


def _write_capsules(root: Path, capsules: np.ndarray, batch_size: int, per_chunk: int, stitched: int) -> None:
    """The first `stitched` chunks consolidated by concatenation, the rest as loose batches."""
    batch, chunk = batch_layout(batch_size), chunk_layout(batch_size, per_chunk)
    loose, array = root / "batches.zarr" / "capsules", root / "capsules.zarr" / "capsules"
    for number in range(-(-len(capsules) // batch_size)):
        part = capsules[number * batch_size : (number + 1) * batch_size]
        _commit(stage_batch(root, part, batch), batch, loose, number, "batch", len(part))
    for number in range(stitched):
        files = [batch.file(loose, number * per_chunk + i) for i in range(per_chunk)]
        parts = [file.read_bytes() for file in files if file.is_file()]
        data = b"".join([*parts, shard_index([len(part) for part in parts], per_chunk)])
        rows = len(capsules[number * chunk.rows : (number + 1) * chunk.rows])
        _commit(stage(root, data), chunk, array, number, "chunk", rows)
        for i, file in enumerate(files):
            file.unlink(missing_ok=True)
            receipt_path(loose, number * per_chunk + i).unlink(missing_ok=True)
    write_metadata(loose, batch, len(capsules))
    write_metadata(array, chunk, len(capsules))


@pytest.mark.parametrize("stitched", [0, 1, 2, 3])
def test_capsules_read_the_same_loose_and_stitched(tmp_path: Path, stitched: int) -> None:
    capsules = np.random.default_rng(1).normal(size=(25, 12, 512)).astype(np.float16)
    capsules[7] = np.nan
    _write_capsules(tmp_path, capsules, 5, 2, stitched)
    rows = [24, 0, 7, 13, 13, 9]
    assert np.array_equal(read_capsules(tmp_path, rows), capsules[rows], equal_nan=True)
    if stitched == 3:
        assert np.array_equal(zarr.open_array(tmp_path / "capsules.zarr" / "capsules")[:], capsules, equal_nan=True)


@pytest.mark.parametrize("stitched", [0, 1])
def test_rows_beyond_the_last_are_not_taken_for_quarantined_ones(tmp_path: Path, stitched: int) -> None:
    _write_capsules(tmp_path, np.ones((8, 12, 512), np.float16), 5, 2, stitched)
    assert np.isfinite(read_capsules(tmp_path, [7])).all()
    with pytest.raises(IndexError, match="was asked for"):
        read_capsules(tmp_path, [7, 8])


def test_capsules_that_are_not_there_raise(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="nothing has been encoded"):
        read_capsules(tmp_path, [0])
    _write_capsules(tmp_path, np.zeros((10, 12, 512), np.float16), 5, 2, 0)
    with pytest.raises(DamagedError, match="missing"):
        read_capsules(tmp_path, [10])
    with pytest.raises(IndexError, match="-1 is negative"):
        read_capsules(tmp_path, [-1])


def test_metadata_and_labels(tmp_path: Path) -> None:
    assert read_shape(tmp_path / "none") is None
    write_labels(tmp_path / "labels", np.array([2, -1, -1, 0], np.int32))
    assert zarr.open_array(tmp_path / "labels", mode="r")[:].tolist() == [2, -1, -1, 0]
    (tmp_path / "labels" / "zarr.json").write_text("{")
    with pytest.raises(DamagedError, match="not Zarr metadata"):
        read_shape(tmp_path / "labels")
