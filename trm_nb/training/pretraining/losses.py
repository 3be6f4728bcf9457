"""What the encoder and its decoder are trained for, together: five losses on a batch.

- pixels: squared error of the decoded pixels; photographs count more, as their errors are small.
- glyphs: each decoded text cell is to be nearer to its own glyph than to the other glyphs of the batch and to 64 random
  ones of the atlas; a tenth of the blank cells take part.
- colours: each decoded pixel of a grid is to be nearest to its own of the renderer's fifteen colours, at 2048 random
  positions.
- bags: the two capsules of the whole image are to point where its bag of words does (words.py).
- contrast: those of two related images are to be more alike than those of others, among them the images of the last 32
  batches. InfoNCE (van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018, arXiv
  1807.03748) with the queue of MoCo (He et al., CVPR 2020, arXiv 1911.05722); deviation: no momentum encoder, as
  capsules of 32 batches ago are near enough.

The two matching losses are cross-entropies over candidates, of logits that are the inner products of a prototypical
network (Snell et al., 2017, arXiv 1703.05175): minus the squared distance, times a learned inverse temperature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_nb.models.patches import patches, scaled, unpatch
from trm_nb.models.read_out import GRID, WHOLE
from trm_nb.render.grid import BACKGROUND, DEMONSTRATION, LINE, PALETTE, SIGN, TEST
from trm_nb.render.typesetting.glyphs import Atlas
from trm_nb.training.pretraining.batch import FAMILY, Batch, Kind
from trm_nb.training.pretraining.words import SIZE, Targets

WEIGHTS = {"pixels": 2.0, "glyphs": 1.0, "colours": 0.3, "classes": 1.0, "contrast": 0.05, "bags": 2.0}
PIXEL_WEIGHTS = {Kind.PHOTOGRAPH: 6.0, Kind.OTHER: 3.0}  # of an image; 1 for the other kinds
RANDOM_GLYPHS, BLANKS = 64, 0.1  # further candidates of a batch; part of the blank cells that count
POSITIONS, CELLS_ASKED = 2048, 128  # pixels and text cells of a grid that are asked
OTHER_COLOURS = 0.3  # weight of pixels outside a grid's cells
TEMPERATURE, QUEUE = 0.1, 32  # of the contrast; batches in the queue
INVERSE_TEMPERATURES = (0.5, 4.0)  # of glyphs and colours, at the start


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """A `content.Batch` as tensors on the device, with the same names."""

    images: Tensor
    kinds: Tensor
    related: Tensor
    cells: Tensor
    bags: Tensor

    @classmethod
    def of(cls, batch: Batch) -> Inputs:
        """The batch on the CPU, sharing its memory."""
        return cls(*map(torch.from_numpy, (batch.images, batch.kinds, batch.related, batch.cells, batch.bags)))

    def to(self, device: str) -> Inputs:
        """On a device; from pinned memory the copy does not keep the caller waiting."""
        return Inputs(*(tensor.to(device, non_blocking=True) for tensor in self._tensors()))

    def pin_memory(self) -> Inputs:
        """In pinned memory; torch's DataLoader calls this."""
        return Inputs(*(tensor.pin_memory() for tensor in self._tensors()))

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.images, self.kinds, self.related, self.cells, self.bags


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """Capsules float (b, 12, 512) without noise, and what a decoder made of them with noise.

    `hidden` float (b, 64, 8, n), see `CapsuleDecoder.hidden`; `pixels` float32 (b, 64, 8, 294).
    """

    capsules: Tensor
    hidden: Tensor
    pixels: Tensor


