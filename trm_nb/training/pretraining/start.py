"""A start for encoder and decoder that already reproduces images: principal components.

A random stem would first have to find out what pixels are. Instead its first layer becomes the principal components of
text cells, its second those of patches, within what the first keeps; the heads of the content pass the first 80 of them
on, 64 to a band and 16 to a detail, and the decoder's linear path inverts both. Everything is scaled to about unit
variance. Text, grids and photographs weigh alike, whatever their contrast, and flat white patches do not count.
Cost: three seconds and 1 GB for 512 images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trm_nb.models.decoding.capsule_decoder import CapsuleDecoder
from trm_nb.models.patches import CELLS, patches, scaled
from trm_nb.models.vision_encoder import TRMVisionEncoder
from trm_nb.training.pretraining.batch import FAMILY
from trm_nb.training.pretraining.words import FAMILIES

BAND, KEPT = 64, 80  # components of a patch in its band, and in band and detail
FLOOR = 1e-3  # added to the variances, as part of the largest, before they are scaled to one
FLAT = 0.01  # standard deviation below which a patch does not count
MOST_CELLS, MOST_PATCHES = 60_000, 30_000


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """x -> (x - mean) @ vectors / scale gives components of about unit variance, largest first.

    `mean` (d,), `vectors` (d, k) with orthonormal columns, `scale` (k,).
    """

    mean: Tensor
    vectors: Tensor
    scale: Tensor

    @classmethod
    def of(cls, x: Tensor, weights: Tensor, k: int) -> Components:
        """Of rows x (n, d) that count by their weights (n,)."""
        mean = x.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov(((x - mean) * weights[:, None]).T).double())
        values, vectors = values.flip(0)[:k].float(), vectors.flip(1)[:, :k].float()
        return cls(mean, vectors, (values + FLOOR * values[0]).sqrt())


@torch.no_grad()
def start_from_components(
    encoder: TRMVisionEncoder, decoder: CapsuleDecoder, images: np.ndarray, kinds: np.ndarray
) -> None:
    """Overwrite the stem, the values of the content heads and the decoder's linear path, in place.

    Args:
        encoder: on the CPU.
        decoder: on the CPU.
        images: uint8 (n, 224, 224, 3), some of each family.
        kinds: int64 (n,), see `content.Kind`.
    """
    patched, weights = _weighted(images, kinds)
    cells, cell_weights = patched.flatten(0, 1), weights.repeat_interleave(CELLS)
    some = _some(len(cells), MOST_CELLS, 0)
    stem = encoder.stem
    k, width = stem.cell.out_features, stem.merge.out_features
    cell = Components.of(cells[some], cell_weights[some], k)
    stem.cell.weight.copy_((cell.vectors / cell.scale).T)
    stem.cell.bias.copy_(-(cell.mean @ cell.vectors) / cell.scale)

    some = _some(len(patched), MOST_PATCHES, 1)
    reduced = ((patched[some] - cell.mean) @ cell.vectors).flatten(1)
    patch = Components.of(reduced, weights[some], width)
    forward = (patch.vectors / patch.scale).T.view(-1, CELLS, k) * cell.scale  # on what stem.cell gives
    stem.merge.weight.copy_(forward.flatten(1))
    stem.merge.bias.copy_(-(patch.mean @ patch.vectors) / patch.scale)

    read_out, kept = encoder.read_out, min(KEPT, width)
    for heads, first, end in ((read_out.bands, 0, BAND), (read_out.detail, BAND, KEPT)):
        heads.value.weight.copy_(torch.eye(KEPT, width)[first:end])
        heads.value.bias.zero_()
    back = (patch.vectors[:, :kept] * patch.scale[:kept]).T.view(kept, CELLS, k) @ cell.vectors.T
    decoder.skip.weight.zero_()
    decoder.skip.weight[:, :kept] = back.flatten(1).T
    decoder.skip.bias.copy_((patch.mean.view(CELLS, k) @ cell.vectors.T + cell.mean).flatten())


def _weighted(images: np.ndarray, kinds: np.ndarray) -> tuple[Tensor, Tensor]:
    """Patches that are not flat, float32 (m, 8, 294), and their weights (m,), so that the families vary alike."""
    patched = scaled(patches(torch.from_numpy(images)))
    families = torch.from_numpy(FAMILY[kinds])
    weights = torch.ones(len(patched))
    for family in range(len(FAMILIES)):
        own = families == family
        of_family = patched[own].flatten(0, 1)
        spread = (of_family - of_family.mean(0)).square().sum((-1, -2)).mean()
        weights[own] = (spread * own.sum()) ** -0.5
    weights = (weights / weights.square().mean().sqrt()).repeat_interleave(patched.shape[1])
    patched = patched.flatten(0, 1)
    counts = patched.flatten(1).std(1) > FLAT
    return patched[counts], weights[counts]


def _some(n: int, most: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:most]
