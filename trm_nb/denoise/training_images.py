"""What the denoiser is trained on: crops of photographs, pages and grids.

Photographs are made smaller, to up to three sizes, which takes their own noise and compression away, and cut into
tiles; flat ones are left out, for there is nothing to learn from a sky. Pages are rendered by this package's renderer
in several colours and, for what other scans show, in proportional fonts. One photograph in twenty is held out.
"""

from __future__ import annotations

import hashlib
import logging
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from trm_nb.errors import UserError
from trm_nb.render.grid import GridRenderer
from trm_nb.render.text import TextRenderer
from trm_nb.storage.files import publish

TILE = 128
LONG_SIDES, MIN_SHRINK = (1000, 680, 460), 1.5
MIN_TEXTURE = 3.0  # mean absolute difference of neighbouring pixels, of 255, both directions added
HOLD_OUT = 20
PAGES, GRIDS = 480, 120
SOFT = 0.3  # of the photographs' crops are enlarged, up to twice: most are sharper than what a camera makes
INKS = (("#000000", "#ffffff"), ("#402010", "#f6f0dc"), ("#1a2a6c", "#ffffff"), ("#e6e6e6", "#202428"))
Part: TypeAlias = Literal["photograph", "page", "grid"]
PARTS: tuple[Part, ...] = ("photograph", "page", "grid")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """uint8 (n, side, side, 3) each; `odds` of the tiles, which favour texture; `held_out` tiles are never trained on.

    `name` is a hash of what they were made from.
    """

    tiles: np.ndarray
    odds: np.ndarray
    held_out: np.ndarray
    pages: np.ndarray
    grids: np.ndarray
    name: str

    def crops(self, part: Part, count: int, size: int, rng: np.random.Generator) -> np.ndarray:
        """uint8 (count, size, size, 3): crops at random places, photographs also turned, mirrored and enlarged."""
        out = np.empty((count, size, size, 3), np.uint8)
        photograph = part == "photograph"
        source = {"photograph": self.tiles, "page": self.pages, "grid": self.grids}[part]
        for i in range(count):
            which = rng.choice(len(source), p=self.odds) if photograph else rng.integers(len(source))
            side = int(rng.integers(size // 2, size + 1)) if photograph and rng.random() < SOFT else size
            y, x = rng.integers(source.shape[1] - side + 1, size=2)
            crop = source[which, y : y + side, x : x + side]
            if side < size:
                crop = np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.BICUBIC))
            out[i] = np.rot90(crop[:, :: rng.choice((1, -1))], int(rng.integers(4))) if photograph else crop
        return out


def load_images(photographs: Path, work: Path, seed: int = 0) -> Images:
    """The images of a folder of photographs; their tiles are made once, in `work`.

    Raises UserError when there are no photographs.
    """
    there = photographs.iterdir() if photographs.is_dir() else ()
    files = sorted(path for path in there if path.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"{photographs}: expected photographs ({', '.join(SUFFIXES)}), found none; check the path")
    listing = "".join(f"{path.relative_to(photographs)} {path.stat().st_size}\n" for path in files)
    name = hashlib.sha256(f"{TILE} {LONG_SIDES} {MIN_SHRINK} {MIN_TEXTURE} {HOLD_OUT}\n{listing}".encode()).hexdigest()[
        :16
    ]
    tiles, held_out = (_tiles(work / f"{part}-{name}.npy", chosen) for part, chosen in _split(files))
    odds = np.sqrt(np.minimum([_texture(tile) for tile in tiles], 30.0))
    rng = np.random.default_rng([seed, 1])
    return Images(tiles, odds / odds.sum(), held_out, _pages(rng), _grids(rng), name)


def _split(files: list[Path]) -> list[tuple[str, list[Path]]]:
    return [
        ("train", [path for i, path in enumerate(files) if i % HOLD_OUT or len(files) == 1]),
        ("held-out", files[::HOLD_OUT]),
    ]


