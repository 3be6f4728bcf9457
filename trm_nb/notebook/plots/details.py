"""What an objective wants to be seen of a result, rendered: confusion, groups, grids, recursion steps, images.

The table at the end knows each kind of detail; no objective is known by name here. Images come from the run's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from trm_nb.notebook import board_plots, plots, sampling
from trm_nb.notebook.prose import finding, percent
from trm_nb.notebook.shown import Gallery, Plot, Text, Tile
from trm_nb.pipeline.run import Run
from trm_nb.training.objective import Boards, Confusion, Detail, Groups, Images, Note, Steps
from trm_nb.training.results import GroupScore, Result
from trm_nb.training.verdicts import Accuracy, most_missed, p_value


def rendered(detail: Detail, run: Run, result: Result) -> list[object]:
    """A detail as what a cell shows."""
    return _RENDERED[type(detail)](detail, run, result)


def _confusion(detail: Confusion, run: Run, result: Result) -> list[object]:
    right = percent(result.accuracy.share, 1)
    alt = f"Confusion matrix of {detail.matrix.sum():,} held-out samples, {right} of them on the diagonal."
    missed = [f"{detail.classes[i]} ({count:,} of {of:,})" for i, count, of in most_missed(detail.matrix)]
    said = "Most often missed: {0}." if missed else "**No** held-out sample is missed."
    plot = plots.confusion(detail.matrix, detail.classes)
    return [Plot(plot, alt, "Confusion matrix"), Text(finding(said, ", ".join(missed)))]


def _groups(detail: Groups, run: Run, result: Result) -> list[object]:
    return [scores(detail.by, result.by_group(detail))]


def scores(by: str, groups: Sequence[GroupScore]) -> pd.DataFrame:
    """A row for each group: its accuracy, its baseline and the verdict."""
    return pd.DataFrame([
        {by: one.name, **measured_as(one.accuracy, "accuracy"), "baseline": percent(one.against.second, 1),
         "verdict": one.against.outcome, "p": p_value(one.against.p).removeprefix("p ").removeprefix("= ")}
        for one in groups
    ])  # fmt: skip


def measured_as(measured: Accuracy, name: str) -> dict[str, object]:
    """An accuracy as columns of a table: samples, items, the share by its name, and the ends of its interval."""
    shares = {name: measured.share, "from": measured.low, "to": measured.high}
    return {"samples": measured.rows, "items": measured.items} | {of: percent(one, 1) for of, one in shares.items()}


def _boards(detail: Boards, run: Run, result: Result) -> list[object]:
    images = sampling.images_of(run, run.samples().iloc[detail.rows])
    alt = f"{len(images)} images, the predicted grids with their wrong cells framed, and the true grids."
    shown = (images, detail.predicted[:, None], detail.true, ["predicted"])
    return [board_plots.boards(*shown, "Predicted and true grids", alt)]


def _thinking(detail: Steps, run: Run, result: Result) -> list[object]:
    images = sampling.images_of(run, run.samples().iloc[detail.rows])
    names = [f"step {number}" for number in detail.steps]
    wrong = (detail.predicted != detail.true[:, None]).sum((2, 3))
    counts = "; ".join(", ".join(map(str, line)) for line in wrong.tolist())
    alt = f"{len(images)} images with the grids after {', '.join(names)}; wrong cells: {counts}."
    title = "Grids after some of the recursion steps"
    return [board_plots.boards(images, detail.predicted, detail.true, names, title, alt)]


def _images(detail: Images, run: Run, result: Result) -> list[object]:
    images = sampling.images_of(run, run.samples().iloc[detail.rows.ravel()])
    rows = [
        [Tile(image, caption) for image, caption in zip(line, detail.captions, strict=True)]
        for line in images.reshape(*detail.rows.shape, *images.shape[1:])
    ]
    return [Gallery(rows, "Samples in detail", f"In each line: {', '.join(detail.captions)}.")]


def _note(detail: Note, run: Run, result: Result) -> list[object]:
    return []  # its sentence is shown already


_RENDERED: dict[type[Detail], Callable[[Any, Run, Result], list[object]]] = {
    Confusion: _confusion,
    Groups: _groups,
    Boards: _boards,
    Steps: _thinking,
    Images: _images,
    Note: _note,
}
