"""How labels were read: beside two baselines on the same rows, by class and by modality.

One baseline always predicts the commonest label, the other is the nearest neighbour, which learns nothing and looks
things up. Its cost is that of comparing all test rows with all training rows: seconds for 10 000 with 40 000, in
bounded memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.evaluation.verdicts import Accuracy, Paired, accuracy, paired
from trm_nb.training.answers import Answers
from trm_nb.training.targets import ROWS_AT_ONCE, gathered


@dataclass(frozen=True, slots=True)
class Score:
    """How a part of the test rows was read.

    `majority` is the accuracy of always predicting its commonest class, `measured` the accuracy with its interval, and
    `against` the comparison of the two.
    """

    rows: int
    accuracy: float
    majority: float
    measured: Accuracy
    against: Paired


@dataclass(frozen=True, slots=True, eq=False)
class LabelFigures:
    """What stands beside the accuracy of `Answers` about labels, all on the test rows.

    `majority` is the share of the commonest class, the best that one constant answer can do; `neighbour` the accuracy
    of giving each test row the label of the training row most like it (`nearest_labels`); `confusion[i, j]` int64
    counts test rows of class i read as class j; `by_modality` has its own majority. `against_neighbour` and
    `against_majority` compare the model with each baseline on the same rows.
    """

    majority: float
    neighbour: float
    against_neighbour: Paired
    against_majority: Paired
    confusion: np.ndarray
    by_modality: dict[str, Score]


def label_figures(dataset: CapsuleDataset, answers: Answers) -> LabelFigures:
    """The figures of answers that were trained with objective label on this dataset."""
    places = np.flatnonzero((dataset.labels >= 0) & np.isin(dataset.splits, ("train", "test")))
    labels, test = dataset.labels[places], np.asarray(dataset.splits)[places] == "test"
    nearest = nearest_labels(gathered(dataset.output_dir, dataset.rows[places]), labels, test)
    return figures_of(
        answers.predictions[:, 0],
        labels[test],
        nearest,
        np.asarray(dataset.modalities)[places][test],
        len(dataset.classes),
        answers.items,
    )


def figures_of(
    read: np.ndarray,
    labels: np.ndarray,
    nearest: np.ndarray,
    modalities: np.ndarray,
    classes: int,
    items: np.ndarray | None = None,
) -> LabelFigures:
    """The figures of predictions, each array over the test rows.

    Args:
        read, labels, nearest: int, the predicted class, the true one, and that of the nearest training row.
        modalities: str. classes: how many there are.
        items: int, equal for rows of one item; None: every row is an item of its own.
    """
    items = np.arange(len(labels)) if items is None else items
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, read), 1)
    of = {str(name): modalities == name for name in np.unique(modalities)}
    return LabelFigures(
        majority=float(_majority(labels).mean()),
        neighbour=float((nearest == labels).mean()),
        against_neighbour=paired(read == labels, nearest == labels, items),
        against_majority=paired(read == labels, _majority(labels), items),
        confusion=confusion,
        by_modality={name: _score(read[here], labels[here], items[here]) for name, here in of.items()},
    )


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
        query, best = directions(capsules[rows], mean), np.full(len(rows), -np.inf, np.float32)
        for block in _blocks(train):
            similar = query @ directions(capsules[block], mean).T
            top = similar.argmax(axis=1)
            closest = similar[np.arange(len(rows)), top]
            found[place] = np.where(closest > best, labels[block][top], found[place])
            best = np.maximum(best, closest)
            if on_block is not None:
                on_block()
    return found


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[first : first + ROWS_AT_ONCE] for first in range(0, len(rows), ROWS_AT_ONCE)]


def directions(capsules: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Rows less the mean at length 1, float32 (n, 6144); a row equal to the mean stays 0."""
    centred = capsules.reshape(len(capsules), -1).astype(np.float32) - mean
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    divided: np.ndarray = centred / np.where(lengths > 1e-6, lengths, 1)
    return divided


def _score(read: np.ndarray, labels: np.ndarray, items: np.ndarray) -> Score:
    right, majority = read == labels, _majority(labels)
    compared = paired(right, majority, items)
    return Score(len(read), float(right.mean()), float(majority.mean()), accuracy(right, items), compared)


def _majority(labels: np.ndarray) -> np.ndarray:
    """Which rows are right if the commonest class is always predicted: bool (n,)."""
    right: np.ndarray = labels == np.bincount(labels).argmax()
    return right
