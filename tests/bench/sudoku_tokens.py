"""How many held-out Sudokus does a TinyRecursiveModel solve, read as tokens, after how many minutes?

    python tests/bench/sudoku_tokens.py SIDE FOLDER [MINUTES]    (default: 15)

Puzzles come from the package's own generator, are held out by solution, and augmented in training as in the published
one, but for 4x4, where that would make the held-out solutions from others. The control for what is learnt from capsules
(`params/sudoku4.yaml`). Goes on from FOLDER, with its minutes anew.
"""

from __future__ import annotations

import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from trm_nb.notebook.prose import percent
from trm_nb.plan import split_of
from trm_nb.records import Puzzle
from trm_nb.sources.generated import parse
from trm_nb.training.answers import evaluate
from trm_nb.training.puzzle_tokens import PuzzleTokens
from trm_nb.training.reasoning import Settings, train
from trm_nb.training_progress import TrainingProgressTracker

PUZZLES = {4: 2000, 6: 10_000, 9: 2000}
HELD_OUT = {4: 0.2, 6: 0.05, 9: 0.2}
SIZE = {"hidden_size": 128, "num_heads": 4, "H_cycles": 2, "L_cycles": 3, "mlp_t": True, "halt_max_steps": 8}
AT_ONCE = 250  # optimiser steps between two evaluations


def main() -> None:
    """Print a line for each evaluation."""
    side, folder = int(sys.argv[1]), Path(sys.argv[2])
    end = time.monotonic() + 60 * float(sys.argv[3] if sys.argv[3:] else 15)
    parts: dict[str, list[Puzzle]] = {"train": [], "test": []}
    for item in parse(f"sudoku:{side}:{PUZZLES[side]}").items("made", seed=0):
        assert isinstance(item.payload, Puzzle)
        parts[split_of(item, 0, HELD_OUT[side])].append(item.payload)
    examples = PuzzleTokens(parts["train"], parts["test"], augment=side > 4, **SIZE)  # type: ignore[arg-type]
    print(f"{len(parts['train']):,} to learn from, {len(parts['test']):,} held out by solution")
    print("\n| steps | minutes | exactly right | 95 % | training |\n|---|---|---|---|---|", flush=True)
    settings, started = Settings(0, average=0.99), time.monotonic()
    with closing(TrainingProgressTracker(folder, create=True)) as tracker:
        while time.monotonic() < end:
            settings = replace(settings, steps=tracker.get_stats()["global_step"] + AT_ONCE)
            model = train(folder, examples, settings, tracker)
            minutes = (time.monotonic() - started) / 60
            found = evaluate(model, examples, settings)
            low, high = (percent(bound, 1) for bound in found.interval)
            training = percent(tracker.training_curve()[-1]["exact_accuracy"], 1)
            print(
                f"| {settings.steps:,} | {minutes:.1f} | {percent(found.accuracy, 1)} | {low} to {high} | {training} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
