"""The weights that come with the package: they restore, they leave clean images alone, and their card is theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from trm_nb.denoise import SHIPPED, load_denoiser
from trm_nb.denoise.benchmark import noisy, ours, photographs, psnr, read_errors
from trm_nb.denoise.noise import Noise
from trm_nb.records import DenoiserSize, Precision
from trm_nb.render.grid import GridRenderer
from trm_nb.render.text import TextRenderer

PROSE = sorted((Path(__file__).parents[1] / "trm_nb/assets/demo/prose").glob("*.txt"))


LEAST = [
    ("base", "float32", Noise("gaussian", 25), 31.4),
    pytest.param("base", "bfloat16", Noise("gaussian", 25), 31.4, marks=pytest.mark.slow),
    pytest.param("base", "float32", Noise("gaussian", 15), 33.8, marks=pytest.mark.study),
    pytest.param("base", "float32", Noise("gaussian", 50), 28.2, marks=pytest.mark.study),
    pytest.param("base", "float32", Noise("poisson", 30), 30.5, marks=pytest.mark.study),
    pytest.param("large", "float32", Noise("gaussian", 25), 32.1, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("size", "precision", "noise", "least"), LEAST, ids=str)
def test_photographs_that_training_never_saw(
    size: DenoiserSize, precision: Precision, noise: Noise, least: float
) -> None:
    pytest.importorskip("skimage")
    plain = load_denoiser(SHIPPED[size], adaptive=False, precision=precision)
    assert plain is not None
    found = []
    for number, image in enumerate(photographs().values()):
        found.append(psnr(ours(plain)(noisy(image, noise, number), 0.0).clip(0, 1), image))
    assert np.mean(found) > least


@pytest.mark.parametrize(
    ("size", "noise"),
    [
        pytest.param("base", Noise("gaussian", 50), marks=pytest.mark.study),
        pytest.param("base", Noise("scanner", 2), marks=pytest.mark.slow),
        pytest.param("large", Noise("correlated", 75), marks=pytest.mark.study),
    ],
    ids=str,
)
def test_of_the_characters_on_noisy_pages_half_as_many_are_read_wrong(size: DenoiserSize, noise: Noise) -> None:
    pytest.importorskip("rapidocr_onnxruntime")
    plain = load_denoiser(SHIPPED[size], adaptive=False)
    assert plain is not None
    texts = [path.read_text("utf-8") for path in PROSE[:3]]
    wrong = read_errors(texts, [noise], {"noisy": lambda x, sigma: x, "ours": ours(plain)})
    assert wrong[str(noise), "ours"] < wrong[str(noise), "noisy"] / 2


@pytest.mark.parametrize(
    ("size", "adaptive", "precision"),
    [
        ("base", "auto", "float32"),
        ("base", False, "float32"),
        ("large", False, "float32"),
        pytest.param("base", "auto", "bfloat16", marks=pytest.mark.slow),
        pytest.param("large", False, "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_clean_pages_and_grids_stay_as_they_are(
    size: DenoiserSize, adaptive: Literal["auto", False], precision: Precision
) -> None:
    denoiser = load_denoiser(SHIPPED[size], adaptive, precision)
    assert denoiser is not None
    rng = np.random.default_rng(3)
    pages = np.concatenate([TextRenderer().render_pages(path.read_text("utf-8"))[:2] for path in PROSE[:4]])
    grids = np.stack([GridRenderer().render(rng.integers(0, 10, tuple(rng.integers(2, 20, 2)))) for _ in range(8)])
    for images in (pages, grids):
        restored, denoise_results = denoiser.restore_images(images)
        assert adaptive is False or {denoise_result.edit for denoise_result in denoise_results} == {"noop"}
        error = np.square(restored.astype(float) - images).mean((1, 2, 3))
        decibels = 10 * np.log10(255**2 / np.maximum(error, 1e-9))
        assert decibels.mean() >= 45


def test_the_card_names_the_weights_that_lie_beside_it() -> None:
    card = (SHIPPED["base"].parent / "README.md").read_text(encoding="utf-8")
    plain = [load_denoiser(path, adaptive=False) for path in SHIPPED.values()]
    for denoiser in (*plain, load_denoiser(SHIPPED["base"])):
        assert denoiser is not None and f"`{denoiser.fingerprint}`" in card
