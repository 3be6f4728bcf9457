"""Several models side by side as notebook 07 shows them: each part is the value of a cell.

Everything is read from the models' folders; what is computed and decided is in evaluation/. Where there is nothing to
compare, a part is the sentence that says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from trm_nb.describe import escaped
from trm_nb.errors import UserError
from trm_nb.evaluation.comparison import Comparison, Method, Outcomes, best_two, compare_methods, methods_of
from trm_nb.evaluation.trained_models import (
    TrainedModel,
    disagreements,
    distinct,
    methods_table,
    outcomes_of,
    predictions_to_dataframe,
    to_dataframe,
    trained_models,
)
from trm_nb.notebook import comparison_plots, sampling
from trm_nb.notebook.frames import install
from trm_nb.notebook.prose import finding, percent
from trm_nb.notebook.shown import Gallery, Nothing, Plot, Shown, Text, Tile
from trm_nb.pipeline.run import open_run
from trm_nb.progress.run_settings import in_project

SHOWN = 12  # samples on which two models disagree
_LONG = 18  # characters of a prediction under an image
NOTHING = Nothing("**Nothing is compared**: there are no finished models of two methods here.")


@dataclass(frozen=True, eq=False)
class ModelComparison:
    """The models of some runs. `models` are all of them; those that are not finished are listed, and not compared."""

    models: Sequence[TrainedModel]

    @classmethod
    def of(cls, folders: str | Path | Sequence[str | Path], models: Sequence[str] | None = None) -> Self:
        """The models in the folders of runs, or those of them with these names.

        From then on DataFrames show themselves as in frames.py.

        Raises:
            UserError: where a folder holds no run, a record cannot be read, or no model has one of the names.
        """
        from IPython.core.getipython import get_ipython

        install(get_ipython())
        given = [folders] if isinstance(folders, str | Path) else list(folders)
        return cls(trained_models([in_project(folder) for folder in given], models))

    @property
    def table(self) -> pd.DataFrame:
        """A row for each model."""
        return _shortened(to_dataframe(self.models))

    @property
    def predictions(self) -> pd.DataFrame:
        """A row for each prediction of the finished models."""
        return _shortened(predictions_to_dataframe(self.models))

    @property
    def settings(self) -> pd.DataFrame | Text:
        """The settings in which the methods differ, a row for each method."""
        return methods_table(self.finished) if self.finished else NOTHING

    @cached_property
    def finished(self) -> list[TrainedModel]:
        """The models that are compared: those that are done, without repetitions of the same settings and seed."""
        return distinct([model for model in self.models if model.state == "done"])

    @cached_property
    def outcomes(self) -> list[Outcomes]:
        """What each finished model has right."""
        return outcomes_of(self.finished)

    @cached_property
    def methods(self) -> list[Method]:
        """The methods, in the order of the models."""
        return methods_of(self.outcomes)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Each pair of methods; raises UserError where two have no held-out sample in common."""
        return compare_methods(self.outcomes)

    def curves(self, name: str, ylabel: str) -> Plot | Text:
        """What the trainings logged under a name, such as loss or exact_accuracy, against the optimiser step."""
        curves: dict[str, list[list[tuple[float, float]]]] = {}
        for model, outcomes in zip(self.finished, self.outcomes, strict=True):
            points = [(step["global_step"], step[name]) for step in model.curve() if name in step]
            if points:
                curves.setdefault(outcomes.method, []).append(points)
        if not curves:
            return NOTHING
        ends = "; ".join(f"{of} {np.mean([points[-1][1] for points in each]):.3g}" for of, each in curves.items())
        alt = (
            f"The {ylabel} against the optimiser step, a line for each model; at the end, as means over seeds: {ends}."
        )
        title = f"{ylabel.capitalize()} against the optimiser step"
        names = [method.name for method in self.methods]
        return Plot(comparison_plots.learning_curves(curves, ylabel, names), alt, title)

    @property
    def headline(self) -> Shown | Text:
        """The verdict on each pair of methods, and the mean of each with its seeds."""
        if len(self.methods) < 2:
            return NOTHING
        said = [finding("{0}", f"{one.sentence()}") for one in self.comparisons]
        shares = {method.name: method.each for method in self.methods}
        alt = "; ".join(f"{one.name} {percent(one.accuracy, 1)} (seeds: {one.seeds})" for one in self.methods)
        plot = Plot(comparison_plots.methods_compared(shares), f"{alt}.", "Accuracy on held-out samples")
        return Shown(Text("\n\n".join(said)), plot)

    @property
    def spread(self) -> pd.DataFrame:
        """Mean, standard deviation and range of each method over its seeds."""
        return pd.DataFrame([
            {"method": one.name, "seeds": one.seeds, "mean": percent(one.accuracy, 1),
             "standard deviation": percent(one.deviation, 1), "lowest": percent(one.lowest, 1),
             "highest": percent(one.highest, 1)}
            for one in self.methods
        ])  # fmt: skip

    @property
    def tests(self) -> pd.DataFrame | Text:
        """The paired test of each pair of methods, on the samples that all of their models have answered."""
        if len(self.methods) < 2:
            return NOTHING
        return pd.DataFrame([
            {"first": one.first, "is": one.outcome, "than second": one.second, "p (Holm)": one.adjusted, "p": one.p,
             "first right": percent(one.first_accuracy, 1), "second right": percent(one.second_accuracy, 1),
             "samples": one.samples, "items": one.items, "left out": one.left_out}
            for one in self.comparisons
        ])  # fmt: skip

    def pair(self, first: str | None = None, second: str | None = None) -> ComparedPair | Text:
        """Two models by name; by default the best model of each of the two best methods."""
        if len(self.methods) < 2 and not (first and second):
            return NOTHING
        best = [self.finished[n] for n in best_two(self.outcomes)] if len(self.methods) > 1 else []
        one = self._named(first) if first else best[0]
        two = self._named(second) if second else best[1]
        return ComparedPair(one, two, disagreements(one, two))

    def _named(self, name: str) -> TrainedModel:
        for model in self.finished:
            if model.name == name:
                return model
        raise UserError(f"expected a finished model among {', '.join(m.name for m in self.finished)}, got {name}")


