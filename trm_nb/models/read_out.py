"""The encoder's read-out: 144 attention heads turn the tokens of patches into twelve capsules.

Capsules 0 to 7 are the horizontal bands of the image from top to bottom: eight heads of 64 numbers, one for each patch
of a 224-pixel image. Capsules 8 and 9 add 16 numbers for each patch, in reading order. Capsules 10 and 11 describe the
image as a whole, with 16 heads of 64 numbers that attend to all patches. Where a head attends follows from a learned
query and a learned position, a Gaussian over the image that starts on the head's patch, or is wide for the whole.
The content capsules are squashed to -4..4, so that a training with noise spreads them out; the two of the whole image
together have a root mean square of 5, so that the distance of two images' capsules is mostly the distance of these.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from trm_nb.models.patches import centres
from trm_nb.models.trm import affine, rms_norm, truncated_normal
from trm_nb.records import FEATURES

BANDS, DETAIL, WHOLE = slice(0, 8), slice(8, 10), slice(10, 12)  # which capsules hold what
GRID = 8  # heads of a row and of a column
LIMIT, WHOLE_RMS = 4.0, 5.0
_KEY = 16


class Heads(nn.Module):
    """n attention heads of d numbers with positions: tokens (b, p, width) -> (b, n, d).

    The logit of head i at a patch is query_i . key / 4 - |patch - position_i|^2 / (2 sigma_i^2), positions in 0..1 from
    the top left (row, column). `own_values`: each head has its own projection of the tokens, else all share one.
    """

    def __init__(
        self, width: int, d: int, place: Tensor, sigma: float, generator: torch.Generator, own_values: bool = False
    ) -> None:
        super().__init__()
        n = len(place)
        self.own_values = own_values
        self.query = nn.Parameter(truncated_normal(n, _KEY, std=0.1, generator=generator))
        self.key = affine(width, _KEY, generator, bias=False)
        self.value = affine(width, n * d if own_values else d, generator)
        self.position = nn.Parameter(place.clone())
        self.log_sigma = nn.Parameter(torch.full((n,), math.log(sigma)))

    def forward(self, tokens: Tensor, side: int) -> Tensor:
        weights, values = self.attention(tokens, side), self.value(tokens)
        if self.own_values:
            b, p, _ = tokens.shape
            values = values.view(b, p, len(self.query), -1)
            read: Tensor = torch.einsum("bnp,bpnd->bnd", weights, values)
        else:
            read = weights @ values
        return read

    def attention(self, tokens: Tensor, side: int) -> Tensor:
        """The weights of the heads over the patches, (b, n, p), each summing to 1."""
        distance = (self.position[:, None] - centres(side).to(self.position)).square().sum(-1)
        bias = -0.5 * distance * torch.exp(-2 * self.log_sigma)[:, None]
        logits: Tensor = (self.query @ self.key(tokens).transpose(1, 2)) / math.sqrt(_KEY) + bias
        return logits.softmax(-1)


class ReadOut(nn.Module):
    """x and z_H of all patches, both (b, p, width), to capsules (b, 12, 512).

    Heads of the content read x + gate * z_H, with a learned gate that starts small; those of the whole read x + z_H.
    """

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        place = centres(GRID)
        self.gate = nn.Parameter(torch.full((width,), 0.1))
        self.bands = Heads(width, 64, place, 1 / 40, generator)
        self.detail = Heads(width, 16, place, 1 / 40, generator)
        self.whole = Heads(width, 64, torch.full((16, 2), 0.5), 0.5, generator, own_values=True)

    def forward(self, x: Tensor, z_H: Tensor, side: int) -> Tensor:
        tokens = x + self.gate * z_H
        content = torch.cat([heads(tokens, side).flatten(1) for heads in (self.bands, self.detail)], 1)
        whole = rms_norm(self.whole(x + z_H, side).flatten(1))
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
