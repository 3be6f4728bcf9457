"""Plots of several models together: their learning curves, and the accuracy of each method over its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from trm_nb.notebook.plots import COLOURS, FEW_POINTS, class_style, clean
from trm_nb.notebook.prose import percent, plain

MOST_NAMED = len(COLOURS)
_LEGEND_COLUMNS = 2


def learning_curves(
    curves: Mapping[str, Sequence[Sequence[tuple[float, float]]]], ylabel: str, methods: Sequence[str]
) -> Figure:
    """A line for each model, in the colour of its method.

    Args:
        curves: method -> for each of its models the points (optimiser step, value).
        ylabel: what the values are.
        methods: all methods that are compared, in their order: their colours are the same in all plots.
    """
    named, styles = min(len(curves), MOST_NAMED), class_style(methods)
    figure = Figure(figsize=(6.6, 3.2 + 0.24 * -(-named // _LEGEND_COLUMNS)), layout="constrained")
    axes = figure.subplots()
    for place, (method, models) in enumerate(curves.items()):
        colour, own = styles[method]
        for number, points in enumerate(models):
            marker = own if len(points) <= FEW_POINTS else None  # one point alone makes no line
            label = plain(method, 44) if number == 0 and place < MOST_NAMED else None
            axes.plot(*zip(*points, strict=True), color=colour, lw=1.3, alpha=0.85, marker=marker, ms=3.5, label=label)
    axes.set(xlabel="optimiser step", ylabel=ylabel)
    axes.locator_params(axis="x", integer=True)
    figure.legend(frameon=False, fontsize=8, loc="outside lower left", ncols=_LEGEND_COLUMNS if named > 3 else 1)
    clean(axes)
    return figure


def methods_compared(methods: Mapping[str, Sequence[float]]) -> Figure:
    """A row for each method: its mean as a bar, each of its seeds as a mark.

    Args:
        methods: method -> the accuracy of each seed, 0..1.
    """
    figure = Figure(figsize=(6.6, 0.9 + 0.5 * len(methods)), layout="constrained")
    axes = figure.subplots()
    names = [plain(name, 26) for name in methods]
    styles = class_style(list(methods))
    for place, (name, each) in enumerate(methods.items()):
        mean, (colour, marker) = float(np.mean(each)), styles[name]
        axes.barh(place, mean, color=colour, alpha=0.25, height=0.6, lw=0)
        axes.plot(each, np.full(len(each), place), marker, color=colour, ms=5, alpha=0.8)
        said = (max(*each, mean), place)
        axes.annotate(percent(mean, 1), said, (7, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set(xlabel="accuracy, held out (bar: mean; mark: one seed)", xlim=(0, 1.12), yticks=range(len(names)))
    axes.set_yticklabels(names)
    axes.set_xticks(np.linspace(0, 1, 6), [percent(tick) for tick in np.linspace(0, 1, 6)])
    axes.invert_yaxis()
    clean(axes)
    return figure
