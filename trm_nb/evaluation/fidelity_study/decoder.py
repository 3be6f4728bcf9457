"""The decoder of the fidelity study: one architecture and one budget for every arm.

Two layers of cross-attention, one query for each patch of 28x28 pixels, keys and values from the arm's tokens, each
with an embedding of its own. No prior says which token belongs to which patch; biases that start at zero and learn fast
find it. It gives pixels, and everything is read from them (reading.py), so one head serves every script.
Choice: the loss adds to the squared error of pixels the cross-entropy of glyphs and colours under just this reading.
Each number of a token is standardised by the training images' mean and deviation: an arm's scale is no handicap.
Cost: 2.1 million weights; a step of 32 images takes 0.6 s on one CPU thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_nb.evaluation.fidelity_study.content import CELL_HEIGHT, CELL_WIDTH, StudyContent
from trm_nb.evaluation.fidelity_study.sources import SIDE
from trm_nb.render.grid import PALETTE

WIDTH, HEADS, LAYERS = 256, 4, 2
PATCH, GRID = 28, 8
BETA, BETA_RATE = (0.15, 1.0), 5.0  # mild at the start, as all pixels are wrong then; and how much faster they learn
BIAS_RATE = 150.0  # how much faster the biases of attention learn than all else
BLANKS = 0.1  # the part of the blank cells that the loss asks for
OTHER_GLYPHS = 64  # sampled for each batch as wrong candidates, beside the batch's own
MOST_CELLS = 4096  # cells of grids that the loss asks for in a batch


@dataclass(frozen=True, slots=True)
class Budget:
    """What every arm's decoder is trained with: AdamW at `learning_rate`, 5 % warm-up, then a cosine to 3 % of it."""

    steps: int = 1500
    batch: int = 32
    learning_rate: float = 2e-3


class StudyDecoder(nn.Module):
    """Tokens float (b, t, n) to pixels in about -1..1, float (b, 224, 224, 3).

    Args:
        mean, deviation: float (t, n) of the training images' tokens.
    """

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        tokens, numbers = mean.shape
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("scale", 1 / deviation.clamp_min(0.01 * float(deviation.max()) + 1e-6))
        self.inp = nn.Linear(numbers, WIDTH)
        self.token = nn.Parameter(torch.randn(tokens, WIDTH) * 0.3)
        self.query = nn.Parameter(torch.randn(GRID * GRID, WIDTH) * 0.3)
        self.layers = nn.ModuleList(_CrossAttention(tokens) for _ in range(LAYERS))
        self.norm, self.pixels = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, PATCH * PATCH * 3)
        self.log_beta = nn.Parameter(torch.zeros(2))

    @property
    def beta(self) -> Tensor:
        """How sure a nearness makes of a glyph, and of a colour: (2,)."""
        return self.log_beta.new_tensor(BETA) * (BETA_RATE * self.log_beta).exp()

    def forward(self, tokens: Tensor) -> Tensor:
        b = len(tokens)
        keys = self.inp((tokens.float() - self.mean) * self.scale) + self.token
        x = self.query.expand(b, -1, -1)
        for layer in self.layers:
            x = layer(x, keys)
        patches = self.pixels(self.norm(x)).view(b, GRID, GRID, PATCH, PATCH, 3)
        return cast(Tensor, patches.permute(0, 1, 3, 2, 4, 5).reshape(b, SIDE, SIDE, 3))


class _CrossAttention(nn.Module):
    """Queries (b, p, width) read keys (b, t, width). `bias` learns which token a patch needs, from none preferred."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(HEADS, GRID * GRID, tokens))
        self.norm, self.q, self.kv = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        self.o = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.GELU(), nn.Linear(3 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        b, p, _ = x.shape
        k, v = (part.view(b, -1, HEADS, WIDTH // HEADS).transpose(1, 2) for part in self.kv(keys).chunk(2, -1))
        q = self.q(self.norm(x)).view(b, p, HEADS, WIDTH // HEADS).transpose(1, 2)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=BIAS_RATE * self.bias)
        x = x + self.o(seen.transpose(1, 2).reshape(b, p, WIDTH))
        return cast(Tensor, x + self.mlp(x))


def train_decoder(
    tokens: np.ndarray,
    content: StudyContent,
    budget: Budget,
    seed: int,
    on_step: Callable[[int], None] | None = None,
    device: str = "cpu",
) -> StudyDecoder:
    """Train a decoder on an arm's frozen tokens (n, t, k) of the training images, in their order.

    `seed` decides weights, batches and which cells are asked; on one CPU thread the result is the same each time.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = StudyDecoder(*_moments(tokens)).to(device)
    rng = np.random.default_rng(seed)
    loss_of = Loss(content)
    optimiser = torch.optim.AdamW(decoder.parameters(), budget.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, budget.steps))
    batches = _batches(len(tokens), budget.batch, rng)
    for step in range(budget.steps):
        rows = next(batches)
        loss = loss_of(decoder(torch.from_numpy(tokens[rows]).to(device)), rows, decoder.beta, rng)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if on_step is not None:
            on_step(step + 1)
    return decoder.eval()


