"""What a training is given, and what it holds between two steps: settings, examples, and the state a checkpoint keeps.

The checkpoint holds model, average, optimisers, carry and the best step. It is bound to the examples, the model and the
settings it was made with, but for those that change no result (FREE). In a group of processes the first one saves the
carry of all, and each opens its own part of it, so a checkpoint does not know how many processes there were.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim import Muon

from trm_nb.errors import UserError
from trm_nb.models.checkpoints import load_checkpoint, load_weights, refuse_another, save_checkpoint
from trm_nb.models.tiny_recursive_model import Carry, TinyRecursiveModel, TRMConfig
from trm_nb.models.trm import RecursiveNet
from trm_nb.training.optimisers import AdamATan2, SignSGD
from trm_nb.training.validation import Best
from trm_nb.workers.distributed import ranks

KIND = "reasoning TRM"
ROW = "row"  # the batch's entry that says which examples it holds
# What may differ when a training goes on: it was begun on a GPU in bfloat16, and is looked at on a laptop.
FREE = ("steps", "torch_threads", "device", "forward_dtype", "bfloat16", "log_every", "checkpoint_every", "logger")
# Not between features, but a row a place, a class or a puzzle.
_NO_MATRICES = ("places", "embed_tokens.weight", "lm_head.weight", "q_head.weight", "puzzle_emb.weight")


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train. `steps` may be raised from call to call; threads, device and intervals change no result on a CPU.

    `cool_down` is the last part of the steps, in which the rate falls linearly to nothing; `steps` is fixed then. With
    `bfloat16` the steps compute in it; weights, and what measures them, stay as they are. `muon_rate` is the highest
    rate of the matrices where Muon trains them, see `_optimisers`; 0: AdamATan2 does, as published.

    The defaults are the published ones but for batch, warm_up and the intervals, which suit small models on a CPU.
    `validate_every` steps come between two validations (None: see `validation.interval`), and the last step is
    validated too. Training ends early after `patience` validations without a better one (None: never). `logger` gets
    the metrics too, see `progress.loggers`.
    """

    steps: int
    batch: int = 64
    learning_rate: float = 1e-3
    embedding_rate: float = 1e-2
    muon_rate: float = 0.0
    weight_decay: float = 0.1
    warm_up: int = 100
    cool_down: float = 0.0
    bfloat16: bool = False
    average: float = 0.999
    seed: int = 0
    torch_threads: int = 2
    device: str = "cpu"
    log_every: int = 50
    checkpoint_every: int = 500
    validate_every: int | None = None
    patience: int | None = None
    logger: str | None = None


class Examples(Protocol):
    """What is learnt from. A batch is as TinyRecursiveModel takes it, with `labels` (b, s) and ROW int64 (b,)."""

    model: TRMConfig
    name: str  # a hash of the data and of how batches are made of it
    per_epoch: int  # examples
    shape: tuple[int, int]  # rows and columns of an answer

    def new_model(self, generator: torch.Generator) -> TinyRecursiveModel:
        """An untrained model that knows what it should of the data, as the scale of its input."""
        ...

    def train_batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        """The batch of a step; it follows from the arguments alone."""
        ...

    def val_batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        """The examples that choose the best step, each once, in an order of their own; none where there are none."""
        ...

    def test_batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        """The held-out examples that the trained model is measured on, likewise."""
        ...

    def items_of(self, rows: np.ndarray) -> np.ndarray:
        """The items of these examples, by ROW: int64 (n,), equal for examples of one item."""
        ...


@dataclass(slots=True, eq=False)
class State:
    model: TinyRecursiveModel
    average: TinyRecursiveModel
    optimisers: list[torch.optim.Optimizer]
    rates: list[float]  # the highest ones of the optimisers
    step: int = 0
    carry: Carry | None = None
    best: Best | None = None
    sums: list[dict[str, float]] = field(default_factory=list)  # of the steps that are not logged yet

    def has_ended(self, settings: Settings) -> bool:
        """Whether there is no step to come."""
        waited = self.best is not None and settings.patience is not None and self.best.since >= settings.patience
        return waited or self.step >= settings.steps


