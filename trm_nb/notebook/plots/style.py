"""How all plots look: colours, and axes with a thin frame and small gray ticks.

The colours are distinguishable with the common colour vision deficiencies (Okabe & Ito 2008, then Paul Tol's muted
scheme), and each class has a marker of its own besides, so that none depends on its colour alone. Which class has which
colour follows from the names of all classes of a run, not from those that a plot happens to show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#999933", "#332288", "#7a6a53")
MARKERS = "os^DvPX<>*"
OTHER, OTHER_MARKER = "#a9b0ad", "."  # of the classes beyond the tenth
GRAY, LINE, TEXT = "#5b666b", "#dde0dd", "#1d2326"
WIDTH = 5.6  # inches: at half of it, on a telephone, labels can still be read
LABEL, TICK = 10.5, 9.5  # points
FEW_POINTS = 30


def class_style(classes: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The colour and the marker of each class; `classes` are all of a run, in the run's order."""
    found = {}
    for place, name in enumerate(dict.fromkeys(classes)):
        named = place < len(COLOURS)
        found[name] = (COLOURS[place], MARKERS[place]) if named else (OTHER, OTHER_MARKER)
    return found


def show_image(axes: Axes, image: np.ndarray) -> None:
    """An image (h, w, 3) without ticks, in a thin frame."""
    axes.imshow(image, interpolation="nearest" if image.shape[0] < 150 else "antialiased")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_color(LINE)


def clean(axes: Axes) -> None:
    """Give axes the look of all plots here: no frame, gray ticks, small labels."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRAY)
    axes.tick_params(colors=GRAY, labelsize=TICK)
    axes.xaxis.label.set_fontsize(LABEL)
    axes.yaxis.label.set_fontsize(LABEL)
