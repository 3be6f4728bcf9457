"""What a pre-training consists of between two steps, how it begins, and its checkpoint.

The checkpoint holds the model, the EMA, both optimisers, the queue of negatives, how bags become targets and
the number of steps; beside it lie encoder and decoder as others load them, with the weights of the EMA.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from trm_nb.errors import UserError
from trm_nb.models.checkpoints import load_checkpoint, load_weights, refuse_another, save_checkpoint
from trm_nb.models.decoding.capsule_decoder import SIZES, CapsuleDecoder, shipped_decoder
from trm_nb.models.hardware import check_device
from trm_nb.models.vision_encoder import TRMVisionEncoder
from trm_nb.progress.training_length import check_length
from trm_nb.render.typesetting.glyphs import load_atlas
from trm_nb.training.pretraining.batch import Part
from trm_nb.training.pretraining.content import Content
from trm_nb.training.pretraining.losses import Matching
from trm_nb.training.pretraining.start import start_from_components
from trm_nb.training.pretraining.words import SIZE, Targets

START_BATCH = 64  # images in a batch of those that the start is made from
KIND = "pre-training"
# What may differ when a training goes on; the others decide the weights.
FREE = (
    "torch_threads", "device", "workers", "compiled", "log_every", "checkpoint_every", "measure_every", "measured"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train; either `steps` or `minutes` is given."""

    steps: int | None = None
    minutes: float | None = None
    preset: str = "base"
    batch: int = 48  # about so many images, see Content.batch
    matrix_rate: float = 4e-3  # Muon
    other_rate: float = 2e-3  # AdamW
    noise: float = 0.05  # standard deviation on the capsules
    seed: int = 0
    bfloat16: bool = False  # see hardware.fast_in_bfloat16; the weights stay float32
    start: Literal["components", "trained"] = "components"  # of the weights: see start.py, or those that ship
    start_batches: int = 8  # of 64 images, for the principal components
    start_pairs: int = 2000  # of each family, for the targets of the bags
    torch_threads: int = 2
    device: str = "cpu"
    workers: int = 0  # processes that prepare batches; 0: a thread
    compiled: bool = False  # torch.compile
    log_every: int = 50
    checkpoint_every: int = 200
    measure_every: int = 1000
    measured: int = 40  # images of each kind that are measured on


class Model(nn.Module):
    """What is trained together: `encoder`, `decoder`, and `matching` with the inverse temperatures of two losses."""

    def __init__(self, preset: str, seed: int) -> None:
        super().__init__()
        self.encoder = TRMVisionEncoder(preset, seed=seed, weights="random")
        self.decoder = CapsuleDecoder(**SIZES[preset], seed=seed)
        self.matching = Matching(load_atlas(12))


@dataclass(slots=True, eq=False)
class State:
    model: Model
    average: Model
    optimisers: list[torch.optim.Optimizer]
    targets: Targets
    queue: Tensor
    steps: int  # of the whole training
    step: int = 0


def open_state(folder: Path, content: Content, settings: Settings) -> State:
    """The state of the checkpoint, or a new one; `steps` is 0 where the minutes still have to be counted as steps."""
    path = folder / "training.pt"
    model = Model(settings.preset, settings.seed)
    if not path.is_file():
        return _begun(model, content, settings)
    values = load_checkpoint(path, KIND)
    refuse_another(path, values.get("bound"), _bound(content, settings))
    load_weights(model, values.get("model"), path)
    average = _placed(model, settings)
    load_weights(average, values.get("average"), path)
    targets = Targets(**values["targets"]).to(settings.device)
    queue = values["queue"].to(settings.device)
    state = State(model, average, optimisers_of(model, settings), targets, queue, values["steps"], values["step"])
    for optimiser, saved in zip(state.optimisers, values["optimisers"], strict=True):
        optimiser.load_state_dict(saved)
    return state


def _begun(model: Model, content: Content, settings: Settings) -> State:
    """A new training, with nothing in the queue."""
    if settings.start == "trained":
        model.encoder = TRMVisionEncoder(settings.preset, weights="trained")
        model.decoder = copy.deepcopy(shipped_decoder(model.encoder.fingerprint))
        model.train()
    else:
        batches = [content.batch(settings.seed, i, START_BATCH, Part.START) for i in range(settings.start_batches)]
        images, kinds = (np.concatenate([getattr(batch, name) for batch in batches]) for name in ("images", "kinds"))
        start_from_components(model.encoder, model.decoder, images, kinds)
    targets = Targets.of(content.related_bags(settings.seed, settings.start_pairs)).to(settings.device)
    average = _placed(model, settings)
    queue = torch.zeros(0, SIZE, device=settings.device)
    return State(model, average, optimisers_of(model, settings), targets, queue, settings.steps or 0)


def _placed(model: Model, settings: Settings) -> Model:
    """Move the model to its device; returns a copy for the EMA."""
    return copy.deepcopy(model.to(settings.device)).requires_grad_(False)


def optimisers_of(model: Model, settings: Settings) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between features, AdamW for vectors, positions, queries and the linear path."""

    def is_matrix(name: str, p: nn.Parameter) -> bool:
        apart = ("skip", "place", "position", "query")
        return p.ndim == 2 and min(p.shape) > 16 and not any(word in name for word in apart)

    matrices = [p for name, p in model.named_parameters() if is_matrix(name, p)]
    others = [p for name, p in model.named_parameters() if not is_matrix(name, p)]
    made: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=0.0, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    for optimiser, highest in zip(made, (settings.matrix_rate, settings.other_rate), strict=True):
        optimiser.param_groups[0]["highest"] = highest
    return made


def save_state(folder: Path, state: State, content: Content, settings: Settings) -> None:
    """Write training.pt, and the EMA as encoder.safetensors and decoder.safetensors."""
    values: dict[str, Any] = {
        "bound": _bound(content, settings),
        "model": state.model.state_dict(),
        "average": state.average.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in state.optimisers],
        "queue": state.queue,
        "targets": {"average": state.targets.average, "projection": state.targets.projection},
        "steps": state.steps,
        "step": state.step,
    }
    facts: dict[str, str | int] = {"step": state.step, "steps": state.steps, "material": content.material.name}
    state.average.encoder.trained = True
    state.average.encoder.save(folder / "encoder.safetensors", **facts)
    state.average.decoder.save(folder / "decoder.safetensors", state.average.encoder.fingerprint)
    save_checkpoint(folder / "training.pt", KIND, values)


def check(settings: Settings) -> None:
    """Raise UserError for settings that cannot be trained with here."""
    check_length(settings.steps, settings.minutes)
    if not hasattr(torch.optim, "Muon"):
        raise UserError(f"pre-training needs torch 2.9 or newer for Muon, found {torch.__version__}; update torch")
    check_device(settings.device)


def _bound(content: Content, settings: Settings) -> dict[str, object]:
    fields = {name: value for name, value in asdict(settings).items() if name not in FREE}
    return {**fields, "material": content.material.name}
