"""Samples with a target grid each: answer grids of puzzles and tasks, labels, or whatever an objective asks for.

A TinyRecursiveModel reads them as capsules, or as images when the encoder is to learn as well (encoder.py). Answer
places are the cells of the largest answer, in reading order; a label is an answer of one cell. Where answers differ in
size, the cells outside are a class of their own, so that the size has to be found too; where all are alike there is no
such class.
"""

from __future__ import annotations

import hashlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.dataset.capsules import read_capsules
from trm_nb.dataset.nearest import ROWS_AT_ONCE, nearest
from trm_nb.errors import NothingToLearnError
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel, TRMConfig
from trm_nb.records import CAPSULES, FEATURES
from trm_nb.training.objective import Baseline, Objective, grids_of
from trm_nb.training.predictions import Predictions
from trm_nb.training.reasoning import shuffled
from trm_nb.training.state import ROW

SMALL_BOARD = 100  # cells up to which places are mixed by an MLP instead of attention, as the paper has it


class Targets(ABC):
    """Samples that each have one answer, in three parts. An `Examples` of training/reasoning.py.

    `labels` int32 (n, cells) are the answers, `rows` int64 (n,) the samples' rows in the run, `shape` the rows and
    columns of the largest answer, `outside` the class of cells outside a smaller one (None: all have one size), and
    `train`, `val` (which may be empty) and `test` the places of each part. `model` is the size of the model.
    Raises NothingToLearnError where there is nothing to learn from or to measure on; `where` is named in it.
    """

    def __init__(
        self,
        grids: Sequence[np.ndarray],
        splits: Sequence[str],
        rows: np.ndarray,
        source: str,
        where: Path,
        **model: Any,
    ) -> None:
        sides = np.asarray(splits, dtype=str)
        self.train, self.val, self.test = (np.flatnonzero(sides == name) for name in ("train", "val", "test"))
        if not len(self.train) or not len(self.test):
            raise NothingToLearnError(
                f"training needs samples with a target in both splits, but {where} has {len(self.train)} samples "
                f"to learn from and {len(self.test)} to measure on; "
                "choose another objective, or build a new run with more samples or a larger test_fraction"
            )
        self.rows = rows
        self.labels, self.shape = _canvases(grids)
        classes = int(self.labels.max()) + 1
        self.outside = classes - 1 if len({grid.shape for grid in grids}) > 1 else None
        cells = self.labels.shape[1]
        size = {"mlp_t": cells <= SMALL_BOARD, "columns": self.shape[1] if cells > 1 else 0, **model}
        self.model = TRMConfig(classes, cells, tokens=False, capsules=True, **size)
        self.per_epoch = len(self.train)
        chosen = self.train.tobytes() + b"val" + self.val.tobytes()
        self.name = hashlib.sha256(source.encode() + self.labels.tobytes() + chosen).hexdigest()[:16]

    @abstractmethod
    def new_model(self, generator: torch.Generator) -> TinyRecursiveModel:
        """An untrained model of these samples."""

    @abstractmethod
    def _inputs(self, chosen: np.ndarray) -> dict[str, Tensor]:
        """What the model reads of the samples at these places."""

    def train_batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        """Each training sample once in an epoch, in an order of the epoch's own."""
        return self._batch(self.train[shuffled(step * size, size, len(self.train), seed)])

    def val_batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        """The validation samples in row order."""
        return self._in_order(self.val, size)

    def test_batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        """The held-out samples in row order."""
        return self._in_order(self.test, size)

    def items_of(self, rows: np.ndarray) -> np.ndarray:
        """Every sample is an item of its own."""
        return rows

    def _in_order(self, places: np.ndarray, size: int) -> Iterator[dict[str, Tensor]]:
        for first in range(0, len(places), size):
            yield self._batch(places[first : first + size])

    def _batch(self, chosen: np.ndarray) -> dict[str, Tensor]:
        labels = torch.from_numpy(self.labels[chosen].astype(np.int64))
        return {**self._inputs(chosen), "labels": labels, ROW: torch.from_numpy(self.rows[chosen])}


