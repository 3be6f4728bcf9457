"""Pixel values of more than 8 bits to 8 bits: which value is black, and which is white.

The range is the one that the file states: a PNG's sBIT chunk, a TIFF's MinSampleValue and MaxSampleValue (or SMin...,
SMax...), 12 bits a sample. 16 and 32 bits are only what values are stored in, and state nothing. Where nothing is
stated, or a value lies outside of what is stated, it is 0 to the smallest of RANGES that holds the maximum. Values for
which none of these is right (negative ones, ones above 65535, fractions with a maximum between 1 and 16) are stretched
from their minimum to their maximum. Each page or frame has its own range, as each is rendered alone.
Cost: two passes over the values, some rows at a time; colours of 16 bits with low values are decoded twice, as Pillow
decodes either their upper or their lower bytes.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, TiffImagePlugin

from trm_nb.errors import RejectedError

RANGES = (1, 255, 1023, 4095, 16383, 65535)
REVISION = 2  # raise this with every change to how values become pixels: it is part of the keys of images
_FAINT = 16  # fractions up to this maximum would be almost black in 0..255, and do not fit into 0..1
_STRIP = 1 << 20  # values converted at a time
_PHOTOMETRIC, _BITS, _SAMPLE_FORMAT, _PLANES = 262, 258, 339, 284
_MINIMUM, _MAXIMUM = (340, 280), (341, 281)  # SMinSampleValue before MinSampleValue
_DTYPES: dict[tuple[str, float | None, float | None], str] = {  # mode, bits and sample format -> type of the values
    ("L", 8, 2): "i1", ("I", 32, 1): "u4", ("I;16", 16, 3): "<f2",
}  # fmt: skip
_SWAPPED = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
# Pillow's raw modes that drop the lower byte -> the ones that keep it instead. Gray with alpha has none: it is taken as
# four bytes a pixel, of which the second is the lower one of gray.
_LOWER = {f"{channels};16{order}": f"{channels};16{other}" for order, other in _SWAPPED.items()
          for channels in ("RGB", "RGBA", "RGBX", "R", "G", "B", "A")} | {"LA;16B": "RGBA"}  # fmt: skip

Rows: TypeAlias = Callable[[int, int], np.ndarray]  # top and bottom to values (h, w) or (h, w, 3)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a file says about its values.

    `stated` is the range from black to white, `white_is_zero` a TIFF's MinIsWhite. `dtype` is the NumPy type that
    the values have where Pillow's mode has another one, `transparent` the value that is shown as white.
    """

    stated: tuple[float, float] | None = None
    white_is_zero: bool = False
    dtype: str | None = None
    transparent: int | tuple[int, ...] | None = None


def meaning(image: Image.Image, data: bytes = b"") -> Meaning:
    """What an image says about its values. `data` is the file it was opened from: Pillow does not keep a PNG's sBIT."""
    transparent = image.info.get("transparency")
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return Meaning(_significant(data), transparent=transparent if isinstance(transparent, int | tuple) else None)
    tags = image.tag_v2
    bits, layout = _number(tags.get(_BITS)), _number(tags.get(_SAMPLE_FORMAT, 1))
    low, high = (next((n for n in (_number(tags.get(t)) for t in of) if n is not None), None) for of in
                 (_MINIMUM, _MAXIMUM))  # fmt: skip
    if high is None and bits == 12:
        high = 4095.0
    dtype = _DTYPES.get((image.mode, bits, layout))
    return Meaning(
        None if high is None else (low or 0.0, high),
        tags.get(_PHOTOMETRIC) == 0 and (dtype is not None or is_deep(image)),
        dtype,
    )


def is_deep(image: Image.Image) -> bool:
    """Whether it is gray with values of more than 8 bits, or with floats."""
    return image.mode.startswith(("I", "F"))


def gray(image: Image.Image, means: Meaning) -> Image.Image:
    """L: a deep gray image in 8 bits."""

    def rows(top: int, bottom: int) -> np.ndarray:
        values = np.asarray(image.crop((0, top, image.width, bottom)))
        return values if means.dtype is None else values.view(means.dtype)

    return _shown("L", image.size, rows, means)


def _shown(mode: str, size: tuple[int, int], rows: Rows, means: Meaning) -> Image.Image:
    """The values in 8 bits."""
    low, high = _range(rows, size, means.stated)
    table = _shades(np.arange(65536), low, high, means.white_is_zero)
    shown = Image.new(mode, size)
    for top, values in _strips(rows, size):
        wide = values.dtype != np.uint16
        shades = _shades(values, low, high, means.white_is_zero) if wide else table[values]
        if means.transparent is not None:
            there = values == means.transparent
            shades[there if values.ndim == 2 else there.all(axis=-1)] = 255
        shown.paste(Image.fromarray(shades), (0, top))
    return shown


