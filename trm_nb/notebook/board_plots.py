"""Boards as tiles: puzzles and grids as a model predicts them, with a frame around each wrong cell.

Tiles and not one figure, so that they flow to fit a telephone, and their captions take the page's colours, light or
dark; what is inside of a board is the same on both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from trm_nb.notebook.plots import COLOURS, clean, pixels_of
from trm_nb.notebook.plots.style import TICK, WIDTH
from trm_nb.notebook.prose import percent
from trm_nb.notebook.shown import Gallery, Tile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WRONG, _LINE = "#c0392b", "#3b4448"
_NUMBERED = 12  # columns up to which a cell has its number
_SIDE, _DPI = 2.24, 150  # inches of a board's longer side, and pixels in one of them


def boards(
    images: np.ndarray,
    predicted: np.ndarray,
    right: np.ndarray,
    names: Sequence[str],
    title: str,
    alt: str,
    box: int | None = None,
) -> Gallery:
    """A row a sample: the image that asks, the predicted boards, and the right one; wrong cells are framed.

    Args:
        images: uint8 (n, h, w, 3).
        predicted: int (n, t, rows, columns), such as those after some recursion steps.
        right: int (n, rows, columns); a negative cell is not asked for.
        names: of the t predictions.
        title: stands above them.
        alt: what is seen: the caption.
        box: cells from one line to the next; None: no lines.
    """
    rows = []
    for image, given, answer in zip(images, predicted, right, strict=True):
        tiles = [Tile(image, "asked")]
        for name, cells in zip(names, given, strict=True):
            wrong = (cells != answer) & (answer >= 0)
            tiles.append(Tile(_board(cells, answer, wrong, box), f"{name}: {wrong.sum():,} wrong"))
        rows.append([*tiles, Tile(_board(answer, answer, np.zeros(answer.shape, bool), box), "right")])
    return Gallery(rows, title, alt)


def solved_by_step(lines: Mapping[str, np.ndarray], baselines: Mapping[str, float]) -> Figure:
    """The share of boards that is right after each recursion step, float (t,) a line; steps on a logarithmic scale."""
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    axes = figure.subplots()
    for (name, line), colour in zip(lines.items(), COLOURS, strict=False):
        axes.plot(np.arange(1, len(line) + 1), line, color=colour, lw=1.8, label=f"{name}, {percent(line[-1])}")
    for name, share in baselines.items():
        axes.axhline(share, color="0.45", lw=1.2, ls="--", label=f"{name}, {percent(share)}")
    last = max(map(len, lines.values()))
    steps = [2**power for power in range(last.bit_length()) if 2**power <= last]
    axes.set_xscale("log", base=2)
    axes.set_xticks(steps, [str(step) for step in steps])
    axes.set(xlabel="recursion step", ylabel="boards with every cell right", ylim=(0, 1.02))
    axes.set_yticks(np.linspace(0, 1, 6), [percent(tick) for tick in np.linspace(0, 1, 6)])
    figure.legend(frameon=False, fontsize=TICK, loc="outside lower left", ncols=2)
    clean(axes)
    return figure


def _board(cells: np.ndarray, right: np.ndarray, wrong: np.ndarray, box: int | None) -> np.ndarray:
    """One board as coloured cells, with their numbers where there is room, and lines every `box` cells: an image."""
    height, width = (_SIDE * length / max(cells.shape) for length in cells.shape)
    figure = Figure(figsize=(width, height), dpi=_DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    shown = np.where(right < 0, -1, cells)
    axes.imshow(shown, cmap="Pastel1", vmin=-1, vmax=max(8, int(right.max())), aspect="auto")
    axes.set_axis_off()
    if box is not None:
        rows, columns = (np.arange(0, length + 1, box) - 0.5 for length in cells.shape)
        axes.hlines(rows, -0.5, cells.shape[1] - 0.5, color=_LINE, lw=1.5)
        axes.vlines(columns, -0.5, cells.shape[0] - 0.5, color=_LINE, lw=1.5)
    if cells.shape[1] <= _NUMBERED:
        size = min(18.0, 40 * _SIDE / max(cells.shape))
        for row, column in np.ndindex(cells.shape):
            axes.text(column, row, str(cells[row, column]), ha="center", va="center", fontsize=size)
    _frame(axes, wrong)
    return pixels_of(figure)


def _frame(axes: Axes, wrong: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    for row, column in np.argwhere(wrong).tolist():
        axes.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, ec=_WRONG, lw=2))
