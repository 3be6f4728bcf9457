"""Nearest neighbours among capsules, and how often they share a label, compared with chance.

All pairs of the given samples are compared in memory: n x n floats, so callers bound n (2,000 take 16 MB).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.dataset.nearest import directions
from trm_nb.evaluation.fidelity import spread
from trm_nb.training.verdicts import Accuracy, accuracy


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often the nearest neighbour has a sample's label, and how often a random other sample has it (NaN: never)."""

    nearest: Accuracy
    chance: float

    def sentences(self, neighbour: str, other: str) -> str:
        """The accuracy and the verdict on chance as Markdown; `neighbour` and `other` name the two kinds of sample."""
        said = self.nearest.sentence(f"labelled samples have the label of {neighbour}")
        if not self.nearest.rows:
            return said
        return f"{said}\n\n{self.nearest.against(self.chance, other, 'the nearest neighbour')}"


def vectors_of(dataset: CapsuleDataset, limit: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Up to `limit` samples spread over a dataset: their places in it (n,), and capsules as float32 (n, 12 * 512)."""
    places = spread(len(dataset), limit)
    return places, dataset.capsules(places).numpy().reshape(len(places), -1)


def neighbours(vectors: np.ndarray, count: int = 5, apart: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The `count` nearest others of each sample by cosine after centring: places and similarities, both (n, count).

    With `apart` (n,), samples of the same value are no neighbours (similarity -inf, so they come last).
    """
    unit = directions(vectors, vectors.mean(axis=0))
    similar = unit @ unit.T
    np.fill_diagonal(similar, -np.inf)
    if apart is not None:
        similar[apart[:, None] == apart[None]] = -np.inf
    near = np.argsort(-similar, axis=1, kind="stable")[:, : min(count, len(vectors) - 1)]
    return near, np.take_along_axis(similar, near, axis=1)


def label_agreement(
    near: np.ndarray, labels: np.ndarray, items: np.ndarray, apart: np.ndarray | None = None
) -> Agreement:
    """How often a sample's nearest neighbour has its label, compared with chance.

    Args:
        near: int (n, count), the first result of `neighbours`.
        labels: int (n,), -1 for none: such samples are not counted, but may be neighbours.
        items: int (n,), equal for samples of one item, which the interval counts as correlated.
        apart: as given to `neighbours`.
    """
    group = np.arange(len(labels)) if apart is None else np.unique(apart, return_inverse=True)[1]
    others = len(labels) - np.bincount(group)[group]
    counted = (labels >= 0) & (others > 0) & (near.shape[1] > 0)
    if not counted.any():
        return Agreement(accuracy(np.zeros(0)), float("nan"))
    alike = (labels[:, None] == labels[None]) & (group[:, None] != group[None])
    chance = float((alike.sum(axis=1)[counted] / others[counted]).mean())
    return Agreement(accuracy(labels[near[counted, 0]] == labels[counted], items[counted]), chance)
