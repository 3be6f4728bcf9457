"""What an item's images say of it: text decoded from the pixels and compared character by character, grids by cells.

Choice: a text with right-to-left lines stands in an order of its own on the page. There the layout must name each
character once, and the page must be, to the bit, what that layout renders.
Cost: about half a millisecond a page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import zip_longest

import numpy as np

from trm_nb.records import GridTask
from trm_nb.render.grid import MAX_SIDE, GridRenderer
from trm_nb.render.modality import Found
from trm_nb.render.puzzle import PuzzleRenderer
from trm_nb.render.text import TextRenderer
from trm_nb.render.typesetting.glyphs import BOX
from trm_nb.render.typesetting.layout import code_points
from trm_nb.render.typesetting.right_to_left import lines_to_reorder


def compare_text(texts: TextRenderer, text: str, name: str, images: np.ndarray, whole: bool) -> Found:
    """A text, of the file `name`, and its images uint8 (n, h, w, 3); not `whole`: the first of them."""
    normalised = texts.normalise(text)
    if next(lines_to_reorder(normalised), None) is None:
        return _read(texts, normalised, images, whole)
    return _named_by_layout(texts, normalised, name, images)


def compare_puzzle(puzzles: PuzzleRenderer, puzzle: np.ndarray, images: np.ndarray) -> Found:
    """A Sudoku or a maze, int (rows, columns), and its images."""
    shown = [grid for image in images for grid in _decoded(lambda image: [puzzles.decode(image)], image)]
    return _cells([puzzle], shown, len(images))


def compare_task(grids: GridRenderer, task: GridTask, images: np.ndarray) -> Found:
    """A task and all of its images."""
    expected = [*(grid for pair in task.train for grid in pair), *task.test_inputs]
    return _cells(expected, _grids_on(grids, images), len(images))


def compare_grid(grids: GridRenderer, grid: np.ndarray, images: np.ndarray) -> Found:
    """A grid, int (rows, columns), and its images, or the first of them."""
    tops, lefts = (range(0, side, MAX_SIDE) for side in grid.shape)
    expected = [grid[top : top + MAX_SIDE, left : left + MAX_SIDE] for top in tops for left in lefts]
    return _cells(expected[: len(images)], _grids_on(grids, images), len(images))


def _read(texts: TextRenderer, normalised: str, images: np.ndarray, whole: bool) -> Found:
    read, expected = texts.decode(images).split("\n"), texts.fold(normalised).split("\n")
    if not whole:  # the last line may go on on a page that is not looked at
        last = expected[len(read) - 1 : len(read)]
        expected = [*expected[: len(read) - 1], *(line[: len(read[-1])] for line in last)]
    lost = 0
    for line, wanted in zip_longest(read, expected, fillvalue=""):
        if line != wanted:
            lost += max(1, sum((Counter(wanted) - Counter(line)).values()))
    boxed = (texts.atlas.first[code_points("".join(expected))] >= BOX).sum()
    return Found(len(images), sum(map(len, expected)), lost, int(boxed))


def _named_by_layout(texts: TextRenderer, normalised: str, name: str, images: np.ndarray) -> Found:
    pages = texts.pages(normalised, name)
    same = [np.array_equal(texts.rasterise([page])[0], image) for page, image in zip(pages, images, strict=False)]
    named = np.zeros(len(normalised), np.int64)
    spans = texts.layout(normalised)
    for page in np.flatnonzero(same).tolist():
        for start, stop in spans[page].reshape(-1, 2).tolist():
            named[start:stop] += 1
    last = len(normalised) if len(images) == len(pages) else int(spans[: len(images)].max())
    codes = code_points(normalised)[:last]
    there = codes != 0x0A
    boxed = (texts.atlas.first[codes[there]] >= BOX).sum()
    return Found(len(images), int(there.sum()), int((named[:last][there] != 1).sum()), int(boxed))


def _cells(expected: Sequence[np.ndarray], shown: Sequence[np.ndarray], pages: int) -> Found:
    there = Counter((grid.shape, *grid.ravel().tolist()) for grid in shown)
    missing = Counter((grid.shape, *grid.ravel().tolist()) for grid in expected) - there
    lost = sum(len(grid[1:]) * count for grid, count in missing.items())
    return Found(pages, sum(grid.size for grid in expected), lost)


def _grids_on(grids: GridRenderer, images: np.ndarray) -> list[np.ndarray]:
    return [grid for image in images for grid in _decoded(grids.decode_all, image)]


def _decoded(decode: Callable[[np.ndarray], list[np.ndarray]], image: np.ndarray) -> list[np.ndarray]:
    """The grids on an image; none where a cell is in no colour of a grid's: then nothing on it counts as read."""
    try:
        return decode(image)
    except ValueError:
        return []
