"""The nearest training sample: the lookup that trained models are compared with, because it learns nothing.

Near means cosine similarity after subtracting the mean of the training samples, in float32. The cost is that of
comparing all held-out samples with all training samples: seconds for 10,000 with 40,000, in bounded memory.
"""

from __future__ import annotations

import numpy as np

ROWS_AT_ONCE = 1000


def nearest(capsules: np.ndarray, train: np.ndarray, asked: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """The training sample that is most similar to each of `asked`, the first of equally similar ones.

    Args:
        capsules: float16 (n, 12, 512), which may be mapped from a file; 2,000 of them are in memory at a time.
        train: int64, places among `capsules`.
        asked: int64, places among `others`.
        others: float16 (m, 12, 512), capsules of other samples; None: `capsules`.

    Returns:
        Places among `capsules`, int64 (len(asked),), each of them in `train`.
    """
    total = np.zeros(capsules[0].size)
    for block in _blocks(train):
        total += capsules[block].reshape(len(block), -1).sum(axis=0, dtype=np.float64)
    mean, others = (total / len(train)).astype(np.float32), capsules if others is None else others
    found = np.empty(len(asked), np.int64)
    for place, rows in zip(_blocks(np.arange(len(asked))), _blocks(asked), strict=True):
        query, best = directions(others[rows], mean), np.full(len(rows), -np.inf, np.float32)
        for block in _blocks(train):
            similar = query @ directions(capsules[block], mean).T
            top = similar.argmax(axis=1)
            closest = similar[np.arange(len(rows)), top]
            found[place] = np.where(closest > best, block[top], found[place])
            best = np.maximum(best, closest)
    return found


def directions(capsules: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Samples less `mean`, at length 1: float32 (n, 6144). A sample equal to the mean stays 0."""
    centred = capsules.reshape(len(capsules), -1).astype(np.float32) - mean
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    divided: np.ndarray = centred / np.where(lengths > 1e-6, lengths, 1)
    return divided


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[first : first + ROWS_AT_ONCE] for first in range(0, len(rows), ROWS_AT_ONCE)]
