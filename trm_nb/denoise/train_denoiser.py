"""Trains the denoiser from pairs of noisy images; no clean image is ever a target.

Noise2Noise (Lehtinen et al. 2018): two independent corruptions of an image, one is given, the other is to be
predicted. Every sample has its own kind and level of noise (sigma 0 to 55). Its squared error is divided by its own
noise, estimated from the pair, so that the faint ones are not drowned by the strong; and, in the second part of the
training, when the network makes images, by the texture of what it made of it, so that the smooth ones are not drowned
by the busy: PSNR, a logarithm, counts them all alike. What it made never saw the target, so the minimum stays put.
Above a texture that photographs seldom have it makes no difference any more, or pages would count for nothing. A
training may also begin with weights that are there; those make images from the first step on.

AdamW; the rate rises at once, stays, and falls to nothing in the second part, the last three fifths of `steps`. What is
kept is an average of the weights. Batches follow from the seed and the step, and the checkpoint holds all state, so a
training that was killed goes on as if nothing had been (same machine, same torch, same threads).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trm_nb.denoise.noise import Noise, as_file
from trm_nb.denoise.noise2noise import WIDTHS, Denoiser, Noise2NoiseUNet, from_pixels
from trm_nb.denoise.training_images import PARTS, Images, Part
from trm_nb.errors import UserError
from trm_nb.models.checkpoints import load_checkpoint, load_weights, save_checkpoint
from trm_nb.models.ema import follow
from trm_nb.models.hardware import cpu_threads
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.storage.files import locked

WARM_UP, DECAY, EMA, CLIP = 0.005, 0.6, 0.999, 1.0  # the first two as parts of all steps
LOG_EVERY, CHECKPOINT_EVERY = 100, 500
GROUP = 2  # samples of a batch of one part that share a kind and level of noise
ODDS = (0.75, 0.2, 0.05)  # of a group to be of photographs, pages and grids
KINDS = ("gaussian", "faint", "poisson", "jpeg", "scanner")
PHOTOGRAPH_NOISE, SAMPLED_NOISE = (0.68, 0.05, 0.12, 0.1, 0.05), (0.34, 0.1, 0.08, 0.08, 0.4)  # odds of the kinds
FLOOR = (4 / 255) ** 2  # a sample's noise counts as at least this, so that clean ones do not outweigh all
# Textures (see `texture_of`): below the first and above the last samples count alike, about the second as 1.
SMOOTH, TYPICAL, BUSY = 1.5, 12.0, 18.0
AS_FILE = 0.5  # of the groups: the given one is clipped and rounded, as files are; a target never is
KIND = "denoiser training"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a training follows from, beside its images. `steps` may be raised until the rate begins to fall."""

    steps: int = 100_000
    batch: int = 32  # an even number
    crop: int = 64
    learning_rate: float = 8e-4
    widths: tuple[int, int, int] = WIDTHS
    seed: int = 0
    bfloat16: bool = False  # see `fast_in_bfloat16`; the weights stay float32
    torch_threads: int = 2
    device: str = "cpu"


@dataclass(slots=True, eq=False)
class _State:
    network: Noise2NoiseUNet
    average: Noise2NoiseUNet
    optimiser: torch.optim.AdamW
    bound: dict[str, object]  # what the training follows from
    step: int = 0


def train_denoiser(
    folder: Path,
    images: Images,
    settings: Settings,
    on_step: Callable[[], None] | None = None,
    start: Denoiser | None = None,
) -> Denoiser:
    """Train in `folder` until `settings.steps` optimiser steps are done; goes on from the checkpoint that is there.

    It begins with the weights of `start`, or from nothing.

    Writes training.pt and n2n_denoiser.pt (the averaged weights so far) every 500 steps, and notes loss and PSNR in the
    folder's tracker. Raises UserError when the checkpoint is of other settings or images.
    """
    tracker = TrainingProgressTracker(folder, create=True)
    with locked(folder, "training a denoiser"), cpu_threads(settings.torch_threads):
        state = _open(folder / "training.pt", settings, images, start)
        tracker.forget_steps(after=state.step)
        with tracker.stage("train", settings.steps):
            losses: list[float] = []
            while state.step < settings.steps:
                losses.append(_step(state, images, settings))
                if not math.isfinite(losses[-1]):
                    raise UserError(f"{folder}: the loss is no number at step {state.step}; lower learning_rate")
                if state.step % LOG_EVERY == 0 or state.step == settings.steps:
                    figures = {"loss": float(np.mean(losses)), "learning_rate": rate(state.step, settings)}
                    due = state.step % CHECKPOINT_EVERY == 0 or state.step == settings.steps
                    if due:
                        figures["psnr"] = held_out_psnr(state.average, images, settings.device)
                    tracker.log_step(state.step, **figures)
                    if due:
                        _save(folder, state)
                    losses = []
                tracker.beat()
                if on_step is not None:
                    on_step()
    tracker.close()
    return Denoiser(state.average.cpu())


def rate(step: int, settings: Settings) -> float:
    """The learning rate of a step: up, constant, and down to nothing at the end."""
    up, down = (step + 1) / (WARM_UP * settings.steps), (settings.steps - step) / (DECAY * settings.steps)
    return settings.learning_rate * min(1.0, up, down)


