"""Evaluates a finished model on ARC tasks by the published protocol; see scoring.py for what is counted.

Views of the tasks become a run of their own in the folder of the model's run, with the same rendering and the same
encoder. So they are rendered in parallel, an interruption continues, and another model of the run finds them encoded.
The weights are those that the training left; predictions of earlier checkpoints are never counted, unlike in the
official training, whose evaluations vote together.
Cost: a view is an image to render and to encode, and a prediction; about 1 KB of memory each.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.errors import RejectedError, UserError
from trm_nb.evaluation.arc import baselines
from trm_nb.evaluation.arc.adapt import Adapter, demonstrations_of
from trm_nb.evaluation.arc.candidates import candidates_of
from trm_nb.evaluation.arc.questions import Asked, Question, Questions, read_questions, views_of
from trm_nb.evaluation.arc.result import ArcResult
from trm_nb.evaluation.arc.submission import check_submission
from trm_nb.pipeline.encode_task import precision_of
from trm_nb.pipeline.prediction.model import Model
from trm_nb.pipeline.run import Run
from trm_nb.records import IN_MEMORY, Item, Progress
from trm_nb.render.renderer import Renderer, RenderSettings
from trm_nb.sources.arc.augment import View
from trm_nb.storage.files import write_file
from trm_nb.training.targets import CapsuleTargets


class Watch(Protocol):
    """What receives the progress."""

    def encoding(self, run: Run, images: int) -> AbstractContextManager[Progress]:
        """Entered before so many images are rendered and encoded in `run`; gives what is to be called often."""
        ...

    def predicting(self, done: int, total: int) -> None:
        """Called now and then, and at the end."""
        ...


def evaluate_arc(
    folder: Path,
    name: str,
    data: str,
    count: int,
    watch: Watch,
    *,
    device: str | None = None,
    adapt: float | None = None,
) -> ArcResult:
    """Ask a model of the objective `grid` about every test input of some tasks, in up to `count` views, and score it.

    Args:
        folder: of a finished run.
        name: of a finished model in it.
        data: as `read_questions` takes it.
        count: views of a task, itself among them.
        watch: receives the progress.
        device: as `Model.load` takes it.
        adapt: seconds for which a copy of the model learns from each task's own demonstrations (adapt.py).

    Raises:
        UserError: for a model of another objective, and as `Model.load` and `read_questions` do.
    """
    if count < 1:
        raise UserError(f"views: expected at least 1, got {count}")
    if adapt is not None and not 0 < adapt < math.inf:
        raise UserError(f"adapt: expected seconds above 0, got {adapt}")
    model = Model.load(folder, name, device=device)
    if model.config.objective != "grid":
        raise UserError(
            f"{folder}: expected a model of the objective 'grid', got {model.config.objective!r}; train one with "
            "`trm-nb train DIR --model NAME -p objective=grid`"
        )
    questions = read_questions(data)
    asked = asked_of(model.config, questions, count)
    if not asked.count:
        raise UserError(f"{data}: none of these tasks fits on one image of {model.config.image_size} pixels")
    learnt = asked_of(model.config, demonstrations_of(questions), count) if adapt else None
    dataset = encoded(model.config, [asked, learnt] if learnt else [asked], count, watch)
    rows = asked.rows(dataset.sample_ids)
    assert isinstance(model.objective, CapsuleTargets)
    adapter = Adapter(model, dataset, learnt, adapt) if learnt and adapt else None
    steps = model.config.test_steps or model.network.config.halt_max_steps
    return ArcResult(
        model=name,
        steps=steps,
        questions=questions,
        views=count,
        asked=sum(map(len, rows)),
        candidates=candidates_of(model, steps, dataset, asked, rows, watch.predicting, adapter),
        adapted=adapter.steps if adapter else 0,
        not_adapted=adapter.without if adapter else 0,
        baselines=_baselines(model.objective, dataset, questions, rows),
        learnt=_learnt(model.objective, dataset, questions, rows),
    )


def asked_of(config: MultimodalDatasetConfig, questions: Questions, count: int) -> Asked:
    """Each question in those of up to `count` views that fit on one image, as a model reads one."""
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
    return Asked(questions, shown)


def encoded(config: MultimodalDatasetConfig, asked: Sequence[Asked], count: int, watch: Watch) -> CapsuleDataset:
    """The capsules of up to `count` views, of a run of their own, as those of the run of `config` were made."""
    first = asked[0].questions
    with closing(Run(config, sources_needed=False)) as run:
        frozen, name = run.tracker.frozen(), f"{file_name(first.data)}-{count}-views-{first.digest}"
        if len(asked) > 1:
            name += "-with-demonstrations"
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
            arc_side=None,
            train_steps=0,
        )
        with closing(Run(changed, samples=_Samples(asked), encoder=run.encoder)) as views_run:
            with watch.encoding(views_run, sum(one.count for one in asked)) as tick:
                views_run.build(tick)
            return CapsuleDataset(views_run.path)


@dataclass(frozen=True, slots=True, eq=False)
class _Samples:
    """The items of the views, made again each time they are iterated over."""

    asked: Sequence[Asked]

    def __iter__(self) -> Iterator[Item]:
        return chain.from_iterable(one.items() for one in self.asked)


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


def _learnt(
    objective: CapsuleTargets, dataset: CapsuleDataset, questions: Questions, rows: Sequence[Mapping[int, int]]
) -> frozenset[str]:
    """The tasks of which a view is an image that the model has learnt from, or was chosen by."""
    keys = objective.dataset.column("key")
    learnt = objective.rows[np.concatenate([objective.train, objective.val])]
    seen = {keys[place] for place in objective.dataset.rows.searchsorted(learnt).tolist()}
    asked = dataset.column("key")
    known = zip(questions.each, rows, strict=True)
    return frozenset(question.task for question, of in known if any(asked[place] in seen for place in of.values()))
