"""Sudokus: each has the one solution it comes with, its difficulty is measured, and augmentation keeps the logic."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trm_nb.render.puzzle import BOXES as DRAWN_BOXES
from trm_nb.sources.puzzles.sudoku import BOXES, augmented, difficulty, relabelled, solutions, sudokus

SIDES = (4, 6, 9)


def board(text: str) -> np.ndarray:
    side = round(len(text) ** 0.5)
    return np.array([int(c) for c in text], np.int8).reshape(side, side)


def assert_full(cells: np.ndarray) -> None:
    """Each digit once in each row, column and box."""
    side = len(cells)
    rows, columns = BOXES[side]
    boxes = cells.reshape(side // rows, rows, side // columns, columns).swapaxes(1, 2).reshape(side, side)
    for units in (cells, cells.T, boxes):
        assert (np.sort(units, axis=1) == np.arange(1, side + 1)).all()


def test_boxes_are_those_that_are_drawn() -> None:
    assert BOXES == DRAWN_BOXES


@pytest.mark.parametrize(("side", "count"), [(4, 60), (6, 20), (9, 4)])
def test_each_has_one_solution_and_it_is_the_one_given(side: int, count: int) -> None:
    made = list(islice(sudokus(side, seed=3), count))
    assert len({puzzle.puzzle.tobytes() for puzzle in made}) == count
    for puzzle in made:
        assert puzzle.solution is not None and puzzle.puzzle.dtype == np.int8
        assert_full(puzzle.solution)
        (only,) = solutions(puzzle.puzzle)
        assert np.array_equal(only, puzzle.solution)
        blanks = (puzzle.puzzle == 0).mean()
        assert 0.25 < blanks < 0.8


@pytest.mark.parametrize(("side", "digits"), [(4, 5), (6, 10), (9, 24)])
def test_with_few_digits_none_can_be_left_out(side: int, digits: int) -> None:
    for puzzle in islice(sudokus(side, seed=3, most_givens=digits), 3):
        places = np.argwhere(puzzle.puzzle)
        assert len(places) <= digits and len(solutions(puzzle.puzzle)) == 1
        for place in places:
            fewer = puzzle.puzzle.copy()
            fewer[tuple(place)] = 0
            assert len(solutions(fewer)) == 2


def test_they_follow_from_the_seed() -> None:
    first, again, other = ([p.puzzle.tobytes() for p in islice(sudokus(4, seed), 10)] for seed in (0, 0, 1))
    assert first == again != other


def test_there_are_288_boards_of_4x4_and_12_up_to_the_names_of_digits() -> None:
    boards = solutions(np.zeros((4, 4), np.int8), most=1000)
    assert len(boards) == 288
    assert len({relabelled(b).tobytes() for b in boards}) == 12


@pytest.mark.parametrize(
    ("cells", "count"),
    [
        ("1200" + "0000" * 3, 2),  # of many, as many as asked for
        ("1100" + "0000" * 3, 0),  # contradicts itself
        ("1234" + "3400" + "2143" + "4321", 1),
        ("1230" + "0004" + "0000" * 2, 0),  # nothing fits into the last cell of the first row
    ],
)
def test_solutions(cells: str, count: int) -> None:
    found = solutions(board(cells))
    assert len(found) == count
    for full in found:
        assert_full(full)
        assert ((board(cells) == 0) | (board(cells) == full)).all()


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ("530070000600195000098000060800060003400803001700020006060000280000419005000080079", "easy"),
        ("000000010400000000020000000000050407008000300001090000300400200050100000000806000", "medium"),
        ("309000400200709000087000000750060230600904008028050041000000590000106007006000104", "hard"),
    ],
    ids=["naked singles", "17 clues, hidden singles", "needs more"],
)
def test_difficulty(cells: str, expected: str) -> None:
    assert len(solutions(board(cells))) == 1
    assert difficulty(board(cells)) == expected


@given(side=st.sampled_from(SIDES[:2]), seed=st.integers(0, 99), render=st.integers(0, 2**32 - 1))
def test_an_augmented_sudoku_has_the_augmented_solution(side: int, seed: int, render: int) -> None:
    puzzle = next(sudokus(side, seed))
    assert puzzle.solution is not None
    cells, solution = augmented(puzzle.puzzle, puzzle.solution, np.random.default_rng(render))
    assert_full(solution)
    assert (cells == 0).sum() == (puzzle.puzzle == 0).sum()
    (only,) = solutions(cells)
    assert np.array_equal(only, solution)


@given(render=st.integers(0, 2**32 - 1))
def test_relabelling_forgets_names_and_nothing_else(render: int) -> None:
    rng = np.random.default_rng(render)
    puzzle = next(sudokus(6, seed=int(rng.integers(50))))
    assert puzzle.solution is not None
    names = np.concatenate([[0], rng.permutation(6) + 1]).astype(np.int8)
    assert np.array_equal(relabelled(names[puzzle.solution]), relabelled(puzzle.solution))
    assert np.array_equal(relabelled(puzzle.solution)[0], np.arange(1, 7))