def _shades(values: np.ndarray, low: float, high: float, white_is_zero: bool) -> np.ndarray:
    """uint8: the values from low to high as 0 to 255. NaN is black; infinities are the ends of the range."""
    values = values.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinity times 0, where low is high
        shades = np.clip(np.rint((values - low) * (255 / (high - low) if high > low else 0.0)), 0, 255)
    eight_bit: np.ndarray = np.nan_to_num(255 - shades if white_is_zero else shades).astype(np.uint8)
    return eight_bit


def _range(rows: Rows, size: tuple[int, int], stated: tuple[float, float] | None) -> tuple[float, float]:
    """The values that become black and white; equal where all values are."""
    low, high, whole = math.inf, -math.inf, True
    for _, values in _strips(rows, size):
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            whole = whole and (finite.dtype.kind != "f" or np.array_equal(finite, finite.round()))
    if low > high:
        return 0.0, 1.0
    if stated is not None and stated[0] <= low and high <= stated[1] and stated[0] < stated[1]:
        return stated
    if low < 0 or high > RANGES[-1] or (not whole and 1 < high < _FAINT):
        return low, high
    return 0.0, float(next(top for top in RANGES if high <= top))


def _strips(rows: Rows, size: tuple[int, int]) -> Iterator[tuple[int, np.ndarray]]:
    """The values, some rows at a time, with the number of those above them."""
    width, height = size
    count = max(1, _STRIP // width)
    for top in range(0, height, count):
        yield top, rows(top, min(top + count, height))


def _significant(data: bytes) -> tuple[float, float] | None:
    """The range that the sBIT chunk of a PNG of 16 bits states, if `data` is one and has such a chunk."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n") or data[12:16] != b"IHDR" or data[24:25] != b"\x10":
        return None
    at = 8
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if kind in (b"IDAT", b"PLTE"):
            return None
        if kind == b"sBIT":
            bits = max(data[at + 8 : at + 8 + min(size, 3 if data[25] & 2 else 1)], default=0)
            return (0.0, float(2**bits - 1)) if 1 <= bits <= 16 else None
        at += size + 12
    return None


def _number(tag: object) -> float | None:
    """The largest of a tag's numbers (one for each channel); None where it holds none."""
    try:
        numbers = [float(n) for n in (tag if isinstance(tag, tuple) else (tag,))]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return max(numbers) if numbers and all(map(math.isfinite, numbers)) else None


# -- colours of 16 bits ----------------------------------------------------------------------------------------------


def is_deep_colour(image: Image.Image) -> bool:
    """Whether Pillow will take the upper 8 of 16 bits a channel. To be asked before the pixels are loaded."""
    tiles: list[Any] = image.tile  # type: ignore[attr-defined]
    still = image.format == "TIFF" or not getattr(image, "is_animated", False)  # frames of a PNG build on others
    return still and bool(tiles) and all(_raw_mode(tile) in _LOWER for tile in tiles)


def colour(image: Image.Image, means: Meaning, reopen: Callable[[], Image.Image]) -> Image.Image:
    """RGB or RGBA of deep colours, of which `image` holds the upper bytes; `reopen` opens it again, not yet loaded.

    The file is decoded a second time, for the lower bytes, only where the range is not 0 to 65535. Raises
    RejectedError where that cannot be done.
    """
    extrema: Any = image.getextrema()
    most = max(high for _, high in extrema[:3])
    stated = means.stated if means.stated is not None and most * 256 <= means.stated[1] else None
    full = most >= RANGES[-2] / 256 if stated is None else stated == (0, RANGES[-1])
    if full and means.transparent is None:
        return image
    other = reopen()
    tiles: list[Any] = other.tile  # type: ignore[attr-defined]
    planes = isinstance(other, TiffImagePlugin.TiffImageFile) and other.tag_v2.get(_PLANES) == 2
    if planes and tiles[0].codec_name == "libtiff":  # there Pillow ignores the raw mode and takes the upper bytes
        raise RejectedError("16-bit channels of low values in compressed planes: save it with interleaved channels")
    gray_alpha = _raw_mode(tiles[0]) == "LA;16B"
    tiles[:] = [_with_raw_mode(tile, _LOWER[_raw_mode(tile)]) for tile in tiles]
    other.load()

    def rows(top: int, bottom: int) -> np.ndarray:
        box = (0, top, image.width, bottom)
        upper, lower = (np.asarray(part.crop(box)) for part in (image, other))
        lower = lower[..., 1:2] if gray_alpha else lower[..., :3]
        values: np.ndarray = (upper[..., :3].astype(np.uint16) << 8) + lower
        return values

    shown = _shown("RGB", image.size, rows, means)
    if image.mode == "RGBA":
        shown.putalpha(image.getchannel("A"))
    return shown


def _raw_mode(tile: Any) -> str:
    return str(tile.args[0] if isinstance(tile.args, tuple) else tile.args)


def _with_raw_mode(tile: Any, raw: str) -> Any:
    return tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)
