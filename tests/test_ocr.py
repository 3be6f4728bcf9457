"""An OCR engine that has never seen this renderer reads its pages (how: trm_nb/denoise/ocr.py).

The error rate is the edit distance to what the page says (characters wrong, missing and too many) in parts of the
page's characters, white space left out. Rates with spaces, and without the paper around the page, are printed too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trm_nb import TextRenderer
from trm_nb.denoise.ocr import BACKGROUND, edit_distance, read_page

DEMO = Path(__file__).parents[1] / "trm_nb" / "assets" / "demo"
LIMITS = {12: 0.01, 8: 0.03}  # the small size is denser than this engine reads without fault

pytestmark = pytest.mark.study


def english_pages(r: TextRenderer) -> dict[str, np.ndarray]:
    """Page -> uint8 (h, w, 3): chapters of the King James Bible from their beginning, the second page of licences."""
    pages = {}
    for path in sorted((DEMO / "prose").glob("*.txt"))[::2]:
        pages[path.stem] = r.render_pages(path.read_text(encoding="utf-8"))[0]
    for path in sorted(DEMO.glob("LICENSE-*")):
        pages[path.name] = r.render_pages(path.read_text(encoding="utf-8"))[1]
    return pages


def read_by_engine(r: TextRenderer, page: np.ndarray, background: int) -> str:
    return read_page(page, r.atlas.cell[1], r.top, background)


@pytest.mark.parametrize("size", LIMITS)
def test_an_ocr_engine_reads_english_pages(size: int) -> None:
    r = TextRenderer(font_size=size)
    errors, lengths = np.zeros(3), np.zeros(3)
    for name, page in english_pages(r).items():
        written, read, bare = r.decode(page), read_by_engine(r, page, BACKGROUND), read_by_engine(r, page, 0)
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
    print(f"{size} px: {rates[0]:.2%}; with spaces {rates[1]:.2%}; without background around {rates[2]:.2%}")
    assert lengths[0] > 3000
    assert rates[0] < LIMITS[size]
