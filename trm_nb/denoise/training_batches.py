"""Noisy pairs for the training of the denoiser, made in whole batches where the network is.

All images lie on the device as uint8. A batch is planned on the CPU with NumPy (what, where, which noise; a few numbers
for each sample), then cropped, turned, enlarged and corrupted on the device, one kind of noise at a time, with a level
of its own for each sample. Everything follows from the seed and the step, and nothing waits for a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trm_nb.denoise.noise import TRAINED, Kind, Noise, add_noise, as_file
from trm_nb.denoise.noise2noise import from_pixels, to_pixels
from trm_nb.denoise.training_images import PARTS, Images, Part

ODDS = (0.75, 0.2, 0.05)  # of a sample to be of a photograph, a page and a grid
AS_FILE = 0.5  # of the samples: the given one is clipped and rounded, as files are; a target never is
SOFT = 0.3  # of the photographs' crops are enlarged, up to twice: most are sharper than what a camera makes


@dataclass(frozen=True, slots=True)
class NoiseRange:
    """A kind of noise, its levels, and its odds for photographs, and for pages and grids."""

    kind: Kind
    low: float
    high: float
    odds: tuple[float, float]
    logarithmic: bool = False


# Pages are scanned more often than photographs, and are nearly clean more often.
NOISES = (
    NoiseRange("gaussian", 0, 55, (0.60, 0.28)),
    NoiseRange("gaussian", 0, 3, (0.05, 0.10)),
    NoiseRange("poisson", 10, 200, (0.12, 0.08), logarithmic=True),
    NoiseRange("jpeg", 15, 95, (0.07, 0.07)),
    NoiseRange("scanner", 0.1, 2.4, (0.04, 0.30)),
    NoiseRange("correlated", 2, 50, (0.07, 0.10)),
    NoiseRange("demosaiced", 2, 55, (0.05, 0.07)),
)
assert {noise.kind for noise in NOISES} == set(TRAINED)


@dataclass(frozen=True, slots=True)
class SampledNoises:
    """The noise of some samples: an entry of NOISES as a number (b,), and its level, float32 (b,)."""

    noise: np.ndarray
    level: np.ndarray


class Batches:
    """The images on a device, and what is made of them there."""

    def __init__(self, images: Images, device: str) -> None:
        self.device = torch.device(device)
        sources = zip(PARTS, (images.tiles, images.pages, images.grids), strict=True)
        self.sources: dict[Part, Tensor] = {part: torch.from_numpy(source).to(device) for part, source in sources}
        self.odds = images.odds

    def crops(self, part: Part, count: int, size: int, rng: np.random.Generator) -> Tensor:
        """float32 (count, 3, size, size) in [0, 1]: random crops; photographs also turned, mirrored and enlarged."""
        source, photograph = self.sources[part], part == "photograph"
        which = rng.choice(len(source), count, p=self.odds if photograph else None)
        y, x = rng.integers(source.shape[1] - size + 1, size=(2, count))
        turn = rng.integers(8, size=count) if photograph else np.zeros(count, np.int64)
        plan = torch.from_numpy(np.stack([which, y, x, turn])).to(self.device)
        clean = _cut(source, plan[:, :, None, None], size).permute(0, 3, 1, 2).float() / 255
        if photograph and len(soft := np.flatnonzero(rng.random(count) < SOFT)):
            zoom = torch.from_numpy(rng.uniform(1, 2, len(soft)).astype(np.float32))
            chosen = torch.from_numpy(soft).to(self.device)
            clean = clean.index_copy(0, chosen, _enlarged(clean[chosen], zoom.to(self.device)))
        return clean

    def pair(self, batch: int, size: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Two corruptions of the same crops, float32 (batch, 3, size, size) each: the given one and the target."""
        rng = np.random.default_rng([seed, 0, step])
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        parts = np.sort(rng.choice(len(PARTS), batch, p=ODDS))
        counts = np.bincount(parts, minlength=len(PARTS)).tolist()
        clean = torch.cat([self.crops(part, n, size, rng) for part, n in zip(PARTS, counts, strict=True) if n])
        sampled = sample_noises(parts == PARTS.index("photograph"), rng)
        order = np.argsort(sampled.noise, kind="stable")
        clean = clean[torch.from_numpy(order).to(self.device)]
        levels = torch.from_numpy(sampled.level[order]).to(self.device)
        first, second, start = [], [], 0
        for noise, n in zip(NOISES, np.bincount(sampled.noise, minlength=len(NOISES)).tolist(), strict=True):
            if n:
                some, level = clean[start : start + n], levels[start : start + n]
                first.append(add_noise(noise.kind, some, level, generator))
                second.append(add_noise(noise.kind, some, level, generator))
                start += n
        given = torch.cat(first)
        filed = torch.from_numpy(rng.random(batch) < AS_FILE).to(self.device)
        return torch.where(filed[:, None, None, None], as_file(given), given), torch.cat(second)