@torch.inference_mode()
def decoded(decoder: StudyDecoder, tokens: np.ndarray, at_once: int = 64) -> Iterator[np.ndarray]:
    """The pixels of each image in turn, float32 (224, 224, 3) in about -1..1."""
    for first in range(0, len(tokens), at_once):
        block = torch.from_numpy(tokens[first : first + at_once]).to(decoder.query.device)
        yield from decoder(block).cpu().numpy()


class Loss:
    """Squared error of the pixels plus cross-entropy of glyphs and of colours, on rows of the training images."""

    def __init__(self, content: StudyContent) -> None:
        self._content = content
        self._glyphs = scaled(torch.from_numpy(content.glyphs[: content.known])).flatten(1)
        self._palette = scaled(torch.from_numpy(PALETTE))

    def __call__(self, pixels: Tensor, rows: np.ndarray, beta: Tensor, rng: np.random.Generator) -> Tensor:
        images = np.stack([self._content.train[row].image for row in rows])
        loss = F.mse_loss(pixels, scaled(torch.from_numpy(images).to(pixels.device)))
        return loss + self._of_glyphs(pixels, rows, beta[0], rng) + self._of_colours(pixels, rows, beta[1], rng)

    def _of_glyphs(self, pixels: Tensor, rows: np.ndarray, beta: Tensor, rng: np.random.Generator) -> Tensor:
        shown = [self._content.train[row].glyphs for row in rows]
        text = [place for place, glyphs in enumerate(shown) if len(glyphs)]
        if not text:
            return pixels.new_zeros(())
        wanted = np.concatenate([shown[place] for place in text])
        asked = np.flatnonzero((wanted != 0) | (rng.random(len(wanted)) < BLANKS))
        others = rng.integers(0, len(self._glyphs), OTHER_GLYPHS)
        candidates, target = np.unique(np.concatenate([wanted[asked], others]), return_inverse=True)
        cells = text_cells(pixels[text])[torch.from_numpy(asked)]
        logits = beta * nearness(cells, self._glyphs[torch.from_numpy(candidates)].to(pixels.device))
        return F.cross_entropy(logits, torch.from_numpy(target[: len(asked)]).to(pixels.device))

    def _of_colours(self, pixels: Tensor, rows: np.ndarray, beta: Tensor, rng: np.random.Generator) -> Tensor:
        """At one pixel of each cell, anywhere inside it."""
        found = []
        for place, row in enumerate(rows):
            shown = self._content.train[row]
            if len(shown.cells) and not shown.digits:
                found.append(np.column_stack([np.full(len(shown.cells), place), shown.cells]))
        if not found:
            return pixels.new_zeros(())
        cells = np.concatenate(found).astype(np.int64)
        cells = cells[rng.permutation(len(cells))[:MOST_CELLS]]
        inside = (rng.random((len(cells), 2)) * cells[:, 3:5]).astype(np.int64)
        at = torch.from_numpy(np.column_stack([cells[:, 0], cells[:, 1:3] + inside]))
        logits = beta * nearness(pixels[at[:, 0], at[:, 1], at[:, 2]], self._palette.to(pixels.device))
        return F.cross_entropy(logits, torch.from_numpy(cells[:, 5]).to(pixels.device))


def scaled(pixels: Tensor) -> Tensor:
    """uint8 0..255 to float32 -1..1."""
    return pixels.float() / 127.5 - 1


def text_cells(pixels: Tensor) -> Tensor:
    """(b, 224, 224, 3) to the gray cells of its text, (b * 512, 98), in reading order."""
    cut = pixels.mean(-1).view(-1, SIDE // CELL_HEIGHT, CELL_HEIGHT, SIDE // CELL_WIDTH, CELL_WIDTH)
    return cut.transpose(2, 3).reshape(-1, CELL_HEIGHT * CELL_WIDTH)


def nearness(values: Tensor, templates: Tensor) -> Tensor:
    """Minus the squared distance of (n, k) and (m, k), up to a constant of each row: (n, m)."""
    return 2 * values @ templates.T - templates.square().sum(-1)


def _rate(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / max(1, steps // 20))
    return warm * (0.485 * (1 + math.cos(math.pi * step / steps)) + 0.03)


def _batches(n: int, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows without end, each once before any comes again."""
    queue = np.zeros(0, np.int64)
    while True:
        while len(queue) < batch:
            queue = np.concatenate([queue, rng.permutation(n)])
        yield queue[:batch]
        queue = queue[batch:]


def _moments(tokens: np.ndarray, at_once: int = 256) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each number over the images, float32 (t, k); in blocks, as tokens may be large."""
    total, squares = np.zeros(tokens.shape[1:]), np.zeros(tokens.shape[1:])
    for first in range(0, len(tokens), at_once):
        block = tokens[first : first + at_once].astype(np.float32)
        total += block.sum(axis=0, dtype=np.float64)
        squares += np.square(block).sum(axis=0, dtype=np.float64)
    mean = total / len(tokens)
    deviation = np.sqrt(np.maximum(0, squares / len(tokens) - mean**2))
    return torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()
