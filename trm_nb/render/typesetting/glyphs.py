"""The glyph atlas: every character as one or two cells of pixels, shipped with the package as data.

Choice: the atlas is made once (tools/build_atlas.py: DejaVu Sans Mono, then GNU Unifont), so the same text has the same
pixels on every machine, whatever FreeType or fonts it has. A character that no font renders becomes a box with its hex
digits, rendered here, so that it keeps its identity. Widths are baked in too.
Cost: about 1 MB on disk and 70 ms to load for each of the two sizes, 25 MB of memory; loaded at the first use.
"""

from __future__ import annotations

import hashlib
import io
import lzma
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

ASSETS = Path(__file__).resolve().parents[2] / "assets" / "atlas"
CELL_SIZES = {12: (7, 14), 8: (5, 10)}  # font size in pixels -> width and height of a cell
CODES = 0x110000
BOX = 1 << 20  # cell BOX + 2 * code point is the left half of a hex box, the next its right half
LEVELS = 15  # foreground of a pixel: 0 (background, 255) to 15 (foreground, 0)

WIDTH, MARK, BOXED_ALONE = 3, 4, 8  # bits of Atlas.props

# 3x5 pixels a digit, the top row in the highest bits
DIGITS = [
    0b111101101101111, 0b010110010010111, 0b111001111100111, 0b111001111001111,
    0b101101111001001, 0b111100111001111, 0b111100111101111, 0b111001001010010,
    0b111101111101111, 0b111101111001111, 0b010101111101101, 0b110101110101110,
    0b011100100100011, 0b110101101101110, 0b111100110100111, 0b111100110100100,
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Atlas:
    """Cells and tables of one font size.

    `gray`: uint8 (cells, h, w), 255 background to 0 foreground, steps of 17; the last cell fills a row that a wide
    character did not fit. `first`: int32 (0x110000) code point -> its first cell. `props`: uint8 (0x110000), bits WIDTH
    (cells it takes: 1 or 2), MARK (laid over its base where that can be read back), BOXED_ALONE (a hex box when it is
    not). `codes`: uint32, the code points with a rendering, in cell order. `digest`: sha256 of the file.
    """

    font_size: int
    gray: np.ndarray
    first: np.ndarray
    props: np.ndarray
    codes: np.ndarray
    digest: str

    @property
    def cell(self) -> tuple[int, int]:
        """Width and height of a cell in pixels."""
        return CELL_SIZES[self.font_size]

    @property
    def blank(self) -> int:
        return int(self.first[0x20])

    @property
    def filler(self) -> int:
        return len(self.gray) - 1

    def pixels(self, cell: int) -> np.ndarray:
        """uint8 (h, w): one cell, atlas or box."""
        if cell < BOX:
            return np.asarray(self.gray[cell])
        code, half = divmod(cell - BOX, 2)
        width, _ = self.cell
        return hex_box(code, self.font_size)[:, half * width : (half + 1) * width]


@lru_cache(maxsize=len(CELL_SIZES))
def load_atlas(font_size: int) -> Atlas:
    """The atlas of a font size, 12 or 8; loaded once a process. Raises ValueError for another size."""
    if font_size not in CELL_SIZES:
        raise ValueError(f"font_size: expected one of {sorted(CELL_SIZES)}, got {font_size!r}")
    packed = (ASSETS / f"atlas{font_size}.npz.xz").read_bytes()
    with np.load(io.BytesIO(lzma.decompress(packed)), allow_pickle=False) as arrays:
        codes, wide, marks, cells = (arrays[name] for name in ("codes", "wide", "marks", "cells"))
    width, height = CELL_SIZES[font_size]
    gray = np.empty((len(cells) + 1, width * height), np.uint8)
    gray[:-1, 0::2] = cells[:, : (width * height + 1) // 2] >> 4
    gray[:-1, 1::2] = (cells & 15)[:, : width * height // 2]
    gray[-1] = _filler(width, height).ravel()
    gray *= 17
    np.subtract(255, gray, out=gray)
    first = np.arange(BOX, BOX + 2 * CODES, 2, dtype=np.int32)
    first[codes] = np.cumsum(wide + 1) - (wide + 1)
    props = np.full(CODES, 2, np.uint8)
    props[codes] = 1 + wide + MARK * (marks > 0) + BOXED_ALONE * (marks == 2)
    return Atlas(font_size, gray.reshape(-1, height, width), first, props, codes, hashlib.sha256(packed).hexdigest())


def _filler(width: int, height: int) -> np.ndarray:
    """Levels of the cell that closes a row one column early: three dots, one below the other, like no character."""
    levels = np.zeros((height, width), np.uint8)
    levels[1::4, width // 2] = 6
    return levels


def digit_places(font_size: int, digits: int) -> list[tuple[int, int, int]]:
    """Top, left and foreground level of each hex digit in a box: two rows; neighbours that touch differ in level."""
    width, height = CELL_SIZES[font_size]
    columns = digits // 2
    roomy = font_size == 12
    across, down = (4, 6) if roomy else (3, 5)
    top = (height - 2 * down + 1) // 2
    left = (2 * width - columns * across + 1) // 2
    return [
        (top + row * down, left + column * across, LEVELS if roomy or (row + column) % 2 == 0 else 9)
        for row in range(2)
        for column in range(columns)
    ]


@lru_cache(maxsize=4096)
def hex_box(code: int, font_size: int) -> np.ndarray:
    """uint8 (h, 2w): the code point in 4 or 6 hex digits; framed where there is room. Read-only."""
    width, height = CELL_SIZES[font_size]
    levels = np.zeros((height, 2 * width), np.uint8)
    if font_size == 12:
        levels[[0, -1], 1:-1] = levels[1:-1, [0, -1]] = 6
    digits = f"{code:04X}" if code < 0x10000 else f"{code:06X}"
    for digit, (top, left, level) in zip(digits, digit_places(font_size, len(digits)), strict=True):
        bits = (DIGITS[int(digit, 16)] >> np.arange(14, -1, -1)) & 1
        levels[top : top + 5, left : left + 3] += (bits.reshape(5, 3) * level).astype(np.uint8)
    box = 255 - 17 * levels
    box.flags.writeable = False
    return box
