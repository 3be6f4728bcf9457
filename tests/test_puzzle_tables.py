"""Sudokus and mazes out of their columns, and what is none."""

from __future__ import annotations

from textwrap import wrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trm_nb.sources.puzzles.text import PuzzleError, is_puzzle, puzzle_columns, to_puzzle

SUDOKU = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"
SOLVED = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
MAZE = "#####S  ## # ##  G# #####"
WAY = "#####Soo## #o##  G# #####"


@pytest.mark.parametrize(
    "question",
    [*(SUDOKU.replace("0", blank) for blank in "0._*-? "), f" {SUDOKU}\n", "\r\n".join(wrap(SUDOKU, 9)) + "\r\n"],
    ids=[*(f"blank {blank}" for blank in "0._*-? "), "space around", "a line a row"],
)
@pytest.mark.parametrize("answer", [SOLVED, None, ""], ids=["answer", "none", "empty"])
def test_sudoku(question: str, answer: str | None) -> None:
    made = to_puzzle(question, answer)
    assert (made.kind, made.puzzle.dtype, made.puzzle.shape) == ("sudoku", np.int8, (9, 9))
    assert "".join(map(str, made.puzzle.ravel())) == SUDOKU
    assert (made.solution is None) == (not answer)
    if made.solution is not None:
        assert "".join(map(str, made.solution.ravel())) == SOLVED


@pytest.mark.parametrize(("side", "cells"), [(4, "1.2.3.4.1.2.3.4."), (6, "123456" * 6)], ids=["4x4", "6x6"])
def test_smaller_sudokus(side: int, cells: str) -> None:
    assert to_puzzle(cells).puzzle.shape == (side, side)


def test_maze() -> None:
    made = to_puzzle(MAZE, WAY)
    assert made.kind == "maze"
    assert made.puzzle.tolist() == [[1] * 5, [2, 0, 0, 1, 1], [0, 1, 0, 1, 1], [0, 0, 3, 1, 0], [1] * 5]
    assert made.solution is not None
    assert [tuple(place) for place in np.argwhere(made.solution == 4).tolist()] == [(1, 1), (1, 2), (2, 2)]
    large = "S" + "# " * 449 + "G"
    assert to_puzzle(large).puzzle.shape == (30, 30)


@pytest.mark.parametrize("free", " ._0*-")
def test_free_cells_of_a_maze_and_a_line_a_row(free: str) -> None:
    expected = to_puzzle(MAZE, WAY)
    for form in (str, lambda text: "\n".join(text[i : i + 5] for i in range(0, 25, 5))):
        made = to_puzzle(form(MAZE.replace(" ", free)), form(WAY.replace(" ", free)))
        assert np.array_equal(made.puzzle, expected.puzzle)
        assert made.solution is not None and expected.solution is not None
        assert np.array_equal(made.solution, expected.solution)


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        pytest.param(SUDOKU[:80], None, "expected 16, 36 or 81 digits .* got 80 characters", id="80 digits"),
        pytest.param("", None, "got 0 characters", id="empty"),
        pytest.param("S" + " " * 960, None, "got 961 characters", id="31x31 maze"),
        pytest.param(SUDOKU[:80] + "x", None, "got 81 characters", id="a letter"),
        pytest.param("5" + "0" * 15, None, "question: a digit above 4 at row 0, column 0", id="digit above 4"),
        pytest.param(SUDOKU, SOLVED[:-1], "expected 81 digits, as the question has, got 80", id="short answer"),
        pytest.param(SUDOKU, SOLVED[:-1] + "x", "answer: expected digits, got 'x'", id="letter in the answer"),
        pytest.param(SUDOKU, SUDOKU, "answer: a blank at row 0, column 2", id="blank in the answer"),
        pytest.param(
            SUDOKU, "6" + SOLVED[1:], "another digit than the question's at row 0, column 0", id="contradicts"
        ),
        pytest.param(SUDOKU, "4" + SOLVED[1:], "another digit than the question's at row 0, column 0", id="differs"),
        pytest.param("S  #", None, "expected one G, got 0", id="no goal"),
        pytest.param("SGS ", None, "expected one S, got 2", id="two starts"),
        pytest.param("S.G ", None, "expected 16, 36 or 81 digits", id="two kinds of free cells"),
        pytest.param("-" * 81, None, "got 81 characters", id="blanks alone"),
        pytest.param("SoG ", None, "expected 16, 36 or 81 digits", id="path in the question"),
        pytest.param(MAZE, WAY[:-1], "expected 25 cells, as the question has, got 24", id="short way"),
        pytest.param(MAZE, WAY.replace("o", "x"), "answer: expected #, space, S, G and o, got 'x'", id="no way"),
        pytest.param(MAZE, "o" + WAY[1:], "another cell than the question's at row 0, column 0", id="through a wall"),
        pytest.param(MAZE, WAY.replace("S", " "), "another cell than the question's at row 1, column 0", id="no start"),
    ],
)
def test_refused(question: str, answer: str | None, reason: str) -> None:
    with pytest.raises(PuzzleError, match=reason):
        to_puzzle(question, answer)


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (["quizzes", "solutions"], ("quizzes", "solutions")),
        (["id", "Puzzle", "Solution", "clues"], ("Puzzle", "Solution")),
        (["source", "question", "answer", "rating"], ("question", "answer")),
        (["quiz"], ("quiz", None)),
        (["text", "answer"], None),
        ([], None),
    ],
    ids=str,
)
def test_columns(columns: list[str], found: tuple[str, str | None] | None) -> None:
    assert puzzle_columns(columns) == found


@pytest.mark.parametrize("value", ["Why?", "1234", "####", 81, None, "١" * 16], ids=repr)
def test_what_does_not_look_like_one(value: object) -> None:
    assert not is_puzzle(value)


@given(st.text("0123456789.# SGo\n", max_size=90), st.text("0123456789.# SGo", max_size=90))
def test_any_text_is_a_puzzle_or_refused(question: str, answer: str) -> None:
    try:
        made = to_puzzle(question, answer)
    except PuzzleError:
        return
    assert is_puzzle(question)
    assert made.solution is None or made.solution.shape == made.puzzle.shape
