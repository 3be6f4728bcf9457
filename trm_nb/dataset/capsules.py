"""The capsules of a run by row, whether they are consolidated already or not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from trm_nb.errors import DamagedError
from trm_nb.progress.run_folder import RunPaths
from trm_nb.storage.arrays import Layout, batch_layout, chunk_layout, file_rows
from trm_nb.storage.receipts import read_receipt, receipt_path
from trm_nb.storage.shards import by_file, read_rows


def capsule_layouts(output_dir: Path) -> tuple[Layout, Layout]:
    """How a run's batches and chunks are cut, from the metadata of capsules.zarr; raises DamagedError without it."""
    array = RunPaths(output_dir).capsules
    rows = file_rows(array)
    if rows is None:
        raise DamagedError(f"{array}: missing, so nothing has been encoded in {output_dir}")
    shard_rows, chunk_rows = rows
    return batch_layout(chunk_rows), chunk_layout(chunk_rows, shard_rows // chunk_rows)


def read_capsules(output_dir: str | Path, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Capsules of a run's rows: float16 (n, 12, 512), consolidated or not yet; NaN for quarantined samples.

    A file without a receipt does not exist for it. Raises DamagedError for what is missing, truncated or altered,
    IndexError for a negative row.
    """
    root = Path(output_dir)
    batch, chunk = capsule_layouts(root)
    wanted = np.asarray(rows, np.int64)
    if wanted.size and wanted.min() < 0:
        raise IndexError(f"row {wanted.min()} is negative")
    return by_file(wanted // batch.rows, batch, lambda n, here: _read_batch_rows(root, batch, chunk, n, wanted[here]))


def _read_batch_rows(root: Path, batch: Layout, chunk: Layout, number: int, rows: np.ndarray) -> np.ndarray:
    paths = RunPaths(root)
    loose, consolidated = paths.batches, paths.capsules
    shard = number * batch.rows // chunk.rows
    for _ in range(2):  # again, as it may be consolidated while we look
        if _vouched_for(loose, batch, number, rows % batch.rows):
            try:
                return read_rows(loose, batch, number, rows % batch.rows)
            except DamagedError:
                if not receipt_path(consolidated, shard).is_file():
                    raise
        if _vouched_for(consolidated, chunk, shard, rows % chunk.rows):
            return read_rows(consolidated, chunk, shard, rows % chunk.rows)
    for path in (chunk.file(consolidated, shard), batch.file(loose, number)):
        if path.is_file():
            raise DamagedError(f"{path}: its receipt is missing, so nothing says what it holds")
    raise DamagedError(f"{root}: batch {number} is missing")


def _vouched_for(array: Path, layout: Layout, number: int, rows: np.ndarray) -> bool:
    """Whether there is a receipt for a file of capsules.

    Raises DamagedError when the file is not what it says, IndexError for a row beyond those it names.
    """
    receipt, path = receipt_path(array, number), layout.file(array, number)
    try:
        nbytes, count = _promised(receipt, receipt.stat().st_mtime_ns)
        found = path.stat().st_size
    except FileNotFoundError:
        if receipt.is_file():
            raise DamagedError(f"{path}: missing") from None
        return False
    if found != nbytes:
        raise DamagedError(f"{path}: {found} bytes, expected {nbytes}")
    if rows.max() >= count:
        raise IndexError(f"{path} has {count} rows, and row {rows.max()} of it was asked for")
    return True


@lru_cache(maxsize=256)
def _promised(path: Path, stamp: int) -> tuple[int, int]:
    """(nbytes, rows) that a receipt names."""
    receipt = read_receipt(path)
    return receipt.nbytes, receipt.rows
