"""The nearest training sample, by its definition."""

from __future__ import annotations

import numpy as np
import pytest

from trm_nb.dataset import nearest as module
from trm_nb.dataset.nearest import nearest


@pytest.mark.parametrize("rows_at_once", [3, 1000])
def test_it_agrees_with_the_definition(monkeypatch: pytest.MonkeyPatch, rows_at_once: int) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", rows_at_once)
    rng = np.random.default_rng(0)
    capsules = (rng.standard_normal((40, 12, 512)) + 3).astype(np.float16)
    train, asked = (np.flatnonzero(part) for part in (np.arange(40) % 4 != 1, np.arange(40) % 4 == 1))
    capsules[1] = capsules[20]  # a copy of a training sample is its own nearest
    flat = capsules.reshape(40, -1).astype(np.float64)
    flat -= flat[train].mean(axis=0)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    expected = train[(flat[asked] @ flat[train].T).argmax(axis=1)]
    found = nearest(capsules, train, asked)
    assert found.tolist() == expected.tolist() and found[0] == 20
