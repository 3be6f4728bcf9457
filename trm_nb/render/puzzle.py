"""Sudokus and mazes to pixels, and back to the numbers. The solution is never rendered.

Choice: cells are whole pixels and lie on the encoder's patches of 28 where that leaves them legible: a cell of a 4x4
Sudoku is four patches, of a 6x6 one; a patch holds one, four or sixteen cells of a maze. A 9x9 Sudoku has cells of 24
pixels on 224, as large as fits. Digits are bitmaps of 5x7 enlarged by a whole number. `decode` takes what, rendered
again, gives the very same image. Cost: about 0.4 ms an image, 3 ms to decode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trm_nb.errors import RejectedError
from trm_nb.records import BOXES, Puzzle
from trm_nb.render.colours import colours
from trm_nb.render.grid import BACKGROUND, MAX_SIDE

PATCH = 28
MIN_SUDOKU_PITCH, MIN_MAZE_PITCH = 13, 3  # below, digits and the cells at the edge have no room
INK, THIN = colours("000000", "A0A0A0")
MAZE = colours("FFFFFF", "26343F", "2ECC40", "FF4136")  # free, wall, start, goal
MAZE_LINE = colours("C4C4C4")[0]

# 5x7 pixels a digit, 0 to 9, a row in five characters
_DIGITS = np.array(
    [[pixel == "#" for pixel in digit.replace(" ", "")] for digit in (
        ".###. #...# #...# #...# #...# #...# .###.", "..#.. .##.. ..#.. ..#.. ..#.. ..#.. .###.",
        ".###. #...# ....# ...#. ..#.. .#... #####", ".###. #...# ....# ..##. ....# #...# .###.",
        "...#. ..##. .#.#. #..#. ##### ...#. ...#.", "##### #.... ####. ....# ....# #...# .###.",
        ".###. #.... #.... ####. #...# #...# .###.", "##### ....# ...#. ...#. ..#.. ..#.. ..#..",
        ".###. #...# #...# .###. #...# #...# .###.", ".###. #...# #...# .#### ....# ....# .###.",
    )]
).reshape(10, 7, 5)  # fmt: skip


@dataclass(frozen=True, eq=False)
class PuzzlePage:
    """What one page shows: `cells` uint8 (rows, columns) as in records.Puzzle, each of `pitch` pixels, the first at
    `top`, `left`."""

    kind: Literal["sudoku", "maze"]
    cells: np.ndarray
    pitch: int
    top: int
    left: int

    def content_bytes(self) -> bytes:
        """All that decides the pixels, numbers before the bytes they count; the first one is no GridPage's."""
        kind = -1 - ("sudoku", "maze").index(self.kind)
        return (
            np.array([kind, *self.cells.shape, self.pitch, self.top, self.left], "<i4").tobytes() + self.cells.tobytes()
        )


def check_puzzle(puzzle: Puzzle) -> np.ndarray:
    """uint8 (rows, columns) of what is asked; RejectedError when sides or values are not as records.Puzzle says."""
    cells = np.asarray(puzzle.puzzle)
    if puzzle.kind not in ("sudoku", "maze"):
        raise RejectedError(f"expected a sudoku or a maze, got {puzzle.kind!r}")
    if cells.ndim != 2 or cells.dtype.kind not in "iu":
        raise RejectedError(
            f"expected rows and columns of whole numbers, got {cells.dtype} of {cells.ndim} dimension(s)"
        )
    rows, columns = cells.shape
    if puzzle.kind == "sudoku" and not (rows == columns and rows in BOXES):
        raise RejectedError(f"expected a Sudoku of 4x4, 6x6 or 9x9, got {rows}x{columns}")
    if puzzle.kind == "maze" and not (1 <= rows <= MAX_SIDE and 1 <= columns <= MAX_SIDE):
        raise RejectedError(f"expected a maze of 1 to {MAX_SIDE} rows and columns, got {rows}x{columns}")
    highest = rows if puzzle.kind == "sudoku" else len(MAZE) - 1
    if cells.min() < 0 or cells.max() > highest:
        raise RejectedError(f"expected values 0 to {highest} in this {puzzle.kind}, got {cells.min()} to {cells.max()}")
    return cells.astype(np.uint8)


