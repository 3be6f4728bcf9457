"""Adapt the puzzle solver that ships to other weights of the encoder, without training it to solve again.

    python tools/adapt_solver.py OLD_ENCODER NEW_ENCODER solver.safetensors [--solver OLD_SOLVER]

Other weights give other capsules, but what the solver knows about Sudokus does not depend on them. So only its
read-in is trained: to give for the new capsules of a board what it gave for the old ones. 500 steps of 48 of 6,000
boards took 15 minutes on one core and brought back 98 % of the boards that it solved before (docs/models.md).
Prints the loss, and at the end what part of other boards is solved by the old and by the adapted solver.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trm_nb.models.encoder import Encoder
from trm_nb.models.encoders import load_encoder
from trm_nb.models.solver import SHIPPED, PuzzleSolver
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel
from trm_nb.records import Puzzle
from trm_nb.render.puzzle import PuzzleRenderer
from trm_nb.sources.puzzles.sudoku import sudokus
from trm_nb.training.optimisers import AdamATan2

BATCH, RATE, WARM_UP, FALL = 48, 3e-3, 30, 0.7  # boards, the highest rate, steps until it, the part in which it falls
PREFIX = 0.1  # the weight of the places that hold the capsules themselves
SPREAD = 0.02  # added to the capsules' spread: a number that hardly varies is not blown up
AT_ONCE = 32


def main(arguments: Sequence[str] | None = None) -> None:
    """Adapt a solver as the command line says."""
    given = _parser().parse_args(arguments)
    old, new = load_encoder(given.old_encoder), load_encoder(given.new_encoder)
    solver = PuzzleSolver.load(given.solver, old)
    boards = list(islice(sudokus(solver.shape[0], given.seed), given.boards + given.measured))
    learnt, measured = boards[: given.boards], boards[given.boards :]
    images = np.stack([PuzzleRenderer().render(one) for one in learnt])
    before, after = capsules(old.eval(), images), capsules(new.eval(), images)
    network = adapted(solver.network, before, after, given.steps, given.seed)
    result = PuzzleSolver(new, network, solver.shape)
    said = f"the read-in trained for {given.steps} steps of {BATCH} to give for this encoder what it gave for another"
    result.save(given.out, {"adapted": said})
    for name, one in (("before", solver), ("adapted", result)):
        print(f"{name}: {solved(one, measured):.1%} of {len(measured)} other boards solved")


@torch.inference_mode()
def capsules(encoder: Encoder, images: np.ndarray) -> Tensor:
    """Capsules of images uint8 (n, h, w, 3) as they are stored: float16 (n, 12, 512)."""
    parts = [encoder(torch.from_numpy(images[i : i + AT_ONCE])).half() for i in range(0, len(images), AT_ONCE)]
    return torch.cat(parts)


def adapted(teacher: TinyRecursiveModel, before: Tensor, after: Tensor, steps: int, seed: int) -> TinyRecursiveModel:
    """A copy of a network that reads `after` as `teacher` reads `before`, both float16 (n, 12, 512) of the same images.

    The weights of the places over the slots are initialised again; everything behind the read-in stays as it is.
    """
    network = copy.deepcopy(teacher)
    fresh = TinyRecursiveModel(network.config, torch.Generator().manual_seed(seed))
    network.reader.load_state_dict({**network.reader.state_dict(), "mix": fresh.reader.mix.detach()})
    x = after.float()
    network.set_scale(x.mean(0).numpy(), (x.std(0) + SPREAD).numpy())
    weights = [*network.reader.parameters(), network.capsule_proj.weight]
    optimiser = AdamATan2(weights, weight_decay=0.1)
    prefix, generator = network.config.prefix, torch.Generator().manual_seed(seed)
    for step in range(1, steps + 1):
        rows = torch.randint(0, len(x), (BATCH,), generator=generator)
        with torch.no_grad():
            wanted = teacher.embedded({"capsules": before[rows].float()})
        error = (network.embedded({"capsules": x[rows]}) - wanted).square()
        places = error[:, prefix:].mean()
        loss = places + PREFIX * error[:, :prefix].mean() / wanted[:, :prefix].square().mean()
        optimiser.zero_grad()
        loss.backward()
        falling = min(1.0, max(0.05, (1 - step / steps) / FALL))
        optimiser.param_groups[0]["lr"] = RATE * min(1.0, step / WARM_UP) * falling
        optimiser.step()
        if step % 25 == 0 or step == steps:
            print(f"step {step} of {steps}: mean squared error {float(places):.4f}", flush=True)
    return network


def solved(solver: PuzzleSolver, boards: Sequence[Puzzle]) -> float:
    """The part of the boards that is solved exactly."""
    said = solver.solve(np.stack([one.puzzle for one in boards])).boards
    return float(np.mean([np.array_equal(board, one.solution) for board, one in zip(said, boards, strict=True)]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python tools/adapt_solver.py", description=__doc__.splitlines()[0])
    parser.add_argument("old_encoder", type=Path, help="the weights that the solver reads now")
    parser.add_argument("new_encoder", type=Path, help="the weights that it is to read")
    parser.add_argument("out", type=Path, help="the file that is written")
    parser.add_argument("--solver", type=Path, default=SHIPPED, help="by default the one that comes with the package")
    parser.add_argument("--boards", type=int, default=6000, help="that it is adapted on")
    parser.add_argument("--measured", type=int, default=100, help="that it is measured on")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
