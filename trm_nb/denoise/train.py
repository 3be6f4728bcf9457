"""Train the denoiser, from the command line.

    python -m trm_nb.denoise.train FOLDER --photographs DIR --minutes 480

The photographs come from tools/collect_photographs.py. Run again after an interruption, it continues. The weights are
in FOLDER/n2n_denoiser.pt. Exit codes: 0 when done, 2 for a mistake of the user, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from trm_nb.denoise.noise2noise import SHAPES, Denoiser
from trm_nb.denoise.training_images import load_images
from trm_nb.denoise.training_loop import Settings, check, train_denoiser
from trm_nb.models.hardware import fast_in_bfloat16
from trm_nb.progress.training_length import exit_code_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the arguments say; returns the exit code."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)

    def training() -> None:
        settings = Settings(
            steps=given.steps,
            minutes=given.minutes,
            shape=SHAPES[given.size],
            batch=given.batch,
            crop=given.crop,
            learning_rate=given.rate,
            seed=given.seed,
            bfloat16=fast_in_bfloat16(given.device),
            torch_threads=given.threads,
            device=given.device,
        )
        check(settings)
        start = Denoiser.load(given.start) if given.start is not None else None
        train_denoiser(given.folder, load_images(given.photographs), settings, start=start)

    return exit_code_of(training, given.folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trm_nb.denoise.train", description="Train the denoiser.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the training; what is there is continued")
    parser.add_argument(
        "--photographs", type=Path, required=True, metavar="DIR", help="of tools/collect_photographs.py"
    )
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="about how long, without the time to load the images")
    length.add_argument("--steps", type=int, help="how many optimiser steps")
    parser.add_argument("--size", choices=sorted(SHAPES), default="base")
    parser.add_argument("--start", type=Path, metavar="FILE", help="weights to begin with; without, random ones")
    parser.add_argument("--batch", type=int, help="samples a step; 32 on a CPU, 64 on a GPU")
    parser.add_argument("--crop", type=int, help="pixels on a side; 64 on a CPU, 128 on a GPU")
    parser.add_argument("--rate", type=float, default=1e-3, help="the highest learning rate")
    parser.add_argument("--threads", type=int, default=2, help="of torch on the CPU")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
