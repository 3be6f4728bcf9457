"""Intervals, paired tests and their verdicts: tables with known answers, and independent references."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from runs import make_run

from trm_nb import CapsuleDataset
from trm_nb.training import verdicts
from trm_nb.training.objectives.label import Labels
from trm_nb.training.verdicts import (
    accuracy,
    balanced_accuracy,
    most_missed,
    outcome_of,
    p_value,
    paired,
    sign_flip,
    wilson,
)


def rows_of(both: int, gained: int, lost: int, neither: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two results of the same samples: those that both, only the first, only the second, or neither has right."""
    counts = [both, gained, lost, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


# p-values of the singletons: scipy.stats.binomtest(gained, gained + lost, 0.5).pvalue, SciPy 1.17.1 (McNemar's test)
@pytest.mark.parametrize(
    ("counts", "outcome", "p"),
    [
        pytest.param((0, 0, 0, 0), "no difference shown", 1.0, id="no samples"),
        pytest.param((20, 0, 0, 20), "no difference shown", 1.0, id="equal"),
        pytest.param((20, 0, 0, 0), "no difference shown", 1.0, id="both all right"),
        pytest.param((0, 0, 0, 20), "no difference shown", 1.0, id="both all wrong"),
        pytest.param((20, 1, 0, 20), "no difference shown", 1.0, id="one sample apart"),
        pytest.param((90, 1, 3, 29), "no difference shown", 0.625, id="1 gained and 3 lost of 123"),
        pytest.param((0, 5, 0, 0), "no difference shown", 0.0625, id="all of five"),
        pytest.param((0, 6, 0, 0), "better", 0.03125, id="all of six"),
        pytest.param((0, 0, 6, 0), "worse", 0.03125, id="none of six"),
        pytest.param((40, 12, 3, 40), "better", 0.03515625, id="12 to 3"),
        pytest.param((40, 12, 4, 40), "no difference shown", 0.0768127441, id="12 to 4"),
        pytest.param((500, 900, 1000, 500), "worse", 0.0231088451, id="900 to 1,000"),
    ],
)
def test_paired_singletons_are_mcnemars_exact_test(counts: tuple[int, ...], outcome: str, p: float) -> None:
    found = paired(*rows_of(*counts))
    assert (found.outcome, found.gained, found.lost, found.items) == (outcome, counts[1], counts[2], sum(counts))
    assert found.p == pytest.approx(p, rel=1e-8)


@pytest.mark.parametrize(
    ("sizes", "outcome", "p"),
    [
        pytest.param([10], "no difference shown", 1.0, id="ten samples of one item"),
        pytest.param([20] * 5, "no difference shown", 0.0625, id="a hundred of five items"),
        pytest.param([2] * 6, "better", 0.03125, id="twelve of six items"),
        pytest.param([100, 1, 1, 1, 1, 1, -1], "no difference shown", 14 / 128, id="one large item decides"),
        pytest.param([3, -3], "no difference shown", 1.0, id="items that cancel out"),
        pytest.param([-4, -3, -3, -2, -2, -1, 1], "worse", 6 / 128, id="six items against one"),
    ],
)
def test_paired_samples_of_one_item_count_once(sizes: list[int], outcome: str, p: float) -> None:
    items = np.repeat(np.arange(len(sizes)), np.abs(sizes))
    first = np.repeat(np.array(sizes) > 0, np.abs(sizes))
    found = paired(first, ~first, items)
    assert found.outcome == outcome and found.items == len(sizes)
    assert found.p == pytest.approx(p) == pytest.approx(exact(sizes))


def exact(differences: list[int]) -> float:
    """The sign-flip test by its definition: over every choice of signs."""
    signs = np.array(list(itertools.product((-1, 1), repeat=len(differences))))
    return float((np.abs(signs @ np.abs(differences)) >= abs(sum(differences))).mean())


def test_the_sign_flip_test_agrees_with_all_choices_of_signs() -> None:
    rng = np.random.default_rng(0)
    for high in (2, 5, 40):
        differences = rng.integers(-high, high + 1, 11)
        assert sign_flip(differences) == pytest.approx(exact(differences.tolist()), rel=1e-9)


def test_the_normal_approximation_takes_over_smoothly(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(1).integers(-9, 10, 3000)
    found = sign_flip(differences)
    monkeypatch.setattr(verdicts, "MAX_WORK", 0)
    assert 0.01 < found < 0.99 and sign_flip(differences) == pytest.approx(found, abs=0.005)


def test_samples_that_differ_in_number_are_refused() -> None:
    with pytest.raises(ValueError, match="of the same samples"):
        paired(np.ones(3, bool), np.ones(2, bool))
    with pytest.raises(ValueError, match="one item for each"):
        accuracy(np.ones(3, bool), np.zeros(2))


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_gives_the_published_intervals(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right, n) == pytest.approx((low, high), abs=1e-4)
    found = accuracy(np.arange(n) < right)
    assert (found.low, found.high) == wilson(right, n) and found.items == found.rows == n


@pytest.mark.parametrize(
    ("correct", "items", "expected"),
    [
        pytest.param([], [], (0.0, 1.0), id="no samples"),
        pytest.param([1] * 40, [0] * 40, wilson(1, 1), id="all right, one item"),
        pytest.param([0] * 40, [0] * 40, wilson(0, 1), id="all wrong, one item"),
        pytest.param([1] * 40, [7] * 20 + [3] * 20, wilson(2, 2), id="all right, two items"),
        pytest.param([1] * 40, range(40), wilson(40, 40), id="all right, singletons"),
        pytest.param([1] * 20 + [0] * 20, [i // 2 for i in range(40)], wilson(10, 20), id="pairs that agree"),
    ],
)
def test_an_interval_counts_items(correct: list[int], items: list[int], expected: tuple[float, float]) -> None:
    found = accuracy(np.array(correct, bool), np.array(items, np.int64))
    assert (found.low, found.high) == pytest.approx(expected)


def test_an_interval_narrows_with_what_varies_inside_items() -> None:
    def width(correct: np.ndarray) -> float:
        found = accuracy(correct, np.arange(400) // 4)
        return found.high - found.low

    rng = np.random.default_rng(0)
    alike, free = np.repeat(rng.random(100) < 0.7, 4), rng.random(400) < 0.7
    of_rows, of_items = (wilson(0.7 * n, n) for n in (400, 100))
    assert width(free) < 1.3 * (of_rows[1] - of_rows[0]) < width(alike)
    assert width(alike) == pytest.approx(of_items[1] - of_items[0], rel=0.1)


def test_one_more_error_moves_an_interval_down() -> None:
    correct = np.ones(120, bool)
    bounds = [(found.low, found.high) for k in range(20) if (found := _with_errors(correct, k))]
    assert bounds[0][1] == 1.0
    assert all(low > next_low and high > next_high for (low, high), (next_low, next_high) in itertools.pairwise(bounds))


def _with_errors(correct: np.ndarray, count: int) -> verdicts.Accuracy:
    return accuracy(correct & (np.arange(len(correct)) >= count), np.arange(len(correct)) // 2)


def test_an_interval_covers_the_truth_where_items_are_alike() -> None:
    rng, covered, by_rows = np.random.default_rng(0), 0, 0
    for _ in range(400):
        sizes = np.minimum(rng.geometric(0.15, 25), 40)
        items = np.repeat(np.arange(25), sizes)
        correct = rng.random(len(items)) < rng.beta(1.87, 0.47, 25)[items]  # 80 %, correlation 0.3
        found, plain = accuracy(correct, items), accuracy(correct)
        covered += found.low <= 0.8 <= found.high
        by_rows += plain.low <= 0.8 <= plain.high
    assert covered > 0.93 * 400 and by_rows < 0.75 * 400


def test_a_balanced_interval_covers_the_truth() -> None:
    """In 92 to 98 % of 600 draws, over items of three samples that are alike, in classes of several sizes."""
    rng = np.random.default_rng(0)
    accuracies, sizes = np.array([0.9, 0.6, 0.75, 0.3]), np.array([40, 12, 25, 8])  # items of each class
    classes = np.repeat(np.arange(4), 3 * sizes)
    items = np.repeat(np.arange(sizes.sum()), 3)
    covered = 0
    for _ in range(600):
        item_right = rng.random(sizes.sum()) < np.repeat(accuracies, sizes)
        noisy = rng.random(len(items)) < 0.1  # a tenth of the samples goes its own way
        correct = np.where(noisy, rng.random(len(items)) < accuracies[classes], item_right[items])
        found = balanced_accuracy(correct, classes, items)
        covered += found.low <= accuracies.mean() <= found.high
    assert 0.92 <= covered / 600 <= 0.98


def test_a_balanced_accuracy_of_one_class_is_the_accuracy() -> None:
    correct, items = np.array([True, False, True, True, False]), np.array([0, 0, 1, 1, 2])
    one, other = balanced_accuracy(correct, np.zeros(5, int), items), accuracy(correct, items)
    assert (one.share, one.rows, one.items) == (other.share, 5, 3)
    assert (one.low, one.high) == (pytest.approx(other.low), pytest.approx(other.high))
    assert math.isnan(balanced_accuracy(np.array([], bool), np.array([], int)).share)


@pytest.mark.parametrize(
    ("interval", "reference", "items", "expected"),
    [
        ((0.6, 0.8), (0.5, 0.5), 60, "better"),
        ((0.6, 0.8), (0.9, 0.9), 60, "worse"),
        ((0.6, 0.8), (0.6, 0.6), 60, "no difference shown"),
        ((0.6, 0.8), (0.75, 0.95), 60, "no difference shown"),
        ((0.6, 0.8), (0.81, 0.95), 60, "worse"),
        ((1.0, 1.0), (0.5, 0.5), 5, "no difference shown"),
        ((math.nan, math.nan), (0.5, 0.5), 60, "no difference shown"),
        ((0.6, 0.8), (math.nan, math.nan), 60, "no difference shown"),
    ],
)
def test_outcomes(interval: tuple[float, float], reference: tuple[float, float], items: int, expected: str) -> None:
    assert outcome_of(interval, reference, items) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (paired(*rows_of(90, 1, 3, 29)).sentence("the first pass", "the last pass"),
         "**No difference** between the last pass and the first pass is shown (74.0 against 75.6 %; 1 sample gained, "
         "3 lost of 123; exact McNemar test over 123 items, p = 0.62)."),
        (paired(*rows_of(0, 12, 0), np.arange(12) // 2).sentence("guessing"),
         "The model is **better** than guessing (100.0 against 0.0 %; 12 samples gained, 0 lost of 12; exact sign-flip "
         "test over 6 items, p = 0.031)."),
        (paired(*rows_of(0, 0, 0)).sentence("guessing"),
         "**No difference** between the model and guessing is shown (no samples were measured)."),
        (accuracy(np.arange(40) < 30).sentence("answers are right"),
         "**75.0 %** of 40 answers are right (95 % interval 59.8 to 85.8 %, over 40 items)."),
        (accuracy(np.zeros(0)).sentence("answers are right"), "There are no samples to measure on."),
        (accuracy(np.arange(40) < 30).against(0.25, "guessing"),
         "The model is **better** than guessing (25.0 %): the whole interval lies above it."),
        (accuracy(np.arange(40) < 30).against(0.9, "guessing"),
         "The model is **worse** than guessing (90.0 %): the whole interval lies below it."),
        (accuracy(np.arange(40) < 30).against(0.6, "guessing"),
         "**No difference** between the model and guessing (60.0 %) is shown: it lies within the interval."),
        (accuracy(np.ones(40), np.zeros(40)).against(0.1, "guessing"),
         "**No difference** between the model and guessing (10.0 %) is shown: fewer than 6 items allow no verdict."),
        (accuracy(np.arange(123) < 90).gap_to(0.95, 64),
         "In the last steps of training 95.0 % were right, held out 73.2 %: a generalisation gap **is shown**, as the "
         "two 95 % intervals do not overlap."),
        (accuracy(np.arange(40) < 39).gap_to(1.0, 64),
         "In the last steps of training 100.0 % were right, held out 97.5 %: "
         "the gap between them is not significant, as the two 95 % intervals overlap."),
    ],
)  # fmt: skip
def test_sentences(said: str, expected: str) -> None:
    assert said == expected


@pytest.mark.parametrize(
    ("p", "expected"),
    [(1.0, "p = 1"), (0.625, "p = 0.62"), (0.0499, "p = 0.0499"), (0.0501, "p = 0.0501"), (0.0042, "p = 0.0042"),
     (0.0009, "p < 0.001"), (0.0, "p < 0.001")],
)  # fmt: skip
def test_p_values(p: float, expected: str) -> None:
    assert p_value(p) == expected


@pytest.mark.parametrize(
    ("confusion", "expected"),
    [
        pytest.param([[5, 0], [0, 3]], [], id="nothing missed"),
        pytest.param([[5, 1], [2, 3]], [(1, 2, 5)], id="one class"),
        pytest.param([[5, 2], [2, 0]], [(0, 2, 7), (1, 2, 2)], id="a tie"),
        pytest.param([[0, 0], [4, 3]], [(1, 4, 7)], id="a class without samples"),
        pytest.param([[0]], [], id="no samples"),
        pytest.param(np.zeros((0, 0)), [], id="no classes"),
    ],
)
def test_most_missed(confusion: list[list[int]], expected: list[tuple[int, int, int]]) -> None:
    assert most_missed(np.array(confusion, np.int64)) == expected


def _with_columns(folder: Path, **columns: Sequence[object]) -> CapsuleDataset:
    table = pq.read_table(folder / "samples.parquet")
    for name, values in columns.items():
        table = table.drop_columns([name] if name in table.column_names else []).append_column(name, [values])
    pq.write_table(table, folder / "samples.parquet")
    return CapsuleDataset(folder)


@pytest.mark.parametrize(
    ("item_ids", "keys", "expected"),
    [
        pytest.param("a a b b c", "1 2 3 4 5", [0, 0, 1, 1, 2], id="pages"),
        pytest.param("a a b b c", "1 2 1 2 1", [0, 0, 0, 0, 1], id="a copy, and a document with the same first page"),
        pytest.param("t t@1 t@2 u u@1", "1 2 3 4 5", [0, 0, 0, 1, 1], id="forms of a task"),
        pytest.param("t@1 t@2 u t@x u@", "1 2 3 4 5", [0, 1, 2, 3, 4], id="names that only look like forms"),
    ],
)
def test_items_of_a_run(tmp_path: Path, item_ids: str, keys: str, expected: list[int]) -> None:
    make_run(tmp_path, ["a", "b", "a", "b", "a"], ["train", "train", "train", "test", "test"])
    dataset = _with_columns(tmp_path, item_id=item_ids.split(), key=keys.split())
    assert dataset.items_of(np.arange(5)).tolist() == expected
    assert dataset.items_of(np.array([4, 0])).tolist() == [expected[4], expected[0]]
    assert Labels(dataset).items_of(np.array([4, 0])).tolist() == [expected[4], expected[0]]
