"""What a study of puzzles counts: classes of solutions, and how a model halts."""

from __future__ import annotations

import numpy as np
import pytest

from trm_nb.evaluation.controls import halting, solution_classes
from trm_nb.training.predictions import Predictions

SOLVED = np.array([[1, 2, 3, 4], [3, 4, 1, 2], [2, 1, 4, 3], [4, 3, 2, 1]])
RENAMED = np.array([0, 3, 1, 4, 2])[SOLVED]
MAZE = np.array([[0, 1], [2, 3]])


def predictions(boards: list[np.ndarray], exact: np.ndarray, halts: np.ndarray) -> Predictions:
    labels = np.stack(boards).reshape(len(boards), -1).astype(np.int32)
    by_step = np.repeat(labels[None], len(exact), 0)
    return Predictions(exact, exact * 1.0, by_step, labels, np.arange(len(boards)), boards[0].shape, halts=halts)


@pytest.mark.parametrize(
    ("boards", "classes"),
    [([SOLVED, RENAMED, SOLVED[[1, 0, 2, 3]], SOLVED], [0, 0, 1, 0]), ([MAZE, MAZE.T, MAZE], [0, 1, 0])],
    ids=["sudokus", "mazes"],
)
def test_solutions_that_differ_in_names_are_one_class(boards: list[np.ndarray], classes: list[int]) -> None:
    none = np.zeros((2, len(boards)), bool)
    found = solution_classes(predictions(boards, none, none))
    same = [[a == b for b in classes] for a in classes]
    assert (found[:, None] == found).tolist() == same


def test_how_a_model_halts() -> None:
    exact = np.array([[0, 0, 0, 0], [1, 0, 0, 1], [1, 0, 0, 1]], bool)
    halts = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 1, 0]], bool)
    found = halting(predictions([SOLVED] * 4, exact, halts))
    assert found == {"held for right": 0.5, "of these right": 0.5, "first step": 2.5}
    never = halting(predictions([SOLVED], np.zeros((1, 1), bool), np.zeros((1, 1), bool)))
    assert never["held for right"] == 0 and np.isnan(never["first step"])
