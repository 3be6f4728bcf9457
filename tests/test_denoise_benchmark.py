"""The table beside other denoisers: same noise for all arms, true figures, and others that work."""

from __future__ import annotations

import numpy as np
import pytest

from trm_nb.denoise import benchmark
from trm_nb.denoise.benchmark import arms, compare, noisy, photographs, psnr
from trm_nb.denoise.noise import Noise
from trm_nb.denoise.noise2noise import Denoiser, Noise2NoiseUNet, Shape
from trm_nb.denoise.ocr import character_errors, edit_distance


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return photographs()["astronaut"][:64, 200:264]


def test_photographs_are_what_a_network_can_take() -> None:
    found = photographs()
    assert list(found) == list(benchmark.PHOTOGRAPHS)
    for pixels in found.values():
        assert pixels.dtype == np.float32 and pixels.shape[0] % 8 == pixels.shape[1] % 8 == 0
        assert 0 <= pixels.min() < 0.1 and 0.9 < pixels.max() <= 1


@pytest.mark.parametrize(("value", "expected"), [(0.0, float("inf")), (0.1, 20.0), (25 / 255, 20.17)])
def test_psnr(value: float, expected: float) -> None:
    assert psnr(np.full((8, 8, 3), value), np.zeros((8, 8, 3))) == pytest.approx(expected, abs=0.01)


@pytest.mark.slow
def test_every_arm_but_an_untrained_one_restores(image: np.ndarray) -> None:
    given = arms({"ours": Denoiser(Noise2NoiseUNet(Shape((8, 8, 8))))})
    rows = {row.arm: row for row in compare({"a": image}, [Noise("gaussian", 25)], given)}
    assert rows["noisy"].psnr == pytest.approx(-20 * np.log10(25 / 255), abs=0.4)  # clipped
    assert rows["noisy"].psnr + 3 < rows["median"].psnr < rows["BM3D"].psnr
    assert rows["noisy"].psnr + 4 < rows["NLM"].psnr < rows["BM3D"].psnr
    assert rows["noisy"].ssim < rows["BM3D"].ssim <= 1
    assert all(row.ms > 0 for row in rows.values())


def test_all_arms_get_the_same_noise_and_it_follows_from_the_seed(image: np.ndarray) -> None:
    seen = []

    def look(x: np.ndarray, sigma: float) -> np.ndarray:
        seen.append((x.copy(), sigma))
        return x

    compare({"a": image}, [Noise("poisson", 30)], {"one": look, "other": look})
    full = [entry for entry in seen if entry[1] != 0.1]  # without the ones that are timed
    assert len(full) == 2 and np.array_equal(full[0][0], full[1][0]) and full[0][1] == full[1][1]
    assert np.array_equal(full[0][0], noisy(image, Noise("poisson", 30), 0))
    assert full[0][1] == pytest.approx(float((full[0][0] - image).std()))


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("", "", 0), ("abc", "abc", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("ab", "ba", 2)],
)
def test_edit_distance(one: str, other: str, distance: int) -> None:
    assert edit_distance(one, other) == edit_distance(other, one) == distance


def test_white_space_does_not_count() -> None:
    assert character_errors("to be or\nnot", "tobe 0r not") == (1, 9)
