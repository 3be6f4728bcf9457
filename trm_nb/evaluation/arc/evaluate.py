"""Evaluates a finished model on ARC tasks by the published protocol; see scoring.py for what is counted.

Views of the tasks become a run of their own in the folder of the model's run, with the same rendering and the same
encoder. So they are rendered in parallel, an interruption continues, and another model of the run finds them encoded.
The weights are those that the training left; predictions of earlier checkpoints are never counted, unlike in the
official training, whose evaluations vote together.
Cost: a view is an image to render and to encode, and a prediction; about 1 KB of memory each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.errors import RejectedError, UserError
from trm_nb.evaluation.arc import baselines
from trm_nb.evaluation.arc.questions import Question, Questions, items_of, name_of, read_questions, views_of
from trm_nb.evaluation.arc.result import ArcResult
from trm_nb.evaluation.arc.scoring import Candidate, grids_at_top_left, ranked
from trm_nb.evaluation.arc.submission import check_submission
from trm_nb.models.hardware import cpu_threads
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel
from trm_nb.pipeline.encode_task import precision_of
from trm_nb.pipeline.prediction.model import Model
from trm_nb.pipeline.run import Run
from trm_nb.records import IN_MEMORY, Item, Progress
from trm_nb.render.renderer import Renderer, RenderSettings
from trm_nb.sources.arc.augment import View
from trm_nb.storage.files import write_file
from trm_nb.training.state import to_device
from trm_nb.training.targets import CapsuleTargets


class Watch(Protocol):
    """What receives the progress."""

    def encoding(self, run: Run, images: int) -> AbstractContextManager[Progress]:
        """Entered before so many images are rendered and encoded in `run`; gives what is to be called often."""
        ...

    def predicting(self, done: int, total: int) -> None:
        """Called before every batch of views, and at the end."""
        ...


def evaluate_arc(
    folder: Path, name: str, data: str, count: int, watch: Watch, *, device: str | None = None
) -> ArcResult:
    """Ask a model of the objective `grid` about every test input of some tasks, in up to `count` views, and score it.

    Args:
        folder: of a finished run.
        name: of a finished model in it.
        data: as `read_questions` takes it.
        count: views of a task, itself among them.
        watch: receives the progress.
        device: as `Model.load` takes it.

    Raises:
        UserError: for a model of another objective, and as `Model.load` and `read_questions` do.
    """
    if count < 1:
        raise UserError(f"views: expected at least 1, got {count}")
    model = Model.load(folder, name, device=device)
    if model.config.objective != "grid":
        raise UserError(
            f"{folder}: expected a model of the objective 'grid', got {model.config.objective!r}; train one with "
            "`trm-nb train DIR --model NAME -p objective=grid`"
        )
    questions = read_questions(data)
    shown = views_that_fit(model.config, questions, count)
    dataset = _encoded(model.config, questions, shown, count, watch)
    rows = _rows(questions, shown, dataset)
    assert isinstance(model.objective, CapsuleTargets)
    steps = model.config.test_steps or model.network.config.halt_max_steps
    return ArcResult(
        model=name,
        steps=steps,
        questions=questions,
        views=count,
        asked=sum(map(len, rows)),
        candidates=_candidates(model, steps, dataset, shown, rows, watch),
        baselines=_baselines(model.objective, dataset, questions, rows),
        learnt=_learnt(model.objective, dataset),
    )


def views_that_fit(config: MultimodalDatasetConfig, questions: Questions, count: int) -> list[list[View]]:
    """The views of each question that fit on one image, as a model reads one."""
    renderer = Renderer(RenderSettings.of(config))

    def fits(question: Question, symmetry: int) -> bool:
        try:
            turned = Item(question.task, "grid", View(symmetry).task(question.asked))
            return len(renderer.samples(turned)) == 1
        except RejectedError:
            return False

    shown = []
    for question, views in zip(questions.each, views_of(questions, count, config.seed), strict=True):
        fitting = {symmetry for symmetry in {view.symmetry for view in views} if fits(question, symmetry)}
        shown.append([view for view in views if view.symmetry in fitting])
    if not any(shown):
        raise UserError(f"{questions.data}: none of these tasks fits on one image of {config.image_size} pixels")
    return shown


def _encoded(
    config: MultimodalDatasetConfig, questions: Questions, shown: Sequence[Sequence[View]], count: int, watch: Watch
) -> CapsuleDataset:
    """The capsules of the views, of a run of their own, as those of the run of `config` were made."""
    with closing(Run(config, sources_needed=False)) as run:
        frozen, name = run.tracker.frozen(), f"{file_name(questions.data)}-{count}-views-{questions.digest}"
        if config.device != frozen["device"]:  # another one may compute other last bits
            name = f"{name}-{file_name(config.device)}"
        changed = config.with_changes(
            source_paths=[IN_MEMORY],
            output_dir=str(run.paths.evaluation / name),
            encoder_precision=precision_of(frozen, config),
            fit_encoder=None,
            include_grids=True,
            limit=None,
            max_errors=None,
            test_fraction=0,
            val_fraction=0,
            arc_forms=0,
            train_steps=0,
        )
        with closing(Run(changed, samples=_Samples(questions, shown), encoder=run.encoder)) as views_run:
            with watch.encoding(views_run, sum(map(len, shown))) as tick:
                views_run.build(tick)
            return CapsuleDataset(views_run.path)


def _rows(questions: Questions, shown: Sequence[Sequence[View]], dataset: CapsuleDataset) -> list[dict[int, int]]:
    """For each question, view -> place in the dataset; one that takes several images, or failed, is not there."""
    place = {name: number for number, name in enumerate(dataset.sample_ids)}
    return [
        {at: place[name_of(question, at)] for at in range(len(views)) if name_of(question, at) in place}
        for question, views in zip(questions.each, shown, strict=True)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _Samples:
    """The items of the views, made again each time they are iterated over."""

    questions: Questions
    shown: Sequence[Sequence[View]]

    def __iter__(self) -> Iterator[Item]:
        return items_of(self.questions, self.shown)


def file_name(data: str) -> str:
    """What stands for a source path in the name of a file: letters, digits, dots and dashes, at most 60."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", data).strip("-.")[-60:] or "tasks"


