"""The arms of the fidelity study: what an image becomes before the one decoder reads it.

Beside the encoder stand the same architecture with random weights, three codes that learn at most linearly (principal
components of each patch, means of patches, fewer pixels), the pixels themselves as the upper bound, and two floors
whose tokens say nothing about the image: what their decoder still reads, it knows without them.
Choice: all codes have 12 x 512 = 6,144 numbers at most and are laid out as 96 tokens of 64, as the encoder's heads are.
Cost: the principal components take 3 s to fit; an image costs at most a matrix product, and the encoder its own time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from trm_nb.records import CAPSULES, FEATURES

TOKEN = 64  # numbers of a token
PATCH, GRID = 28, 8
COMPONENTS = CAPSULES * FEATURES // (GRID * GRID)  # 96 of each patch
FEWER = 45  # pixels on a side: 45 * 45 * 3 = 6,075 numbers
ENCODER, RANDOM, PCA, POOLED, SMALL, PIXELS, SHUFFLED, BLANK = (
    "encoder", "random encoder", "block PCA", "mean-pooled patches", "down-sampled pixels", "raw pixels",
    "shuffled capsules", "blank capsules",
)  # fmt: skip
CONTROLS = (RANDOM, PCA, POOLED, SMALL)  # codes as long as the encoder's
FLOORS = (SHUFFLED, BLANK)
Encoder = Callable[[Tensor], Tensor]  # uint8 (b, 224, 224, 3) -> float (b, 12, 512)
Code = Callable[[np.ndarray], np.ndarray]  # uint8 (n, 224, 224, 3) -> (n, 12, 512), or (n, 64, 2352) for raw pixels


@dataclass(frozen=True, eq=False)
class Patches:
    """Principal components of the patches of some images: what block PCA and the pooled patches are made of.

    `mean` float32 (2352,), `axes` float32 (2352, 512) scaled so that a component has about unit variance.
    """

    mean: np.ndarray
    axes: np.ndarray

    def components(self, images: np.ndarray, count: int) -> np.ndarray:
        """float32 (n, 64, count): the first components of each patch in reading order."""
        flat = patches(images).astype(np.float32) / 127.5 - 1
        found: np.ndarray = (flat - self.mean) @ self.axes[:, :count]
        return found


def fitted_patches(images: np.ndarray, most: int = 60_000, seed: int = 0) -> Patches:
    """The components of at most `most` patches of the images uint8 (n, 224, 224, 3), chosen at random."""
    rows = np.random.default_rng(seed).permutation(len(images) * GRID * GRID)[:most]
    flat = np.empty((len(rows), PATCH * PATCH * 3), np.float32)
    of_image, of_patch = np.divmod(rows, GRID * GRID)
    for number, (image, patch) in enumerate(zip(of_image, of_patch, strict=True)):
        top, left = PATCH * (patch // GRID), PATCH * (patch % GRID)
        flat[number] = images[image, top : top + PATCH, left : left + PATCH].ravel() / 127.5 - 1
    mean = flat.mean(axis=0)
    flat -= mean
    values, vectors = torch.linalg.eigh(torch.from_numpy(flat.T @ flat / len(flat)))
    order = torch.argsort(values, descending=True)[:FEATURES]
    values, vectors = values[order].clamp_min(0), vectors[:, order]
    axes = vectors / (values + 1e-3 * values[0]).sqrt()
    return Patches(mean, axes.numpy())


def codes(encoder: Encoder, random_encoder: Encoder, fitted: Patches) -> dict[str, Code]:
    """Name -> code of every arm that sees the image; the floors are `shuffled` and `blank` of the encoder's."""
    return {
        ENCODER: lambda images: encoded(encoder, images),
        RANDOM: lambda images: encoded(random_encoder, images),
        PCA: lambda images: _by_patch(fitted.components(images, COMPONENTS)),
        POOLED: lambda images: _pooled(fitted.components(images, FEATURES)),
        SMALL: fewer_pixels,
        PIXELS: patches,
    }


