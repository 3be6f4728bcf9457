"""Pages of panels: where the pairs and the test inputs of a task stand in an image.

Choice: one scale for a task, the largest at which it takes as few pages as cells of 3 pixels allow. Panels are packed
on shelves in order, or the tallest first where that gives larger cells; so it is with the two grids of a pair side by
side or one above the other. Cost: about 2 ms a task.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from trm_nb.errors import RejectedError

MAX_PITCH = 28  # a cell with its line is never larger, so that small grids look small
MIN_TASK_PITCH = 3
PAD, GAP, ARROW_GAP = 2, 3, 9  # inside a panel, between panels, between two grids of a pair
QUESTION = np.array(
    [[int(c) for c in row] for row in ("01110", "10001", "00001", "00110", "00100", "00000", "00100")], bool
)
Contents: TypeAlias = "tuple[str, tuple[np.ndarray, ...]]"  # kind and grids of a panel


@dataclass(frozen=True, eq=False)
class Panel:
    """One pair, one test input, or a grid alone: where it stands and what is in it.

    `kind` is "pair", "test" or "grid"; `top`, `left`, `height`, `width` in pixels; `grids`: one or two uint8 arrays
    (rows, columns); `stacked` puts the second below the first instead of to its right.
    """

    kind: str
    top: int
    left: int
    height: int
    width: int
    grids: tuple[np.ndarray, ...]
    stacked: bool


@dataclass(frozen=True, eq=False)
class GridPage:
    """What one page shows: its panels, with cells of `pitch` pixels (the line included)."""

    pitch: int
    panels: tuple[Panel, ...]

    def content_bytes(self) -> bytes:
        """All that decides the pixels; numbers before the bytes they count, so that no two pages share theirs."""
        parts = [np.array([self.pitch, len(self.panels)], "<i4").tobytes()]
        for p in self.panels:
            kind = ("pair", "test", "grid").index(p.kind)
            parts.append(np.array([kind, p.top, p.left, p.height, p.width, p.stacked, len(p.grids)], "<i4").tobytes())
            for grid in p.grids:
                parts += [np.array(grid.shape, "<i4").tobytes(), grid.astype(np.uint8).tobytes()]
        return b"".join(parts)


def pixels(cells: int, pitch: int) -> int:
    """Length in pixels of so many cells with their lines."""
    return cells * pitch + 1


def pages_of(contents: Sequence[Contents], image_size: int) -> list[GridPage]:
    """All contents, at one scale; as few pages as cells of 3 pixels allow. Raises RejectedError if one does not fit."""
    smallest = max(2, min(MIN_TASK_PITCH, image_size // 70))
    fewest = min((len(pages) for pages in _layouts(contents, smallest, image_size)), default=0)
    if not fewest:
        raise RejectedError(f"a pair of this task does not fit an image of {image_size} pixels")
    cells = sum(grid.size for _, grids in contents for grid in grids)
    largest = max(smallest, min(MAX_PITCH, math.isqrt(fewest * image_size**2 // cells)))
    for pitch in range(largest, smallest - 1, -1):
        for pages in _layouts(contents, pitch, image_size):
            if len(pages) == fewest:
                return pages
    raise AssertionError("the smallest pitch was seen to fit")


def _layouts(contents: Sequence[Contents], pitch: int, image_size: int) -> Iterator[list[GridPage]]:
    """Ways to pack at this scale, the easiest to read first: in order, then the tallest panels first."""
    for orientation in ("side", "stacked", "square"):
        panels = [_panel(kind, grids, pitch, orientation) for kind, grids in contents]
        if all(max(p.height, p.width) + 2 * GAP <= image_size for p in panels):
            for order in (panels, sorted(panels, key=lambda p: -p.height)):
                yield [GridPage(pitch, _centred(page, image_size)) for page in _shelved(order, image_size)]


def _shelved(panels: Sequence[Panel], image_size: int) -> list[list[list[Panel]]]:
    """Pages of shelves: each panel on the first shelf with room for it, a new shelf or page where there is none."""
    pages: list[list[list[Panel]]] = []
    for panel in panels:
        shelf = next((s for page in pages for s in page if _has_room(page, s, panel, image_size)), None)
        if shelf is None:
            page = next((p for p in pages if _below(p) + panel.height + GAP <= image_size), None)
            if page is None:
                pages.append(page := [])
            page.append(shelf := [])
            top = _below(page[:-1])
        else:
            top = shelf[0].top
        left = shelf[-1].left + shelf[-1].width + GAP if shelf else GAP
        shelf.append(replace(panel, top=top, left=left))
    return pages


def _has_room(page: list[list[Panel]], shelf: list[Panel], panel: Panel, image_size: int) -> bool:
    """On an earlier shelf the panel may be as high as the shelf is; the last one may still grow."""
    last, right = shelf is page[-1], shelf[-1].left + shelf[-1].width + GAP
    height = image_size - GAP - shelf[0].top if last else max(p.height for p in shelf)
    return panel.height <= height and right + panel.width + GAP <= image_size


def _below(page: list[list[Panel]]) -> int:
    return max((p.top + p.height for shelf in page for p in shelf), default=0) + GAP


def _centred(page: list[list[Panel]], image_size: int) -> tuple[Panel, ...]:
    """The page's panels in the middle of the image."""
    panels = [panel for shelf in page for panel in shelf]
    down = (image_size - GAP - max(p.top + p.height for p in panels)) // 2
    right = (image_size - GAP - max(p.left + p.width for p in panels)) // 2
    return tuple(replace(p, top=p.top + down, left=p.left + right) for p in panels)


def _panel(kind: str, grids: tuple[np.ndarray, ...], pitch: int, orientation: str) -> Panel:
    """A panel that has no place yet; "square" takes the way whose longer side is shorter."""
    side, stacked = (_panel_size(grids, pitch, flip) for flip in (False, True))
    flip = orientation == "stacked" or (orientation == "square" and max(stacked) < max(side))
    height, width = stacked if flip else side
    return Panel(kind, 0, 0, height, width, grids, flip)


def _panel_size(grids: tuple[np.ndarray, ...], pitch: int, stacked: bool) -> tuple[int, int]:
    along, across = (0, 1) if stacked else (1, 0)
    second = pixels(grids[1].shape[along], pitch) if len(grids) == 2 else QUESTION.shape[1]
    length = pixels(grids[0].shape[along], pitch) + ARROW_GAP + second + 2 * PAD
    thick = max(*(pixels(g.shape[across], pitch) for g in grids), QUESTION.shape[0]) + 2 * PAD
    return (length, thick) if stacked else (thick, length)
