"""Several models on the same held-out samples: which differences are shown, and which could be chance.

Models are compared in pairs, on the samples that both have answered, by the exact sign-flip test over items
(verdicts.py). Trainings that differ in their seed alone are one method: its result on a sample is how many of its seeds
are right. The test is about these trained models; how much seeds differ is shown by the spread of
`Method`. As many pairs mean many chances of a false alarm, p-values are adjusted by Holm's method.
Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6, 1979.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations

import numpy as np

from trm_nb.errors import UserError
from trm_nb.training.verdicts import NOT_SHOWN, Outcome, outcome_at, p_value, sign_flip


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What one model has right of its held-out samples.

    `name`: of the model; `method`: equal for models that differ in their seed alone. `keys` str (n,): what identifies a
    sample and its target, all different; `correct` bool (n,); `items` str (n,): equal for samples of one item.
    """

    name: str
    method: str
    keys: np.ndarray
    correct: np.ndarray
    items: np.ndarray


@dataclass(frozen=True, slots=True)
class Method:
    """A method over its seeds, on all of their samples: the mean accuracy, and that of each seed."""

    name: str
    accuracy: float
    each: tuple[float, ...]

    @property
    def lowest(self) -> float:
        """The accuracy of the worst seed."""
        return min(self.each)

    @property
    def highest(self) -> float:
        """The accuracy of the best seed."""
        return max(self.each)

    @property
    def seeds(self) -> int:
        """How many there are."""
        return len(self.each)

    @property
    def deviation(self) -> float:
        """The standard deviation of the accuracy over seeds, an estimate from `seeds` of them; NaN for a single one."""
        return float(np.std(self.each, ddof=1)) if self.seeds > 1 else math.nan


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two methods on the samples that all of their models have answered.

    `first_accuracy` and `second_accuracy` are means over seeds on these samples. `p` is of this pair alone, `adjusted`
    is Holm's over all pairs. `left_out` counts the samples that only some of the models have answered.
    """

    first: str
    second: str
    first_accuracy: float
    second_accuracy: float
    samples: int
    items: int
    left_out: int
    p: float
    adjusted: float

    @property
    def outcome(self) -> Outcome:
        """What is shown of the first compared with the second, at an adjusted p < 0.05."""
        return outcome_at(self.adjusted, self.first_accuracy > self.second_accuracy)

    def sentence(self) -> str:
        """The verdict as one sentence."""
        both = f"{100 * self.first_accuracy:.1f} against {100 * self.second_accuracy:.1f} %"
        on = f"on {self.samples:,} samples of {self.items:,} items"
        evidence = f"{both} {on}, {p_value(self.adjusted)} after Holm"
        only = f"; {self.left_out:,} samples that only one of them has answered are left out" if self.left_out else ""
        if self.outcome == NOT_SHOWN:
            return f"No difference between {self.first} and {self.second} is shown ({evidence}{only})."
        return f"{self.first} is {self.outcome} than {self.second} ({evidence}{only})."


def methods_of(models: Sequence[Outcomes]) -> list[Method]:
    """Each method with the mean and the spread over its seeds, in the order of the models."""
    found = []
    for name in dict.fromkeys(model.method for model in models):
        each = tuple(float(model.correct.mean()) for model in models if model.method == name)
        found.append(Method(name, float(np.mean(each)), each))
    return found


def compare_methods(models: Sequence[Outcomes]) -> list[Comparison]:
    """Compare every pair of methods.

    Args:
        models: two methods or more; each model has held-out samples.

    Returns:
        One comparison for each pair, in the order of the models.

    Raises:
        UserError: where two methods have no sample in common.
    """
    by_method: dict[str, list[Outcomes]] = {}
    for model in models:
        by_method.setdefault(model.method, []).append(model)
    pairs = [_compared(*pair) for pair in combinations(by_method.values(), 2)]
    adjusted = holm(np.array([p for *_, p in pairs], float))
    return [Comparison(*pair, adjusted=float(p)) for pair, p in zip(pairs, adjusted, strict=True)]


def best_two(models: Sequence[Outcomes]) -> tuple[int, int]:
    """The places of the best model of each of the two best methods; the earlier one where two are equally good."""
    shares = [float(model.correct.mean()) for model in models]
    best = sorted(methods_of(models), key=lambda method: -method.accuracy)[:2]
    of = [[n for n, model in enumerate(models) if model.method == method.name] for method in best]
    return max(of[0], key=shares.__getitem__), max(of[1], key=shares.__getitem__)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values, float64 (n,): below a level where the pair is shown at that level for the family."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def _compared(
    first: Sequence[Outcomes], second: Sequence[Outcomes]
) -> tuple[str, str, float, float, int, int, int, float]:
    """The fields of a Comparison up to `p`."""
    every = [*first, *second]
    common = reduce(np.intersect1d, [model.keys for model in every])  # sorted
    names = first[0].method, second[0].method
    if not len(common):
        raise UserError(
            f"{names[0]} and {names[1]} have no held-out sample in common: expected models of the same dataset and "
            "objective, or of datasets that share samples; compare models of one run"
        )
    right = [_on(model, common, model.correct).astype(np.int64) for model in every]
    one, two = (np.sum(part, axis=0) for part in (right[: len(first)], right[len(first) :]))
    numbered = np.unique(_on(every[0], common, every[0].items), return_inverse=True)[1]
    differences = np.bincount(numbered, one * len(second) - two * len(first)).astype(np.int64)
    n, union = len(common), len(np.unique(np.concatenate([model.keys for model in every])))
    shares = float(one.mean()) / len(first), float(two.mean()) / len(second)
    return *names, *shares, n, len(differences), union - n, sign_flip(differences)


def _on(model: Outcomes, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A model's values for these of its keys, in their order."""
    order = np.argsort(model.keys)
    return np.asarray(values[order[np.searchsorted(model.keys, keys, sorter=order)]])
