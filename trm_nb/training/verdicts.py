"""Verdicts on accuracies: intervals and paired tests over items, and the sentences that state them.

Samples of one item (the pages of a document, the tiles of a photograph) resemble each other, so the item is the unit of
every interval and test here, not the sample (Miller, "Adding Error Bars to Evals", arXiv 2411.00640). A verdict has
three outcomes, and "no difference shown" is one of them. Every result is exact or in closed form, so nothing is sampled
at random; the cost is at most MAX_WORK cosines and an FFT.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

ALPHA = 0.05
MIN_ITEMS = 6  # with fewer, even if all items agree, the two-sided sign test has p >= 2 / 2**5 > ALPHA
MAX_WORK = 1 << 24  # cosines, a second; beyond it the sum is normal to all digits that are shown
BETTER: Literal["better"] = "better"
WORSE: Literal["worse"] = "worse"
NOT_SHOWN: Literal["no difference shown"] = "no difference shown"
Outcome = Literal["better", "worse", "no difference shown"]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The share of `rows` samples that is right, and its 95 % interval; `items` are the independent units among them.

    Of no samples the share is NaN and the interval (0, 1).
    """

    share: float
    low: float
    high: float
    rows: int
    items: int

    def sentence(self, what: str) -> str:
        """The accuracy with its interval as one sentence of Markdown; `what` follows the number of samples."""
        if not self.rows:
            return "There are no samples to measure on."
        interval = f"95 % interval {100 * self.low:.1f} to {100 * self.high:.1f} %, over {_counted(self.items, 'item')}"
        return f"**{100 * self.share:.1f} %** of {self.rows:,} {what} ({interval})."

    def against(self, value: float, reference: str, subject: str = "the model") -> str:
        """The verdict on a fixed value, such as the chance level, as one sentence of Markdown."""
        named = f"{reference} ({100 * value:.1f} %)"
        outcome = outcome_of((self.low, self.high), (value, value), self.items)
        if outcome != NOT_SHOWN:
            side = "above" if outcome == BETTER else "below"
            return f"{_capitalised(subject)} is **{outcome}** than {named}: the whole interval lies {side} it."
        inside = self.low <= value <= self.high
        why = "it lies within the interval" if inside else f"fewer than {MIN_ITEMS} items allow no verdict"
        return f"**No difference** between {subject} and {named} is shown: {why}."

    def gap_to(self, training: float, items: int) -> str:
        """The verdict on the accuracy in training, a share of at least `items` independent samples, as one sentence."""
        if not self.rows:
            return "There are no samples to measure on."
        outcome = outcome_of((self.low, self.high), wilson(training * items, items), self.items)
        both = f"In the last steps of training {100 * training:.1f} % were right, held out {100 * self.share:.1f} %"
        shown = {
            WORSE: "a generalisation gap **is shown**, as the two 95 % intervals do not overlap",
            NOT_SHOWN: "the gap between them is not significant, as the two 95 % intervals overlap",
            BETTER: "training is measured after fewer passes and on weights that are not averaged, so it can be lower",
        }
        return f"{both}: {shown[outcome]}."


@dataclass(frozen=True, slots=True)
class Paired:
    """Two ways of answering the same `rows` samples of `items` items.

    first, second: their accuracies. gained, lost: the samples that only the first, or only the second, has right.
    p: two-sided, of the hypothesis that the two are equally good.
    """

    first: float
    second: float
    gained: int
    lost: int
    rows: int
    items: int
    p: float

    @property
    def outcome(self) -> Outcome:
        """What is shown of the first compared with the second, at p < 0.05."""
        return outcome_at(self.p, self.gained > self.lost)

    @property
    def evidence(self) -> str:
        """Both accuracies, the samples that differ, the test and its p-value."""
        if not self.rows:
            return "no samples were measured"
        both = f"{100 * self.first:.1f} against {100 * self.second:.1f} %"
        counts = f"{_counted(self.gained, 'sample')} gained, {self.lost:,} lost of {self.rows:,}"
        test = "exact McNemar test" if self.items == self.rows else "exact sign-flip test"
        return f"{both}; {counts}; {test} over {_counted(self.items, 'item')}, {p_value(self.p)}"

    def sentence(self, second: str, first: str = "the model") -> str:
        """The verdict as one sentence of Markdown; the names are the caller's own words, never text of the data."""
        if self.outcome == NOT_SHOWN:
            return f"**No difference** between {first} and {second} is shown ({self.evidence})."
        return f"{_capitalised(first)} is **{self.outcome}** than {second} ({self.evidence})."


