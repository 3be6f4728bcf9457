"""What a model predicts for the views of each test input: taken back, counted, and ranked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
import torch

from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.evaluation.arc.adapt import Adapter
from trm_nb.evaluation.arc.questions import Asked
from trm_nb.evaluation.arc.scoring import Candidate, grids_at_top_left, ranked
from trm_nb.models.hardware import cpu_threads
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel
from trm_nb.pipeline.prediction.model import Model
from trm_nb.training.state import to_device
from trm_nb.training.targets import CapsuleTargets


def candidates_of(
    model: Model,
    steps: int,
    dataset: CapsuleDataset,
    asked: Asked,
    rows: Sequence[Mapping[int, int]],
    predicting: Callable[[int, int], None],
    adapter: Adapter | None = None,
) -> tuple[list[Candidate], ...]:
    """The candidates for each question, the best first.

    Args:
        model: what is asked.
        steps: of the recursion.
        dataset: the capsules of the views.
        asked: the questions in their views, by task.
        rows: for each question, view -> its place in the dataset.
        predicting: called now and then with how many views are done and how many there are, and at the end.
        adapter: gives each task a model of its own; None: all are asked of `model`.
    """
    total, done = sum(map(len, rows)), 0
    each = zip(asked.questions.each, asked.shown, rows, strict=True)
    found = []
    for task, group in groupby(each, key=lambda one: one[0].task if adapter else ""):
        predicting(done, total)
        network = adapter.model_of(task) if adapter else model.network
        known = list(group)
        places = [place for _, _, of in known for place in of.values()]
        predictions = _predictions(model, network, steps, dataset, places)
        for _, views, of in known:
            grids, q = [], []
            for at in of:
                if not done % model.config.train_batch_size:
                    predicting(done, total)
                done += 1
                grid, sure = next(predictions)
                grids.append(None if grid is None else views[at].undone(grid))
                q.append(sure)
            found.append(ranked(grids, q))
    predicting(total, total)
    return tuple(found)


def _predictions(
    model: Model,
    network: TinyRecursiveModel,
    steps: int,
    dataset: CapsuleDataset,
    places: Sequence[int],
) -> Iterator[tuple[np.ndarray | None, float]]:
    """The grid for each of these samples after the last recursion step, and q: how sure the model is of it, 0 to 1."""
    config, objective = model.config, model.objective
    assert isinstance(objective, CapsuleTargets)
    for first in range(0, len(places), config.train_batch_size):
        batch = {"capsules": dataset.capsules(places[first : first + config.train_batch_size])}
        with cpu_threads(config.torch_threads):
            classes, q = last_step(network, to_device(batch, config.device), steps)
        grids = grids_at_top_left(classes.reshape(-1, *objective.shape), objective.outside)
        yield from zip(grids, q.tolist(), strict=True)


@torch.inference_mode()
def last_step(net: TinyRecursiveModel, batch: dict[str, torch.Tensor], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The classes int64 (b, s) after the last of `steps` recursion steps, and q float64 (b,).

    q is the sigmoid of the halting logit, taken in float64 as published, so that sure predictions stay apart.
    """
    *_, (_, outputs) = net.unrolled(batch, steps)
    q = outputs["q_halt_logits"].double().sigmoid()
    return outputs["logits"].argmax(-1).cpu().numpy(), q.cpu().numpy()
