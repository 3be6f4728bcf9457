"""ARC tasks turned, mirrored and with their colours renamed: other tasks with the same rule.

A view is one of the 8 symmetries of the square and a permutation of the colours 1 to 9, the same for all of the task's
grids, answers included; 0 stays, as most tasks take it for the background. Training augments tasks by their views, and
evaluation asks about several views of a task and takes the predictions back. Source: the official TRM and HRM code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from trm_nb.records import GridTask
from trm_nb.sources.arc.tasks import COLOURS

SYMMETRIES = 8
_TRIES = 10  # tries for each form that is wanted; a task of one colour and one cell has few


@dataclass(frozen=True, slots=True)
class View:
    """A symmetry of the square, 0 to 7 as `turned` has it, and the new name of each of the ten colours."""

    symmetry: int = 0
    colours: tuple[int, ...] = tuple(range(COLOURS))

    def grid(self, grid: np.ndarray) -> np.ndarray:
        """A grid int (rows, columns) as this view shows it, int8."""
        return turned(np.array(self.colours, np.int8)[grid], self.symmetry)

    def undone(self, grid: np.ndarray) -> np.ndarray:
        """The grid that this view shows as `grid`, int8: the inverse of `View.grid`."""
        upright = np.rot90(grid, -(self.symmetry % 4))
        names: np.ndarray = np.argsort(self.colours).astype(np.int8)
        shown: np.ndarray = names[upright.T if self.symmetry >= SYMMETRIES // 2 else upright]
        return shown

    def task(self, task: GridTask) -> GridTask:
        """A task as this view shows it."""
        return _mapped(task, self.grid)


def views(task: GridTask, count: int, seed: int) -> list[View]:
    """Up to `count` views that show a task differently, itself first; they follow from the task and the seed."""
    return [view for view, _ in islice(_views(task, count, seed), count)]


def forms(task: GridTask, count: int, seed: int) -> Iterator[GridTask]:
    """Up to `count` forms of a task, all different and none the task itself; they follow from the task and the seed."""
    return (form for _, form in islice(_views(task, count + 1, seed), 1, None))


def _views(task: GridTask, count: int, seed: int) -> Iterator[tuple[View, GridTask]]:
    rng = np.random.default_rng([seed, int(hashlib.sha256(task_bytes(task)).hexdigest(), 16)])
    seen = {task_bytes(task)}
    yield View(), task
    for _ in range(_TRIES * (count - 1)):
        if len(seen) >= count:
            return
        view = View(int(rng.integers(SYMMETRIES)), (0, *rng.permutation(np.arange(1, COLOURS)).tolist()))
        form = view.task(task)
        if task_bytes(form) not in seen:
            seen.add(task_bytes(form))
            yield view, form


def turned(grid: np.ndarray, symmetry: int) -> np.ndarray:
    """Turned by `symmetry` % 4 quarters, after a transposition from 4 on."""
    return np.rot90(grid.T if symmetry >= SYMMETRIES // 2 else grid, symmetry % 4)


def common_form(task: GridTask) -> bytes:
    """The same bytes for all forms of a task: the least of 8, with colours numbered as they first appear."""
    whole = [_mapped(task, lambda grid, s=s: turned(grid, s)) for s in range(SYMMETRIES)]  # type: ignore[misc]
    return min(task_bytes(_renumbered(form)) for form in whole)


def task_bytes(task: GridTask) -> bytes:
    """What is rendered of a task: every grid but the answers, with its size."""
    grids = [grid for pair in task.train for grid in pair] + [*task.test_inputs]
    return b"".join(bytes(grid.shape) + grid.astype(np.uint8).tobytes() for grid in grids)


def _renumbered(task: GridTask) -> GridTask:
    grids = [grid.flatten() for pair in task.train for grid in pair] + [grid.flatten() for grid in task.test_inputs]
    first: dict[int, int] = {}
    for colour in np.concatenate(grids).tolist():
        first.setdefault(colour, len(first))
    names = np.array([first.get(colour, COLOURS) for colour in range(COLOURS)], np.int8)
    return _mapped(task, lambda grid: names[grid])


def _mapped(task: GridTask, change: Callable[[np.ndarray], np.ndarray]) -> GridTask:
    return GridTask(
        tuple((change(one), change(other)) for one, other in task.train),
        tuple(change(grid) for grid in task.test_inputs),
        tuple(change(grid) for grid in task.test_outputs),
    )