def accuracy(correct: np.ndarray, items: np.ndarray | None = None) -> Accuracy:
    """The accuracy with an interval that counts samples of one item as correlated.

    Wilson's interval (1927) for the effective number of samples n / (1 + (m - 1) r): m is the mean size of a sample's
    item, r the intraclass correlation by the analysis of variance (Saha, Miller & Wang, "A comparison of some
    approximate confidence intervals for a single proportion for clustered binary outcome data", Int. J. Biostat. 12(2),
    2016). Where every item has one sample this is Wilson's interval.
    Deviation: r is estimated with two items added, one wholly right and one wholly wrong, both of size m. Where nothing
    varies r cannot be estimated, and this makes it 1; few errors then move it only a little.

    Args:
        correct: bool (n,).
        items: int (n,), equal for samples of one item; None: every sample is an item of its own.
    """
    correct = np.asarray(correct, bool)
    n, groups = len(correct), _groups(correct, items)
    if not n:
        return Accuracy(math.nan, 0.0, 1.0, 0, 0)
    sizes = np.bincount(groups).astype(float)
    right = np.bincount(groups, correct)
    size = float(sizes @ sizes) / n
    share, effective = float(correct.mean()), n / (1 + (size - 1) * _correlation(right, sizes, size))
    return Accuracy(share, *wilson(share * effective, effective), n, len(sizes))


def balanced_accuracy(correct: np.ndarray, classes: np.ndarray, items: np.ndarray | None = None) -> Accuracy:
    """The mean of the accuracies of the classes that occur, with its interval.

    The interval combines those of the classes, which count samples of one item as correlated (`accuracy`), by the
    method of variance estimates recovery (Zou, Huang & Zhang, "A note on confidence interval estimation for a linear
    function of binomial proportions", Comput. Stat. Data Anal. 53(4), 2009). It takes classes as independent.

    Args:
        correct: bool (n,).
        classes: int (n,), the true class of each sample.
        items: int (n,), equal for samples of one item; None: every sample is an item of its own.
    """
    correct, groups = np.asarray(correct, bool), _groups(np.asarray(correct), items)
    each = [accuracy(correct[classes == one], groups[classes == one]) for one in np.unique(classes)]
    if not each:
        return Accuracy(math.nan, 0.0, 1.0, 0, 0)
    share = sum(one.share for one in each) / len(each)
    below = math.sqrt(sum((one.share - one.low) ** 2 for one in each)) / len(each)
    above = math.sqrt(sum((one.high - one.share) ** 2 for one in each)) / len(each)
    rows, count = len(correct), len(np.unique(groups))
    return Accuracy(share, max(0.0, share - below), min(1.0, share + above), rows, count)


def _correlation(right: np.ndarray, sizes: np.ndarray, size: float) -> float:
    """The intraclass correlation of items with `right` of `sizes` samples right, and of two that are added."""
    right, sizes = np.append(right, [size, 0.0]), np.append(sizes, [size, size])
    n, count = sizes.sum(), len(sizes)
    between = float(sizes @ (right / sizes - right.sum() / n) ** 2) / (count - 1)
    within = float(right @ (1 - right / sizes)) / (n - count) if n > count else 0.0
    usual = (n - sizes @ sizes / n) / (count - 1)
    return min(1.0, max(0.0, float((between - within) / (between + (usual - 1) * within))))


