"""The images of the README: `python docs/make_figures.py [RUN]`, into docs/img.

`pipeline.png` is made from the package alone. Screenshots of a report and of the explorer need a finished run
(outputs/demo by default) and Chromium; without them only the first is made.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from photograph_explorer import photograph
from PIL import Image

from trm_nb.models.solver import PuzzleSolver
from trm_nb.records import Puzzle
from trm_nb.render.puzzle import PuzzleRenderer
from trm_nb.sources.puzzles.sudoku import sudokus

IMAGES = Path(__file__).parent / "img"
LARGEST = 300_000  # bytes of an image
STEPS = (1, 4, 32)  # the recursion steps that are shown
FIRST = 38  # the puzzle at which the search for a hard one begins
WINDOW = (1400, 1100)  # of the report, in pixels


def hard_sudoku(solver: PuzzleSolver) -> Puzzle:
    """A made Sudoku whose answer is wrong after the first recursion steps and right in the end."""
    for puzzle in itertools.islice(sudokus(9, seed=2026), FIRST, None):
        solved = solver.solve(puzzle.puzzle[None])
        wrong = [int((board[0] != puzzle.solution).sum()) for board in solved.by_step]
        if wrong[0] > 5 and wrong[STEPS[1] - 1] and not wrong[-1]:
            return puzzle
    raise AssertionError("the puzzles never end")


def pipeline_figure() -> Path:
    """Image, attention, capsules, and the answer after some recursion steps."""
    solver = PuzzleSolver.load()
    puzzle = hard_sudoku(solver)
    image = PuzzleRenderer().render(Puzzle("sudoku", puzzle.puzzle))
    with torch.inference_mode():
        capsules = solver.encoder(torch.from_numpy(image[None]))[0].numpy()
        attention = solver.encoder.attention_maps(torch.from_numpy(image[None]))[0].float().numpy()
    by_step = solver.solve(image[None]).by_step[:, 0]
    figure = plt.figure(figsize=(12, 8.2), layout="constrained")
    above, below = figure.subfigures(2, 1)
    seen = above.subplots(1, 3, width_ratios=(1, 1, 1.05))
    show_image(seen[0], image, "1  The image: 224x224 pixels")
    show_image(seen[1], attended(image, attention), "2  What each of 12 capsules attends to")
    show_capsules(seen[2], capsules)
    for ax, step in zip(below.subplots(1, 3), STEPS, strict=True):
        show_board(ax, puzzle, by_step[step - 1], step)
    path = IMAGES / "pipeline.png"
    figure.savefig(path, dpi=110, facecolor="white")
    plt.close(figure)
    return path


def show_image(ax: Axes, image: np.ndarray, title: str) -> None:
    """An image uint8 (h, w, 3) without axes."""
    ax.imshow(image)
    ax.set_title(title, fontsize=11, loc="left")
    ax.set(xticks=[], yticks=[])


def attended(image: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """The image uint8 (h, w, 3) once per capsule, in three rows, blue where it attends; `maps` (12, rows, columns)."""
    scale = image.shape[0] // maps.shape[1]
    strength = 0.7 * np.kron(maps / maps.max(axis=(1, 2), keepdims=True), np.ones((scale, scale)))[..., None]
    tinted = image * (1 - strength) + np.array([0, 114, 178]) * strength
    framed = np.pad(tinted, ((0, 0), (12, 12), (12, 12), (0, 0)), constant_values=255).astype(np.uint8)
    return np.concatenate([np.concatenate(list(framed[row * 4 : row * 4 + 4]), axis=1) for row in range(3)])


def show_capsules(ax: Axes, capsules: np.ndarray) -> None:
    """Capsules float (k, d) as rows of colour."""
    limit = float(np.quantile(np.abs(capsules[:10]), 0.99))  # those of the whole image are larger
    image = ax.imshow(capsules, aspect="auto", cmap="RdBu", vmin=-limit, vmax=limit, interpolation="nearest")
    ax.set_title("3  The 12 capsules of 512 numbers", fontsize=11, loc="left")
    ax.set(xlabel="feature", ylabel="capsule", yticks=range(len(capsules)))
    ax.figure.colorbar(image, ax=ax, label="value", extend="both", shrink=0.8)


def show_board(ax: Axes, puzzle: Puzzle, board: np.ndarray, step: int) -> None:
    """The answer int (9, 9) after a recursion step: given cells in black, right ones in blue, wrong ones framed."""
    wrong = board != puzzle.solution
    done = "solved" if not wrong.any() else f"{wrong.sum()} cells wrong"
    first = "4  " if step == STEPS[0] else ""
    ax.set_title(f"{first}After recursion step {step}: {done}", fontsize=11, loc="left")
    ax.set(xticks=[], yticks=[], xlim=(0, 9), ylim=(9, 0), aspect="equal")
    for line in range(10):
        width = 1.8 if line % 3 == 0 else 0.5
        ax.axhline(line, color="black", lw=width)
        ax.axvline(line, color="black", lw=width)
    for row, column in np.ndindex(board.shape):
        given = puzzle.puzzle[row, column] > 0
        colour, weight = ("black", "bold") if given else ("#d55e00" if wrong[row, column] else "#0072b2", "normal")
        ax.text(
            column + 0.5, row + 0.52, str(board[row, column]), ha="center", va="center", color=colour, weight=weight
        )
        if wrong[row, column]:
            ax.add_patch(plt.Rectangle((column + 0.08, row + 0.08), 0.84, 0.84, fill=False, ec="#d55e00", lw=1.6))


def screenshot(page: Path, target: Path, window: tuple[int, int]) -> None:
    """Photograph a page by headless Chromium."""
    size = f"--window-size={window[0]},{window[1]}"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", size]
    subprocess.run([*command, f"--screenshot={target}", page.resolve().as_uri()], check=True, capture_output=True)


def main(run: Path) -> None:
    """Make every image that can be made, and say which."""
    IMAGES.mkdir(exist_ok=True)
    made = [pipeline_figure()]
    if (run / "report" / "index.html").is_file() and shutil.which("chromium"):
        made += [IMAGES / "report.png", IMAGES / "explorer.png"]
        screenshot(run / "report" / "index.html", made[1], WINDOW)
        photograph(run, made[2], "ps23")
    for path in made:
        if path.stat().st_size > LARGEST:  # fewer colours
            Image.open(path).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
                path
            )
        size = path.stat().st_size
        print(f"{path.name}: {size:,} bytes{'' if size <= LARGEST else f', more than {LARGEST:,}'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/demo"))
