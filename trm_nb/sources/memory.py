"""Items from what a program holds in memory: text, PIL images and integer grids, in any mixture."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from trm_nb.errors import UserError
from trm_nb.records import GridTask, ImageBytes, Item, Modality, Payload, Puzzle
from trm_nb.render.image_files import value_range

_ORIENTATION = 0x0112
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}


def as_items(values: Iterable[Any], first: int = 0) -> Iterator[Item]:
    """Wrap each value as an Item, named by its place, counted from `first`; Items pass as they are.

    str is text; a PIL image or a uint8 array (h, w, 3) is an image; a list of lists or a 2-D integer array is a
    grid of any size, a GridTask a task of grids, a Puzzle a Sudoku or a maze. Raises UserError for anything else,
    naming its place.
    """
    for position, value in enumerate(values, first):
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
            raise UserError(f"sample {position}: an image of {frames} frames; give its frames one by one")
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
    """As a PNG, upright; gray values of more than 8 bits are scaled as those of a file are.

    A TIFF, and a PNG of more than 8 bits a channel, that was opened and not yet decoded is taken as the file that it
    is: Pillow keeps neither all that the file says about its values nor the lower bytes of its colours.
    """
    means = value_range.meaning(image)
    deep = value_range.is_deep(image) or means.dtype is not None
    pending = isinstance(image, PngImageFile | TiffImageFile) and image.tile and image.fp
    if pending and (image.format == "TIFF" or deep or value_range.is_deep_colour(image)):
        return ImageBytes(_whole(pending))
    if deep:
        image.load()
        orientation = image.getexif().get(_ORIENTATION, 1)
        image = value_range.gray(image, means)
        image.getexif()[_ORIENTATION] = orientation
    image = ImageOps.exif_transpose(image)
    if image.mode not in _PNG_MODES:
        image = image.convert("RGBA" if image.mode in ("PA", "La", "RGBa") else "RGB")
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return ImageBytes(buffer.getvalue())


def _whole(file: IO[bytes]) -> bytes:
    place = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(place)
    return data
