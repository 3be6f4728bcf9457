"""Every kind of noise leaves the mean as it was, two samples of it are independent, and nothing is clipped."""

from __future__ import annotations

import pytest
import torch

from trm_nb.denoise.noise import ADAPTED, UNSEEN, Noise

KINDS = [
    Noise("gaussian", 25), Noise("gaussian", 0), Noise("poisson", 30), Noise("jpeg", 20), Noise("jpeg", 100),
    Noise("scanner", 1), Noise("correlated", 25), Noise("rows", 20), Noise("demosaiced", 25),
    Noise("speckle", 0.2), Noise("impulse", 0.1),
]  # fmt: skip
DRAWS = 600


def _image(height: int = 24, width: int = 40) -> torch.Tensor:
    """Edges, a ramp, black and white."""
    x = torch.linspace(0, 1, width).expand(1, 3, height, width).clone()
    x[:, 0, :, ::7] = 1.0
    x[:, :, ::5] = 0.0
    return x


def _render(noise: Noise, seed: int = 0) -> torch.Tensor:
    return noise.add(_image().expand(DRAWS, -1, -1, -1), torch.Generator().manual_seed(seed))


def test_all_kinds_are_in_the_table() -> None:
    assert {noise.kind for noise in KINDS} == {*ADAPTED, *UNSEEN}
    assert not set(ADAPTED) & set(UNSEEN)


@pytest.mark.parametrize("noise", KINDS, ids=str)
def test_the_mean_of_many_is_the_image(noise: Noise) -> None:
    rendered = _render(noise)
    error = (rendered.mean(0) - _image()).abs()
    expected = rendered.std(0) / DRAWS**0.5  # of the mean
    assert float((error - 5.5 * expected).max()) < 0.004  # lost pixels are rare, so their spread is known badly
    assert abs(float((rendered.mean(0) - _image()).mean())) <= 4 * float(expected.mean()) + 1e-6


@pytest.mark.parametrize("noise", KINDS, ids=str)
def test_two_draws_have_nothing_in_common(noise: Noise) -> None:
    errors = _render(noise) - _image()
    product = float((errors[0::2] * errors[1::2]).mean())
    assert abs(product) < 0.02 * float(errors.square().mean()) + 1e-9


@pytest.mark.parametrize("noise", [n for n in KINDS if n.kind in ("gaussian", "correlated")], ids=str)
def test_the_level_is_the_standard_deviation(noise: Noise) -> None:
    assert 255 * float((_render(noise) - _image()).std()) == pytest.approx(noise.level, rel=0.01)


@pytest.mark.parametrize(
    "kind", ["gaussian", "poisson", "jpeg", "scanner", "correlated", "rows", "demosaiced", "speckle"]
)
def test_nothing_is_clipped(kind: str) -> None:
    rendered = _render(next(noise for noise in KINDS if noise.kind == kind and noise.level))
    assert float(rendered.max()) > 1.02
    assert float(rendered.min()) < -0.02 or kind in ("poisson", "speckle")  # where black has no noise


@pytest.mark.parametrize("noise", KINDS, ids=str)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 13), (64, 40)])
def test_any_size_keeps_its_shape_and_follows_from_the_seed(noise: Noise, height: int, width: int) -> None:
    x = _image(height, width).expand(2, -1, -1, -1)
    first, again, other = (noise.add(x, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert first.shape == x.shape and first.dtype == torch.float32
    assert torch.equal(first, again)
    assert noise.level == 0 or noise == Noise("jpeg", 100) or not torch.equal(first, other)


def test_a_jpeg_of_quality_100_is_nearly_the_image_and_of_10_is_not() -> None:
    def worst(quality: float) -> float:
        return float((Noise("jpeg", quality).add(_image(), torch.Generator().manual_seed(0)) - _image()).std())

    assert worst(100) < 1.5 / 255
    assert worst(10) > 10 / 255
