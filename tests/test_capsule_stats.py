"""Statistics of capsules, against slower ways of saying the same."""

from __future__ import annotations

import numpy as np
import pytest

from trm_nb.evaluation.capsule_stats import principal_plane, shared_sentence, shared_variance, varying_share


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


def test_shared_variance_is_that_of_pairs() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 400))
    mean, most, share = shared_variance(np.stack([first, first, second]))
    expected = [1.0, *[float(np.corrcoef(first, second)[0, 1])] * 2]
    assert (mean, most) == (pytest.approx(np.mean(expected)), pytest.approx(1.0))
    assert share == pytest.approx(np.mean(np.square(expected)))


def test_varying_share() -> None:
    capsules = np.random.default_rng(0).normal(size=(5000, 2, 3))
    capsules[:, 1] += [3.0, 0, 0]
    assert varying_share(capsules) == pytest.approx([1, 3 / 12], abs=0.02)
    assert varying_share(np.ones((4, 2, 3))) == pytest.approx([0, 0])


@pytest.mark.parametrize(("noise", "amount"), [(0.1, "much"), (1.0, "some"), (30.0, "little")])
def test_what_is_shared_in_words(noise: float, amount: str) -> None:
    rng = np.random.default_rng(0)
    capsules = rng.normal(size=500) + noise * rng.normal(size=(12, 500))
    assert shared_sentence(capsules).endswith(f"they share **{amount}**.")
