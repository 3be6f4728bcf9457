"""Images with captions: samples, layouts, what was taken away, attention, neighbours.

All but one are tiles of HTML (shown.Gallery): they flow to fit a telephone, their captions take the page's colours, and
whatever marks an image is part of its pixels. `gallery` is a matplotlib Figure, for studies.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from trm_nb.notebook.plots.style import COLOURS, GRAY, show_image
from trm_nb.notebook.prose import plain
from trm_nb.notebook.shown import Gallery, Tile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trm_nb.render.panels import GridPage
    from trm_nb.render.text import TextPage

_HEAT = np.array([200, 60, 0])  # the colour of the strongest attention
EQUAL = "equal"
_ENLARGED = 2  # a layout is drawn at so many times the size of its image


def gallery(images: np.ndarray, captions: Sequence[str], columns: int = 4) -> Figure:
    """Images uint8 (n, h, w, 3) in rows, each over its caption."""
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    side = 9.2 / max(columns, 3)
    figure = Figure(figsize=(side * columns, (side + 0.45) * rows), layout="constrained")
    for place in range(len(images)):
        axes = figure.add_subplot(rows, columns, place + 1)
        show_image(axes, images[place])
        axes.set_xlabel(plain(captions[place]), fontsize=7.5, color=GRAY)
    return figure


def decibels(originals: np.ndarray, decoded: np.ndarray) -> list[str]:
    """A caption for each decoded image uint8 (n, h, w, 3): its PSNR against the original."""
    return [
        f"decoded, {said}" if (said := fidelity(*pair)) != EQUAL else said
        for pair in zip(originals, decoded, strict=True)
    ]


def fidelity(original: np.ndarray, decoded: np.ndarray) -> str:
    """The PSNR of a decoded image against the original, both uint8 (h, w, 3), in words."""
    error = np.square(original.astype(np.float64) - decoded).mean()
    return f"{10 * np.log10(255**2 / error):.1f} dB" if error else EQUAL


def page_layout(image: np.ndarray, page: TextPage | GridPage | object, title: str, caption: str) -> Gallery:
    """One sample's image, and next to it the same with its layout: cells and soft wraps, or a task's panels."""
    from trm_nb.render.panels import GridPage
    from trm_nb.render.text import TextPage

    side = image.shape[0] * _ENLARGED / 100
    figure = Figure(figsize=(side, side), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    show_image(axes, 255 - (255 - image) // 2)
    if isinstance(page, TextPage):
        _mark_cells(axes, page, image.shape[0])
        said = f"{page.cells.shape[0]} rows of {page.cells.shape[1]} cells; orange at the right edge: the line goes on"
    elif isinstance(page, GridPage):
        _mark_panels(axes, page)
        said = f"{len(page.panels)} panels, a cell is {page.pitch} pixels"
    else:
        _mark_content(axes, image)
        said = "inside of the frame: the content; outside: the border that makes it square"
    return Gallery([[Tile(image, "what the model sees"), Tile(pixels_of(figure), said)]], title, caption, large=True)


def before_after(before: np.ndarray, after: np.ndarray, title: str, caption: str) -> Gallery:
    """An image as rendered, as cached, and ten times their difference; all uint8 (h, w, 3)."""
    scale = "ten times the difference; gray: none, white: 12.7 levels of 255 lighter or more, black: darker"
    tiles = [Tile(before, "as rendered"), Tile(after, "as cached"), Tile(difference(before, after), scale)]
    return Gallery([tiles], title, caption, large=True)


def difference(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Ten times the difference of two images around gray, uint8 (h, w, 3)."""
    return np.clip(128 + 10 * (after.astype(np.int16) - before.astype(np.int16)), 0, 255).astype(np.uint8)


