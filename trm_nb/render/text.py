"""Text to pages of pixels and back: every character is there, and can be read back from the pixels alone.

Choice: glyphs are blitted from a prebuilt atlas (see typesetting/glyphs.py and tiles.py) instead of rendered, and a
text that is longer than a page becomes more pages. A short gray line at the right edge of a row says that the line goes
on in the next one (above: at once, below: after a blank); it is laid under the foreground of the last column so that
both can be read. Cost: about 40 us a page of 32x16 characters in RGB, layout included.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from trm_nb.render.colours import pack
from trm_nb.render.typesetting import highlight as colouring
from trm_nb.render.typesetting.glyphs import CELL_SIZES, load_atlas
from trm_nb.render.typesetting.layout import BY_CHARACTER, BY_WORD, Placement, normalise, place
from trm_nb.render.typesetting.reading import Reader
from trm_nb.render.typesetting.tiles import MARKED, Colour, Tiles, mark_rows

SEGMENT = 1 << 17  # characters laid out together, up to the next line end
BATCH = 16  # pages blitted together: what fits the processor's cache


@dataclass(frozen=True, eq=False)
class TextPage:
    """What one page shows: `cells` int32 (rows, columns) of the atlas, `wrapped` uint8 (rows) how a row goes on in the
    next one, `overlays` int32 (n, 3) of row, column and cell of marks laid over others, `foregrounds` uint8 (rows,
    columns)
    the colour of each cell, None where all have the first. `note` says what was not done as asked, "" for nothing."""

    cells: np.ndarray
    wrapped: np.ndarray
    overlays: np.ndarray
    foregrounds: np.ndarray | None = None
    note: str = ""

    def content_bytes(self) -> bytes:
        """All that decides the pixels, given the atlas: shapes first, so that no two pages share their bytes."""
        shapes = np.array([*self.cells.shape, len(self.overlays)], "<i4")
        parts = [shapes, self.cells.astype("<i4"), self.wrapped, self.overlays.astype("<i4")]
        return b"".join(part.tobytes() for part in parts + ([] if self.foregrounds is None else [self.foregrounds]))


class TextRenderer:
    """Text to pages (h = w = image_size) of 7x14 cells (font_size 12: 32x16 on 224 pixels) or 5x10 cells (8: 44x22).

    `decode(render_pages(t)) == fold(normalise(t))` for every text whose lines all run left to right: what was rendered
    can be read, up to characters that look the same pixel for pixel. Lines of which a part runs right to left stand in
    visual order; for them `layout` tells which character is where.

    Args:
        font_size: 12 or 8.
        image_size: side of a page in pixels.
        highlight: colour the tokens of source code.
        wrap: where a line that is too long goes on: "character": at once, "word": after a blank where there is one.
        margin: pixels at each edge that stay blank.
        foreground, background: colours as "#rrggbb".

    Raises:
        ValueError: for another font size, an image without room for cells, and colours that are too similar.
    """

    def __init__(
        self,
        font_size: int = 12,
        image_size: int = 224,
        highlight: bool = False,
        *,
        wrap: Literal["character", "word"] = "character",
        margin: int = 0,
        foreground: str = "#000000",
        background: str = "#ffffff",
    ) -> None:
        if wrap not in ("character", "word") or not isinstance(margin, int) or margin < 0:
            raise ValueError(
                f"expected wrap 'character' or 'word' and a margin of whole pixels, got {wrap!r} and {margin!r}"
            )
        self.atlas = load_atlas(font_size)
        self.font_size, self.image_size, self.highlight, self.by_word = font_size, image_size, highlight, wrap == "word"
        self.columns, self.rows = cells_on_page(font_size, image_size, margin)
        width, height = self.atlas.cell
        self.left = (image_size - self.columns * width) // 2
        self.top = (image_size - self.rows * height) // 2
        self._reader = Reader(self.atlas)
        plain, behind = _colour(foreground), _colour(background)
        self._black_on_white = (*plain, *behind) == (0, 0, 0, 255, 255, 255) and not highlight
        self._tiles = Tiles(self.atlas, colouring.foregrounds(plain, behind) if highlight else (plain,), behind)

    def normalise(self, text: str) -> str:
        """The text as it is rendered.

        Args:
            text: any string.

        Returns:
            The text in NFC, with LF as line ends, tabs as spaces, controls as their symbols, and no blanks at line
            ends. Normalising it again changes nothing.
        """
        return normalise(text, self.atlas)

    def fold(self, text: str) -> str:
        """Replace every character by the lowest code point with the same pixels, blank ones by spaces.

        Args:
            text: any string.

        Returns:
            The folded text; U+3000, which is two cells wide, becomes two spaces.
        """
        return self._reader.fold(text)

    def pages(self, text: str, name: str = "", *, plain: bool = False) -> list[TextPage]:
        """Lay out a text.

        Args:
            text: any string.
            name: of its file, whose suffix tells `highlight` the language.
            plain: without colours, also where the renderer highlights.

        Returns:
            Its pages in order; an empty text is one blank page.
        """
        normalised = self.normalise(text)
        foregrounds, note = None, ""
        if self.highlight and plain:
            foregrounds = np.zeros(len(normalised), np.uint8)
        elif self.highlight:
            foregrounds, note = colouring.foreground_of_characters(normalised, name)
        parts = []
        for start, placed in self._placed(normalised):
            parts.append(
                self._rendered(placed, None if foregrounds is None else foregrounds[start : start + len(placed.row)])
            )
        return [replace(page, note=note) for page in self._paged(parts)] if note else self._paged(parts)

    def _rendered(self, placed: Placement, foregrounds: np.ndarray | None) -> TextPage:
        """All rows of a placement, as if they were one page."""
        rows = np.full((len(placed.wrapped), self.columns), self.atlas.blank, np.int32)
        rows[placed.short, -1] = self.atlas.filler
        rendered = placed.width > 0
        at, width = (placed.row * self.columns + placed.column)[rendered], placed.width[rendered]
        self._put(rows, at, width, placed.cell[rendered], 1)
        if foregrounds is None:
            return TextPage(rows, placed.wrapped, self._overlays(placed))
        inked = np.zeros(rows.shape, np.uint8)
        self._put(inked, at, width, foregrounds[rendered], 0)
        return TextPage(rows, placed.wrapped, self._overlays(placed), inked)

    @staticmethod
    def _put(rows: np.ndarray, at: np.ndarray, width: np.ndarray, values: np.ndarray, step: int) -> None:
        """Values of characters into their cells; the second cell of a wide one gets its value plus `step`."""
        flat = rows.reshape(-1)
        flat[at] = values
        wide = width == 2
        if wide.any():
            flat[at[wide] + 1] = values[wide] + np.asarray(step, values.dtype)

    def _paged(self, parts: Sequence[TextPage]) -> list[TextPage]:
        """Rows of a text to pages; each has its own arrays, so that one page can travel without the rest."""
        cells = np.concatenate([part.cells for part in parts])
        blank = np.zeros(-len(cells) % self.rows, np.uint8)
        cells = np.concatenate([cells, np.full((len(blank), self.columns), self.atlas.blank, np.int32)])
        wrapped = np.concatenate([*(part.wrapped for part in parts), blank])
        before = np.cumsum([0, *(len(part.cells) for part in parts[:-1])])
        moved = [part.overlays + np.array([row, 0, 0]) for part, row in zip(parts, before, strict=True)]
        overlays = np.concatenate(moved)
        bounds = np.searchsorted(overlays[:, 0], np.arange(0, len(cells) + 1, self.rows))
        foregrounds = [part.foregrounds for part in parts if part.foregrounds is not None]
        inked = np.concatenate([*foregrounds, np.zeros((len(blank), self.columns), np.uint8)]) if foregrounds else None
        pages = []
        for page, first in enumerate(range(0, len(cells), self.rows)):
            rows = slice(first, first + self.rows)
            marks = (overlays[bounds[page] : bounds[page + 1]] - [first, 0, 0]).astype(np.int32)
            colours = None if inked is None else inked[rows].copy()
            pages.append(TextPage(cells[rows].copy(), wrapped[rows].copy(), marks, colours))
        return pages

    def _placed(self, normalised: str) -> Iterator[tuple[int, Placement]]:
        """The text's placement, some lines at a time, so that working memory does not grow with the text; with the
        index of its first character. Rows count from 0 in each."""
        start = 0
        while start <= len(normalised):
            stop = normalised.find("\n", start + SEGMENT)
            stop = len(normalised) if stop < 0 else stop
            lines = normalised[start:stop]
            yield start, place(lines, self.columns, self.atlas, self._reader.tells_apart, self.by_word)
            start = stop + 1

    def _overlays(self, placed: Placement) -> np.ndarray:
        """int64 (n, 3): row, column and cell of what is overlaid; a wide mark gives two."""
        marks = np.flatnonzero(placed.overlaid)
        marks = np.repeat(marks, 1 + self._reader.is_wide_cell(placed.cell[marks]))
        second = np.zeros(len(marks), np.int64)
        second[1:] = marks[1:] == marks[:-1]
        return np.stack([placed.row[marks], placed.column[marks] + second, placed.cell[marks] + second], axis=1)

    def layout(self, text: str) -> np.ndarray:
        """Which characters each cell shows.

        Every character but the line breaks is in exactly one cell; a wide one in its first (its second is empty, as
        are blank cells: start = stop); a mark, and the second letter of a ligature, in its base's.

        Args:
            text: any string.

        Returns:
            int64 (pages, rows, columns, 2): the characters [start, stop) of `normalise(text)`.
        """
        parts, rows = [], 0
        for start, placed in self._placed(self.normalise(text)):
            spans = np.zeros((len(placed.wrapped) * self.columns, 2), np.int64)
            at, index = placed.row * self.columns + placed.column, np.arange(start, start + len(placed.row))
            rendered = placed.width > 0
            spans[at[rendered], 0] = index[rendered]
            spans[at[rendered], 1] = index[rendered] + 1
            np.maximum.at(spans[:, 1], at[placed.overlaid], index[placed.overlaid] + 1)
            parts.append(spans)
            rows += len(placed.wrapped)
        parts.append(np.zeros((-rows % self.rows * self.columns, 2), np.int64))
        return np.concatenate(parts).reshape(-1, self.rows, self.columns, 2)

    def rasterise(self, pages: Sequence[TextPage], out: np.ndarray | None = None) -> np.ndarray:
        """Render pages.

        Args:
            pages: laid out by this renderer.
            out: contiguous uint8 (n, h, w, 3) to render into; None: a new array.

        Returns:
            uint8 (n, h, w, 3).

        Raises:
            ValueError: for pages that were laid out for other sizes.
        """
        shape = (self.rows, self.columns)
        for page in pages:
            if page.cells.shape != shape:
                raise ValueError(f"pages: expected {shape} cells, got {page.cells.shape}; lay out with this renderer")
            if (page.foregrounds is not None) != self.highlight:
                raise ValueError(f"pages: expected highlight={self.highlight}; lay out with this renderer")
        if out is None:
            out = np.empty((len(pages), self.image_size, self.image_size, 3), np.uint8)
        for first in range(0, len(pages), BATCH):
            self._sample_batch(pages[first : first + BATCH], out[first : first + BATCH])
        return out

    def _sample_batch(self, pages: Sequence[TextPage], out: np.ndarray) -> None:
        width, height = self.atlas.cell
        bottom, right = self.top + self.rows * height, self.left + self.columns * width
        for border in (out[:, : self.top], out[:, bottom:], out[:, :, : self.left], out[:, :, right:]):
            border[:] = self._tiles.background
        tiles = self._tiles.find(
            np.stack([page.cells for page in pages]),
            np.stack([page.foregrounds for page in pages if page.foregrounds is not None]) if self.highlight else None,
        )
        for n, page in enumerate(pages):
            over: dict[tuple[int, int], list[int]] = {}
            for row, column, cell in page.overlays.tolist():
                over.setdefault((row, column), [int(page.cells[row, column])]).append(cell)
            for (row, column), cells in over.items():
                foreground = 0 if page.foregrounds is None else int(page.foregrounds[row, column])
                tiles[n, row, column] = self._tiles.composed(foreground, tuple(cells))
        area = out.reshape(len(pages), self.image_size, -1)[:, self.top : bottom, self.left * 3 : right * 3]
        lines = area.reshape(len(pages), self.rows, height, -1)  # splits an axis: still a view
        self._tiles.blit(tiles, np.stack([page.wrapped for page in pages]), lines)

    def render_pages(self, text: str, name: str = "") -> np.ndarray:
        """Render a whole text.

        Args:
            text: any string.
            name: of its file, whose suffix tells `highlight` the language.

        Returns:
            uint8 (pages, h, w, 3); an empty text is one blank page.
        """
        return self.rasterise(self.pages(text, name))

    def decode(self, pages: np.ndarray) -> str:
        """Read the text of pages that `render_pages` made.

        Args:
            pages: uint8 (n, h, w, 3), or one page (h, w, 3).

        Returns:
            The text; what is no character reads as U+FFFD.

        Raises:
            ValueError: for images of another size or dtype.
        """
        size = self.image_size
        if pages.ndim not in (3, 4) or pages.shape[-3:] != (size, size, 3) or pages.dtype != np.uint8:
            raise ValueError(
                f"pages: expected uint8 images of shape ({size}, {size}, 3), got {pages.dtype} {pages.shape}"
            )
        width, height = self.atlas.cell
        area = pages.reshape(-1, size, size, 3)
        area = area[:, self.top : self.top + self.rows * height, self.left : self.left + self.columns * width]
        rows = self._gray(area).reshape(-1, height, self.columns * width)
        edge = rows[:, :, -1]
        marked = (edge >= MARKED) & (edge <= MARKED + 15)
        edge[marked] = 255 - 17 * (edge[marked] - MARKED)
        wrapped = np.zeros(len(rows), np.uint8)
        for kind in (BY_CHARACTER, BY_WORD):
            wrapped[marked[:, mark_rows(kind, height)].all(axis=1)] = kind
        cells = rows.reshape(len(rows), height, self.columns, width).transpose(0, 2, 1, 3)
        lines = [""]
        for text, kind in zip(self._reader.read(cells), wrapped.tolist(), strict=True):
            lines[-1] += text if kind == BY_CHARACTER else text.rstrip(" ") + " " * (kind == BY_WORD)
            if not kind:
                lines.append("")
        return "\n".join(lines).rstrip("\n")

    def _gray(self, area: np.ndarray) -> np.ndarray:
        """uint8 (n, h, w): the gray that each colour stands for, 0x80 (which no tile has) for foreign colours."""
        if self._black_on_white:  # the colours are the grays
            return area[..., 0].copy()
        codes, grays = self._tiles.levels()
        packed = pack(area)
        at = np.searchsorted(codes, packed).clip(max=len(codes) - 1)
        return np.where(codes[at] == packed, grays[at], 0x80).astype(np.uint8)


def cells_on_page(font_size: int, image_size: int, margin: int) -> tuple[int, int]:
    """Columns and rows of cells. Raises ValueError where there are less than 2 and 1."""
    width, height = CELL_SIZES[font_size]
    columns, rows = ((image_size - 2 * margin) // side for side in (width, height))
    if columns < 2 or rows < 1:
        need = max(2 * width, height) + 2 * margin
        raise ValueError(f"image_size: expected at least {need} pixels with this margin, got {image_size}")
    return columns, rows


def _colour(text: str) -> Colour:
    if not re.fullmatch("#[0-9a-fA-F]{6}", text):
        raise ValueError(f'expected a colour as "#rrggbb", got {text!r}')
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue
