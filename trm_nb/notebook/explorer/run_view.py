"""RunView: a run at work in widgets: bars with rate and time left, and the loss and the accuracy of its training.

All of it is read from the tracker, at each `refresh`. Plots are rendered again only when something was logged.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trm_nb.notebook.progress_view import ProgressView
from trm_nb.notebook.shown import Plot, data_address
from trm_nb.notebook.views import plot_curves
from trm_nb.progress.run_folder import RunPaths
from trm_nb.progress.tracker import TrainingProgressTracker

if TYPE_CHECKING:
    from trm_nb.notebook.shown import Text

CURVES = {"loss": ("loss", "val_loss"), "accuracy": ("exact_accuracy", "val_exact_accuracy")}
_WIDTH = 460


class RunView:
    """How far the run in a folder is; `box` is the widget."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._view: ProgressView | None = None
        self._logged = -1
        self._made: Any = None

    @property
    def box(self) -> Any:
        """An ipywidgets.VBox."""
        if self._made is None:
            import ipywidgets as w

            self.bars, self.curves = w.HTML(), w.HTML()
            self._made = w.VBox([self.bars, self.curves])
        return self._made

    def follow(self, folder: Path) -> str:
        """Show this folder's run from now on, and where it stands; returns its state."""
        self.close()
        self._folder, self._logged = folder, -1
        self.box  # noqa: B018 - makes the widgets
        self.bars.value = self.curves.value = ""
        return self.refresh(last=True)

    def refresh(self, last: bool = False) -> str:
        """Read the tracker, if there is one yet; `last` closes it afterwards. Returns the run's state."""
        if self._folder is None or not RunPaths(self._folder).tracker.is_file():
            return "new"
        if self._view is None:
            self._view = ProgressView(TrainingProgressTracker(self._folder))
        now = self._view.snapshot()
        self.bars.value = now.html
        self._plot(self._view.tracker)
        if last:
            self.close()
        return now.state

    def close(self) -> None:
        """Close the tracker."""
        if self._view is not None:
            self._view.tracker.close()
        self._view = None

    def _plot(self, tracker: TrainingProgressTracker) -> None:
        curve = tracker.training_curve("train")
        if len(curve) == self._logged:
            return
        self._logged = len(curve)
        shown = [_image(plot_curves(curve, names, name)) for name, names in CURVES.items()] if len(curve) > 1 else []
        self.curves.value = f'<div class="trm-row">{"".join(shown)}</div>'


def _image(plot: Plot | Text) -> str:
    if not isinstance(plot, Plot):
        return ""
    data, _ = plot._repr_mimebundle_()
    return f'<img src="{data_address(data["image/png"])}" alt="{escape(plot.alt)}" width="{_WIDTH}">'
