"""How many held-out Sudokus does a TinyRecursiveModel solve, read as tokens, after how many minutes?

    python tests/bench/sudoku_tokens.py SIDE FOLDER [MINUTES] [DEVICE]    (default: 15 cpu)

Puzzles come from the package's own generator, are held out by solution, and augmented in training as in the published
one, but for 4x4, where that would make the held-out solutions from others. 4x4 and 6x6 are the control for what is
learnt from capsules (`params/sudoku4.yaml`); 9x9 is the published model with its recipe, and wants a GPU. Goes on from
FOLDER, with its minutes anew.
"""

from __future__ import annotations

import sys
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trm_nb.evaluation.puzzle_tokens import PuzzleTokens
from trm_nb.notebook.prose import percent
from trm_nb.pipeline.plan import split_of
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import Puzzle
from trm_nb.sources.puzzles.generated import parse
from trm_nb.training.predictions import evaluate
from trm_nb.training.reasoning import dtype_on, train
from trm_nb.training.state import Settings
from trm_nb.training.verdicts import accuracy

SMALL = {"hidden_size": 128, "num_heads": 4, "H_cycles": 2, "L_cycles": 3, "mlp_t": True, "halt_max_steps": 8}
PUBLISHED = {"mlp_t": True, "num_puzzle_identifiers": 1}  # the other sizes are TRMConfig's own
AT_ONCE = 250  # optimiser steps between two evaluations


@dataclass(frozen=True)
class Recipe:
    """How many puzzles, the part of their solutions that is held out, the model's size, and how it is trained."""

    puzzles: int
    held_out: float
    model: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=lambda: {"average": 0.99})


RECIPES = {
    4: Recipe(20_000, 0.2, SMALL),
    6: Recipe(10_000, 0.05, SMALL),
    9: Recipe(2000, 0.5, PUBLISHED, {"batch": 768, "learning_rate": 1e-4, "weight_decay": 1.0, "warm_up": 2000}),
}


def main() -> None:
    """Print a line for each evaluation."""
    side, folder = int(sys.argv[1]), Path(sys.argv[2])
    end = time.monotonic() + 60 * float(sys.argv[3] if sys.argv[3:] else 15)
    device, recipe = sys.argv[4] if sys.argv[4:] else "cpu", RECIPES[side]
    parts: dict[str, list[Puzzle]] = {"train": [], "test": []}
    for item in parse(f"sudoku:{side}:{recipe.puzzles}").items("made", seed=0):
        assert isinstance(item.payload, Puzzle)
        parts[split_of(item, 0, recipe.held_out)].append(item.payload)
    examples = PuzzleTokens(
        parts["train"], parts["test"], augment=side > 4, **recipe.model, forward_dtype=dtype_on(device)
    )
    print(f"{len(parts['train']):,} to learn from, {len(parts['test']):,} held out by solution")
    print("\n| steps | minutes | steps/s | exactly right | 95 % | training |\n|---|---|---|---|---|---|", flush=True)
    settings, started = Settings(0, device=device, **recipe.settings), time.monotonic()
    with closing(TrainingProgressTracker(folder, create=True)) as tracker:
        while time.monotonic() < end:
            settings = replace(settings, steps=tracker.get_stats()["global_step"] + AT_ONCE)
            begun = time.monotonic()
            model = train(folder, examples, settings, tracker).model
            now = time.monotonic()
            found = evaluate(model, examples, settings)
            measured = accuracy(found.exact[-1], found.items)
            low, high = percent(measured.low, 1), percent(measured.high, 1)
            training = percent(tracker.training_curve()[-1]["exact_accuracy"], 1)
            print(
                f"| {settings.steps:,} | {(now - started) / 60:.1f} | {AT_ONCE / (now - begun):.1f} "
                f"| {percent(found.accuracy, 1)} | {low} to {high} | {training} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
