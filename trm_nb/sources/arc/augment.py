"""ARC tasks turned, mirrored and with their colours renamed: other tasks with the same rule, as training augments them.

A form is one of the 8 symmetries of the square and a permutation of the colours 1 to 9, the same for all of the task's
grids, answers included; 0 stays, as most tasks take it for the background. Source: the official TRM and HRM code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np

from trm_nb.records import GridTask
from trm_nb.sources.arc.tasks import COLOURS

SYMMETRIES = 8
_TRIES = 10  # tries for each form that is wanted; a task of one colour and one cell has few


def forms(task: GridTask, count: int, seed: int) -> Iterator[GridTask]:
    """Up to `count` forms of a task, all different and none the task itself; they follow from the task and the seed."""
    rng = np.random.default_rng([seed, int(hashlib.sha256(task_bytes(task)).hexdigest(), 16)])
    seen = {task_bytes(task)}
    for _ in range(_TRIES * count):
        if len(seen) > count:
            return
        symmetry = int(rng.integers(SYMMETRIES))
        colours = np.concatenate([[0], rng.permutation(np.arange(1, COLOURS))]).astype(np.int8)
        form = _mapped(task, lambda grid, s=symmetry, c=colours: c[turned(grid, s)])  # type: ignore[misc]
        if task_bytes(form) not in seen:
            seen.add(task_bytes(form))
            yield form


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
