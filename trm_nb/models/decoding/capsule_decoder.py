"""CapsuleDecoder: capsules back to images, to see what an encoder kept.

One token for each patch is made of the patch's own numbers in the capsules and of the two capsules of the whole image;
a small transformer lets neighbours help each other, and each of the patch's eight text cells is decoded by an MLP. A
linear path beside it starts as the inverse of the principal components (training/pretraining). Text and grids are then
read from the pixels: the nearest glyph of the atlas, the nearest of the ten colours.
Cost: 1.5 million weights, less time than the encoder. It knows images of 224x224 pixels only.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_nb.errors import UserError
from trm_nb.models.checkpoints import load_weights, read_weights, save_weights
from trm_nb.models.patches import CELLS, PIXELS, unpatch
from trm_nb.models.read_out import BANDS, DETAIL, GRID, WHOLE
from trm_nb.models.trm import affine, truncated_normal
from trm_nb.render.grid import BACKGROUND, DEMONSTRATION, LINE, PALETTE, SIGN, TEST

SHIPPED = Path(__file__).parents[2] / "assets" / "checkpoints" / "decoder_base.safetensors"
COLOURS = np.stack([*PALETTE, LINE, BACKGROUND, DEMONSTRATION, TEST, SIGN]).astype(
    np.uint8
)  # of grids and tasks, (15, 3)
_PATCHES = GRID * GRID  # of an image
SIZES = {"base": {"width": 192, "blocks": 2, "cell": 96}, "tiny": {"width": 64, "blocks": 1, "cell": 32}}
_KIND = "capsule decoder"


class DecoderBlock(nn.Module):
    """Pre-norm attention and MLP over the patches: (b, p, width) -> the same shape."""

    def __init__(self, width: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = affine(width, 3 * width, generator)
        self.o = affine(width, width, generator, scale=0.1)
        self.up = affine(width, 2 * width, generator)
        self.down = affine(2 * width, width, generator, scale=0.1)

    def forward(self, x: Tensor) -> Tensor:
        b, p, width = x.shape
        q, k, v = self.qkv(self.n1(x)).view(b, p, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, p, width))
        return cast(Tensor, x + self.down(F.gelu(self.up(self.n2(x)))))


class CapsuleDecoder(nn.Module):
    """Capsules (b, 12, 512) of images of 224x224 pixels to their pixels.

    Args:
        width: of a patch's token.
        blocks: of attention and MLP.
        cell: width of a text cell's features.
        seed: of the random weights.
    """

    def __init__(self, width: int = 192, blocks: int = 2, cell: int = 96, seed: int = 0) -> None:
        super().__init__()
        self.sizes = {"width": width, "blocks": blocks, "cell": cell}
        generator = torch.Generator().manual_seed(seed)
        self.band, self.detail = affine(64, width, generator), affine(16, width, generator)
        self.whole = affine(1024, width, generator)
        self.place = nn.Parameter(truncated_normal(_PATCHES, width, std=0.1, generator=generator))
        self.blocks = nn.ModuleList(DecoderBlock(width, 4, generator) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.split = affine(width, CELLS * cell, generator)
        self.up = affine(cell, 2 * cell, generator)
        self.out = affine(2 * cell, PIXELS, generator, scale=0.1)
        self.skip = affine(80, CELLS * PIXELS, generator)
        self.colour = affine(2 * cell, PIXELS // 3 * len(COLOURS), generator)

    def forward(self, capsules: Tensor) -> Tensor:
        """Decode to text cells.

        Args:
            capsules: float (b, 12, 512).

        Returns:
            float (b, 64, 8, 294), pixel values of about -1..1, laid out as `patches.patches` does.
        """
        return self.pixels(self.hidden(capsules), capsules)

    def pixels(self, hidden: Tensor, capsules: Tensor) -> Tensor:
        """The second half of `forward`: `hidden` and what it was made of, to text cells."""
        decoded = self.out(hidden)
        own = torch.cat([capsules[:, part].reshape(len(decoded), _PATCHES, -1) for part in (BANDS, DETAIL)], -1)
        return cast(Tensor, decoded + self.skip(own).view_as(decoded))

    def hidden(self, capsules: Tensor) -> Tensor:
        """What pixels and colours are projected from: capsules (b, 12, 512) -> float (b, 64, 8, 2 * cell)."""
        b = len(capsules)
        band, detail = capsules[:, BANDS].reshape(b, _PATCHES, 64), capsules[:, DETAIL].reshape(b, _PATCHES, 16)
        x = self.band(band) + self.detail(detail) + self.whole(capsules[:, WHOLE].reshape(b, 1, -1)) + self.place
        for block in self.blocks:
            x = block(x)
        cells = self.split(self.norm(x)).view(b, _PATCHES, CELLS, -1)
        return F.gelu(self.up(F.gelu(cells)))

    @torch.inference_mode()
    def images(self, capsules: Tensor) -> Tensor:
        """Decode to uint8 images (b, 224, 224, 3)."""
        pixels = unpatch(self(capsules.float()), GRID)
        return ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

    @torch.inference_mode()
    def grids(self, capsules: Tensor) -> Tensor:
        """Decode to uint8 images (b, 224, 224, 3) in which every pixel has the likeliest of the colours of grids."""
        logits = self.colour(self.hidden(capsules.float())).view(len(capsules), _PATCHES, CELLS, PIXELS // 3, -1)
        return unpatch(torch.from_numpy(COLOURS)[logits.argmax(-1)].flatten(-2), GRID)

    def save(self, path: str | Path, encoder: str) -> None:
        """Write a checkpoint as safetensors, in float16; `encoder` is the fingerprint of the encoder it decodes."""
        weights = {name: weight.half() for name, weight in self.state_dict().items()}
        save_weights(path, _KIND, weights, {"encoder": encoder, **self.sizes})

    @classmethod
    def load(cls, path: str | Path, encoder: str) -> Self:
        """Read what `save` wrote; raises UserError when it is none, or decodes the capsules of another encoder."""
        weights, values = read_weights(path, _KIND)
        if values.get("encoder") != encoder:
            raise UserError(
                f"{path}: expected a decoder for the encoder {encoder}, got one for {values.get('encoder')}; "
                "only the trained encoder that comes with the package has a decoder there"
            )
        sizes = {name: values.get(name) for name in SIZES["base"]}
        if sizes not in SIZES.values():
            raise UserError(f"{path}: expected the sizes of one of {', '.join(SIZES)}, got {sizes}; train it again")
        decoder = cls(**cast(dict[str, int], sizes))
        load_weights(decoder, {name: weight.float() for name, weight in weights.items()}, path)
        return decoder.eval()


@lru_cache(maxsize=1)
def decodes() -> str | None:
    """The fingerprint of the encoder that the package's decoder is for; None where there is no decoder."""
    return str(read_weights(SHIPPED, _KIND)[1]["encoder"]) if SHIPPED.is_file() else None


@lru_cache(maxsize=1)
def shipped_decoder(encoder: str) -> CapsuleDecoder:
    """The decoder that comes with the package, for the encoder with this fingerprint; raises UserError for others."""
    return CapsuleDecoder.load(SHIPPED, encoder)
