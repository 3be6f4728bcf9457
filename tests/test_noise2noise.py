"""The plain denoiser's network: it follows the loudness of the noise, and treats each image for itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from trm_nb.denoise import SHIPPED
from trm_nb.denoise.noise import Noise
from trm_nb.denoise.noise2noise import Denoiser, Noise2NoiseUNet, Shape, from_pixels, noise_level, to_pixels
from trm_nb.render.grid import GridRenderer
from trm_nb.render.text import TextRenderer


@pytest.fixture(scope="module")
def network() -> Noise2NoiseUNet:
    torch.manual_seed(0)
    return Denoiser(Noise2NoiseUNet(Shape((8, 8, 8)))).network


def _noisy(sigma: float) -> Tensor:
    ramp = torch.linspace(0.3, 0.7, 96).expand(2, 3, 64, 96)
    return Noise("gaussian", sigma).add(ramp, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sigma", [3, 15, 25, 50, 110])
def test_the_level_of_white_noise_is_estimated(sigma: float) -> None:
    found = noise_level(_noisy(sigma))
    assert found.shape == (2, 1, 1, 1)
    torch.testing.assert_close(found, torch.full_like(found, sigma / 255), rtol=0.06, atol=0)


def test_clean_pages_and_grids_have_no_noise() -> None:
    page = TextRenderer().render_pages("Nothing here is noise. " * 9)[:1]
    grid = GridRenderer().render([[1, 2, 3], [4, 5, 6]])[None]
    assert noise_level(from_pixels(page)).item() == noise_level(from_pixels(grid)).item() == 0


@pytest.mark.parametrize("louder", [0.5, 2.0, 5.0])
def test_an_image_of_more_contrast_is_restored_alike(network: Noise2NoiseUNet, louder: float) -> None:
    x = _noisy(25)
    with torch.no_grad():
        expected = 0.5 + louder * (network(x) - 0.5)
        torch.testing.assert_close(network(0.5 + louder * (x - 0.5)), expected, rtol=0, atol=1e-4)


def test_below_the_least_level_images_are_scaled_alike(network: Noise2NoiseUNet) -> None:
    x = _noisy(3)
    with torch.no_grad():
        assert not torch.allclose(network(0.5 + 2 * (x - 0.5)), 0.5 + 2 * (network(x) - 0.5), atol=1e-4)


def test_each_image_of_a_batch_is_restored_for_itself(network: Noise2NoiseUNet) -> None:
    both = torch.cat([_noisy(5)[:1], _noisy(60)[:1]])
    with torch.no_grad():
        torch.testing.assert_close(network(both)[1:], network(both[1:]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 3, 60, 64), (1, 1, 64, 64), (3, 64, 64)], ids=str)
def test_other_shapes_are_refused(network: Noise2NoiseUNet, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        network(torch.zeros(shape))


@pytest.fixture(scope="module")
def rounded() -> Denoiser:
    denoiser = Denoiser.load(SHIPPED["base"], "bfloat16")
    assert denoiser.fingerprint != Denoiser.load(SHIPPED["base"]).fingerprint
    return denoiser


@pytest.mark.parametrize("sigma", [0, 25, 50])
def test_bfloat16_restores_as_well_and_is_another_image(rounded: Denoiser, sigma: float) -> None:
    x = _noisy(sigma)
    ramp = torch.linspace(0.3, 0.7, 96)
    exact, found = Denoiser.load(SHIPPED["base"]).restore(x), rounded.restore(x)
    assert found.dtype == torch.float32
    assert not torch.equal(found, exact)
    torch.testing.assert_close(
        (found - ramp).square().mean().sqrt(), (exact - ramp).square().mean().sqrt(), rtol=0.02, atol=2e-4
    )


def test_in_bfloat16_an_image_is_restored_the_same_whatever_its_batch_mates(rounded: Denoiser) -> None:
    images = np.stack([to_pixels(_noisy(sigma)[:1], (64, 96, 3))[0] for sigma in (0, 5, 25, 60, 90)])
    together, _ = rounded.restore_images(images)
    for one, expected in zip(images, together, strict=True):
        assert np.array_equal(rounded.restore_images(one[None])[0][0], expected)


def test_a_checkpoint_of_half_precision_is_half_as_large_and_has_the_rounded_weights(tmp_path: Path) -> None:
    denoiser = Denoiser(Noise2NoiseUNet(Shape((32, 32, 32))))
    denoiser.save(tmp_path / "whole.pt")
    denoiser.save(tmp_path / "half.pt", torch.float16)
    whole, half = (Denoiser.load(tmp_path / name) for name in ("whole.pt", "half.pt"))
    assert whole.fingerprint == denoiser.fingerprint != half.fingerprint
    assert (tmp_path / "half.pt").stat().st_size < 0.6 * (tmp_path / "whole.pt").stat().st_size
    for name, weight in half.network.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, denoiser.network.state_dict()[name].half().float())
