"""What a training is worth: its accuracy on the held-out samples, and the baselines that its objective provides.

Every comparison is paired on the same samples and counts items, not samples (verdicts.py). Nothing here depends on
which objective was trained. The cost is that of the baselines, usually a comparison of all held-out samples with all
training samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trm_nb.training.objective import Detail, Groups, Objective, constant_baseline
from trm_nb.training.predictions import Predictions
from trm_nb.training.verdicts import Accuracy, Paired, accuracy, paired


@dataclass(frozen=True, slots=True)
class Compared:
    """A baseline: its name, the share of cells it has right, and the model against it (`against.second` is its own)."""

    name: str
    cells: float
    against: Paired


@dataclass(frozen=True, slots=True)
class Step:
    """What is right after one recursion step: the share of examples without an error, and the share of cells."""

    number: int
    exact: float
    cells: float


@dataclass(frozen=True, slots=True)
class GroupScore:
    """The accuracy within one group, and the model against always predicting the group's most common target."""

    name: str
    accuracy: Accuracy
    against: Paired


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The predictions of a trained model with what they are compared with; make one with `result_of`.

    `chance` is the name and the accuracy of guessing, where that is a fixed number. `longer` compares the last
    recursion step with the first one.
    """

    objective: Objective
    predictions: Predictions
    accuracy: Accuracy
    baselines: tuple[Compared, ...]
    chance: tuple[str, float] | None
    longer: Paired
    details: tuple[Detail, ...]

    @property
    def steps(self) -> list[Step]:
        """What is right after each recursion step."""
        exact, cells = self.predictions.exact.mean(1).tolist(), self.predictions.cells.mean(1).tolist()
        return [Step(number, *shares) for number, shares in enumerate(zip(exact, cells, strict=True), 1)]

    @property
    def several_cells(self) -> bool:
        """Whether a target has more than one cell, so that it can be right in part."""
        return bool(self.predictions.labels.shape[1] > 1)

    def sentences(self) -> list[str]:
        """The accuracy and the verdicts, each as one sentence of Markdown."""
        found = [self.accuracy.sentence(f"held-out {self.objective.correct}")]
        found += [one.against.sentence(one.name) for one in self.baselines]
        if self.chance:
            found.append(self.accuracy.against(self.chance[1], self.chance[0]))
        if self.several_cells:
            others = "; ".join(f"{one.name}: {100 * one.cells:.1f} %" for one in self.baselines)
            found.append(f"Of all cells **{100 * self.steps[-1].cells:.1f} %** are right ({others}).")
        return found

    def gap(self, in_training: float, batch: int) -> str:
        """The verdict on the accuracy in the last steps of training, as one sentence of Markdown.

        Args:
            in_training: the share of examples without an error.
            batch: how many examples a training step has.
        """
        if not self.objective.alike:
            return "The accuracy in training is not comparable: the questions differ."
        learnt = self.objective.items_of(self.objective.rows[self.objective.train])
        return self.accuracy.gap_to(in_training, min(len(np.unique(learnt)), batch))

    def by_group(self, groups: Groups) -> list[GroupScore]:
        """Each group on its own, by name."""
        right, items = self.predictions.exact[-1], _items(self.predictions)
        found = []
        for name in np.unique(groups.values).tolist():
            here = groups.values == name
            constant = _exact(constant_baseline(self.predictions.labels[here]))
            against = paired(right[here], constant, items[here])
            found.append(GroupScore(name, accuracy(right[here], items[here]), against))
        return found


def result_of(objective: Objective, predictions: Predictions) -> Result:
    """Compare the predictions of a model that was trained on `objective` with its baselines."""
    right, items = predictions.exact[-1], _items(predictions)
    return Result(
        objective=objective,
        predictions=predictions,
        accuracy=accuracy(right, items),
        baselines=tuple(
            Compared(one.name, float(one.correct.mean()), paired(right, _exact(one.correct), items))
            for one in objective.baselines(predictions)
        ),
        chance=objective.chance(predictions),
        longer=paired(right, predictions.exact[0], items),
        details=objective.details(predictions),
    )


def _exact(correct: np.ndarray) -> np.ndarray:
    """Whether each example has every cell right: bool (n, cells) -> bool (n,)."""
    return np.asarray(correct.all(axis=1))


def _items(predictions: Predictions) -> np.ndarray:
    return np.arange(len(predictions.rows)) if predictions.items is None else predictions.items
