"""Trains the denoiser from pairs of noisy images; no clean image is ever a target.

Noise2Noise (Lehtinen et al. 2018): two independent corruptions of an image, one is given, the other is to be
predicted. Every sample has its own kind and level of noise (see training_batches.py). Its squared error is divided by
its own noise, estimated from the pair, so that the faint ones are not drowned by the strong; and, in the second part of
the training, when the network makes images, by the texture of what it made of it, so that the smooth ones are not
drowned by the busy: PSNR, a logarithm, counts them all alike. What it made never saw the target, so the minimum stays
put. Above a texture that photographs seldom have it makes no difference any more, or pages would count for nothing. A
training may also begin with weights that are there; those make images from the first step on.

AdamW; the rate rises at once, stays, and falls to nothing in the second part, the last three fifths of all steps. What
is kept is an average of the weights (EMA). With `minutes`, a rehearsal says how many steps there will be, and each
checkpoint, written once a minute, corrects that by the speed of the last minute. With `steps` everything follows from
the seed and the step: a training that was killed ends with the weights of one that was not, bit for bit on a CPU (same
machine, same torch, same threads). It may go on on another kind of device.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trm_nb.denoise.noise import Noise
from trm_nb.denoise.noise2noise import SHAPES, Denoiser, Noise2NoiseUNet, Shape, from_pixels
from trm_nb.denoise.training_batches import Batches
from trm_nb.denoise.training_images import Images
from trm_nb.errors import UserError
from trm_nb.models.checkpoints import load_checkpoint, load_weights, refuse_another, save_checkpoint
from trm_nb.models.ema import follow
from trm_nb.models.hardware import check_device, cpu_threads
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.progress.training_length import check_length, check_positive, seconds_of
from trm_nb.storage.files import locked

WARM_UP, DECAY, EMA, CLIP = 0.005, 0.6, 0.999, 1.0  # the first two as parts of all steps
LOG_EVERY, CHECKPOINT_SECONDS = 100, 60.0
REHEARSED, REHEARSED_SECONDS = (3, 10), 5.0  # steps of warm-up and at least so many timed ones, for at least so long
CROPS = {"cpu": (32, 64), "cuda": (64, 128)}  # samples in a batch and their side, where nothing else is asked for
FLOOR = (4 / 255) ** 2  # a sample's noise counts as at least this, so that clean ones do not outweigh all
# Textures (see `texture_of`): below the first and above the last samples count alike, about the second as 1.
SMOOTH, TYPICAL, BUSY = 1.5, 12.0, 18.0
KIND = "denoiser training"
FREE = ("torch_threads", "device", "bfloat16")  # what may differ when a training goes on
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a training follows from, apart from its images; either `steps` or `minutes` is given."""

    steps: int | None = None
    minutes: float | None = None
    shape: Shape = SHAPES["base"]
    batch: int | None = None  # samples; None: what suits the device
    crop: int | None = None  # pixels on a side, a multiple of 8; None: what suits the device
    learning_rate: float = 1e-3
    seed: int = 0
    bfloat16: bool = False  # see `fast_in_bfloat16`; the weights stay float32
    torch_threads: int = 2
    device: str = "cpu"


@dataclass(slots=True, eq=False)
class _State:
    network: Noise2NoiseUNet
    average: Noise2NoiseUNet
    optimiser: torch.optim.AdamW
    bound: dict[str, Any]  # what the training follows from
    steps: int  # of the whole training; 0: not known yet
    step: int = 0
    seconds: float = 0.0  # that it took so far


