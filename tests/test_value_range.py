"""Values of more than 8 bits: the range they are scaled from, whatever file or PIL image they come in."""

from __future__ import annotations

import io
import struct
import zlib
from itertools import product

import numpy as np
import pytest
from PIL import Image

from trm_nb.errors import RejectedError
from trm_nb.records import ImageBytes, Item
from trm_nb.render.image import probe, render_image
from trm_nb.render.image_files import value_range
from trm_nb.render.renderer import Renderer, RenderSettings
from trm_nb.sources.memory import as_items

SIDE = 32
RAMP = np.tile(np.arange(SIDE) * 100, (SIDE, 1))  # up to 3100: 12 bits
COLOURS = np.stack([RAMP, RAMP // 2, RAMP[:, ::-1]], axis=-1).astype(np.uint16)
OPAQUE = np.full((SIDE, SIDE, 1), 65535, np.uint16)
Tags = dict[int, tuple[str, tuple[int, ...]]]  # tag -> struct's letter (H: short, L: long, d: double), values


def tiff(*pages: np.ndarray, order: str = "<", photometric: int = 1, packed: bool = False, planes: bool = False,
         tags: Tags | None = None) -> bytes:  # fmt: skip
    """A TIFF whose pages are (h, w) or (h, w, channels), with more tags on each."""
    out = bytearray({"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 0))
    link = 4
    for page in pages:
        height, width, channels = (*page.shape, 1)[:3]
        stored = page.astype(page.dtype.newbyteorder(order)).reshape(height, width, channels)
        parts = [stored[..., c] for c in range(channels)] if planes else [stored]
        strips = [zlib.compress(part.tobytes()) if packed else part.tobytes() for part in parts]
        places = [len(out) + sum(map(len, strips[:number])) for number in range(len(strips))]
        out += b"".join(strips)
        found: Tags = {
            256: ("L", (width,)), 257: ("L", (height,)), 258: ("H", (page.dtype.itemsize * 8,) * channels),
            259: ("H", (8 if packed else 1,)), 262: ("H", (photometric,)), 273: ("L", tuple(places)),
            277: ("H", (channels,)), 278: ("L", (height,)), 279: ("L", tuple(map(len, strips))),
            284: ("H", (2 if planes else 1,)), 339: ("H", ({"u": 1, "i": 2, "f": 3}[page.dtype.kind],) * channels),
            **({338: ("H", (2,))} if channels == 4 else {}), **(tags or {}),
        }  # fmt: skip
        entries = b""
        for tag, (letter, values) in sorted(found.items()):
            field = struct.pack(f"{order}{len(values)}{letter}", *values)
            if len(field) > 4:
                out += field
                field = struct.pack(order + "I", len(out) - len(field))
            kind = {"H": 3, "L": 4, "d": 12}[letter]
            entries += struct.pack(order + "HHI", tag, kind, len(values)) + field.ljust(4, b"\0")
        out[link : link + 4] = struct.pack(order + "I", len(out))
        out += struct.pack(order + "H", len(found)) + entries
        link = len(out)
        out += bytes(4)
    return bytes(out)


def png(values: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16 bits a channel: gray (h, w), with alpha (h, w, 2), or colours (h, w, 3 or 4)."""
    height, width, channels = (*values.shape, 1)[:3]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    written = [struct.pack(">I", len(body)) + k + body + struct.pack(">I", zlib.crc32(k + body)) for k, body in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def shades(data: bytes, frame: int = 0) -> list[int]:
    """The gray values of the first row."""
    image = render_image(data, SIDE, frame)
    assert (image == image[..., :1]).all()
    return [int(value) for value in image[0, :, 0]]


def scaled(values: np.ndarray, high: float, low: float = 0.0) -> list[int]:
    return [int(value) for value in np.rint((values.astype(float) - low) * 255 / (high - low))]


NAN, INF = float("nan"), float("inf")
RANGES = {
    "mask": ([0, 1], 0, 1),
    "8 bits": ([0, 2, 200], 0, 255),
    "10 bits": ([0, 256, 1023], 0, 1023),
    "12 bits": ([7, 1024, 4095], 0, 4095),
    "14 bits": ([0, 4096], 0, 16383),
    "16 bits": ([0, 16384], 0, 65535),
    "17 bits": ([1000, 65536], 1000, 65536),
    "negative": ([-1024, 3071], -1024, 3071),
    "fractions to 1": ([0.0, 0.25, 0.9], 0, 1),
    "fractions to 255": ([10.5, 200.25], 0, 255),
    "fractions in between": ([0.5, 9.5], 0.5, 9.5),
    "a little above 1": ([0.0, 0.7, 1.02], 0, 1.02),
    "whole floats": ([0.0, 255.0], 0, 255),
    "NaN aside": ([NAN, 0.25, 0.75], 0, 1),
}


@pytest.mark.parametrize(("values", "low", "high"), RANGES.values(), ids=RANGES.keys())
def test_the_range_is_the_smallest_that_holds_the_maximum(values: list[float], low: float, high: float) -> None:
    whole = all(isinstance(value, int) for value in values)
    row = np.resize(np.array(values, np.int32 if whole else np.float32), SIDE)
    expected = [0 if np.isnan(value) else scaled(np.array(value), high, low) for value in row[:, None]]
    assert shades(tiff(np.tile(row, (SIDE, 1)))) == [v if isinstance(v, int) else v[0] for v in expected]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([NAN, INF, -INF, 0.0, 1.0], [0, 255, 0, 0, 255], id="not finite"),
        pytest.param([NAN] * 5, [0] * 5, id="only NaN"),
        pytest.param([INF] * 5, [255] * 5, id="only infinity"),
        pytest.param([0.0] * 5, [0] * 5, id="only zero"),
        pytest.param([-5.0] * 5, [0] * 5, id="one negative value"),
    ],
)
def test_values_without_a_range(values: list[float], expected: list[int]) -> None:
    row = np.resize(np.array(values, np.float32), SIDE)
    assert shades(tiff(np.tile(row, (SIDE, 1)))) == np.resize(expected, SIDE).tolist()


DTYPES = ["u2", "i2", "u4", "i4", "f2", "f4", "f8"]
KINDS = list(product(DTYPES, "<>", (False, True), (1, 0)))


@pytest.mark.parametrize(("dtype", "order", "packed", "photometric"), KINDS, ids=lambda value: str(value))
def test_tiffs_of_any_sample_look_the_same(dtype: str, order: str, packed: bool, photometric: int) -> None:
    data = tiff(RAMP.astype(dtype), order=order, packed=packed, photometric=photometric)
    expected = scaled(RAMP[0], 4095)
    assert shades(data) == (expected if photometric else [255 - value for value in expected])
    sampled = Renderer(RenderSettings(image_size=SIDE))
    for read in (False, True):
        image = Image.open(io.BytesIO(data))
        if read and packed and order == ">":
            continue  # Pillow itself misreads these
        image.load() if read else None
        samples = [s for item in as_items([image]) for s in sampled.samples(item)]
        assert sampled.rasterise(samples)[0][0, 0, :, 0].tolist() == shades(data), "a PIL image differs from its file"


def test_white_is_zero_leaves_nan_black() -> None:
    row = np.resize(np.array([NAN, 0.0, 1.0], np.float32), SIDE)
    assert shades(tiff(np.tile(row, (SIDE, 1)), photometric=0))[:3] == [0, 255, 0]


def test_8_and_16_bits_of_white_is_zero_look_the_same() -> None:
    eight = np.tile(np.arange(SIDE, dtype=np.uint8) * 8, (SIDE, 1))
    sixteen = eight.astype(np.uint16) * 257
    assert shades(tiff(eight, photometric=0)) == shades(tiff(sixteen, photometric=0)) != shades(tiff(eight))


def test_large_unsigned_and_small_signed_values() -> None:
    large = np.tile(np.arange(SIDE, dtype=np.uint32) << 27, (SIDE, 1))
    assert shades(tiff(large)) == scaled(np.arange(SIDE), SIDE - 1)
    small = np.tile(np.arange(-128, 128, 8, dtype=np.int8), (SIDE, 1))
    assert shades(tiff(small)) == scaled(np.arange(SIDE), SIDE - 1)


STATED = {
    "MaxSampleValue": (RAMP.astype("u2"), {281: ("H", (8191,))}, 8191.0, 0.0),
    "MaxSampleValue of all 16 bits": (RAMP.astype("u2"), {281: ("H", (65535,))}, 65535.0, 0.0),
    "both ends": (RAMP.astype("u2") + 500, {280: ("H", (500,)), 281: ("H", (3600,))}, 3600.0, 500.0),
    "too small": (RAMP.astype("u2"), {281: ("H", (3000,))}, 4095.0, 0.0),
    "SMaxSampleValue": (RAMP.astype("f4") / 2, {340: ("d", (-10,)), 341: ("d", (2000,))}, 2000.0, -10.0),
    "of negative values": (RAMP.astype("i2") - 1000, {340: ("H", (0,)), 341: ("H", (3000,))}, 2100.0, -1000.0),
    "not a number": (RAMP.astype("u2"), {281: ("d", (NAN,))}, 4095.0, 0.0),
}


@pytest.mark.parametrize(("values", "tags", "high", "low"), STATED.values(), ids=STATED.keys())
def test_a_tiff_states_its_range(values: np.ndarray, tags: Tags, high: float, low: float) -> None:
    assert shades(tiff(values, tags=tags)) == scaled(values[0], high, low)


def test_12_bits_a_sample_are_a_range() -> None:
    pairs = RAMP.reshape(-1, 2) // 10  # up to 310: two values in three bytes
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=-1)
    data = packed.astype(np.uint8).reshape(SIDE, -1)
    for order, photometric in product("<>", (1, 0)):
        stated: Tags = {256: ("L", (SIDE,)), 258: ("H", (12,))}
        found = shades(tiff(data, order=order, photometric=photometric, tags=stated))
        assert found == [v if photometric else 255 - v for v in scaled(RAMP[0] // 10, 4095)]


@pytest.mark.parametrize(
    ("bits", "values", "high"),
    [
        pytest.param(12, RAMP // 10, 4095, id="12, dark"),
        pytest.param(16, RAMP, 65535, id="16, dark"),
        pytest.param(12, RAMP * 20, 65535, id="12, scaled to 16"),
        pytest.param(0, RAMP, 4095, id="nonsense"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_states_its_significant_bits(bits: int, values: np.ndarray, high: int, channels: int) -> None:
    pixels = values if channels == 1 else np.stack([values] * channels, axis=-1)
    found = shades(png(pixels, (b"sBIT", bytes([bits]) * channels)))
    assert np.abs(np.subtract(found, scaled(values[0], high))).max() <= (high == 65535 and channels == 3)


WRITERS = {
    "PNG": lambda values: png(values),
    "PNG with alpha": lambda values: png(np.concatenate([values, OPAQUE], axis=-1)),
    "TIFF": lambda values: tiff(values, photometric=2),
    "TIFF, big-endian": lambda values: tiff(values, photometric=2, order=">"),
    "TIFF, packed": lambda values: tiff(values, photometric=2, packed=True),
    "TIFF, big-endian, packed": lambda values: tiff(values, photometric=2, packed=True, order=">"),
    "TIFF in planes": lambda values: tiff(values, photometric=2, planes=True),
    "TIFF in planes, big-endian": lambda values: tiff(values, photometric=2, planes=True, order=">"),
    "TIFF with alpha": lambda values: tiff(np.concatenate([values, OPAQUE], axis=-1), photometric=2),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_16_bit_colours_have_a_range_too(write) -> None:  # type: ignore[no-untyped-def]
    expected = np.rint(COLOURS * (255 / 4095))
    assert np.array_equal(render_image(write(COLOURS), SIDE), expected)
    image = next(iter(as_items([Image.open(io.BytesIO(write(COLOURS)))]))).payload
    assert isinstance(image, ImageBytes)
    assert np.array_equal(render_image(image.data, SIDE), expected), "a PIL image differs from its file"
    assert np.array_equal(render_image(write(COLOURS * 15), SIDE), COLOURS * 15 >> 8)


def test_low_colours_in_packed_planes_are_refused() -> None:
    with pytest.raises(RejectedError, match="save it with interleaved channels"):
        render_image(tiff(COLOURS, photometric=2, planes=True, packed=True), SIDE)
    bright = tiff(COLOURS * 15, photometric=2, planes=True, packed=True)
    assert np.array_equal(render_image(bright, SIDE), COLOURS * 15 >> 8)


def test_gray_with_alpha_of_16_bits() -> None:
    alpha = np.where(np.arange(SIDE) < 16, 0, 65535) + RAMP * 0
    assert shades(png(np.stack([RAMP, alpha], axis=-1))) == [255] * 16 + scaled(RAMP[0, 16:], 4095)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_value_of_16_bits_is_white(channels: int) -> None:
    pixels = RAMP if channels == 1 else np.stack([RAMP] * 3, axis=-1)
    found = shades(png(pixels, (b"tRNS", struct.pack(">H", 300) * channels)))
    assert found == [
        255 if value == 300 else shade for value, shade in zip(RAMP[0], scaled(RAMP[0], 4095), strict=True)
    ]


def test_each_page_has_its_own_range_unless_the_file_states_one() -> None:
    pages = RAMP.astype(np.uint16), (RAMP * 4).astype(np.uint16)
    assert probe(tiff(*pages)) == [1, 1]
    assert [shades(tiff(*pages), frame) for frame in (0, 1)] == [scaled(pages[0][0], 4095), scaled(pages[1][0], 16383)]
    stated = tiff(*pages, tags={281: ("H", (16383,))})
    assert [shades(stated, frame) for frame in (0, 1)] == [scaled(page[0], 16383) for page in pages]


@pytest.mark.parametrize("mode", ["I", "F", "I;16", "I;16B", "I;16L"])
def test_pil_images_follow_the_same_rule(mode: str) -> None:
    dtype = {"I": "<i4", "F": "<f4", "I;16": "<u2", "I;16B": ">u2", "I;16L": "<u2"}[mode]
    image = Image.frombytes(mode, (SIDE, SIDE), RAMP.astype(dtype).tobytes())
    payload = next(iter(as_items([image]))).payload
    assert isinstance(payload, ImageBytes)
    assert shades(payload.data) == scaled(RAMP[0], 4095)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("write", [tiff, png], ids=["TIFF", "PNG"])
def test_deep_pil_images_are_turned_as_their_files_are(write, orientation: int) -> None:  # type: ignore[no-untyped-def]
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray((RAMP[:20] + np.arange(20)[:, None]).astype(np.uint16)).save(
        buffer, "TIFF" if write is tiff else "PNG", exif=exif
    )
    for read in (False, True):
        image = Image.open(io.BytesIO(buffer.getvalue()))
        image.load() if read else None
        payload = next(iter(as_items([image]))).payload
        assert isinstance(payload, ImageBytes)
        assert np.array_equal(render_image(payload.data, SIDE), render_image(buffer.getvalue(), SIDE))


def test_strips_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [png(RAMP), png(COLOURS), tiff(RAMP.astype("f4") - 7, photometric=0)]
    whole = [render_image(data, SIDE) for data in files]
    monkeypatch.setattr(value_range, "_STRIP", 100)
    assert all(np.array_equal(render_image(data, SIDE), image) for data, image in zip(files, whole, strict=True))


def test_another_revision_is_another_key_for_images_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {kind: Renderer().fingerprint(kind) for kind in ("text", "grid", "image")}  # type: ignore[arg-type]
    monkeypatch.setattr(value_range, "REVISION", value_range.REVISION + 1)
    after = {kind: Renderer().fingerprint(kind) for kind in before}  # type: ignore[arg-type]
    assert [kind for kind in before if before[kind] != after[kind]] == ["image"]


UNREAD = {
    "RGB of floats": (tiff(COLOURS.astype("f4"), photometric=2), "a TIFF of 3 RGB channels of 32-bit floats, .* save"),
    "five channels": (tiff(np.zeros((8, 8, 5), "u2")), "a TIFF of 5 gray channels of 16-bit .* save it as"),
    "64-bit integers": (tiff(RAMP.astype("u8")), "a TIFF of 1 gray channel of 64-bit unsigned integers, .* save"),
    "a compression": (tiff(RAMP.astype("u2"), tags={259: ("H", (34887,))}), "under compression 34887, .* save it"),
    "the second page": (tiff(RAMP.astype("u2"), RAMP.astype("u8")), "page 1 is a TIFF of 1 gray channel of 64-bit"),
    "DNG": (tiff(COLOURS.astype("u1"), photometric=2, tags={50706: ("L", (1,))}), "a DNG file, .*: develop it"),
    "CFA": (tiff(RAMP.astype("u2"), photometric=32803), "a camera's raw file, .*: develop it"),
    "NEF": (tiff(COLOURS.astype("u1"), photometric=2, tags={254: ("L", (1,)), 330: ("L", (8,))}), "a camera's raw"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "reason"), UNREAD.values(), ids=UNREAD.keys())
def test_a_tiff_that_is_not_read_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(RejectedError, match=reason):
        probe(data)
    with pytest.raises(RejectedError, match=reason):
        Renderer().samples(Item("a", "image", ImageBytes(data)))
