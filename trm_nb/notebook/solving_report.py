"""Puzzles that the package's solver works out, as notebook 08 shows them: each part is the value of a cell.

The puzzles are 9x9 Sudokus of the run. Their boards are read back from the cached images, so the sources are not
needed. Nothing is trained. Cost: a board takes 1.4 s for 32 steps on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, get_args

import numpy as np
import pandas as pd

from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.errors import UserError
from trm_nb.evaluation.fidelity import spread
from trm_nb.models.solver import STEPS, PuzzleSolver
from trm_nb.notebook import board_plots, sampling
from trm_nb.notebook.frames import recorded
from trm_nb.notebook.prose import as_plain, finding, percent
from trm_nb.notebook.shown import Gallery, Plot, Shown, Text
from trm_nb.pipeline.run import Run
from trm_nb.progress.tables import SOLVED
from trm_nb.render.puzzle import PuzzleRenderer
from trm_nb.sources.puzzles.sudoku import Difficulty, difficulty
from trm_nb.training.verdicts import Accuracy, Paired, accuracy, paired

SIDE = 9
LEVELS: tuple[Difficulty, ...] = get_args(Difficulty)
ALL = "all"
RULES = "the two rules"
FIRST_STEP = "its own answer after the first recursion step"


@dataclass(frozen=True, slots=True, eq=False)
class Puzzles:
    """Sudokus of a run, each with one solution.

    samples: their rows of `run.samples()`. images: uint8 (n, h, w, 3). solutions: int (n, 9, 9). levels: their
    difficulties.
    """

    samples: pd.DataFrame
    images: np.ndarray
    solutions: np.ndarray
    levels: np.ndarray

    @classmethod
    def of(cls, run: Run, most: int | None = None) -> Self:
        """Up to `most` 9x9 Sudokus of a finished run, evenly spread over it; None: as many as `solve_puzzles` says.

        Raises:
            UserError: where the run has none, its images are of another size, or were cleared from the cache.
        """
        dataset = CapsuleDataset(run.path)
        found = {place: grids[0] for place in np.flatnonzero(dataset.target_count == 1).tolist()
                 if _is_solution(grids := [grid.numpy() for grid in dataset.target(place)])}  # fmt: skip
        if not found or run.config.image_size != 224:
            raise UserError(
                f"{run.path}: expected 9x9 Sudokus with solutions, on images of 224 pixels, which the package's solver "
                f"reads; got {len(found):,} on images of {run.config.image_size} pixels; build a run with sudoku:9:60 "
                "among its source_paths"
            )
        chosen = [list(found)[place] for place in spread(len(found), most or run.config.solve_puzzles or len(found))]
        samples = run.samples().iloc[dataset.rows[chosen]]
        images = sampling.images_of(run, samples, measured=True)
        levels = np.array([difficulty(PuzzleRenderer().decode(image)) for image in images])
        return cls(samples, images, np.stack([found[place] for place in chosen]), levels)

    def solved(self, steps: int = STEPS) -> Solutions:
        """What the package's solver says of them after each of so many recursion steps."""
        said = PuzzleSolver.load().solve(self.images, steps)
        return Solutions(self, said.by_step, said.sure)


