"""What a training will cost, measured on a few of its steps before it begins: how long it takes, or how many steps fit.

The steps are those of a training in a scratch folder, so nothing of them is left. Their share of the validations is
added from the time of one batch. How well the device is used follows from the floating-point operations of a step,
against those that a large matrix product of the same type reaches on it.
Cost: a few steps, about two seconds where steps are short; a product of 1024 x 1024 matrices, or of 4096 on a GPU.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from trm_nb.errors import UserError
from trm_nb.models.hardware import cpu_threads
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.storage.files import no_fault_points
from trm_nb.training.act_loss import act_loss
from trm_nb.training.reasoning import train
from trm_nb.training.state import Examples, Settings, to_device
from trm_nb.training.validation import interval, measured
from trm_nb.workers.distributed import ranks

WARM_UP, LEAST, SECONDS = 2, 3, 2.0  # steps that are not timed, at least so many timed ones, for at least so long
_PRODUCT = {"cpu": 1024, "cuda": 4096}  # side of the matrices


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one optimiser step: `seconds` with its share of the validations, `step_seconds` without, and `peak`, the part
    of the operations of a large matrix product that it reaches."""

    seconds: float
    step_seconds: float
    peak: float

    def steps_in(self, minutes: float) -> int:
        """How many steps take so long, at least one."""
        return max(1, round(60 * minutes / self.seconds))

    def sentence(self, steps: int) -> str:
        """How long so many steps take, for the user."""
        return (
            f"{steps:,} steps take about {_duration(steps * self.seconds)}: {1 / self.step_seconds:.3g} steps/s, "
            f"{100 * self.peak:.0f} % of the operations of a large matrix product"
        )


def cost_of(examples: Examples, settings: Settings) -> Cost:
    """Measure what a step of a training costs.

    Args:
        examples: what is to be learnt.
        settings: how; the number of steps does not matter.

    Raises:
        UserError: in a group of processes, where no process can measure alone.
    """
    if ranks().size > 1:
        raise UserError("train_minutes: several processes cannot measure a step; give train_steps instead")
    timer = _Timer()
    many = replace(settings, steps=10**6, validate_every=10**6, patience=None, logger=None)
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(TrainingProgressTracker(folder, create=True)) as tracker,
        suppress(_EnoughError),
        no_fault_points(),
    ):
        train(Path(folder), examples, many, tracker, on_step=timer)
    every = interval(settings.validate_every, examples.per_epoch, settings.batch)
    reached = _operations(examples, settings) / timer.seconds
    return Cost(
        timer.seconds + _validation(examples, settings) / every,
        timer.seconds,
        reached / _product(settings, "bfloat16" if settings.bfloat16 else examples.model.forward_dtype),
    )


class _EnoughError(Exception):
    """Ends the training that is timed."""


class _Timer:
    """Called after each step; raises _EnoughError when the time of a step is known."""

    calls = 0
    began = seconds = 0.0

    def __call__(self) -> None:
        self.calls += 1
        now, timed = time.perf_counter(), self.calls - WARM_UP
        if timed <= 0:
            self.began = now
        elif timed >= LEAST and now - self.began >= SECONDS:
            self.seconds = (now - self.began) / timed
            raise _EnoughError


def _operations(examples: Examples, settings: Settings) -> float:
    """Floating-point operations of a step: those of two examples on the CPU, as many times as a batch has them."""
    model = examples.new_model(torch.Generator().manual_seed(settings.seed)).train()
    batch = examples.train_batch(0, 2, settings.seed)
    with FlopCounterMode(display=False) as counter, cpu_threads(settings.torch_threads):
        loss, _ = act_loss(*model(model.initial_carry(batch), batch, torch.Generator().manual_seed(0)))
        loss.backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops() * settings.batch / 2)


def _validation(examples: Examples, settings: Settings) -> float:
    """Seconds of a validation, from those of its first batch."""
    batches = sum(1 for _ in examples.val_batches(settings.batch))
    if not batches:
        return 0.0
    model = examples.new_model(torch.Generator().manual_seed(settings.seed)).to(settings.device)
    with cpu_threads(settings.torch_threads):
        first = to_device(next(examples.val_batches(settings.batch)), settings.device)
        began = time.perf_counter()
        measured(model, [first])
        return batches * (time.perf_counter() - began)


def _product(settings: Settings, dtype: str) -> float:
    """Floating-point operations a second of a large matrix product."""
    side = _PRODUCT["cuda" if settings.device.startswith("cuda") else "cpu"]
    matrix = torch.ones(side, side, dtype=getattr(torch, dtype), device=settings.device)
    with cpu_threads(settings.torch_threads):
        float((matrix @ matrix)[0, 0])  # waits until a GPU is done
        began, times = time.perf_counter(), 4
        for _ in range(times):
            product = matrix @ matrix
        float(product[0, 0])
        return times * 2 * side**3 / (time.perf_counter() - began)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
