"""Validation: how good the averaged weights are on the validation examples, and which step was the best so far.

The best step is the one with the most examples exactly right; among equals the one with the most cells right, then the
one with the lowest loss, then the first. The loss comes last because it rises with confidence: on a few grids it was
lowest long before most cells were right (LOG.md, 2026-11-27).
Cost: a forward pass over all validation examples, as deep as training recurses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trm_nb.models.tiny_recursive_model import TinyRecursiveModel
from trm_nb.training.act_loss import act_loss

LEAST_STEPS = 10  # between two validations, where nothing else is asked for
EXACT, CELLS, LOSS = "val_exact_accuracy", "val_accuracy", "val_loss"


@dataclass(frozen=True, slots=True, eq=False)
class Best:
    """The best validation so far: its step, what it measured, the weights on their device, and how many came after."""

    step: int
    exact: float
    cells: float
    loss: float
    weights: dict[str, Tensor]
    since: int = 0

    def is_worse_than(self, found: Mapping[str, float]) -> bool:
        """Whether another validation, of which `measured` found this, is better; a loss that is NaN never is."""
        return (found[EXACT], found[CELLS], -found[LOSS]) > (self.exact, self.cells, -self.loss)


def interval(validate_every: int | None, per_epoch: int, batch: int) -> int:
    """Steps between two validations: as asked for, or else an epoch, and LEAST_STEPS at least."""
    return validate_every or max(LEAST_STEPS, -(-per_epoch // batch))


def validated(
    best: Best | None,
    model: TinyRecursiveModel,
    step: int,
    batches: Iterable[dict[str, Tensor]],
    tick: Callable[[], None] = lambda: None,
) -> tuple[dict[str, float], Best | None]:
    """Validate a model after a training step.

    Args:
        best: the best step before.
        model: with the averaged weights after `step`.
        step: the training step.
        batches: the validation examples, on the model's device.
        tick: called before each batch.

    Returns:
        What `measured` finds, and the best step now; nothing and `best` where there are no examples.
    """
    found = measured(model, _ticking(batches, tick))
    if not found:
        return {}, best
    if best is None or best.is_worse_than(found):
        weights = {name: weight.clone() for name, weight in model.state_dict().items()}
        return found, Best(step, found[EXACT], found[CELLS], found[LOSS], weights)
    return found, replace(best, since=best.since + 1)


@torch.inference_mode()
def measured(model: TinyRecursiveModel, batches: Iterable[dict[str, Tensor]]) -> dict[str, float]:
    """The loss of training, and the shares of cells and of examples that are right, after the last recursion step.

    Args:
        model: with the averaged weights.
        batches: the validation examples, on the model's device.

    Returns:
        Means over the examples: val_loss, val_accuracy, val_exact_accuracy; nothing where there are no examples.
    """
    model.eval()
    total, examples = dict.fromkeys((LOSS, CELLS, EXACT), 0.0), 0
    for batch in batches:
        *_, (carry, outputs) = model.answering(batch, model.config.halt_max_steps)
        loss, sums = act_loss(replace(carry, halted=torch.ones_like(carry.halted)), outputs)
        for name, value in zip(total, (loss, sums["accuracy"], sums["exact_accuracy"]), strict=True):
            total[name] += float(value)
        examples += len(carry.halted)
    return {name: value / examples for name, value in total.items()} if examples else {}


def _ticking(batches: Iterable[dict[str, Tensor]], tick: Callable[[], None]) -> Iterator[dict[str, Tensor]]:
    for batch in batches:
        tick()
        yield batch