@torch.inference_mode()
def encoded(encoder: Encoder, images: np.ndarray, at_once: int = 32) -> np.ndarray:
    """float32 (n, 12, 512)."""
    blocks = (torch.from_numpy(images[first : first + at_once]) for first in range(0, len(images), at_once))
    return np.concatenate([encoder(block).float().numpy() for block in blocks])


def in_blocks(code: Code, images: np.ndarray, at_once: int = 256) -> np.ndarray:
    """A code of many images, without their patches in float32 all at once."""
    return np.concatenate([code(images[first : first + at_once]) for first in range(0, len(images), at_once)])


def shuffled(capsules: np.ndarray, seed: int) -> np.ndarray:
    """Each image gets the capsules of another one."""
    order = np.random.default_rng(seed).permutation(len(capsules))
    return np.asarray(capsules[order[np.argsort(np.roll(order, 1))]]) if len(order) > 1 else capsules


def blank(capsules: np.ndarray) -> np.ndarray:
    """Zeros."""
    return np.zeros_like(capsules)


def as_tokens(code: np.ndarray) -> np.ndarray:
    """(n, 12, 512) as tokens (n, 96, 64); raw pixels stay one token a patch."""
    return code if code.shape[1:] == (GRID * GRID, PATCH * PATCH * 3) else code.reshape(len(code), -1, TOKEN)


def stored(capsules: np.ndarray, bits: int) -> np.ndarray:
    """Capsules (n, 12, 512) after they were stored with so many bits a number: float32 again.

    16 is float16; 8 and 4 are whole numbers with one float16 scale for each capsule, its largest value.
    """
    if bits == 16:
        return capsules.astype(np.float16).astype(np.float32)
    most = 2 ** (bits - 1) - 1
    scale = (np.abs(capsules).max(axis=-1, keepdims=True) / most).astype(np.float16).astype(np.float32)
    steps = np.round(capsules / np.where(scale > 0, scale, 1)).clip(-most, most)
    restored: np.ndarray = (steps * scale).astype(np.float32)
    return restored


def stored_bytes(bits: int) -> int:
    """Bytes of the capsules of one image, the scales included."""
    return CAPSULES * FEATURES * bits // 8 + (0 if bits == 16 else 2 * CAPSULES)


def patches(images: np.ndarray) -> np.ndarray:
    """(n, 224, 224, 3) to its patches (n, 64, 2352) in reading order, of the same type."""
    cut = images.reshape(-1, GRID, PATCH, GRID, PATCH, 3).transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(cut.reshape(len(images), GRID * GRID, PATCH * PATCH * 3))


def fewer_pixels(images: np.ndarray, side: int = FEWER) -> np.ndarray:
    """float32 (n, 12, 512): means over areas of the image, side x side pixels, then zeros."""
    small = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(images).permute(0, 3, 1, 2).float(), side)
    flat = small.permute(0, 2, 3, 1).reshape(len(images), -1).numpy() / 127.5 - 1
    return np.pad(flat, ((0, 0), (0, CAPSULES * FEATURES - flat.shape[1]))).reshape(-1, CAPSULES, FEATURES)


def _by_patch(components: np.ndarray) -> np.ndarray:
    """(n, 64, 96) laid out as the encoder's: the first 64 numbers of a patch are a token, then half a token each."""
    n = len(components)
    first, rest = components[:, :, :TOKEN].reshape(n, -1), components[:, :, TOKEN:].reshape(n, -1)
    return np.concatenate([first, rest], axis=1).reshape(n, CAPSULES, FEATURES)


def _pooled(components: np.ndarray) -> np.ndarray:
    """(n, 64, 512) to (n, 12, 512): means of 5 or 6 patches in reading order."""
    bounds = np.linspace(0, GRID * GRID, CAPSULES + 1).round().astype(int)
    groups = pairwise(bounds.tolist())
    return np.stack([components[:, first:last].mean(axis=1) for first, last in groups], axis=1)


def all_codes(known: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """The codes with the floors beside them, both made of the encoder's where it is among them."""
    if ENCODER not in known:
        return dict(known)
    return {**known, SHUFFLED: shuffled(known[ENCODER], seed), BLANK: blank(known[ENCODER])}
