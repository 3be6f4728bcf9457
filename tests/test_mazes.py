"""Mazes: the path in the answer is the shortest, and the only one of its length."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from trm_nb.records import Puzzle
from trm_nb.sources.puzzles.mazes import GOAL, PATH, START, WALL, mazes, shortest_path


def maze(rows: str) -> np.ndarray:
    return np.array([[" #SGo".index(c) for c in row] for row in rows.split("/")], np.int8)


def count_paths(cells: np.ndarray, start: tuple[int, int], goal: tuple[int, int]) -> tuple[int, int]:
    """Length of the shortest paths and how many there are, by counting walks layer by layer: another way than ours."""
    ways = np.zeros(cells.shape, np.int64)
    ways[start], seen = 1, np.zeros(cells.shape, bool)
    for length in range(cells.size):
        if ways[goal]:
            return length, int(ways[goal])
        seen |= ways > 0
        padded = np.pad(ways, 1)
        around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
        ways = np.where(seen | (cells == WALL), 0, around)
    raise AssertionError("no way")


def place(cells: np.ndarray, value: int) -> tuple[int, int]:
    ((row, column),) = np.argwhere(cells == value).tolist()
    return row, column


@pytest.mark.parametrize(("side", "count"), [(5, 10), (6, 10), (10, 20), (21, 10), (30, 5)])
def test_the_answer_is_the_only_shortest_path(side: int, count: int) -> None:
    made = list(islice(mazes(side, seed=1), count))
    assert len({m.puzzle.tobytes() for m in made}) == count
    for puzzle in made:
        assert puzzle.solution is not None and puzzle.puzzle.shape == (side, side)
        start, goal = place(puzzle.puzzle, START), place(puzzle.puzzle, GOAL)
        length, ways = count_paths(puzzle.puzzle, start, goal)
        assert ways == 1
        assert (puzzle.solution == PATH).sum() == length - 1
        changed = puzzle.solution != puzzle.puzzle
        assert (puzzle.puzzle[changed] == 0).all() and (puzzle.solution[changed] == PATH).all()


def test_they_follow_from_the_seed_and_have_detours() -> None:
    def rendered(seed: int) -> list[Puzzle]:
        return list(islice(mazes(21, seed), 10))

    first, again, other = ([m.puzzle.tobytes() for m in rendered(seed)] for seed in (0, 0, 1))
    assert first == again != other
    passages = [(m.puzzle != WALL) for m in rendered(0)]
    loops = [  # cells less links between them is 1 in a maze without detours
        p.sum() - (p[:, 1:] & p[:, :-1]).sum() - (p[1:] & p[:-1]).sum() for p in passages
    ]
    assert min(loops) < 0


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("S G", [(0, 0), (0, 1), (0, 2)]),
        ("S#G/   ", [(0, 0), (1, 0), (1, 1), (1, 2), (0, 2)]),
        ("S /G ", [(0, 0), (1, 0)]),
        ("S  / # /  G", None),  # two of one length
        ("S#G", None),
    ],
)
def test_shortest_path(rows: str, expected: list[tuple[int, int]] | None) -> None:
    cells = maze(rows)
    assert shortest_path(cells, place(cells, START), place(cells, GOAL)) == expected
