"""What an objective is: the examples it makes of a finished run, its recipe, and what is worth showing of its result.

An objective is one class in `objectives/` and one line in the table there. It provides data and words only: the target
of each sample, what untrained baselines predict, and which details to show. training/results.py computes intervals
and verdicts from these, notebook/training_report.py renders tables and plots; neither knows any objective by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from torch import Tensor

from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel
from trm_nb.records import Payload
from trm_nb.training.act_loss import IGNORED
from trm_nb.training.predictions import Predictions
from trm_nb.training.state import ROW, Examples

# Recursion settings for targets of one cell. More recursion, or token-mixing MLPs, scored lower (LOG.md, 2026-11-24).
BRIEF: Mapping[str, int] = {"H_cycles": 1, "L_cycles": 2, "halt_max_steps": 2, "mlp_t": False}
# For answer grids. Where places did not read the capsules themselves, 55 % of the cells of 9x9 Sudokus were right when
# 84 % of the boards were where they did (LOG.md, 2026-11-27). Cells are mixed with their neighbours (targets.py), which
# mazes need (LOG.md, 2026-11-28).
DEEP: Mapping[str, int] = {"H_cycles": 2, "L_cycles": 2, "halt_max_steps": 8, "read_heads": 16}


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """Predictions of a method that is not trained, for the examples of `Predictions` in their order.

    `name` completes "The model is better than ..."; it is never text of the data. `correct` bool (n, cells).
    """

    name: str
    correct: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """`matrix[i, j]` int64 counts held-out samples of class i that were predicted as class j; `classes` names them."""

    about: str
    matrix: np.ndarray
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """`values` str (n,): the group of each held-out sample, which is measured on its own; `by` names the column."""

    about: str
    by: str
    values: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Boards:
    """Some samples with the predicted and the true grid: `rows` int64 (n,), both grids int32 (n, rows, columns)."""

    about: str
    rows: np.ndarray
    predicted: np.ndarray
    true: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Some samples with their grid after some recursion steps: `rows` int64 (n,), `steps` their numbers from 1,
    `predicted` int32 (n, t, rows, columns), `true` int32 (n, rows, columns)."""

    about: str
    rows: np.ndarray
    steps: tuple[int, ...]
    predicted: np.ndarray
    true: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Lines of images: `rows` int64 (n, k) of the run, `captions` one for each of the k columns."""

    about: str
    rows: np.ndarray
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence of Markdown; numbers and words of the objective's own, never text of the data."""

    about: str


Detail: TypeAlias = Confusion | Groups | Boards | Steps | Images | Note  # `about` introduces it, in Markdown


class Objective(Examples, ABC):
    """The examples that a finished run holds for one objective. An `Examples` of training/reasoning.py.

    Attributes:
        target: what the model is to predict, as in "the model predicts ...".
        correct: what is right in an example, as in "75 % of 40 held-out ...".
        constant: the name of the best constant prediction, the baseline that every objective has.
        about: Markdown that explains how to read the result.
        recursion: recursion settings of the model (`TRMConfig`), the recipe.
        alike: whether training and measuring ask the same question, so that their accuracies can be compared.
        network: the class of the model.
        among_samples: whether one of the samples that are asked together is predicted; `readable` gives its row.
        dataset: the run. rows: int64 (n,), the samples' rows in it. train, val, test: int64, places among `rows`; val
            may be empty.

    Raises NothingToLearnError where the run has nothing to learn from or to measure on.
    """

    target: ClassVar[str]
    correct: ClassVar[str] = "targets are predicted correctly"
    constant: ClassVar[str] = "always predicting the most common target"
    about: ClassVar[str] = ""
    recursion: ClassVar[Mapping[str, int]] = BRIEF
    alike: ClassVar[bool] = True
    network: ClassVar[type[TinyRecursiveModel]] = TinyRecursiveModel
    among_samples: ClassVar[bool] = False

    dataset: CapsuleDataset
    rows: np.ndarray
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    @abstractmethod
    def __init__(self, dataset: CapsuleDataset, **sizes: Any) -> None:
        """Choose the samples and their targets; `sizes` are those of `TRMConfig`. Capsules are read when needed."""

    def items_of(self, rows: np.ndarray) -> np.ndarray:
        """The items of these rows, as in the dataset: int64 (n,)."""
        return self.dataset.items_of(rows)

    def counts(self) -> dict[str, tuple[int, int, int]]:
        """How many samples there are to learn from, to validate on and to measure on, by what is learnt."""
        return {self.target: (len(self.train), len(self.val), len(self.test))}

    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes, by number, where a target is one class that is worth a row of its own; or None."""
        return None

    def baselines(self, predictions: Predictions) -> tuple[Baseline, ...]:
        """What the model is compared with on the same examples; the first one is the hardest."""
        return (Baseline(self.constant, constant_baseline(predictions.labels)),)

    def chance(self, predictions: Predictions) -> tuple[str, float] | None:
        """The name and the accuracy of guessing, where that is a fixed number."""
        return None

    def readable(self, predictions: Predictions, classes: np.ndarray) -> list[Any]:
        """What predicted classes or targets, int (n, s), stand for, one value a sample: for predictions.parquet.

        By default the class itself where a target is one cell, otherwise a grid as nested lists.
        """
        return grids_of(classes, predictions.shape)

    def details(self, predictions: Predictions) -> tuple[Detail, ...]:
        """What else is worth showing of this result, in order."""
        return ()

    # -- samples that are not in the dataset ------------------------------------------------------------------------

    @classmethod
    def why_not(cls, payload: Payload, pages: int) -> str | None:
        """Why a new item of `pages` samples cannot be asked about, without its name; None where it can be."""
        return None

    def asked(self, next_page_follows: np.ndarray) -> np.ndarray:
        """Which of some new samples are asked: int64 (m,), ascending.

        Args:
            next_page_follows: bool (n,), whether the next page of its item is the sample behind it.
        """
        return np.arange(len(next_page_follows))

    def question(self, capsules: np.ndarray, asked: np.ndarray) -> dict[str, Tensor]:
        """A batch, as `test_batches` yields them, of new samples.

        Args:
            capsules: float16 (n, 12, 512), of all new samples.
            asked: int64 (b,), which of them to ask; they are the batch's ROW.
        """
        unknown = torch.full((len(asked), self.shape[0] * self.shape[1]), IGNORED)
        read = torch.from_numpy(capsules[asked].astype(np.float32))
        return {"capsules": read, "labels": unknown, ROW: torch.from_numpy(asked)}


def grids_of(classes: np.ndarray, shape: tuple[int, int]) -> list[Any]:
    """int (n, rows * columns) as nested lists of `shape`, or as numbers where that is one cell."""
    nested: list[Any] = classes.ravel().tolist() if shape == (1, 1) else classes.reshape(-1, *shape).tolist()
    return nested


def constant_baseline(targets: np.ndarray) -> np.ndarray:
    """Which cells the most common of these targets gets right: int (n, cells) -> bool (n, cells)."""
    kinds, counts = np.unique(targets, axis=0, return_counts=True)
    right: np.ndarray = targets == kinds[counts.argmax()]
    return right
