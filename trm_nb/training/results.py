"""What a training is worth: its accuracy on the held-out samples, and the baselines that its objective provides.

Every comparison is paired on the same samples and counts items, not samples (verdicts.py). Nothing here depends on
which objective was trained. The cost is that of the baselines, usually a comparison of all held-out samples with all
training samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trm_nb.training.objective import Detail, Groups, Objective, constant_baseline
from trm_nb.training.predictions import Predictions
from trm_nb.training.reasoning import Trained
from trm_nb.training.verdicts import Accuracy, Paired, accuracy, balanced_accuracy, paired


@dataclass(frozen=True, slots=True)
class Compared:
    """A baseline: its name, and the model against it (`against.second` is its own accuracy).

    `cells` is the share of cells it has right, `balanced` its class-balanced accuracy, None where there are no classes.
    """

    name: str
    cells: float
    against: Paired
    balanced: float | None = None


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


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class: the accuracy on its samples (recall), the share of right ones among the samples that were taken for it
    (precision, NaN where there are none), and the accuracy of the first baseline on its samples."""

    name: str
    accuracy: Accuracy
    precision: float
    baseline: float


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The predictions of a trained model with what they are compared with; make one with `result_of`.

    `chance` is the name and the accuracy of guessing, where that is a fixed number. `longer` compares the last
    recursion step with the first one. `balanced` is the class-balanced accuracy and `classes` are the classes that
    occur; both are for objectives that have classes. `modalities` are by name. `trained` says which step was chosen,
    by the predictions `val` for the validation samples; None where that is not known, or where there are none.
    """

    objective: Objective
    predictions: Predictions
    accuracy: Accuracy
    baselines: tuple[Compared, ...]
    chance: tuple[str, float] | None
    longer: Paired
    details: tuple[Detail, ...]
    balanced: Accuracy | None = None
    classes: tuple[ClassScore, ...] = ()
    modalities: tuple[GroupScore, ...] = ()
    trained: Trained | None = None
    val: Predictions | None = None

    @property
    def steps(self) -> list[Step]:
        """What is right after each recursion step."""
        exact, cells = self.predictions.exact.mean(1).tolist(), self.predictions.cells.mean(1).tolist()
        return [Step(number, *shares) for number, shares in enumerate(zip(exact, cells, strict=True), 1)]

    @property
    def several_cells(self) -> bool:
        """Whether a target has more than one cell, so that it can be right in part."""
        return bool(self.predictions.labels.shape[1] > 1)

    @property
    def val_accuracy(self) -> Accuracy | None:
        """The accuracy on the validation samples; None where there are none."""
        return None if self.val is None else accuracy(self.val.exact[-1], _items(self.val))

    def choice(self) -> str:
        """Which step's weights are used and why, and what the test samples were used for, as Markdown."""
        once = "The test samples took no part in this: they were evaluated once, after the training had ended."
        if self.trained is None:
            return once
        steps, best, validation = self.trained.steps, self.trained.best_step, self.val_accuracy
        if validation is None:
            return f"There are no validation samples, so the weights of the last step, **{steps:,}**, are used. {once}"
        early = " Training stopped early, as no later step was better." if self.trained.stopped_early else ""
        return (
            f"The weights of step **{best:,}** of {steps:,} are used, the best one on the validation samples.{early} "
            f"There: {validation.sentence(f'validation {self.objective.correct}')} {once}"
        )

    def sentences(self) -> list[str]:
        """The accuracy and the verdicts, each as one sentence of Markdown."""
        found = [self.accuracy.sentence(f"held-out {self.objective.correct}")]
        found += [one.against.sentence(one.name) for one in self.baselines]
        if self.chance:
            found.append(self.accuracy.against(self.chance[1], self.chance[0]))
        if self.balanced is not None:
            others = "; ".join(f"{one.name}: {100 * (one.balanced or 0):.1f} %" for one in self.baselines)
            between = f"95 % interval {100 * self.balanced.low:.1f} to {100 * self.balanced.high:.1f} %"
            found.append(
                f"The class-balanced accuracy, the mean over {len(self.classes):,} classes, is "
                f"**{100 * self.balanced.share:.1f} %** ({between}; {others})."
            )
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
        return _by_group(self.predictions, groups.values)

    def summary(self) -> dict[str, Any]:
        """The result in plain JSON values: what `status --json` and dataset_info.json tell of a model."""
        first, training = self.baselines[0], self.trained
        return {
            "metric": "accuracy",
            **_measured(self.accuracy),
            "balanced_accuracy": None if self.balanced is None else _measured(self.balanced),
            "baseline": {"name": first.name, "value": first.against.second},
            "verdict": first.against.outcome,
            "p": first.against.p,
            "steps": None if training is None else training.steps,
            "best_step": None if training is None else training.best_step,
            "chosen_by": "validation" if training is not None and training.validated else "last step",
            "stopped_early": training is not None and training.stopped_early,
            "validation": None if self.val_accuracy is None else _measured(self.val_accuracy),
        }

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """The results by baseline, class and modality, in plain JSON values; a value that is not known is None."""
        return {
            "baselines": [
                {
                    "name": one.name,
                    "value": one.against.second,
                    "verdict": one.against.outcome,
                    "p": one.against.p,
                }
                for one in self.baselines
            ],
            "by_class": [
                {
                    "class": one.name,
                    **_measured(one.accuracy),
                    "precision": None if np.isnan(one.precision) else one.precision,
                    "baseline": one.baseline,
                }
                for one in self.classes
            ],
            "by_modality": [
                {
                    "modality": one.name,
                    **_measured(one.accuracy),
                    "baseline": one.against.second,
                    "verdict": one.against.outcome,
                    "p": one.against.p,
                }
                for one in self.modalities
            ],
        }


