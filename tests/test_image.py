"""Photographs: letterboxed, oriented, on white, in sRGB, and refused when hostile."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from matplotlib import get_data_path
from PIL import Image, ImageCms

from trm_nb.render.errors import RejectedError
from trm_nb.render.image import BACKGROUND, MAX_PIXELS, probe, render_image

PHOTO = Path(get_data_path()) / "sample_data" / "grace_hopper.jpg"


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.open(PHOTO).convert("RGB")


@pytest.fixture(scope="module")
def expected(photo: Image.Image) -> np.ndarray:
    return render_image(encoded(photo, "PNG"))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9)))


def test_letterbox(expected: np.ndarray) -> None:
    assert expected.shape == (224, 224, 3) and expected.dtype == np.uint8
    inside = slice(16, 16 + 191)  # 512 x 600 becomes 191 x 224
    assert (expected[:, :16] == BACKGROUND).all() and (expected[:, 16 + 191 :] == BACKGROUND).all()
    reference = np.asarray(Image.open(PHOTO).resize((191, 224), Image.Resampling.LANCZOS))
    assert np.array_equal(expected[:, inside], reference)


@pytest.mark.parametrize(
    ("format", "options", "at_least"),
    [
        ("JPEG", {"quality": 95}, 35),
        ("WEBP", {"lossless": True}, 99),
        ("TIFF", {}, 99),
        ("BMP", {}, 99),
        ("GIF", {}, 22),
    ],
    ids=lambda v: str(v),
)
def test_formats(photo: Image.Image, expected: np.ndarray, format: str, options: dict, at_least: float) -> None:
    assert psnr(render_image(encoded(photo, format, **options)), expected) > at_least


@pytest.mark.parametrize(
    ("mode", "format"), [("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("CMYK", "TIFF"), ("LAB", "TIFF")]
)
def test_modes(photo: Image.Image, mode: str, format: str) -> None:
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        source = ImageCms.profileToProfile(photo, *profiles, outputMode="LAB")
    else:
        source = photo.convert(mode)
    assert source is not None
    plain = photo if mode in ("CMYK", "LAB") else source.convert("RGB")
    assert psnr(render_image(encoded(source, format)), render_image(encoded(plain, "PNG"))) > 20


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation(photo: Image.Image, expected: np.ndarray, orientation: int, format: str) -> None:
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that the tag undoes
    turned = photo.transpose(Image.Transpose(back[orientation])) if orientation > 1 else photo
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if format == "WEBP" else {"quality": 95} if format == "JPEG" else {}
    assert psnr(render_image(encoded(turned, format, exif=exif, **lossless)), expected) > 33


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparency_is_white(mode: str) -> None:
    clear = Image.new("RGBA", (10, 10), (255, 0, 0, 0))
    options: dict[str, object] = {}
    if mode == "P":
        clear, options = Image.new("P", (10, 10), 0), {"transparency": 0}
    elif mode == "RGB":
        clear, options = Image.new("RGB", (10, 10), (255, 0, 0)), {"transparency": (255, 0, 0)}
    else:
        clear = clear.convert(mode)
    assert (render_image(encoded(clear, "PNG", **options)) == 255).all()


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 224).astype(np.uint16)
    picture = render_image(encoded(Image.fromarray(np.tile(ramp, (224, 1))), "PNG"))
    assert np.array_equal(picture[0, :, 0], np.rint(ramp / 257).astype(np.uint8))


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.0, 0.5, 1.0], [0, 128, 255]), ([-3.0, 0.0, 3.0], [0, 128, 255]), ([0.25, np.nan, 1.0], [64, 0, 255])],
    ids=["0..1", "stretched", "not a number"],
)
def test_floats_are_scaled(values: list[float], expected: list[int]) -> None:
    columns = np.repeat(np.array(values, np.float32), 75)[:224]
    picture = render_image(encoded(Image.fromarray(np.tile(columns, (224, 1))), "TIFF"))
    assert [int(picture[0, x, 0]) for x in (10, 110, 210)] == expected


@pytest.mark.parametrize("format", ["GIF", "TIFF"])
def test_every_page_and_frame_is_a_picture(format: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "lime")]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    assert probe(data) == 3
    colours = [tuple(render_image(data, frame=frame)[112, 112].tolist()) for frame in range(3)]
    assert colours == [(255, 0, 0), (0, 0, 255), (0, 255, 0)]


def test_icc_profile_is_applied_and_a_damaged_one_left_aside(photo: Image.Image, expected: np.ndarray) -> None:
    plain = encoded(photo, "PNG")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert psnr(render_image(encoded(photo, "PNG", icc_profile=srgb)), expected) > 50
    assert np.array_equal(render_image(encoded(photo, "PNG", icc_profile=b"no profile")), render_image(plain))
    swapped = bytearray(srgb)  # the red and the blue primary change their places in the table of tags
    red, blue = swapped.index(b"rXYZ", 128), swapped.index(b"bXYZ", 128)
    swapped[red : red + 4], swapped[blue : blue + 4] = b"bXYZ", b"rXYZ"
    exchanged = render_image(encoded(photo, "PNG", icc_profile=bytes(swapped)))
    assert psnr(exchanged, expected[..., ::-1]) > 20 > psnr(exchanged, expected)


def test_large_jpeg_is_close_to_its_full_decode(photo: Image.Image) -> None:
    data = encoded(photo.resize((2048, 2400), Image.Resampling.BICUBIC), "JPEG", quality=92)
    full = Image.open(io.BytesIO(data)).resize((191, 224), Image.Resampling.LANCZOS)
    assert psnr(render_image(data)[:, 16:207], np.asarray(full)) > 40


@pytest.mark.parametrize("size", [(1, 1), (5000, 1), (1, 5000), (3, 7)], ids=str)
def test_extreme_shapes(size: tuple[int, int]) -> None:
    picture = render_image(encoded(Image.new("RGB", size, (10, 20, 30)), "PNG"))
    drawn = (picture == (10, 20, 30)).all(axis=-1)
    assert drawn.any() and (drawn | (picture == BACKGROUND).all(axis=-1)).all()
    assert drawn.any(axis=0).sum() == 224 or drawn.any(axis=1).sum() == 224


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return start + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


NOT_PICTURES = {
    "empty": (b"", "got something else"),
    "text": (b"hello", "got something else"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "got something else"),
    "another format": (b"P6 1 1 255 abc", "got something else"),
    "just too large": (png_header(8001, 8000), "at most 64 megapixels, got 8001x8000"),
    "a bomb": (png_header(60000, 60000), "at most 64 megapixels"),
}


@pytest.mark.parametrize(("data", "message"), NOT_PICTURES.values(), ids=NOT_PICTURES.keys())
def test_hostile_headers_are_rejected(data: bytes, message: str) -> None:
    assert MAX_PIXELS == 64_000_000
    for function in (probe, render_image):
        with pytest.raises(RejectedError, match=message):
            function(data)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_truncated_pictures_pass_the_probe_or_not_but_are_never_drawn(photo: Image.Image, format: str) -> None:
    data = encoded(photo, format)
    with pytest.raises(RejectedError):
        render_image(data[: len(data) // 2])


def test_probe_tells_the_size(photo: Image.Image) -> None:
    assert probe(PHOTO.read_bytes()) == 1
    with PHOTO.open("rb") as stream:
        assert probe(stream) == 1
