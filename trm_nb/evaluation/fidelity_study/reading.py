"""What is read from decoded images, and what it is worth: characters, cells, whole grids, decibels, with intervals.

A character is read right when the glyph nearest to its decoded cell is its own, among all glyphs of the study's pages;
a wide one when both halves are. A cell of a grid has the colour of the ten that is nearest to its mean, a cell of a
Sudoku the nearest of its digits. Blank cells of a page are not asked, blank cells of a Sudoku are.
Choice: the unit of an interval is the item (document, task, photograph), with all seeds of the decoder inside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trm_nb.evaluation.fidelity_study.content import PHOTOGRAPHS, Shown, digit_templates
from trm_nb.evaluation.fidelity_study.decoder import nearness, scaled, text_cells
from trm_nb.render.grid import PALETTE
from trm_nb.training.verdicts import Accuracy, accuracy

SIZE_BINS = (5, 10, 15, 20, 25, 30)  # the longer side of a grid, up to and including
_STUDENT = (12.706205, 4.302653, 3.182446, 2.776445)
FAILED = 0.5  # an image of which less is right is a catastrophic failure


@dataclass(frozen=True, slots=True)
class Score:
    """One image as one decoder read it.

    Attributes:
        arm, seed, bits: what was decoded, by which decoder, stored with how many bits a number.
        kind, item, size, nbytes: of the image, as in Shown.
        right, asked: characters or cells.
        psnr: dB, of the decoded pixels clipped to 0..255.
    """

    arm: str
    seed: int
    bits: int
    kind: str
    item: str
    size: int
    nbytes: float
    right: int
    asked: int
    psnr: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One kind of content of one arm, over `images` of `items` items; each decoder seed reads each image.

    `parts` are the characters or cells, `whole` the images read without a mistake, `failed` the share of images read
    less than half right. `psnr` is the mean over images in dB, `psnr_low` and `psnr_high` its 95 % interval over items.
    """

    arm: str
    bits: int
    kind: str
    images: int
    items: int
    parts: Accuracy
    whole: Accuracy
    failed: float
    psnr: float
    psnr_low: float
    psnr_high: float


class Reading:
    """Reads the images of a study: `glyphs` uint8 (g, 14, 7) are all that a text cell can be."""

    def __init__(self, glyphs: np.ndarray) -> None:
        self._glyphs = scaled(torch.from_numpy(glyphs)).flatten(1)
        self._palette = scaled(torch.from_numpy(PALETTE))

    def score(self, pixels: np.ndarray, shown: Shown, arm: str, seed: int, bits: int) -> Score:
        """The score of decoded pixels, float32 (224, 224, 3) in about -1..1."""
        right = self.right(pixels, shown)
        about = (arm, seed, bits, shown.kind, shown.item, shown.size, float(shown.nbytes))
        return Score(*about, int(right.sum()), len(right), psnr(pixels, shown.image))

    def right(self, pixels: np.ndarray, shown: Shown) -> np.ndarray:
        """Whether each character, or each cell, is read as it is: bool (n,)."""
        if len(shown.glyphs):
            return self._characters(torch.from_numpy(pixels), shown)
        if not len(shown.cells):
            return np.zeros(0, bool)
        read = self._digits(pixels, shown) if shown.digits else self._colours(pixels, shown)
        right: np.ndarray = read == shown.cells[:, 4]
        return right

    def _characters(self, pixels: Tensor, shown: Shown) -> np.ndarray:
        asked = np.unique(shown.characters)
        cells = text_cells(pixels[None])[torch.from_numpy(asked.astype(np.int64))]
        same = np.zeros(len(shown.glyphs), bool)
        same[asked] = nearness(cells, self._glyphs).argmax(-1).numpy() == shown.glyphs[asked]
        right: np.ndarray = same[shown.characters].all(axis=1)
        return right

    def _colours(self, pixels: np.ndarray, shown: Shown) -> np.ndarray:
        sums = np.zeros((pixels.shape[0] + 1, pixels.shape[1] + 1, 3))
        sums[1:, 1:] = pixels.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
        top, left, height, width = (shown.cells[:, place].astype(np.int64) for place in range(4))
        bottom, right = top + height, left + width
        total = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        means = torch.from_numpy(total / (height * width)[:, None]).float()
        return nearness(means, self._palette).argmax(-1).numpy()

    @staticmethod
    def _digits(pixels: np.ndarray, shown: Shown) -> np.ndarray:
        templates = scaled(torch.from_numpy(digit_templates(shown.digits))).flatten(1)
        cut = [pixels[top : top + h, left : left + w].ravel() for top, left, h, w, _ in shown.cells.tolist()]
        return nearness(torch.from_numpy(np.stack(cut)), templates).argmax(-1).numpy()


