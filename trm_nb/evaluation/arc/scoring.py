"""ARC's scores: predictions for many views of a test input become a ranking, rankings become pass@k.

The protocol is that of TRM's published evaluation (SamsungSAILMontreal/TinyRecursiveModels, evaluators/arc.py):
a grid ends at the largest rectangle at the top left, equal grids count together, and they are ranked by votes, then by
their mean q, then by which came first. pass@k counts a test input as solved where one of the first k is the answer.
Two means are published: Kaggle weighs every test input alike, TRM and VARC weigh every task alike.

Deviations: a prediction without a single cell at the top left is no grid and gets no vote (there it is an empty grid),
and a test input without a prediction is wrong (there it is left out of the submission).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PASSES = (1, 2, 10, 100)
NEVER = np.iinfo(np.int64).max  # the rank of an answer that is not among the predictions


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A grid int8 (rows, columns) that was predicted for `votes` views, with a mean q of `q`, 0 to 1."""

    grid: np.ndarray
    votes: int
    q: float


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Where the answers stand: `ranks` int64 (n,), 0 for the first candidate; `tasks` (n,), equal for one task."""

    ranks: np.ndarray
    tasks: np.ndarray

    def solved(self, k: int) -> np.ndarray:
        """Which test inputs have their answer among the first k candidates: bool (n,)."""
        found: np.ndarray = self.ranks < k
        return found

    def per_input(self, k: int) -> float:
        """pass@k as Kaggle scores: the share of the test inputs that is solved; NaN of none."""
        return float(self.solved(k).mean()) if len(self.ranks) else float("nan")

    def per_task(self, k: int) -> float:
        """pass@k as TRM and VARC report: the mean over tasks of the share of their test inputs; NaN of none."""
        _, numbers, sizes = np.unique(self.tasks, return_inverse=True, return_counts=True)
        return float((np.bincount(numbers, self.solved(k)) / sizes).mean()) if len(sizes) else float("nan")

    def part(self, chosen: np.ndarray) -> Scores:
        """The scores of some test inputs, bool (n,)."""
        return Scores(self.ranks[chosen], self.tasks[chosen])


def grids_at_top_left(canvases: np.ndarray, outside: int | None) -> list[np.ndarray | None]:
    """The grid in each canvas: the largest rectangle at its top left without the class `outside`.

    Args:
        canvases: predicted classes, int (n, rows, columns).
        outside: the class of cells outside of a grid; None: every grid fills its canvas.

    Returns:
        int8 (rows, columns) each; None where the first cell is outside.
    """
    inside = np.ones(canvases.shape, bool) if outside is None else canvases != outside
    widths = np.minimum.accumulate(np.cumprod(inside, axis=2).sum(axis=2), axis=1)  # of the first so many rows
    areas = widths * np.arange(1, canvases.shape[1] + 1)
    rows = areas.argmax(axis=1)
    return [
        canvas[: row + 1, : width[row]].astype(np.int8) if width[row] else None
        for canvas, row, width in zip(canvases, rows.tolist(), widths, strict=True)
    ]


def ranked(grids: Sequence[np.ndarray | None], q: Sequence[float]) -> list[Candidate]:
    """The different grids among predictions for one test input, the best first.

    Args:
        grids: a predicted grid for each view, taken back to the task itself; None where there is none.
        q: the probability that the model gives each of being right.
    """
    values: dict[tuple[tuple[int, ...], bytes], list[float]] = {}
    for grid, value in zip(grids, q, strict=True):
        if grid is not None:
            values.setdefault((grid.shape, grid.astype(np.int8).tobytes()), []).append(float(value))
    found = [
        Candidate(np.frombuffer(cells, np.int8).reshape(shape), len(each), sum(each) / len(each))
        for (shape, cells), each in values.items()
    ]
    return sorted(found, key=lambda candidate: (candidate.votes, candidate.q), reverse=True)


def rank_of(answer: np.ndarray, candidates: Sequence[Candidate]) -> int:
    """The place of the answer among the candidates, from 0; NEVER where it is not among them."""
    right = (number for number, one in enumerate(candidates) if np.array_equal(one.grid, answer))
    return next(right, int(NEVER))