class Matching(nn.Module):
    """The candidates and the two learned inverse temperatures of the matching losses.

    `glyphs` float32 (n, 98) are the atlas's cells, `colours` float32 (15, 3) the ten colours of the cells first; both
    in -1..1.
    """

    def __init__(self, atlas: Atlas) -> None:
        super().__init__()
        others = np.stack([LINE, BACKGROUND, DEMONSTRATION, TEST, SIGN])
        self.blank = atlas.blank
        self.glyphs: Tensor
        self.colours: Tensor
        self.register_buffer("glyphs", scaled(torch.from_numpy(atlas.gray.reshape(len(atlas.gray), -1))), False)
        self.register_buffer("colours", scaled(torch.from_numpy(np.concatenate([PALETTE, others]))), False)
        self.log_beta = nn.Parameter(torch.tensor([math.log(beta) for beta in INVERSE_TEMPERATURES]))

    def glyph_loss(self, pixels: Tensor, cells: Tensor, generator: torch.Generator) -> Tensor:
        """Cross-entropy of the cells of text pages.

        Args:
            pixels: float32 (b, 64, 8, 294), decoded.
            cells: int64 (b, 512), of the atlas; -1 for those that do not count.
            generator: the source of the random candidates and of the blank cells that count.

        Returns:
            A scalar; 0 where no cell counts.
        """
        seen = torch.unique(cells[cells >= 0])
        random = torch.randint(len(self.glyphs) - 1, (RANDOM_GLYPHS,), generator=generator, device=cells.device)
        candidates = torch.cat([seen, random])
        chance = torch.rand(cells.shape, generator=generator, device=cells.device) < BLANKS
        counts = (cells >= 0) & ((cells != self.blank) | chance)
        if not counts.any():
            return pixels.new_zeros(())
        logits = closeness(gray_cells(pixels)[counts], self.glyphs[candidates], self.log_beta[0].exp())
        return F.cross_entropy(logits, torch.searchsorted(seen, cells[counts]))

    def colour_loss(self, pixels: Tensor, images: Tensor, generator: torch.Generator) -> Tensor:
        """Cross-entropy of pixels of grids, a weighted mean.

        Args:
            pixels: float32 (b, 64, 8, 294), decoded.
            images: uint8 (b, 224, 224, 3), the originals.
            generator: the source of the positions, which are the same in all images.
        """
        side = images.shape[1]
        chosen = torch.randint(side * side, (POSITIONS,), generator=generator, device=images.device)
        decoded = unpatch(pixels, GRID).flatten(1, 2)[:, chosen]
        original = scaled(images.flatten(1, 2)[:, chosen])
        labels = closeness(original, self.colours).argmax(-1)
        weights = torch.where(labels < len(PALETTE), 1.0, OTHER_COLOURS)
        logits = closeness(decoded, self.colours, self.log_beta[1].exp())
        each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return (each * weights.flatten()).sum() / weights.sum()


def class_loss(
    hidden: Tensor, images: Tensor, colour: nn.Module, colours: Tensor, generator: torch.Generator
) -> Tensor:
    """Cross-entropy of the colour of pixels as a class, where nearness of pixels would average two likely colours.

    Args:
        hidden: float (b, 64, 8, n), of a decoder.
        images: uint8 (b, 224, 224, 3), the originals.
        colour: projects n numbers to 98 * 15 logits.
        colours: float32 (15, 3), those of the cells first.
        generator: the source of the text cells that are asked, the same in all images.
    """
    cells = torch.randperm(hidden.shape[1] * hidden.shape[2], generator=generator, device=images.device)[:CELLS_ASKED]
    logits = colour(hidden.flatten(1, 2)[:, cells].float()).view(-1, len(colours))
    original = scaled(patches(images)).flatten(1, 2)[:, cells].reshape(-1, 3)
    labels = closeness(original, colours).argmax(-1)
    weights = torch.where(labels < len(PALETTE), 1.0, OTHER_COLOURS)
    return (F.cross_entropy(logits, labels, reduction="none") * weights).sum() / weights.sum()


def pixel_loss(pixels: Tensor, images: Tensor, kinds: Tensor) -> Tensor:
    """Weighted squared error of decoded pixels, float32 (b, 64, 8, 294), to images uint8 (b, 224, 224, 3): a scalar."""
    weights = torch.tensor([PIXEL_WEIGHTS.get(kind, 1.0) for kind in Kind], device=pixels.device)[kinds]
    error = (pixels - scaled(patches(images))).square().mean((1, 2, 3))
    return (error * weights).mean()


