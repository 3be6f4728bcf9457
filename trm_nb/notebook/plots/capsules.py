"""Plots of capsules: one sample's numbers as rows of colour, and samples on the plane that explains most of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from trm_nb.evaluation.capsule_stats import principal_plane
from trm_nb.notebook.plots.style import OTHER, TICK, WIDTH, class_style, clean
from trm_nb.notebook.prose import percent, plain


def capsule_rows(capsules: np.ndarray) -> Figure:
    """One sample's 12 capsules (12, 512) as rows of colour."""
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(capsules, cmap="RdBu", vmin=-6, vmax=6, aspect="auto", interpolation="nearest")
    figure.colorbar(shown, ax=axes, label="value", shrink=0.9, extend="both")
    axes.set(xlabel="feature", ylabel="capsule", yticks=range(0, len(capsules), 3))
    clean(axes)
    return figure


def capsule_map(vectors: np.ndarray, names: Sequence[str], classes: Sequence[str]) -> Figure:
    """Samples on the plane that explains most of their variance, with the colour and the marker of their class.

    Args:
        vectors: float (n, features).
        names: the class of each sample.
        classes: all classes of the run, in the run's order: their colours are the same in all of its plots.
    """
    coordinates, explained = principal_plane(vectors)
    figure = Figure(figsize=(WIDTH, 5.4), layout="constrained")
    axes = figure.subplots()
    named = np.asarray(names, dtype=object)
    others = 0
    for name, (colour, marker) in class_style([*classes, *sorted(set(names))]).items():
        chosen = coordinates[named == name]
        if not len(chosen):
            continue
        others += colour == OTHER
        label = None if others > 1 else "others" if others else plain(name, 26)
        axes.scatter(
            chosen[:, 0], chosen[:, 1], s=17, color=colour, marker=marker, alpha=0.75, linewidths=0, label=label
        )
    axes.set(
        xlabel=f"first component ({percent(explained[0])} of the variance)",
        ylabel=f"second component ({percent(explained[1])})",
    )
    figure.legend(frameon=False, fontsize=TICK, markerscale=1.5, loc="outside lower left", ncols=3)
    clean(axes)
    return figure
