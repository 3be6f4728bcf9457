"""Trains a TinyRecursiveModel: deep supervision, one optimiser step for each outer step, rows replaced as they halt.

As in the official training: a new batch is taken at every step and only rows that have halted take from it; AdamATan2
with linear warm-up and then a constant rate, SignSGD for puzzle embeddings; what is measured is the average of the
weights. `cool_down` lets the rate fall at the end of a training whose length is fixed. Where there are validation
examples, the weights of the best step are kept and returned (validation.py).
Deviations: gradients are clipped at norm 1 (which atan2 hardly notices, as it does not see their scale), and
`muon_rate` lets Muon train the matrices (state.py).

Everything a step does follows from the seed and its number, and the checkpoint holds model, average, optimisers, carry
and the best step, so a training that was killed ends with the weights of one that was not, bit for bit on a CPU (same
machine, same torch, same threads). A loss that is NaN or infinite stops it: the checkpoint before stays, the batch's
rows are named.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from trm_nb.errors import UserError
from trm_nb.models.ema import follow
from trm_nb.models.hardware import cpu_threads
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel
from trm_nb.progress.loggers import metric_logger
from trm_nb.progress.model_record import read_metrics, write_metrics
from trm_nb.progress.run_folder import ModelPaths
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.storage.files import fault_point, sweep
from trm_nb.training.act_loss import act_loss
from trm_nb.training.state import ROW, Examples, Settings, State, open_state, save_state, to_device
from trm_nb.training.validation import Best, interval, validated
from trm_nb.workers.distributed import ranks

CLIP = 1.0
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What a training of `steps` steps ended with.

    `model` has the averaged weights of `best_step`: the best one by validation or, where nothing was `validated`, the
    last one. `stopped_early`: after as many validations without a better one as the settings allow.
    """

    model: TinyRecursiveModel
    steps: int
    best_step: int
    validated: bool
    stopped_early: bool


def train(
    folder: Path,
    examples: Examples,
    settings: Settings,
    tracker: TrainingProgressTracker,
    *,
    stage: str = "train",
    on_step: Callable[[], None] | None = None,
    leader: Path | None = None,
) -> Trained:
    """Train in `folder` until `settings.steps` steps are done; goes on from the checkpoint there.

    In a group of processes (workers/distributed.py) each takes its part of every batch. The first one saves the
    checkpoints, as one process alone does; the others, whose `folder` is scratch, go on from those in the folder of the
    `leader`.

    Writes the checkpoint and metrics.jsonl (`ModelPaths`), and notes loss, accuracies, validations and chunk_progress
    (the part of the epoch) in `tracker`, as steps of `stage`; what it holds of another training there is replaced. The
    caller sees to it that no other process trains in `folder`. Raises UserError when the checkpoint is of other
    examples, settings or another model, naming the difference, and when the loss is NaN or infinite.
    """
    paths = ModelPaths(folder)
    with cpu_threads(settings.torch_threads):
        sweep(folder)
        state = open_state((ModelPaths(leader) if leader else paths).checkpoint, examples, settings)
        curve = read_metrics(paths.metrics, state.step)
        tracker.hold_steps(curve, stage)
        every = interval(settings.validate_every, examples.per_epoch, settings.batch)
        with metric_logger(settings.logger, paths, state.step) as log, tracker.stage(stage, settings.steps):
            best: Best | None = None
            saved = time.monotonic()
            while not state.has_ended(settings):
                state.sums.append(_step(state, examples, settings, folder))
                metrics: dict[str, float] = {}
                if state.step % every == 0:
                    metrics, state.best = _validated(state, examples, settings, tracker)
                elif state.step == settings.steps:  # it has no part in what a longer training would choose
                    metrics, best = _validated(state, examples, settings, tracker)
                ended = state.has_ended(settings)
                if state.step % settings.log_every == 0 or ended:
                    metrics = _means(state.sums, settings) | metrics
                    state.sums = []
                if metrics:
                    epoch = state.step * settings.batch / examples.per_epoch
                    metrics |= {"chunk_progress": epoch % 1, "epoch": epoch}
                    tracker.log_step(state.step, stage, **metrics)
                    curve.append({"global_step": state.step, **metrics})
                    log(state.step, metrics)
                if ended or _is_due(state.step, saved, settings):
                    write_metrics(paths.metrics, curve)
                    save_state(paths.checkpoint, state, examples, settings)
                    saved = time.monotonic()
                    fault_point("train-checkpoint")
                fault_point("train-step")
                tracker.beat()
                if on_step is not None:
                    on_step()
        if state.step % every == 0:
            best = state.best
        elif best is None:  # the steps were all done before
            _, best = _validated(state, examples, settings, tracker)
        stopped_early = state.step < settings.steps
        if best is not None:
            state.average.load_state_dict(best.weights)
            if stopped_early:
                tracker.finish(stage, f"stopped early: no validation after step {best.step:,} is better")
    return Trained(state.average, state.step, best.step if best else state.step, best is not None, stopped_early)