def bag_loss(whole: Tensor, targets: Tensor) -> Tensor:
    """One minus the mean cosine of capsules and targets, both float32 (b, 1024): a scalar."""
    return 1 - F.cosine_similarity(whole, targets, dim=1).mean()


def contrast_loss(first: Tensor, second: Tensor, queue: Tensor) -> Tensor:
    """InfoNCE of unit vectors (n, d) that belong together by row; all others, and `queue` (m, d), are negatives."""
    n = len(first)
    both = torch.cat([first, second])
    own = torch.eye(2 * n, dtype=torch.bool, device=both.device)
    among = (both @ both.T).masked_fill(own, -math.inf)
    logits = torch.cat([among, both @ queue.T], 1) / TEMPERATURE
    partner = torch.arange(2 * n, device=both.device).roll(n)
    return F.cross_entropy(logits, partner)


def all_losses(
    decoded: Decoded,
    inputs: Inputs,
    matching: Matching,
    colour: nn.Module,
    targets: Targets,
    queue: Tensor,
    generator: torch.Generator,
) -> tuple[dict[str, Tensor], Tensor]:
    """The losses, not yet weighted, and the queue of the next step.

    Args:
        decoded: capsules and what was decoded from them.
        inputs: the batch.
        matching: candidates and inverse temperatures.
        colour: the decoder's projection to colours.
        targets: makes the targets of the bags.
        queue: float32 (m, 1024), unit vectors of related images of the last batches.
        generator: the source of what is random.
    """
    capsules, pixels = decoded.capsules, decoded.pixels
    text, grids = inputs.kinds <= Kind.RANDOM, (inputs.kinds == Kind.GRID) | (inputs.kinds == Kind.TASK)
    known = inputs.kinds != Kind.OTHER
    whole = capsules[:, WHOLE].flatten(1)
    first, second = F.normalize(whole, dim=1).view(-1, 2, SIZE)[inputs.related].unbind(1)
    families = torch.from_numpy(FAMILY).to(inputs.kinds.device)[inputs.kinds]
    losses = {
        "pixels": pixel_loss(pixels, inputs.images, inputs.kinds),
        "glyphs": matching.glyph_loss(pixels[text], inputs.cells[text], generator),
        "colours": matching.colour_loss(pixels[grids], inputs.images[grids], generator),
        "classes": class_loss(decoded.hidden[grids], inputs.images[grids], colour, matching.colours, generator),
        "contrast": contrast_loss(first, second, queue),
        "bags": bag_loss(whole[known], targets(inputs.bags[known], families[known])),
    }
    longest = QUEUE * 2 * len(first)
    return losses, torch.cat([queue, first.detach(), second.detach()])[-longest:]


def total(losses: dict[str, Tensor]) -> Tensor:
    """The weighted sum that is trained for."""
    return cast(Tensor, sum(WEIGHTS[name] * loss for name, loss in losses.items()))


def closeness(x: Tensor, candidates: Tensor, beta: Tensor | float = 1.0) -> Tensor:
    """-beta |x - c|^2, but for the part that all candidates share: x (..., d) and (n, d) -> (..., n)."""
    return beta * (2 * x @ candidates.T - candidates.square().sum(-1))


def gray_cells(pixels: Tensor) -> Tensor:
    """The text cells of a page in reading order, their channels averaged: (b, 64, 8, 294) -> (b, 512, 98)."""
    gray = pixels.view(-1, GRID, GRID, 2, 4, 98, 3).mean(-1)
    return gray.permute(0, 1, 3, 2, 4, 5).reshape(len(pixels), 512, 98)


def effective_rank(x: Tensor) -> float:
    """How many directions the rows of x (n, d) vary in: the exponential of the entropy of the shares of variance.

    Source: Roy and Vetterli, "The effective rank", EUSIPCO 2007; deviation: shares of squared singular values.
    """
    centred = x.double() - x.double().mean(0)
    smaller = centred if len(x) < x.shape[1] else centred.T
    squares = torch.linalg.eigvalsh(smaller @ smaller.T).clamp_min(0)
    shares = squares / squares.sum().clamp_min(1e-12)
    return float(torch.exp(-torch.xlogy(shares, shares).sum()))
