"""What the notebooks choose and compute, against slower ways of saying the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from trm_nb.notebook.sampling import (
    agreeing,
    agreement,
    coverage,
    ends,
    lengths_of,
    median,
    most_denoised,
    most_repeated,
    neighbour_captions,
    neighbours,
    overview,
    pick,
    principal_plane,
    spread,
)


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [(0, 5, []), (1, 5, [0]), (3, 5, [0, 1, 2]), (5, 3, [0, 2, 4]), (10, 1, [0]), (101, 3, [0, 50, 100])],
)
def test_spread(total: int, count: int, expected: list[int]) -> None:
    assert spread(total, count).tolist() == expected


@pytest.mark.parametrize(
    ("total", "count", "expected"), [(0, 2, []), (1, 2, [0]), (3, 2, [0, 1, 2]), (9, 2, [0, 1, 7, 8])]
)
def test_ends(total: int, count: int, expected: list[int]) -> None:
    assert ends(total, count) == expected


def test_neighbour_captions() -> None:
    found = neighbour_captions(["a/x#1", "b/y", "z"], ["l", "m", "n"], np.array([[0, 2]]), np.array([[0.5]]))
    assert found == [["l\nx#1", "n, 0.50\nz"]]


def samples(**columns: list[Any]) -> pa.Table:
    n = len(next(iter(columns.values())))
    given = {"status": ["ok"] * n, "modality": ["text"] * n, "item_id": [str(i) for i in range(n)], "label": [None] * n}
    given |= {"split": ["train"] * n, "page": [0] * n, "pages": [1] * n, "key": [str(i) for i in range(n)]}
    return pa.table(given | columns)


def test_pick_takes_rows_with_images_and_the_given_values() -> None:
    table = samples(status=["ok", "quarantined", "ok", "ok"], modality=["text", "grid", "grid", "text"])
    assert pick(table, 9) == [0, 2, 3]
    assert pick(table, 9, modality="grid") == [2]
    assert pick(table, 9, modality="image") == []


def test_tables_of_a_run() -> None:
    table = samples(
        item_id=["a", "a", "b"], page=[0, 1, 0], pages=[2, 2, 1], key=["x", "y", "x"], label=["l", "l", None],
        status=["ok", "quarantined", "ok"], split=["train", "train", "test"],
    )  # fmt: skip
    assert lengths_of(table) == {1: 1, 2: 1}
    assert most_repeated(table, 4) == [(0, 2)]
    assert overview(table) == [
        {"modality": "text", "samples": 3, "items": 2, "labels": 1, "held out": 1, "quarantined": 1}
    ]


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
    vectors = np.array([[0, 1], [0, 1.1], [5, 0], [5.1, 0]], np.float32)
    labels = np.array([0, 0, 1, 1])
    near, _ = neighbours(vectors, 1)
    assert agreement(near, labels) == {"nearest": 1.0, "chance": pytest.approx(1 / 3), "counted": 4}
    apart = np.array(["a", "a", "b", "c"], dtype=object)
    near, _ = neighbours(vectors, 1, apart=apart)
    found = agreement(near, labels, apart=apart)
    assert found["chance"] == pytest.approx((0 + 0 + 1 / 3 + 1 / 3) / 4) and found["nearest"] == 0.5
    assert agreement(near, np.full(4, -1))["counted"] == 0
    near, _ = neighbours(vectors[:1], 1)
    assert agreement(near, labels[:1])["counted"] == 0


def test_agreement_as_an_accuracy_over_items() -> None:
    vectors = np.array([[0, 1], [0, 1.1], [5, 0], [5.1, 0], [9, 9]], np.float32)
    labels, items = np.array([0, 0, 1, 2, -1]), np.array([0, 0, 1, 2, 3])
    near, _ = neighbours(vectors, 1)
    found = agreeing(near, labels, items)
    assert (found.share, found.rows, found.items) == (agreement(near, labels)["nearest"], 4, 3)
    assert agreeing(near, np.full(5, -1), items).rows == 0
    assert agreeing(neighbours(vectors[:1], 1)[0], labels[:1], items[:1]).rows == 0
    assert agreeing(neighbours(vectors[:2], 1)[0], labels[:2], items[:2], apart=items[:2]).rows == 0


def test_principal_plane_finds_the_plane() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=(60, 2)) * [5, 2]
    axes = np.linalg.qr(rng.normal(size=(30, 2)))[0]
    coordinates, explained = principal_plane(true @ axes.T + 7)
    assert explained.sum() == pytest.approx(1)
    centred = true - true.mean(axis=0)
    distances = np.linalg.norm(centred[:, None] - centred[None], axis=-1)
    assert np.allclose(np.linalg.norm(coordinates[:, None] - coordinates[None], axis=-1), distances, atol=1e-6)
    assert principal_plane(np.ones((3, 4)))[0].tolist() == [[0, 0]] * 3


def test_ink_and_median() -> None:
    images = np.full((2, 4, 4, 3), 255, np.uint8)
    images[1, :2, :, 0] = 0
    assert coverage(images).tolist() == [0, 0.5]
    assert median(np.zeros(0)) == 0


def test_most_denoised_has_each_image_once_and_none_that_was_left_alone() -> None:
    table = samples(key=["a", "b", "a", "c", "d"], noise=[3.0, None, 3.0, 9.0, 0.0])
    assert most_denoised(table, 9) == [3, 0, 4]
    assert most_denoised(table, 1) == [3]
    assert most_denoised(samples(key=["a"], noise=[None]), 2) == []
