"""Corruptions without bias: what a sensor, a scanner or a compression adds to an image, sampled anew at each call.

Noise2Noise learns from two corruptions of one image, and what it learns is their mean (Lehtinen et al. 2018). So
E[y | x] = x holds for every kind here, exactly, which is also why nothing is ever clipped. A shifted or a blurred
image is not such a corruption: from those a network learns to blur.

Source of the JPEG-like kind: JPEG's tables (ITU-T T.81, annex K). Deviations: a coefficient is rounded up or down at
random so that its mean is the coefficient (plain rounding is biased), the blocks begin anywhere, no chroma subsampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Kind: TypeAlias = Literal[
    "gaussian", "poisson", "jpeg", "scanner", "correlated", "rows", "demosaiced", "speckle", "impulse"
]
# What the network is trained on; what the policy that adapts it is trained on; what both are judged by.
TRAINED: tuple[Kind, ...] = ("gaussian", "poisson", "jpeg", "scanner", "correlated", "demosaiced")
ADAPTED: tuple[Kind, ...] = (*TRAINED, "rows")
UNSEEN: tuple[Kind, ...] = ("speckle", "impulse")


@dataclass(frozen=True, slots=True)
class Noise:
    """A kind of noise and how much of it.

    gaussian, correlated: the standard deviation, of 255. demosaiced, rows: that of a measured pixel, of a whole row.
    poisson: photons where the image is white. jpeg: the quality, 1 to 100. scanner: 0 to 2. speckle: the standard
    deviation of its factor. impulse: the part of the pixels.
    """

    kind: Kind
    level: float

    def __str__(self) -> str:
        return f"{self.kind} {self.level:g}"

    def add(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """float32 (b, 3, h, w) in [0, 1] -> the same with noise, not clipped; `rng` is on the device of `x`."""
        return add_noise(self.kind, x, torch.full((len(x),), self.level, device=x.device), rng)


def add_noise(kind: Kind, x: Tensor, levels: Tensor, rng: torch.Generator) -> Tensor:
    """Add noise of one kind to a batch, with a level for each image; nothing waits for a GPU.

    Args:
        kind: of the noise.
        x: float32 (b, 3, h, w) in [0, 1].
        levels: float32 (b,), in the unit of the kind (see `Noise`), on the device of `x`.
        rng: on the device of `x`.

    Returns:
        float32 (b, 3, h, w), not clipped.
    """
    return _ADD[kind](x, levels[:, None, None, None], rng)


def as_file(x: Tensor) -> Tensor:
    """Clipped to [0, 1] and rounded to 256 levels, as a file holds it. What a network is given may be; a target not."""
    return (255 * x.clamp(0, 1)).round() / 255


def _normal(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=rng, device=rng.device)


def _gaussian(x: Tensor, sigma: Tensor, rng: torch.Generator) -> Tensor:
    return x + sigma / 255 * _normal(rng, *x.shape)


def _poisson(x: Tensor, photons: Tensor, rng: torch.Generator) -> Tensor:
    return torch.poisson(x.clamp_min(0) * photons, generator=rng) / photons


def _scanner(x: Tensor, amount: Tensor, rng: torch.Generator) -> Tensor:
    """Uneven light and grain as factors of mean 1; the paper's texture and the sensor added, of mean 0."""
    b, _, h, w = x.shape
    light = 1 + 0.03 * amount * _smooth(_normal(rng, b, 1, 3, 3), h, w)
    grain = 1 + 0.15 * amount * _normal(rng, b, 1, h, w)
    texture = 0.04 * amount * (_smooth(_normal(rng, b, 1, h // 2, w // 2), h, w) + _normal(rng, b, 1, h, w))
    return x * light * grain + texture + 0.06 * amount * _normal(rng, *x.shape)


def _correlated(x: Tensor, sigma: Tensor, rng: torch.Generator) -> Tensor:
    """Gaussian noise whose neighbours are alike, as after demosaicing: a 3x3 binomial filter, the same variance."""
    b, _, h, w = x.shape
    return x + sigma / 255 * _binomial(_normal(rng, b, 3, h + 2, w + 2)) / 6


def _demosaiced(x: Tensor, sigma: Tensor, rng: torch.Generator) -> Tensor:
    """A colour camera's: each pixel measured one colour, in 2x2 cells of RG and GB; the others are interpolated."""
    b, _, h, w = x.shape
    odd = [torch.arange(length + 4, device=x.device) % 2 for length in (h, w)]
    colours = odd[0][:, None] + odd[1]  # 0: red, 1: green, 2: blue
    measured = (colours == torch.arange(3, device=x.device)[:, None, None]).float()
    seen = measured * _normal(rng, b, 1, h + 4, w + 4)
    interpolated = _binomial(seen) / _binomial(measured[None])
    spread = torch.where(measured[:, 1:-1, 1:-1] > 0, seen[:, :, 1:-1, 1:-1], interpolated)
    return x + sigma / 255 * spread[:, :, 1 : 1 + h, 1 : 1 + w]


def _binomial(x: Tensor) -> Tensor:
    """The sum of 3x3 neighbours with the weights 1, 2, 1 both ways: (..., h, w) -> (..., h - 2, w - 2)."""
    x = x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]
    return x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]


def _rows(x: Tensor, sigma: Tensor, rng: torch.Generator) -> Tensor:
    """A sensor's read noise: each row has an offset of its own, and each pixel half as much again."""
    b, _, h, _ = x.shape
    return x + sigma / 255 * (_normal(rng, b, 1, h, 1) + 0.5 * _normal(rng, *x.shape))


def _speckle(x: Tensor, spread: Tensor, rng: torch.Generator) -> Tensor:
    return x * (1 + spread * _normal(rng, *x.shape))


def _impulse(x: Tensor, part: Tensor, rng: torch.Generator) -> Tensor:
    """Pixels lost, each colour of them to nothing or to all, with the odds that leave the mean as it was."""
    b, c, h, w = x.shape
    lost = torch.rand(b, 1, h, w, generator=rng, device=x.device) < part
    white = (torch.rand(b, c, h, w, generator=rng, device=x.device) < x).float()
    return torch.where(lost, white, x)


def _smooth(coarse: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=True)


# -- JPEG ------------------------------------------------------------------------------------------------------------

_LUMINANCE = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
_CHROMINANCE = """17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""


def _jpeg(x: Tensor, quality: Tensor, rng: torch.Generator) -> Tensor:
    dct, colour, back, tables = _jpeg_tables(x.device)
    scale = torch.where(quality < 50, 50 / quality, (2 - quality / 50).clamp_min(0.02))
    steps = (tables * scale).clamp_min(1)[:, :, None, None] / 255  # (b, 3, 1, 1, 8, 8)
    (b, _, h, w), one = x.shape, torch.arange(len(x), device=x.device)[:, None, None]
    top, left = torch.randint(8, (2, b, 1), generator=rng, device=x.device)  # where the blocks begin
    high, wide = (h + 14) // 8, (w + 14) // 8
    y = (torch.arange(8 * high, device=x.device) - top).clamp(0, h - 1)[:, :, None]
    x_ = (torch.arange(8 * wide, device=x.device) - left).clamp(0, w - 1)[:, None, :]
    blocks = x.permute(0, 2, 3, 1)[one, y, x_].reshape(b, high, 8, wide, 8, 3)
    coefficients = torch.einsum("kc,briwjc,ui,vj->bkrwuv", colour, blocks, dct, dct) / steps
    floor = coefficients.floor()
    chance = torch.rand(coefficients.shape, generator=rng, device=x.device)
    rounded = (floor + (chance < coefficients - floor)) * steps
    whole = torch.einsum("ck,bkrwuv,ui,vj->briwjc", back, rounded, dct, dct).reshape(b, 8 * high, 8 * wide, 3)
    y, x_ = torch.arange(h, device=x.device) + top, torch.arange(w, device=x.device) + left
    return whole[one, y[:, :, None], x_[:, None, :]].permute(0, 3, 1, 2)


@lru_cache(maxsize=4)
def _jpeg_tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The 8-point DCT (8, 8), RGB to YCbCr (3, 3) and back, and the steps of Y, Cb and Cr (3, 8, 8)."""
    k = np.arange(8)
    dct = np.cos((2 * k + 1) * k[:, None] * np.pi / 16) * np.sqrt(np.where(k == 0, 1, 2) / 8)[:, None]
    colour = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    tables = [np.array(table.split(), float).reshape(8, 8) for table in (_LUMINANCE, _CHROMINANCE, _CHROMINANCE)]
    made = (torch.from_numpy(table).float() for table in (dct, colour, np.linalg.inv(colour), np.stack(tables)))
    dct_, colour_, back, steps = (table.to(device) for table in made)
    return dct_, colour_, back, steps


_ADD = {
    "gaussian": _gaussian, "poisson": _poisson, "jpeg": _jpeg, "scanner": _scanner,
    "correlated": _correlated, "rows": _rows, "demosaiced": _demosaiced, "speckle": _speckle, "impulse": _impulse,
}  # fmt: skip
