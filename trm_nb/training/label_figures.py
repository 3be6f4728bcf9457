"""What a training of labels reports: accuracy with its interval, beside two baselines on the same rows.

One is always saying the commonest label, the other the nearest neighbour, which learns nothing and looks things up. Its
cost is that of comparing all test rows with all training rows: seconds for 10 000 with 40 000, in bounded memory.

Figures are those of the last recursion step, fixed beforehand: choosing the best step by the test rows would flatter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Score:
    """How a part of the test rows was read; `majority` is what always saying its commonest training class gives."""

    rows: int
    accuracy: float
    majority: float


@dataclass(frozen=True, slots=True, eq=False)
class TrainReport:
    """What a training gave, measured on the test rows with the averaged weights after the last recursion step.

    `interval` is the 95 % Wilson interval of `accuracy`, as if rows were independent; `majority` the share of the
    commonest class among the test rows, the best that one constant answer can do; `neighbour` the accuracy of giving
    each test row the label of the training row most like it (`nearest_labels`); `confusion[i, j]` int64 counts test
    rows of class i read as class j; `accuracy_by_step[t]` is the accuracy after t + 1 recursion steps; `by_modality`
    has its own majority. `seconds` is the time spent in training steps, earlier parts of a resumed training included.
    """

    steps: int
    classes: tuple[str, ...]
    train_rows: int
    test_rows: int
    accuracy: float
    interval: tuple[float, float]
    majority: float
    neighbour: float
    confusion: np.ndarray
    accuracy_by_step: tuple[float, ...]
    by_modality: dict[str, Score]
    seconds: float


def report_of(
    read: np.ndarray, labels: np.ndarray, test: np.ndarray, modalities: np.ndarray, classes: tuple[str, ...],
    *, nearest: np.ndarray, steps: int, seconds: float,
) -> TrainReport:  # fmt: skip
    """The report on `read` int64 (t, test rows), the class of each test row at each recursion step.

    `nearest` int64 (test rows,) is the class of each one's nearest training row. `labels` int64, `test` bool and
    `modalities` str are (n,) over training and test rows.
    """
    right = read == labels[test]
    whole = _score(right[-1], labels, test)
    of = {str(name): modalities == name for name in np.unique(modalities[test])}
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (labels[test], read[-1]), 1)
    return TrainReport(
        steps=steps, classes=classes, train_rows=int((~test).sum()), test_rows=whole.rows, accuracy=whole.accuracy,
        interval=wilson(int(right[-1].sum()), whole.rows), majority=whole.majority,
        neighbour=float((nearest == labels[test]).mean()), confusion=confusion,
        accuracy_by_step=tuple(right.mean(1).tolist()),
        by_modality={name: _score(right[-1][here[test]], labels[here], test[here]) for name, here in of.items()},
        seconds=seconds,
    )  # fmt: skip


def nearest_labels(
    capsules: np.ndarray, labels: np.ndarray, test: np.ndarray, on_block: Callable[[], None] | None = None
) -> np.ndarray:
    """The label of the training row nearest to each test row: int64 (test rows,); the first of equally near ones.

    Near means cosine after subtracting the training rows' mean, in float32. `capsules` float16 (n, 12, 512), which may
    be mapped from a file: ROWS_AT_ONCE rows of each side are in memory at a time.
    """
    train, asked = np.flatnonzero(~test), np.flatnonzero(test)
    total = np.zeros(capsules[0].size)
    for block in _blocks(train):
        total += capsules[block].reshape(len(block), -1).sum(axis=0, dtype=np.float64)
    mean = (total / len(train)).astype(np.float32)
    found = np.empty(len(asked), np.int64)
    for place, rows in zip(_blocks(np.arange(len(asked))), _blocks(asked), strict=True):
        query, best = _directions(capsules[rows], mean), np.full(len(rows), -np.inf, np.float32)
        for block in _blocks(train):
            similar = query @ _directions(capsules[block], mean).T
            top = similar.argmax(axis=1)
            closest = similar[np.arange(len(rows)), top]
            found[place] = np.where(closest > best, labels[block][top], found[place])
            best = np.maximum(best, closest)
            if on_block is not None:
                on_block()
    return found


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[first : first + ROWS_AT_ONCE] for first in range(0, len(rows), ROWS_AT_ONCE)]


def _directions(capsules: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Rows less the mean at length 1, float32 (n, 6144); a row equal to the mean stays 0."""
    centred = capsules.reshape(len(capsules), -1).astype(np.float32) - mean
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    divided: np.ndarray = centred / np.where(lengths > 1e-6, lengths, 1)
    return divided


def wilson(right: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The 95 % interval of a share of `right` in `n` (Wilson 1927), honest near 0 and 1 and for few rows."""
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return 0.0 if right == 0 else middle - half, 1.0 if right == n else middle + half


def stored(report: TrainReport) -> dict[str, Any]:
    """The report as plain values, which a checkpoint can hold."""
    return {**asdict(report), "classes": list(report.classes), "confusion": report.confusion.tolist()}


def restored(values: dict[str, Any]) -> TrainReport:
    """The report that `stored` wrote; raises TypeError for one of an older version that lacks a figure."""
    return TrainReport(**{
        **values,
        "classes": tuple(values["classes"]), "interval": tuple(values["interval"]),
        "accuracy_by_step": tuple(values["accuracy_by_step"]), "confusion": np.asarray(values["confusion"], np.int64),
        "by_modality": {name: Score(**score) for name, score in values["by_modality"].items()},
    })  # fmt: skip


def _score(right: np.ndarray, labels: np.ndarray, test: np.ndarray) -> Score:
    majority = float(np.bincount(labels[test]).max() / test.sum())
    return Score(len(right), float(right.mean()), majority)
