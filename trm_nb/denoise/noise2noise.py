"""The plain denoiser: a small U-Net for images, blind to the noise level, meant for Noise2Noise training.

It works at half resolution (pixel-unshuffle, as FFDNet does: the same quality at a quarter of the cost), predicts the
noise and subtracts it, and takes any size whose sides are multiples of 8. Training and weights are not part of this
module; without a checkpoint there is no denoiser (`denoise.load_denoiser`).

Source: Lehtinen et al., "Noise2Noise", 2018. Deviations: half resolution, three levels, residual output, SiLU.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trm_nb.checkpoints import load_checkpoint, load_weights, save_checkpoint

KIND = "Noise2Noise denoiser"
WIDTH = 64
BATCH = 8


def _pair(channels_in: int, channels_out: int) -> nn.Sequential:
    first, second = (
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.Conv2d(channels_out, channels_out, 3, padding=1),
    )
    return nn.Sequential(first, nn.SiLU(), second, nn.SiLU())


class Noise2NoiseUNet(nn.Module):
    """float32 (b, 3, h, w) around [0, 1], not clipped -> the same; h and w are multiples of 8."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.width = width
        self.enter = _pair(12, width)
        self.down = nn.ModuleList([_pair(width, width), _pair(width, width)])
        self.up = nn.ModuleList([_pair(2 * width, width), _pair(2 * width, width)])
        self.leave = nn.Conv2d(width, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] % 8 or x.shape[3] % 8:
            raise ValueError(f"expected (b, 3, h, w) with h and w multiples of 8, got {tuple(x.shape)}")
        h = self.enter(F.pixel_unshuffle(x, 2))
        skips = []
        for down in self.down:
            skips.append(h)
            h = down(F.avg_pool2d(h, 2))
        for up in self.up:
            h = up(torch.cat([F.interpolate(h, scale_factor=2.0, mode="nearest"), skips.pop()], dim=1))
        return x - F.pixel_shuffle(self.leave(h), 2)


class Denoiser:
    """A trained network and the fingerprint that goes into the keys of the pictures it made."""

    def __init__(self, network: Noise2NoiseUNet) -> None:
        self.network = network.eval()
        digest = hashlib.sha256(f"noise2noise {network.width}".encode())
        for name, weight in sorted(network.state_dict().items()):
            digest.update(name.encode() + weight.numpy().tobytes())
        self.fingerprint = digest.hexdigest()[:16]

    @torch.inference_mode()
    def restore(self, x: Tensor) -> Tensor:
        """float32 (b, 3, h, w) around [0, 1], not clipped -> the same."""
        result: Tensor = self.network(x)
        return result

    def restore_images(self, images: np.ndarray) -> np.ndarray:
        """uint8 (n, h, w, 3) -> the same, a few at a time."""
        result = np.empty_like(images)
        for start in range(0, len(images), BATCH):
            x = torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2).float() / 255
            y = (self.restore(x).clamp(0, 1) * 255).round().byte()
            result[start : start + BATCH] = y.permute(0, 2, 3, 1).numpy()
        return result

    def save(self, path: str | Path) -> None:
        """Write a checkpoint that `load` reads."""
        save_checkpoint(path, KIND, {"width": self.network.width, "weights": self.network.state_dict()})

    @classmethod
    def load(cls, path: str | Path) -> Denoiser:
        """Read a checkpoint; raises UserError when the file does not fit."""
        values = load_checkpoint(path, KIND)
        network = Noise2NoiseUNet(int(values.get("width", WIDTH)))
        load_weights(network, values.get("weights", {}), path)
        return cls(network)
