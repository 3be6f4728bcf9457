"""Published points beside the study, and the ratios that make ours comparable with them, or not.

DeepSeek-OCR (arXiv 2510.18234, table 2) counts text tokens of its own tokenizer for each vision token, on 100 English
pages, read by a language model that knows English; a vision token is 1,280 numbers wide, and the ratio leaves that out.
So beside characters for each capsule stand the ratios to the bytes of the content and to the bytes of the pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from trm_nb.evaluation.fidelity_study.arms import ENCODER, stored_bytes
from trm_nb.evaluation.fidelity_study.content import PHOTOGRAPHS
from trm_nb.evaluation.fidelity_study.reading import Score
from trm_nb.evaluation.fidelity_study.sources import SIDE
from trm_nb.records import CAPSULES

DEEPSEEK_OCR = {  # vision tokens -> (text tokens for each vision token, share of the text that is right)
    64: ((10.5, 0.965), (11.8, 0.938), (13.2, 0.838), (15.1, 0.859), (16.5, 0.793), (17.7, 0.764), (19.7, 0.591)),
    100: ((6.7, 0.985), (9.7, 0.968), (10.6, 0.915), (12.6, 0.871)),
}
CRITICS = (
    {"source": "arXiv 2601.03714", "finding": "with its meaning destroyed, text is read at about 20 % instead of 90 %"},
    {"source": "arXiv 2512.03643", "finding": "means of token embeddings match or beat vision at reconstruction"},
    {"source": "DeepSeek-OCR, issue 151", "finding": "9.2 % of 600 newspaper images end in loops or duplications"},
)  # fmt: skip
CHARACTERS_OF_A_TOKEN = 4.0  # of English text, a rule of thumb: no tokenizer is part of this study


@dataclass(frozen=True, slots=True)
class Ratio:
    """How much one kind of content is compressed, means over its images.

    `symbols` are the characters or cells of an image; `per_capsule` symbols for each of the 12 capsules; `of_bytes` the
    bytes of the content for each byte stored (below 1: the capsules are longer than what they hold); `of_pixels` the
    bytes of the pixels for each byte stored. NaN where the content is the pixels.
    """

    kind: str
    bits: int
    symbols: float
    per_capsule: float
    of_bytes: float
    of_pixels: float


def ratios(scores: Iterable[Score], bits: int = 16) -> list[Ratio]:
    """The ratios of each kind of content as the encoder's capsules are stored in so many bits a number."""
    groups: dict[str, list[Score]] = {}
    for score in scores:
        if score.arm == ENCODER and score.bits == bits:
            groups.setdefault(score.kind, []).append(score)
    stored, found = stored_bytes(bits), []
    for kind, group in groups.items():
        symbols, nbytes = (float(np.mean([getattr(s, name) for s in group])) for name in ("asked", "nbytes"))
        symbols, nbytes = (np.nan, np.nan) if kind == PHOTOGRAPHS else (symbols, nbytes)
        found.append(Ratio(kind, bits, symbols, symbols / CAPSULES, nbytes / stored, SIDE * SIDE * 3 / stored))
    return found
