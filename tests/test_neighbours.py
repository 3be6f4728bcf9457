"""Neighbours and how they agree, against slower ways of saying the same."""

from __future__ import annotations

import numpy as np
import pytest

from trm_nb.evaluation.neighbours import label_agreement, neighbours

FOUR = np.array([[0, 1], [0, 1.1], [5, 0], [5.1, 0]], np.float32)


def test_neighbours_agree_with_the_definition() -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 7)).astype(np.float32)
    near, similar = neighbours(vectors, 3)
    centred = vectors - vectors.mean(axis=0)
    for i in range(20):
        cosines = [
            -2 if i == j else float(centred[i] @ centred[j] / np.linalg.norm(centred[i]) / np.linalg.norm(centred[j]))
            for j in range(20)
        ]
        expected = sorted(range(20), key=lambda j: -cosines[j])[:3]
        assert near[i].tolist() == expected
        assert np.allclose(similar[i], [cosines[j] for j in expected], atol=1e-5)


def test_agreement_beside_chance() -> None:
    labels, alone = np.array([0, 0, 1, 1]), np.arange(4)
    near, _ = neighbours(FOUR, 1)
    found = label_agreement(near, labels, alone)
    assert (found.nearest.share, found.nearest.rows, found.chance) == (1.0, 4, pytest.approx(1 / 3))
    apart = np.array(["a", "a", "b", "c"], dtype=object)
    near, _ = neighbours(FOUR, 1, apart=apart)
    found = label_agreement(near, labels, alone, apart=apart)
    assert found.chance == pytest.approx((0 + 0 + 1 / 3 + 1 / 3) / 4) and found.nearest.share == 0.5
    said = found.sentences("the nearest other", "a random other")
    assert said.startswith("**50.0 %** of 4 labelled samples have the label of the nearest other")
    assert "No difference** between the nearest neighbour and a random other (16.7 %) is shown" in said


@pytest.mark.parametrize(
    ("rows", "labels", "apart"),
    [
        pytest.param(4, [-1, -1, -1, -1], None, id="no labels"),
        pytest.param(1, [0], None, id="one sample"),
        pytest.param(2, [0, 0], [5, 5], id="one item"),
    ],
)
def test_agreement_of_nothing(rows: int, labels: list[int], apart: list[int] | None) -> None:
    groups = None if apart is None else np.array(apart)
    near, _ = neighbours(FOUR[:rows], 1, apart=groups)
    found = label_agreement(near, np.array(labels), np.arange(rows), groups)
    assert found.nearest.rows == 0 and np.isnan(found.chance)
    assert found.sentences("a", "b") == "There are no samples to measure on."


def test_samples_of_one_item_are_one_unit() -> None:
    vectors = np.concatenate([FOUR, [[9, 9]]]).astype(np.float32)
    near, _ = neighbours(vectors, 1)
    found = label_agreement(near, np.array([0, 0, 1, 2, -1]), np.array([0, 0, 1, 2, 3])).nearest
    assert (found.rows, found.items) == (4, 3)
