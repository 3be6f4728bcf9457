"""What a training of labels reports: accuracy with its interval, always beside the majority baseline of the same rows.

Figures are those of the last recursion step, fixed beforehand: choosing the best step by the test rows would flatter.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


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
    commonest class among the test rows, the best that one constant answer can do; `confusion[i, j]` int64 counts test
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
    confusion: np.ndarray
    accuracy_by_step: tuple[float, ...]
    by_modality: dict[str, Score]
    seconds: float


def report_of(
    read: np.ndarray, labels: np.ndarray, test: np.ndarray, modalities: np.ndarray, classes: tuple[str, ...],
    *, steps: int, seconds: float,
) -> TrainReport:  # fmt: skip
    """The report on `read` int64 (t, test rows), the class of each test row at each recursion step.

    `labels` int64, `test` bool and `modalities` str are (n,) over training and test rows.
    """
    right = read == labels[test]
    whole = _score(right[-1], labels, test)
    of = {str(name): modalities == name for name in np.unique(modalities[test])}
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (labels[test], read[-1]), 1)
    return TrainReport(
        steps=steps, classes=classes, train_rows=int((~test).sum()), test_rows=whole.rows, accuracy=whole.accuracy,
        interval=wilson(int(right[-1].sum()), whole.rows), majority=whole.majority, confusion=confusion,
        accuracy_by_step=tuple(right.mean(1).tolist()),
        by_modality={name: _score(right[-1][here[test]], labels[here], test[here]) for name, here in of.items()},
        seconds=seconds,
    )  # fmt: skip


def wilson(right: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The 95 % interval of a share of `right` in `n` (Wilson 1927), honest near 0 and 1 and for few rows."""
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def stored(report: TrainReport) -> dict[str, Any]:
    """The report as plain values, which a checkpoint can hold."""
    return {**asdict(report), "classes": list(report.classes), "confusion": report.confusion.tolist()}


def restored(values: dict[str, Any]) -> TrainReport:
    """The report that `stored` wrote."""
    return TrainReport(**{
        **values,
        "classes": tuple(values["classes"]), "interval": tuple(values["interval"]),
        "accuracy_by_step": tuple(values["accuracy_by_step"]), "confusion": np.asarray(values["confusion"], np.int64),
        "by_modality": {name: Score(**score) for name, score in values["by_modality"].items()},
    })  # fmt: skip


def _score(right: np.ndarray, labels: np.ndarray, test: np.ndarray) -> Score:
    majority = float(np.bincount(labels[test]).max() / test.sum())
    return Score(len(right), float(right.mean()), majority)