def wilson(right: float, n: float, z: float = 1.959963984540054) -> tuple[float, float]:
    """The 95 % interval of a share of `right` in `n` (Wilson 1927), honest near 0 and 1 and for few samples."""
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(0.0, share * (1 - share)) / n + z * z / (4 * n * n))
    return 0.0 if right <= 0 else middle - half, 1.0 if right >= n else middle + half


def outcome_of(interval: tuple[float, float], reference: tuple[float, float], items: int) -> Outcome:
    """Whether a 95 % interval lies wholly above or below another one (for a fixed value: that value twice).

    Intervals that do not overlap show a difference; ones that do, or come from fewer than MIN_ITEMS items, do not.
    """
    if items < MIN_ITEMS:
        return NOT_SHOWN
    return BETTER if interval[0] > reference[1] else WORSE if interval[1] < reference[0] else NOT_SHOWN


def outcome_at(p: float, better: bool) -> Outcome:
    """What is shown at a p-value, of whatever is `better` or else worse on the samples."""
    if not p < ALPHA:
        return NOT_SHOWN
    return BETTER if better else WORSE


def paired(first: np.ndarray, second: np.ndarray, items: np.ndarray | None = None) -> Paired:
    """Compare two ways of answering the same samples, which have them right or wrong: bool (n,) both.

    `items` int (n,) is equal for samples of one item, as in `accuracy`. The test is `sign_flip` of each item's samples
    gained less those lost; where every item has one sample it is McNemar's exact test.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape:
        raise ValueError(f"paired results must be of the same samples, got {first.shape} and {second.shape}")
    gained, lost, groups = first & ~second, second & ~first, _groups(first, items)
    differences = np.bincount(groups, gained.astype(float) - lost).astype(np.int64)
    n, p = len(first), sign_flip(differences)
    shares = [float(one.mean()) if n else math.nan for one in (first, second)]
    return Paired(shares[0], shares[1], int(gained.sum()), int(lost.sum()), n, len(differences), p)


def sign_flip(differences: np.ndarray) -> float:
    """The exact two-sided p-value of int (n,) differences whose signs are as likely + as -.

    The permutation test of paired data (Fisher 1935), over all 2^n choices of signs: the probabilities of the sum are
    read off its characteristic function, the product of the cosines. Beyond MAX_WORK it is the normal approximation.
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    observed = abs(int(differences.sum()))
    if not observed:
        return 1.0
    total = int(sizes @ counts)
    length = 1 << (2 * total).bit_length()
    if length * len(sizes) > MAX_WORK:
        return math.erfc(observed / math.sqrt(2 * float(counts @ sizes.astype(float) ** 2)))
    places, transformed = np.arange(length // 2 + 1), np.ones(length // 2 + 1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        transformed *= np.cos(2 * np.pi / length * (size * places % length)) ** count
    probabilities = np.fft.irfft(transformed, length)
    return min(1.0, max(0.0, 2 * float(probabilities[observed : total + 1].sum())))


def most_missed(confusion: np.ndarray) -> list[tuple[int, int, int]]:
    """The classes with most misses, as (class, misses, samples); all of them on a tie, none where nothing is missed.

    `confusion[i, j]` int counts samples of class i that were read as class j.
    """
    samples = confusion.sum(axis=1)
    missed = samples - np.diag(confusion)
    most = np.flatnonzero((missed == missed.max(initial=0)) & (missed > 0))
    return [(int(i), int(missed[i]), int(samples[i])) for i in most]


def p_value(p: float) -> str:
    """A p-value to two digits, and to as many as it takes to tell it from 0.05."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.4f}" if 0.045 <= p < 0.055 else f"p = {p:.2g}"


def _groups(correct: np.ndarray, items: np.ndarray | None) -> np.ndarray:
    """The items numbered from 0, int (n,)."""
    if items is None:
        return np.arange(len(correct))
    if np.shape(items) != correct.shape:
        raise ValueError(f"expected one item for each of {correct.shape} samples, got {np.shape(items)}")
    numbered: np.ndarray = np.unique(items, return_inverse=True)[1]
    return numbered


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
