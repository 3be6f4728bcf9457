"""A run's capsules with the answer grids of its puzzles and tasks: what a TinyRecursiveModel reasons from in a run.

Answer places are the cells of the largest answer, in reading order. Where answers differ in size, the cells outside are
a class of their own, so that the size has to be found too; where all are alike there is no such class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from trm_nb.capsule_dataset import CapsuleDataset
from trm_nb.records import CAPSULES, FEATURES, UserError
from trm_nb.tiny_recursive_model import TinyRecursiveModel, TRMConfig
from trm_nb.training.puzzle_tokens import shuffled
from trm_nb.training.reasoning import ROW

ROWS_AT_ONCE = 1000


class CapsuleTargets:
    """The samples of a run that have one answer grid. An `Examples` of training/reasoning.py.

    `capsules` float16 (n, 12, 512), which may be mapped from a file, and `labels` int16 (n, cells) are those of the
    dataset's rows `rows`, in order; `shape` is that of the largest answer. Raises UserError where there is nothing to
    learn or nothing to measure on.
    """

    def __init__(self, dataset: CapsuleDataset, capsules: np.ndarray | None = None, **model: int | bool | str) -> None:
        answered = [i for i in range(len(dataset)) if len(dataset.target(i)) == 1]
        splits = np.asarray(dataset.splits)[answered] if answered else np.array([])
        there = (
            f"{dataset.output_dir} has {(splits == 'train').sum()} samples to learn from and {(splits == 'test').sum()}"
        )
        if not {"train", "test"} <= set(splits):
            raise UserError(
                f"training on answers needs samples with an answer on both sides, but {there} to measure on"
            )
        self.places = np.asarray(answered)
        self.rows = dataset.rows[self.places]
        self.capsules = dataset.capsules(self.places).half().numpy() if capsules is None else capsules
        self.labels, self.shape = _canvases([dataset.target(i)[0].numpy() for i in answered])
        self.train, self.test = (np.flatnonzero(splits == name) for name in ("train", "test"))
        classes = int(self.labels.max()) + 1
        self.model = TRMConfig(classes, self.labels.shape[1], tokens=False, capsules=True, **model)  # type: ignore[arg-type]
        self.per_epoch = len(self.train)
        known = f"{dataset.info['content_digest']} {dataset.info['counts']}".encode()
        self.name = hashlib.sha256(known + self.labels.tobytes()).hexdigest()[:16]

    def prepare(self, model: TinyRecursiveModel) -> None:
        """Keep the mean and spread of the training rows' capsules in the model, in float64 sums, a block at a time."""
        total, squares = np.zeros((2, CAPSULES, FEATURES))
        for first in range(0, len(self.train), ROWS_AT_ONCE):
            block = self.capsules[self.train[first : first + ROWS_AT_ONCE]].astype(np.float64)
            total += block.sum(0)
            squares += np.square(block).sum(0)
        mean = total / len(self.train)
        spread = np.sqrt(np.maximum(squares / len(self.train) - mean**2, 0))
        model.mean.copy_(torch.from_numpy(mean))
        model.scale.copy_(torch.from_numpy(spread + 0.02))  # a feature that hardly varies is not blown up

    def train_batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        """Each training sample once in an epoch, in an order of the epoch's own."""
        return self._batch(self.train[shuffled(step * size, size, len(self.train), seed)])

    def test_batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        """The held-out samples in row order."""
        for first in range(0, len(self.test), size):
            yield self._batch(self.test[first : first + size])

    def _batch(self, chosen: np.ndarray) -> dict[str, Tensor]:
        return {
            "capsules": torch.from_numpy(self.capsules[chosen].astype(np.float32)),
            "labels": torch.from_numpy(self.labels[chosen].astype(np.int64)),
            ROW: torch.from_numpy(self.rows[chosen]),
        }


def _canvases(grids: list[np.ndarray]) -> tuple[np.ndarray, tuple[int, int]]:
    """The grids on canvases of the largest rows and columns: int16 (n, cells), and that size."""
    shape = (max(grid.shape[0] for grid in grids), max(grid.shape[1] for grid in grids))
    outside = max(int(grid.max()) for grid in grids) + 1
    canvases = np.full((len(grids), *shape), outside, np.int16)
    for canvas, grid in zip(canvases, grids, strict=True):
        canvas[: grid.shape[0], : grid.shape[1]] = grid
    return canvases.reshape(len(grids), -1), shape
