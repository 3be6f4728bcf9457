"""The solver that comes with the package: boards and images to solutions, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from trm_nb.errors import UserError
from trm_nb.models.checkpoints import read_weights
from trm_nb.models.solver import KIND, SHIPPED, PuzzleSolver
from trm_nb.models.vision_encoder import TRMVisionEncoder
from trm_nb.records import Puzzle
from trm_nb.render.puzzle import PuzzleRenderer
from trm_nb.sources.puzzles.sudoku import sudokus

ROOT = Path(__file__).parents[1]
SEED = 2026  # of boards that the solver has not seen


@pytest.fixture(scope="module")
def solver() -> PuzzleSolver:
    torch.set_num_threads(1)
    return PuzzleSolver.load()


def boards(count: int) -> list[Puzzle]:
    return list(islice(sudokus(9, SEED), count))


def test_it_solves_boards_and_their_images_alike(solver: PuzzleSolver) -> None:
    puzzles = boards(6)
    solved = solver.solve(np.stack([one.puzzle for one in puzzles]), steps=3)
    right = np.array([np.array_equal(board, one.solution) for board, one in zip(solved.boards, puzzles, strict=True)])
    assert right.sum() >= 4, "with more steps, nearly all of them are solved"
    assert solved.by_step.shape == (3, 6, 9, 9) and solved.sure.shape == (6,)
    assert right[solved.sure].mean() > 0.7
    images = np.stack([PuzzleRenderer().render(one) for one in puzzles[:2]])
    assert np.array_equal(solver.solve(images, steps=3).by_step, solved.by_step[:, :2])


@pytest.mark.slow
def test_it_is_adapted_to_other_weights_of_the_encoder(solver: PuzzleSolver, tmp_path: Path) -> None:
    names = [tmp_path / f"{name}.safetensors" for name in ("old", "new", "adapted")]
    encoders = [TRMVisionEncoder("base", weights=weights) for weights in ("trained", "random")]
    for encoder, path in zip(encoders, names, strict=False):
        encoder.save(path)
    few = ["--boards", "4", "--measured", "1", "--steps", "3"]
    command = [sys.executable, str(ROOT / "tools" / "adapt_solver.py"), *map(str, names), *few]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "step 3 of 3: mean squared error" in said and "adapted: 0.0% of 1 other boards solved" in said
    adapted = PuzzleSolver.load(names[2], encoders[1]).network.state_dict()
    changed = {name for name, weight in solver.network.state_dict().items() if not torch.equal(weight, adapted[name])}
    assert changed == {n for n in adapted if n.startswith("reader.")} | {"capsule_proj.weight", "mean", "scale"}
    with pytest.raises(UserError, match="this solver reads capsules of the encoder"):
        PuzzleSolver.load(names[2])


@pytest.mark.parametrize(
    "given", [np.zeros((1, 6, 6), np.int8), np.zeros((1, 224, 224, 3), np.float32)], ids=["another size", "floats"]
)
def test_what_is_no_board_and_no_image_is_refused(given: np.ndarray, solver: PuzzleSolver) -> None:
    with pytest.raises(UserError, match=r"expected boards of 9x9 or uint8 images \(n, 224, 224, 3\), got"):
        solver.solve(given)


def test_capsules_of_another_encoder_are_refused() -> None:
    other = TRMVisionEncoder("base", weights="random")
    with pytest.raises(UserError, match=f"not of {other.fingerprint}; use the encoder that it was trained with"):
        PuzzleSolver.load(encoder=other)


def test_it_is_small_and_reads_the_capsules_of_the_encoder_that_ships() -> None:
    assert Path(SHIPPED).stat().st_size <= 10_000_000
    _, values = read_weights(SHIPPED, KIND)
    assert values["encoder"] == TRMVisionEncoder("base", weights="trained").fingerprint
