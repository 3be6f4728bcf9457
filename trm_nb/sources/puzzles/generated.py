"""Puzzles that are made instead of read: `sudoku:4:2000` is two thousand 4x4 Sudokus, `maze:10:500` mazes of 10x10.

`sudoku:9:2000:25` is as many 9x9 Sudokus with 25 digits or fewer, most of them hard. They follow from the words and the
config's seed alone, so they are always the same. A Sudoku's label is its difficulty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from trm_nb.errors import UserError
from trm_nb.records import BOXES, Item
from trm_nb.sources.puzzles.mazes import LARGEST, SMALLEST, mazes
from trm_nb.sources.puzzles.sudoku import difficulty, sudokus

FEWEST_GIVENS = {4: 4, 6: 8, 9: 17}  # side of a Sudoku -> the fewest digits that can have one solution


@dataclass(frozen=True, slots=True)
class Generated:
    """What a source path asks for."""

    kind: str
    side: int
    count: int
    most_givens: int | None = None  # digits of a Sudoku

    @property
    def name(self) -> str:
        """The name of the source; begins the ids of its items."""
        return f"{self.kind}-{self.side}x{self.side}" + (f"-{self.most_givens}" if self.most_givens else "")

    def items(self, name: str, seed: int) -> Iterator[Item]:
        """The puzzles in their order; raises UserError where there are fewer different ones than asked for."""
        number = -1
        puzzles = sudokus(self.side, seed, self.most_givens) if self.kind == "sudoku" else mazes(self.side, seed)
        for number, puzzle in enumerate(islice(puzzles, self.count)):
            label = difficulty(puzzle.puzzle) if self.kind == "sudoku" else None
            yield Item(f"{name}/{number:07d}", "grid", puzzle, self.name, label)
        if number + 1 < self.count:
            given = f":{self.most_givens}" if self.most_givens else ""
            raise UserError(
                f"{self.kind}:{self.side}:{self.count}{given}: only {number + 1} different ones were found; "
                f"ask for as many, or for {'more digits' if given else 'a larger side'}"
            )


def parse(text: str) -> Generated:
    """What `sudoku:SIDE:COUNT`, `sudoku:SIDE:COUNT:DIGITS` or `maze:SIDE:COUNT` asks for.

    Raises UserError for anything else.
    """
    kind, *numbers = text.split(":")
    numeric = all(number.isascii() and number.isdigit() for number in numbers)
    if not numeric or len(numbers) not in ((2, 3) if kind == "sudoku" else (2,)):
        raise UserError(f"source path {text!r}: expected {kind}:SIDE:COUNT, for example {kind}:6:1000")
    side, count, *digits = (int(number) for number in numbers)
    sides = list(BOXES) if kind == "sudoku" else list(range(SMALLEST, LARGEST + 1))
    if side not in sides:
        known = "4, 6 or 9" if kind == "sudoku" else f"{SMALLEST} to {LARGEST}"
        raise UserError(f"source path {text!r}: expected a side of {known}, got {side}")
    if not 1 <= count <= 10_000_000:
        raise UserError(f"source path {text!r}: expected a count of 1 to 10,000,000, got {count}")
    if digits and not FEWEST_GIVENS[side] <= digits[0] < side**2:
        raise UserError(
            f"source path {text!r}: expected {FEWEST_GIVENS[side]} to {side**2 - 1} digits, as fewer leave more than "
            f"one solution, got {digits[0]}"
        )
    return Generated(kind, side, count, *digits)
