"""Evaluates a finished model on ARC tasks by the published protocol; see scoring.py for what is counted.

Views of the tasks become a run of their own in the folder of the model's run, with the same rendering and the same
encoder. So they are rendered in parallel, an interruption continues, and another model of the run finds them encoded.
The weights are those that the training ended with; predictions of earlier checkpoints are never counted, unlike in the
official training, whose evaluations vote together.
Cost: a view is an image to render and to encode, and a prediction; about 1 KB of memory each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.errors import RejectedError, UserError
from trm_nb.evaluation.arc import baselines
from trm_nb.evaluation.arc.questions import Question, Questions, items_of, name_of, read_questions, views_of
from trm_nb.evaluation.arc.result import ArcResult
from trm_nb.evaluation.arc.scoring import grids_at_top_left, ranked
from trm_nb.evaluation.arc.submission import check_submission
from trm_nb.models.checkpoints import load_weights, read_weights
from trm_nb.models.hardware import cpu_threads
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel, TRMConfig
from trm_nb.pipeline.encode_task import ENCODER, precision_of
from trm_nb.pipeline.run import Run
from trm_nb.progress.model_record import DIGEST
from trm_nb.records import IN_MEMORY, Item, Progress
from trm_nb.render.renderer import Renderer, RenderSettings
from trm_nb.sources.arc.augment import View
from trm_nb.storage.files import write_file
from trm_nb.training.reasoning import KIND, dtype_on, to_device
from trm_nb.training.targets import CapsuleTargets
from trm_nb.training.train_objective import examples_of


class Watch(Protocol):
    """What is told while it works."""

    def encoding(self, run: Run, images: int) -> AbstractContextManager[Progress]:
        """Entered before so many images are rendered and encoded in `run`; gives what is to be called often."""
        ...

    def predicting(self, done: int, total: int) -> None:
        """Called after every batch of views."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class GridModel:
    """A finished model of the objective `grid`; `steps` are its recursion steps, `objective` what it learnt from."""

    net: TinyRecursiveModel
    objective: CapsuleTargets
    steps: int
    batch: int
    device: str
    threads: int


def evaluate_arc(run: Run, data: str, count: int, watch: Watch) -> ArcResult:
    """Ask the config's `model` about every test input of some tasks, in up to `count` views, and score it.

    Args:
        run: a finished run, opened with the name of a finished model.
        data: as `read_questions` takes it.
        count: views of a task, itself among them.
        watch: is told how far it is.

    Raises:
        UserError: for a model that is not finished or does not predict grids, and as `read_questions` does.
    """
    if count < 1:
        raise UserError(f"views: expected at least 1, got {count}")
    model = load_model(run)
    questions = read_questions(data)
    shown = _shown(run, questions, count)
    with closing(_run_of_views(run, questions, shown, count)) as views_run:
        with watch.encoding(views_run, sum(map(len, shown))) as tick:
            views_run.build(tick)
        dataset = CapsuleDataset(views_run.path)
    place = {name: number for number, name in enumerate(dataset.sample_ids)}  # a task on several images is not there
    votes: list[tuple[list[np.ndarray | None], list[float]]] = [([], []) for _ in questions.each]
    asked = [
        (number, view, place[name_of(question, at)])
        for number, question in enumerate(questions.each)
        for at, view in enumerate(shown[number])
        if name_of(question, at) in place
    ]
    predictions = _predictions(model, dataset, [row for _, _, row in asked], watch.predicting)
    for (number, view, _), (grid, q) in zip(asked, predictions, strict=True):
        votes[number][0].append(None if grid is None else view.undone(grid))
        votes[number][1].append(q)
    return ArcResult(
        model=run.config.model,
        steps=model.steps,
        questions=questions,
        views=count,
        asked=len(asked),
        candidates=tuple(ranked(*each) for each in votes),
        baselines=_baselines(model.objective, dataset, questions, place),
        learnt=_learnt(model.objective, dataset),
    )


def load_model(run: Run) -> GridModel:
    """The config's `model` of a run; raises UserError where it is not finished or does not predict grids."""
    paths, config = run.paths.model(run.config.model), run.config
    if not paths.is_finished():
        raise UserError(
            f"{paths.root}: expected a finished model, found none; `trm-nb list DIR` shows the models and `trm-nb "
            "train DIR --model NAME -p objective=grid` trains one"
        )
    weights, values = read_weights(paths.weights, KIND)
    if values.get("objective") != "grid":
        raise UserError(
            f"{paths.root}: expected a model of the objective 'grid', got {values.get('objective')!r}; train another "
            "one with `trm-nb train DIR --model NAME -p objective=grid`"
        )
    if values.get(DIGEST) != run.info()["content_digest"]:
        raise UserError(
            f"{paths.root}: this model was trained on another dataset than the one in {run.path}; delete its folder "
            "and train it again"
        )
    objective = examples_of(run.path, config)
    assert isinstance(objective, CapsuleTargets)
    net = TinyRecursiveModel(_sizes(values.get("architecture"), config.device, str(paths.weights)))
    load_weights(net, weights, paths.weights)
    steps = config.test_steps or net.config.halt_max_steps
    net = net.to(config.device).eval()
    return GridModel(net, objective, steps, config.train_batch_size, config.device, config.torch_threads)


