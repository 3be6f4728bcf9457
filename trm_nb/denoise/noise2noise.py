"""The plain denoiser: a small U-Net that takes the noise out of images, whatever its level.

It estimates how loud an image's noise is and scales the image so that its convolutions always see the same loudness,
also of noise louder than in training. It works at half resolution (pixel-unshuffle, as FFDNet does: the same quality at
a quarter of the cost), predicts the noise and subtracts it, and takes any size whose sides are multiples of 8.
`denoise/training_loop.py` trains it from pairs of noisy images; without a checkpoint there is no denoiser
(`denoise.load_denoiser`).

Source: Lehtinen et al., "Noise2Noise", 2018. Deviations: half resolution, three levels, residual blocks and strided
convolutions (as in DRUNet), sums instead of concatenation at the skips, residual output, scaled by the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trm_nb.errors import UserError
from trm_nb.models.checkpoints import fingerprint_of, load_checkpoint, load_weights, save_checkpoint
from trm_nb.records import DenoiseResult, DenoiserSize, Precision

KIND = "Noise2Noise denoiser"
UNIT, LEAST = 25 / 255, 6 / 255  # the loudness that the convolutions see, and below which an image is not scaled more
BATCH = 2  # images of 224x224: more are no faster, and a worker that grows by 300 MB is made anew by loky


@dataclass(frozen=True, slots=True)
class Shape:
    """Channels, and residual blocks in a row, at a half, a quarter and an eighth of the resolution."""

    widths: tuple[int, int, int]
    blocks: tuple[int, int, int] = (3, 1, 2)


SHAPES: dict[DenoiserSize, Shape] = {"base": Shape((48, 96, 160)), "large": Shape((64, 128, 192), (3, 1, 3))}


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), (b, channels, h, w) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.second(F.relu(self.first(x)))
        return y


def _level(channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))


class Noise2NoiseUNet(nn.Module):
    """float32 (b, 3, h, w) around [0, 1], not clipped -> the same; h and w are multiples of 8."""

    def __init__(self, shape: Shape = SHAPES["base"]) -> None:
        super().__init__()
        self.shape, blocks = shape, shape.blocks
        fine, middle, coarse = shape.widths
        self.enter = nn.Conv2d(12, fine, 3, padding=1)
        self.down = nn.ModuleList([_level(fine, blocks[0]), _level(middle, blocks[1])])
        self.shrink = nn.ModuleList([nn.Conv2d(fine, middle, 2, stride=2), nn.Conv2d(middle, coarse, 2, stride=2)])
        self.bottom = _level(coarse, blocks[2])
        self.grow = nn.ModuleList(
            [nn.ConvTranspose2d(coarse, middle, 2, stride=2), nn.ConvTranspose2d(middle, fine, 2, stride=2)]
        )
        self.up = nn.ModuleList([_level(middle, blocks[1]), _level(fine, blocks[0])])
        self.leave = nn.Conv2d(fine, 12, 3, padding=1)

    @torch.no_grad()
    def begin(self) -> None:
        """Make it change nothing: with the last layers at zero, a training stands three times the learning rate."""
        ends = [module.second for module in self.modules() if isinstance(module, ResidualBlock)]
        for layer in (*ends, self.leave):
            for parameter in layer.parameters():
                parameter.zero_()

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """`scale` below 1 assumes louder noise than estimated, above 1 fainter."""
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] % 8 or x.shape[3] % 8:
            raise ValueError(f"expected (b, 3, h, w) with h and w multiples of 8, got {tuple(x.shape)}")
        factor = scale * UNIT / noise_level(x).clamp_min(LEAST)
        h = self.enter(F.pixel_unshuffle(factor * (x - 0.5), 2))
        skips = []
        for level, shrink in zip(self.down, self.shrink, strict=True):
            h = level(h)
            skips.append(h)
            h = shrink(h)
        h = self.bottom(h)
        for grow, level in zip(self.grow, self.up, strict=True):
            h = level(grow(h) + skips.pop())
        return x - F.pixel_shuffle(self.leave(h), 2) / factor


@torch.no_grad()
def noise_level(x: Tensor) -> Tensor:
    """The standard deviation of white noise in an image, estimated: float32 (b, 3, h, w) -> (b, 1, 1, 1).

    From the median of the finest diagonal details, which few edges reach (Donoho and Johnstone, 1994).
    """
    diagonal = (x[:, :, ::2, ::2] - x[:, :, ::2, 1::2] - x[:, :, 1::2, ::2] + x[:, :, 1::2, 1::2]) / 2
    level: Tensor = diagonal.abs().flatten(1).median(1).values / 0.6745
    return level[:, None, None, None]


def from_pixels(images: np.ndarray, multiple: int = 8) -> Tensor:
    """uint8 (n, h, w, 3) -> float32 (n, 3, h', w') in [0, 1]; the edges are repeated up to the next multiple."""
    return padded(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, multiple)


def padded(x: Tensor, multiple: int) -> Tensor:
    """(n, 3, h, w) -> (n, 3, h', w'): the edges repeated up to the next multiple."""
    return F.pad(x, (0, -x.shape[3] % multiple, 0, -x.shape[2] % multiple), mode="replicate")


def to_pixels(x: Tensor, shape: Sequence[int]) -> np.ndarray:
    """float32 (n, 3, h', w') -> uint8 (n, h, w, 3), clipped and rounded; `shape` ends in (h, w, 3)."""
    h, w, _ = shape[-3:]
    pixels: np.ndarray = (x[:, :, :h, :w].clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return pixels


class Denoiser:
    """A trained network, the fingerprint of its weights, and that which goes into the keys of the images it made.

    Args:
        network: with its weights.
        precision: that of the convolutions; bfloat16 is about twice as fast where the processor has it.
    """

    adapts = False

    def __init__(self, network: Noise2NoiseUNet, precision: Precision = "float32") -> None:
        self.network = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.precision = precision
        settings = f"noise2noise, scaled {network.shape.widths}"
        self.weights = fingerprint_of(settings, network)
        self.fingerprint = (
            self.weights if precision == "float32" else fingerprint_of(f"{settings} {precision}", network)
        )

    @torch.inference_mode()
    def restore(self, x: Tensor) -> Tensor:
        """Take the noise out of images.

        Args:
            x: float32 (b, 3, h, w) around [0, 1]; h and w are multiples of 8.

        Returns:
            The same, not clipped.
        """
        return self.run(self.network, x)

    @torch.inference_mode()
    def run(self, network: nn.Module, x: Tensor, scale: float = 1.0) -> Tensor:
        """What a network of this kind makes of `x`, in this denoiser's precision; x and the result are float32."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16"):
            result: Tensor = network(x, scale)
        return result

    def restore_images(self, images: np.ndarray) -> tuple[np.ndarray, list[DenoiseResult]]:
        """Take the noise out of images, a few at a time.

        Args:
            images: uint8 (n, h, w, 3) of any size.

        Returns:
            The same, and how much was taken away of each.
        """
        result = np.empty_like(images)
        denoise_results = []
        batch = max(1, BATCH * 224 * 224 // (images.shape[1] * images.shape[2]))
        for start in range(0, len(images), batch):
            x = from_pixels(images[start : start + batch])
            y = self.restore(x)
            result[start : start + batch] = to_pixels(y, images.shape)
            denoise_results += [
                DenoiseResult(round(255 * float(noise), 2), "plain") for noise in (x - y).std((1, 2, 3))
            ]
        return result, denoise_results

    def save(self, path: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write a checkpoint that `load` reads; with torch.float16 it is half as large and the weights are rounded."""
        shape = {"widths": list(self.network.shape.widths), "blocks": list(self.network.shape.blocks)}
        weights = {name: weight.to(dtype) for name, weight in self.network.state_dict().items()}
        save_checkpoint(path, KIND, {**shape, "weights": weights})

    @classmethod
    def load(cls, path: str | Path, precision: Precision = "float32") -> Denoiser:
        """Read a checkpoint; raises UserError when the file does not fit."""
        values = load_checkpoint(path, KIND)
        widths, blocks = (_three(values.get(name), most) for name, most in (("widths", 1024), ("blocks", 64)))
        if widths is None or blocks is None:
            found = f"{values.get('widths')!r} and {values.get('blocks')!r}"
            raise UserError(
                f"{path}: expected a denoiser of three widths and blocks, got {found}; it is of another version"
            )
        network = Noise2NoiseUNet(Shape(widths, blocks))
        load_weights(network, values.get("weights", {}), path)
        return cls(network, precision)


def _three(values: object, most: int) -> tuple[int, int, int] | None:
    """Three whole numbers from 1 to `most`, or None where `values` are something else."""
    if not isinstance(values, list) or len(values) != 3 or not all(type(v) is int and 0 < v <= most for v in values):
        return None
    return values[0], values[1], values[2]