def psnr(pixels: np.ndarray, image: np.ndarray) -> float:
    """In dB, of pixels in -1..1 (clipped) beside an image uint8; at most 99 where nothing differs."""
    error = float(np.square((pixels.clip(-1, 1) + 1) * 127.5 - image).mean())
    return min(99.0, 20 * math.log10(255) - 10 * math.log10(max(error, 1e-9)))


def summarised(scores: Iterable[Score]) -> list[Summary]:
    """A summary of each arm, number of bits and kind, in the order in which they come."""
    groups: dict[tuple[str, int, str], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.arm, score.bits, score.kind), []).append(score)
    return [summary_of(group) for group in groups.values()]


def summary_of(scores: Sequence[Score]) -> Summary:
    """Of scores of one arm, one number of bits and one kind."""
    first, measured = scores[0], [score for score in scores if score.asked]
    names = {item: number for number, item in enumerate(dict.fromkeys(score.item for score in scores))}
    items = np.array([names[score.item] for score in measured], np.int64)
    right, asked = (np.array([getattr(score, name) for score in measured], np.int64) for name in ("right", "asked"))
    parts = np.repeat(np.tile([True, False], len(measured)), np.column_stack([right, asked - right]).ravel())
    failed = float((right < FAILED * asked).mean()) if measured else math.nan
    decibel = mean_interval(np.array([score.psnr for score in scores]), np.array([names[s.item] for s in scores]))
    exact = accuracy(right == asked, items)
    measures = accuracy(parts, np.repeat(items, asked)), exact, failed
    return Summary(first.arm, first.bits, first.kind, len(scores), len(names), *measures, *decibel)


def by_size(scores: Iterable[Score], kind: str, arm: str, bits: int = 16) -> dict[str, Summary]:
    """ "1-5", "6-10" ... -> the summary of the images whose longer side is in that bin; empty bins are left out."""
    chosen = [score for score in scores if (score.kind, score.arm, score.bits) == (kind, arm, bits)]
    bins = {f"{low + 1}-{high}": (low, high) for low, high in zip((0, *SIZE_BINS), SIZE_BINS, strict=False)}
    found = {name: [score for score in chosen if low < score.size <= high] for name, (low, high) in bins.items()}
    return {name: summary_of(inside) for name, inside in found.items() if inside}


def mean_interval(values: np.ndarray, items: np.ndarray) -> tuple[float, float, float]:
    """Mean of the values and its 95 % interval from the means of the items (Student's t); infinitely wide for one."""
    counts = np.bincount(items)
    means = np.bincount(items, values)[counts > 0] / counts[counts > 0]
    middle, n = float(values.mean()), len(means)
    if n < 2:
        return middle, -math.inf, math.inf
    half = student(n - 1) * float(means.std(ddof=1)) / math.sqrt(n)
    return middle, middle - half, middle + half


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t: a table up to 4 degrees of freedom, then Cornish-Fisher's expansion."""
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    z, n = 1.959963984540054, freedom
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + terms[0] / n + terms[1] / n**2 + terms[2] / n**3


def measures_of(summary: Summary) -> tuple[float, float, float]:
    """What a kind is compared by, with its interval: decibels of photographs, else the share of characters or cells."""
    if summary.kind == PHOTOGRAPHS:
        return summary.psnr, summary.psnr_low, summary.psnr_high
    return summary.parts.share, summary.parts.low, summary.parts.high
