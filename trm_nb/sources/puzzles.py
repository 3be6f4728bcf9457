"""Sudokus and mazes out of the tables in which they are published: a column of questions and one of answers.

A Sudoku is its cells row by row, 16, 36 or 81 of them, `0` or `.` for a blank. A maze is a square of `#` wall, space
free, `S` start, `G` goal and, in the answer, `o` for the path, as in the 30x30 mazes that reasoning models are measured
on (900 characters). An answer that contradicts its question is refused, not mended.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from trm_nb.records import BOXES, FREE, GOAL, PATH, START, WALL, Puzzle

QUESTIONS = ("puzzle", "quizzes", "quiz", "question")
ANSWERS = ("solution", "solutions", "answer")
_SUDOKU_SIDES = {side * side: side for side in BOXES}
_MAZE_SIDE = 30
_MAZE_CELLS = {" ": FREE, "#": WALL, "S": START, "G": GOAL, "o": PATH}


class PuzzleError(ValueError):
    """Text that is no puzzle, or an answer that does not fit. The message says where."""


def puzzle_columns(columns: Collection[str]) -> tuple[str, str | None] | None:
    """The names of the question's and the answer's column, whatever their case; None: a table of something else."""

    def named(names: tuple[str, ...]) -> str | None:
        return next((column for name in names for column in columns if column.lower() == name), None)

    question = named(QUESTIONS)
    return None if question is None else (question, named(ANSWERS))


def is_puzzle(value: object) -> bool:
    """Whether a cell looks like a question: its length and its characters, no more."""
    if not isinstance(value, str):
        return False
    sudoku = len(value.strip()) in _SUDOKU_SIDES and set(value.strip()) <= set("0123456789.")
    side = math.isqrt(len(value))
    square = side * side == len(value) and 2 <= side <= _MAZE_SIDE
    return sudoku or (square and "S" in value and set(value) <= set("# SG"))


def to_puzzle(question: str, answer: str | None = None) -> Puzzle:
    """A checked puzzle, int8 (side, side) as `records.Puzzle` says; raises PuzzleError. An empty answer is none."""
    if not is_puzzle(question):
        raise PuzzleError(
            "expected 16, 36 or 81 digits (0 or . for a blank), or a square of #, space, S and G up to 30x30, "
            f"got {len(question)} characters: {question[:20]!r}"
        )
    if question.strip()[:1] in set("0123456789."):
        return _sudoku(question.strip(), (answer or "").strip())
    return _maze(question, answer or "")


def _sudoku(question: str, answer: str) -> Puzzle:
    puzzle = _digits(question, "question")
    if not answer:
        return Puzzle("sudoku", puzzle)
    if len(answer) != len(question):
        raise PuzzleError(f"answer: expected {len(question)} digits, as the question has, got {len(answer)}")
    solution = _digits(answer, "answer")
    _refuse(solution == 0, "answer: a blank")
    _refuse((puzzle != 0) & (puzzle != solution), "answer: another digit than the question's")
    return Puzzle("sudoku", puzzle, solution)


def _digits(text: str, which: str) -> np.ndarray:
    side = _SUDOKU_SIDES[len(text)]
    if not set(text) <= set("0123456789."):
        raise PuzzleError(f"{which}: expected digits, got {min(set(text) - set('0123456789.'))!r}")
    cells = np.array([int(c) for c in text.replace(".", "0")], np.int8).reshape(side, side)
    _refuse(cells > side, f"{which}: a digit above {side}")
    return cells


def _maze(question: str, answer: str) -> Puzzle:
    puzzle = _cells(question, "question")
    for cell, name in ((START, "S"), (GOAL, "G")):
        if (count := int((puzzle == cell).sum())) != 1:
            raise PuzzleError(f"question: expected one {name}, got {count}")
    if not answer:
        return Puzzle("maze", puzzle)
    if len(answer) != len(question):
        raise PuzzleError(f"answer: expected {len(question)} cells, as the question has, got {len(answer)}")
    solution = _cells(answer, "answer")
    _refuse((solution != puzzle) & ~((solution == PATH) & (puzzle == FREE)), "answer: another cell than the question's")
    return Puzzle("maze", puzzle, solution)


def _cells(text: str, which: str) -> np.ndarray:
    if not set(text) <= _MAZE_CELLS.keys():
        raise PuzzleError(f"{which}: expected #, space, S, G and o, got {min(set(text) - _MAZE_CELLS.keys())!r}")
    side = math.isqrt(len(text))
    return np.array([_MAZE_CELLS[c] for c in text], np.int8).reshape(side, side)


def _refuse(wrong: np.ndarray, what: str) -> None:
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise PuzzleError(f"{what} at row {row}, column {column}")
