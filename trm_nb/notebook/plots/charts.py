"""Charts of numbers: counts, distributions, learning curves, accuracies, confusion; each returns a matplotlib Figure.

Figures are made without pyplot, so nothing is shown twice and no state is left. Text of the data is escaped from
mathtext, and characters the font lacks show as backslash escapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from trm_nb.notebook.plots.style import COLOURS, FEW_POINTS, GRAY, OTHER, TEXT, TICK, WIDTH, class_style, clean
from trm_nb.notebook.prose import percent, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def bars(counts: Mapping[Any, int], xlabel: str, ylabel: str) -> Figure:
    """How many of each: a bar a key, in the order given."""
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    axes = figure.subplots()
    bars = axes.bar([plain(name, 18) for name in counts], list(counts.values()), color=COLOURS[0], width=0.7)
    if len(counts) <= 12:
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=TICK, color=GRAY)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    clean(axes)
    return figure


def histogram(values: np.ndarray, xlabel: str, ylabel: str = "samples") -> Figure:
    """A distribution, with its median marked."""
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    axes = figure.subplots()
    finite = values[np.isfinite(values)]
    if len(finite):
        axes.hist(finite, bins=min(40, max(5, len(finite) // 4)), color=COLOURS[0], alpha=0.85)
        axes.axvline(float(np.median(finite)), color=COLOURS[1], lw=1.5, label=f"median {np.median(finite):.3g}")
        axes.legend(frameon=False, fontsize=TICK)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    clean(axes)
    return figure


def curves(
    steps: Sequence[Mapping[str, float]],
    names: Sequence[str],
    ylabel: str,
    xlabel: str = "optimiser step",
    best: int | None = None,
) -> Figure:
    """Logged metrics against the step; steps that did not log one are left out of its line. `best` marks a step."""
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    axes = figure.subplots()
    for name, colour in zip(names, COLOURS, strict=False):
        logged = [(step["global_step"], step[name]) for step in steps if name in step]
        if logged:
            marker = "o" if len(logged) <= FEW_POINTS else None  # one point alone makes no line
            axes.plot(
                *zip(*logged, strict=True), color=colour, lw=1.6, marker=marker, ms=4, label=name.replace("_", " ")
            )
    if best is not None:
        axes.axvline(best, color="0.5", lw=1, ls="--", zorder=0, label=f"best step: {best:,}")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.locator_params(axis="x", integer=True)
    if axes.lines:
        axes.legend(frameon=False, fontsize=TICK)
    clean(axes)
    return figure


def confusion(matrix: np.ndarray, classes: Sequence[str], at_most: int = 20) -> Figure:
    """Counts (true, predicted) of the classes with most samples, each with its colour and marker of the map.

    Args:
        matrix: int (classes, classes).
        classes: all classes of the run, in the run's order.
        at_most: so many are shown.
    """
    kept = np.sort(np.argsort(-matrix.sum(axis=1), kind="stable")[:at_most])
    shown, names = matrix[np.ix_(kept, kept)], [plain(classes[i], 18) for i in kept]
    side = 2.0 + 0.36 * len(kept)
    figure = Figure(figsize=(side + 2.0, side), layout="compressed")
    axes = figure.subplots()
    parts = shown / np.maximum(shown.sum(axis=1, keepdims=True), 1)
    shares = axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    scale = figure.colorbar(shares, ax=axes, label="share of the true class", shrink=0.8)
    scale.ax.tick_params(labelsize=TICK, colors=GRAY)
    axes.set(
        xlabel="predicted class",
        ylabel="true class",
        xticks=range(len(kept)),
        yticks=range(len(kept)),
        yticklabels=names,
    )
    axes.set_xticklabels(names, rotation=60, ha="right", rotation_mode="anchor")
    clean(axes)
    _mark_classes(axes, [classes[i] for i in kept], class_style(classes))
    for row, column in np.argwhere(shown > 0):
        colour = "white" if parts[row, column] > 0.6 else TEXT
        axes.text(column, row, f"{shown[row, column]:,}", ha="center", va="center", fontsize=7, color=colour)
    return figure


def _mark_classes(axes: Axes, names: Sequence[str], styles: Mapping[str, tuple[str, str]]) -> None:
    """The marker of each class between both axes and their labels."""
    axes.autoscale(False)
    axes.tick_params(length=0, pad=13)
    inches = axes.figure.dpi_scale_trans
    below = axes.get_xaxis_transform() + ScaledTranslation(0, -0.09, inches)
    left = axes.get_yaxis_transform() + ScaledTranslation(-0.09, 0, inches)
    for place, name in enumerate(names):
        colour, marker = styles[name]
        for x, y, transform in ((place, 0, below), (0, place, left)):
            axes.plot(x, y, marker, color=colour, ms=6, mew=0, transform=transform, clip_on=False)


def compared(figures: Mapping[str, float], interval: tuple[float, float]) -> Figure:
    """Accuracies side by side, a bar each; the first one's interval is shown on it, and shaded across the others."""
    figure = Figure(figsize=(WIDTH, 0.9 + 0.45 * len(figures)), layout="constrained")
    axes = figure.subplots()
    values = list(figures.values())
    axes.axvspan(*interval, color=COLOURS[0], alpha=0.12, lw=0)
    axes.barh(list(figures), values, color=[COLOURS[0], *[OTHER] * (len(values) - 1)], height=0.6)
    reach = [[max(0.0, values[0] - interval[0])], [max(0.0, interval[1] - values[0])]]
    axes.errorbar(values[0], 0, xerr=reach, color=TEXT, capsize=4, lw=1.4)
    for place, value in enumerate(values):
        right = max(value, interval[1]) if place == 0 else value
        axes.annotate(percent(value, 1), (right, place), (5, 0), textcoords="offset points", va="center", fontsize=TICK)
    axes.set(xlabel="accuracy, held out (shaded: the model's interval)", xlim=(0, 1.12))
    axes.set_xticks(np.linspace(0, 1, 6), [percent(tick) for tick in np.linspace(0, 1, 6)])
    axes.invert_yaxis()
    clean(axes)
    return figure


def by_recursion_step(lines: Mapping[str, Sequence[float]], baselines: Mapping[str, float]) -> Figure:
    """Accuracies after each recursion step, a line for each measure, with baselines that have no steps."""
    figure = Figure(figsize=(WIDTH, 2.8 + 0.2 * (len(lines) + len(baselines))), layout="constrained")
    axes = figure.subplots()
    steps = range(1, max(len(line) for line in lines.values()) + 1)
    for (name, line), colour in zip(lines.items(), (COLOURS[0], *COLOURS[2:]), strict=False):
        axes.plot(range(1, len(line) + 1), line, "o-", color=colour, lw=1.6, label=name)
    for (name, value), style in zip(baselines.items(), cycle(("-.", "--", ":"))):
        axes.axhline(value, color=COLOURS[1], lw=1.2, ls=style, label=f"{name}, {percent(value)}")
    axes.set(xlabel="recursion step", ylabel="accuracy, held out", xticks=steps, ylim=(0, 1.02))
    figure.legend(frameon=False, fontsize=TICK, loc="outside lower left")  # a line may be anywhere inside
    clean(axes)
    return figure