def write_result(result: ArcResult, file: Path) -> None:
    """Write the submission, and all that was found as `<name>.results.json` in the same folder; the folder is made."""
    submission = result.submission
    check_submission(submission, result.questions.test_inputs)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, json.dumps(submission).encode())
    write_file(file.with_suffix(".results.json"), json.dumps(result.as_json(), indent=1).encode())


def _candidates(
    model: Model,
    steps: int,
    dataset: CapsuleDataset,
    shown: Sequence[Sequence[View]],
    rows: Sequence[Mapping[int, int]],
    watch: Watch,
) -> tuple[list[Candidate], ...]:
    """The predictions for the views of each question, taken back and ranked."""
    asked = [place for of in rows for place in of.values()]
    predictions = _predictions(model, steps, dataset, asked, watch.predicting)
    found = []
    for views, of in zip(shown, rows, strict=True):
        grids, q = [], []
        for at in of:
            grid, sure = next(predictions)
            grids.append(None if grid is None else views[at].undone(grid))
            q.append(sure)
        found.append(ranked(grids, q))
    return tuple(found)


def _predictions(
    model: Model, steps: int, dataset: CapsuleDataset, places: Sequence[int], predicting: Callable[[int, int], None]
) -> Iterator[tuple[np.ndarray | None, float]]:
    """The grid for each of these samples after the last recursion step, and q: how sure the model is of it, 0 to 1."""
    config, objective = model.config, model.objective
    assert isinstance(objective, CapsuleTargets)
    for first in range(0, len(places), config.train_batch_size):
        predicting(first, len(places))
        batch = {"capsules": dataset.capsules(places[first : first + config.train_batch_size])}
        with cpu_threads(config.torch_threads):
            classes, q = last_step(model.network, to_device(batch, config.device), steps)
        grids = grids_at_top_left(classes.reshape(-1, *objective.shape), objective.outside)
        yield from zip(grids, q.tolist(), strict=True)
    predicting(len(places), len(places))


@torch.inference_mode()
def last_step(net: TinyRecursiveModel, batch: dict[str, torch.Tensor], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The classes int64 (b, s) after the last of `steps` recursion steps, and q float64 (b,).

    q is the sigmoid of the halting logit, taken in float64 as published, so that sure predictions stay apart.
    """
    *_, (_, outputs) = net.unrolled(batch, steps)
    q = outputs["q_halt_logits"].double().sigmoid()
    return outputs["logits"].argmax(-1).cpu().numpy(), q.cpu().numpy()


def _baselines(
    objective: CapsuleTargets, dataset: CapsuleDataset, questions: Questions, rows: Sequence[Mapping[int, int]]
) -> dict[str, tuple[np.ndarray | None, ...]]:
    """One prediction for each test input by each baseline."""
    known = [of[0] for of in rows if 0 in of]  # the question itself, where that fits
    near = iter(baselines.nearest_answers(objective, dataset.capsules(known).numpy()))
    return {
        baselines.IDENTITY: tuple(map(baselines.identity, questions.each)),
        baselines.COLOUR: tuple(map(baselines.most_common_colour, questions.each)),
        baselines.NEAREST: tuple(next(near) if 0 in of else None for of in rows),
    }


def _learnt(objective: CapsuleTargets, dataset: CapsuleDataset) -> frozenset[str]:
    """The tasks of which a view is an image that the model has learnt from, or was chosen by."""
    keys = objective.dataset.column("key")
    rows = objective.rows[np.concatenate([objective.train, objective.val])]
    seen = {keys[place] for place in objective.dataset.rows.searchsorted(rows).tolist()}
    pairs = zip(dataset.sample_ids, dataset.column("key"), strict=True)
    return frozenset(name.rpartition("/")[0] for name, key in pairs if key in seen)
