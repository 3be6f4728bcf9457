"""Text to pages of pixels and back: every character is there, and can be read back from the pixels alone.

Choice: glyphs are blitted from a prebuilt atlas (see glyphs.py) instead of drawn, and a text that is longer than a
page becomes more pages. A thin gray line at the right edge of a row says that the line goes on in the next one; it
is laid under the ink of the last column so that both can be read. Not done: right-to-left order, word wrap.
Cost: some tens of microseconds a page of 32x16 characters in gray, layout included; RGB only at the very end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trm_nb.records import UserError
from trm_nb.render.glyphs import BOX, load_atlas
from trm_nb.render.layout import Placement, normalise, place
from trm_nb.render.reading import Reader

# A pixel of gray 255 - 17 * level under a wrap mark becomes MARKED + level: none of these 16 values is a gray of the
# atlas, so the mark is seen and the level under it is kept.
MARKED = 103
SEGMENT = 1 << 17  # characters laid out together, up to the next line end


@dataclass(frozen=True, eq=False)
class TextPage:
    """What one page shows: `cells` int32 (rows, columns) of the atlas, `wrapped` bool (rows), `overlays` int32 (n, 3)
    of row, column and cell of marks laid over others."""

    cells: np.ndarray
    wrapped: np.ndarray
    overlays: np.ndarray

    def content_bytes(self) -> bytes:
        """All that decides the pixels, given the atlas: shapes first, so that no two pages share their bytes."""
        shapes = np.array([*self.cells.shape, len(self.overlays)], "<i4")
        parts = (shapes, self.cells.astype("<i4"), self.wrapped, self.overlays.astype("<i4"))
        return b"".join(part.tobytes() for part in parts)


def to_rgb(gray: np.ndarray, out: np.ndarray) -> None:
    """Write uint8 (..., h, w) gray into `out` (..., h, w, 3): a channel at a time, faster than broadcasting."""
    for channel in range(3):
        out[..., channel] = gray


class TextRenderer:
    """Text to pages (h = w = image_size) of 7x14 cells (font_size 12: 32x16 on 224 pixels) or 5x10 cells (8: 44x22).

    `decode(render_pages(t)) == fold(normalise(t))` for every text: what was drawn can be read, up to characters that
    look the same pixel for pixel. Raises ValueError for a font size or an image size that holds no cells.
    """

    def __init__(self, font_size: int = 12, image_size: int = 224, highlight: bool = False) -> None:
        if highlight:
            raise UserError("TextRenderer: highlight=True is not there yet; leave it False")
        self.atlas = load_atlas(font_size)
        self.font_size, self.image_size = font_size, image_size
        width, height = self.atlas.cell
        self.columns, self.rows = image_size // width, image_size // height
        if self.columns < 2 or self.rows < 1:
            raise ValueError(f"image_size: expected at least {max(2 * width, height)} pixels, got {image_size}")
        self.left = (image_size - self.columns * width) // 2
        self.top = (image_size - self.rows * height) // 2
        self._reader = Reader(self.atlas)

    def normalise(self, text: str) -> str:
        """The text as it is drawn; see `layout.normalise`. Idempotent."""
        return normalise(text, self.atlas)

    def fold(self, text: str) -> str:
        """Every character replaced by the lowest code point with the same pixels (blank ones by spaces)."""
        return self._reader.fold(text)

    def pages(self, text: str) -> list[TextPage]:
        """Lay out a text; an empty one is one blank page."""
        cells, wrapped, overlays = [], [], []
        first_row = 0
        for placed in self._placed(self.normalise(text)):
            rows = np.full((placed.rows, self.columns), self.atlas.blank, np.int32)
            flat, at = rows.reshape(-1), (placed.row - first_row) * self.columns + placed.column
            drawn, wide = placed.width > 0, placed.width == 2
            flat[at[drawn]] = placed.cell[drawn]
            flat[at[wide] + 1] = placed.cell[wide] + 1
            cells.append(rows)
            wrapped.append(placed.wrapped)
            overlays.append(self._overlays(placed))
            first_row += placed.rows
        blank = -sum(map(len, cells)) % self.rows
        cells.append(np.full((blank, self.columns), self.atlas.blank, np.int32))
        wrapped.append(np.zeros(blank, bool))
        return self._paged(np.concatenate(cells), np.concatenate(wrapped), np.concatenate(overlays))

    def _paged(self, cells: np.ndarray, wrapped: np.ndarray, overlays: np.ndarray) -> list[TextPage]:
        """Rows of the whole text to pages; each has its own arrays, so that one page can travel without the rest."""
        bounds = np.searchsorted(overlays[:, 0], np.arange(0, len(cells) + 1, self.rows))
        pages = []
        for page, first in enumerate(range(0, len(cells), self.rows)):
            rows = slice(first, first + self.rows)
            marks = (overlays[bounds[page] : bounds[page + 1]] - [first, 0, 0]).astype(np.int32)
            pages.append(TextPage(cells[rows].copy(), wrapped[rows].copy(), marks))
        return pages

    def _placed(self, normalised: str) -> Iterator[Placement]:
        """The text's placement, some lines at a time, so that working memory does not grow with the text."""
        start = row = 0
        while start <= len(normalised):
            stop = normalised.find("\n", start + SEGMENT)
            stop = len(normalised) if stop < 0 else stop
            placed = place(normalised[start:stop], self.columns, self.atlas, self._reader.tells_apart)
            index = np.where(placed.index < 0, -1, placed.index + start)
            yield replace(placed, index=index, row=placed.row + row)
            start, row = stop + 1, row + placed.rows

    def _overlays(self, placed: Placement) -> np.ndarray:
        """int64 (n, 3): row in the text, column and cell of what is overlaid; a wide mark gives two."""
        marks = np.flatnonzero(placed.overlaid)
        marks = np.repeat(marks, 1 + self._reader.is_wide_cell(placed.cell[marks]))
        second = np.zeros(len(marks), np.int64)
        second[1:] = marks[1:] == marks[:-1]
        return np.stack([placed.row[marks], placed.column[marks] + second, placed.cell[marks] + second], axis=1)

    def layout(self, text: str) -> np.ndarray:
        """int64 (pages, rows, columns, 2): each cell shows the characters [start, stop) of `normalise(text)`.

        Every character but the line breaks is in exactly one cell; a wide one in its first (its second is empty, as
        are blank cells: start = stop); a mark in its base's.
        """
        placed = list(self._placed(self.normalise(text)))
        count = max(1, -(-sum(part.rows for part in placed) // self.rows))
        spans = np.zeros((count * self.rows * self.columns, 2), np.int64)
        for part in placed:
            at = part.row * self.columns + part.column
            drawn = (part.width > 0) & (part.index >= 0)
            spans[at[drawn], 0] = part.index[drawn]
            spans[at[drawn], 1] = part.index[drawn] + 1
            np.maximum.at(spans[:, 1], at[part.overlaid], part.index[part.overlaid] + 1)
        return spans.reshape(count, self.rows, self.columns, 2)

    def draw(self, pages: Sequence[TextPage]) -> np.ndarray:
        """uint8 (n, h, w) gray, 255 paper to 0 ink. The pages are of this renderer's sizes, else ValueError."""
        shape = (self.rows, self.columns)
        for page in pages:
            if page.cells.shape != shape:
                raise ValueError(f"pages: expected {shape} cells, got {page.cells.shape}; lay out with this renderer")
        width, height = self.atlas.cell
        gray = np.full((len(pages), self.image_size, self.image_size), 255, np.uint8)
        if not pages:
            return gray
        cells = np.stack([page.cells for page in pages])
        boxes = cells >= BOX if cells.max() >= BOX else None
        known = cells if boxes is None else np.where(boxes, self.atlas.blank, cells)
        area = gray[:, self.top : self.top + self.rows * height, self.left : self.left + self.columns * width]
        lines = area.reshape(len(pages), self.rows, height, self.columns * width)  # splits an axis: still a view
        tiles = lines.reshape(len(pages), self.rows, height, self.columns, width)
        items = lines.view(f"V{width}")
        for y in range(height):
            items[:, :, y] = self.atlas.by_pixel_row[y].take(known)
        for n, row, column in [] if boxes is None else np.argwhere(boxes):
            tiles[n, row, :, column] = self.atlas.pixels(int(cells[n, row, column]))
        for n, page in enumerate(pages):
            for row, column, cell in page.overlays.tolist():
                tile = tiles[n, row, :, column]
                np.minimum(tile, self.atlas.pixels(cell), out=tile)
        edge = tiles[:, :, :, -1, -1]
        wrapped = np.stack([page.wrapped for page in pages])
        edge[wrapped] = MARKED + (255 - edge[wrapped]) // 17
        return gray

    def render_pages(self, text: str) -> np.ndarray:
        """uint8 (pages, h, w, 3): the whole text, black on white."""
        gray = self.draw(self.pages(text))
        pictures = np.empty((*gray.shape, 3), np.uint8)
        to_rgb(gray, pictures)
        return pictures

    def decode(self, pages: np.ndarray) -> str:
        """The text of pages that `render_pages` (n, h, w, 3) or `draw` (n, h, w) made, or of one page of these.

        What is no character reads as U+FFFD. Raises ValueError for pictures of another size.
        """
        gray = pages[..., 0] if pages.shape[-1] == 3 else pages
        if gray.ndim not in (2, 3) or gray.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"pages: expected pictures of {self.image_size} pixels a side, got shape {pages.shape}")
        gray = gray.reshape(-1, self.image_size, self.image_size)
        width, height = self.atlas.cell
        area = gray[:, self.top : self.top + self.rows * height, self.left : self.left + self.columns * width]
        rows = area.reshape(-1, height, self.columns * width).copy()
        edge = rows[:, :, -1]
        wrapped = ((edge >= MARKED) & (edge <= MARKED + 15)).all(axis=1)
        edge[wrapped] = 255 - 17 * (edge[wrapped] - MARKED)
        cells = rows.reshape(len(rows), height, self.columns, width).transpose(0, 2, 1, 3)
        lines = [""]
        for text, goes_on in zip(self._reader.read(cells), np.asarray(wrapped).tolist(), strict=True):
            lines[-1] += text if goes_on else text.rstrip(" ")
            if not goes_on:
                lines.append("")
        return "\n".join(lines).rstrip("\n")