def open_state(path: Path, examples: Examples, settings: Settings) -> State:
    model = examples.new_model(torch.Generator().manual_seed(settings.seed)).to(settings.device)
    average = copy.deepcopy(model).requires_grad_(False)
    if settings.bfloat16:
        model.config = replace(model.config, forward_dtype="bfloat16")
    if settings.device.startswith("cuda"):
        for part in (*model.modules(), *average.modules()):
            if isinstance(part, RecursiveNet):
                part.compile()
    made = _optimisers(model, settings)
    state = State(model, average, list(made), list(made.values()))
    group = ranks()
    model.batch_part = group.part(settings.batch)
    if model.config.num_puzzle_identifiers and group.size > 1:
        raise UserError("puzzle embeddings are trained by one process, and this is one of several; start it alone")
    if not path.is_file():
        return state
    values = load_checkpoint(path, KIND)
    refuse_another(path, values.get("bound"), _bound(examples, settings))
    load_weights(model, values.get("model"), path)
    load_weights(average, values.get("average"), path)
    for optimiser, saved in zip(state.optimisers, values["optimisers"], strict=True):
        optimiser.load_state_dict(saved)
    state.step, state.sums = values["step"], values["sums"]
    if values["best"]:
        held = values["best"]
        state.best = Best(**{**held, "weights": to_device(held["weights"], settings.device)})
    if values["carry"]:
        carry, data = (to_device(group.own(values[name]), settings.device) for name in ("carry", "data"))
        state.carry = Carry(**carry, current_data=data)
    return state


def _optimisers(model: TinyRecursiveModel, settings: Settings) -> dict[torch.optim.Optimizer, float]:
    """The optimisers with their highest rates: AdamATan2 and, for a puzzle's embedding, SignSGD, as published.

    With `muon_rate`, Muon (Jordan et al., 2024) trains the matrices between features in place of AdamATan2; the weights
    decay as fast as the others do. On mazes it learns the first half much faster (LOG.md, 2026-11-28).
    """
    named = dict(model.named_parameters())
    embedding = [name for name in named if name.startswith("puzzle_emb.")]
    matrices = [name for name, p in named.items() if settings.muon_rate and p.ndim == 2 and name not in _NO_MATRICES]
    others = [p for name, p in named.items() if name not in (*embedding, *matrices)]
    decay = settings.weight_decay
    made: dict[torch.optim.Optimizer, float] = {AdamATan2(others, weight_decay=decay): settings.learning_rate}
    if matrices:
        kept = decay * settings.learning_rate / settings.muon_rate
        muon = Muon([named[name] for name in matrices], 0.0, kept, adjust_lr_fn="match_rms_adamw")
        made[muon] = settings.muon_rate
    if embedding:
        made[SignSGD([named[name] for name in embedding], weight_decay=decay)] = settings.embedding_rate
    return made


def _bound(examples: Examples, settings: Settings) -> dict[str, object]:
    values = {"examples": examples.name, **asdict(examples.model), **asdict(settings)}
    free = set(FREE) - ({"steps"} if settings.cool_down else set())
    return {name: value for name, value in values.items() if name not in free}


def save_state(path: Path, state: State, examples: Examples, settings: Settings) -> None:
    group = ranks()
    carry, data = None, {}
    if state.carry is not None:
        held = {f.name: getattr(state.carry, f.name) for f in fields(state.carry) if f.name != "current_data"}
        carry, data = group.whole(held), group.whole(state.carry.current_data)
    if group.rank:
        return
    values: dict[str, Any] = {
        "bound": _bound(examples, settings),
        "model": state.model.state_dict(),
        "average": state.average.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in state.optimisers],
        "step": state.step,
        "sums": state.sums,
        "best": state.best and {f.name: getattr(state.best, f.name) for f in fields(state.best)},
        "carry": carry,
        "data": data,
    }
    save_checkpoint(path, KIND, values)


def to_device(values: Mapping[str, Tensor], device: str) -> dict[str, Tensor]:
    """A batch, or a carry's tensors, on another device."""
    return {name: value.to(device, non_blocking=True) for name, value in values.items()}
