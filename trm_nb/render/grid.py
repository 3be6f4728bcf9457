"""ARC grids and whole tasks to pixels, in ARC's own colours, and back to the numbers.

Choice: cells are whole pixels, never resized, with ARC's gray line around each, so that an image tells how many cells a
plain area has. A task is rendered whole at one scale: one panel a demonstration pair (input, arrow, output), blue
panels for test inputs (input, arrow, question mark; the answer is never rendered); where they stand, panels.py decides.
A larger grid than ARC's takes a page for each 30x30 cells. Cost: about 0.1 ms a grid; 1 ms a task.

Source of the colours: fchollet/ARC-AGI, apps/css/common.css.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trm_nb.errors import RejectedError
from trm_nb.records import GridTask
from trm_nb.render.colours import colours, pack
from trm_nb.render.panels import ARROW_GAP, MAX_PITCH, PAD, QUESTION, Contents, GridPage, Panel, pages_of, pixels

MAX_SIDE = 30
MAX_PAGES = 1000  # of one larger grid
MAX_PANELS = 300  # packing takes time by their square

PALETTE = colours(
    "000000", "0074D9", "FF4136", "2ECC40", "FFDC00", "AAAAAA", "F012BE", "FF851B", "7FDBFF", "870C25"
)  # fmt: skip
# background is white: its three channels are equal
LINE, BACKGROUND, DEMONSTRATION, TEST, SIGN = colours("555555", "FFFFFF", "EBEBEB", "CFDDF2", "333333")

_ARROW = np.array([[int(c) for c in row] for row in ("0000100", "0000110", "1111111", "0000110", "0000100")], bool)


@dataclass(frozen=True, eq=False)
class GridFrame:
    """One grid on a page: the first pixel of each row and of each column of cells, int64; a cell is pitch - 1 wide."""

    pitch: int
    rows: np.ndarray
    columns: np.ndarray


def check_grid(grid: object) -> np.ndarray:
    """uint8 (rows, columns) of a grid; RejectedError when it is not 1..30 by 1..30 whole numbers of 0..9."""
    array = _numbers(grid)
    if max(array.shape) > MAX_SIDE:
        raise RejectedError(f"expected a grid of 1 to 30 rows and columns, got {array.shape[0]}x{array.shape[1]}")
    return array


def _numbers(grid: object) -> np.ndarray:
    """uint8 (rows, columns) of a grid of any size; RejectedError when it is not one of whole numbers 0..9."""
    try:
        array = np.asarray(grid)
    except ValueError:
        raise RejectedError("expected a grid whose rows are equally long, got rows of different lengths") from None
    if array.ndim != 2:
        raise RejectedError(f"expected a grid of rows and columns, got {array.ndim} dimension(s)")
    if 0 in array.shape:
        raise RejectedError(f"expected a grid of 1 to 30 rows and columns, got {array.shape[0]}x{array.shape[1]}")
    if array.dtype.kind not in "iu":
        raise RejectedError(f"expected a grid of whole numbers, got {array.dtype}")
    if array.min() < 0 or array.max() > 9:
        raise RejectedError(f"expected grid values 0 to 9, got {array.min()} to {array.max()}")
    return array.astype(np.uint8)


class GridRenderer:
    """Grids and tasks to images of image_size x image_size pixels; `decode` is exact.

    Args:
        image_size: side of the images in pixels; 224 has room for a grid of 30x30 cells with their lines.
    """

    def __init__(self, image_size: int = 224) -> None:
        self.image_size = image_size

    def render(self, grid: object) -> np.ndarray:
        """Render one grid, centred, in cells of 28 pixels at most.

        Args:
            grid: whole numbers 0 to 9, (rows, columns), 1 to 30 of each: an array or nested lists.

        Returns:
            uint8 (h, w, 3).

        Raises:
            RejectedError: for what is no such grid.
        """
        return self.rasterise(self.grid_page(grid))

    def grid_page(self, grid: object) -> GridPage:
        """Lay out one grid.

        Args:
            grid: as `render` takes it.

        Returns:
            Its page.

        Raises:
            RejectedError: for what is no grid, or is larger than one page can show.
        """
        pages = self.grid_pages(grid)
        if len(pages) > 1:
            rows, columns = np.asarray(grid).shape
            raise RejectedError(
                f"expected a grid of 1 to 30 rows and columns, got {rows}x{columns}; "
                f"grid_pages cuts it into {len(pages)}"
            )
        return pages[0]

    def grid_pages(self, grid: object) -> list[GridPage]:
        """Lay out a grid of any size.

        Args:
            grid: whole numbers 0 to 9, (rows, columns).

        Returns:
            Pages of at most 30x30 cells, row by row, all at one scale; one page up to 30x30.

        Raises:
            RejectedError: for what is no grid, and for more than 1,000 pages.
        """
        array = _numbers(grid)
        tops, lefts = (range(0, side, MAX_SIDE) for side in array.shape)
        if len(tops) * len(lefts) > MAX_PAGES:
            raise RejectedError(
                f"expected a grid of at most {MAX_PAGES} pages of 30x30, got {array.shape[0]}x{array.shape[1]}"
            )
        pitch = self._pitch(array[:MAX_SIDE, :MAX_SIDE])
        return [self._page(array[t : t + MAX_SIDE, x : x + MAX_SIDE].copy(), pitch) for t in tops for x in lefts]

    def _pitch(self, grid: np.ndarray) -> int:
        pitch = min(MAX_PITCH, (self.image_size - 1) // int(max(grid.shape)))
        if pitch < 2:
            need = pixels(max(grid.shape), 2)
            raise RejectedError(f"a grid of {grid.shape[0]}x{grid.shape[1]} needs {need} pixels, got {self.image_size}")
        return pitch

    def _page(self, grid: np.ndarray, pitch: int) -> GridPage:
        height, width = (pixels(side, pitch) for side in grid.shape)
        top, left = (self.image_size - height) // 2, (self.image_size - width) // 2
        return GridPage(pitch, (Panel("grid", top, left, height, width, (grid,), False),))

    def task_pages(self, task: GridTask) -> list[GridPage]:
        """Lay out a task: all demonstration pairs, then all test inputs, at one scale.

        Args:
            task: its grids, as `render` takes them.

        Returns:
            As few pages as cells of 3 pixels allow.

        Raises:
            RejectedError: for what is no grid, no or too many grids, or a pair that does not fit the image.
        """
        contents: list[Contents] = [("pair", (check_grid(a), check_grid(b))) for a, b in task.train]
        contents += [("test", (check_grid(grid),)) for grid in task.test_inputs]
        if not 1 <= len(contents) <= MAX_PANELS:
            raise RejectedError(f"expected a task of 1 to {MAX_PANELS} pairs and test inputs, got {len(contents)}")
        return pages_of(contents, self.image_size)

    def rasterise(self, page: GridPage) -> np.ndarray:
        """Render a page.

        Args:
            page: laid out by this renderer.

        Returns:
            uint8 (h, w, 3).
        """
        image = np.full((self.image_size, self.image_size, 3), BACKGROUND[0], np.uint8)
        for panel in page.panels:
            area = image[panel.top : panel.top + panel.height, panel.left : panel.left + panel.width]
            if panel.kind == "grid":
                area[:] = _rendered(panel.grids[0], page.pitch)
            else:
                area[:] = TEST if panel.kind == "test" else DEMONSTRATION
                # a stacked panel is the side-by-side one with rows and columns exchanged, and so are its grids
                flip = panel.stacked
                _fill_panel(area.transpose(1, 0, 2) if flip else area, panel, page.pitch)
        return image

    def decode(self, image: np.ndarray) -> np.ndarray:
        """Read the one grid in an image of `render`.

        Args:
            image: uint8 (h, w, 3).

        Returns:
            int64 (rows, columns), 0 to 9.

        Raises:
            ValueError: for another shape, no grid or several, and a cell in a colour that is none of the ten.
        """
        grids = self.decode_all(image)
        if len(grids) != 1:
            raise ValueError(f"image: expected one grid, got {len(grids)}; use decode_all for a task's page")
        return grids[0]

    def decode_all(self, image: np.ndarray) -> list[np.ndarray]:
        """Read every grid of a page.

        Args:
            image: uint8 (h, w, 3).

        Returns:
            int64 (rows, columns) each, in reading order of their upper left corners.

        Raises:
            ValueError: for another shape, and for a cell in a colour that is none of the ten.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"image: expected uint8 (h, w, 3), got {image.dtype} {image.shape}")
        packed, values = pack(image), pack(PALETTE)
        grids = []
        for frame in grid_frames(image):
            is_value = packed[frame.rows[:, None], frame.columns, None] == values
            if not is_value.any(axis=-1).all():
                raise ValueError(
                    f"image: the grid at row {frame.rows[0] - 1}, column {frame.columns[0] - 1} "
                    "has a cell in none of the ten colours"
                )
            grids.append(np.argmax(is_value, axis=-1))
        return grids


