"""PlaceReader: each answer place of a TinyRecursiveModel reads what it needs out of the capsules.

With the capsules as a prefix only, the net has to carry what belongs to a cell from twelve places to the cell's own,
with weights that know nothing of either. Here each place has weights of its own over the 96 slots of 64 numbers that
the capsules consist of (an encoder's head fills one slot), and all places share how a slot is read. It works with
capsules of any encoder, and is evaluated once in an outer step, where the net is called many times.

Axes: b batch, s answer places, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_nb.models.trm import Linear, SwiGLU, rms_norm, truncated_normal
from trm_nb.records import CAPSULES, FEATURES

SLOT = 64  # numbers of a slot
SLOTS = CAPSULES * FEATURES // SLOT


class PlaceReader(nn.Module):
    """What each answer place is given to work on: standardised capsules and embedded places, as unit RMS.

    Args:
        places: s.
        heads: weighted sums of the slots that a place reads.
        width: d.
        generator: of the weights.
    """

    def __init__(self, places: int, heads: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        self.mix = nn.Parameter(truncated_normal(places * heads, SLOTS, std=SLOTS**-0.5, generator=generator))
        self.proj = Linear(heads * SLOT, width, generator)
        self.mlp = SwiGLU(width, generator)

    def forward(self, capsules: Tensor, places: Tensor) -> Tensor:
        """float (b, 12, 512) and (b, s, d) -> (b, s, d)."""
        b, s, _ = places.shape
        slots = capsules.reshape(b, SLOTS, SLOT).transpose(1, 2)
        read = F.linear(slots, self.mix.to(slots.dtype)).view(b, SLOT, s, self.heads)
        h = places + self.proj(read.permute(0, 2, 3, 1).reshape(b, s, self.heads * SLOT))
        return rms_norm(h + self.mlp(h))
