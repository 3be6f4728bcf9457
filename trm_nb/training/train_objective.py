"""Trains a TinyRecursiveModel on a finished run, with the examples and the recipe of the run's objective."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.training.objective import Objective
from trm_nb.training.objectives import objective_named
from trm_nb.training.predictions import Predictions, evaluate
from trm_nb.training.reasoning import Examples, Settings, dtype_on, train

HEAD_WIDTH = 32  # numbers of an attention head
AVERAGE, WARM_UP = 0.99, 50
LOG_EVERY, CHECKPOINT_EVERY = 10, 100


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
    model = train(folder, examples, settings, tracker, on_step=on_step)
    return evaluate(model, examples, settings, config.test_steps)


def examples_of(output_dir: str | Path, config: MultimodalDatasetConfig) -> Objective:
    """The examples that a finished run holds for `config.objective`; raises NothingToLearnError where it has none."""
    objective, width = objective_named(config.objective), config.train_width
    return objective(
        CapsuleDataset(output_dir), hidden_size=width, num_heads=width // HEAD_WIDTH,
        forward_dtype=dtype_on(config.device), **objective.recursion,
    )  # fmt: skip


def settings_of(config: MultimodalDatasetConfig) -> Settings:
    """How `config` trains its TRM."""
    return Settings(
        config.train_steps, batch=config.train_batch_size, learning_rate=config.learning_rate,
        weight_decay=config.weight_decay, average=AVERAGE, warm_up=WARM_UP, seed=config.seed, log_every=LOG_EVERY,
        checkpoint_every=CHECKPOINT_EVERY,
        torch_threads=config.torch_threads, device=config.device,
    )  # fmt: skip