@dataclass(frozen=True, slots=True, eq=False)
class Solutions:
    """The solver's answers `by_step`, int8 (t, n, 9, 9), and whether it is `sure` of the last ones, bool (n,)."""

    puzzles: Puzzles
    by_step: np.ndarray
    sure: np.ndarray

    @property
    def exact(self) -> np.ndarray:
        """Whether every cell is right after each step: bool (t, n)."""
        right: np.ndarray = (self.by_step == self.puzzles.solutions).all((2, 3))
        return right

    @property
    def accuracy(self) -> Accuracy:
        """The share of boards that is right in the end."""
        return accuracy(self.exact[-1])

    @property
    def longer(self) -> Paired:
        """The last step against the first one, on the same boards."""
        return paired(self.exact[-1], self.exact[0])

    def hard_boards(self) -> str:
        """How many boards are solved that two rules of people solve, all of them, and of those that they leave over."""
        hard, right = self.puzzles.levels == "hard", self.exact[-1]
        return (
            f"Of the {hard.sum():,} hard boards, none of which {RULES} that people begin with solve, "
            f"**{(right & hard).sum():,}** are solved; of the other {(~hard).sum():,}, which they all solve, "
            f"**{(right & ~hard).sum():,}**."
        )

    @property
    def headline(self) -> Shown:
        """The boards that are solved with the verdicts on both baselines, and two boards after some steps."""
        said = [
            self.accuracy.sentence("9x9 Sudokus are solved from their images, with every cell right"),
            self.longer.sentence(FIRST_STEP, "the solver"),
            self.hard_boards(),
        ]
        gained = np.flatnonzero(self.exact[-1] & ~self.exact[0])
        wrong = (self.by_step[0, gained] != self.puzzles.solutions[gained]).sum((1, 2))
        shown = gained[np.argsort(-wrong, kind="stable")][:2]
        return Shown(Text("\n\n".join(map(finding, said))), *([self._boards(shown, (1, 4))] if len(shown) else []))

    @property
    def steps(self) -> Plot:
        """The share of boards that is right after each step, by difficulty."""
        lines = {name: self.exact[:, here].mean(1) for name, here in self._groups().items()}
        ends = "; ".join(f"{name} from {percent(line[0])} to {percent(line[-1])}" for name, line in lines.items())
        baseline = float((self.puzzles.levels != "hard").mean())
        alt = f"Boards with every cell right after each recursion step: {ends}; {RULES} solve {percent(baseline)}."
        return Plot(board_plots.solved_by_step(lines, {RULES: baseline}), alt, "Boards solved after each step")

    @property
    def by_difficulty(self) -> pd.DataFrame:
        """The boards that are right after the first and the last step, with the verdict, for each difficulty."""
        rows = []
        for name, here in self._groups().items():
            last, longer = accuracy(self.exact[-1, here]), paired(self.exact[-1, here], self.exact[0, here])
            rows.append({"difficulty": name, "boards": last.rows, "after the first step": percent(longer.second, 1),
                         "after the last": percent(last.share, 1), "from": percent(last.low, 1),
                         "to": percent(last.high, 1), "last against first": longer.outcome})  # fmt: skip
        return pd.DataFrame(rows)

    @property
    def mistakes(self) -> Shown:
        """The boards that are not solved, up to four of them, and whether the solver knows."""
        right = self.exact[-1]
        template = "**{0:,}** of {1:,} boards are not solved. "
        template += "The solver is confident in {2:,} of its answers, of which **{3:,}** turn out wrong."
        text = Text(finding(template, (~right).sum(), len(right), self.sure.sum(), (~right & self.sure).sum()))
        missed = np.flatnonzero(~right)[:4]
        return Shown(text, *([self._boards(missed, (1, 4))] if len(missed) else []))

    def record(self, run: Run) -> pd.DataFrame:
        """Note the result in the tracker, for the report's index too, and show what was noted."""
        measured, longer = self.accuracy, self.longer
        run.tracker.set(SOLVED, {
            "name": "that comes with the package", "target": "the solution of a 9x9 Sudoku, from its image",
            "correct": "9x9 Sudokus are solved from their images, with every cell right", "value": measured.share,
            "interval": [measured.low, measured.high], "samples": measured.rows, "items": measured.items,
            "baselines": [{"name": FIRST_STEP, "value": longer.second, "verdict": longer.outcome, "p": longer.p}],
            "remark": as_plain(self.hard_boards()),
        })  # fmt: skip
        noted: dict[str, object] = {"boards": measured.rows, "steps": len(self.by_step), "accuracy": measured.share}
        noted |= {"interval": [round(measured.low, 4), round(measured.high, 4)], FIRST_STEP: longer.second}
        noted |= {"verdict": longer.outcome, "p": longer.p}
        return recorded(run, "08_solve", **noted)

    def _groups(self) -> dict[str, np.ndarray]:
        """The boards of each difficulty that there is, and all of them: bool (n,)."""
        groups = {name: self.puzzles.levels == name for name in LEVELS}
        return {name: here for name, here in groups.items() if here.any()} | {ALL: np.ones(len(self.sure), bool)}

    def _boards(self, places: np.ndarray, steps: Sequence[int]) -> Gallery:
        """Some boards as they are asked, as they are after these steps and the last one, and as they should be."""
        last = len(self.by_step)
        shown = sorted({min(step, last) for step in (*steps, last)})
        boards = self.by_step[np.array(shown) - 1][:, places].swapaxes(0, 1)
        wrong = (boards != self.puzzles.solutions[places][:, None]).sum((2, 3))
        names = [f"step {step}" for step in shown]
        counts = "; ".join(", ".join(map(str, line)) for line in wrong.tolist())
        alt = f"{len(places)} Sudokus with the boards after {', '.join(names)}; wrong cells: {counts}."
        images, solutions = self.puzzles.images[places], self.puzzles.solutions[places]
        return board_plots.boards(images, boards, solutions, names, "Sudokus after some of the steps", alt, box=3)


def _is_solution(grids: list[np.ndarray]) -> bool:
    """Whether this is one full 9x9 Sudoku."""
    if len(grids) != 1 or grids[0].shape != (SIDE, SIDE):
        return False
    boxes = grids[0].reshape(3, 3, 3, 3).swapaxes(1, 2).reshape(SIDE, SIDE)
    return all((np.sort(units, axis=1) == np.arange(1, SIDE + 1)).all() for units in (grids[0], grids[0].T, boxes))