def grid_frames(image: np.ndarray) -> list[GridFrame]:
    """Where the grids of a page uint8 (h, w, 3) stand, found by their lines, in reading order of their upper left."""
    line = pack(image) == pack(LINE)
    padded = np.pad(line, 1)
    corners = np.argwhere(line & ~padded[:-2, 1:-1] & ~padded[1:-1, :-2] & padded[2:, 1:-1] & padded[1:-1, 2:])
    frames = []
    for y, x in corners.tolist():
        pitch = int(np.argmax(line[y + 1, x + 1 :])) + 1
        height, width = _run(line[y:, x]) - 1, _run(line[y, x:]) - 1
        frames.append(GridFrame(pitch, np.arange(y + 1, y + height, pitch), np.arange(x + 1, x + width, pitch)))
    return frames


def _run(mask: np.ndarray) -> int:
    return len(mask) if mask.all() else int(np.argmin(mask))


def _rendered(grid: np.ndarray, pitch: int) -> np.ndarray:
    """uint8 (h, w, 3): cells with lines around them."""
    rows, columns = grid.shape
    image = np.empty((pixels(rows, pitch), pixels(columns, pitch), 3), np.uint8)
    image[:-1, :-1] = PALETTE[grid].repeat(pitch, axis=0).repeat(pitch, axis=1)
    image[::pitch] = LINE
    image[:, ::pitch] = LINE
    return image


def _fill_panel(area: np.ndarray, panel: Panel, pitch: int) -> None:
    """Grids, arrow and question mark, one after the other along the panel's long axis (here columns)."""
    middle, left = area.shape[0] // 2, PAD
    pieces = [_rendered(grid, pitch) for grid in panel.grids]
    if panel.stacked:
        pieces = [piece.transpose(1, 0, 2) for piece in pieces]
    for number, piece in enumerate(pieces):
        if number:
            left += ARROW_GAP
        top = middle - piece.shape[0] // 2
        area[top : top + piece.shape[0], left : left + piece.shape[1]] = piece
        left += piece.shape[1]
        if not number:
            _stamp(area, _ARROW, middle, left + (ARROW_GAP - _ARROW.shape[1]) // 2)
    if panel.kind == "test":
        _stamp(area, QUESTION.T if panel.stacked else QUESTION, middle, left + ARROW_GAP)


def _stamp(area: np.ndarray, sign: np.ndarray, middle: int, left: int) -> None:
    top = middle - sign.shape[0] // 2
    area[top : top + sign.shape[0], left : left + sign.shape[1]][sign] = SIGN
