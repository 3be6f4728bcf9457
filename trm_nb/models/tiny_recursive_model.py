"""TinyRecursiveModel: the published reasoning model, number for number, which also takes capsules.

"Less is More: Recursive Reasoning with Tiny Networks" (Jolicoeur-Martineau, arXiv 2510.04871) and its official code
(SamsungSAILMontreal/TinyRecursiveModels), whose calling convention, weights and arithmetic these are:

    carry = model.initial_carry(batch)
    carry, outputs = model(carry, batch)  # one outer step; again and again, the carry is detached

A batch row stays in the carry until it halts; then the row of the batch that is handed in takes its place.

Deviations: exploration samples from a generator that is handed in; `q_continue_logits` is returned and trained by
nobody (as with the official no_ACT_continue, which all published configurations use); with `capsules` the prefix of the
sequence is the twelve capsules instead of a puzzle's embedding, and without tokens each answer place has an embedding
of its own and, with `read_heads`, what it reads of the capsules; with `columns` cells are mixed with their neighbours;
`answering` keeps the surest answer.
Axes: b batch, s answer places (seq_len), p prefix and answer places, d hidden_size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_nb.errors import UserError
from trm_nb.models.checkpoints import misfits
from trm_nb.models.place_reader import PlaceReader
from trm_nb.models.trm import Linear, RecursiveNet, recurse, rotary_angles, truncated_normal
from trm_nb.records import CAPSULES, FEATURES


@dataclass(frozen=True, slots=True)
class TRMConfig:
    """The size of a model and how it halts; names as in the official configuration files.

    vocab_size, seq_len: classes and number of answer places. num_puzzle_identifiers: 0 for no puzzle embedding, else
    rows of puzzle_emb_ndim numbers (0: hidden_size) that fill the first of puzzle_emb_len places. capsules: the prefix
    is the twelve capsules. read_heads: each answer place also reads the capsules itself, with so many heads (see
    place_reader.py); 0: they are the prefix only. tokens: whether the batch has `inputs`. mlp_t: mix places by an MLP
    instead of attention. columns: the answer places are the cells of a grid with so many, and each layer also mixes a
    cell with its eight neighbours; 0: it does not, as published. local: with its neighbours alone, without MLP or
    attention; the prefix is given the mean of all cells.
    forward_dtype: what the net computes in; weights are float32.
    """

    vocab_size: int
    seq_len: int
    hidden_size: int = 512
    num_heads: int = 8
    L_layers: int = 2
    H_cycles: int = 3
    L_cycles: int = 6
    mlp_t: bool = False
    columns: int = 0
    local: bool = False
    tokens: bool = True
    capsules: bool = False
    read_heads: int = 0
    num_puzzle_identifiers: int = 0
    puzzle_emb_ndim: int = 0
    puzzle_emb_len: int = 16
    halt_max_steps: int = 16
    halt_exploration_prob: float = 0.1
    forward_dtype: Literal["float32", "bfloat16", "float64"] = "float32"

    @property
    def prefix(self) -> int:
        """Places before the answer's."""
        return CAPSULES if self.capsules else self.puzzle_emb_len if self.num_puzzle_identifiers else 0

    def __post_init__(self) -> None:
        if self.capsules and self.num_puzzle_identifiers:
            raise UserError("a model's prefix is either the capsules or a puzzle's embedding, not both")
        if not self.tokens and not self.capsules:
            raise UserError("a model needs an input: tokens, capsules or both")
        if self.read_heads and not self.capsules:
            raise UserError("read_heads: answer places can only read capsules where there are some")
        if self.columns and self.seq_len % self.columns:
            raise UserError(f"columns={self.columns}: {self.seq_len} answer places do not fill their rows")
        if self.local and not self.columns:
            raise UserError("mixing=neighbours: only the cells of an answer grid have neighbours; use mixing=all")
        if self.num_puzzle_identifiers and self.puzzle_emb_ndim > self.puzzle_emb_len * self.hidden_size:
            raise UserError(f"puzzle_emb_ndim={self.puzzle_emb_ndim} does not fit into {self.puzzle_emb_len} places")


@dataclass(frozen=True, slots=True, eq=False)
class Carry:
    """What goes from one outer step to the next, without gradient: z_H, z_L (b, p, d), steps int32 (b,), halted (b,).

    `current_data` are the rows being worked on, which is where the labels of an output are.
    """

    z_H: Tensor
    z_L: Tensor
    steps: Tensor
    halted: Tensor
    current_data: dict[str, Tensor]


