"""Puzzles that are made instead of read: `sudoku:4:2000` is two thousand 4x4 Sudokus, `maze:10:500` mazes of 10x10.

They follow from the words and the config's seed alone, so they are always the same. A Sudoku's label is its difficulty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from trm_nb.errors import UserError
from trm_nb.records import BOXES, Item
from trm_nb.sources.puzzles.mazes import LARGEST, SMALLEST, mazes
from trm_nb.sources.puzzles.sudoku import difficulty, sudokus


@dataclass(frozen=True, slots=True)
class Generated:
    """What a source path asks for."""

    kind: str
    side: int
    count: int

    @property
    def name(self) -> str:
        """The name of the source; begins the ids of its items."""
        return f"{self.kind}-{self.side}x{self.side}"

    def items(self, name: str, seed: int) -> Iterator[Item]:
        """The puzzles in their order; raises UserError where there are fewer different ones than asked for."""
        number = -1
        puzzles = sudokus(self.side, seed) if self.kind == "sudoku" else mazes(self.side, seed)
        for number, puzzle in enumerate(islice(puzzles, self.count)):
            label = difficulty(puzzle.puzzle) if self.kind == "sudoku" else None
            yield Item(f"{name}/{number:07d}", "grid", puzzle, self.name, label)
        if number + 1 < self.count:
            raise UserError(
                f"{self.kind}:{self.side}:{self.count}: only {number + 1} different ones were found; "
                "ask for as many, or for a larger side"
            )


def parse(text: str) -> Generated:
    """What `sudoku:SIDE:COUNT` or `maze:SIDE:COUNT` asks for; raises UserError for anything else."""
    kind, *numbers = text.split(":")
    if len(numbers) != 2 or not all(number.isascii() and number.isdigit() for number in numbers):
        raise UserError(f"source path {text!r}: expected {kind}:SIDE:COUNT, for example {kind}:6:1000")
    side, count = (int(number) for number in numbers)
    sides = list(BOXES) if kind == "sudoku" else list(range(SMALLEST, LARGEST + 1))
    if side not in sides:
        known = "4, 6 or 9" if kind == "sudoku" else f"{SMALLEST} to {LARGEST}"
        raise UserError(f"source path {text!r}: expected a side of {known}, got {side}")
    if not 1 <= count <= 10_000_000:
        raise UserError(f"source path {text!r}: expected a count of 1 to 10,000,000, got {count}")
    return Generated(kind, side, count)