@dataclass(frozen=True, slots=True, eq=False)
class ComparedPair:
    """Two models, and the samples that they predict differently (`trained_models.disagreements`)."""

    first: TrainedModel
    second: TrainedModel
    samples: pd.DataFrame

    def _ipython_display_(self) -> None:
        one, two = (self.samples[name] for name in ("correct_1", "correct_2"))
        template = "**{0}** and **{1}** predict {2:,} held-out samples differently: only the first gets {3:,} right, "
        template += "only the second {4:,}, and neither {5:,}."
        counts = (len(self.samples), int((one & ~two).sum()), int((two & ~one).sum()), int((~one & ~two).sum()))
        Shown(Text(finding(template, self.first.name, self.second.name, *counts)), self.images)._ipython_display_()

    @property
    def images(self) -> Gallery | Text:
        """Up to SHOWN of these samples, each over its target and the two predictions."""
        chosen = self.samples.iloc[:SHOWN]
        if chosen.empty:
            return Text(f"{escaped(self.first.name)} and {escaped(self.second.name)} predict the same everywhere.")
        run = open_run(output_dir=self.first.run.resolve())
        images = sampling.images_of(run, run.samples().iloc[chosen["row"]])
        run.close()
        captions = [_caption(sample) for sample in chosen.to_dict("records")]
        tiles = [Tile(image, caption) for image, caption in zip(images, captions, strict=True)]
        title = f"{len(images)} images that the two models predict differently"
        return Gallery([tiles], title, "Below each: the target, then the predictions of both models.")


def _shortened(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs' folders relative to the project; of those elsewhere as much as tells them apart."""
    project, runs = in_project(""), sorted(set(frame.get("run", ())))
    short = {run: str(Path(run).relative_to(project)) for run in runs if Path(run).is_relative_to(project)}
    elsewhere = [Path(run) for run in runs if run not in short]
    for path in elsewhere:
        alike = [other for other in elsewhere if other.name == path.name]
        short[str(path)] = path.name if len(alike) == 1 else "/".join(path.parts[-2:])
    return frame.replace({"run": short}) if short else frame


def _caption(sample: dict[str, object]) -> str:
    """The target and the two predictions of a sample; of a grid, which share of its cells is right."""
    if isinstance(sample["target"], np.ndarray):
        lines = [f"{n}: {percent(float(str(sample[f'cells_correct_{n}'])))} of the cells" for n in (1, 2)]
        return "\n".join(lines)
    marks = {n: "✓" if sample[f"correct_{n}"] else "✗" for n in (1, 2)}
    lines = [f"{n}: {str(sample[f'prediction_{n}'])[:_LONG]} {mark}" for n, mark in marks.items()]
    return "\n".join([f"target: {str(sample['target'])[:_LONG]}", *lines])