def attention(image: np.ndarray, maps: np.ndarray, title: str, caption: str) -> Gallery:
    """What each of 12 capsules attends to: `maps` float (12, rows, columns)."""
    size = image.shape[0]
    overlays = attention_overlays(image, maps)
    tiles = [Tile(overlay, f"capsule {capsule}") for capsule, overlay in enumerate(overlays)]
    ramp = np.linspace(0, 1, size)[None].repeat(size // 8, axis=0)
    scale = _heated(np.full((*ramp.shape, 3), 255, np.uint8), ramp)
    scale_tile = Tile(scale, "scale: from nothing to the maximum of the map")
    return Gallery([[Tile(image, "the image"), *tiles, scale_tile]], title, caption)


def attention_overlays(image: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """A pale image under each map float (k, rows, columns), covered where it attends most: uint8 (k, h, w, 3)."""
    places = [np.arange(size) * there // size for size, there in zip(image.shape[:2], maps.shape[1:], strict=True)]
    return np.stack([_heated(image, (seen / seen.max())[np.ix_(*places)]) for seen in maps])


def _heated(image: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """A pale image uint8 (h, w, 3), covered with colour as far as `strength` float (h, w), 0..1, says."""
    pale, cover = 255 - (255.0 - image) / 2, 0.85 * strength[..., None]
    covered: np.ndarray = np.rint(pale * (1 - cover) + _HEAT * cover).astype(np.uint8)
    return covered


def nearest(
    images: np.ndarray, captions: Sequence[Sequence[str]], same: np.ndarray, title: str, caption: str
) -> Gallery:
    """Rows of a query and its neighbours: `images` (queries, 1 + n, h, w, 3), a caption each.

    `same` bool (queries, n): neighbours with the query's label have a tick and a frame.
    """
    rows = []
    for query, line in enumerate(captions):
        marks = ["query", *("same" if alike else "" for alike in same[query])]
        said = [f"✓ {text}" if mark == "same" else text for text, mark in zip(line, marks, strict=True)]
        rows.append([Tile(*tile) for tile in zip(images[query], said, marks, strict=True)])
    return Gallery(rows, title, caption)


def pixels_of(figure: Figure) -> np.ndarray:
    """A figure as an image uint8 (h, w, 3) of 64 colours, so that it needs few bytes."""
    data = io.BytesIO()
    figure.savefig(data, format="png", facecolor="white")
    with Image.open(data) as image:
        return np.asarray(image.convert("RGB").quantize(64, dither=Image.Dither.NONE).convert("RGB"))


def _mark_cells(axes: Axes, page: TextPage, size: int) -> None:
    rows, columns = page.cells.shape
    height, width = size // rows, size // columns
    top, left = (size - rows * height) / 2 - 0.5, (size - columns * width) / 2 - 0.5
    axes.hlines(top + height * np.arange(rows + 1), left, left + columns * width, color=COLOURS[0], lw=0.3)
    axes.vlines(left + width * np.arange(columns + 1), top, top + rows * height, color=COLOURS[0], lw=0.3)
    for row in np.flatnonzero(page.wrapped):
        axes.vlines(left + columns * width, top + height * row, top + height * (row + 1), color=COLOURS[1], lw=3)


def _mark_panels(axes: Axes, page: GridPage) -> None:
    from matplotlib.patches import Rectangle

    for number, panel in enumerate(page.panels, 1):
        frame = (panel.left - 2, panel.top - 2)
        colour = COLOURS[1] if panel.kind == "test" else COLOURS[0]
        axes.add_patch(Rectangle(frame, panel.width + 3, panel.height + 3, fill=False, ec=colour, lw=1.5))
        axes.annotate(f"{panel.kind} {number}", frame, color=colour, fontsize=7, va="bottom")


def _mark_content(axes: Axes, image: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    corner = image[0, 0]
    inked = (image != corner).any(axis=-1)
    if not inked.any():
        return
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    size = columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
    axes.add_patch(Rectangle((columns[0] - 0.5, rows[0] - 0.5), *size, fill=False, ec=COLOURS[1], lw=1.5))