def _tiles(path: Path, files: list[Path]) -> np.ndarray:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        growing, staged, count = path.with_suffix(".raw.tmp"), path.with_suffix(".tmp"), 0
        with growing.open("wb") as raw:
            for file in files:
                for tile in _tiles_of(file):
                    raw.write(tile.tobytes())
                    count += 1
        if not count:
            raise UserError(f"{files[0].parent}: no photograph has {TILE}x{TILE} pixels of texture; use larger ones")
        with staged.open("wb") as out:
            np.save(out, np.memmap(growing, np.uint8, "r", shape=(count, TILE, TILE, 3)))
        publish(staged, path)
        growing.unlink()
    tiles: np.ndarray = np.load(path, mmap_mode="r")
    return tiles


def _tiles_of(file: Path) -> list[np.ndarray]:
    try:
        with Image.open(file) as image:
            photograph = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        log.warning("%s is left out: %s", file, error)
        return []
    found = []
    for side in LONG_SIDES:
        shrink = max(photograph.size) / side
        width, height = (round(length / shrink) for length in photograph.size)
        if shrink < MIN_SHRINK or min(width, height) < TILE:
            continue
        pixels = np.asarray(photograph.resize((width, height), Image.Resampling.LANCZOS))
        cut = [pixels[y : y + TILE, x : x + TILE] for y in _starts(height) for x in _starts(width)]
        found += [tile for tile in cut if _texture(tile) >= MIN_TEXTURE]
    return found


def _starts(length: int) -> np.ndarray:
    """Where tiles begin that cover a side, spread evenly."""
    return np.linspace(0, length - TILE, -(-length // TILE)).astype(int)


def _texture(tile: np.ndarray) -> float:
    gray = tile.astype(np.float32).mean(-1)
    return float(np.abs(np.diff(gray, axis=0)).mean() + np.abs(np.diff(gray, axis=1)).mean())


def _pages(rng: np.random.Generator) -> np.ndarray:
    """Pages of Python's own sources: half by this package's renderer, half in DejaVu at many sizes."""
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    text = "\n".join(path.read_text(encoding="utf-8", errors="replace")[:20_000] for path in sources[:60])
    rendered = []
    for font_size in (12, 8):
        for foreground, background in INKS:
            first = rng.integers(len(text) - 40_000)
            pages = TextRenderer(font_size=font_size, foreground=foreground, background=background).render_pages(
                text[first : first + 40_000]
            )
            rendered.append(pages[: PAGES // 16])
    return np.concatenate([*rendered, _proportional_pages(text, PAGES - sum(map(len, rendered)), rng)])


def _proportional_pages(text: str, count: int, rng: np.random.Generator) -> np.ndarray:
    fonts = [
        Path(get_data_path()) / f"fonts/ttf/DejaVu{name}.ttf" for name in ("Sans", "Serif", "Sans-Bold", "SansMono")
    ]
    words = text.split()
    out = np.empty((count, 224, 224, 3), np.uint8)
    for i in range(count):
        foreground, background = INKS[rng.integers(len(INKS))]
        size = int(rng.integers(9, 29))
        page = Image.new("RGB", (448, 448), background)
        first = rng.integers(len(words) - 400)
        lines = [" ".join(words[k : k + 9]) for k in range(first, first + 9 * (180 // size), 9)]
        font = ImageFont.truetype(str(fonts[rng.integers(len(fonts))]), 2 * size)
        ImageDraw.Draw(page).multiline_text((16, 16), "\n".join(lines), fill=foreground, font=font)
        turned = page.rotate(rng.normal(0, 1.5), Image.Resampling.BICUBIC, fillcolor=background)
        out[i] = np.asarray(turned.resize((224, 224), Image.Resampling.BOX))
    return out


def _grids(rng: np.random.Generator) -> np.ndarray:
    sides = rng.integers(2, 20, (GRIDS, 2))
    return np.stack([GridRenderer().render(rng.integers(0, 10, tuple(side))) for side in sides])
