"""Items from what a program holds in memory: text, PIL images and integer grids, in any mixture."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from trm_nb.records import GridTask, ImageBytes, Item, Modality, Payload, Puzzle, UserError

_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}


def as_items(values: Iterable[Any]) -> Iterator[Item]:
    """Wrap each value as an Item, named by its place; Items pass as they are.

    str is text; a PIL image or a uint8 array (h, w, 3) is a picture; a list of lists or a 2-D integer array is a
    grid of any size, a GridTask a task of grids, a Puzzle a Sudoku or a maze. Raises UserError for anything else,
    naming its place.
    """
    for position, value in enumerate(values):
        if isinstance(value, Item):
            yield value
            continue
        modality, payload = _payload(value, position)
        yield Item(item_id=f"{modality}-{position:08d}", modality=modality, payload=payload)


def _payload(value: Any, position: int) -> tuple[Modality, Payload]:
    if isinstance(value, str):
        return "text", value
    if isinstance(value, GridTask | Puzzle):
        return "grid", value
    if isinstance(value, Image.Image):
        if (frames := getattr(value, "n_frames", 1)) > 1:
            raise UserError(f"sample {position}: a picture of {frames} frames; give its frames one by one")
        return "image", _encoded(value)
    if isinstance(value, list | tuple | np.ndarray):
        try:
            array = np.asarray(value)
        except ValueError:  # rows of different lengths
            raise UserError(f"sample {position}: a grid's rows must have one length") from None
        if array.ndim == 2 and array.dtype.kind in "iu":
            return "grid", array.astype(np.int64)
        if array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8:
            return "image", _encoded(Image.fromarray(array))
        got = f"{array.dtype} array {array.shape}"
    else:
        got = type(value).__name__
    raise UserError(f"sample {position}: expected text, a PIL image, an integer grid or an Item, got {got}")


def _encoded(image: Image.Image) -> ImageBytes:
    """As a file would hold it, upright, nothing rounded: PNG, or TIFF for 32-bit and float pixels."""
    buffer = io.BytesIO()
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F"):
        image.save(buffer, format="TIFF")
        return ImageBytes(buffer.getvalue())
    if image.mode not in _PNG_MODES:
        image = image.convert("RGBA" if image.mode in ("PA", "La", "RGBa") else "RGB")
    image.save(buffer, format="PNG", compress_level=1)
    return ImageBytes(buffer.getvalue())