def sample_noise(part: Part, rng: np.random.Generator) -> Noise:
    """A kind and level of noise as training meets them; pages and grids are scanned more often than photographs."""
    kind = rng.choice(KINDS, p=PHOTOGRAPH_NOISE if part == "photograph" else SAMPLED_NOISE)
    if kind == "gaussian":
        return Noise("gaussian", rng.uniform(0, 55))
    if kind == "faint":
        return Noise("gaussian", rng.uniform(0, 3))
    if kind == "poisson":
        return Noise("poisson", math.exp(rng.uniform(math.log(10), math.log(200))))
    return Noise("jpeg", rng.uniform(15, 95)) if kind == "jpeg" else Noise("scanner", rng.uniform(0.1, 2.4))


def noisy_pair(images: Images, settings: Settings, step: int) -> tuple[Tensor, Tensor]:
    """Two corruptions of the same crops, float32 (batch, 3, crop, crop) each; they follow from seed and step.

    Crops are cut on the CPU, the noise is made where the network is.
    """
    rng = np.random.default_rng([settings.seed, 0, step])
    generator = torch.Generator(settings.device).manual_seed(int(rng.integers(2**62)))
    pairs = []
    for _ in range(settings.batch // GROUP):
        part = PARTS[rng.choice(3, p=ODDS)]
        clean = from_pixels(images.crops(part, GROUP, settings.crop, rng)).to(settings.device)
        noise = sample_noise(part, rng)
        given, target = noise.add(clean, generator), noise.add(clean, generator)
        pairs.append((as_file(given) if rng.random() < AS_FILE else given, target))
    first, second = (torch.cat(side) for side in zip(*pairs, strict=True))
    return first, second


def texture_of(x: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, of 255, both directions added: (b, 3, h, w) -> (b,)."""
    return 255 * (x.diff(dim=2).abs().mean((1, 2, 3)) + x.diff(dim=3).abs().mean((1, 2, 3)))


def _weights(restored: Tensor, state: _State, settings: Settings) -> Tensor:
    """How much each sample counts: (b, 3, h, w) -> (b,)."""
    if state.bound["start"] is None and state.step < (1 - DECAY) * settings.steps:
        return torch.ones(len(restored), device=restored.device)
    return TYPICAL / (SMOOTH + texture_of(restored.float()).clamp_max(BUSY))


def _step(state: _State, images: Images, settings: Settings) -> float:
    first, second = noisy_pair(images, settings, state.step)
    for group in state.optimiser.param_groups:
        group["lr"] = rate(state.step, settings)
    with torch.autocast(first.device.type, torch.bfloat16, enabled=settings.bfloat16):
        restored = state.network(first.contiguous(memory_format=torch.channels_last))
    error = (restored.float() - second).square().mean((1, 2, 3))
    noise = (first - second).square().mean((1, 2, 3)) / 2
    relative = error / (noise + FLOOR)
    loss = (_weights(restored.detach(), state, settings) * relative).mean()
    state.optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), CLIP)
    state.optimiser.step()
    state.step += 1
    follow(state.average, state.network, EMA, state.step)
    return float(relative.detach().mean())  # which stays comparable when the weights set in


@torch.inference_mode()
def held_out_psnr(network: Noise2NoiseUNet, images: Images, device: str, sigma: float = 25, count: int = 32) -> float:
    """Mean PSNR in dB over tiles of held-out photographs, spread evenly over them, with Gaussian noise."""
    which = np.linspace(0, len(images.held_out) - 1, min(count, len(images.held_out))).astype(int)
    clean = from_pixels(images.held_out[which])
    noisy = Noise("gaussian", sigma).add(clean, torch.Generator().manual_seed(0))
    error = F.mse_loss(network(noisy.to(device)).cpu().clamp(0, 1), clean, reduction="none").mean((1, 2, 3))
    return float(-10 * error.log10().mean())


def _open(path: Path, settings: Settings, images: Images, start: Denoiser | None) -> _State:
    torch.manual_seed(settings.seed)
    network = Noise2NoiseUNet(settings.widths).to(settings.device)
    if start is not None:
        if start.network.widths != network.widths:
            raise UserError(f"weights of the widths {start.network.widths} cannot begin a training of {network.widths}")
        network.load_state_dict(start.network.state_dict())
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.0, weight_decay=1e-4, betas=(0.9, 0.99))
    wanted = _bound(settings, images, start)
    state = _State(network, average, optimiser, wanted)
    if not path.is_file():
        return state
    values = load_checkpoint(path, KIND)
    bound, step = values.get("bound"), values.get("step")
    if not isinstance(bound, dict) or not isinstance(step, int):
        raise UserError(f"{path}: expected a training's settings and step; the file is of another version")
    for name, value in wanted.items():
        may_change = name == "steps" and step <= (1 - DECAY) * min(bound["steps"], settings.steps)
        if bound.get(name) != value and not may_change:
            raise UserError(f"{path}: this training has {name}={bound.get(name)!r}, not {value!r}; use another folder")
    load_weights(network, values.get("network"), path)
    load_weights(average, values.get("average"), path)
    optimiser.load_state_dict(values["optimiser"])
    state.step = step
    return state


def _save(folder: Path, state: _State) -> None:
    values: dict[str, Any] = {"network": state.network.state_dict(), "average": state.average.state_dict()}
    values |= {"optimiser": state.optimiser.state_dict(), "step": state.step, "bound": state.bound}
    save_checkpoint(folder / "training.pt", KIND, values)
    Denoiser(copy.deepcopy(state.average).cpu()).save(folder / "n2n_denoiser.pt")


def _bound(settings: Settings, images: Images, start: Denoiser | None) -> dict[str, object]:
    free = ("torch_threads", "device")
    fields = {name: value for name, value in asdict(settings).items() if name not in free}
    begun = start.fingerprint if start is not None else None
    return {**fields, "widths": list(settings.widths), "images": images.name, "start": begun}