class PuzzleRenderer:
    """Sudokus and mazes to images of image_size x image_size pixels; `decode` is exact."""

    def __init__(self, image_size: int = 224) -> None:
        self.image_size = image_size

    def render(self, puzzle: Puzzle) -> np.ndarray:
        """uint8 (h, w, 3): what is asked. Raises RejectedError (see check_puzzle, page)."""
        return self.rasterise(self.page(puzzle))

    def page(self, puzzle: Puzzle) -> PuzzlePage:
        """The page of a puzzle. Raises RejectedError also for one larger than the image can show."""
        cells = check_puzzle(puzzle)
        page = self._placed(puzzle.kind, cells)
        least = MIN_SUDOKU_PITCH if puzzle.kind == "sudoku" else MIN_MAZE_PITCH
        if page.pitch < least:
            need = least * max(cells.shape)
            raise RejectedError(
                f"a {puzzle.kind} of {cells.shape[0]}x{cells.shape[1]} needs {need} pixels, got {self.image_size}"
            )
        return page

    def _placed(self, kind: Literal["sudoku", "maze"], cells: np.ndarray) -> PuzzlePage:
        pitch = self._pitch(kind, max(cells.shape))
        top, left = ((self.image_size - side * pitch) // 2 for side in cells.shape)
        if pitch in (7, 14) or (pitch and pitch % PATCH == 0):
            top, left = (length - length % min(pitch, PATCH) for length in (top, left))
        return PuzzlePage(kind, cells, pitch, top, left)

    def _pitch(self, kind: str, side: int) -> int:
        """Pixels of a cell: on the patches where that fits, else as many as fit."""
        largest = self.image_size // side
        aligned = [PATCH * (largest // PATCH)] if kind == "sudoku" else [28, 14, 7]
        return next((pitch for pitch in aligned if 0 < pitch <= largest), largest)

    def rasterise(self, page: PuzzlePage) -> np.ndarray:
        """uint8 (h, w, 3)."""
        image = np.full((self.image_size, self.image_size, 3), BACKGROUND[0], np.uint8)
        rows, columns = page.cells.shape
        area = image[page.top :, page.left :][: rows * page.pitch, : columns * page.pitch]
        if page.kind == "maze":
            _rasterise_maze(area, page)
        else:
            _rasterise_sudoku(area, page)
        return image

    def decode(self, image: np.ndarray) -> np.ndarray:
        """int64 (rows, columns) of the puzzle in an image (h, w, 3) of `render`; ValueError if there is none."""
        if image.shape != (self.image_size, self.image_size, 3):
            raise ValueError(f"image: expected an image of {self.image_size} pixels a side, got shape {image.shape}")
        for page in self._readings(image):
            if np.array_equal(self.rasterise(page), image):
                return page.cells.astype(np.int64)
        raise ValueError("image: expected a Sudoku or a maze as PuzzleRenderer renders them, got something else")

    def _readings(self, image: np.ndarray) -> Iterator[PuzzlePage]:
        """The puzzles that this may be an image of."""
        for side in BOXES:
            page = self._placed("sudoku", np.zeros((side, side), np.uint8))
            if page.pitch >= MIN_SUDOKU_PITCH:
                yield _read_sudoku(image, page)
        inked = (image != BACKGROUND[0]).any(axis=2)
        height, width = (int(inked.any(axis=axis).sum()) for axis in (1, 0))
        for side in range(1, MAX_SIDE + 1):
            pitch = self._pitch("maze", side)
            if pitch >= MIN_MAZE_PITCH and side * pitch == max(height, width) and min(height, width) % pitch == 0:
                yield _read_maze(image, self._placed("maze", np.zeros((height // pitch, width // pitch), np.uint8)))


def _rasterise_maze(area: np.ndarray, page: PuzzlePage) -> None:
    """Cells, each with a line at its upper and left edge, and a line around all inside the last pixels."""
    area[:] = MAZE[page.cells].repeat(page.pitch, axis=0).repeat(page.pitch, axis=1)
    area[:: page.pitch] = area[-1] = MAZE_LINE
    area[:, :: page.pitch] = area[:, -1] = MAZE_LINE


def _read_maze(image: np.ndarray, page: PuzzlePage) -> PuzzlePage:
    rows, columns = page.cells.shape
    middle = page.pitch // 2
    seen = image[page.top + middle :: page.pitch, page.left + middle :: page.pitch][:rows, :columns]
    cells = (seen[..., None, :] == MAZE).all(axis=-1).argmax(axis=-1)
    return PuzzlePage(page.kind, cells.astype(np.uint8), page.pitch, page.top, page.left)


def _rasterise_sudoku(area: np.ndarray, page: PuzzlePage) -> None:
    """Thin lines, thick lines around the boxes, and the digits in the middle of their cells."""
    side, pitch = len(page.cells), page.pitch
    for at in range(pitch, side * pitch, pitch):
        area[at] = area[:, at] = THIN
    for lines, step in zip((area, area.transpose(1, 0, 2)), BOXES[side], strict=True):
        for at in range(0, side * pitch + 1, step * pitch):
            lines[max(0, at - (3 if at == side * pitch else 1)) : at + (3 if at == 0 else 2)] = INK
    for row, column in np.argwhere(page.cells):
        _cell(area, pitch, row, column)[_glyph(int(page.cells[row, column]), pitch)] = INK


def _read_sudoku(image: np.ndarray, page: PuzzlePage) -> PuzzlePage:
    area, cells = image[page.top :, page.left :, 0], page.cells.copy()
    glyphs = [_glyph(digit, page.pitch) for digit in range(1, len(cells) + 1)]
    for row, column in np.ndindex(cells.shape):
        inked = _cell(area, page.pitch, row, column) == INK[0]
        cells[row, column] = next((digit for digit, glyph in enumerate(glyphs, 1) if np.array_equal(glyph, inked)), 0)
    return PuzzlePage(page.kind, cells, page.pitch, page.top, page.left)


def _cell(area: np.ndarray, pitch: int, row: int, column: int) -> np.ndarray:
    """A view of the pixels of one cell that no line ever touches."""
    return area[row * pitch + 3 : (row + 1) * pitch - 3, column * pitch + 3 : (column + 1) * pitch - 3]


def _glyph(digit: int, pitch: int) -> np.ndarray:
    """bool (pitch - 6, pitch - 6): a digit in the middle of what `_cell` gives, three quarters of a cell high."""
    scale = pitch * 3 // 4 // 7
    bits = _DIGITS[digit].repeat(scale, axis=0).repeat(scale, axis=1)
    glyph = np.zeros((pitch - 6, pitch - 6), bool)
    top, left = ((pitch - 6 - length) // 2 for length in bits.shape)
    glyph[top : top + bits.shape[0], left : left + bits.shape[1]] = bits
    return glyph