class TinyRecursiveModel(nn.Module):
    """One small net, called again and again; weights follow from `generator` (seed 0 without one).

    A batch is a dict: `inputs` int (b, s) with `tokens`, `puzzle_identifiers` int (b,) with puzzle embeddings,
    `capsules` float (b, 12, 512) with `capsules`, and whatever else should travel along, as `labels` (b, s).
    Outputs: `logits` (b, s, vocab_size), `q_halt_logits` and `q_continue_logits` float32 (b,).
    """

    def __init__(self, config: TRMConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.batch_part: tuple[int, int] | None = None  # first row and rows of a batch of which this sees a part
        generator = generator or torch.Generator().manual_seed(0)
        d, places = config.hidden_size, config.prefix + config.seq_len
        if config.tokens:
            self.embed_tokens = Embedding(truncated_normal(config.vocab_size, d, std=d**-0.5, generator=generator))
        else:
            self.places = nn.Parameter(truncated_normal(config.seq_len, d, std=d**-0.5, generator=generator))
        if config.capsules:
            self.capsule_proj = Linear(FEATURES, d, generator)
            self.mean: Tensor
            self.scale: Tensor
            self.register_buffer("mean", torch.zeros(CAPSULES, FEATURES))
            self.register_buffer("scale", torch.ones(CAPSULES, FEATURES))
        if config.read_heads:
            self.reader = PlaceReader(config.seq_len, config.read_heads, d, generator)
        if config.num_puzzle_identifiers:
            nothing = torch.zeros(config.num_puzzle_identifiers, config.puzzle_emb_ndim or d)
            self.puzzle_emb = Embedding(nothing, sparse=True)
        self.net = RecursiveNet(
            d, config.num_heads, generator, layers=config.L_layers, tokens=places if config.mlp_t else None,
            grid=(config.seq_len // config.columns, config.columns) if config.columns else None, local=config.local,
        )  # fmt: skip
        self.lm_head = Linear(d, config.vocab_size, generator)
        self.q_head = HaltHead(d)
        self.H_init: Tensor
        self.L_init: Tensor
        self.register_buffer("H_init", truncated_normal(d, std=1.0, generator=generator))
        self.register_buffer("L_init", truncated_normal(d, std=1.0, generator=generator))
        self.angles: Tensor | None
        no_angles = config.mlp_t or config.local
        angles = None if no_angles else rotary_angles(torch.arange(places)[:, None], d // config.num_heads)
        self.register_buffer("angles", angles, persistent=False)

    def initial_carry(self, batch: Mapping[str, Tensor]) -> Carry:
        """A carry in which every row has halted, so that the first step takes the whole batch."""
        first = next(iter(batch.values()))
        b, device, c = len(first), first.device, self.config
        z = torch.zeros(b, c.prefix + c.seq_len, c.hidden_size, dtype=self._dtype, device=device)
        steps = torch.zeros(b, dtype=torch.int32, device=device)
        return Carry(z, z, steps, torch.ones(b, dtype=torch.bool, device=device), dict(batch))

    def forward(
        self, carry: Carry, batch: Mapping[str, Tensor], generator: torch.Generator | None = None
    ) -> tuple[Carry, dict[str, Tensor]]:
        """One outer step. `generator` is what exploration samples from in training (None: the global one)."""
        c, halted = self.config, carry.halted
        data = {
            name: torch.where(_beside(halted, rows), batch[name], rows) for name, rows in carry.current_data.items()
        }
        z_H = torch.where(halted[:, None, None], self.H_init, carry.z_H).to(self._dtype)
        z_L = torch.where(halted[:, None, None], self.L_init, carry.z_L).to(self._dtype)
        z_H, z_L = recurse(self.net, z_H, z_L, self.embedded(data), c.H_cycles, c.L_cycles, self.angles)
        logits = self.lm_head(z_H[:, c.prefix :])
        q = self.q_head(z_H[:, 0])
        steps = torch.where(halted, 0, carry.steps) + 1
        halts = self._halts(q[:, 0].detach(), steps, generator)
        outputs = {"logits": logits, "q_halt_logits": q[:, 0], "q_continue_logits": q[:, 1]}
        return Carry(z_H.detach(), z_L.detach(), steps, halts, data), outputs

    def unrolled(self, batch: Mapping[str, Tensor], steps: int) -> Iterator[tuple[Carry, dict[str, Tensor]]]:
        """What `forward` gives at each of so many outer steps, in which no row of the batch is replaced."""
        carry = self.initial_carry(batch)
        for _ in range(steps):
            carry, outputs = self(carry, batch)
            carry = replace(carry, halted=torch.zeros_like(carry.halted))
            yield carry, outputs

    def answering(self, batch: Mapping[str, Tensor], steps: int) -> Iterator[tuple[Carry, dict[str, Tensor]]]:
        """As `unrolled`, but outputs held for right (q_halt_logits > 0) stay until the model is surer of others.

        In training a row halts there, so a model has learnt little of what to do afterwards. With more steps than in
        training it would lose answers that it had found. The official evaluation takes the last outputs.
        """
        kept: dict[str, Tensor] | None = None
        for carry, outputs in self.unrolled(batch, steps):
            kept = outputs if kept is None else _surer(kept, outputs)
            yield carry, kept

    def projected(self, capsules: Tensor) -> Tensor:
        """Capsules (b, 12, 512) in units of the training rows' spread, as places of the sequence: (b, 12, d)."""
        places: Tensor = self.capsule_proj(self._standardised(capsules))
        return places

    def _standardised(self, capsules: Tensor) -> Tensor:
        return ((capsules - self.mean) / self.scale).to(self._dtype)

    def set_scale(self, mean: np.ndarray, spread: np.ndarray) -> None:
        """What capsules are standardised by, (12, 512) each; kept with the weights."""
        self.mean.copy_(torch.from_numpy(mean))
        self.scale.copy_(torch.from_numpy(spread))

    @classmethod
    def from_official(cls, state_dict: Mapping[str, Tensor], config: TRMConfig) -> Self:
        """A model with the weights of an official checkpoint, whose names may have the prefixes of its training.

        `official.load_official` reads them, and the configuration, from files.

        Raises UserError naming the weights that are missing, too many, or of another shape than `config` says.
        """
        model = cls(config)
        given = {our_name(name): weight for name, weight in state_dict.items()}
        differences = [
            f"{name} is "
            + (f"{got}, not {want}" if got and want else "not of this configuration" if got else "missing")
            for name, want, got in misfits(model, given)
        ]
        if differences:
            raise UserError(f"official weights do not fit the configuration: {'; '.join(differences)}")
        model.load_state_dict(given)
        return model

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.config.forward_dtype)
        return dtype

    def embedded(self, data: Mapping[str, Tensor]) -> Tensor:
        """The input x of the recursion: (b, p, d) of about unit RMS."""
        c, scale = self.config, math.sqrt(self.config.hidden_size)
        answer = self.embed_tokens(data["inputs"]) if c.tokens else self.places.expand(len(data["capsules"]), -1, -1)
        answer = scale * answer.to(self._dtype)
        if c.read_heads:
            answer = self.reader(self._standardised(data["capsules"]), answer)
        if c.capsules:
            return torch.cat((self.projected(data["capsules"]), answer), dim=1)
        if c.num_puzzle_identifiers:
            rows = scale * self.puzzle_emb(data["puzzle_identifiers"]).to(self._dtype)
            rows = F.pad(rows, (0, c.prefix * c.hidden_size - rows.shape[1]))
            return torch.cat((rows.view(-1, c.prefix, c.hidden_size), answer), dim=1)
        return answer

    @torch.no_grad()
    def _halts(self, q_halt: Tensor, steps: Tensor, generator: torch.Generator | None) -> Tensor:
        """Which rows are done: all after the last step; in training also those that the model holds for right."""
        c = self.config
        last = steps >= c.halt_max_steps
        if not self.training or c.halt_max_steps == 1:
            return last
        first, rows = self.batch_part or (0, len(steps))
        explores = torch.rand(rows, generator=generator, device=q_halt.device) < c.halt_exploration_prob
        at_least = torch.randint(2, c.halt_max_steps + 1, (rows,), generator=generator, device=steps.device)
        explores, at_least = (sampled[first : first + len(steps)] for sampled in (explores, at_least))
        return (last | (q_halt > 0)) & (steps >= torch.where(explores, at_least, 0))


class HaltHead(nn.Module):
    """z_H at the first place, (b, d), to (b, 2), in float32 at least; it starts at -5: go on."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, width))
        self.bias = nn.Parameter(torch.full((2,), -5.0))

    def forward(self, x: Tensor) -> Tensor:
        q = F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))
        return q.to(torch.promote_types(q.dtype, torch.float32))


class Embedding(nn.Module):
    """Rows of a table by number. `sparse`: the gradient has only the rows of the batch, as a puzzle's should.

    Most of the puzzles are not in a batch, and `optimisers.SignSGD` leaves them be.
    """

    def __init__(self, rows: Tensor, sparse: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(rows)
        self.sparse = sparse

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight, sparse=self.sparse)


_OFFICIAL = {
    "embed_tokens.embedding_weight": "embed_tokens.weight",
    "puzzle_emb.weights": "puzzle_emb.weight",
}


def our_name(official: str) -> str:
    """What a weight of an official checkpoint is called here."""
    name = official.replace("_orig_mod.", "").removeprefix("model.").removeprefix("inner.")
    return _OFFICIAL.get(name, name.replace("L_level.", "net.", 1))


def _surer(kept: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of each row the new outputs, except where the kept ones are held for right with as high a logit."""
    q = kept["q_halt_logits"]
    stays = (q > 0) & (q >= new["q_halt_logits"])
    return {name: torch.where(_beside(stays, now), kept[name], now) for name, now in new.items()}


def _beside(rows: Tensor, values: Tensor) -> Tensor:
    """(b,) as (b, 1, ...), to choose between whole rows of `values`."""
    return rows.view(-1, *(1,) * (values.ndim - 1))
