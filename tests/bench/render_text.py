"""How fast is text rendered? Our renderer, Pillow rendering line by line, and a copy of the same bytes, in one run.

`make bench` or `python tests/bench/render_text.py [PAGES]`. The text is the standard library's sources cut into rows of
32 characters, so that every page is full: 16 rows, 512 characters, 224x224 RGB. One core; the three take turns, five
times; medians. Layout is part of every figure: Pillow is handed the same text and slices its rows itself.
"""

from __future__ import annotations

import os
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from trm_nb.render.text import BATCH, TextRenderer

COLUMNS, ROWS, SIZE = 32, 16, 224
FONT = Path(get_data_path()) / "fonts/ttf/DejaVuSansMono.ttf"
ROUNDS = 5


def full_pages(pages: int) -> str:
    """The sources without their line ends, in rows of COLUMNS characters without blanks at a row's end."""
    rows: list[str] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        joined = "".join(line.strip() + " " for line in path.read_text(encoding="utf-8").splitlines())
        cut = (joined[at : at + COLUMNS] for at in range(0, len(joined), COLUMNS))
        rows += [row for row in cut if len(row) == COLUMNS and row.isascii() and not row.endswith(" ")]
        if len(rows) >= pages * ROWS:
            break
    return "\n".join(rows[: len(rows) // ROWS * ROWS][: pages * ROWS])


def by_pillow(text: str, mode: str) -> int:
    """A new image a page and a call a row; "L" is rendered in gray and converted, which may be faster."""
    font = ImageFont.truetype(FONT, 12, layout_engine=ImageFont.Layout.BASIC)
    rows, rendered = text.split("\n"), 0
    for first in range(0, len(rows), ROWS):
        image = Image.new(mode, (SIZE, SIZE), "white")
        render = ImageDraw.Draw(image)
        for number, row in enumerate(rows[first : first + ROWS]):
            render.text((0, 14 * number - 1), row, fill="black", font=font)
        rendered += np.asarray(image.convert("RGB")).shape[0] // SIZE
    return rendered


def measure(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each, after one warm-up; they take turns, so that a slow minute slows all."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def main(pages: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    renderer, text = TextRenderer(), full_pages(pages)
    laid_out = renderer.pages(text)
    count, few = len(laid_out), "\n".join(text.split("\n")[: ROWS * min(pages, 64)])
    assert renderer.decode(renderer.render_pages(few)) == renderer.fold(renderer.normalise(few))
    pixels = np.empty((count, SIZE, SIZE, 3), np.uint8)
    source = renderer.rasterise(laid_out[:BATCH])
    target = np.empty_like(source)

    def copy() -> None:
        for _ in range(0, count, len(source)):
            np.copyto(target, source)

    cells = [np.stack([page.cells for page in laid_out[at : at + BATCH]]) for at in range(0, count, BATCH)]
    seconds = measure(
        {
            "ours": lambda: renderer.rasterise(renderer.pages(text), pixels),
            "Pillow, RGB": lambda: by_pillow(few, "RGB"),
            "Pillow, L to RGB": lambda: by_pillow(few, "L"),
            "copy": copy,
            "normalise": lambda: renderer.normalise(text),
            "normalise and layout": lambda: renderer.pages(text),
            "tiles": lambda: [renderer._tiles.find(part, None) for part in cells],
            "render": lambda: renderer.rasterise(laid_out, pixels),
        }
    )
    per_page = {name: value / (min(pages, 64) if "Pillow" in name else count) * 1e6 for name, value in seconds.items()}
    report(count, per_page)


def report(count: int, per_page: dict[str, float]) -> None:
    """Print characters a second, ratios, and where our time goes; microseconds a page."""
    pillow = min(per_page["Pillow, RGB"], per_page["Pillow, L to RGB"])
    print(f"{count:,} pages of {COLUMNS}x{ROWS} characters, {SIZE}x{SIZE} RGB; Pillow {PIL.__version__}; one core")
    for name in ("ours", "Pillow, RGB", "Pillow, L to RGB", "copy"):
        value = per_page[name]
        print(f"  {name:18} {value:8.1f} us a page {COLUMNS * ROWS / value:8.2f} M characters/s {pillow / value:7.1f}x")
    layout = per_page["normalise and layout"] - per_page["normalise"]
    print("of ours, us a page:")
    for name, value in (
        ("normalise", per_page["normalise"]),
        ("layout", layout),
        ("finding tiles", per_page["tiles"]),
        ("blit into RGB", per_page["render"] - per_page["tiles"]),
    ):
        print(f"  {name:18} {value:8.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
