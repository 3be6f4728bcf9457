"""Figures of boards: puzzles and grids as a model predicts them, with a frame around each wrong cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from trm_nb.notebook.plots import COLOURS, clean, show_image
from trm_nb.notebook.prose import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WRONG, _LINE = "#c0392b", "#3b4448"
_LETTERS = 12  # columns up to which a cell has its number


def predictions(images: np.ndarray, predicted: np.ndarray, right: np.ndarray) -> Figure:
    """A row a sample: the image that asks, the predicted board, and the right one; wrong cells are framed.

    Args:
        images: uint8 (n, h, w, 3).
        predicted: int (n, rows, columns).
        right: likewise; a negative cell is not asked for.
    """
    return thinking(images, predicted[:, None], right, ["predicted"])


def thinking(
    images: np.ndarray, boards: np.ndarray, right: np.ndarray, names: Sequence[str], box: int | None = None
) -> Figure:
    """A row a sample: the image that asks, the board after each step, and the right one; wrong cells are framed.

    Args:
        images: uint8 (n, h, w, 3).
        boards: int (n, t, rows, columns).
        right: int (n, rows, columns); a negative cell is not asked for.
        names: of the t steps.
        box: cells from one line to the next; None: no lines.
    """
    n, t = boards.shape[:2]
    side = 2.2 if t == 1 else 9.2 / (t + 2)
    figure = Figure(figsize=(side * (t + 2), (side + 0.25) * n), layout="constrained")
    for row, image, steps, answer in zip(figure.subplots(n, t + 2, squeeze=False), images, boards, right, strict=True):
        asked, *given, wanted = row
        show_image(asked, image)
        asked.set_xlabel("asked", fontsize=8)
        for axes, name, cells in zip(given, names, steps, strict=True):
            wrong = (cells != answer) & (answer >= 0)
            _board(axes, cells, answer, side, box)
            _frame(axes, wrong)
            axes.set_xlabel(f"{name}: {wrong.sum():,} wrong", fontsize=8)
        _board(wanted, answer, answer, side, box)
        wanted.set_xlabel("right", fontsize=8)
    return figure


def solved_by_step(lines: Mapping[str, np.ndarray], baselines: Mapping[str, float]) -> Figure:
    """The share of boards that is right after each recursion step, float (t,) a line; steps on a logarithmic scale."""
    figure = Figure(figsize=(6.6, 3.4), layout="constrained")
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
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    clean(axes)
    return figure


def _board(axes: Axes, cells: np.ndarray, right: np.ndarray, side: float, box: int | None) -> None:
    """One board as coloured cells, with their numbers where there is room, and lines every `box` cells."""
    axes.imshow(np.where(right < 0, -1, cells), cmap="Pastel1", vmin=-1, vmax=max(8, int(right.max())))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if box is not None:
        rows, columns = (np.arange(0, length + 1, box) - 0.5 for length in cells.shape)
        axes.hlines(rows, -0.5, cells.shape[1] - 0.5, color=_LINE, lw=1, clip_on=False)
        axes.vlines(columns, -0.5, cells.shape[0] - 0.5, color=_LINE, lw=1, clip_on=False)
    if cells.shape[1] <= _LETTERS:
        size = min(9.0, 40 * side / max(cells.shape))
        for row, column in np.ndindex(cells.shape):
            axes.text(column, row, str(cells[row, column]), ha="center", va="center", fontsize=size)


def _frame(axes: Axes, wrong: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    for row, column in np.argwhere(wrong).tolist():
        axes.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, ec=_WRONG, lw=1.5))
