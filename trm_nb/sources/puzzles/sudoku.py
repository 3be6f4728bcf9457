"""Sudokus of 4x4, 6x6 and 9x9 made from a seed: each has exactly one solution, and a difficulty that was measured.

A random full board is dug out, cell by cell in random order, as long as the solution stays the only one. How hard the
result is for a person, its singles tell (`difficulty`).
Cost: about 0.2 ms for 4x4, 0.5 ms for 6x6, 6 ms for 9x9, in plain Python; ten times as much where as few digits as
possible are left.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from typing import Literal, TypeAlias

import numpy as np

from trm_nb.records import BOXES, Puzzle

MOST_REPEATS = 5000  # in a row; then there are no more of that size
BLANKS = (0.35, 0.75)  # part of the cells that are aimed at; as many as keep the solution unique
Difficulty: TypeAlias = Literal["easy", "medium", "hard"]


def sudokus(side: int, seed: int, most_givens: int | None = None) -> Iterator[Puzzle]:
    """Different Sudokus, until no new one is found; they follow from the arguments.

    Args:
        side: 4, 6 or 9.
        seed: of the boards.
        most_givens: dig as deep as the solution stays the only one, and keep the boards with so many digits or fewer
            (of 9x9 nine in ten have 25 or fewer, six in ten 24, one in four 23); None: stop at a random depth.
    """
    rng = np.random.default_rng([seed, side])
    seen: set[bytes] = set()
    repeats = 0
    while repeats < MOST_REPEATS:
        board = _full_board(side, rng)
        blanks = int(rng.uniform(*BLANKS) * board.size) if most_givens is None else board.size
        puzzle = _dug_out(board, blanks, rng)
        repeats += 1
        if most_givens is not None and np.count_nonzero(puzzle.puzzle) > most_givens:
            continue
        if puzzle.puzzle.tobytes() not in seen:
            repeats = 0
            seen.add(puzzle.puzzle.tobytes())
            yield puzzle


def solutions(cells: np.ndarray, most: int = 2, rng: np.random.Generator | None = None) -> list[np.ndarray]:
    """Up to `most` full boards int8 (side, side) that agree with `cells`, 0 for a blank; `rng` decides their order."""
    board = _Board(cells)
    return list(islice(board.solved(rng), most)) if board.consistent else []


def difficulty(puzzle: np.ndarray) -> Difficulty:
    """easy: cells that can hold one digit only lead to the end. medium: also digits that fit in one cell only of a row,
    a column or a box. hard: one has to try."""
    for kind, hidden in (("easy", False), ("medium", True)):
        board = _Board(puzzle)
        board.fill_singles(hidden)
        if not board.blanks:
            return kind  # type: ignore[return-value]
    return "hard"


def relabelled(cells: np.ndarray) -> np.ndarray:
    """The same board with its digits renamed by their first appearance: equal for boards that differ only by names."""
    _, first, inverse = np.unique(cells.ravel(), return_index=True, return_inverse=True)
    return (np.argsort(np.argsort(first))[inverse] + 1).reshape(cells.shape).astype(np.int8)


def augmented(puzzle: np.ndarray, solution: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Another Sudoku of the same logic: digits renamed, bands, stacks and lines in them shuffled, perhaps transposed.

    The published training does the same. Boards are turned over only where boxes are square.
    """
    side = len(puzzle)
    rows, columns = BOXES[side]
    names = np.concatenate([[0], rng.permutation(side) + 1]).astype(puzzle.dtype)
    order = [_shuffled_lines(side, size, rng) for size in (rows, columns)]
    pair = [names[board][np.ix_(*order)] for board in (puzzle, solution)]
    if rows == columns and rng.random() < 0.5:
        pair = [board.T.copy() for board in pair]
    return pair[0], pair[1]


