"""Build trm_nb/assets/atlas/atlas12.npz.xz and atlas8.npz.xz: every character as cells of 7x14 and of 5x10 pixels.

Run `python tools/build_atlas.py` where matplotlib is installed (it ships DejaVu Sans Mono) and GNU Unifont is under
/usr/share (Debian: `apt install unifont`). The result is committed; nobody who uses the package runs this.

Choice: DejaVu Sans Mono for what it has (hinted, so FreeType renders the same pixels everywhere), GNU Unifont for the
rest. Unifont's 8x16 and 16x16 bitmaps are cropped where their ink fits and otherwise scaled by area with integer sums,
so that no float decides a pixel. Ink is kept in 16 levels. Two characters that a font renders differently get different
cells: first from the other font, then scaled instead of cropped, and at last from no font at all (the renderer then
shows the hex digits). What is rendered alike in the font itself (A, Α and А) stays alike.
Cost: half a minute, and two files of about 1 MB.
"""

from __future__ import annotations

import argparse
import io
import lzma
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import wcwidth
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
DEJAVU = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSansMono.ttf"
UNIFONT = Path("/usr/share/unifont")
UNIFONT_UPPER = Path("/usr/share/fonts/opentype/unifont/unifont_upper.otf")
SIZES = {12: (7, 14), 8: (5, 10)}
BLANKS = frozenset(
    map(ord, " \u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000")
)


Way = tuple[bytes, np.ndarray]  # what the font renders (equal bytes: look-alikes), levels 0..15 (h, w) or (h, 2w)


@dataclass(frozen=True)
class Unifont:
    """Source bitmaps (rows 16, columns 8 or 16, bool) by code point, and which of them are rendered over a base."""

    bitmaps: dict[int, np.ndarray]
    overlaid: frozenset[int]


def read_unifont() -> Unifont:
    """The Basic Multilingual Plane from unifont.hex, the planes above it from Unifont Upper."""
    bitmaps = {}
    for line in (UNIFONT / "unifont.hex").read_text().splitlines():
        code, digits = line.split(":")
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))
        bitmaps[int(code, 16)] = bits.reshape(16, -1).astype(bool)
    overlaid = set()
    for line in (UNIFONT / "plane00-combining.txt").read_text().split():
        code, offset = line.split(":")
        if int(code, 16) in bitmaps and -int(offset) == bitmaps[int(code, 16)].shape[1]:
            overlaid.add(int(code, 16))
    return Unifont({**bitmaps, **read_upper()}, frozenset(overlaid))


def read_upper() -> dict[int, np.ndarray]:
    """Unifont Upper's outlines are squares on a grid of 16: rendered at 16 pixels they are the bitmaps again."""
    font = TTFont(UNIFONT_UPPER)
    advance, unit = font["hmtx"], font["head"].unitsPerEm // 16
    drawer = ImageFont.truetype(UNIFONT_UPPER, 16, layout_engine=ImageFont.Layout.BASIC)
    bitmaps = {}
    for code, name in font.getBestCmap().items():
        width = advance[name][0] // unit
        if code < 0x10000 or width not in (8, 16):
            continue
        image = Image.new("1", (width, 16))
        ImageDraw.Draw(image).text((0, 0), chr(code), fill=1, font=drawer)
        bitmaps[code] = np.array(image)
    return bitmaps


def is_wide(code: int) -> bool:
    return wcwidth.wcwidth(chr(code)) == 2


def category(code: int) -> str:
    return unicodedata.category(chr(code))