def _sizes(architecture: Any, device: str, path: str) -> TRMConfig:
    try:
        return TRMConfig(**{**architecture, "forward_dtype": dtype_on(device)})
    except TypeError as error:
        raise UserError(f"{path}: the sizes in its header are not those of a model ({error}); train it again") from None


def _shown(run: Run, questions: Questions, count: int) -> list[list[View]]:
    """The views of each question; none where it does not fit on one image, as a model reads one."""
    renderer = Renderer(RenderSettings.of(run.config))

    def fits(question: Question) -> bool:
        try:
            return len(renderer.samples(Item(question.task, "grid", question.asked))) == 1
        except RejectedError:
            return False

    found = views_of(questions, count, run.config.seed)
    return [views if fits(question) else [] for question, views in zip(questions.each, found, strict=True)]


def _run_of_views(run: Run, questions: Questions, shown: Sequence[Sequence[View]], count: int) -> Run:
    """A run of the views, whose capsules are as those of `run`."""
    encoder, frozen = run.encoder, run.tracker.frozen()
    if encoder.fingerprint != frozen[ENCODER]:
        raise UserError(
            f"{run.path}: its capsules are of the encoder {frozen[ENCODER]}, and the one of its settings is "
            f"{encoder.fingerprint}; put the checkpoint at encoder_path back"
        )
    if not any(shown):
        raise UserError(f"{questions.data}: none of these tasks fits on one image of {run.config.image_size} pixels")
    config = run.config.with_changes(
        source_paths=[IN_MEMORY],
        output_dir=str(run.paths.evaluation / f"{file_name(questions.data)}-{count}-views-{questions.digest}"),
        encoder_precision=precision_of(frozen, run.config),
        fit_encoder=None,
        include_grids=True,
        limit=None,
        max_errors=None,
        test_fraction=0,
        arc_forms=0,
        train_steps=0,
    )
    return Run(config, samples=_Samples(questions, shown), encoder=encoder)


@dataclass(frozen=True, slots=True, eq=False)
class _Samples:
    """The items of the views, made anew each time they are walked."""

    questions: Questions
    shown: Sequence[Sequence[View]]

    def __iter__(self) -> Iterator[Item]:
        return items_of(self.questions, self.shown)


def file_name(data: str) -> str:
    """What stands for a source path in the name of a file: letters, digits, dots and dashes, at most 60."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", data).strip("-.")[-60:] or "tasks"


def write_result(result: ArcResult, file: Path) -> None:
    """Write the submission, and all that was found beside it as `<name>.results.json`; the folder is made."""
    submission = result.submission
    check_submission(submission, result.questions.test_inputs)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, json.dumps(submission).encode())
    write_file(file.with_suffix(".results.json"), json.dumps(result.as_json(), indent=1).encode())


@torch.inference_mode()
def _predictions(
    model: GridModel, dataset: CapsuleDataset, places: Sequence[int], predicting: Callable[[int, int], None]
) -> Iterator[tuple[np.ndarray | None, float]]:
    """The grid for each of these samples after the last recursion step, and q: how sure the model is of it, 0 to 1."""
    objective = model.objective
    for first in range(0, len(places), model.batch):
        with cpu_threads(model.threads):
            capsules = dataset.capsules(places[first : first + model.batch])
            classes, q = last_step(model.net, to_device({"capsules": capsules}, model.device), model.steps)
        yield from zip(
            grids_at_top_left(classes.reshape(-1, *objective.shape), objective.outside), q.tolist(), strict=True
        )
        predicting(min(first + model.batch, len(places)), len(places))


def last_step(net: TinyRecursiveModel, batch: dict[str, torch.Tensor], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The classes int64 (b, s) after the last of `steps` recursion steps, and q float64 (b,).

    q is the sigmoid of the halting logit, taken in float64 as published, so that sure predictions stay apart.
    """
    carry = net.initial_carry(batch)
    for _ in range(steps):
        carry, outputs = net(carry, batch)
        carry = replace(carry, halted=torch.zeros_like(carry.halted))  # all rows go on to the last step
    q = outputs["q_halt_logits"].double().sigmoid()
    return outputs["logits"].argmax(-1).cpu().numpy(), q.cpu().numpy()


def _baselines(
    objective: CapsuleTargets, dataset: CapsuleDataset, questions: Questions, place: dict[str, int]
) -> dict[str, tuple[np.ndarray | None, ...]]:
    """One prediction for each test input by each baseline."""
    rows = [place.get(name_of(question, 0)) for question in questions.each]
    known = [row for row in rows if row is not None]
    near = iter(baselines.nearest_answers(objective, dataset.capsules(known).numpy()))
    return {
        baselines.IDENTITY: tuple(map(baselines.identity, questions.each)),
        baselines.COLOUR: tuple(map(baselines.most_common_colour, questions.each)),
        baselines.NEAREST: tuple(None if row is None else next(near) for row in rows),
    }


def _learnt(objective: CapsuleTargets, dataset: CapsuleDataset) -> frozenset[str]:
    """The tasks of which a view is an image that the model has learnt from."""
    keys = objective.dataset.column("key")
    rows = objective.rows[objective.train]
    seen = {keys[place] for place in objective.dataset.rows.searchsorted(rows).tolist()}
    pairs = zip(dataset.sample_ids, dataset.column("key"), strict=True)
    return frozenset(name.rpartition("/")[0] for name, key in pairs if key in seen)
