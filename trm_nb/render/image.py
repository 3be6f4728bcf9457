"""Photographs and scans to square images, an image for each page, frame and tile.

Choice: neutral gray (128) around what is no square, LANCZOS, EXIF orientation applied, transparency on white, ICC
profiles to sRGB where the profile is whole (else the numbers are taken as sRGB), 16-bit and float values scaled from
their range (see `value_range`). JPEGs are decoded at the nearest scale that is at least twice the image (55 dB from
the full decode, five times faster). Files are hostile: only seven formats are tried, the size is checked before any
pixel is decoded, a truncated file is an error, and each image has its time.
Cost: about 35 ms for a JPEG of 12 megapixels; at most 0.6 GB of memory for 64 megapixels with a palette or alpha, 0.8
GB for 16-bit colours of low values, which are decoded twice.
Pixels are equal for equal versions of Pillow and its codecs.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal, TypeVar

import numpy as np
import PIL
from PIL import Image, ImageCms, features

from trm_nb.errors import Failure, RejectedError
from trm_nb.render.guard import guarded
from trm_nb.render.image_files import tiff_samples, value_range
from trm_nb.render.image_files.fit import Fit, Fitted, fitted
from trm_nb.render.image_files.tiff_check import check_tables

T = TypeVar("T")

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")  # beside TIFF's pages; a second image in a JPEG is a thumbnail or the like
MAX_PIXELS = 64_000_000
MAX_SIDE = 500_000
MAX_FRAMES = 1000
MAX_ANIMATION = 1_000_000_000  # pixels of all frames: to render the last one, all before it are decoded
MAX_PROFILE_BYTES, MAX_EXIF_BYTES = 4 * 2**20, 2**16
BACKGROUND = (128, 128, 128)
_STRIP = 1 << 20  # pixels flattened on white together: the steps between need more than a few bytes a pixel
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def versions() -> str:
    """What decides the pixels beside the file: Pillow, its codecs, and the revision of how values become pixels."""
    codecs = ("libjpeg_turbo", "jpg", "zlib", "libtiff", "webp", "avif", "littlecms2")
    versions = [f"{name}={features.version(name)}" for name in codecs]
    return " ".join([PIL.__version__, *versions, f"values={value_range.REVISION}"])


def probe(
    data: bytes | BinaryIO, image_size: int = 224, fit: Fit = "letterbox", frames: Literal["all", "first"] = "all"
) -> list[int]:
    """How many squares each page or frame gives (1 unless they are tiles), from the headers: no pixel is decoded.

    Raises RejectedError: format, damage, size, too many frames, too long.
    """

    def squares() -> list[int]:
        with _opened(data) as image:
            return [fitted(fit, width, height, image_size).squares for width, height in _page_sizes(image, frames)]

    return _guarded(squares)


def render_image(
    data: bytes, image_size: int = 224, frame: int = 0, tile: int = 0, fit: Fit = "letterbox"
) -> np.ndarray:
    """uint8 (h, w, 3): one square of one page or frame. Raises RejectedError with the reason."""
    return ImageReader(image_size, fit).rasterise(data, frame, tile)


_NOTHING = Failure("nothing was read yet")


class ImageReader:
    """Renders pages, frames and tiles, one after the other.

    It remembers the last file, open at the last page, and that page's squares: so the frames before a frame and the
    whole of a tile are decoded once where they are rendered in order. `close` lets go of them.
    """

    def __init__(self, image_size: int = 224, fit: Fit = "letterbox") -> None:
        self.image_size, self.fit = image_size, fit
        self._data: bytes | None = None
        self._image: Image.Image | None = None
        self._frame: int | None = None
        self._rendered: np.ndarray | Failure = _NOTHING  # the page's squares side by side, or why there are none
        self._gave_up = False

    def close(self) -> None:
        """Let go of the last file and image."""
        if self._image is not None:
            self._image.close()
        self._data = self._image = self._frame = None
        self._rendered, self._gave_up = _NOTHING, False

    def rasterise(self, data: bytes, frame: int = 0, tile: int = 0) -> np.ndarray:
        """uint8 (h, w, 3): one square of one page. Raises RejectedError with the reason.

        After a page that took too long or too much memory, or a frame that others build on, no more of the file is
        tried.
        """
        if data is not self._data:
            self.close()
            self._data = data
        if frame != self._frame and not self._gave_up:
            self._frame = frame
            try:
                self._rendered = _guarded(lambda: self._page(data, frame))
            except RejectedError as error:
                builds = self._image is not None and self._image.format in ANIMATED
                self._image, self._rendered = None, error.failure
                self._gave_up = builds or error.failure.retryable
        if isinstance(self._rendered, Failure):
            raise RejectedError(self._rendered.reason, retryable=self._rendered.retryable)
        top, left = (place * self.image_size for place in divmod(tile, self._rendered.shape[1] // self.image_size))
        square = self._rendered[top : top + self.image_size, left : left + self.image_size]
        if not square.size:
            raise RejectedError(f"page {frame} has no tile {tile}")
        return square

    def _page(self, data: bytes, frame: int) -> np.ndarray:
        """uint8 (rows * image_size, columns * image_size, 3): all squares of a page, row by row."""
        if self._image is None or frame < self._image.tell():  # Pillow cannot always go back
            self._image = _opened(data)
        image = self._image
        if frame != image.tell():
            tiff_samples.seek(image, frame)
            _check_size(image)
        fit = fitted(self.fit, *image.size, self.image_size)
        least = (2 * self.image_size,) * 2 if fit.squares == 1 else (2 * fit.width, 2 * fit.height)
        image.draft(image.mode, least)  # a JPEG comes smaller, but at least so large
        if fit.squares == 1:
            fit = fitted(self.fit, *image.size, self.image_size)
        shown = _eight_bit(image, data)
        turn, profile = _TURNS.get(_orientation(image)), image.info.get("icc_profile")
        part = _middle(image) if self.fit == "crop" else None
        small = shown.resize((fit.width, fit.height), Image.Resampling.LANCZOS, part)
        return on_squares(_to_srgb(small if turn is None else small.transpose(turn), profile), fit, self.image_size)


def on_squares(image: Image.Image, fit: Fitted, side: int) -> np.ndarray:
    """uint8 (rows * side, columns * side, 3): the fitted image on its squares, in the middle where there is one."""
    columns, rows = (-(-length // side) for length in image.size)
    canvas = Image.new("RGB", (columns * side, rows * side), BACKGROUND)
    spare = canvas.width - image.width, canvas.height - image.height
    canvas.paste(image, (spare[0] // 2, spare[1] // 2) if fit.squares == 1 else (0, 0))
    return np.array(canvas)


def _guarded(work: Callable[[], T]) -> T:
    """Do it within its time; whatever Pillow raises on a damaged or hostile file becomes a RejectedError."""

    def bounded() -> T:
        try:
            return work()
        except Image.DecompressionBombError:
            raise RejectedError(f"expected at most {MAX_PIXELS // 10**6} megapixels, got far more") from None

    return guarded(bounded, "the image")


def _opened(data: bytes | BinaryIO, frame: int = 0) -> Image.Image:
    """The image at one of its pages, header only."""
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    check_tables(stream, MAX_FRAMES + 1)
    try:
        image = Image.open(stream, formats=FORMATS)
    except PIL.UnidentifiedImageError:
        raise RejectedError(
            tiff_samples.unread(stream) or f"expected an image in one of {', '.join(FORMATS)}, got something else"
        ) from None
    _check_size(image)
    tiff_samples.check_kind(image)
    tiff_samples.seek(image, frame)
    return image


def _check_size(image: Image.Image) -> None:
    if max(image.size) > MAX_SIDE:  # resizing keeps a table of the length of a side
        raise RejectedError(f"expected sides of at most {MAX_SIDE:,} pixels, got {image.width}x{image.height}")
    if image.width * image.height > MAX_PIXELS:
        raise RejectedError(
            f"expected at most {MAX_PIXELS // 10**6} megapixels, got {image.width}x{image.height}"
            + (f" on page {image.tell()}" if image.tell() else "")
        )


def _page_sizes(image: Image.Image, frames: Literal["all", "first"]) -> Iterator[tuple[int, int]]:
    """Width and height of each page or frame that is taken. Raises RejectedError for too many."""
    if frames == "first" or image.format not in (*ANIMATED, "TIFF"):
        yield image.size
        return
    count = 0
    if image.format != "TIFF":  # one size for all frames
        count = int(getattr(image, "n_frames", 1))
        if count <= MAX_FRAMES:
            if count > 1 and count * image.width * image.height > MAX_ANIMATION:
                raise RejectedError(
                    f"expected at most {MAX_ANIMATION // 10**6} megapixels in all frames, "
                    f"got {count} of {image.width}x{image.height}; frames: first takes the first"
                )
            yield from [image.size] * count
    else:
        while count <= MAX_FRAMES:
            try:
                tiff_samples.seek(image, count)
            except EOFError:
                return
            _check_size(image)
            yield image.size
            count += 1
    if count > MAX_FRAMES:
        raise RejectedError(f"expected at most {MAX_FRAMES} pages or frames, got more")


def _orientation(image: Image.Image) -> int:
    """1 to 8 as EXIF counts; 1 where nothing tells, or damage."""
    exif = image.info.get("exif")
    if isinstance(exif, bytes) and len(exif) > MAX_EXIF_BYTES:
        image.info["exif"] = exif[:MAX_EXIF_BYTES]  # a hostile table would take many times its size
    try:
        orientation = image.getexif().get(0x0112)
    except (SyntaxError, struct.error, ValueError, TypeError, LookupError, OSError):
        return 1
    return orientation if isinstance(orientation, int) else 1


def _middle(image: Image.Image) -> tuple[float, float, float, float]:
    """The largest square in the middle: left, top, right, bottom."""
    short = min(image.size)
    left, top = (image.width - short) / 2, (image.height - short) / 2
    return left, top, left + short, top + short


def _eight_bit(image: Image.Image, data: bytes) -> Image.Image:
    """L, RGB, CMYK or LAB without alpha, decoded: what can be resized and colour-managed."""
    deep = value_range.is_deep_colour(image)
    image.load()
    means = value_range.meaning(image, data)
    if value_range.is_deep(image) or means.dtype:
        return value_range.gray(image, means)
    if deep:
        image = value_range.colour(image, means, lambda: _opened(data, image.tell()))
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode in ("L", "RGB", "CMYK", "LAB") else image.convert("L" if image.mode == "1" else "RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """RGB, some rows at a time: the steps between take four times the memory."""
    flat = Image.new("RGB", image.size)
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
        flat.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return flat


def _to_srgb(image: Image.Image, profile: object) -> Image.Image:
    """RGB in sRGB; a profile that is damaged, huge or of another colour model is left aside."""
    if image.mode == "LAB":
        return _managed(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    if isinstance(profile, bytes) and 0 < len(profile) <= MAX_PROFILE_BYTES:
        try:
            return _managed(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # the numbers are then taken as sRGB, as most viewers do
    return image if image.mode == "RGB" else image.convert("RGB")


def _managed(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None  # only an in-place conversion returns nothing
    return converted
