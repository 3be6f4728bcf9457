"""The map of an explorer: samples on the plane of their two largest principal components, a point to be clicked.

jupyter-scatter renders it where it is installed (the extra `explore`); without it the map is a plot, and samples are
chosen by the other controls. LOG.md says why it is this package.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from trm_nb.notebook.explorer.pieces import short
from trm_nb.notebook.plots import COLOURS
from trm_nb.notebook.prose import percent
from trm_nb.notebook.shown import data_address
from trm_nb.notebook.views import NO_LABEL

if TYPE_CHECKING:
    from trm_nb.notebook.explorer.collection import Collection

MISSING = "To choose a sample by clicking its point, install the map: <code>pip install 'trm-nb[explore]'</code>."
OTHERS = "#b9bfbc"
_HEIGHT = 330


class SampleMap:
    """The map as a widget, `box`; `on_choice` is called with the place of a sample that was clicked."""

    def __init__(self, collection: Collection, on_choice: Callable[[int], None]) -> None:
        import ipywidgets

        self._collection, self._on_choice = collection, on_choice
        self._number = {place: n for n, place in enumerate(collection.mapped.tolist())}
        labels = collection.table["label"].iloc[collection.mapped].fillna(NO_LABEL).astype(str)
        counts = labels.value_counts()
        self._names = sorted(counts.index, key=lambda name: (-int(counts[name]), name))[: len(COLOURS)]
        self._classes = np.array([self._class_of(name) for name in labels])
        self._legend = ipywidgets.HTML(self._legend_html(bool(len(counts) > len(self._names))))
        self.scatter = self._scatter()
        if self.scatter is None:
            self._base, self._at = self._plotted()
            self._plot = ipywidgets.HTML(self._base)
        shown = self._plot if self.scatter is None else self.scatter
        self.box = ipywidgets.VBox([shown, self._legend], layout=ipywidgets.Layout(width="405px"))

    def mark(self, place: int | None) -> None:
        """Mark a sample; None, or one that is not in the map, marks none."""
        number = None if place is None else self._number.get(place)
        if self.scatter is not None:
            self.scatter.selection = np.array([] if number is None else [number], np.uint32)
            return
        dot = "" if number is None else '<span style="left:{:.1f}%;top:{:.1f}%"></span>'.format(*self._at[number])
        self._plot.value = self._base.replace("</div>", f"{dot}</div>")

    def _class_of(self, name: str) -> int:
        return self._names.index(name) if name in self._names else len(self._names)

    def _legend_html(self, others: bool) -> str:
        shown = [(short(name, 26), colour) for name, colour in zip(self._names, COLOURS, strict=False)]
        shown += [("others", OTHERS)] if others else []
        dots = "".join(
            f'<span class="trm-name"><span class="trm-dot" style="background:{colour}"></span>{name}</span> '
            for name, colour in shown
        )
        mapped, total, part = len(self._collection.mapped), len(self._collection.table), sum(self._collection.explained)
        which = f"{mapped:,} of {total:,} samples, evenly spread" if mapped < total else f"{total:,} samples"
        how = f"{MISSING} " if not _has_scatter() else "Click a point; drag to move, scroll to zoom. "
        return f"<div>{dots}</div><div>{how}{which}; the plane holds {percent(part)} of their variance.</div>"

    def _scatter(self) -> Any:
        """jupyter-scatter's widget; None where it is not installed. It is given numbers only, no text of the data."""
        if not _has_scatter():
            return None
        import pandas as pd
        from jscatter import Scatter

        frame = pd.DataFrame(self._collection.positions, columns=["x", "y"])
        frame["class"] = pd.Categorical(self._classes.astype(str), [str(n) for n in range(len(self._names) + 1)])
        scatter = Scatter(data=frame, x="x", y="y", color_by="class", color_map=[*COLOURS[: len(self._names)], OTHERS])
        scatter.height(_HEIGHT)
        scatter.axes(False)
        scatter.legend(False)
        scatter.size(default=6)
        scatter.opacity(unselected=0.6, by=None)
        widget = scatter.widget
        widget.opacity = 0.8  # a plain number, which `Scatter.opacity` makes a scale over all points of
        widget.observe(self._chosen, names="selection")
        return widget

    def _chosen(self, change: dict[str, Any]) -> None:
        chosen = np.asarray(change["new"]).ravel()
        if len(chosen):
            self._on_choice(int(self._collection.mapped[int(chosen[0])]))

    def _plotted(self) -> tuple[str, np.ndarray]:
        """The map as an image, and where each point is in it, float (n, 2): percent from the left and the top."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 4))
        axes = figure.add_axes((0.02, 0.02, 0.96, 0.96))
        axes.set(xticks=[], yticks=[])
        colours = np.array([*COLOURS[: len(self._names)], OTHERS], object)[self._classes]
        x, y = self._collection.positions.T
        axes.scatter(x, y, s=14, c=colours.tolist(), alpha=0.75, linewidths=0)
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=120, metadata={"Software": None})
        width, height = figure.bbox.size
        at = axes.transData.transform(self._collection.positions) / (width, height) * 100
        image = f'<img src="{data_address(data.getvalue())}" alt="Map of the samples">'
        return f'<div class="trm-map">{image}</div>', np.stack([at[:, 0], 100 - at[:, 1]], 1)


def _has_scatter() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its own, of pandas
        try:
            import jscatter  # noqa: F401
        except ImportError:
            return False
    return True
