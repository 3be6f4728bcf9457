"""What the denoiser is trained on: tiles of photographs, pages and grids.

Photographs are taken as they are and up to two times smaller again, cut into tiles; flat ones are left out, for there
is nothing to learn from a sky. They should have no noise or compression left: tools/collect_photographs.py makes them
so. Pages are rendered by this package's renderer in several colours and, for what other scans show, in proportional
fonts. One photograph in twenty is held out. Everything is decoded into memory once: about 20 seconds and 300 MB for 150
photographs.
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

TILE = 192
SHRINKS = (1.0, 1.5, 2.25)
MIN_TEXTURE = 3.0  # mean absolute difference of neighbouring pixels, of 255, both directions added
HOLD_OUT = 20
PAGES, GRIDS = 480, 120
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


def load_images(photographs: Path, seed: int = 0) -> Images:
    """The images of a folder of photographs, with pages and grids that follow from the seed.

    Raises UserError when there are no photographs.
    """
    there = photographs.iterdir() if photographs.is_dir() else ()
    files = sorted(path for path in there if path.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"{photographs}: expected photographs ({', '.join(SUFFIXES)}), found none; check the path")
    listing = "".join(f"{path.relative_to(photographs)} {path.stat().st_size}\n" for path in files)
    name = hashlib.sha256(f"{TILE} {SHRINKS} {MIN_TEXTURE} {HOLD_OUT}\n{listing}".encode()).hexdigest()[:16]
    tiles, held_out = (_tiles(chosen) for chosen in _split(files))
    odds = np.sqrt(np.minimum([_texture(tile) for tile in tiles], 30.0))
    rng = np.random.default_rng([seed, 1])
    return Images(tiles, odds / odds.sum(), held_out, _pages(rng), _grids(rng), name)


def _split(files: list[Path]) -> tuple[list[Path], list[Path]]:
    return [path for i, path in enumerate(files) if i % HOLD_OUT or len(files) == 1], files[::HOLD_OUT]


def _tiles(files: list[Path]) -> np.ndarray:
    found = [tile for file in files for tile in _tiles_of(file)]
    if not found:
        raise UserError(f"{files[0].parent}: no photograph has {TILE}x{TILE} pixels of texture; use larger ones")
    return np.stack(found)


def _tiles_of(file: Path) -> list[np.ndarray]:
    try:
        with Image.open(file) as image:
            photograph = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        log.warning("%s is left out: %s", file, error)
        return []
    found = []
    for shrink in SHRINKS:
        width, height = (round(length / shrink) for length in photograph.size)
        if min(width, height) < TILE:
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
