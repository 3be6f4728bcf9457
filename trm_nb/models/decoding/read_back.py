"""What a decoded image shows: the text or the grid on it, read in spite of pixels that are not exact.

Text: every cell of 14x7 pixels becomes the nearest glyph of ASCII, or of the whole atlas where that is far nearer.
Grid: of all sizes the one whose lines fit best, and for each cell the nearest of ARC's ten colours.
`TextRenderer.decode` and `GridRenderer.decode` read exact pixels only.
Cost: some ms a page of ASCII, a second where many cells are compared with all 125,742 glyphs; 0.1 s a grid.
"""

from __future__ import annotations

import numpy as np

from trm_nb.render.grid import BACKGROUND, LINE, MAX_SIDE, PALETTE
from trm_nb.render.panels import MAX_PITCH, pixels
from trm_nb.render.text import TextRenderer

CERTAIN = 20.0  # root mean square of a cell's error, of 255, up to which other scripts are not looked at


def read_text(image: np.ndarray) -> str:
    """Read a page of font size 12, black on white.

    Args:
        image: uint8 (224, 224, 3).

    Returns:
        The lines of the page; a line that was wrapped is two.
    """
    renderer = TextRenderer()
    width, height = renderer.atlas.cell
    cells = image.astype(np.float32).mean(-1).reshape(renderer.rows, height, renderer.columns, width)
    flat = cells.transpose(0, 2, 1, 3).reshape(-1, height * width)
    glyphs, common = renderer.atlas.gray.reshape(-1, height * width), renderer.atlas.first[0x20:0x7F]
    nearest, error = _nearest_glyphs(flat, glyphs[common])
    nearest = common[nearest]
    unsure = np.flatnonzero(error > height * width * CERTAIN**2)
    if len(unsure):
        other, smaller = _nearest_glyphs(flat[unsure], glyphs)
        changed = smaller < error[unsure] / 2
        nearest[unsure[changed]] = other[changed]
    clean = renderer.atlas.gray[nearest].reshape(renderer.rows, renderer.columns, height, width).transpose(0, 2, 1, 3)
    return renderer.decode(np.repeat(clean.reshape(image.shape[:2])[..., None], 3, axis=2))


def _nearest_glyphs(cells: np.ndarray, glyphs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of the cells float32 (n, 98), the nearest glyph and its squared distance: int64 and float32 (n,)."""
    glyphs = glyphs.astype(np.float32)
    distance = np.square(cells).sum(1, keepdims=True) - 2 * cells @ glyphs.T + np.square(glyphs).sum(1)
    nearest = distance.argmin(1)
    return nearest, distance[np.arange(len(cells)), nearest]


def read_grid(image: np.ndarray) -> np.ndarray:
    """Read one grid, as `GridRenderer.render` shows it.

    Args:
        image: uint8 (h, w, 3), h = w.

    Returns:
        int64 (rows, columns) of 0 to 9.
    """
    size = len(image)
    is_line = np.abs(image.astype(np.int32) - LINE).sum(-1) < np.abs(image.astype(np.int32) - BACKGROUND).sum(-1)
    nearest_colour = _nearest(image)
    on_line = (nearest_colour == len(PALETTE)) & is_line
    on_paper = nearest_colour == len(PALETTE) + 1
    best = max(
        ((rows, columns) for rows in range(1, MAX_SIDE + 1) for columns in range(1, MAX_SIDE + 1)),
        key=lambda shape: _agreement(on_line, on_paper, *shape),
    )
    pitch, top, left = _place(*best, size)
    cells = image[top + 1 : top + best[0] * pitch + 1, left + 1 : left + best[1] * pitch + 1].astype(np.float32)
    cells = cells.reshape(best[0], pitch, best[1], pitch, 3)[:, : pitch - 1, :, : pitch - 1]
    means = np.median(cells, axis=(1, 3))
    grid: np.ndarray = np.square(means[:, :, None] - PALETTE).sum(-1).argmin(-1)
    return grid


def _nearest(image: np.ndarray) -> np.ndarray:
    """The index of the nearest of the ten colours, the line's and the background's: int64 (h, w)."""
    colours = np.stack([*PALETTE, *np.atleast_2d(LINE), *np.atleast_2d(BACKGROUND)]).astype(np.float32)
    flat = image.reshape(-1, 3).astype(np.float32)
    nearest: np.ndarray = (2 * flat @ colours.T - np.square(colours).sum(1)).argmax(1).reshape(image.shape[:2])
    return nearest


def _place(rows: int, columns: int, size: int) -> tuple[int, int, int]:
    """Pitch, top and left of a grid of this shape, as `GridRenderer.grid_page` has it."""
    pitch = min(MAX_PITCH, (size - 1) // max(rows, columns))
    return pitch, (size - pixels(rows, pitch)) // 2, (size - pixels(columns, pitch)) // 2


def _agreement(on_line: np.ndarray, on_paper: np.ndarray, rows: int, columns: int) -> int:
    """How many pixels are as a grid of this shape would have them: a line, background, or neither."""
    pitch, top, left = _place(rows, columns, len(on_line))
    height, width = pixels(rows, pitch), pixels(columns, pitch)
    inside = np.zeros_like(on_line)
    inside[top : top + height, left : left + width] = True
    line = np.zeros_like(on_line)
    line[top : top + height : pitch, left : left + width] = True
    line[top : top + height, left : left + width : pitch] = True
    return int((line & on_line).sum() + (~inside & on_paper).sum() + (inside & ~line & ~on_line & ~on_paper).sum())
