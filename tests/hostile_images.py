"""Images for `hostile.py`: real ones damaged, and made ones whose headers lie about sizes, counts and offsets."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from damage import Named, flipped, truncated
from PIL import Image, PngImagePlugin

MIB = 2**20
PHOTO = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


@cache
def real_images() -> dict[str, bytes]:
    """A photograph in every format and the variants whose decoders differ."""
    with Image.open(PHOTO) as photo:
        small = photo.convert("RGB").resize((120, 140))
    frames = [small.rotate(turn) for turn in (0, 90, 180)]
    deep = Image.fromarray(np.asarray(small.convert("L")).astype(np.uint16) * 257)
    return {
        "baseline.jpg": encoded(small, "JPEG"),
        "progressive.jpg": encoded(small, "JPEG", progressive=True),
        "colour.png": encoded(small, "PNG"),
        "sixteen.png": encoded(deep, "PNG"),
        "animated.png": encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "lossy.webp": encoded(small, "WEBP"),
        "animated.webp": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "lossy.avif": encoded(small, "AVIF"),
        "animated.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "plain.tiff": encoded(small, "TIFF"),
        "pages.tiff": encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:], compression="tiff_lzw"),
        "colour.bmp": encoded(small, "BMP"),
    }


def damaged_images(rng: random.Random) -> Named:
    for name, data in real_images().items():
        yield name, data
        yield from truncated(name, data)
        yield from flipped(name, data, rng)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, pixels: bytes, depth: int = 8, colour: int = 2, extra: bytes = b"") -> bytes:
    """A PNG that says what it is told to, with these compressed pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def tiff(entries: list[tuple[int, int, int, int]], next_ifd: int, tail: bytes = b"") -> bytes:
    """A little-endian TIFF of one directory at byte 8: (tag, type, count, value) each, and where the next one is."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + struct.pack("<I", next_ifd) + tail


def tiff_entries(width: int, height: int, strip_bytes: int) -> list[tuple[int, int, int, int]]:
    return [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
            (273, 4, 1, 300), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, strip_bytes)]  # fmt: skip


def lying_images(rng: random.Random) -> Named:
    real = real_images()
    zeros = zlib.compress(bytes(MIB))
    yield "side-100000.png", png(100_000, 100_000, zeros)
    yield "side-2-to-the-31.png", png(2**31 - 1, 2**31 - 1, zeros)
    yield "side-0.png", png(0, 0, zeros)
    yield "wide-1x40000000.png", png(40_000_000, 1, zlib.compress(bytes(120_000_001)))
    yield "bomb-8000x8000.png", png(8000, 8000, zlib.compress(bytes(8000 * 24_001)))
    yield "bomb-20000x20000-1bit.png", png(20_000, 20_000, zlib.compress(bytes(20_000 * 2501)), depth=1, colour=0)
    yield "no-pixels.png", png(50, 50, b"")
    yield "garbage-pixels.png", png(50, 50, rng.randbytes(5000))
    yield "wrong-depth.png", png(50, 50, zeros, depth=7, colour=9)
    bomb = zlib.compress(bytes(200 * MIB), 9)
    yield "text-bomb.png", png(1, 1, zlib.compress(bytes(4)), extra=png_chunk(b"zTXt", b"k\0\0" + bomb))
    yield "profile-bomb.png", png(1, 1, zlib.compress(bytes(4)), extra=png_chunk(b"iCCP", b"k\0\0" + bomb))
    many = PngImagePlugin.PngInfo()
    for number in range(20_000):
        many.add_text(f"k{number}", "v")
    yield "20000-texts.png", encoded(Image.new("RGB", (4, 4)), "PNG", pnginfo=many)
    jpeg = real["baseline.jpg"]
    frame = jpeg.index(b"\xff\xc0")
    yield "side-65500.jpg", jpeg[: frame + 5] + struct.pack(">HH", 65_500, 65_500) + jpeg[frame + 9 :]
    yield "side-7900.jpg", jpeg[: frame + 5] + struct.pack(">HH", 7900, 7900) + jpeg[frame + 9 :]
    yield "exif-bomb.jpg", jpeg[:2] + 200 * (b"\xff\xe1" + struct.pack(">H", 65_000) + bytes(64_998)) + jpeg[2:]
    flat = encoded(Image.new("L", (7900, 7900), 77), "JPEG", progressive=True)
    scan = flat[flat.rindex(b"\xff\xda") : -2]  # 92 bytes, and all 62 megapixels are gone through for them
    yield "300-scans.jpg", flat[:-2] + 300 * scan + flat[-2:]
    gif = real["animated.gif"]
    yield "screen-65535.gif", gif[:6] + struct.pack("<HH", 65_535, 65_535) + gif[10:]
    dot = encoded(Image.new("P", (1, 1)), "GIF")
    yield "50000-frames.gif", dot[:-1] + 50_000 * dot[dot.index(b",") : -1] + b";"
    yield "frame-outside.gif", gif.replace(b",\0\0\0\0", b",\xff\xff\xff\xff", 1)
    bmp = real["colour.bmp"]
    yield "side-30000.bmp", bmp[:18] + struct.pack("<ii", 30_000, 30_000) + bmp[26:]
    yield "height-minimum.bmp", bmp[:18] + struct.pack("<ii", 30_000, -(2**31)) + bmp[26:]
    yield "colours-2-to-the-31.bmp", bmp[:46] + struct.pack("<I", 2**31) + bmp[50:]
    yield "offset-outside.bmp", bmp[:10] + struct.pack("<I", 2**31) + bmp[14:]
    webp = real["lossy.webp"]
    yield "size-4-gib.webp", webp[:4] + b"\xff\xff\xff\xff" + webp[8:]
    yield "side-16383.webp", webp.replace(webp[26:30], b"\xff\x3f\xff\x3f", 1)
    yield "directory-loop.tiff", tiff(tiff_entries(8, 8, 64), 8, bytes(400))
    yield "directory-outside.tiff", tiff(tiff_entries(8, 8, 64), 2**31, bytes(400))
    yield "side-65000.tiff", tiff(tiff_entries(65_000, 65_000, 2**31), 0, bytes(400))
    yield "strip-outside.tiff", tiff(tiff_entries(8, 8, 2**31), 0)
    yield "60000-tags.tiff", tiff([(40_000 + n % 20_000, 4, 2**28, 8) for n in range(60_000)], 0)
    yield "count-4-gib.tiff", tiff([*tiff_entries(8, 8, 64), (700, 1, 2**32 - 1, 8)], 0, bytes(400))
    yield "500-pages.tiff", b"".join(tiff_chain(500))
    yield "tail-of-garbage.png", real["colour.png"] + rng.randbytes(MIB)


def tiff_chain(pages: int) -> Iterator[bytes]:
    """A TIFF of many directories that all show the same strip."""
    yield b"II*\0\x08\0\0\0"
    entries = b"".join(struct.pack("<HHII", *entry) for entry in tiff_entries(8, 8, 64))
    size = 2 + len(entries) + 4
    for page in range(pages):
        following = 8 + (page + 1) * size if page + 1 < pages else 0
        yield struct.pack("<H", len(entries) // 12) + entries + struct.pack("<I", following)
    yield bytes(400)
