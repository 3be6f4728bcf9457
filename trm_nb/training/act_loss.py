"""The loss and the metrics of a TinyRecursiveModel's outer step: answers and the decision to halt (ACT).

Source: the official TRM code. Stablemax (Prieto et al., arXiv 2501.04697) in float64 over the answer places, a mean per
sequence and a sum over the batch; half of a binary cross-entropy between halting and being exactly right.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trm_nb.models.tiny_recursive_model import Carry

IGNORED = -100  # a label that is not asked for
HALT_WEIGHT = 0.5


def log_stablemax(x: Tensor) -> Tensor:
    """Like log_softmax over the last axis, with s(x) = x + 1 above 0 and 1 / (1 - x) below in place of exp."""
    s = torch.where(x < 0, 1 / (1 - x + 1e-30), x + 1)
    return torch.log(s / s.sum(-1, keepdim=True))


def stablemax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """float (b, s, classes) and int (b, s) -> float64 (b, s), 0 where the label is IGNORED; float32 on mps."""
    asked = labels != IGNORED
    chosen = torch.where(asked, labels, 0).long()[..., None]
    log_probability = log_stablemax(_wide(logits)).gather(-1, chosen)[..., 0]
    return torch.where(asked, -log_probability, 0.0)


def log_probability_of_prediction(logits: Tensor) -> Tensor:
    """What a model gives to its most likely classes together: float (b, s, classes) -> float64 (b,); float32 on mps.

    By stablemax, as in training: softmax of the same logits is a distribution that was never trained.
    """
    return log_stablemax(_wide(logits)).amax(-1).sum(-1)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)  # which mps does not have


def act_loss(carry: Carry, outputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a step, a float64 sum over the batch, and its metrics, sums too.

    `carry` is the one the step returned; its current_data has `labels` int (b, s). The metrics are over rows that
    halted and have an answer: count, accuracy (of cells), exact_accuracy, q_halt_accuracy, steps; lm_loss and
    q_halt_loss are over all rows. Divide by `count`, or by the batch.
    """
    labels, logits, q_halt = carry.current_data["labels"], outputs["logits"], outputs["q_halt_logits"]
    asked = labels != IGNORED
    cells = asked.sum(-1)
    with torch.no_grad():
        right = asked & (logits.argmax(-1) == labels)
        exact = right.sum(-1) == cells
        counted = carry.halted & (cells > 0)
        metrics = {
            "count": counted.sum(),
            "accuracy": torch.where(counted, (right.float() / cells.clamp_min(1)[:, None]).sum(-1), 0.0).sum(),
            "exact_accuracy": (counted & exact).sum(),
            "q_halt_accuracy": (counted & ((q_halt >= 0) == exact)).sum(),
            "steps": torch.where(counted, carry.steps, 0).sum(),
        }
    lm_loss = (stablemax_cross_entropy(logits, labels) / cells.clamp_min(1)[:, None]).sum()
    q_halt_loss = F.binary_cross_entropy_with_logits(q_halt, exact.to(q_halt.dtype), reduction="sum")
    metrics |= {"lm_loss": lm_loss.detach(), "q_halt_loss": q_halt_loss.detach()}
    return lm_loss + HALT_WEIGHT * q_halt_loss, metrics
