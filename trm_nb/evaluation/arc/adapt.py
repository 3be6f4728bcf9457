"""Test-time training: before a task is asked, a copy of the model learns from the task's own demonstrations.

Each demonstration is asked in turn, with the others as demonstrations, in as many views as the task is asked in ("The
Surprising Effectiveness of Test-Time Training", Akyürek et al., arXiv 2411.07279). Nothing of the test inputs is used.
Every task gets as many steps as fit the time on this machine, measured on the first one, so what comes out follows
from their number, which is reported.
Cost: the time that is asked for, for each task; each view of a demonstration is rendered and encoded.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.evaluation.arc.questions import Asked, Question, Questions
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel
from trm_nb.pipeline.prediction.model import Model
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import GridTask
from trm_nb.training.budget import cost_of
from trm_nb.training.reasoning import shuffled, train
from trm_nb.training.state import ROW, Settings
from trm_nb.training.targets import CapsuleTargets, on_canvases
from trm_nb.training.train_objective import settings_of

LEARNT = "/demonstration"  # behind the name of a task: its demonstrations as questions
WARM_UP = 0.1  # of the steps


def demonstrations_of(questions: Questions) -> Questions:
    """Each demonstration as a question, with the others of its task as demonstrations; none of a task with one."""
    first = {question.task: question for question in reversed(questions.each)}
    found = [
        Question(
            task + LEARNT, number, question.group, GridTask(pairs[:number] + pairs[number + 1 :], (asked,)), answer
        )
        for task, question in reversed(first.items())
        if len(pairs := question.asked.train) > 1
        for number, (asked, answer) in enumerate(pairs)
    ]
    return replace(questions, each=tuple(found), refused=0)


class Demonstrations:
    """The views of a task's demonstrations with their answers, for a model that goes on learning. An `Examples`.

    Args:
        network: the trained model.
        shape: rows and columns of its canvas.
        capsules: float32 (n, 12, 512).
        labels: int64 (n, cells), the answers on the canvas.
        task: its name, which the order of the views follows from.
    """

    def __init__(
        self, network: TinyRecursiveModel, shape: tuple[int, int], capsules: Tensor, labels: Tensor, task: str
    ) -> None:
        self.network, self.shape, self.capsules, self.labels = network, shape, capsules, labels
        self.model, self.name, self.per_epoch = network.config, task, len(labels)

    def new_model(self, generator: torch.Generator) -> TinyRecursiveModel:
        """A copy of the trained one."""
        return copy.deepcopy(self.network).cpu().requires_grad_(True)

    def train_batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        """Each view once in an epoch, in an order of the epoch's own."""
        rows = torch.from_numpy(shuffled(step * size, size, self.per_epoch, seed))
        return {"capsules": self.capsules[rows], "labels": self.labels[rows], ROW: rows}

    def val_batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        """None."""
        return iter(())

    def test_batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        """None."""
        return iter(())

    def items_of(self, rows: np.ndarray) -> np.ndarray:
        """The task is one item."""
        return np.zeros_like(rows)


class Adapter:
    """Gives each task a model of its own.

    Args:
        model: the trained one, of the objective `grid`.
        dataset: holds the capsules of the demonstrations' views.
        learnt: `demonstrations_of` the questions, in their views.
        seconds: for each task.

    `steps` is how many optimiser steps that is, once the first task was asked for; `without` counts the tasks that had
    nothing to learn from.
    """

    def __init__(self, model: Model, dataset: CapsuleDataset, learnt: Asked, seconds: float) -> None:
        assert isinstance(model.objective, CapsuleTargets)
        self.steps = self.without = 0
        self._model, self._objective, self._dataset, self._seconds = model, model.objective, dataset, seconds
        self._settings = replace(settings_of(model.config), cool_down=0.0, logger=None, patience=None)
        self._learnt: dict[str, list[tuple[int, np.ndarray]]] = {}  # by task, place in the dataset and label
        rows = learnt.rows(dataset.sample_ids)
        for question, views, of in zip(learnt.questions.each, learnt.shown, rows, strict=True):
            assert question.answer is not None
            labels = ((place, self._label(views[at].grid(question.answer))) for at, place in of.items())
            found = self._learnt.setdefault(question.task.removesuffix(LEARNT), [])
            found += [(place, label) for place, label in labels if label is not None]

    def model_of(self, task: str) -> TinyRecursiveModel:
        """The model that has learnt from this task's demonstrations; as it was where none could be learnt from."""
        learnt = self._learnt.get(task)
        if not learnt:
            self.without += 1
            return self._model.network
        capsules = self._dataset.capsules([place for place, _ in learnt])
        labels = torch.from_numpy(np.stack([label for _, label in learnt]))
        examples = Demonstrations(self._model.network, self._objective.shape, capsules, labels, task)
        if not self.steps:
            self.steps = cost_of(examples, self._settings).steps_in(self._seconds / 60)
        return _trained(examples, replace(self._settings, steps=self.steps, warm_up=round(WARM_UP * self.steps)))

    def _label(self, answer: np.ndarray) -> np.ndarray | None:
        """The answer on the model's canvas, int64 (cells,); None where it does not fit there, or has other colours."""
        rows, columns = self._objective.shape
        outside = self._objective.outside
        most = self._objective.model.vocab_size if outside is None else outside
        smaller = answer.shape[0] <= rows and answer.shape[1] <= columns and outside is not None
        if not (smaller or answer.shape == (rows, columns)) or answer.max() >= most:
            return None
        label: np.ndarray = on_canvases([answer], (rows, columns), outside or 0)[0].astype(np.int64)
        return label


def _trained(examples: Demonstrations, settings: Settings) -> TinyRecursiveModel:
    """The model after `settings.steps`, in a folder that is gone with it."""
    with tempfile.TemporaryDirectory() as name, closing(TrainingProgressTracker(name, create=True)) as tracker:
        return train(Path(name), examples, settings, tracker).model.eval()
