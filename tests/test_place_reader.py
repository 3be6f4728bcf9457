"""Answer places that read the capsules themselves, and answers that are kept once they are held for right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import train_in as train
from torch import Tensor

from trm_nb.errors import UserError
from trm_nb.models.place_reader import SLOT, PlaceReader
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel, TRMConfig
from trm_nb.training.predictions import evaluate
from trm_nb.training.state import ROW, Settings

CELLS, CLASSES = 6, 3
SIZES = {"hidden_size": 32, "num_heads": 2, "H_cycles": 1, "L_cycles": 1, "mlp_t": True, "halt_max_steps": 1}
SETTINGS = Settings(steps=80, batch=16, learning_rate=1e-2, warm_up=10, average=0.9, torch_threads=1)


class Scattered:
    """Boards of six cells whose class is a pattern in a slot of the capsules, another slot for each cell."""

    shape, per_epoch, name = (2, 3), 256, "scattered"

    def __init__(self, read_heads: int) -> None:
        rng = np.random.default_rng(0)
        self.labels = torch.from_numpy(rng.integers(0, CLASSES, (self.per_epoch + 64, CELLS)))
        patterns = torch.from_numpy(rng.standard_normal((CLASSES, SLOT), np.float32))
        slots = torch.zeros(len(self.labels), 96, SLOT)
        slots[:, torch.from_numpy(rng.permutation(96)[:CELLS])] = patterns[self.labels]
        self.capsules = slots.view(-1, 12, 512)
        self.model = TRMConfig(CLASSES, CELLS, tokens=False, capsules=True, read_heads=read_heads, **SIZES)  # type: ignore[arg-type]

    def new_model(self, generator: torch.Generator) -> TinyRecursiveModel:
        return TinyRecursiveModel(self.model, generator)

    def train_batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        return self._batch(torch.arange(step * size, (step + 1) * size) % self.per_epoch)

    def val_batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        return iter(())

    def test_batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        yield self._batch(torch.arange(self.per_epoch, len(self.labels)))

    def items_of(self, rows: np.ndarray) -> np.ndarray:
        return rows

    def _batch(self, rows: Tensor) -> dict[str, Tensor]:
        return {"capsules": self.capsules[rows], "labels": self.labels[rows], ROW: rows}


def test_places_read_what_belongs_to_them_and_keep_it(tmp_path: Path) -> None:
    examples = Scattered(read_heads=2)
    model = train(tmp_path, examples, SETTINGS).model
    answers = evaluate(model, examples, SETTINGS, steps=8)
    assert answers.exact[0].mean() > 0.9

    (batch,) = examples.test_batches(64)
    model.eval()
    carry, plainly = model.initial_carry(batch), []
    for _ in range(8):  # the official evaluation, which takes the last outputs
        with torch.inference_mode():
            carry, outputs = model(replace(carry, halted=carry.steps == 0), batch)
        plainly.append(float((outputs["logits"].argmax(-1) == batch["labels"]).all(1).float().mean()))
    assert plainly[0] == answers.exact[0].mean() and plainly[-1] < 0.5, "it was never trained to take eight steps"
    assert answers.halts is not None and answers.halts[0].mean() > 0.9
    assert answers.exact[-1].mean() > plainly[-1] + 0.1, "answers of the first step are kept"


def test_a_prediction_stays_where_it_is_held_for_right_and_no_other_is_surer() -> None:
    model = TinyRecursiveModel(Scattered(0).model).eval()
    batch = {"capsules": torch.randn(3, 12, 512, generator=torch.Generator().manual_seed(0))}
    with torch.inference_mode():
        held = [outputs["logits"] for _, outputs in model.answering(batch, 3)]
        with torch.no_grad():
            model.q_head.bias.fill_(5.0)
        first, *later = [outputs["logits"] for _, outputs in model.answering(batch, 3)]
    assert not torch.equal(held[0], held[1]) and not torch.equal(held[1], held[2])
    assert all(torch.equal(first, one) for one in later)


def test_each_place_and_each_head_has_weights_of_its_own() -> None:
    reader = PlaceReader(places=5, heads=3, width=32, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    capsules, places = (torch.randn(*shape, generator=generator) for shape in ((2, 12, 512), (2, 5, 32)))
    before = reader(capsules, places)
    assert before.shape == (2, 5, 32)
    assert torch.allclose(before.square().mean(-1), torch.ones(2, 5), atol=1e-3)
    with torch.no_grad():
        reader.mix.view(5, 3, 96)[2] = 0
    changed = (reader(capsules, places) != before).any(-1)
    assert changed.tolist() == [[False, False, True, False, False]] * 2


def test_places_cannot_read_where_there_are_no_capsules() -> None:
    with pytest.raises(UserError, match="read_heads"):
        TRMConfig(4, 16, read_heads=2)
