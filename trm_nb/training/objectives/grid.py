"""Objective `grid`: what is in every cell of the answer grid of a puzzle or a task?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.records import GridTask, ImageBytes, ImageFile, Payload, Puzzle
from trm_nb.sources.puzzles.sudoku import relabelled
from trm_nb.training.objective import DEEP, Boards, Detail, Note, Steps
from trm_nb.training.predictions import Predictions
from trm_nb.training.targets import CapsuleTargets

SHOWN = 4  # of the worst predictions
THOUGHT, COLUMNS = 3, 6  # samples whose recursion steps are shown, and so many of the steps


class Grids(CapsuleTargets):
    """The samples that hold a whole question with one answer grid."""

    target: ClassVar[str] = "an answer grid"
    correct: ClassVar[str] = "answer grids are exactly right"
    constant: ClassVar[str] = "always predicting the most common grid"
    nearest_name: ClassVar[str] = "the answer of the nearest training sample"
    about: ClassVar[str] = (
        "An answer counts when every cell of it is right. The nearest training sample learns nothing: its answer is "
        "given as it is. The unit of intervals and tests is a task with all its augmentations, or a puzzle."
    )
    recursion: ClassVar[Mapping[str, int]] = DEEP

    def __init__(self, dataset: CapsuleDataset, **sizes: Any) -> None:
        answered = np.flatnonzero(dataset.solvable)
        super().__init__(dataset, answered, [dataset.target(i)[0].numpy() for i in answered.tolist()], **sizes)

    @classmethod
    def why_not(cls, payload: Payload, pages: int) -> str | None:
        """An answer grid is that of one puzzle or of a task with one test input, on one image, or of an image of it."""
        if isinstance(payload, GridTask) and len(payload.test_inputs) != 1:
            return f"the model predicts one answer grid, and this task has {len(payload.test_inputs)} test inputs"
        if not isinstance(payload, GridTask | Puzzle | ImageFile | ImageBytes):
            return "the model predicts the answer grids of puzzles and tasks, and this is neither"
        return None if pages == 1 else f"the model reads a question from one image, and this takes {pages}"

    def details(self, predictions: Predictions) -> tuple[Detail, ...]:
        """How many grids are different, and the worst predictions."""
        true, predicted = (predictions.boards(cells) for cells in (predictions.labels, predictions.predictions))
        worst = np.argsort(predictions.cells[-1], kind="stable")[:SHOWN]
        return (
            Note(self._different(true)),
            *([self._thinking(predictions, true)] if len(predictions.by_step) > 1 else []),
            Boards(
                "The worst predictions: what was asked, what the model predicts, with a frame around each wrong cell, "
                "and what is right.",
                predictions.rows[worst],
                predicted[worst],
                true[worst],
            ),
        )

    def _thinking(self, predictions: Predictions, true: np.ndarray) -> Steps:
        """The steps of the samples that are right in the end, and had most cells wrong after the first step."""
        wrong_at_first = 1 - predictions.cells[0]
        chosen = np.lexsort((-wrong_at_first, ~predictions.exact[-1]))[:THOUGHT]
        last = len(predictions.by_step)
        steps = sorted({round(step) for step in np.geomspace(1, last, min(last, COLUMNS)).tolist()})
        said = predictions.by_step[np.array(steps) - 1][:, chosen].astype(np.int32).swapaxes(0, 1)
        right = int(predictions.exact[-1][chosen].sum())
        which = f"{right} of these {len(chosen)} samples are right in the end" if right else "None is right in the end"
        return Steps(
            "How the model thinks: its prediction after some of the recursion steps, with a frame around each wrong "
            f"cell. {which}; of those that are, and then of the others, the ones with most cells wrong after the first "
            "step are shown.",
            predictions.rows[chosen],
            tuple(steps),
            said.reshape(len(chosen), len(steps), *predictions.shape),
            true[chosen],
        )

    def _different(self, true: np.ndarray) -> str:
        renamed = self.dataset.info.get("config", {}).get("split_sudokus") == "relabelled"
        kinds = len({(relabelled(grid) if renamed else grid).tobytes() for grid in true})
        what = "different grids up to renamed digits" if renamed else "different grids"
        return f"These answers are **{kinds:,}** {what}; the interval counts items that share one as independent."
