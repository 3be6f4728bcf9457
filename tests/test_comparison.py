"""Comparisons of models: known differences are found, false alarms as rare as stated, seeds taken as one method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from trm_nb.errors import UserError
from trm_nb.evaluation.comparison import Outcomes, compare_methods, holm, methods_of
from trm_nb.training.verdicts import paired

DRAWS = 1000


def outcomes(name: str, correct: np.ndarray, items: np.ndarray | None = None, method: str | None = None) -> Outcomes:
    keys = np.array([f"key {n}" for n in range(len(correct))])
    items = np.arange(len(correct)) if items is None else items
    return Outcomes(name, method or name, keys, correct, np.char.add("item ", items.astype(str)))


def alone(rng: np.random.Generator, better: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two models on 400 samples of 400 items; the second is right more often by `better`."""
    hard = rng.random(400)
    one, two = rng.random((2, 400)) < 0.25 + 0.5 * hard
    return one, two | (rng.random(400) < better), np.arange(400)


def clustered(rng: np.random.Generator, better: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same on 150 items of 1 to 8 samples, whose results are nearly equal within an item."""
    items = np.repeat(np.arange(150), rng.integers(1, 9, 150))
    one, two = (rng.random((2, 150)) < 0.5)[:, items] ^ (rng.random((2, len(items))) < 0.05)
    return one, two | (rng.random(150) < better)[items], items


@pytest.mark.parametrize("make", [alone, clustered], ids=["a sample an item", "samples of an item resemble each other"])
def test_false_alarms_are_as_rare_as_stated(make: Callable[..., tuple[np.ndarray, ...]]) -> None:
    rng = np.random.default_rng(0)
    shown = 0
    for _ in range(DRAWS):
        one, two, items = make(rng, 0.0)
        (found,) = compare_methods([outcomes("a", one, items), outcomes("b", two, items)])
        shown += found.p < 0.05
    assert 0.03 * DRAWS <= shown <= 0.07 * DRAWS


@pytest.mark.parametrize("make", [alone, clustered], ids=["a sample an item", "samples of an item resemble each other"])
def test_a_known_difference_is_found(make: Callable[..., tuple[np.ndarray, ...]]) -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(200):
        one, two, items = make(rng, 0.45)
        found.append(compare_methods([outcomes("a", one, items), outcomes("b", two, items)])[0].outcome)
    assert found.count("worse") >= 190 and "better" not in found


def test_one_seed_each_is_the_paired_test_of_the_verdicts() -> None:
    one, two, items = clustered(np.random.default_rng(2), 0.1)
    (found,) = compare_methods([outcomes("a", one, items), outcomes("b", two, items)])
    expected = paired(one, two, items)
    assert (found.p, found.adjusted) == (expected.p, expected.p)
    assert (found.first_accuracy, found.second_accuracy) == (expected.first, expected.second)


def test_seeds_of_a_method_are_taken_together() -> None:
    rng = np.random.default_rng(3)
    hard = rng.random(300)
    models = [outcomes(f"a {n}", rng.random(300) < 0.9 - 0.5 * hard, method="a") for n in range(3)]
    models += [outcomes(f"b {n}", rng.random(300) < 0.97 - 0.4 * hard, method="b") for n in range(2)]
    (found,) = compare_methods(models)
    a, b = methods_of(models)
    assert (a.seeds, b.seeds) == (3, 2) and a.lowest <= a.accuracy <= a.highest
    assert (found.first_accuracy, found.second_accuracy) == (pytest.approx(a.accuracy), pytest.approx(b.accuracy))
    assert found.outcome == "worse" and "a is worse than b" in found.sentence()
    same = compare_methods([*models[:3], *(replace(model, method="c") for model in models[:3])])
    assert (same[0].p, same[0].outcome) == (1.0, "no difference shown")


def test_the_order_of_samples_does_not_count() -> None:
    one, two, items = clustered(np.random.default_rng(4), 0.2)
    first, second = outcomes("a", one, items), outcomes("b", two, items)
    order = np.random.default_rng(0).permutation(len(one))
    moved = replace(second, keys=second.keys[order], correct=second.correct[order], items=second.items[order])
    assert compare_methods([first, moved]) == compare_methods([first, second])


def test_only_common_samples_are_compared() -> None:
    one, two, _ = alone(np.random.default_rng(5), 0.2)
    first, second = outcomes("a", one), outcomes("b", two)
    part = replace(second, keys=second.keys[:250], correct=second.correct[:250], items=second.items[:250])
    (found,) = compare_methods([first, part])
    assert (found.samples, found.left_out) == (250, 150) and "150 samples that only one" in found.sentence()
    assert found.p == paired(one[:250], two[:250]).p
    with pytest.raises(UserError, match="a and b have no held-out sample in common"):
        compare_methods([first, replace(part, keys=np.char.add("other ", part.keys))])


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        pytest.param([], [], id="none"),
        pytest.param([0.03], [0.03], id="one"),
        pytest.param([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02], id="the example of the method"),
        pytest.param([0.9, 0.8], [1.0, 1.0], id="never above one"),
        pytest.param([0.02, 0.02, 0.02], [0.06, 0.06, 0.06], id="ties"),
    ],
)
def test_holm(p: list[float], adjusted: list[float]) -> None:
    assert holm(np.array(p)).tolist() == pytest.approx(adjusted)


def test_many_comparisons_of_equal_models_rarely_show_one() -> None:
    rng = np.random.default_rng(6)
    shown = 0
    for _ in range(100):
        correct = rng.random((4, 200)) < 0.6
        shown += any(c.outcome != "no difference shown" for c in compare_methods([*map(outcomes, "abcd", correct)]))
    assert shown <= 8
