"""A run's samples with the answer grids of their puzzles and tasks: what a TinyRecursiveModel learns in a run.

It reads them as capsules, or as pictures when the encoder is to learn as well (encoder.py). Answer places are the cells
of the largest answer, in reading order. Where answers differ in size, the cells outside are a class of their own, so
that the size has to be found too; where all are alike there is no such class.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trm_nb.capsule_dataset import CapsuleDataset
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.records import CAPSULES, FEATURES, UserError
from trm_nb.store import read_capsules
from trm_nb.tiny_recursive_model import TinyRecursiveModel, TRMConfig
from trm_nb.training.label_figures import ROWS_AT_ONCE
from trm_nb.training.reasoning import ROW, Answers, Settings, evaluate, shuffled, train
from trm_nb.training_progress import TrainingProgressTracker

HEAD_WIDTH = 32  # numbers of an attention head
RECURSION = {"H_cycles": 2, "L_cycles": 3, "halt_max_steps": 4}
SMALL_BOARD = 100  # cells up to which places are mixed by an MLP instead of attention, as the paper has it
AVERAGE = 0.99


class GridTargets(ABC):
    """Samples that each have one answer grid, in two parts. An `Examples` of training/reasoning.py.

    `labels` int16 (n, cells) are the answers, `rows` int64 (n,) the samples' rows in the run, `shape` the rows and
    columns of the largest answer, `train` and `test` the places of either part. `model` is the size of the model that
    learns. Raises UserError where there is nothing to learn or nothing to measure on; `where` is named in it.
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
        self.train, self.test = (np.flatnonzero(sides == name) for name in ("train", "test"))
        if not len(self.train) or not len(self.test):
            raise UserError(
                f"training on answers needs samples with an answer on both sides, but {where} has {len(self.train)} "
                f"samples to learn from and {len(self.test)} to measure on"
            )
        self.rows = rows
        self.labels, self.shape = _canvases(grids)
        classes = int(self.labels.max()) + 1
        cells = self.labels.shape[1]
        size = {"mlp_t": cells <= SMALL_BOARD, **model}
        self.model = TRMConfig(classes, cells, tokens=False, capsules=True, **size)
        self.per_epoch = len(self.train)
        self.name = hashlib.sha256(source.encode() + self.labels.tobytes() + self.train.tobytes()).hexdigest()[:16]

    @abstractmethod
    def new_model(self, generator: torch.Generator) -> TinyRecursiveModel:
        """An untrained model of these samples."""

    @abstractmethod
    def _inputs(self, chosen: np.ndarray) -> dict[str, Tensor]:
        """What the model reads of the samples at these places."""

    def train_batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        """Each training sample once in an epoch, in an order of the epoch's own."""
        return self._batch(self.train[shuffled(step * size, size, len(self.train), seed)])

    def test_batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        """The held-out samples in row order."""
        for first in range(0, len(self.test), size):
            yield self._batch(self.test[first : first + size])

    def _batch(self, chosen: np.ndarray) -> dict[str, Tensor]:
        labels = torch.from_numpy(self.labels[chosen].astype(np.int64))
        return {**self._inputs(chosen), "labels": labels, ROW: torch.from_numpy(self.rows[chosen])}


class CapsuleTargets(GridTargets):
    """The capsules of a finished run, and the answers; `capsules` float16 (n, 12, 512)."""

    def __init__(self, dataset: CapsuleDataset, **model: Any) -> None:
        answered = np.flatnonzero(dataset.answers == 1).tolist()
        self.capsules = read_capsules(dataset.output_dir, dataset.rows[answered])
        super().__init__(
            [dataset.target(i)[0].numpy() for i in answered],
            [dataset.splits[i] for i in answered],
            dataset.rows[answered],
            dataset.info["content_digest"],
            dataset.output_dir,
            **model,
        )

    def new_model(self, generator: torch.Generator) -> TinyRecursiveModel:
        """With the mean and spread of the training capsules."""
        model = TinyRecursiveModel(self.model, generator)
        mean, spread = mean_and_spread(self.capsules, self.train)
        model.mean.copy_(torch.from_numpy(mean))
        model.scale.copy_(torch.from_numpy(spread))
        return model

    def _inputs(self, chosen: np.ndarray) -> dict[str, Tensor]:
        return {"capsules": torch.from_numpy(self.capsules[chosen].astype(np.float32))}


def train_on_grids(
    output_dir: str | Path,
    config: MultimodalDatasetConfig,
    tracker: TrainingProgressTracker,
    on_step: Callable[[], None] | None = None,
) -> Answers:
    """Train on a run's answer grids for `config.train_steps` steps in output_dir/model; what the held-out ones give.

    Goes on from the checkpoint there, and only measures when that has enough steps.
    """
    width = config.train_width
    examples = CapsuleTargets(CapsuleDataset(output_dir), hidden_size=width, num_heads=width // HEAD_WIDTH, **RECURSION)
    settings = Settings(
        config.train_steps, batch=config.train_batch_size, learning_rate=config.learning_rate,
        weight_decay=config.weight_decay, average=AVERAGE, seed=config.seed, torch_threads=config.torch_threads,
        device=config.device,
    )  # fmt: skip
    model = train(Path(output_dir) / "model", examples, settings, tracker, on_step=on_step)
    return evaluate(model, examples, settings)


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
    """The grids on canvases of the largest rows and columns: int16 (n, cells), and that size."""
    shape = (max(grid.shape[0] for grid in grids), max(grid.shape[1] for grid in grids))
    outside = max(int(grid.max()) for grid in grids) + 1
    canvases = np.full((len(grids), *shape), outside, np.int16)
    for canvas, grid in zip(canvases, grids, strict=True):
        canvas[: grid.shape[0], : grid.shape[1]] = grid
    return canvases.reshape(len(grids), -1), shape
