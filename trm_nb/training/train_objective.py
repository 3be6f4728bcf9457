"""Trains a TinyRecursiveModel on a finished run, with the examples and the recipe of the run's objective.

`train_model` makes one of the run's models, with all that its folder holds; `train_objective` only trains and measures,
on any examples.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.errors import UserError
from trm_nb.models.hardware import fast_in_bfloat16
from trm_nb.progress import model_record
from trm_nb.progress.run_folder import ModelPaths
from trm_nb.progress.tables import train_stage
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.storage.files import fsync_folder, locked
from trm_nb.training.budget import cost_of
from trm_nb.training.model_results import write_results
from trm_nb.training.objective import Objective
from trm_nb.training.objectives import objective_named
from trm_nb.training.predictions import Predictions, evaluate
from trm_nb.training.reasoning import dtype_on, train
from trm_nb.training.results import Result, result_of
from trm_nb.training.state import Examples, Settings
from trm_nb.workers.distributed import ranks

HEAD_WIDTH = 32  # numbers of an attention head
AVERAGE, WARM_UP = 0.99, 50
LOG_EVERY, CHECKPOINT_EVERY = 10, 100
FEW_STEPS = 100  # whose cost is not worth measuring


def train_model(
    paths: ModelPaths,
    objective: Objective,
    config: MultimodalDatasetConfig,
    tracker: TrainingProgressTracker,
    on_step: Callable[[], None] | None = None,
) -> Result:
    """Train the model of a folder for `config.train_steps` steps, measure it, and write what `ModelPaths` names.

    The held-out samples are evaluated once, by the weights of the best step, after the last step of the training. It
    goes on from the checkpoint there, and only measures when that has enough steps. The results of an earlier end are
    removed while the training goes on, so that they never contradict the checkpoint.

    Raises:
        UserError: when the model there was trained with other settings or on another dataset, naming the difference.
    """
    _refuse_parts(objective, config)
    digest = str(objective.dataset.info["content_digest"])
    model_record.refuse_other_settings(paths, {model_record.DIGEST: digest, **model_record.fixed_fields(config)})
    values = model_record.settings_of(config, digest)
    model_record.write_settings(paths, values)
    settings = settings_of(config)
    done = model_record.last_step(paths.metrics)
    if not (paths.checkpoint.is_file() and model_record.has_ended(paths, done, settings.steps)):
        _remove_results(paths)
    stage = train_stage(config.model)
    trained = train(paths.root, objective, settings, tracker, stage=stage, on_step=on_step)
    asked = (trained.model, objective, settings, config.test_steps)
    val = evaluate(*asked, part="val") if trained.validated else None
    result = result_of(objective, evaluate(*asked), trained, val)
    write_results(paths, result, trained, values)
    return result


def planned(
    paths: ModelPaths, objective: Objective, config: MultimodalDatasetConfig
) -> tuple[MultimodalDatasetConfig, str]:
    """The config with its `train_minutes` counted as steps, and what the training will cost, as a sentence.

    That is measured before a training begins; the sentence is empty for one that continues, or has few steps.
    """
    minutes = config.train_minutes
    if minutes is not None and paths.is_begun():
        return config.with_changes(train_steps=model_record.steps_asked(paths, config), train_minutes=None), ""
    if minutes is None and (paths.is_begun() or ranks().size > 1 or config.train_steps < FEW_STEPS):
        return config, ""
    cost = cost_of(objective, settings_of(config))
    if minutes is not None:
        config = config.with_changes(train_steps=cost.steps_in(minutes), train_minutes=None)
    return config, cost.sentence(config.train_steps)


def _remove_results(paths: ModelPaths) -> None:
    """The card first, as it says that the others are there."""
    for path in reversed(paths.results):
        path.unlink(missing_ok=True)
    fsync_folder(paths.root)


def follow(paths: ModelPaths, objective: Objective, config: MultimodalDatasetConfig) -> None:
    """Take part in the training of a model in another process, which does all writing: see workers/distributed.py."""
    _refuse_parts(objective, config)
    with tempfile.TemporaryDirectory() as name, closing(TrainingProgressTracker(name, create=True)) as tracker:
        settings = replace(settings_of(config), steps=model_record.steps_asked(paths, config), logger=None)
        train(Path(name), objective, settings, tracker, leader=paths.root)


def _refuse_parts(objective: Objective, config: MultimodalDatasetConfig) -> None:
    if objective.among_samples and ranks().size > 1:
        raise UserError(
            f"objective={config.objective}: one sample of a batch is chosen among the others, so a batch cannot be "
            "divided among processes; train it without torchrun"
        )


def train_objective(
    folder: Path,
    examples: Examples,
    config: MultimodalDatasetConfig,
    tracker: TrainingProgressTracker,
    on_step: Callable[[], None] | None = None,
) -> Predictions:
    """Train in `folder` for `config.train_steps` steps; what the model says of the held-out examples.

    Goes on from the checkpoint there, and only measures when that has enough steps. Raises UserError when the
    checkpoint is of something else.
    """
    settings = settings_of(config)
    with locked(folder, "training"):
        trained = train(folder, examples, settings, tracker, on_step=on_step)
    return evaluate(trained.model, examples, settings, config.test_steps)


def examples_of(output_dir: str | Path, config: MultimodalDatasetConfig, **sizes: Any) -> Objective:
    """The examples that a finished run holds for `config.objective`; raises NothingToLearnError where it has none.

    `sizes` are those of `TRMConfig` that differ from the objective's recipe, for studies.
    """
    objective, width = objective_named(config.objective), config.train_width
    local = {"local": True} if config.mixing == "neighbours" else {}
    return objective(
        CapsuleDataset(output_dir), hidden_size=width, num_heads=width // HEAD_WIDTH,
        forward_dtype=dtype_on(config.device), **{**objective.recursion, **local, **sizes},
    )  # fmt: skip


def settings_of(config: MultimodalDatasetConfig) -> Settings:
    """How `config` trains its TRM."""
    return Settings(
        config.train_steps, batch=config.train_batch_size, learning_rate=config.learning_rate,
        muon_rate=config.muon_rate, weight_decay=config.weight_decay, cool_down=config.cool_down,
        bfloat16=config.train_precision == "auto" and fast_in_bfloat16(config.device), average=AVERAGE, warm_up=WARM_UP,
        seed=config.training_fields()["train_seed"], log_every=LOG_EVERY, checkpoint_every=CHECKPOINT_EVERY,
        torch_threads=config.torch_threads, device=config.device, validate_every=config.validate_every,
        patience=config.early_stopping, logger=config.logger,
    )  # fmt: skip
