"""TRMVisionEncoder: images to capsules with a Tiny Recursive Model.

An image is cut into patches of 28x28 pixels, each of eight text cells of 14x7. The stem embeds every cell and then
every patch; this is the input x of the recursion in `trm.py`, injected at each step. Patches that are wholly white
never enter the recursion: pages are half empty, and dropping them costs nothing but their tokens. The read-out turns
x + gate * z_H into 12 capsules (see `read_out.py`): eight for the bands of the image, two for further detail, two for
the image as a whole. The gate starts small, so what the stem knows arrives from the first step of training on.

Capsules of an image do not depend on the images beside it, bit for bit: images are processed in groups of a fixed
shape, chosen by the number of patches that are kept. Content capsules lie within -4..4, those of the whole image have
a root mean square of 5; float16 holds both well.
Cost: see `Preset`. Without trained weights all parameters follow from the seed alone.

Axes: b batch, h w pixels, c channels, p patches, k capsules (12), d features (512).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_nb.errors import UserError
from trm_nb.models.checkpoints import read_weights
from trm_nb.models.decoding.capsule_decoder import decodes, shipped_decoder
from trm_nb.models.encoder import KIND, Encoder
from trm_nb.models.patches import CELLS, PIXELS, patches, positions, scaled
from trm_nb.models.read_out import ReadOut
from trm_nb.models.trm import RecursiveNet, affine, recurse, rotary_angles, truncated_normal
from trm_nb.records import CAPSULES, FEATURES
from trm_nb.render.puzzle import PATCH

GROUP_TOKENS = {"cpu": 256, "cuda": 16_384}  # patches that are processed together; fixed, as it can change last bits
CHECKPOINTS = Path(__file__).parents[1] / "assets" / "checkpoints"  # a card lies beside the weights
_VERSION = 3


@dataclass(frozen=True, slots=True)
class Preset:
    """The size of an encoder: widths of a text cell and of a patch, heads of its net, and how often the net is called.

    base has 2.0 million weights and tiny 0.4 million.
    """

    cell: int
    width: int
    heads: int
    H_cycles: int
    L_cycles: int


PRESETS: dict[str, Preset] = {"base": Preset(96, 192, 4, 1, 1), "tiny": Preset(32, 64, 4, 1, 1)}


class Stem(nn.Module):
    """Patches to tokens: uint8 (..., 8, 294) -> float (..., width).

    Each cell is embedded, refined by a residual MLP that starts small, and the eight cells of a patch are merged.
    """

    def __init__(self, size: Preset, generator: torch.Generator) -> None:
        super().__init__()
        hidden = 2 * size.cell
        self.cell = affine(PIXELS, size.cell, generator)
        self.up = affine(size.cell, hidden, generator)
        self.down = affine(hidden, size.cell, generator, scale=0.1)
        self.merge = affine(CELLS * size.cell, size.width, generator)

    def forward(self, cut: Tensor) -> Tensor:
        cells = self.cell(scaled(cut).to(self.cell.weight.dtype))
        cells = cells + self.down(F.gelu(self.up(cells)))
        merged: Tensor = self.merge(cells.flatten(-2))
        return merged


class TRMVisionEncoder(Encoder):
    """uint8 images (b, h, w, 3), h = w = image_size, to capsules float32 (b, 12, 512).

    Args:
        preset: "base" or "tiny".
        seed: of random weights, which follow from it alone.
        image_size: a multiple of 28; no weight depends on it, but the trained ones know 224.
        weights: "trained" for those that come with the package, "random", or None: trained where the preset has such.

    Raises:
        UserError: for another preset or size, and for trained weights of a preset that has none.
    """

    about = (
        "It is a Tiny Recursive Model: an image is cut into patches, and one small net refines its view of them all. "
        "Capsules 0 to 7 read the bands of the image from top to bottom, 8 and 9 further detail of its upper and lower "
        "half, 10 and 11 the image as a whole."
    )

    def __init__(
        self,
        preset: str = "base",
        *,
        seed: int = 0,
        image_size: int = 224,
        weights: Literal["trained", "random"] | None = None,
    ) -> None:
        super().__init__(preset, seed=seed, image_size=image_size)
        if preset not in PRESETS:
            raise UserError(f"encoder: expected one of {', '.join(PRESETS)}, got {preset!r}")
        if image_size < PATCH or image_size % PATCH:
            raise UserError(f"image_size: expected a multiple of {PATCH}, got {image_size}")
        size = PRESETS[preset]
        generator = torch.Generator().manual_seed(seed)
        self.stem = Stem(size, generator)
        self.net = RecursiveNet(size.width, size.heads, generator)
        self.read_out = ReadOut(size.width, generator)
        self.H_init: Tensor
        self.L_init: Tensor
        self.register_buffer("H_init", truncated_normal(size.width, std=1.0, generator=generator))
        self.register_buffer("L_init", truncated_normal(size.width, std=1.0, generator=generator))
        shipped = CHECKPOINTS / f"encoder_{preset}.safetensors"
        if weights == "trained" or (weights is None and shipped.is_file()):
            if not shipped.is_file():
                raise UserError(f"encoder_weights: {preset!r} has no trained weights; use base, or ask for random ones")
            self._take(shipped, *read_weights(shipped, KIND))

    def forward(self, images: Tensor) -> Tensor:
        """Encode images; the result for an image does not depend on the others.

        Args:
            images: uint8 (b, image_size, image_size, 3).

        Returns:
            float32 (b, 12, 512).

        Raises:
            ValueError: for images of another dtype or shape.
        """
        cut = self._cut(images)
        capsules = torch.zeros(len(cut), CAPSULES, FEATURES, device=cut.device)
        for rows, x, z_H in self._tokens(cut):
            capsules[rows] = self.read_out(x, z_H, self._side).float()[: len(rows)]
        return capsules

    @torch.inference_mode()
    def attention_maps(self, images: Tensor) -> Tensor:
        """What each capsule attends to.

        Args:
            images: uint8 (b, image_size, image_size, 3).

        Returns:
            float32 (b, 12, rows, columns) over the patches of 28x28 pixels, 0 to 1, each map summing to 1.

        Raises:
            ValueError: for images of another dtype or shape.
        """
        cut = self._cut(images)
        maps = torch.zeros(len(cut), CAPSULES, self._side, self._side, device=cut.device)
        for rows, x, z_H in self._tokens(cut):
            maps[rows] = self.read_out.maps(x, z_H, self._side)[: len(rows)]
        return maps

    @property
    def has_decoder(self) -> bool:
        """Whether `decode` can be used: this is the trained encoder that comes with the package, at 224 pixels."""
        return self.image_size == 224 and self.fingerprint == decodes()

    def decode(self, capsules: Tensor | np.ndarray, kind: Literal["image", "text", "grid"] = "image") -> list[Any]:
        """Show what the capsules of images of 224x224 pixels hold, by the decoder that comes with the package.

        Args:
            capsules: float (b, 12, 512), as this encoder gives them or as they are stored.
            kind: "image" for uint8 (h, w, 3) arrays, "text" for the characters of pages of font size 12 as strings,
                "grid" for int64 (rows, columns) arrays.

        Returns:
            One result for each of the b.

        Raises:
            UserError: when this is not the trained encoder that comes with the package.
        """
        from trm_nb.models.decoding.read_back import read_grid, read_text

        given = torch.as_tensor(capsules).float().cpu()
        if given.shape[1:] != (CAPSULES, FEATURES):
            raise ValueError(f"expected capsules (b, {CAPSULES}, {FEATURES}), got {tuple(given.shape)}")
        decoder = shipped_decoder(self.fingerprint)
        images = (decoder.grids(given) if kind == "grid" else decoder.images(given)).numpy()
        read: dict[str, Callable[[np.ndarray], Any]] = {"image": np.asarray, "text": read_text, "grid": read_grid}
        return [read[kind](image) for image in images]

    @property
    def _side(self) -> int:
        return self.image_size // PATCH

    def _cut(self, images: Tensor) -> Tensor:
        side = self.image_size
        if images.dtype != torch.uint8 or images.ndim != 4 or tuple(images.shape[1:]) != (side, side, 3):
            raise ValueError(
                f"expected uint8 images of shape (b, {side}, {side}, 3), got {images.dtype} {tuple(images.shape)}"
            )
        return patches(images)

    def _tokens(self, cut: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Groups of images: their rows int64 (n,), and x and z_H, float (n or more, p, width) each.

        What follows the first n only fills the group up.
        """
        kept = cut.flatten(2).amin(-1) != 255
        kept[:, 0] = True  # attention needs something to attend to
        if self.training and torch.is_grad_enabled():  # nothing is stored, and one group is three times as fast
            yield torch.arange(len(cut), device=cut.device), *self._recursed(cut, kept, kept.shape[1])
            return
        for rows, length, count in _groups(kept, GROUP_TOKENS.get(cut.device.type, GROUP_TOKENS["cpu"])):
            filled = F.pad(rows, (0, count - len(rows)))
            yield rows, *self._recursed(cut[filled], kept[filled], length)

    def _recursed(self, cut: Tensor, kept: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """x and z_H of the patches that are kept, at most `length` of each image; a white patch has z_H = 0."""
        size, side = PRESETS[self.preset], self._side
        order = kept.int().argsort(dim=1, descending=True, stable=True)[:, :length]
        present = kept.gather(1, order)
        x = self.stem(cut[torch.arange(len(cut), device=cut.device)[:, None], order])
        angles = rotary_angles(positions(side).to(x.device), size.width // size.heads)[order][:, None]
        net = partial(self.net, mask=present[:, None, None])
        z_H, z_L = self.H_init.to(x).expand_as(x), self.L_init.to(x).expand_as(x)
        z_H, _ = recurse(net, z_H, z_L, x, size.H_cycles, size.L_cycles, angles)
        white = self.stem(torch.full_like(cut[:1, :1], 255)).expand(len(cut), side * side, -1)
        place = order[..., None].expand_as(x)
        return white.scatter(1, place, x), torch.zeros_like(white).scatter(1, place, z_H * present[..., None])

    def architecture(self) -> dict[str, str | int | list[int]]:
        """Its sizes, and the version of this module."""
        return {"preset": self.preset, "version": _VERSION, **asdict(PRESETS[self.preset])}


def _groups(kept: Tensor, tokens: int) -> Iterator[tuple[Tensor, int, int]]:
    """Rows of at most `count` images that are processed together at `length` patches each: (rows, length, count).

    The lengths are quarters of all patches; an image is in the first that holds what is kept of it (bool (b, p)).
    """
    p, counts = kept.shape[1], kept.sum(1)
    shorter = 0
    for length in sorted({math.ceil(p * quarter / 4) for quarter in (1, 2, 3, 4)}):
        rows, count = ((counts > shorter) & (counts <= length)).nonzero().flatten(), max(1, tokens // length)
        for first in range(0, len(rows), count):
            yield rows[first : first + count], length, count
        shorter = length
