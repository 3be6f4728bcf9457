"""The notebooks' plots: charts of numbers, plots of capsules, and images as tiles."""

from trm_nb.notebook.plots.capsules import capsule_map, capsule_rows
from trm_nb.notebook.plots.charts import bars, by_recursion_step, compared, confusion, curves, histogram
from trm_nb.notebook.plots.images import (
    attention,
    attention_overlays,
    before_after,
    decibels,
    gallery,
    nearest,
    page_layout,
    pixels_of,
)
from trm_nb.notebook.plots.style import COLOURS, FEW_POINTS, class_style, clean, show_image

__all__ = [
    "COLOURS", "FEW_POINTS", "attention", "attention_overlays",
    "bars", "before_after", "by_recursion_step", "capsule_map", "capsule_rows",
    "class_style", "clean", "compared", "confusion", "curves", "decibels", "gallery", "histogram", "nearest",
    "page_layout", "pixels_of", "show_image",
]  # fmt: skip
