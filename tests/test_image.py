"""Photographs: fitted into squares, oriented, on white, in sRGB, and refused when hostile."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from matplotlib import get_data_path
from PIL import Image, ImageCms

from trm_nb.errors import RejectedError
from trm_nb.render import image as module
from trm_nb.render.image import BACKGROUND, MAX_PIXELS, ImageReader, probe, render_image
from trm_nb.render.image_files import value_range
from trm_nb.render.image_files.fit import MAX_TILES, Fit, fitted

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
        ("AVIF", {"quality": 95}, 35),
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
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_orientation(photo: Image.Image, expected: np.ndarray, orientation: int, format: str) -> None:
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that the tag undoes
    turned = photo.transpose(Image.Transpose(back[orientation])) if orientation > 1 else photo
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if format == "WEBP" else {"quality": 95} if format in ("JPEG", "AVIF") else {}
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


@pytest.mark.parametrize("mode", ["RGBA", "P", "I;16"])
def test_large_images_are_converted_in_strips_as_they_would_be_whole(
    photo: Image.Image, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, options = np.random.default_rng(0), {}
    source = photo.copy()
    if mode == "RGBA":
        source.putalpha(Image.fromarray(rng.integers(0, 256, (600, 512), dtype=np.uint8)))
    elif mode == "P":
        source, options = photo.quantize(16), {"transparency": 3}
    else:
        source = Image.fromarray(rng.integers(0, 65536, (600, 512)).astype(np.uint16))
    data = encoded(source, "PNG", **options)
    whole = render_image(data)
    monkeypatch.setattr(module, "_STRIP", 5000)
    monkeypatch.setattr(value_range, "_STRIP", 5000)
    assert np.array_equal(render_image(data), whole)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 224).astype(np.uint16)
    image = render_image(encoded(Image.fromarray(np.tile(ramp, (224, 1))), "PNG"))
    assert np.array_equal(image[0, :, 0], np.rint(ramp / 257).astype(np.uint8))


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.0, 0.5, 1.0], [0, 128, 255]), ([-3.0, 0.0, 3.0], [0, 128, 255]), ([0.25, np.nan, 1.0], [64, 0, 255])],
    ids=["0..1", "stretched", "not a number"],
)
def test_floats_are_scaled(values: list[float], expected: list[int]) -> None:
    columns = np.repeat(np.array(values, np.float32), 75)[:224]
    image = render_image(encoded(Image.fromarray(np.tile(columns, (224, 1))), "TIFF"))
    assert [int(image[0, x, 0]) for x in (10, 110, 210)] == expected


def several(format: str, count: int = 6) -> bytes:
    """So many frames or pages of different looks, those of a TIFF of different sizes too."""
    with Image.open(PHOTO) as photo:
        frames = [photo.rotate(10 * i).resize((90 + 30 * i * (format == "TIFF"), 100)) for i in range(count)]
    lossless = {"lossless": True} if format == "WEBP" else {}
    return encoded(frames[0], format, save_all=True, append_images=frames[1:], **lossless)


@pytest.mark.parametrize("format", ["GIF", "TIFF", "WEBP", "PNG", "AVIF"])
def test_every_page_and_frame_is_an_image(format: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "lime")]
    lossless = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **lossless)
    assert probe(data) == [1, 1, 1]
    assert probe(data, frames="first") == [1]
    colours = np.stack([render_image(data, frame=frame)[112, 112] for frame in range(3)]).astype(int)
    assert np.abs(colours - [(255, 0, 0), (0, 0, 255), (0, 255, 0)]).max() <= 2 * (format == "AVIF")


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [3, 4, 0, 5, 1]], ids=["in order", "mixed"])
@pytest.mark.parametrize("format", ["GIF", "TIFF", "WEBP", "PNG", "AVIF"])
def test_a_reader_that_goes_on_draws_what_one_that_begins_anew_does(format: str, order: list[int]) -> None:
    data, reader = several(format), ImageReader()
    for frame in order:
        assert np.array_equal(reader.rasterise(data, frame), render_image(data, frame=frame)), frame


def test_the_pages_of_a_scan_have_their_own_orientation() -> None:
    page = Image.new("RGB", (40, 20), "red")
    page.paste("blue", (20, 0, 40, 20))
    exif = [Image.Exif() for _ in range(3)]
    for tags, orientation in zip(exif, (1, 6, 3), strict=True):
        tags[0x0112] = orientation
    single = [encoded(page, "TIFF", exif=tags) for tags in exif]
    pages = [Image.open(io.BytesIO(data)) for data in single]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    reader = ImageReader()
    for frame, alone in enumerate(single):
        assert np.array_equal(reader.rasterise(data, frame), render_image(alone)), frame


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
    image = render_image(encoded(Image.new("RGB", size, (10, 20, 30)), "PNG"))
    rendered = (image == (10, 20, 30)).all(axis=-1)
    assert rendered.any() and (rendered | (image == BACKGROUND).all(axis=-1)).all()
    assert rendered.any(axis=0).sum() == 224 or rendered.any(axis=1).sum() == 224


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes, width: int = 10, height: int = 10, data: bytes | None = None) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(31 * 10)) if data is None else data)
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


NOT_IMAGES = {
    "empty": (b"", "got something else"),
    "text": (b"hello", "got something else"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "got something else"),
    "another format": (b"P6 1 1 255 abc", "got something else"),
    "just too large": (png(width=8001, height=8000), "at most 64 megapixels, got 8001x8000"),
    "a bomb": (png(width=60000, height=60000), "at most 64 megapixels"),
}


@pytest.mark.parametrize(("data", "message"), NOT_IMAGES.values(), ids=NOT_IMAGES.keys())
def test_hostile_headers_are_rejected(data: bytes, message: str) -> None:
    assert MAX_PIXELS == 64_000_000
    for function in (probe, render_image):
        with pytest.raises(RejectedError, match=message):
            function(data)


def tiff(tags: dict[int, tuple[int, int, int]], data: bytes = b"", after: int = 0, order: str = "<") -> bytes:
    """A TIFF of one directory: `tags` (tag -> type, count, value) on top of those of 100x100 gray pixels."""
    all_tags = {
        256: (4, 1, 100), 257: (4, 1, 100), 258: (4, 1, 8), 259: (4, 1, 1), 262: (4, 1, 1), 273: (4, 1, 8),
        278: (4, 1, 100), 279: (4, 1, 10000), **tags,
    }  # fmt: skip
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8)
    entries = b"".join(struct.pack(order + "HHII", tag, *field) for tag, field in sorted(all_tags.items()))
    return head + struct.pack(order + "H", len(all_tags)) + entries + struct.pack(order + "I", after) + data


def tiff_chain(pages: int) -> bytes:
    """So many directories, one after the other."""
    size = len(tiff({})) - 8
    return tiff({})[:8] + b"".join(tiff({}, after=8 + size * i if i < pages else 0)[8:] for i in range(1, pages + 1))


def gif(frames: int, width: int = 1, height: int = 1) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return head + (b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00") * frames + b";"


def bmp(width: int, height: int, data: bytes = b"", compression: int = 0, bits: int = 24) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54) + head + data


FRAME_CONTROL = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 10, 10, 0, 0, 1, 1, 0, 0))
BOMB = zlib.compress(bytes(2**27), 9)  # 128 KB
HOSTILE = {
    "profile bomb": (png(chunk(b"iCCP", b"x\0\0" + BOMB)), "Decompressed data too large"),
    "text bomb": (png(chunk(b"zTXt", b"x\0\0" + BOMB)), "Decompressed data too large"),
    "many texts": (
        png(*[chunk(b"zTXt", b"%d\0\0" % i + zlib.compress(bytes(10**6))) for i in range(80)]),
        "Too much memory used in text chunks",
    ),
    "pixels for another size": (png(data=zlib.compress(bytes(100))), "truncated|broken"),
    "APNG of 2 billion frames": (png(chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)), FRAME_CONTROL), "at most 1000"),
    "GIF of 1001 frames": (gif(1001), "at most 1000 pages or frames"),
    "GIF of large frames": (gif(16, 8000, 8000), "at most 1000 megapixels in all frames, got 16 of 8000x8000"),
    "TIFF of 1001 pages": (tiff_chain(1001), "at most 1000 pages or frames"),
    "TIFF of a million strips": (tiff({273: (3, 10**6, 200), 278: (3, 1, 1)}, bytes(2 * 10**6)), "250000 numbers"),
    "the same, big-endian": (tiff({274: (3, 10**6, 200)}, bytes(2 * 10**6), order=">"), r"250000 .* \(tag 274\)"),
    "TIFF of a huge tile": (tiff({322: (4, 1, 32000), 323: (4, 1, 32000)}), "8192 pixels a side .* 32000"),
    "TIFF of 65535 colours": (tiff({277: (3, 1, 65535)}), "got something else"),
    "BigTIFF of 2**60 entries": (b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**60), "65536 entries"),
    "BigTIFF big-endian": (b"MM\0+\0\x08\0\0" + bytes(8), "convert it"),
    "BMP of negative width": (bmp(-5, 5, bytes(999)), "megapixels|something else"),
    "BMP of the least height": (bmp(5, -(2**31)), "megapixels"),
    "BMP of 4 exapixels": (bmp(2**31 - 1, 2**31 - 1), "megapixels"),
    "BMP of no pixels": (bmp(0, 0), "got something else"),
    "BMP that stops": (bmp(8000, 8000, b"\xff\0" * 1000 + b"\0\1", 1, 8), "not enough image data"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_are_rejected_with_a_reason(data: bytes, message: str) -> None:
    with pytest.raises(RejectedError, match=message):
        for frame, _ in enumerate(probe(data)):
            render_image(data, frame=frame)


def test_a_loop_of_directories_ends() -> None:
    assert probe(tiff({}, bytes(10000), after=8)) == [1]


def test_more_pixels_than_the_header_tells_are_left_aside() -> None:
    assert (render_image(png(data=BOMB)) == 0).all()


@pytest.mark.parametrize(
    "garbage", [b"\xff" * 300, b"Exif\0\0II*\0\xff\xff\xff\xff", b""], ids=["ff", "offset", "empty"]
)
def test_damaged_metadata_changes_nothing(photo: Image.Image, expected: np.ndarray, garbage: bytes) -> None:
    for options in ({"exif": garbage}, {"icc_profile": garbage}, {"exif": garbage, "icc_profile": garbage}):
        assert np.array_equal(render_image(encoded(photo, "PNG", **options)), expected)


def test_a_huge_table_of_metadata_takes_no_memory() -> None:
    table = struct.pack("<4sIHHHII", b"II*\0", 8, 1, 0x0112, 3, 2 * 10**6, 22) + bytes(4 * 10**6)
    data, plain = png(chunk(b"eXIf", table)), render_image(png())
    tracemalloc.start()
    try:
        assert np.array_equal(render_image(data), plain)
        assert tracemalloc.get_traced_memory()[1] < 15 * 10**6, "a Python object was made of each number"
    finally:
        tracemalloc.stop()


def test_frames_that_build_on_a_damaged_one_are_given_up_at_once_and_pages_are_not() -> None:
    lying = png(chunk(b"acTL", struct.pack(">II", 900, 0)), FRAME_CONTROL)
    assert probe(lying) == [1] * 900
    reader = ImageReader()
    assert (reader.rasterise(lying) == 0).all()
    for frame in (1, 2, 899):
        with pytest.raises(RejectedError):
            reader.rasterise(lying, frame)
        assert reader._frame == 1, "a frame was tried that cannot be there"
    scan = bytearray(several("TIFF", 3))
    with Image.open(io.BytesIO(scan)) as pages:
        pages.seek(1)
        (offset,) = pages.tag_v2[273]  # type: ignore[attr-defined]
        at = scan.index(struct.pack("<HHII", 273, 4, 1, offset)) + 8
    scan[at : at + 4] = struct.pack("<I", len(scan))
    reader, data = ImageReader(), bytes(scan)
    with pytest.raises(RejectedError):
        reader.rasterise(data, 1)
    assert np.array_equal(reader.rasterise(data, 2), render_image(data, frame=2))


def endless_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG, some bytes a scan, of which each goes over all blocks."""

    def segment(marker: int, body: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body

    def table(kind: int, symbol: int) -> bytes:
        return segment(0xC4, bytes([kind, 1, *[0] * 15, symbol]))

    blocks = (side // 8) ** 2
    runs = "0" + "1" * 14  # a run of 32767 blocks without coefficients
    bits = runs * (blocks // 32767 + 1)
    body = int(bits + "1" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8), "big").replace(b"\xff", b"\xff\0")
    start = segment(0xDB, bytes([0] + [1] * 64)) + segment(0xC2, struct.pack(">BHHBBBB", 8, side, side, 1, 1, 0x11, 0))
    first = segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + bytes(blocks // 8 + 1)
    rest = [segment(0xDA, bytes([1, 1, 0, 1 + k % 63, 1 + k % 63, 0])) + body for k in range(scans)]
    return b"\xff\xd8" + start + table(0, 0) + table(0x10, 0xE0) + first + b"".join(rest) + b"\xff\xd9"


SLOW = {
    "JPEG of 3000 scans": endless_scans(4096, 3000),
    "BMP of 10 million runs": bmp(8000, 8000, b"\1\0" * 10_000_000 + b"\0\1", 1, 8),
}


@pytest.mark.parametrize("data", SLOW.values(), ids=SLOW.keys())
def test_an_image_that_takes_too_long_is_ended_and_may_be_tried_again(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trm_nb.render.guard.DECODE_SECONDS", 0.3)
    reader = ImageReader()
    for frame in (0, 1):
        with pytest.raises(RejectedError, match=r"took longer than 0\.3 s to decode") as caught:
            reader.rasterise(data, frame)
        assert caught.value.failure.retryable
    assert reader._frame == 0, "more of a file that took too long was tried"


def test_counting_frames_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trm_nb.render.guard.DECODE_SECONDS", 0.3)
    with pytest.raises(RejectedError, match=r"took longer than 0\.3 s"):
        probe(gif(1_000_000))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_truncated_images_pass_the_probe_or_not_but_are_never_drawn(photo: Image.Image, format: str) -> None:
    data = encoded(photo.resize((200, 150)), format)
    for length in [*range(0, 100, 7), *np.linspace(100, 0.95 * len(data), 40).astype(int)]:
        with pytest.raises(RejectedError):
            render_image(data[:length])


def test_probe_reads_bytes_and_files() -> None:
    assert probe(PHOTO.read_bytes()) == [1]
    with PHOTO.open("rb") as stream:
        assert probe(stream) == [1]


# -- fit -------------------------------------------------------------------------------------------------------------


def test_crop_is_the_middle_square(photo: Image.Image) -> None:
    reference = photo.resize((224, 224), Image.Resampling.LANCZOS, (0, 44, 512, 556))
    assert np.array_equal(render_image(encoded(photo, "PNG"), fit="crop"), np.asarray(reference))


def test_stretch_is_all_of_it(photo: Image.Image) -> None:
    reference = photo.resize((224, 224), Image.Resampling.LANCZOS)
    assert np.array_equal(render_image(encoded(photo, "PNG"), fit="stretch"), np.asarray(reference))


def joined(data: bytes, rows: int, columns: int, size: int = 224, frame: int = 0) -> np.ndarray:
    """All tiles of a page as one image."""
    reader = ImageReader(size, "tiles")
    tiles = np.stack([reader.rasterise(data, frame, tile) for tile in range(rows * columns)])
    return tiles.reshape(rows, columns, size, size, 3).transpose(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 3)


def test_tiles_are_the_image_at_its_own_resolution(photo: Image.Image) -> None:
    data = encoded(photo, "PNG")
    assert probe(data, fit="tiles") == [3 * 3]
    canvas = joined(data, 3, 3)
    assert np.array_equal(canvas[:600, :512], np.asarray(photo))
    assert (canvas[600:] == BACKGROUND).all() and (canvas[:, 512:] == BACKGROUND).all()


def test_many_tiles_are_reduced_to_64(photo: Image.Image) -> None:
    large = photo.resize((3000, 2500))
    data = encoded(large, "PNG")
    (count,) = probe(data, 224, "tiles")
    shown = fitted("tiles", 3000, 2500, 224)
    assert count == shown.squares == 9 * 7 and (shown.width, shown.height) == (1882, 1568)
    reference = large.resize((1882, 1568), Image.Resampling.LANCZOS)
    assert np.array_equal(joined(data, 7, 9)[:1568, :1882], np.asarray(reference))


@pytest.mark.parametrize("size", [(224, 224), (224, 100), (3, 7)], ids=str)
def test_an_image_within_the_square_is_one_tile_and_letterboxed(photo: Image.Image, size: tuple[int, int]) -> None:
    data = encoded(photo.resize(size), "PNG")
    assert probe(data, fit="tiles") == [1]
    assert np.array_equal(render_image(data, fit="tiles"), render_image(data))


@pytest.mark.parametrize("fit", ["crop", "stretch", "tiles"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_orientation_comes_before_the_fit(photo: Image.Image, format: str, orientation: int, fit: Fit) -> None:
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that the tag undoes
    upright = photo.resize((60, 97))
    turned = upright.transpose(Image.Transpose(back[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(turned, format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
    if fit == "tiles":
        assert probe(data, 28, "tiles") == [4 * 3]
        assert np.array_equal(joined(data, 4, 3, 28)[:97, :60], np.asarray(upright))
    else:
        rendered = render_image(data, 28, fit=fit)
        assert psnr(rendered, render_image(encoded(upright, "PNG"), 28, fit=fit)) > 45  # but for the order of rounding


@pytest.mark.parametrize("fit", ["letterbox", "crop", "stretch", "tiles"])
@pytest.mark.parametrize("size", [(4000, 3000), (700, 4100)], ids=str)
def test_a_large_jpeg_is_close_to_its_full_decode_in_every_fit(
    photo: Image.Image, size: tuple[int, int], fit: Fit
) -> None:
    data = encoded(photo.resize(size, Image.Resampling.BICUBIC), "JPEG", quality=92)
    full = encoded(Image.open(io.BytesIO(data)), "PNG", compress_level=1)
    squares = probe(data, fit=fit)
    assert squares == probe(full, fit=fit)
    one, other = ImageReader(fit=fit), ImageReader(fit=fit)
    for tile in (0, squares[0] // 2, squares[0] - 1):
        assert psnr(one.rasterise(data, 0, tile), other.rasterise(full, 0, tile)) > 38


def test_a_reduced_decode_is_what_the_fit_needs(photo: Image.Image) -> None:
    data = encoded(photo.resize((4096, 4800)), "JPEG")
    decoded = {}
    for fit in ("letterbox", "crop", "tiles"):
        reader = ImageReader(fit=fit)  # type: ignore[arg-type]
        reader.rasterise(data)
        assert reader._image is not None
        decoded[fit] = reader._image.size
    assert decoded == {"letterbox": (512, 600), "crop": (512, 600), "tiles": (4096, 4800)}


def test_pages_of_different_sizes_have_their_own_tiles() -> None:
    data = several("TIFF")  # 90, 120 ... 240 pixels wide, 100 high
    assert probe(data, 100, "tiles") == [1, 2, 2, 2, 3, 3]
    for frame, columns in ((2, 2), (5, 3)):
        with Image.open(io.BytesIO(data)) as scan:
            scan.seek(frame)
            page = np.asarray(scan.convert("RGB"))
        assert np.array_equal(joined(data, 1, columns, 100, frame)[:, : page.shape[1]], page)


def test_tiles_of_a_page_are_cut_from_one_decode(photo: Image.Image) -> None:
    reader, data = ImageReader(fit="tiles"), encoded(photo, "PNG")
    assert reader.rasterise(data, 0, 1).base is reader.rasterise(data, 0, 8).base
    with pytest.raises(RejectedError, match="page 0 has no tile 9"):
        reader.rasterise(data, 0, 9)


SHAPES = [(1, 1), (224, 225), (1793, 1792), (3000, 2500), (64_000_000, 1), (3, 20_000_000), (8000, 8000), (14337, 500)]


@pytest.mark.parametrize("side", [28, 224])
@pytest.mark.parametrize(("width", "height"), SHAPES, ids=str)
def test_tiles_are_few_enough_never_enlarged_and_no_smaller_than_need_be(width: int, height: int, side: int) -> None:
    shown, turned = fitted("tiles", width, height, side), fitted("tiles", height, width, side)
    assert shown.squares == turned.squares <= MAX_TILES
    if max(width, height) <= side:
        return
    assert 1 <= shown.width <= width and 1 <= shown.height <= height
    assert max(shown.width, shown.height) >= side
    assert abs(shown.width * height - shown.height * width) <= max(width, height)  # rounded by half a pixel, or to 1
    if (shown.width, shown.height) != (width, height):
        larger = [(shown.width + 1, -(-(shown.width + 1) * height // width)), (0, 0)]
        larger[1] = (-(-(shown.height + 1) * width // height), shown.height + 1)
        assert all(-(-w // side) * -(-h // side) > MAX_TILES for w, h in larger)