def draw_dejavu(size: int, codes: list[int], cell: tuple[int, int]) -> dict[int, np.ndarray]:
    """Ink levels 0..15 (h, w) of every code point, rendered by FreeType with the font's own hints.

    At 12 pixels the font's lines are 15 high: glyphs are lifted by one, so that g and _ keep their last row, but for
    those that would then lose their first.
    """
    font = ImageFont.truetype(DEJAVU, size, layout_engine=ImageFont.Layout.BASIC)
    lift = max(0, sum(font.getmetrics()) - cell[1])
    rendered = {}
    for code in codes:
        image = Image.new("L", cell)
        top = -lift if font.getbbox(chr(code))[1] >= lift else 0
        ImageDraw.Draw(image).text((0, top), chr(code), fill=255, font=font)
        rendered[code] = ((np.asarray(image).astype(np.int64) * 15 + 127) // 255).astype(np.uint8)
    return rendered


def area_matrix(source: int, target: int) -> np.ndarray:
    """Integer weights (target, source); each row sums to `source`, and is how much each source pixel gives."""
    edges_in, edges_out = np.arange(source + 1) * target, np.arange(target + 1) * source
    low = np.maximum(edges_in[None, :-1], edges_out[:-1, None])
    high = np.minimum(edges_in[None, 1:], edges_out[1:, None])
    return np.maximum(high - low, 0)


def window(ink: np.ndarray, length: int, starts: tuple[int, ...]) -> slice | None:
    """The first of the windows of this length that holds all ink along an axis."""
    for start in starts:
        inside = slice(start, start + length)
        if ink[inside].sum() == ink.sum():
            return inside
    return None


def place_unifont(bitmap: np.ndarray, cell: tuple[int, int], crop: bool) -> np.ndarray:
    """Ink levels 0..15 (h, w) or (h, 2w) of a Unifont bitmap: cropped to its window where the ink fits, then scaled."""
    width, height = cell[0] * bitmap.shape[1] // 8, cell[1]
    if crop:
        rows = window(bitmap.any(axis=1), 14, (1, 2, 0))
        columns = window(bitmap.any(axis=0), 7 * bitmap.shape[1] // 8, (1, 0) if bitmap.shape[1] == 8 else (1, 0, 2))
        bitmap = bitmap[rows or slice(None), columns or slice(None)]
    down, across = area_matrix(bitmap.shape[0], height), area_matrix(bitmap.shape[1], width)
    total = bitmap.shape[0] * bitmap.shape[1]
    return ((down @ bitmap.astype(np.int64) @ across.T * 15 + total // 2) // total).astype(np.uint8)


def unifont_ways(code: int, bitmap: np.ndarray, overlaid: bool, cell: tuple[int, int]) -> list[Way]:
    """A wide rendering whose ink lies in one half becomes narrow, unless it belongs at a place over a wide base."""
    if is_wide(code) and bitmap.shape[1] == 8:
        bitmap = np.pad(bitmap, ((0, 0), (4, 4)))
    elif bitmap.shape[1] == 16 and not is_wide(code) and not overlaid:
        ink = bitmap.any(axis=0)
        half = window(ink, 8, (4, 0, 8, *range(16)))
        bitmap = bitmap if half is None else bitmap[:, half]
    return [(b"unifont" + bitmap.tobytes(), place_unifont(bitmap, cell, crop)) for crop in (True, False)]


def ways_to_draw(size: int, unifont: Unifont) -> dict[int, list[Way]]:
    """For every code point the ways to render it, best first."""
    cell = SIZES[size]
    # invisible controls (soft hyphen, directions, joiners) are left to Unifont, which renders them as labelled boxes
    dejavu = [c for c in sorted(TTFont(DEJAVU).getBestCmap()) if not is_wide(c) and category(c) not in ("Cc", "Cf")]
    small, large = draw_dejavu(size, dejavu, cell), draw_dejavu(96, dejavu, (58, 112))
    ways: dict[int, list[Way]] = defaultdict(list)
    for code in BLANKS:
        ways[code] = [(b"blank", np.zeros((cell[1], cell[0] * (1 + is_wide(code))), np.uint8))]
    for code in dejavu:
        if small[code].any():
            ways[code].append((b"dejavu" + large[code].tobytes(), small[code]))
    for code, bitmap in unifont.bitmaps.items():
        if code >= 0x20 and code != 0x7F and bitmap.any():
            ways[code] += unifont_ways(code, bitmap, code in unifont.overlaid, cell)
    return ways


def resolve(ways: dict[int, list[Way]]) -> dict[int, np.ndarray]:
    """Levels by code point, so that equal cells mean equal glyphs in the font; the lower code point chooses first."""
    owner: dict[bytes, bytes] = {}
    chosen = {}
    for code in sorted(ways):
        for looks, levels in ways[code]:
            if owner.setdefault(bytes([levels.shape[1]]) + levels.tobytes(), looks) == looks:
                chosen[code] = levels
                break
    return chosen


def pairs(chosen: dict[int, np.ndarray], width: int) -> list[int]:
    """Wide glyphs that could be read as two narrow ones, or as a narrow one and the beginning of another wide one."""
    narrow = {v.tobytes() for v in chosen.values() if v.shape[1] == width}
    lefts = {v[:, :width].tobytes() for v in chosen.values() if v.shape[1] > width}
    halves = {c: (v[:, :width].tobytes(), v[:, width:].tobytes()) for c, v in chosen.items() if v.shape[1] > width}
    return [c for c, (a, b) in halves.items() if c not in BLANKS and a in narrow and b in narrow | lefts]


def choose(size: int, unifont: Unifont) -> tuple[dict[int, np.ndarray], dict[int, int]]:
    """Levels by code point, and its kind: 1 a mark to lay over a base, 2 one that alone would be misread."""
    ways, special, width = ways_to_draw(size, unifont), {}, SIZES[size][0]
    for code, renderings in ways.items():
        narrow = renderings[0][1].shape[1] == width
        if code in unifont.overlaid or (narrow and category(code) in ("Mn", "Me")):
            special[code] = 1
    while bad := [c for c in pairs(resolve(ways), width) if special.get(c) != 2]:
        for code in bad:
            if special.get(code) == 1:
                special[code] = 2
            else:
                ways[code] = ways[code][1:]
    return resolve(ways), special


def pack(chosen: dict[int, np.ndarray], width: int) -> np.ndarray:
    """Cells (cells, h * w / 2) uint8, two levels a byte, in order of code points; a wide glyph is two cells."""
    cells = [part for code in sorted(chosen) for part in np.split(chosen[code], chosen[code].shape[1] // width, axis=1)]
    flat = np.stack(cells).reshape(len(cells), -1)
    flat = np.pad(flat, ((0, 0), (0, flat.shape[1] % 2)))
    return flat[:, 0::2] << 4 | flat[:, 1::2]


def write(out: Path, **arrays: np.ndarray) -> None:
    """An uncompressed npz inside xz: no pickle, the same bytes at every build, half the size of npz's own deflate."""
    raw = io.BytesIO()
    np.savez(raw, **arrays)
    out.write_bytes(lzma.compress(raw.getvalue(), preset=9 | lzma.PRESET_EXTREME))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "trm_nb/assets/atlas", help="folder of the two files")
    folder = parser.parse_args().out
    unifont = read_unifont()
    for size, (width, _) in SIZES.items():
        chosen, special = choose(size, unifont)
        codes = sorted(chosen)
        out = folder / f"atlas{size}.npz.xz"
        write(
            out,
            codes=np.array(codes, np.uint32),
            wide=np.array([chosen[c].shape[1] > width for c in codes]),
            marks=np.array([special.get(c, 0) for c in codes], np.uint8),
            cells=pack(chosen, width),
        )
        lost = sorted({*unifont.bitmaps} - {*chosen} - {*range(0x20), 0x7F})
        print(f"{out}: {out.stat().st_size / 1e6:.2f} MB, {len(codes)} characters; {len(lost)} fell to hex digits:")
        print("  " + " ".join(f"{c:04X}" for c in lost))


if __name__ == "__main__":
    main()