def _shuffled_lines(side: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Lines in a new order that keeps bands of `size` together."""
    bands = np.arange(side).reshape(-1, size)
    return np.concatenate([rng.permutation(band) for band in rng.permutation(bands)])


def _full_board(side: int, rng: np.random.Generator) -> np.ndarray:
    return solutions(np.zeros((side, side), np.int8), most=1, rng=rng)[0]


def _dug_out(board: np.ndarray, blanks: int, rng: np.random.Generator) -> Puzzle:
    digging = _Board(board)
    for place in rng.permutation(board.size).tolist():
        if len(digging.blanks) == blanks:
            break
        digging.take_out_if_unique(place)
    return Puzzle("sudoku", digging.as_array(), board)


class _Board:
    """Cells in reading order, and which digits each row, column and box has left, as bits 1 << digit."""

    def __init__(self, cells: np.ndarray) -> None:
        self.side = len(cells)
        self.units = _units(self.side)
        self.cells = [0] * cells.size
        self.left = [(2 << self.side) - 2] * (3 * self.side)
        self.blanks = set(range(cells.size))
        self.consistent = True
        for place, digit in enumerate(cells.ravel().tolist()):
            if digit:
                self.consistent &= bool(self.candidates(place) & 1 << digit)
                self.put(place, digit)

    def candidates(self, place: int) -> int:
        row, column, box = self.units[place]
        return self.left[row] & self.left[column] & self.left[box]

    def put(self, place: int, digit: int) -> None:
        self.cells[place] = digit
        self.blanks.discard(place)
        for unit in self.units[place]:
            self.left[unit] &= ~(1 << digit)

    def take_back(self, place: int) -> None:
        bit, self.cells[place] = 1 << self.cells[place], 0
        self.blanks.add(place)
        for unit in self.units[place]:
            self.left[unit] |= bit

    def as_array(self) -> np.ndarray:
        return np.array(self.cells, np.int8).reshape(self.side, self.side)

    def take_out_if_unique(self, place: int) -> None:
        """Leave a cell blank, unless another digit there leads to a second solution."""
        digit = self.cells[place]
        self.take_back(place)
        for other in self._digits(self.candidates(place) & ~(1 << digit)):
            self.put(place, other)
            with closing(self.solved()) as found:
                solvable = next(found, None) is not None
            self.take_back(place)
            if solvable:
                self.put(place, digit)
                return

    def solved(self, rng: np.random.Generator | None = None) -> Generator[np.ndarray]:
        """Depth first, at the blank with the fewest candidates; the board is then as before, also when closed early."""
        if not self.blanks:
            yield self.as_array()
            return
        place, bits = self._most_constrained()
        digits = self._digits(bits)
        for digit in digits if rng is None else rng.permutation(digits).tolist():
            self.put(place, digit)
            try:
                yield from self.solved(rng)
            finally:
                self.take_back(place)

    def _most_constrained(self) -> tuple[int, int]:
        """The first of the blanks with the fewest candidates, and these."""
        fewest, found = self.side + 1, (0, 0)
        for place in sorted(self.blanks):
            row, column, box = self.units[place]
            bits = self.left[row] & self.left[column] & self.left[box]  # inline: all of the time is spent here
            if (count := bits.bit_count()) < fewest:
                fewest, found = count, (place, bits)
                if not count:
                    break
        return found

    def _digits(self, bits: int) -> list[int]:
        return [digit for digit in range(1, self.side + 1) if bits >> digit & 1]

    def fill_singles(self, hidden: bool) -> None:
        """Fill in what has no alternative, until there is no such cell (or, `hidden`, digit of a unit)."""
        found = True
        while found:
            found = False
            for place in sorted(self.blanks):
                bits = self.candidates(place)
                if bits.bit_count() == 1:
                    self.put(place, bits.bit_length() - 1)
                    found = True
            if hidden and not found:
                found = self._fill_hidden()

    def _fill_hidden(self) -> bool:
        for unit in range(3 * self.side):
            inside = [place for place in sorted(self.blanks) if unit in self.units[place]]
            for digit in range(1, self.side + 1):
                fits = [place for place in inside if self.candidates(place) >> digit & 1]
                if len(fits) == 1:
                    self.put(fits[0], digit)
                    return True
        return False


def _units(side: int) -> list[tuple[int, int, int]]:
    """The row, column and box of each place, numbered through."""
    rows, columns = BOXES[side]
    return [
        (row, side + column, 2 * side + row // rows * (side // columns) + column // columns)
        for row in range(side)
        for column in range(side)
    ]
