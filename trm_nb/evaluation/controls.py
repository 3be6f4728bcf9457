"""Is it the capsules that solve the puzzles? Training on what should do worse, and on tokens."""

from __future__ import annotations

import hashlib
from dataclasses import asdict

import numpy as np

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.evaluation.puzzle_tokens import PuzzleTokens
from trm_nb.records import Item, Puzzle
from trm_nb.sources.puzzles.sudoku import relabelled
from trm_nb.sources.reader import scan
from trm_nb.training.predictions import Predictions
from trm_nb.training.targets import CapsuleTargets

INPUTS = ("vocab_size", "seq_len", "tokens", "capsules", "read_heads")  # of a model's size, what its input decides


def shuffled_between(examples: CapsuleTargets, seed: int) -> CapsuleTargets:
    """The same samples and answers, the capsules sampled at random from all of them; in place."""
    order = np.random.default_rng(seed).permutation(len(examples.rows))
    examples.capsules = examples.capsules[order]
    examples.name = hashlib.sha256(examples.name.encode() + order.tobytes()).hexdigest()[:16]
    return examples


def solution_classes(predictions: Predictions) -> np.ndarray:
    """A number for each board, equal for Sudokus whose solutions differ by the digits' names only: int64 (n,)."""
    boards = predictions.boards(predictions.labels)
    is_sudoku = bool((np.sort(boards, axis=2) == np.arange(1, boards.shape[2] + 1)).all())
    kinds = [relabelled(board) if is_sudoku else board for board in boards]
    return np.unique(np.stack(kinds).reshape(len(boards), -1), axis=0, return_inverse=True)[1].ravel()


def halting(predictions: Predictions) -> dict[str, float]:
    """How a model halts: the share of boards that it holds for right in the end, how many of these are right, and the
    mean of the first step after which it held its prediction for right; NaN where it never did."""
    assert predictions.halts is not None
    held = predictions.halts.any(0)
    first = predictions.halts.argmax(0)[held] + 1
    right = predictions.exact[-1][held]
    return {
        "held for right": float(held.mean()),
        "of these right": float(right.mean()) if len(right) else np.nan,
        "first step": float(first.mean()) if len(first) else np.nan,
    }


def as_tokens(config: MultimodalDatasetConfig, examples: CapsuleTargets) -> PuzzleTokens:
    """The puzzles of a run's sources in the run's splits, for a model of the same size as `examples` have.

    As they are: augmented, 4x4 Sudokus would hold the held-out solutions.
    """
    dataset = examples.dataset
    split_of = dict(zip(dataset.sample_ids, dataset.splits, strict=True))
    parts: dict[str, list[Puzzle]] = {"train": [], "val": [], "test": []}
    for reading in scan(config):
        for item in reading.entries:
            if isinstance(item, Item) and isinstance(item.payload, Puzzle) and item.payload.solution is not None:
                parts[split_of[item.item_id]].append(item.payload)
    size = {name: value for name, value in asdict(examples.model).items() if name not in INPUTS}
    return PuzzleTokens(parts["train"], parts["test"], parts["val"], augment=False, **size)
