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
TRAINED: tuple[Kind, ...] = ("gaussian", "poisson", "jpeg", "scanner")  # what the network is trained on
ADAPTED: tuple[Kind, ...] = (*TRAINED, "correlated", "rows")  # what the policy that adapts it is trained on
UNSEEN: tuple[Kind, ...] = ("demosaiced", "speckle", "impulse")  # what both are judged by


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
        return _ADD[self.kind](x, self.level, rng)


def as_file(x: Tensor) -> Tensor:
    """Clipped to [0, 1] and rounded to 256 levels, as a file holds it. What a network is given may be; a target not."""
    return (255 * x.clamp(0, 1)).round() / 255


def _normal(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=rng, device=rng.device)


def _gaussian(x: Tensor, sigma: float, rng: torch.Generator) -> Tensor:
    return x + sigma / 255 * _normal(rng, *x.shape)


def _poisson(x: Tensor, photons: float, rng: torch.Generator) -> Tensor:
    return torch.poisson(x.clamp_min(0) * photons, generator=rng) / photons


def _scanner(x: Tensor, amount: float, rng: torch.Generator) -> Tensor:
    """Uneven light and grain as factors of mean 1; the paper's texture and the sensor added, of mean 0."""
    b, _, h, w = x.shape
    light = 1 + 0.03 * amount * _smooth(_normal(rng, b, 1, 3, 3), h, w)
    grain = 1 + 0.15 * amount * _normal(rng, b, 1, h, w)
    texture = 0.04 * amount * (_smooth(_normal(rng, b, 1, h // 2, w // 2), h, w) + _normal(rng, b, 1, h, w))
    return x * light * grain + texture + 0.06 * amount * _normal(rng, *x.shape)


def _correlated(x: Tensor, sigma: float, rng: torch.Generator) -> Tensor:
    """Gaussian noise whose neighbours are alike, as after demosaicing: a 3x3 binomial filter, the same variance."""
    taps = torch.tensor([1.0, 2.0, 1.0])
    kernel = torch.outer(taps, taps)
    kernel = (kernel / kernel.square().sum().sqrt()).expand(3, 1, 3, 3).to(x.device)
    b, _, h, w = x.shape
    return x + sigma / 255 * F.conv2d(_normal(rng, b, 3, h + 2, w + 2), kernel, groups=3)


def _demosaiced(x: Tensor, sigma: float, rng: torch.Generator) -> Tensor:
    """A colour camera's: each pixel measured one colour, in 2x2 cells of RG and GB; the others are interpolated."""
    b, _, h, w = x.shape
    measured = torch.zeros(3, h + 4, w + 4, device=x.device)
    measured[0, ::2, ::2] = measured[1, ::2, 1::2] = measured[1, 1::2, ::2] = measured[2, 1::2, 1::2] = 1
    taps = torch.tensor([1.0, 2.0, 1.0])
    kernel = torch.outer(taps, taps).expand(3, 1, 3, 3).to(x.device)
    seen = measured * _normal(rng, b, 1, h + 4, w + 4)
    interpolated = F.conv2d(seen, kernel, groups=3) / F.conv2d(measured[None], kernel, groups=3)
    spread = torch.where(measured[:, 1:-1, 1:-1] > 0, seen[:, :, 1:-1, 1:-1], interpolated)
    return x + sigma / 255 * spread[:, :, 1 : 1 + h, 1 : 1 + w]


def _rows(x: Tensor, sigma: float, rng: torch.Generator) -> Tensor:
    """A sensor's read noise: each row has an offset of its own, and each pixel half as much again."""
    b, _, h, _ = x.shape
    return x + sigma / 255 * (_normal(rng, b, 1, h, 1) + 0.5 * _normal(rng, *x.shape))


def _speckle(x: Tensor, spread: float, rng: torch.Generator) -> Tensor:
    return x * (1 + spread * _normal(rng, *x.shape))


def _impulse(x: Tensor, part: float, rng: torch.Generator) -> Tensor:
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


def _jpeg(x: Tensor, quality: float, rng: torch.Generator) -> Tensor:
    dct, colour, tables = (table.to(x.device) for table in _jpeg_tables())
    scale = (50 / quality if quality < 50 else 2 - quality / 50) if quality < 100 else 0.02
    steps = (tables * scale).clamp_min(1) / 255
    h, w = x.shape[2:]
    top, left = torch.randint(8, (2,), generator=rng, device=x.device).tolist()  # where the blocks begin
    below, right = -(h + top) % 8, -(w + left) % 8
    padded = F.pad(x, (left, right, top, below), mode="replicate")
    high, wide = padded.shape[2] // 8, padded.shape[3] // 8
    blocks = padded.reshape(-1, 3, high, 8, wide, 8)
    coefficients = torch.einsum("kc,bcrisj,ui,vj->bkrsuv", colour, blocks, dct, dct) / steps[:, None, None]
    floor = coefficients.floor()
    rounded = floor + (torch.rand(coefficients.shape, generator=rng, device=x.device) < coefficients - floor)
    back = torch.einsum("ck,bkrsuv,ui,vj->bcrisj", torch.linalg.inv(colour), rounded * steps[:, None, None], dct, dct)
    return back.reshape(-1, 3, 8 * high, 8 * wide)[:, :, top : top + h, left : left + w]


@lru_cache(maxsize=1)
def _jpeg_tables() -> tuple[Tensor, Tensor, Tensor]:
    """The 8-point DCT (8, 8), RGB to YCbCr (3, 3), and the steps of Y, Cb and Cr (3, 8, 8)."""
    k = np.arange(8)
    dct = np.cos((2 * k + 1) * k[:, None] * np.pi / 16) * np.sqrt(np.where(k == 0, 1, 2) / 8)[:, None]
    colour = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    tables = [np.array(table.split(), float).reshape(8, 8) for table in (_LUMINANCE, _CHROMINANCE, _CHROMINANCE)]
    return torch.tensor(dct).float(), torch.tensor(colour), torch.tensor(np.stack(tables)).float()


_ADD = {
    "gaussian": _gaussian, "poisson": _poisson, "jpeg": _jpeg, "scanner": _scanner,
    "correlated": _correlated, "rows": _rows, "demosaiced": _demosaiced, "speckle": _speckle, "impulse": _impulse,
}  # fmt: skip
