"""The encoder's read-out: 144 attention heads turn the tokens of patches into twelve capsules.

Capsules 0 to 7 are the horizontal bands of the image from top to bottom: eight heads of 64 numbers, one for each patch
of a 224-pixel image. Capsules 8 and 9 add 16 numbers for each patch, in reading order. Capsules 10 and 11 describe the
image as a whole, from 16 heads that attend to all patches. Where a head attends follows from a learned
query and a learned position, a Gaussian over the image that starts on the head's patch, or is wide for the whole.
The content capsules are squashed to -4..4, so that a training with noise spreads them out; the two of the whole image
together have a root mean square of 5, so that the distance of two images' capsules is mostly the distance of these.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_nb.models.patches import centres
from trm_nb.models.trm import affine, rms_norm, truncated_normal
from trm_nb.records import FEATURES

BANDS, DETAIL, WHOLE = slice(0, 8), slice(8, 10), slice(10, 12)  # which capsules hold what
GRID = 8  # heads of a row and of a column
LIMIT, WHOLE_RMS = 4.0, 5.0
_KEY = 16


class Heads(nn.Module):
    """Where n attention heads with positions look: tokens (b, p, width) -> weights (b, n, p), each summing to 1.

    The logit of head i at a patch is query_i . key / 4 - |patch - position_i|^2 / (2 sigma_i^2), positions in 0..1 from
    the top left (row, column).
    """

    def __init__(self, width: int, place: Tensor, sigma: float, generator: torch.Generator) -> None:
        super().__init__()
        self.query = nn.Parameter(truncated_normal(len(place), _KEY, std=0.1, generator=generator))
        self.key = affine(width, _KEY, generator, bias=False)
        self.position = nn.Parameter(place.clone())
        self.log_sigma = nn.Parameter(torch.full((len(place),), math.log(sigma)))

    def attention(self, tokens: Tensor, side: int) -> Tensor:
        """The weights of the heads over the patches."""
        distance = (self.position[:, None] - centres(side).to(self.position)).square().sum(-1)
        bias = -0.5 * distance * torch.exp(-2 * self.log_sigma)[:, None]
        logits: Tensor = (self.query @ self.key(tokens).transpose(1, 2)) / math.sqrt(_KEY) + bias
        return logits.softmax(-1)


class ContentHeads(Heads):
    """64 heads of d numbers, one for each patch of a 224-pixel image: tokens (b, p, width) -> (b, 64, d)."""

    def __init__(self, width: int, d: int, generator: torch.Generator) -> None:
        super().__init__(width, centres(GRID), 1 / 40, generator)
        self.value = affine(width, d, generator)

    def forward(self, tokens: Tensor, side: int) -> Tensor:
        return self.attention(tokens, side) @ cast(Tensor, self.value(tokens))


class WholeHeads(Heads):
    """What an image is like as a whole: tokens (b, p, width) -> (b, 1024).

    16 heads pool features of each patch (what is counted are things that tokens do not hold as sums), and a residual
    MLP combines what they found.
    """

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__(width, torch.full((16, 2), 0.5), 0.5, generator)
        self.feature = affine(width, 2 * width, generator)
        self.value = nn.Parameter(
            truncated_normal(16, 2 * width, 64, std=1 / math.sqrt(2 * width), generator=generator)
        )
        self.up = affine(2 * FEATURES, width, generator)
        self.down = affine(width, 2 * FEATURES, generator, scale=0.1)

    def forward(self, tokens: Tensor, side: int) -> Tensor:
        pooled = self.attention(tokens, side) @ F.gelu(self.feature(rms_norm(tokens)))
        found = rms_norm(torch.einsum("bnd,ndk->bnk", pooled, self.value.to(pooled.dtype)).flatten(1))
        return cast(Tensor, found + self.down(F.gelu(self.up(found))))


class ReadOut(nn.Module):
    """x and z_H of all patches, both (b, p, width), to capsules (b, 12, 512).

    Heads of the content read x + gate * z_H, with a learned gate that starts small; those of the whole read x + z_H.
    """

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.full((width,), 0.1))
        self.bands = ContentHeads(width, 64, generator)
        self.detail = ContentHeads(width, 16, generator)
        self.whole = WholeHeads(width, generator)

    def forward(self, x: Tensor, z_H: Tensor, side: int) -> Tensor:
        tokens = x + self.gate * z_H
        content = torch.cat([heads(tokens, side).flatten(1) for heads in (self.bands, self.detail)], 1)
        whole = rms_norm(self.whole(x + z_H, side))
        return torch.cat([LIMIT * torch.tanh(content / LIMIT), WHOLE_RMS * whole], 1).view(len(x), -1, FEATURES)

    def maps(self, x: Tensor, z_H: Tensor, side: int) -> Tensor:
        """Where each capsule attends: (b, 12, side, side), the mean over its heads."""
        tokens = x + self.gate * z_H
        weights = (
            heads.attention(t, side)
            for heads, t in ((self.bands, tokens), (self.detail, tokens), (self.whole, x + z_H))
        )
        b = len(x)
        means = [a.view(b, k, -1, side, side).mean(2) for a, k in zip(weights, (8, 2, 2), strict=True)]
        return torch.cat(means, 1)