def train_denoiser(
    folder: Path,
    images: Images,
    settings: Settings,
    on_step: Callable[[], None] | None = None,
    start: Denoiser | None = None,
) -> Denoiser:
    """Train in `folder` until all steps are done; continues from the checkpoint that is there.

    Writes training.pt and n2n_denoiser.pt (the EMA so far) once a minute, and logs the loss and, with each checkpoint,
    the PSNR on held-out tiles to the folder's tracker.

    Args:
        folder: of the training; locked while it runs.
        images: what batches are made of.
        settings: how to train.
        on_step: called after each step.
        start: whose weights it begins with; None: random ones.

    Returns:
        The EMA of the network.

    Raises:
        UserError: for a checkpoint of other settings or images, and when the loss is NaN or infinite.
    """
    check(settings)
    tracker = TrainingProgressTracker(folder, create=True)
    with locked(folder, "training a denoiser"), cpu_threads(settings.torch_threads):
        torch.backends.cudnn.benchmark = settings.device.startswith("cuda")
        state = _open(folder / "training.pt", settings, images, start)
        batches = Batches(images, settings.device)
        if not state.steps and settings.minutes is not None:
            state.steps = _steps_in(settings.minutes, state, batches, settings)
        tracker.forget_steps(after=state.step)
        with tracker.stage("train", state.steps):
            _train(folder, state, batches, images, settings, tracker, on_step)
    tracker.close()
    return Denoiser(state.average.cpu())


def rate(step: int, steps: int) -> float:
    """The learning rate of a step, as a part of the highest: up, constant, and down to nothing at the end."""
    return max(0.0, min(1.0, (step + 1) / (WARM_UP * steps), (steps - step) / (DECAY * steps)))


