"""How images are cut into patches of 28x28 pixels and these into text cells of 14x7, and put together again."""

from __future__ import annotations

import torch
from torch import Tensor

from trm_nb.render.puzzle import PATCH

CELL = (14, 7)  # rows and columns of pixels, as the text cells of font size 12
CELLS = 8  # of a patch: 2 rows of 4
PIXELS = 14 * 7 * 3  # values of a cell


def patches(images: Tensor) -> Tensor:
    """Cut images into patches and these into text cells, in reading order.

    Args:
        images: uint8 (b, h, w, 3); h and w are multiples of 28.

    Returns:
        uint8 (b, p, 8, 294): the cells of a patch in reading order, each of 14 rows, 7 columns and 3 channels.
    """
    b, h, w, c = images.shape
    rows, columns = CELL
    cut = images.view(b, h // PATCH, PATCH // rows, rows, w // PATCH, PATCH // columns, columns, c)
    return cut.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, h // PATCH * (w // PATCH), CELLS, PIXELS)


def unpatch(cells: Tensor, side: int) -> Tensor:
    """The inverse of `patches`: (b, side * side, 8, 294) -> (b, h, w, 3) of the same dtype."""
    rows, columns = CELL
    cut = cells.view(-1, side, side, PATCH // rows, PATCH // columns, rows, columns, 3)
    return cut.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(len(cells), side * PATCH, side * PATCH, 3)


def scaled(pixels: Tensor) -> Tensor:
    """Pixel values 0..255 as float32 -1..1."""
    return pixels.float() / 127.5 - 1


def positions(side: int) -> Tensor:
    """(row, column) of every patch in reading order: int64 (side * side, 2)."""
    return torch.cartesian_prod(torch.arange(side), torch.arange(side))


def centres(side: int) -> Tensor:
    """The middle of every patch in reading order, in 0..1 from the top left: float32 (side * side, 2)."""
    return (positions(side) + 0.5) / side
