"""Puzzles as tokens, the official input: what a TinyRecursiveModel is compared with when it reads capsules instead.

A cell is a token and the answer's cell its label. Sudokus are augmented anew in every epoch, as in the published
training; mazes are turned and mirrored. Held-out puzzles are asked as they are. There are 288 full boards of 4x4, and
augmentation turns any into most of the others, held-out ones too: there it is to be left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from trm_nb.errors import UserError
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel, TRMConfig
from trm_nb.records import Puzzle
from trm_nb.sources.puzzles.sudoku import augmented
from trm_nb.training.reasoning import shuffled
from trm_nb.training.state import ROW


class PuzzleTokens:
    """Puzzles of one kind and size with their solutions, in three parts. An `Examples` of training/reasoning.py.

    `val` may be empty. Raises UserError for another part that is empty, for puzzles of several kinds or sizes, and for
    ones without a solution.
    """

    def __init__(
        self,
        train: Sequence[Puzzle],
        test: Sequence[Puzzle],
        val: Sequence[Puzzle] = (),
        *,
        augment: bool = True,
        **model: int | bool | float | str,
    ) -> None:
        for part, name in ((train, "training"), (test, "held-out")):
            if not part:
                raise UserError(f"no {name} puzzles; give some")
        first = train[0]
        for puzzle in (*train, *val, *test):
            if (puzzle.kind, puzzle.puzzle.shape) != (first.kind, first.puzzle.shape) or puzzle.solution is None:
                raise UserError("expected puzzles of one kind and size, each with its solution")
        self.kind, self.shape = first.kind, first.puzzle.shape
        self.train, self.val, self.test = (_boards(part) for part in (train, val, test))
        highest = self.shape[0] if self.kind == "sudoku" else 4
        self.model = TRMConfig(vocab_size=highest + 1, seq_len=first.puzzle.size, **model)  # type: ignore[arg-type]
        self.per_epoch, self.augment = len(train), augment
        parts = (self.train, self.val, self.test)
        said = b"".join(part.tobytes() for part in parts) + (b"" if augment else b"as they are")
        said += f"{len(train)}, {len(val)} and {len(test)}".encode()
        self.name = hashlib.sha256(said).hexdigest()[:16]

    def new_model(self, generator: torch.Generator) -> TinyRecursiveModel:
        """Tokens need no scale."""
        return TinyRecursiveModel(self.model, generator)

    def train_batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        """Augmented puzzles: inputs and labels int64 (size, cells). Each once in an epoch."""
        rng = np.random.default_rng([seed, 1, step])
        rows = shuffled(step * size, size, len(self.train), seed)
        pairs = [self._augmented(puzzle, solution, rng) for puzzle, solution in self.train[rows]]
        return self._batch(np.array(pairs), rows)

    def val_batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        """The validation puzzles in their order."""
        return self._in_order(self.val, size)

    def test_batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        """The held-out puzzles in their order."""
        return self._in_order(self.test, size)

    def items_of(self, rows: np.ndarray) -> np.ndarray:
        """Every puzzle is an item of its own."""
        return rows

    def _in_order(self, boards: np.ndarray, size: int) -> Iterator[dict[str, Tensor]]:
        for first in range(0, len(boards), size):
            rows = np.arange(first, min(first + size, len(boards)))
            yield self._batch(boards[rows], rows)

    def _batch(self, pairs: np.ndarray, rows: np.ndarray) -> dict[str, Tensor]:
        inputs, labels = torch.from_numpy(pairs.astype(np.int64)).flatten(2).unbind(1)
        batch = {"inputs": inputs, "labels": labels, ROW: torch.from_numpy(rows)}
        if self.model.num_puzzle_identifiers:  # all puzzles of a kind are one task, as in the published training
            batch["puzzle_identifiers"] = torch.zeros(len(rows), dtype=torch.int64)
        return batch

    def _augmented(
        self, puzzle: np.ndarray, solution: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        if not self.augment:
            return puzzle, solution
        if self.kind == "sudoku":
            return augmented(puzzle, solution, rng)
        turns, mirror = int(rng.integers(4)), rng.choice((1, -1))
        turned = [np.rot90(board, turns)[:, ::mirror] for board in (puzzle, solution)]
        return turned[0], turned[1]


def _boards(puzzles: Sequence[Puzzle]) -> np.ndarray:
    """int8 (n, 2, rows, columns): puzzles and solutions."""
    return np.array([(puzzle.puzzle, puzzle.solution) for puzzle in puzzles], np.int8)
