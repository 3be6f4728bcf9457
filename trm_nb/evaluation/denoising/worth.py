"""Which arms of the denoising study recognise more than others, by measure and by kind of noise.

Arms are compared on the same noisy images, by the share of an image's answers that is right, in thousandths: a page
counts as much as another one, however many characters it has. All that was asked of one item, with every seed, is one
unit of the interval and of the test (exact sign-flip test). Many comparisons mean many chances of a false alarm, so the
p-values of one measure are adjusted by Holm's method, and verdicts follow from these; intervals are of each comparison
alone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trm_nb.denoise.noise import TRAINED, UNSEEN, Noise
from trm_nb.denoise.policy_benchmark import bootstrap
from trm_nb.evaluation.comparison import holm
from trm_nb.evaluation.denoising.measure import BASE, CLEAN, LARGE, NONE, SEAL, Scores, noise_of
from trm_nb.training.verdicts import NOT_SHOWN, Outcome, outcome_at, p_value, sign_flip

PAIRS = ((NONE, CLEAN), (BASE, NONE), (SEAL, NONE), (LARGE, NONE), (SEAL, BASE), (LARGE, BASE))
By = Mapping[tuple[str, str], Sequence[Mapping[str, Scores]]]  # (noise, arm) -> of each seed: measure -> scores
GROUPS: Mapping[str, Collection[str]] = {"all": (*TRAINED, *UNSEEN), "trained": TRAINED, "unseen": UNSEEN}


@dataclass(frozen=True, slots=True)
class Gain:
    """What `arm` has right beyond `other`, on the same images with the same noise.

    `share` and `other_share` are means over images, `gain` is their difference with its 95 % interval over `items`.
    `p` is of this pair alone, `adjusted` is Holm's over all pairs and noises of the measure.
    """

    noise: str
    measure: str
    arm: str
    other: str
    share: float
    other_share: float
    gain: float
    low: float
    high: float
    items: int
    p: float
    adjusted: float

    @property
    def outcome(self) -> Outcome:
        """What is shown of the arm compared with the other one, at an adjusted p < 0.05."""
        return outcome_at(self.adjusted, self.gain > 0)

    def sentence(self) -> str:
        """The verdict as one sentence of Markdown."""
        where = f"{self.noise}, {self.measure}"
        if not self.items:
            return f"{where}: {self.arm} and {self.other} were asked nothing."
        change = f"{100 * self.gain:+.1f} points, {100 * self.low:+.1f} to {100 * self.high:+.1f}"
        both = f"{100 * self.share:.1f} against {100 * self.other_share:.1f} %"
        evidence = f"{both}; {change}; {self.items:,} items, {p_value(self.adjusted)} after Holm"
        if self.outcome == NOT_SHOWN:
            return f"{where}: **no difference** between {self.arm} and {self.other} is shown ({evidence})."
        return f"{where}: {self.arm} is **{self.outcome}** than {self.other} ({evidence})."


def by_noise_group(
    scores: Mapping[str, Sequence[Mapping[str, Scores]]],
    noises: Sequence[Noise],
    images: int,
    groups: Mapping[str, Collection[str]] = GROUPS,
) -> By:
    """The scores by kind of noise.

    Args:
        scores: arm -> of each seed, from 0 on, measure -> scores.
        noises: those that took turns; the clean images are grouped as the noisy ones are.
        images: how many there are.
        groups: name -> kinds; by default all, those that a denoiser was trained on, and those that none has met.
    """
    found: dict[tuple[str, str], list[Mapping[str, Scores]]] = {}
    for group, kinds in groups.items():
        for arm, seeds in scores.items():
            for seed, of in enumerate(seeds):
                chosen = np.array([noise.kind in kinds for noise in noise_of(images, noises, seed)])
                found.setdefault((group, arm), []).append({name: _some(one, chosen) for name, one in of.items()})
    return found


def _some(scores: Scores, chosen: np.ndarray) -> Scores:
    kept = chosen[scores.image]
    return Scores(scores.image[kept], scores.right[kept], scores.asked[kept])


def shares(by: By, measure: str) -> dict[tuple[str, str], float]:
    """(noise, arm) -> the mean share of right answers over images and seeds; NaN where nothing was asked."""
    return {key: _share(_joined([of[measure] for of in seeds])) for key, seeds in by.items()}


def _share(scores: Scores) -> float:
    return float(_thousandths(scores).mean()) / 1000 if len(scores.asked) else math.nan


def _thousandths(scores: Scores) -> np.ndarray:
    """How much of each image is right, int64 (m,): whole numbers, as the exact test needs them."""
    whole: np.ndarray = np.rint(1000 * scores.right / scores.asked).astype(np.int64)
    return whole


def gains(by: By, measure: str, pairs: Sequence[tuple[str, str]] = PAIRS) -> list[Gain]:
    """Each pair of arms on each noise, by one measure.

    Raises:
        ValueError: where two arms were not asked about the same images.
    """
    found = []
    for noise in dict.fromkeys(noise for noise, _ in by):
        for arm, other in pairs:
            one, two = (_joined([of[measure] for of in by[noise, name]]) for name in (arm, other))
            if not (np.array_equal(one.image, two.image) and np.array_equal(one.asked, two.asked)):
                raise ValueError(f"{noise}, {measure}: expected the same images of {arm} and {other}")
            found.append(((noise, measure, arm, other), one, two))
    tested = [sign_flip(_by_item(one, _thousandths(one) - _thousandths(two))) for _, one, two in found]
    adjusted = holm(np.array(tested))
    return [_gain(*of, p, float(q)) for of, p, q in zip(found, tested, adjusted, strict=True)]


def _gain(names: tuple[str, str, str, str], one: Scores, two: Scores, p: float, adjusted: float) -> Gain:
    """The interval resamples items, each with all its answers."""
    if not len(one.image):
        return Gain(*names, math.nan, math.nan, math.nan, -1.0, 1.0, 0, p, adjusted)
    difference = (_thousandths(one) - _thousandths(two)) / 1000
    low, high = bootstrap(difference[None], _numbered(one))
    gain, items = float(difference.mean()), len(np.unique(one.image))
    return Gain(*names, _share(one), _share(two), gain, low, high, items, p, adjusted)


def _joined(of: Sequence[Scores]) -> Scores:
    parts = ([getattr(scores, name) for scores in of] for name in ("image", "right", "asked"))
    return Scores(*(np.concatenate(part) for part in parts))


def _numbered(scores: Scores) -> np.ndarray:
    return np.unique(scores.image, return_inverse=True)[1]


def _by_item(scores: Scores, values: np.ndarray) -> np.ndarray:
    return np.bincount(_numbered(scores), values).astype(np.int64)
