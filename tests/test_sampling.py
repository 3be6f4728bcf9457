"""What the notebooks choose, against slower ways of saying the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from trm_nb.evaluation.fidelity import spread
from trm_nb.notebook.sampling import coverage, evenly, head_and_tail


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [(0, 5, []), (1, 5, [0]), (3, 5, [0, 1, 2]), (5, 3, [0, 2, 4]), (10, 1, [0]), (101, 3, [0, 50, 100])],
)
def test_spread(total: int, count: int, expected: list[int]) -> None:
    assert spread(total, count).tolist() == expected


@pytest.mark.parametrize(
    ("total", "count", "expected"), [(0, 2, []), (1, 2, [0]), (3, 2, [0, 1, 2]), (9, 2, [0, 1, 7, 8])]
)
def test_head_and_tail(total: int, count: int, expected: list[int]) -> None:
    assert head_and_tail(pd.DataFrame({"row": range(total)}), count)["row"].tolist() == expected


def test_evenly_keeps_the_row_numbers() -> None:
    rows = pd.DataFrame({"status": ["ok", "quarantined", "ok", "ok"]})
    assert evenly(rows[rows["status"] == "ok"], 2).index.tolist() == [0, 3]


def test_coverage() -> None:
    images = np.full((2, 4, 4, 3), 255, np.uint8)
    images[1, :2, :, 0] = 0
    assert coverage(images).tolist() == [0, 0.5]
