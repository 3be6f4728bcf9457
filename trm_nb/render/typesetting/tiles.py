"""Cells to pixels in colour: the tiles that were needed so far, and the one gather that puts them on pages.

Choice: a tile is a cell in its colours, made at its first use and kept; a page is then one gather of tiles a pixel
row, straight into RGB. Gathering 21 bytes costs what gathering 7 does, and there is no gray image to convert
afterwards: 24 us a page instead of 75. Hex boxes and characters with marks over them are tiles like others.
Cost: 294 bytes a tile and colour (7x14 cells); a page of text of any script uses some hundreds.
"""

from __future__ import annotations

import numpy as np

from trm_nb.render.colours import pack
from trm_nb.render.typesetting.glyphs import BOX, Atlas
from trm_nb.render.typesetting.layout import BY_CHARACTER, BY_WORD

# A pixel of gray 255 - 17 * level under a wrap mark becomes MARKED + level: none of these 16 values is a gray of the
# atlas, so the mark is seen and the level under it is kept.
MARKED = 103
Colour = tuple[int, int, int]


def shades(foreground: Colour, background: Colour) -> np.ndarray:
    """uint8 (16, 3): from background (level 0) to foreground (level 15)."""
    level = np.arange(16)[:, None]
    return ((np.array(background) * (15 - level) + np.array(foreground) * level + 7) // 15).astype(np.uint8)


class Tiles:
    """The tiles of one atlas in some colours on one background. Raises ValueError for colours that are too similar."""

    def __init__(self, atlas: Atlas, foregrounds: tuple[Colour, ...], background: Colour) -> None:
        self._atlas = atlas
        self._shades = np.stack([shades(foreground, background) for foreground in foregrounds])
        self.background = np.array(background, np.uint8)
        self._levels = self._level_of_colour()
        self._marks = self._free_grays()
        self._known = np.full((len(foregrounds), len(atlas.gray)), -1, np.int32)  # foreground, cell -> tile
        self._rare: dict[tuple[int, ...], int] = {}  # foreground, cell, marks over it -> tile
        width, height = atlas.cell
        self._pixels = np.empty((height, 256), f"V{3 * width}")
        self._edge = np.empty((256, height), np.uint8)  # levels of the last column of pixels, for the wrap marks
        self._count = 0

    def _level_of_colour(self) -> dict[int, int]:
        """Every colour of a tile, packed -> its level of foreground."""
        levels: dict[int, int] = {}
        for of_one_ink in pack(self._shades).tolist():
            for level, colour in enumerate(of_one_ink):
                if levels.setdefault(colour, level) != level:
                    raise ValueError(
                        "foreground and background: expected colours with 16 different levels between them"
                    )
        return levels

    def _free_grays(self) -> np.ndarray:
        """uint8 (16, 3): grays for the wrap mark that no tile has."""
        bright = int(self.background.mean())  # the usual gray first, then whatever stands out most
        for first in sorted(range(240), key=lambda gray: (gray != MARKED, -abs(gray - bright))):
            grays = np.arange(first, first + 16, dtype=np.uint8)[:, None].repeat(3, axis=1)
            if not self._levels.keys() & set(pack(grays).tolist()):
                return grays
        raise ValueError("foreground and background: expected colours that leave 16 grays to the wrap mark")

    def levels(self) -> tuple[np.ndarray, np.ndarray]:
        """Every colour there is, packed and sorted, and the gray that it stands for: what reading needs."""
        levels = {colour: 255 - 17 * level for colour, level in self._levels.items()}
        levels |= {colour: MARKED + level for level, colour in enumerate(pack(self._marks).tolist())}
        colours = sorted(levels)
        return np.array(colours, np.int32), np.array([levels[colour] for colour in colours], np.uint8)

    # -- finding and making tiles -------------------------------------------------------------------------------------

    def find(self, cells: np.ndarray, foregrounds: np.ndarray | None) -> np.ndarray:
        """intp, of the shape of `cells`: their tiles, made where they are new. `foregrounds` likewise; None: all 0."""
        top = cells.max(initial=0)
        rendered = cells if top < BOX else np.where(cells < BOX, cells, self._atlas.blank)
        found = self._known[0][rendered] if foregrounds is None else self._known[foregrounds, rendered]
        if found.min(initial=0) < 0:
            new = found < 0
            pairs = np.unique(
                np.stack([np.zeros_like(cells)[new] if foregrounds is None else foregrounds[new], rendered[new]]),
                axis=1,
            )
            for foreground, cell in pairs.T.tolist():
                self._known[foreground, cell] = self._add(foreground, self._atlas.gray[cell])
            found = self._known[0][rendered] if foregrounds is None else self._known[foregrounds, rendered]
        found = found.astype(np.intp)
        for place in zip(*np.nonzero(cells >= BOX), strict=True) if top >= BOX else ():
            found[place] = self.composed(0 if foregrounds is None else int(foregrounds[place]), (int(cells[place]),))
        return np.asarray(found)

    def composed(self, foreground: int, cells: tuple[int, ...]) -> int:
        """The tile of several cells laid one over the other, the darkest pixel of each."""
        tile = self._rare.get((foreground, *cells))
        if tile is None:
            gray = np.stack([self._atlas.pixels(cell) for cell in cells]).min(axis=0)
            tile = self._rare[(foreground, *cells)] = self._add(foreground, gray)
        return tile

    def _add(self, foreground: int, gray: np.ndarray) -> int:
        if self._count == self._pixels.shape[1]:
            self._pixels = np.concatenate([self._pixels, np.empty_like(self._pixels)], axis=1)
            self._edge = np.concatenate([self._edge, np.empty_like(self._edge)])
        levels = (255 - gray) // 17
        colours = np.ascontiguousarray(self._shades[foreground][levels])
        self._pixels[:, self._count] = colours.reshape(len(gray), -1).view(self._pixels.dtype)[:, 0]
        self._edge[self._count] = levels[:, -1]
        self._count += 1
        return self._count - 1

    # -- putting them on pages ----------------------------------------------------------------------------------------

    def blit(self, tiles: np.ndarray, wrapped: np.ndarray, out: np.ndarray) -> None:
        """Write tiles (n, rows, columns) into `out`, uint8 (n, rows, h, columns * w * 3), a view of pages' text areas.

        `wrapped` uint8 (n, rows), as in layout.Placement, is marked at the right edge (see `mark_rows`).
        """
        items = out.view(self._pixels.dtype)
        for y, row in enumerate(self._pixels):
            items[:, :, y] = row.take(tiles)
        for kind in (BY_CHARACTER, BY_WORD):
            n, rows = np.nonzero(wrapped == kind)
            if len(n):
                part = mark_rows(kind, out.shape[2])
                out[n, rows, part, -3:] = self._marks[self._edge[tiles[n, rows, -1]]][:, part]


def mark_rows(kind: int, height: int) -> slice:
    """Which of a cell's pixel rows a wrap mark takes: those that small letters leave free, so that c does not look
    like d: the upper third for BY_CHARACTER, the lower for BY_WORD."""
    return slice(0, height // 3) if kind == BY_CHARACTER else slice(height - height // 3, height)
