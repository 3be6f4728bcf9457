"""Photographs and scans to square pictures: nothing is cut, nothing is stretched.

Choice: letterbox on neutral gray (128), LANCZOS, a picture for each page or frame, EXIF orientation applied,
transparency on white, ICC profiles to sRGB where the profile is whole (else the numbers are taken as sRGB), 16-bit and
float scaled instead of clipped. JPEGs are decoded at the nearest scale that is at least twice the picture (55 dB from
the full decode, five times faster). Files are hostile: only six formats are tried, the size is checked before any pixel
is decoded, a truncated file is an error.
Cost: about 35 ms for a JPEG of 12 megapixels. Pixels are equal for equal versions of Pillow and its codecs.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import PIL
from PIL import Image, ImageCms, features

from trm_nb.render.errors import RejectedError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
PAGED = ("GIF", "TIFF", "WEBP", "PNG")  # a second picture in a JPEG is a thumbnail or a depth map
MAX_PIXELS = 64_000_000
MAX_FRAMES = 1000
BACKGROUND = (128, 128, 128)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def versions() -> str:
    """What decides the pixels beside the file: Pillow and its codecs."""
    codecs = ("libjpeg_turbo", "jpg", "zlib", "libtiff", "webp", "littlecms2")
    return " ".join([PIL.__version__, *(f"{name}={features.version(name)}" for name in codecs)])


@contextmanager
def _opened(data: bytes | BinaryIO) -> Iterator[Image.Image]:
    """The picture, header only; whatever Pillow raises on a damaged or hostile file becomes a RejectedError."""
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata and the like; what matters raises
            with Image.open(stream, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise RejectedError(f"expected at most {MAX_PIXELS // 10**6} megapixels, got {width}x{height}")
                yield image
    except (RejectedError, MemoryError):
        raise
    except PIL.UnidentifiedImageError:
        raise RejectedError(f"expected a picture in one of {', '.join(FORMATS)}, got something else") from None
    except Image.DecompressionBombError:
        raise RejectedError(f"expected at most {MAX_PIXELS // 10**6} megapixels, got far more") from None
    except Exception as error:  # the decoders raise OSError, SyntaxError, struct.error, zlib.error and many more
        raise RejectedError(f"the picture cannot be decoded: {error or type(error).__name__}") from error


def probe(data: bytes | BinaryIO) -> int:
    """How many pages or frames there are, no pixel decoded. Raises RejectedError: format, damage, size, too many."""
    with _opened(data) as image:
        count = getattr(image, "n_frames", 1) if image.format in PAGED else 1
        if count > MAX_FRAMES:
            raise RejectedError(f"expected at most {MAX_FRAMES} pages or frames, got {count}")
        return int(count)


def render_image(data: bytes, image_size: int = 224, frame: int = 0) -> np.ndarray:
    """uint8 (h, w, 3): one page or frame letterboxed to image_size. Raises RejectedError with the reason."""
    with _opened(data) as image:
        if frame:
            image.seek(frame)
            if image.width * image.height > MAX_PIXELS:
                raise RejectedError(f"expected at most {MAX_PIXELS // 10**6} megapixels on page {frame}")
        image.draft(image.mode, (2 * image_size, 2 * image_size))
        image.load()
        turn = _TURNS.get(image.getexif().get(0x0112, 1))
        profile = image.info.get("icc_profile")
        small = _resized(_eight_bit(image), image_size)
        if turn is not None:
            small = small.transpose(turn)
        picture = _to_srgb(small, profile)
        canvas = Image.new("RGB", (image_size, image_size), BACKGROUND)
        canvas.paste(picture, ((image_size - picture.width) // 2, (image_size - picture.height) // 2))
        return np.array(canvas)


def _resized(image: Image.Image, size: int) -> Image.Image:
    """The longer side becomes `size`, also where that enlarges; the shorter keeps the aspect, at least one pixel."""
    longest = max(image.size)
    target = (max(1, round(image.width * size / longest)), max(1, round(image.height * size / longest)))
    return image.resize(target, Image.Resampling.LANCZOS)


def _eight_bit(image: Image.Image) -> Image.Image:
    """L, RGB, CMYK or LAB without alpha: what can be resized and colour-managed."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_scaled(np.asarray(image)))
    if image.has_transparency_data:
        colour = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, colour).convert("RGB")
    return image if image.mode in ("L", "RGB", "CMYK", "LAB") else image.convert("L" if image.mode == "1" else "RGB")


def _scaled(values: np.ndarray) -> np.ndarray:
    """uint8 (h, w) of 16-bit, 32-bit or float pixels (h, w).

    Integers up to 65535 are taken as 16-bit; larger ones, negative ones and floats outside 0..1 are stretched from
    their least to their greatest value. Not-a-number is black.
    """
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1 and not np.array_equal(values, values.round()):
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 65535 and np.array_equal(values, values.round()):
        low, high = 0.0, 65535.0
    return np.rint((values - low) * (255 / max(high - low, 1e-300))).astype(np.uint8)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB in sRGB; a profile that is damaged or of another colour model is left aside."""
    if image.mode == "LAB":
        return _managed(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    if profile:
        try:
            return _managed(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # the numbers are then taken as sRGB, as most viewers do
    return image if image.mode == "RGB" else image.convert("RGB")


def _managed(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None  # only an in-place conversion returns nothing
    return converted
