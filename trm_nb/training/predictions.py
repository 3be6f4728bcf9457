"""What a trained model says about the held-out examples, step by step, and how often that is exactly right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from trm_nb.models.hardware import cpu_threads
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel
from trm_nb.training.act_loss import IGNORED, log_probability_of_prediction
from trm_nb.training.state import ROW, Settings, to_device


class Questions(Protocol):
    """What `evaluate` asks: the part of `Examples` that it needs."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of an answer."""
        ...

    def val_batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        """As `test_batches`, of another part."""
        ...

    def test_batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        """Batches as TinyRecursiveModel takes them, with `labels` (b, s) and ROW int64 (b,)."""
        ...

    def items_of(self, rows: np.ndarray) -> np.ndarray:
        """The items of these examples, by ROW: int64 (n,)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What the averaged weights say about the held-out examples after each recursion step.

    exact, cells: bool and float (t, n): whether every cell is right, and the part that is. by_step: int (t, n, s), the
    predicted classes. labels: int32 (n, s); a label that is not asked for is IGNORED. rows: int64 (n,). shape: rows and
    columns of a target. items: int64 (n,), equal for examples of one item; None: each is an item of its own.
    probability: float32 (t, n), what the model gives to its own prediction, for a grid the product over its cells.
    halts: bool (t, n), whether the model holds its prediction for right, and so would stop.
    """

    exact: np.ndarray
    cells: np.ndarray
    by_step: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    shape: tuple[int, int]
    items: np.ndarray | None = None
    probability: np.ndarray | None = None
    halts: np.ndarray | None = None

    @property
    def predictions(self) -> np.ndarray:
        """The predicted classes after the last step: int32 (n, s)."""
        last: np.ndarray = self.by_step[-1].astype(np.int32)
        return last

    def boards(self, cells: np.ndarray) -> np.ndarray:
        """`predictions` or `labels` as grids (n, *shape)."""
        return cells.reshape(len(cells), *self.shape)

    @property
    def accuracy(self) -> float:
        """The part of the examples that is exactly right after the last step."""
        return float(self.exact[-1].mean())


@torch.inference_mode()
def evaluate(
    model: TinyRecursiveModel,
    examples: Questions,
    settings: Settings,
    steps: int = 0,
    part: Literal["val", "test"] = "test",
) -> Predictions:
    """Ask for the held-out examples, or for the validation examples, of which there is one at least.

    `steps` are the outer steps (0: as many as in training; more is allowed).
    """
    model.eval()
    batches = examples.test_batches if part == "test" else examples.val_batches
    exact, cells, by_step, labels, rows, probability, halts = [], [], [], [], [], [], []
    with cpu_threads(settings.torch_threads):
        for on_cpu in batches(settings.batch):
            batch = to_device(on_cpu, settings.device)
            known = batch["labels"] != IGNORED
            right, said, sure, held = [], [], [], []
            for _, outputs in model.answering(batch, steps or model.config.halt_max_steps):
                said.append(outputs["logits"].argmax(-1))
                sure.append(log_probability_of_prediction(outputs["logits"]).exp().float())
                held.append(outputs["q_halt_logits"] > 0)
                right.append((known & (said[-1] == batch["labels"])).sum(-1))
            share = torch.stack(right) / known.sum(-1).clamp_min(1)
            exact.append((torch.stack(right) == known.sum(-1)).cpu().numpy())
            cells.append(share.cpu().numpy())
            smallest = np.min_scalar_type(-outputs["logits"].shape[-1])  # as all steps are kept
            by_step.append(torch.stack(said).cpu().numpy().astype(smallest))
            labels.append(batch["labels"].to(torch.int32).cpu().numpy())
            rows.append(batch[ROW].cpu().numpy())
            probability.append(torch.stack(sure).cpu().numpy())
            halts.append(torch.stack(held).cpu().numpy())
    return Predictions(
        np.concatenate(exact, 1), np.concatenate(cells, 1), np.concatenate(by_step, 1), np.concatenate(labels),
        np.concatenate(rows), examples.shape, examples.items_of(np.concatenate(rows)), np.concatenate(probability, 1),
        np.concatenate(halts, 1),
    )  # fmt: skip