def example_crops(images: Images, counts: Mapping[Part, int], size: int, seed: int) -> np.ndarray:
    """uint8 (n, size, size, 3): crops as training takes them, so many of each part, still without noise."""
    batches, rng = Batches(images, "cpu"), np.random.default_rng(seed)
    crops = [batches.crops(part, count, size, rng) for part, count in counts.items()]
    return to_pixels(torch.cat(crops), (size, size, 3))


def example_noises(images: Images, noises: Sequence[Noise], size: int, seed: int) -> np.ndarray:
    """uint8 (2 n, size, size, 3): a held-out photograph with each noise, then a page with each."""
    chosen = np.stack([images.held_out[len(images.held_out) // 2, :size, :size], images.pages[0, :size, :size]])
    generator = torch.Generator().manual_seed(seed)
    noisy = [noise.add(clean[None], generator) for clean in from_pixels(chosen) for noise in noises]
    return to_pixels(torch.cat(noisy), (size, size, 3))


def sample_noises(photograph: np.ndarray, rng: np.random.Generator) -> SampledNoises:
    """Kinds and levels of noise as training meets them, for samples that are photographs or not, bool (b,)."""
    odds = np.array([noise.odds for noise in NOISES]).cumsum(0)
    number = (rng.random(len(photograph))[:, None] >= odds[:-1, np.where(photograph, 0, 1)].T).sum(1)
    low, high = (np.array([getattr(noise, end) for noise in NOISES])[number] for end in ("low", "high"))
    where = rng.random(len(photograph))
    level = low + (high - low) * where
    logarithmic = np.array([noise.logarithmic for noise in NOISES])[number]
    level[logarithmic] = (low * (high / np.where(low > 0, low, 1)) ** where)[logarithmic]
    return SampledNoises(number, level.astype(np.float32))


def _cut(source: Tensor, plan: Tensor, size: int) -> Tensor:
    """uint8 (b, size, size, 3): crops of `source`, turned one of eight ways; `plan`, (4, b, 1, 1): which, y, x, way."""
    which, y, x, turn = plan
    line = torch.arange(size, device=source.device)
    down, right = line[None, :, None], line[None, None, :]
    down = torch.where(turn % 2 == 0, down, size - 1 - down)
    right = torch.where(turn // 2 % 2 == 0, right, size - 1 - right)
    swap = turn >= 4
    return source[which, y + torch.where(swap, right, down), x + torch.where(swap, down, right)]


def _enlarged(x: Tensor, zoom: Tensor) -> Tensor:
    """The middle of each image, float32 (b, 3, h, w), enlarged `zoom` (b,) times to the same size."""
    matrices = torch.diag_embed(torch.stack([1 / zoom, 1 / zoom], 1))
    theta = F.pad(matrices, (0, 1))
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, "bicubic", "reflection", align_corners=False).clamp(0, 1)
