"""TRMVisionEncoder: pictures to capsules with a Tiny Recursive Model.

uint8 pictures are cut into patches of 28x28 pixels, which align with the 7x14 text cells and the 7-pixel grid cells.
A linear embedding of the patches is the input x of the recursion in `trm.py`, injected at every step; 12 capsules x 8
heads of 64 read the result out. Each of these 96 looks has a learned query and a learned place over the picture: a
Gaussian bump over the patches, which starts at its own point of a well spread sequence. The looks read z_H plus the
patch embedding, so that little is lost on the way and an untrained encoder still keeps much of the picture.

Choices: places within the net are 2-D RoPE (relative, no weights, any picture size); the read-out is where absolute
place enters. The embedding is blind to nothing, but starts with the flat part of a patch (its mean colour) damped, as
ink on white would drown in it. Each capsule is divided by its root mean square: values are of order 1 and at most
sqrt(512) = 22.6, which float16 holds well.
Cost: see `Preset`; the weights are drawn from the seed alone, so an untrained encoder is reproducible.

Axes: b batch, h w pixels, c channels, p patches, k capsules (12), d features (512).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_nb.checkpoints import fingerprint_of, load_checkpoint, load_weights, save_checkpoint
from trm_nb.records import CAPSULES, FEATURES, UserError
from trm_nb.trm import Linear, RecursiveNet, recurse, rms_norm, rotary_angles, truncated_normal

PATCH = 28
LOOKS = 8  # heads of a capsule, each FEATURES / LOOKS = 64 wide
_MIDDLE, _SPREAD = 0.5, 0.5  # pixel values of 0..1 become -1..1, so that a patch's embedding has about unit RMS


@dataclass(frozen=True, slots=True)
class Preset:
    """The size of an encoder: width and heads of its net, and how often the net is called.

    base has 8.6 million weights and tiny 1.0 million; on 2 CPU threads, 16 pictures at once, a picture takes about
    46 ms and 6 ms.
    """

    width: int
    heads: int
    H_cycles: int
    L_cycles: int


PRESETS: dict[str, Preset] = {"base": Preset(512, 8, 2, 3), "tiny": Preset(128, 4, 2, 2)}


class ReadOut(nn.Module):
    """Twelve capsules x eight heads look at the patches: float (b, p, width) -> (b, 12, 512), unit RMS a capsule.

    The attention logit of look (k, h) at a patch is query . key / 8 - |patch - place|^2 / (2 reach^2), with places in
    0..1 from the top left (row, column) and reach learned, from a third of a patch of 8x8 patches. Narrow places and
    mild queries at the start keep most of what an untrained encoder sees.
    """

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        each = FEATURES // LOOKS
        self.queries = nn.Parameter(truncated_normal(LOOKS, CAPSULES, each, std=0.5, generator=generator))
        self.key_proj = Linear(width, FEATURES, generator)
        self.value_proj = Linear(width, FEATURES, generator)
        self.places = nn.Parameter(_spread_points(CAPSULES * LOOKS).view(CAPSULES, LOOKS, 2))
        self.log_reach = nn.Parameter(torch.full((CAPSULES, LOOKS), math.log(1 / 24)))

    def forward(self, tokens: Tensor, side: int) -> Tensor:
        b = tokens.shape[0]
        looks = F.scaled_dot_product_attention(
            self.queries.expand(b, -1, -1, -1),
            self._heads(self.key_proj(tokens)),
            self._heads(self.value_proj(tokens)),
            attn_mask=self._bias(side),
        )
        return rms_norm(looks.transpose(1, 2).reshape(b, CAPSULES, FEATURES))

    def maps(self, tokens: Tensor, side: int) -> Tensor:
        """Where each look looks: (b, 12, 8, side, side), each map summing to 1."""
        keys = self._heads(self.key_proj(tokens))
        logits = self.queries @ keys.transpose(2, 3) / math.sqrt(keys.shape[-1]) + self._bias(side)
        return logits.softmax(-1).transpose(1, 2).reshape(-1, CAPSULES, LOOKS, side, side)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], LOOKS, FEATURES // LOOKS).transpose(1, 2)

    def _bias(self, side: int) -> Tensor:
        patches = (_positions(side).to(self.places) + 0.5) / side
        squared = (self.places[:, :, None] - patches).square().sum(-1)
        return (-0.5 * squared * torch.exp(-2 * self.log_reach)[:, :, None]).transpose(0, 1)


class TRMVisionEncoder(nn.Module):
    """uint8 pictures (b, h, w, 3), h = w = image_size, to capsules float32 (b, 12, 512).

    `preset` is "base" or "tiny"; without a checkpoint the weights follow from `seed` alone, drawn from a generator of
    their own. `image_size` is a multiple of 28, and no weight depends on it. Raises UserError for another preset or
    size, ValueError for pictures of another dtype or shape.
    """

    def __init__(self, preset: str = "base", *, seed: int = 0, image_size: int = 224) -> None:
        super().__init__()
        if preset not in PRESETS:
            raise UserError(f"encoder: expected one of {', '.join(PRESETS)}, got {preset!r}")
        if image_size < PATCH or image_size % PATCH:
            raise UserError(f"image_size: expected a multiple of {PATCH}, got {image_size}")
        self.preset, self.seed, self.image_size = preset, seed, image_size
        self.trained = False
        size = PRESETS[preset]
        generator = torch.Generator().manual_seed(seed)
        self.embed = Linear(PATCH * PATCH * 3, size.width, generator)
        with torch.no_grad():
            _damp_flat_part(self.embed.weight)
        self.net = RecursiveNet(size.width, size.heads, generator)
        self.read_out = ReadOut(size.width, generator)
        self.H_init: Tensor
        self.L_init: Tensor
        self.register_buffer("H_init", truncated_normal(size.width, std=1.0, generator=generator))
        self.register_buffer("L_init", truncated_normal(size.width, std=1.0, generator=generator))

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the architecture and the bytes of the weights as they are now."""
        return fingerprint_of(json.dumps(self._architecture(), sort_keys=True), self)

    def forward(self, images: Tensor) -> Tensor:
        tokens, side = self._tokens(images)
        capsules: Tensor = self.read_out(tokens, side)
        return capsules

    @torch.inference_mode()
    def attention_maps(self, images: Tensor) -> Tensor:
        """What each look attends to: float32 (b, 12, 8, rows, columns) over the patches, each map summing to 1."""
        return self.read_out.maps(*self._tokens(images))

    def save(self, path: str | Path, **facts: str | int | float | bool) -> None:
        """Write a checkpoint; `facts` are plain values worth keeping (what it was trained from, its score)."""
        weights = {name: weight.detach().cpu() for name, weight in self.state_dict().items()}
        save_checkpoint(path, _KIND, {**self._architecture(), "weights": weights, "facts": facts})

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu", *, image_size: int = 224) -> Self:
        """Read a checkpoint written by `save`; raises UserError when it is none or does not fit this version."""
        values = load_checkpoint(path, _KIND)
        if values.get("preset") not in PRESETS:
            raise UserError(f"{path}: preset: expected one of {', '.join(PRESETS)}, got {values.get('preset')!r}")
        encoder = cls(values["preset"], image_size=image_size)
        expected = encoder._architecture()
        for name, want in expected.items():
            if values.get(name) != want:
                raise UserError(
                    f"{path}: {name}: expected {want!r}, got {values.get(name)!r}; it is of another version"
                )
        load_weights(encoder, values.get("weights"), path)
        encoder.trained = True
        return encoder.to(device)

    def _tokens(self, images: Tensor) -> tuple[Tensor, int]:
        """z_H plus the patch embedding, (b, p, width), and the patches on a side."""
        size, side = PRESETS[self.preset], self.image_size // PATCH
        x = self.embed(self._patches(images))
        angles = rotary_angles(_positions(side).to(x.device), size.width // size.heads)
        z_H, z_L = self.H_init.expand_as(x), self.L_init.expand_as(x)
        z_H, _ = recurse(self.net, z_H, z_L, x, size.H_cycles, size.L_cycles, angles)
        return z_H + x, side

    def _patches(self, images: Tensor) -> Tensor:
        side = self.image_size
        if images.dtype != torch.uint8 or images.ndim != 4 or tuple(images.shape[1:]) != (side, side, 3):
            raise ValueError(
                f"expected uint8 pictures of shape (b, {side}, {side}, 3), got {images.dtype} {tuple(images.shape)}"
            )
        n = side // PATCH
        cut = images.view(-1, n, PATCH, n, PATCH, 3).permute(0, 1, 3, 2, 4, 5).reshape(-1, n * n, PATCH * PATCH * 3)
        return (cut.to(self.embed.weight.dtype) / 255 - _MIDDLE) / _SPREAD

    def _architecture(self) -> dict[str, str | int | list[int]]:
        size = PRESETS[self.preset]
        return {"preset": self.preset, "version": 1, **asdict(size)}


_KIND = "vision encoder"


def _positions(side: int) -> Tensor:
    """(row, column) of every patch in reading order: int64 (side * side, 2)."""
    return torch.cartesian_prod(torch.arange(side), torch.arange(side))


def _spread_points(n: int) -> Tensor:
    """n points that fill the unit square evenly, every stretch of them too (the R2 sequence, after M. Roberts)."""
    golden = 1.32471795724474602596  # the real root of x^3 = x + 1
    steps = torch.tensor([1 / golden, 1 / golden**2], dtype=torch.float64)
    return ((0.5 + torch.arange(1, n + 1)[:, None] * steps) % 1).float()


def _damp_flat_part(weight: Tensor) -> None:
    """Scale down, in place, what each row of the embedding (d, 28*28*3) sees of the patch's mean of each colour."""
    per_colour = weight.view(-1, PATCH * PATCH, 3)
    per_colour -= (1 - 0.25) * per_colour.mean(1, keepdim=True)
