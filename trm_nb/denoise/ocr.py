"""A judge from outside: an OCR engine that has never seen this renderer reads its pages.

The engine (RapidOCR, the extra `ocr`) has its own settings and gets each page at its native pixels with 16 pixels of
background around it, because it misses letters that touch the edge of an image. The lines that it finds are put in
order by row and column, and its full-width punctuation is made plain.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

import numpy as np

from trm_nb.errors import UserError

BACKGROUND = 16  # pixels


@cache
def _engine() -> Any:
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ModuleNotFoundError:
        raise UserError("an OCR engine is needed here: pip install 'trm-nb[ocr]'") from None
    return RapidOCR()


def read_page(page: np.ndarray, row_height: int, top: int = 0, background: int = BACKGROUND) -> str:
    """uint8 (h, w, 3) -> a line of text for each line that the engine found, in reading order.

    Rows are `row_height` pixels apart and begin at `top`. Raises UserError where the engine is not installed.
    """
    ground = [int(value) for value in np.median(page.reshape(-1, 3), axis=0)]
    framed = np.empty((page.shape[0] + 2 * background, page.shape[1] + 2 * background, 3), np.uint8)
    framed[:] = ground
    framed[background : background + page.shape[0], background : background + page.shape[1]] = page
    found, _ = _engine()(framed)
    lines = []
    for box, text, _ in found or []:
        left, middle = min(x for x, _ in box), sum(y for _, y in box) / len(box)
        lines.append(((middle - background - top) // row_height, left, text))
    return unicodedata.normalize("NFKC", "\n".join(text for *_, text in sorted(lines)))


def character_errors(written: str, read: str) -> tuple[int, int]:
    """(wrong characters, all characters): Levenshtein's distance without white space, of which engines drop most."""
    one, other = ("".join(text.split()) for text in (written, read))
    return edit_distance(one, other), len(one)


def edit_distance(one: str, other: str) -> int:
    """Levenshtein's: insertions, deletions and substitutions."""
    letters, places = np.array(list(other)), np.arange(len(other) + 1)
    row = places
    for count, letter in enumerate(one, start=1):
        kept = np.minimum(row[1:] + 1, row[:-1] + (letters != letter))
        row = np.minimum.accumulate(np.concatenate(([count], kept)) - places) + places
    return int(row[-1])