class CapsuleTargets(Targets, Objective):
    """Samples of a finished run, each with a target grid: what most objectives derive from.

    A prediction is compared with two baselines: the target of the nearest training sample, and the most common target.
    """

    nearest_name: ClassVar[str] = "the target of the nearest training sample"

    def __init__(
        self, dataset: CapsuleDataset, places: np.ndarray, targets: Sequence[np.ndarray], **sizes: Any
    ) -> None:
        """Keep these samples.

        Args:
            dataset: the run, all splits of it.
            places: int64 (n,), which of its samples have a target, in ascending order.
            targets: their grids, int (rows, columns) each; a single number is a grid of one cell.
            sizes: those of `TRMConfig`.

        Raises:
            NothingToLearnError: where none of them is a training sample, or none is held out.
        """
        rows, splits = dataset.rows[places], [dataset.splits[i] for i in places.tolist()]
        self.dataset = dataset
        super().__init__(targets, splits, rows, dataset.info["content_digest"], dataset.output_dir, **sizes)

    @cached_property
    def capsules(self) -> np.ndarray:
        """Their capsules, float16 (n, 12, 512), mapped from a file that is written at the first use."""
        return gathered(self.dataset.output_dir, self.rows)

    def new_model(self, generator: torch.Generator) -> TinyRecursiveModel:
        """With the mean and spread of the training capsules."""
        return model_of_capsules(self.model, self.capsules, self.train, generator)

    def items_of(self, rows: np.ndarray) -> np.ndarray:
        """As in the dataset."""
        return self.dataset.items_of(rows)

    def class_names(self) -> tuple[str, ...] | None:
        """The numbers, where a target is one cell."""
        return tuple(map(str, range(self.model.vocab_size))) if self.shape == (1, 1) else None

    def baselines(self, predictions: Predictions) -> tuple[Baseline, ...]:
        """The target of the nearest training sample, and the most common target."""
        looked_up = self.labels[nearest(self.capsules, self.train, self.test)] == self.labels[self.test]
        return (Baseline(self.nearest_name, looked_up), *super().baselines(predictions))

    def readable(self, predictions: Predictions, classes: np.ndarray) -> list[Any]:
        """Numbers or grids; a cell outside of a grid is -1."""
        return grids_of(np.where(classes == self.outside, -1, classes), predictions.shape)

    def _inputs(self, chosen: np.ndarray) -> dict[str, Tensor]:
        return {"capsules": torch.from_numpy(self.capsules[chosen].astype(np.float32))}


def gathered(output_dir: Path, rows: np.ndarray) -> np.ndarray:
    """The capsules of these rows side by side in a file that is gone with the array: float16 (n, 12, 512).

    12 KB a sample are copied once, so that shuffled epochs do not read whole batches anew and memory stays small.
    """
    if not len(rows):
        return np.empty((0, CAPSULES, FEATURES), np.float16)
    with tempfile.TemporaryFile(dir=output_dir) as file:
        for first in range(0, len(rows), ROWS_AT_ONCE):
            file.write(read_capsules(output_dir, rows[first : first + ROWS_AT_ONCE]).tobytes())
        file.flush()
        return np.memmap(file, np.float16, "r", shape=(len(rows), CAPSULES, FEATURES))


def model_of_capsules(
    config: TRMConfig, capsules: np.ndarray, rows: np.ndarray, generator: torch.Generator
) -> TinyRecursiveModel:
    """An untrained model that standardises capsules (n, 12, 512) by the mean and spread of these rows."""
    model = TinyRecursiveModel(config, generator)
    model.set_scale(*mean_and_spread(capsules, rows))
    return model


def mean_and_spread(capsules: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float64 (12, 512) each, over these rows, a block at a time; a feature that hardly varies is not blown up."""
    total, squares = np.zeros((2, CAPSULES, FEATURES))
    for first in range(0, len(rows), ROWS_AT_ONCE):
        block = capsules[rows[first : first + ROWS_AT_ONCE]].astype(np.float64)
        total += block.sum(0)
        squares += np.square(block).sum(0)
    mean = total / len(rows)
    return mean, np.sqrt(np.maximum(squares / len(rows) - mean**2, 0)) + 0.02


def _canvases(grids: Sequence[np.ndarray]) -> tuple[np.ndarray, tuple[int, int]]:
    """The grids on canvases of the largest rows and columns: int32 (n, cells), and that size."""
    shape = (max(grid.shape[0] for grid in grids), max(grid.shape[1] for grid in grids))
    outside = max(int(grid.max()) for grid in grids) + 1
    return on_canvases(grids, shape, outside), shape


def on_canvases(grids: Sequence[np.ndarray], shape: tuple[int, int], outside: int) -> np.ndarray:
    """Grids that are no larger than `shape` at the top left of canvases: int32 (n, cells), `outside` around them."""
    canvases = np.full((len(grids), *shape), outside, np.int32)
    for canvas, grid in zip(canvases, grids, strict=True):
        canvas[: grid.shape[0], : grid.shape[1]] = grid
    return canvases.reshape(len(grids), -1)