def _is_due(step: int, saved: float, settings: Settings) -> bool:
    """Whether to save a checkpoint: every so many steps and each minute; on a GPU, with its short steps, each minute.

    The processes of a group save together, so there the steps alone decide.
    """
    regular, long_ago = step % settings.checkpoint_every == 0, time.monotonic() - saved > CHECKPOINT_SECONDS
    if ranks().size > 1:
        return regular
    return long_ago or (regular and settings.device == "cpu")


def _validated(
    state: State, examples: Examples, settings: Settings, tracker: TrainingProgressTracker
) -> tuple[dict[str, float], Best | None]:
    """What a validation finds, and the best step with this one among them."""
    batches = (to_device(batch, settings.device) for batch in examples.val_batches(settings.batch))
    return validated(state.best, state.average, state.step, batches, tracker.beat)


def _step(state: State, examples: Examples, settings: Settings, folder: Path) -> dict[str, float]:
    """One outer step and one step of the optimisers; returns the sums of `act_loss`."""
    group = ranks()
    batch = to_device(group.own(examples.train_batch(state.step, settings.batch, settings.seed)), settings.device)
    generator = torch.Generator(settings.device).manual_seed(_mixed(settings.seed, state.step))
    carry = state.carry if state.carry is not None else state.model.initial_carry(batch)
    state.model.train()
    state.carry, outputs = state.model(carry, batch, generator)
    loss, measured = act_loss(state.carry, outputs)
    values = torch.stack([loss.detach(), *(value.to(loss.dtype) for value in measured.values())])
    group.add_up([values])
    metrics = dict(zip(("loss", *measured), values.tolist(), strict=True))
    if not math.isfinite(metrics["loss"]):
        raise _no_number("loss", state, folder)
    for optimiser in state.optimisers:
        optimiser.zero_grad()
    (loss / settings.batch).backward()  # type: ignore[no-untyped-call]
    dense = [p for p in state.model.parameters() if p.grad is not None and not p.grad.is_sparse]
    group.add_up(p.grad for p in dense if p.grad is not None)
    if not nn.utils.clip_grad_norm_(dense, CLIP).isfinite():
        raise _no_number("gradient", state, folder)
    state.step += 1
    for optimiser, rate in zip(state.optimisers, state.rates, strict=True):
        optimiser.param_groups[0]["lr"] = rate * _part_of_rate(state.step, settings)
        optimiser.step()
    follow(state.average, state.model, settings.average, state.step)
    return metrics


def _part_of_rate(step: int, settings: Settings) -> float:
    """The learning rate of a step, from 1, as a part of the highest."""
    part = min(1.0, step / max(1, settings.warm_up))
    falling = settings.cool_down * settings.steps
    return part * min(1.0, (settings.steps + 1 - step) / falling) if falling else part


def _no_number(what: str, state: State, folder: Path) -> UserError:
    assert state.carry is not None
    rows = ranks().whole({ROW: state.carry.current_data[ROW]})[ROW].tolist()
    return UserError(
        f"{folder}: the {what} is NaN or infinite at step {state.step + 1}, on the rows {rows}; the last checkpoint is "
        "kept: look at these rows, or train another `model` with a lower learning_rate"
    )


def _means(sums: list[dict[str, float]], settings: Settings) -> dict[str, float]:
    """Means over the last steps: losses of a row, the others of a row that halted (NaN-free: 0 where none did)."""
    total = {name: sum(one[name] for one in sums) for name in sums[0]}
    rows, done = len(sums) * settings.batch, max(1.0, total["count"])
    means = {name: total[name] / rows for name in ("loss", "lm_loss", "q_halt_loss")}
    return means | {name: total[name] / done for name in ("accuracy", "exact_accuracy", "q_halt_accuracy", "steps")}


def dtype_on(device: str) -> str:
    """What a model computes in there (TRMConfig.forward_dtype): half as wide on a GPU, as in the official training."""
    return "bfloat16" if device.startswith("cuda") else "float32"


def _mixed(seed: int, step: int) -> int:
    """One seed from two numbers."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@lru_cache(maxsize=4)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, 0, epoch]).permutation(n)


def shuffled(first: int, count: int, n: int, seed: int) -> np.ndarray:
    """Places first .. first + count - 1 of an endless sequence in which each epoch is an order of n rows of its own."""
    places = np.arange(first, first + count)
    rows = np.empty(count, np.int64)
    for epoch in np.unique(places // n):
        inside = places // n == epoch
        rows[inside] = _order(n, seed, int(epoch))[places[inside] % n]
    return rows
