"""A judge from outside: an OCR engine that has never seen this renderer reads its pages.

What is counted: the engine, with its own settings, gets each page at its native 224x224 pixels with 16 pixels of white
paper around it, because it misses letters that touch the edge of a picture. The lines that it finds are put in order
by row and column, its full-width punctuation is made plain, and white space is left out, because it drops most spaces.
The error rate is the edit distance to what the page says (characters wrong, missing and too many) in parts of the
page's characters. Rates with spaces, and without the paper, are printed too.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trm_nb import TextRenderer

DEMO = Path(__file__).parents[1] / "trm_nb" / "assets" / "demo"
PAPER = 16  # pixels
LIMITS = {12: 0.01, 8: 0.03}  # the small size is denser than this engine reads without fault

pytestmark = pytest.mark.slow


@cache
def engine() -> Any:
    from rapidocr_onnxruntime import RapidOCR

    return RapidOCR()


def english_pages(r: TextRenderer) -> dict[str, np.ndarray]:
    """Page -> uint8 (h, w, 3): chapters of the King James Bible from their beginning, the second page of licences."""
    pages = {}
    for path in sorted((DEMO / "prose").glob("*.txt"))[::2]:
        pages[path.stem] = r.render_pages(path.read_text(encoding="utf-8"))[0]
    for path in sorted(DEMO.glob("LICENSE-*")):
        pages[path.name] = r.render_pages(path.read_text(encoding="utf-8"))[1]
    return pages


def read_by_engine(r: TextRenderer, page: np.ndarray, paper: int) -> str:
    """A line of text for each line that the engine found, in reading order."""
    found, _ = engine()(np.pad(page, ((paper, paper), (paper, paper), (0, 0)), constant_values=255))
    lines = []
    for box, text, _ in found or []:
        left, middle = min(x for x, _ in box), sum(y for _, y in box) / len(box)
        lines.append(((middle - paper - r.top) // r.atlas.cell[1], left, text))
    return unicodedata.normalize("NFKC", "\n".join(text for *_, text in sorted(lines)))


def edit_distance(one: str, other: str) -> int:
    """Levenshtein's: insertions, deletions and substitutions."""
    letters, places = np.array(list(other)), np.arange(len(other) + 1)
    row = places
    for count, letter in enumerate(one, start=1):
        kept = np.minimum(row[1:] + 1, row[:-1] + (letters != letter))
        row = np.minimum.accumulate(np.concatenate(([count], kept)) - places) + places
    return int(row[-1])


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("", "", 0), ("abc", "abc", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("ab", "ba", 2)],
)
def test_edit_distance(one: str, other: str, distance: int) -> None:
    assert edit_distance(one, other) == edit_distance(other, one) == distance


@pytest.mark.parametrize("size", LIMITS)
def test_an_ocr_engine_reads_english_pages(size: int) -> None:
    r = TextRenderer(font_size=size)
    errors, lengths = np.zeros(3), np.zeros(3)
    for name, page in english_pages(r).items():
        written, read, bare = r.decode(page), read_by_engine(r, page, PAPER), read_by_engine(r, page, 0)
        pairs = [
            ("".join(written.split()), "".join(read.split())),
            (" ".join(written.split()), " ".join(read.split())),
            ("".join(written.split()), "".join(bare.split())),
        ]
        wrong = np.array([edit_distance(*pair) for pair in pairs])
        length = np.array([len(pair[0]) for pair in pairs])
        errors, lengths = errors + wrong, lengths + length
        print(f"{size} px, {name}: {wrong[0] / length[0]:.2%} of {length[0]} characters")
    rates = errors / lengths
    print(f"{size} px: {rates[0]:.2%}; with spaces {rates[1]:.2%}; without paper around {rates[2]:.2%}")
    assert lengths[0] > 3000
    assert rates[0] < LIMITS[size]
