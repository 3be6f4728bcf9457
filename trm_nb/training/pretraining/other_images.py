"""What pre-training shows apart from text, grids and photographs, so that the encoder has seen such images too.

Boards hold random values, not puzzles that can be solved: only their look matters here, and a board takes no time.
"""

from __future__ import annotations

import numpy as np

from trm_nb.records import Puzzle

SIDE = 224
SUDOKUS, MAZES = (4, 6, 9), (5, 31)  # sides of Sudokus; the least side of a maze and that above the largest
MAZE_VALUES = (0.55, 0.41, 0.02, 0.02)  # odds of free, wall, start, goal


def random_puzzle(rng: np.random.Generator) -> Puzzle:
    """A Sudoku with a random part of its cells filled, or a maze of random cells."""
    if rng.random() < 0.5:
        side = int(rng.choice(SUDOKUS))
        filled = rng.random((side, side)) < rng.uniform(0.2, 1)
        return Puzzle("sudoku", np.where(filled, rng.integers(1, side + 1, (side, side)), 0).astype(np.int8))
    side = int(rng.integers(*MAZES))
    return Puzzle("maze", rng.choice(4, (side, side), p=MAZE_VALUES).astype(np.int8))


def letterboxed(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The upper part of a crop between two bands, mostly white ones, or the same turned on its side."""
    height = int(rng.integers(80, SIDE))
    image = np.full((SIDE, SIDE, 3), 255 if rng.random() < 0.7 else 0, np.uint8)
    top = (SIDE - height) // 2
    image[top : top + height] = pixels[:height]
    return image if rng.random() < 0.5 else np.ascontiguousarray(image.transpose(1, 0, 2))


def rectangles(rng: np.random.Generator) -> np.ndarray:
    """Up to five rectangles of random colours on a plain background."""
    image: np.ndarray = np.full((SIDE, SIDE, 3), rng.integers(0, 256, 3) if rng.random() < 0.5 else 255, np.uint8)
    for _ in range(int(rng.integers(0, 6))):
        (y, x), (height, width) = rng.integers(0, 200, 2), rng.integers(4, 120, 2)
        image[y : y + height, x : x + width] = rng.integers(0, 256, 3)
    return image