def texture_of(x: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, of 255, both directions added: (b, 3, h, w) -> (b,)."""
    return 255 * (x.diff(dim=2).abs().mean((1, 2, 3)) + x.diff(dim=3).abs().mean((1, 2, 3)))


def _train(
    folder: Path,
    state: _State,
    batches: Batches,
    images: Images,
    settings: Settings,
    tracker: TrainingProgressTracker,
    on_step: Callable[[], None] | None,
) -> None:
    """All steps that are left. A checkpoint is written only after the losses before it were looked at."""
    losses: list[Tensor] = []
    began, first = time.monotonic(), state.step
    while state.step < state.steps:
        losses.append(_step(state, batches, settings))
        last = state.step == state.steps
        if state.step % LOG_EVERY == 0 or last:
            figures = {"loss": _mean(losses, folder, state.step), "learning_rate": _rate(state.step, state)}
            losses = []
            if last or time.monotonic() - began >= CHECKPOINT_SECONDS:
                figures["psnr"] = held_out_psnr(state.average, images, settings.device)
                state.seconds += time.monotonic() - began
                if settings.minutes is not None and not last:
                    pace = (time.monotonic() - began) / (state.step - first)
                    state.steps = state.step + max(1, round((60 * settings.minutes - state.seconds) / pace))
                began, first = time.monotonic(), state.step
                _save(folder, state)
                log.info(
                    "%d of about %d steps, %.0f s: loss %.4f, PSNR at sigma 25 %.2f dB, rate %.2e",
                    state.step, state.steps, state.seconds, figures["loss"], figures["psnr"], figures["learning_rate"],
                )  # fmt: skip
            tracker.log_step(state.step, **figures)
        tracker.beat()
        if on_step is not None:
            on_step()


def _rate(step: int, state: _State) -> float:
    return float(state.bound["learning_rate"]) * rate(step, state.steps)


def _weights(restored: Tensor, state: _State) -> Tensor:
    """How much each sample counts: (b, 3, h, w) -> (b,)."""
    if state.bound["start"] is None and state.step < (1 - DECAY) * state.steps:
        return torch.ones(len(restored), device=restored.device)
    return TYPICAL / (SMOOTH + texture_of(restored.float()).clamp_max(BUSY))


def _step(state: _State, batches: Batches, settings: Settings) -> Tensor:
    """One step of the optimiser; returns the loss without weights, which stays comparable when they set in."""
    bound = state.bound
    first, second = batches.pair(bound["batch"], bound["crop"], bound["seed"], state.step)
    for group in state.optimiser.param_groups:
        group["lr"] = _rate(state.step, state)
    with torch.autocast(first.device.type, torch.bfloat16, enabled=settings.bfloat16):
        restored = state.network(first.contiguous(memory_format=torch.channels_last))
    error = (restored.float() - second).square().mean((1, 2, 3))
    noise = (first - second).square().mean((1, 2, 3)) / 2
    relative: Tensor = error / (noise + FLOOR)
    loss: Tensor = (_weights(restored.detach(), state) * relative).mean()
    state.optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), CLIP)
    state.optimiser.step()
    state.step += 1
    follow(state.average, state.network, EMA, state.step)
    return relative.detach().mean()


def _mean(losses: list[Tensor], folder: Path, step: int) -> float:
    values = torch.stack(losses).cpu()
    if not values.isfinite().all():
        at = step - len(losses) + 1 + int((~values.isfinite()).nonzero()[0])
        raise UserError(f"{folder}: the loss is NaN or infinite at step {at}; use another folder and a lower rate")
    return float(values.mean())


def _steps_in(minutes: float, state: _State, batches: Batches, settings: Settings) -> int:
    """How many steps take so long, from the time of some on a copy of the state; the copy is thrown away."""
    copied = copy.deepcopy(state)
    copied.steps = 1_000_000  # in the rehearsal only the time counts
    pace = seconds_of(lambda: float(_step(copied, batches, settings)), *REHEARSED, REHEARSED_SECONDS)  # waits for a GPU
    return max(1, round(60 * minutes / pace))


@torch.inference_mode()
def held_out_psnr(network: Noise2NoiseUNet, images: Images, device: str, sigma: float = 25, count: int = 32) -> float:
    """Mean PSNR in dB over tiles of held-out photographs, spread evenly over them, with Gaussian noise."""
    which = np.linspace(0, len(images.held_out) - 1, min(count, len(images.held_out))).astype(int)
    clean = from_pixels(images.held_out[which])
    noisy = Noise("gaussian", sigma).add(clean, torch.Generator().manual_seed(0))
    restored = torch.cat([network(some.to(device)).float().cpu() for some in torch.split(noisy, 8)])
    error = F.mse_loss(restored.clamp(0, 1), clean, reduction="none").mean((1, 2, 3))
    return float(-10 * error.log10().mean())


def check(settings: Settings) -> None:
    """Raise UserError for settings that cannot be trained with here."""
    check_length(settings.steps, settings.minutes)
    check_positive(batch=settings.batch, crop=settings.crop, learning_rate=settings.learning_rate)
    if settings.crop is not None and settings.crop % 8:
        raise UserError(f"crop: expected a multiple of 8, got {settings.crop}")
    check_device(settings.device)


def _open(path: Path, settings: Settings, images: Images, start: Denoiser | None) -> _State:
    torch.manual_seed(settings.seed)
    network = Noise2NoiseUNet(settings.shape).to(settings.device)
    if start is None:
        network.begin()
    else:
        if start.network.shape != network.shape:
            raise UserError(f"weights of {start.network.shape} cannot begin a training of {network.shape}")
        network.load_state_dict(start.network.state_dict())
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.0, weight_decay=1e-4, betas=(0.9, 0.99))
    values = load_checkpoint(path, KIND) if path.is_file() else {}
    there = values.get("bound", {})
    batch, crop = CROPS.get(torch.device(settings.device).type, CROPS["cpu"])
    filled = replace(
        settings, batch=settings.batch or there.get("batch", batch), crop=settings.crop or there.get("crop", crop)
    )
    state = _State(network, average, optimiser, _bound(filled, images, start), settings.steps or 0)
    if not values:
        return state
    refuse_another(path, there, state.bound)
    load_weights(network, values.get("network"), path)
    load_weights(average, values.get("average"), path)
    optimiser.load_state_dict(values["optimiser"])
    state.steps, state.step, state.seconds = values["steps"], values["step"], values["seconds"]
    return state


def _save(folder: Path, state: _State) -> None:
    values: dict[str, Any] = {"network": state.network.state_dict(), "average": state.average.state_dict()}
    values |= {"optimiser": state.optimiser.state_dict(), "bound": state.bound}
    values |= {"steps": state.steps, "step": state.step, "seconds": state.seconds}
    save_checkpoint(folder / "training.pt", KIND, values)
    Denoiser(copy.deepcopy(state.average).cpu()).save(folder / "n2n_denoiser.pt")


def _bound(settings: Settings, images: Images, start: Denoiser | None) -> dict[str, Any]:
    fields = {name: value for name, value in asdict(settings).items() if name not in FREE}
    fields["shape"] = {name: list(value) for name, value in asdict(settings.shape).items()}
    begun = start.fingerprint if start is not None else None
    return {**fields, "images": images.name, "start": begun}
