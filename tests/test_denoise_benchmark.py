"""The table beside other denoisers: same noise for all arms, true figures, and others that work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from trm_nb.denoise import benchmark
from trm_nb.denoise.benchmark import Row, arms, compare, noisy, photographs, psnr
from trm_nb.denoise.noise import Noise
from trm_nb.denoise.noise2noise import Denoiser, Noise2NoiseUNet, Shape
from trm_nb.denoise.ocr import character_errors, edit_distance
from trm_nb.evaluation.denoising.leads import leads_of


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


def test_bm3d_leaves_an_image_alone_whose_noise_is_a_rounding_of_float32(image: np.ndarray) -> None:
    pytest.importorskip("bm3d"), pytest.importorskip("skimage")
    assert np.array_equal(arms({})["BM3D"](image, 1e-8), image)


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


def test_clean_images_are_scored_by_kind_and_arm() -> None:
    images = {"pages": benchmark.pages(benchmark.texts()[:2]), "grids": benchmark.grids(3, seed=1)}
    assert [list(some) for some in images.values()] == [["0", "1"], ["0", "1", "2"]]
    assert all(
        x.shape == (224, 224, 3) and 0 <= x.min() < x.max() <= 1 for some in images.values() for x in some.values()
    )
    assert np.array_equal(benchmark.grids(3, seed=1)["2"], images["grids"]["2"])
    arms: dict[str, benchmark.Restore] = {"dark": lambda x, sigma: 0 * x, "as it is": lambda x, sigma: x}
    found = benchmark.clean_psnr(images, arms)
    expected = np.mean([psnr(0 * x, x) for x in images["grids"].values()])
    assert found["grids"]["dark"] == pytest.approx(expected) and found["pages"]["as it is"] == float("inf")


def test_figures_are_recorded_and_no_nan_among_them(tmp_path: Path) -> None:
    benchmark.record(tmp_path / "new" / "metrics.json", rows=[_row("a", "ours", 1.0)], seed=3)
    found = json.loads((tmp_path / "new" / "metrics.json").read_text())
    assert found["seed"] == 3 and found["rows"][0]["arm"] == "ours"
    with pytest.raises(ValueError, match="JSON compliant"):
        benchmark.record(tmp_path / "metrics.json", loss=float("nan"))


def _row(noise: str, arm: str, *each: float) -> Row:
    return Row(noise, arm, float(np.mean(each)), 0.9, 1.0, each)


ROWS = [
    _row("a", "noisy", 9, 9, 9, 9, 9, 9), _row("a", "median", 1, 2, 1, 2, 1, 2), _row("a", "BM3D", 3, 4, 3, 4, 3, 4),
    _row("a", "ours", 4, 5, 4, 5, 4, 5), _row("b", "noisy", 9), _row("b", "ours", 4),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "ours", "sentences"),
    [
        (ROWS, ["ours"], ["ours, a: **+1.00 dB** against BM3D, ahead on 6 of 6 images (p = 0.031)."]),
        (ROWS[:2], ["ours"], []),
        (
            [_row("a", "BM3D", 3, 4), _row("a", "one", 4, 2), _row("a", "two", 3, 4)],
            ["one", "two"],
            ["one, a: **-0.50 dB** against BM3D, ahead on 1 of 2 images (p = 1).",
             "two, a: **+0.00 dB** against BM3D, ahead on 0 of 2 images (p = 1)."],
        ),
    ],
    ids=["the best other one", "none of ours", "several of ours"],
)  # fmt: skip
def test_leads(rows: list[Row], ours: list[str], sentences: list[str]) -> None:
    assert [lead.sentence() for lead in leads_of(rows, ours)] == sentences
