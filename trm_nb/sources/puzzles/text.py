"""Sudokus and mazes out of the tables and JSON in which they are published: a column of questions, one of answers.

A Sudoku is its cells row by row, 16, 36 or 81 of them, with one of `0._*-?` or a space for a blank. A maze is a square
of `#` wall, `S` start, `G` goal, a space or one of `._0*-` for a free cell and, in the answer, `o` for the path, as in
the 30x30 mazes that reasoning models are measured on (900 characters). Both may have a line a row. An answer that
contradicts its question is refused, not repaired.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from trm_nb.records import BOXES, FREE, GOAL, PATH, START, WALL, Puzzle

QUESTIONS = ("puzzle", "quizzes", "quiz", "question")
ANSWERS = ("solution", "solutions", "answer")
SHAPES = (
    "16, 36 or 81 digits (0 . _ * - ? or a space for a blank), or a square of #, space (or . _ 0 * -), S and G up to "
    "30x30"
)
_SUDOKU_SIDES = {side * side: side for side in BOXES}
_BLANKS = str.maketrans("._*-? ", "000000")
_DIGITS = frozenset("0123456789")
_MAZE_SIDE = 30
_MAZE_CELLS = {" ": FREE, "#": WALL, "S": START, "G": GOAL, "o": PATH}
_FREE_CELLS = "._0*-"  # besides the space
_USUAL = frozenset("0123456789._*-?# ")
_SMALLEST, _LARGEST = 16, 100_000  # characters of a puzzle of unknown size
_LONG_WORD = 64  # as 16x16 Sudokus are, with letters for digits above 9


class PuzzleError(ValueError):
    """Text that is no puzzle, or an answer that does not fit. The message says where."""


def puzzle_columns(columns: Collection[str]) -> tuple[str, str | None] | None:
    """The names of the question's and the answer's column, whatever their case; None: a table of something else."""

    def named(names: tuple[str, ...]) -> str | None:
        return next((column for name in names for column in columns if column.lower() == name), None)

    question = named(QUESTIONS)
    return None if question is None else (question, named(ANSWERS))


def is_puzzle(value: object) -> bool:
    """Whether a cell may be a question that can be read: its length and its characters, no more."""
    return isinstance(value, str) and (_as_sudoku(value) is not None or _as_maze(value) is not None)


def resembles_puzzle(value: object) -> bool:
    """Whether a cell seems meant as a puzzle, of whatever size: mostly digits, blanks and walls, or one long word."""
    if not isinstance(value, str) or not _SMALLEST <= len(cells := _in_one_line(value)) <= _LARGEST:
        return False
    letters = [cell for cell in cells if cell not in _USUAL]
    one_word = len(cells) >= _LONG_WORD and " " not in cells and all(map(str.isalnum, letters))
    return one_word or len(letters) * 5 <= len(cells)


def puzzles_in(value: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The rows of a JSON object that is one puzzle, has columns of them as pandas writes them, or holds such objects at
    any depth; None for any other."""
    rows = [row for one in _with_questions(value) for row in _puzzle_rows(one)]
    first = [cell for row in rows[:10] for name, cell in row.items() if name.lower() in QUESTIONS]
    return rows if any(is_puzzle(cell) or resembles_puzzle(cell) for cell in first) else None


def _with_questions(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The objects in a JSON value that have a key for questions, in their order."""
    waiting: list[Any] = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict) and puzzle_columns(one) is not None:
            yield one
        elif isinstance(one, dict | list):
            waiting += reversed(list(one.values()) if isinstance(one, dict) else one)


def _puzzle_rows(value: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a JSON object that is one puzzle, or has a column of them under each key."""
    question, _ = puzzle_columns(value) or ("", None)
    columns = {name: list(held.values()) if isinstance(held, dict) else held for name, held in value.items()}
    if not isinstance(columns[question], list):
        return [value]
    count = len(columns[question])
    whole = {name: held for name, held in columns.items() if isinstance(held, list) and len(held) == count}
    return [dict(zip(whole, cells, strict=True)) for cells in zip(*whole.values(), strict=True)]


def to_puzzle(question: str, answer: str | None = None) -> Puzzle:
    """A checked puzzle, int8 (side, side) as `records.Puzzle` says; raises PuzzleError. An empty answer is none."""
    if (sudoku := _as_sudoku(question)) is not None:
        return _sudoku(sudoku, _in_one_line(answer or "").strip())
    if (maze := _as_maze(question)) is not None:
        free = next((cell for cell in _FREE_CELLS if cell in _in_one_line(question)), " ")
        return _maze(maze, _in_one_line(answer or "").replace(free, " "))
    raise PuzzleError(f"expected {SHAPES}, got {len(question)} characters: {question[:20]!r}")


def _in_one_line(text: str) -> str:
    """A square that has a line a row as one line; any other text as it is."""
    lines = text.strip("\r\n").splitlines() if len(text) <= _LARGEST else []
    return "".join(lines) if len(lines) > 1 and {len(line) for line in lines} == {len(lines)} else text


def _as_sudoku(text: str) -> str | None:
    """The cells of a Sudoku, 0 for a blank; None for a text that is none."""
    line = _in_one_line(text)
    for cells in (line, line.strip()):
        if len(cells) in _SUDOKU_SIDES and not _DIGITS.isdisjoint(cells) and set(cells.translate(_BLANKS)) <= _DIGITS:
            return cells.translate(_BLANKS)
    return None


def _as_maze(text: str) -> str | None:
    """The cells of a maze, a space for a free one; None for a text that is none."""
    cells = _in_one_line(text)
    side = math.isqrt(len(cells))
    free = set(cells) - set("#SG")
    square = side * side == len(cells) and 2 <= side <= _MAZE_SIDE
    if not square or "S" not in cells or len(free) > 1 or not free <= set(f" {_FREE_CELLS}"):
        return None
    return cells.replace(free.pop(), " ") if free else cells


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
    side, text = _SUDOKU_SIDES[len(text)], text.translate(_BLANKS)
    if not set(text) <= _DIGITS:
        raise PuzzleError(f"{which}: expected digits, got {min(set(text) - _DIGITS)!r}")
    cells = np.array([int(c) for c in text], np.int8).reshape(side, side)
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
