"""A training as notebook 06 shows it: each part of a report is the value of a cell, also where nothing was trained.

What there is to learn is a `LearningProblem`; training it returns a `TrainingReport`, or `NothingTrained` with the
reason. Both render what training/results.py computed and what the objective provides as details; no objective is
known by name here.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from trm_nb.describe import escaped
from trm_nb.errors import NothingToLearnError
from trm_nb.notebook import plots
from trm_nb.notebook.frames import recorded
from trm_nb.notebook.plots.details import measured_as, rendered, scores
from trm_nb.notebook.prose import finding, percent
from trm_nb.notebook.shown import Nothing, Plot, Shown, Text
from trm_nb.pipeline.run import Run
from trm_nb.progress.tables import train_stage
from trm_nb.records import Progress
from trm_nb.training.objective import Confusion, Objective
from trm_nb.training.results import Result
from trm_nb.training.train_objective import examples_of

_REASON = 1000  # characters of a reason that are shown
_NAME = 26  # characters in a line of a baseline's name next to its bar


@dataclass(frozen=True, slots=True, eq=False)
class LearningProblem:
    """What a finished run holds for its objective: shows itself as the samples to learn from and to measure on.

    `why_not` is the reason why nothing is trained, empty where something is. `objective` is None where the run has
    nothing to learn from.
    """

    run: Run
    objective: Objective | None
    why_not: str

    @classmethod
    def of(cls, run: Run) -> Self:
        """The learning problem of a run whose dataset is finished; raises UserError where it is not."""
        try:
            objective = examples_of(run.path, run.config)
        except NothingToLearnError as error:
            return cls(run, None, str(error))
        return cls(run, objective, "" if run.config.trains else "train_steps is 0")

    def train(self, on_progress: Progress | None = None) -> TrainingReport | NothingTrained:
        """Train for `train_steps` steps or `train_minutes`, or as many as are missing, and measure the result."""
        if self.why_not or self.objective is None:
            return NothingTrained(self.run, self.why_not)
        result = self.run.train(on_progress)
        return TrainingReport(self.run, result, _curve(self.run))

    @property
    def counts(self) -> pd.DataFrame:
        """What is learnt, with the samples to learn from, to validate on and to measure on."""
        counts = self.objective.counts() if self.objective else {}
        rows = [(name, *parts) for name, parts in counts.items()]
        return pd.DataFrame(rows, columns=["what", "train", "val", "test"])

    def _ipython_display_(self) -> None:
        said = _nothing(self.why_not)
        if self.objective and not self.why_not:
            parts = [len(part) for part in (self.objective.train, self.objective.val, self.objective.test)]
            config = self.run.config
            minutes = config.train_minutes
            learns = "The model **{0}** learns **{1}**: " + ("{2:,} steps" if minutes is None else "{2:g} minutes")
            template = f"{learns} on {{3:,}} samples, validated on {{4:,}}, and measured at the end on {{5:,}}."
            long = config.train_steps if minutes is None else minutes
            said = finding(template, config.model, self.objective.target, long, *parts)
        Shown(self.counts, Text(said))._ipython_display_()


@dataclass(frozen=True, slots=True, eq=False)
class NothingTrained:
    """Stands for a `TrainingReport` where nothing was trained: the headline says why, each other part that it is so."""

    run: Run
    why: str

    @property
    def headline(self) -> Text:
        """Why nothing is trained."""
        return Text(_nothing(self.why))

    @property
    def nothing(self) -> Text:
        """That there is nothing to show."""
        return Nothing("Nothing is shown, as nothing was trained.")

    loss = learning_curve = about = choice = gap = steps = classes = modalities = details = nothing

    def check(self) -> None:
        """Nothing to check."""

    def record(self) -> pd.DataFrame:
        """Note in the tracker that nothing was trained."""
        return _recorded(self.run, {"trained": False, "steps": _steps(_curve(self.run))})


@dataclass(frozen=True, slots=True, eq=False)
class TrainingReport:
    """What a training found; `curve` are the steps that the tracker holds. Each property is the value of a cell."""

    run: Run
    result: Result
    curve: list[dict[str, float]]

    @property
    def loss(self) -> Plot:
        """The loss in training and in validation, against the optimiser step."""
        losses = [step["loss"] for step in self.curve if "loss" in step] or [np.nan]
        alt = f"The loss against the optimiser step: {losses[0]:.3g} at first, {losses[-1]:.3g} in the end"
        validated = [step["val_loss"] for step in self.curve if "val_loss" in step]
        alt += f"; in validation {validated[0]:.3g} and {validated[-1]:.3g}." if validated else "."
        return Plot(plots.curves(self.curve, ["loss", "val_loss"], "loss", best=self._best), alt, "Loss in training")

    @property
    def learning_curve(self) -> Plot:
        """What is right in training and in validation, against the optimiser step."""
        names = ["accuracy", "exact_accuracy"] if self.result.several_cells else ["accuracy"]
        names += [f"val_{name}" for name in names if self._best is not None]
        last = ", ".join(f"{name.replace('_', ' ')} {percent(self._last(name), 1)}" for name in names)
        alt = f"What is right in training and in validation against the optimiser step; in the end: {last}."
        plot = plots.curves(self.curve, names, "share that is right", best=self._best)
        return Plot(plot, alt, "Accuracy in training and in validation")

    @property
    def choice(self) -> Text:
        """Which step's weights are used, and what the test samples were used for."""
        return Text(finding(self.result.choice()))

    @property
    def about(self) -> Text:
        """How to read the result of this objective."""
        return Text(self.result.objective.about)

    @property
    def headline(self) -> Shown:
        """The accuracy with its interval, the verdicts on the baselines, and all of them as bars."""
        result = self.result
        shares = {"this model": result.accuracy.share} | {one.name: one.against.second for one in result.baselines}
        shares |= dict([result.chance] if result.chance else [])
        bars = {textwrap.fill(name, _NAME): share for name, share in shares.items()}
        alt = "Accuracy, held out: " + "; ".join(f"{name} {percent(share, 1)}" for name, share in shares.items())
        plot = plots.compared(bars, (result.accuracy.low, result.accuracy.high))
        said = finding("The model **{0}** predicts {1}.", self.run.config.model, result.objective.target)
        return Shown(
            Text("\n\n".join([said, *map(finding, result.sentences())])),
            Plot(plot, f"{alt}.", "Accuracy on held-out samples"),
        )

    @property
    def gap(self) -> Text:
        """The accuracy in the last steps of training, compared with the held-out one."""
        in_training = self._last("exact_accuracy")
        if np.isnan(in_training):
            return Text("The tracker holds no accuracy of the last steps of training.")
        return Text(finding(self.result.gap(in_training, self.run.config.train_batch_size)))

    @property
    def steps(self) -> Shown:
        """What is right after each recursion step, and the verdict on the last step against the first one."""
        lines = {"exactly right": [step.exact for step in self.result.steps]}
        if self.result.several_cells:
            lines["cells"] = [step.cells for step in self.result.steps]
        baselines = {one.name: one.against.second for one in self.result.baselines}
        alt = "; ".join(f"{name} {', '.join(percent(share, 1) for share in shares)}" for name, shares in lines.items())
        figure = plots.by_recursion_step(lines, baselines)
        plot = Plot(figure, f"Held out, after each recursion step: {alt}.", "Accuracy after each recursion step")
        return Shown(plot, Text(finding(self.result.longer.sentence("the first step", "the last step"))))

    @property
    def classes(self) -> Shown | Text:
        """The accuracy on each class, and what is taken for it."""
        if not self.result.classes:
            return Nothing("The targets of this objective are not classes.")
        name = f"recall of {self.result.baselines[0].name}"
        return Shown(pd.DataFrame([
            {"class": one.name, **measured_as(one.accuracy, "recall"), "precision": percent(one.precision, 1),
             name: percent(one.baseline, 1)}
            for one in self.result.classes
        ]))  # fmt: skip

    @property
    def modalities(self) -> Shown:
        """The accuracy on each modality, with its best constant prediction."""
        return Shown(scores("modality", self.result.modalities))

    @property
    def details(self) -> Shown:
        """What the objective wants to be seen, each part with its introduction."""
        parts: list[object] = []
        for detail in self.result.details:
            parts += [Text(detail.about), *rendered(detail, self.run, self.result)]
        return Shown(*parts)

    def check(self) -> None:
        """Raises AssertionError where a loss is NaN or infinite, or where a confusion matrix disagrees."""
        losses = [step["loss"] for step in self.curve if "loss" in step]
        assert np.isfinite(losses).all(), "the loss is NaN or infinite: lower the learning rate"
        for detail in self.result.details:
            if isinstance(detail, Confusion):
                right = np.trace(detail.matrix) / max(1, detail.matrix.sum())
                assert detail.matrix.sum() == self.result.accuracy.rows, "each held-out sample must be counted once"
                assert abs(right - self.result.accuracy.share) < 1e-9, "accuracy and confusion matrix disagree"

    def record(self) -> pd.DataFrame:
        """Note the result in the tracker, and show what was noted."""
        measured = self.result.accuracy
        summary: dict[str, object] = {"trained": True, "steps": _steps(self.curve), "accuracy": measured.share}
        summary |= {"interval": [round(measured.low, 4), round(measured.high, 4)]}
        summary |= {one.name: one.against.second for one in self.result.baselines}
        summary |= {"class-balanced": self.result.balanced.share} if self.result.balanced else {}
        summary |= {"best step": self._best} if self._best is not None else {}
        first = self.result.baselines[0].against
        return _recorded(self.run, summary | {"verdict": first.outcome, "p": first.p})

    @property
    def _best(self) -> int | None:
        """The step that was chosen by validation."""
        trained = self.result.trained
        return trained.best_step if trained is not None and trained.validated else None

    def _last(self, name: str) -> float:
        return self.curve[-1].get(name, np.nan) if self.curve else np.nan


def _nothing(why: str) -> str:
    return f"**Nothing is trained**: {escaped(why, _REASON)}."


def _curve(run: Run) -> list[dict[str, float]]:
    return run.tracker.training_curve(train_stage(run.config.model))


def _steps(curve: list[dict[str, float]]) -> int:
    return int(curve[-1]["global_step"]) if curve else 0


def _recorded(run: Run, summary: dict[str, object]) -> pd.DataFrame:
    return recorded(run, "06_train", model=run.config.model, objective=run.config.objective, **summary)