def result_of(
    objective: Objective, predictions: Predictions, trained: Trained | None = None, val: Predictions | None = None
) -> Result:
    """Compare the predictions of a model that was trained on `objective` with its baselines.

    Args:
        objective: what was learnt.
        predictions: for the held-out samples.
        trained: the training, where its steps are to be stated.
        val: the predictions for the validation samples, where there are some.
    """
    right, items = predictions.exact[-1], _items(predictions)
    baselines = [(one.name, one.correct, _exact(one.correct)) for one in objective.baselines(predictions)]
    names, true = objective.class_names(), predictions.labels[:, 0]
    places = objective.dataset.rows.searchsorted(predictions.rows)
    return Result(
        objective=objective,
        predictions=predictions,
        accuracy=accuracy(right, items),
        baselines=tuple(
            Compared(
                name, float(correct.mean()), paired(right, exact, items),
                None if names is None else balanced_accuracy(exact, true, items).share,
            )
            for name, correct, exact in baselines
        ),
        chance=objective.chance(predictions),
        longer=paired(right, predictions.exact[0], items),
        details=objective.details(predictions),
        balanced=None if names is None else balanced_accuracy(right, true, items),
        classes=() if names is None else _by_class(predictions, names, baselines[0][2]),
        modalities=tuple(_by_group(predictions, np.asarray(objective.dataset.modalities)[places])),
        trained=trained,
        val=val,
    )  # fmt: skip


def _by_class(predictions: Predictions, names: tuple[str, ...], baseline: np.ndarray) -> tuple[ClassScore, ...]:
    """Each class that occurs, in the order of the classes."""
    right, items = predictions.exact[-1], _items(predictions)
    true, predicted = predictions.labels[:, 0], predictions.predictions[:, 0]
    found = []
    for number in np.unique(true).tolist():
        here, taken = true == number, predicted == number
        precision = float(right[taken].mean()) if taken.any() else np.nan
        score = accuracy(right[here], items[here])
        found.append(ClassScore(names[number], score, precision, float(baseline[here].mean())))
    return tuple(found)


def _by_group(predictions: Predictions, values: np.ndarray) -> list[GroupScore]:
    right, items = predictions.exact[-1], _items(predictions)
    found = []
    for name in np.unique(values).tolist():
        here = values == name
        constant = _exact(constant_baseline(predictions.labels[here]))
        against = paired(right[here], constant, items[here])
        found.append(GroupScore(name, accuracy(right[here], items[here]), against))
    return found


def _measured(measured: Accuracy) -> dict[str, Any]:
    interval = [measured.low, measured.high]
    return {"value": measured.share, "interval": interval, "samples": measured.rows, "items": measured.items}


def _exact(correct: np.ndarray) -> np.ndarray:
    """Whether each example has every cell right: bool (n, cells) -> bool (n,)."""
    return np.asarray(correct.all(axis=1))


def _items(predictions: Predictions) -> np.ndarray:
    return np.arange(len(predictions.rows)) if predictions.items is None else predictions.items
