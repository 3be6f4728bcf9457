"""The training loop: encoder and decoder together, resumable, with an exponential moving average (EMA) of the weights.

Matrices are trained by Muon (Jordan et al., 2024; learning rates scaled as Moonlight does, arXiv 2502.16982), all other
parameters by AdamW. The learning rate warms up for 100 steps, stays, and decays linearly over the last two thirds.
While training, noise is added to the capsules before they are decoded, so that they spread out and tolerate rounding.
What is kept is the EMA.

A schedule counts steps, never time: with `minutes`, the number of steps is fixed once, from the time that some steps
take in a rehearsal on a copy of the model, and stored. All of a step follows from the seed and its number, and the
checkpoint holds the model, the EMA, both optimisers and the queue of negatives. So a training that was killed ends with
the weights of one that was not, bit for bit on a CPU (same machine, same torch, same threads).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from trm_nb.errors import UserError
from trm_nb.models.ema import follow
from trm_nb.models.hardware import cpu_threads
from trm_nb.models.read_out import WHOLE
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.progress.training_length import seconds_of
from trm_nb.storage.files import fault_point, locked
from trm_nb.training.pretraining.content import Content
from trm_nb.training.pretraining.feed import feeding
from trm_nb.training.pretraining.losses import Decoded, Inputs, all_losses, effective_rank, total
from trm_nb.training.pretraining.material import Material
from trm_nb.training.pretraining.measure import Measure
from trm_nb.training.pretraining.state import Model, Settings, State, check, open_state, save_state

WARM_UP, DECAY, FINAL = 100, 0.7, 0.02  # steps; part of all steps; part of the rate that is left (and kept) at the end
EMA, CLIP = 0.999, 1.0
REHEARSED, REHEARSED_SECONDS = (5, 10), 10.0  # steps of warm-up and at least so many timed ones, for at least so long
GPU_CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """Losses by name and gradient norm, scalars on the device; `whole` float32 (b, 1024), capsules 10 and 11."""

    metrics: dict[str, Tensor]
    whole: Tensor


def pretrain(
    folder: Path,
    trained: Material,
    held_out: Material,
    settings: Settings,
    on_step: Callable[[], None] | None = None,
) -> Model:
    """Train in `folder` until all steps are done; continues from the checkpoint that is there.

    Writes training.pt every 200 steps (on a GPU not more often than once a minute) with encoder.safetensors and
    decoder.safetensors, the EMA so far, and logs losses and metrics to the folder's tracker.

    Args:
        folder: of the training; locked while it runs.
        trained: what batches are made of.
        held_out: what is measured on.
        settings: how to train.
        on_step: called after each step.

    Returns:
        The EMA of the model.

    Raises:
        UserError: for a checkpoint of other settings or material, and when a loss is NaN or infinite.
    """
    check(settings)
    tracker = TrainingProgressTracker(folder, create=True)
    with locked(folder, "pre-training the encoder"), cpu_threads(settings.torch_threads), _attention(settings.device):
        content = Content(trained)
        state = open_state(folder, content, settings)
        if not state.steps and settings.minutes is not None:
            state.steps = _steps_in(settings.minutes, state, content, settings)
        if not state.step:
            save_state(folder, state, content, settings)
        _compile(state.model, settings)
        tracker.forget_steps(after=state.step)
        with tracker.stage("train", state.steps):
            if state.step < state.steps:
                measure = Measure(Content(held_out), settings.measured)
                _train(folder, state, content, settings, tracker, measure, on_step)
    tracker.close()
    return state.average


def rate(step: int, steps: int) -> float:
    """The learning rate of a step, as a part of the highest: up, constant, and linearly down."""
    return min(1.0, (step + 1) / WARM_UP) * min(1.0, (1 - step / steps) / DECAY + FINAL)


def _train(
    folder: Path,
    state: State,
    content: Content,
    settings: Settings,
    tracker: TrainingProgressTracker,
    measure: Measure,
    on_step: Callable[[], None] | None,
) -> None:
    """All steps that are left. A checkpoint is written only after the losses before it were looked at."""
    done: list[_Step] = []
    saved = time.monotonic()
    left = range(state.step, state.steps)
    with feeding(content, settings.seed, left, settings.batch, settings.workers) as batches:
        for batch in batches:
            done.append(_step(state, batch, settings))
            last = state.step == state.steps
            if state.step % settings.log_every == 0 or last:
                metrics = _means(done, folder, state.step) | {"rate": rate(state.step - 1, state.steps)}
                if state.step % settings.measure_every == 0 or last:
                    metrics |= measure(state.average.encoder, state.average.decoder, state.average.matching)
                tracker.log_step(state.step, **metrics)
                done = []
                long_ago = settings.device == "cpu" or time.monotonic() - saved > GPU_CHECKPOINT_SECONDS
                if (state.step % settings.checkpoint_every == 0 and long_ago) or last:
                    save_state(folder, state, content, settings)
                    saved = time.monotonic()
                    fault_point("pretrain-checkpoint")
            fault_point("pretrain-step")
            tracker.beat()
            if on_step is not None:
                on_step()


def _step(state: State, batch: Inputs, settings: Settings) -> _Step:
    """One step of both optimisers."""
    model, device = state.model, settings.device
    seed = np.random.SeedSequence([settings.seed, state.step]).generate_state(1, np.uint64)[0] >> np.uint64(1)
    generator = torch.Generator(device).manual_seed(int(seed))
    inputs = batch.to(device)
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=settings.bfloat16):
        capsules = model.encoder(inputs.images)
        noise = torch.randn(capsules.shape, generator=generator, device=device)
        noisy = capsules + settings.noise * noise
        hidden = model.decoder.hidden(noisy)
        pixels = model.decoder.pixels(hidden, noisy).float()
    losses, queue = all_losses(
        Decoded(capsules, hidden, pixels),
        inputs,
        model.matching,
        model.decoder.colour,
        state.targets,
        state.queue,
        generator,
    )
    loss = total(losses)
    for optimiser in state.optimisers:
        optimiser.zero_grad()
        for group in optimiser.param_groups:
            group["lr"] = group["highest"] * rate(state.step, state.steps)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    for optimiser in state.optimisers:
        optimiser.step()
    state.step += 1
    state.queue = queue
    follow(state.average, model, EMA, state.step + 1)
    metrics = {"loss": loss, **{f"loss_{name}": value for name, value in losses.items()}, "gradient_norm": norm}
    beta = model.matching.log_beta.detach().exp()
    metrics |= {"beta_glyphs": beta[0], "beta_colours": beta[1]}
    return _Step({name: value.detach() for name, value in metrics.items()}, capsules[:, WHOLE].detach().flatten(1))


def _means(done: list[_Step], folder: Path, step: int) -> dict[str, float]:
    """Means over the last steps; variance over samples and effective rank of capsules 10 and 11 in the last batch."""
    names = list(done[0].metrics)
    values = torch.stack([torch.stack(list(one.metrics.values())) for one in done]).cpu()
    if not values.isfinite().all():
        first = step - len(done) + 1 + int((~values.isfinite().all(1)).nonzero()[0])
        raise UserError(
            f"{folder}: the loss or its gradient is NaN or infinite at step {first}; the checkpoint of the last good "
            "step is kept: continue from it on another device, or begin in another folder with lower rates"
        )
    whole = done[-1].whole.cpu()
    facts = {"variance_whole": float(whole.var(0).mean()), "rank_whole_batch": effective_rank(whole)}
    return dict(zip(names, values.mean(0).tolist(), strict=True)) | facts


def _steps_in(minutes: float, state: State, content: Content, settings: Settings) -> int:
    """How many steps take so long, from the time of some on a copy of the state; the copy is thrown away."""
    copied = copy.deepcopy(state)
    copied.steps = 1_000_000  # in the rehearsal only the time counts
    _compile(copied.model, settings)
    with feeding(content, settings.seed, range(copied.steps), settings.batch, settings.workers) as batches:

        def step() -> None:
            float(_step(copied, next(batches), settings).metrics["loss"])  # waits until a GPU is done

        pace = seconds_of(step, *REHEARSED, REHEARSED_SECONDS)
    return max(1, round(60 * minutes / pace))


def _compile(model: Model, settings: Settings) -> None:
    if settings.compiled:
        model.encoder.compile()
        model.decoder.compile()


def _attention(device: str) -> Any:
    """Which implementation: on a CPU the plain one, which is fastest for 64 tokens.

    On a GPU not cuDNN's, whose gradients are NaN for a mask in bfloat16 (torch 2.11, H200).
    """
    return sdpa_kernel(SDPBackend.MATH if device == "cpu" else SDPBackend.EFFICIENT_ATTENTION)
