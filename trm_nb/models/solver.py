"""PuzzleSolver: the model that solves 9x9 Sudokus from their images and comes with the package.

It reads the twelve capsules of the image, as the shipped encoder gives them, thinks
for some recursion steps, and keeps the answer of which it is surest. Other weights of the encoder give other capsules,
so the file says for which it was trained, and any others are refused.
Cost: an image is encoded once, and each step calls the net eight times; 32 steps take 1.5 s for a board on one core.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from trm_nb.errors import UserError
from trm_nb.models.checkpoints import load_weights, read_weights, save_weights
from trm_nb.models.encoder import Encoder
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel, TRMConfig
from trm_nb.models.vision_encoder import CHECKPOINTS, TRMVisionEncoder
from trm_nb.records import Puzzle
from trm_nb.render.puzzle import PuzzleRenderer

KIND = "puzzle solver"
SHIPPED = CHECKPOINTS / "solver_sudoku9.safetensors"
AT_ONCE = 32  # boards
STEPS = 32  # four times as many as in training


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """What a solver says of n puzzles.

    boards: int8 (n, rows, columns). sure: bool (n,), whether the model holds its answer for right. by_step: int8
    (t, n, rows, columns), the answer after each recursion step.
    """

    boards: np.ndarray
    sure: np.ndarray
    by_step: np.ndarray


class PuzzleSolver:
    """Images of puzzles of one kind and size to their solutions.

    Args:
        encoder: what gives the capsules.
        network: what reads them.
        shape: rows and columns of a board.
    """

    def __init__(self, encoder: Encoder, network: TinyRecursiveModel, shape: tuple[int, int]) -> None:
        self.encoder, self.network, self.shape = encoder.eval(), network.eval(), shape

    @classmethod
    def load(cls, path: str | Path = SHIPPED, encoder: Encoder | None = None, device: str = "cpu") -> Self:
        """Read a solver.

        Args:
            path: of the weights; by default those that come with the package.
            encoder: of the images; None: the one that comes with the package.
            device: where to compute.

        Returns:
            The solver, ready to solve.

        Raises:
            UserError: for a file that is none, and for another encoder than the one it was trained with.
        """
        weights, values = read_weights(path, KIND)
        encoder = encoder or TRMVisionEncoder("base", weights="trained")
        if values.get("encoder") != encoder.fingerprint:
            raise UserError(
                f"{path}: this solver reads capsules of the encoder {values.get('encoder')}, not of "
                f"{encoder.fingerprint}; use the encoder that it was trained with"
            )
        sizes: dict[str, Any] = values["architecture"]
        known = {field.name for field in fields(TRMConfig)}
        network = TinyRecursiveModel(TRMConfig(**{name: sizes[name] for name in sizes if name in known}))
        load_weights(network, weights, path)
        side = int(values["side"])
        return cls(encoder.to(device), network.to(device), (side, side))

    def save(self, path: str | Path, facts: Mapping[str, Any]) -> None:
        """Write the network as `load` reads it, its weights as float16.

        Args:
            path: of the file, safetensors.
            facts: plain values about its training.
        """
        weights = {name: weight.half() for name, weight in self.network.state_dict().items()}
        values = {"architecture": asdict(self.network.config), "encoder": self.encoder.fingerprint}
        save_weights(path, KIND, weights, {**values, "puzzle": "sudoku", "side": self.shape[0], "facts": dict(facts)})

    @torch.inference_mode()
    def solve(self, puzzles: Sequence[np.ndarray] | np.ndarray, steps: int = STEPS) -> Solved:
        """Solve puzzles.

        Args:
            puzzles: boards int (n, rows, columns) with 0 for a blank, which are rendered first, or their images uint8
                (n, 224, 224, 3), as `PuzzleRenderer` renders them.
            steps: recursion steps, 1 or more.

        Returns:
            The boards, whether the model is sure of each, and its answers after every step.

        Raises:
            UserError: for arrays of another shape.
        """
        given = np.asarray(puzzles)
        if given.ndim == 3 and given.shape[1:] == self.shape:
            renderer = PuzzleRenderer()
            given = np.stack([renderer.render(Puzzle("sudoku", board)) for board in given])
        if given.ndim != 4 or given.dtype != np.uint8 or given.shape[3] != 3:
            raise UserError(
                f"expected boards of {self.shape[0]}x{self.shape[1]} or uint8 images (n, 224, 224, 3), got "
                f"{given.dtype} {given.shape}"
            )
        boards, sure = [], []
        for first in range(0, len(given), AT_ONCE):
            said, held = self._asked(torch.from_numpy(given[first : first + AT_ONCE]), steps)
            boards.append(said)
            sure.append(held)
        by_step = np.concatenate(boards, axis=1)
        return Solved(by_step[-1], np.concatenate(sure), by_step)

    def _asked(self, images: torch.Tensor, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Boards int8 (t, b, rows, columns) after each step, and whether the last ones are held for right."""
        device = next(self.network.parameters()).device
        capsules = self.encoder(images.to(device)).half().float()  # as they are stored
        said = []
        for _, outputs in self.network.answering({"capsules": capsules}, steps):
            said.append(outputs["logits"].argmax(-1).to(torch.int8).cpu().numpy())
        held = (outputs["q_halt_logits"] > 0).cpu().numpy()
        return np.stack(said).reshape(steps, -1, *self.shape), held
