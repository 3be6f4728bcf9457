"""What notebook 08 shows of the puzzles that the package's solver works out, and when it has none."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError
from trm_nb.notebook.shown import Gallery, Plot, Shown, Text
from trm_nb.notebook.solving_report import ALL, FIRST_STEP, Puzzles, Solutions
from trm_nb.pipeline.run import Run, build

ROOT = Path(__file__).parents[1]


def run_in(folder: Path, source: str, **changes: object) -> Run:
    values = {"source_paths": [source], "output_dir": str(folder / "run"), "encoder": "tiny", "workers": 0, **changes}
    config = MultimodalDatasetConfig.parse({**values, "torch_threads": 1}, "the test")
    build(config)
    return Run(config)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_in(tmp_path_factory.mktemp("sudokus"), "sudoku:9:5")


@pytest.fixture(scope="module")
def puzzles(run: Run) -> Puzzles:
    return Puzzles.of(run)


def answers(puzzles: Puzzles) -> Solutions:
    """By hand: after the first of three steps only board 0 is right, in the end all but the last one, of which it is
    sure."""
    right = puzzles.solutions.astype(np.int8)
    by_step = np.stack([right] * 3)
    by_step[0, 1:, 4, 4] = 0
    by_step[:, -1, 0, :2] = 0
    return Solutions(puzzles, by_step, np.ones(len(right), bool))


def words(part: object) -> str:
    """The Markdown and descriptions of a part; renders its plots."""
    found = []
    for one in part.parts if isinstance(part, Shown) else [part]:
        if isinstance(one, Plot):
            data, described = one._repr_mimebundle_()
            with Image.open(io.BytesIO(data["image/png"])) as image:
                assert min(image.size) > 100
            found.append(described["image/png"]["alt"])
        elif isinstance(one, Gallery):
            found.append(one.alt)
        elif isinstance(one, Text):
            found.append(one.markdown)
    return "\n".join(found).replace("\u00a0", " ")


def test_the_boards_are_read_back_from_the_images_of_a_run(run: Run, puzzles: Puzzles) -> None:
    assert puzzles.images.shape == (5, 224, 224, 3) and puzzles.solutions.shape == (5, 9, 9)
    assert puzzles.levels.tolist() == puzzles.samples["label"].tolist()  # which is a made Sudoku's difficulty
    assert len(Puzzles.of(run, 2).samples) == 2


def test_the_headline_compares_with_the_first_step_and_counts_hard_boards(puzzles: Puzzles) -> None:
    told = words(answers(puzzles).headline)
    assert "**80.0 %** of 5 9x9 Sudokus are solved from their images, with every cell right (95 % interval" in told
    assert "its own answer after the first recursion step is shown (80.0 against 20.0 %; 3 samples gained, 0" in told
    hard = int((puzzles.levels == "hard").sum())
    assert f"Of the {hard} hard boards, none of which the two rules that people begin with solve" in told
    assert "2 Sudokus with the boards after step 1, step 3; wrong cells: 1, 0; 1, 0." in told


def test_steps_difficulties_and_mistakes(run: Run, puzzles: Puzzles) -> None:
    solved = answers(puzzles)
    assert "all from 20 % to 80 %" in words(solved.steps)
    table = solved.by_difficulty.set_index("difficulty")
    assert table["boards"].sum() == 10 and table.loc[ALL, "last against first"] == "no difference shown"
    assert words(solved.mistakes).startswith(
        "**1** of 5 boards are not solved. The solver is confident in 5 of its answers, of which **1** turn out wrong."
    )
    solved.record(run)
    noted = run.tracker.get("summary:08_solve")
    assert noted is not None and (noted["boards"], noted["accuracy"], noted[FIRST_STEP]) == (5, 0.8, 0.2)


def test_the_packages_solver_answers_for_each_step(puzzles: Puzzles) -> None:
    torch.set_num_threads(1)
    solved = puzzles.solved(steps=2)
    assert solved.by_step.shape == (2, 5, 9, 9) and solved.exact.shape == (2, 5) and solved.exact[-1].any()


@pytest.mark.parametrize(
    ("source", "size", "got"),
    [("sudoku:4:3", 224, "got 0 on images of 224"), ("sudoku:9:1", 252, "got 1 on images of 252")],
    ids=["smaller boards", "larger images"],
)
def test_a_run_without_such_puzzles_is_refused(source: str, size: int, got: str, tmp_path: Path) -> None:
    run = run_in(tmp_path, source, image_size=size)
    with pytest.raises(UserError, match=f"expected 9x9 Sudokus with solutions, .*{got} pixels; .*sudoku:9:60"):
        Puzzles.of(run)
