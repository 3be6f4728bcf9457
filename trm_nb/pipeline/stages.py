"""The stages of a run, in order; `pipeline.run` hands each what it needs.

Each does one thing: it makes what is missing and returns what it found, and none calls another.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Literal, TypeAlias

from trm_nb.cache.image_cache import ImageCache
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.pipeline.dataset_files import samples_table
from trm_nb.pipeline.plan import refuse_too_many_errors
from trm_nb.progress.run_folder import RunPaths
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import Progress, Sample

if TYPE_CHECKING:
    from trm_nb.models.encoder import Encoder
    from trm_nb.training.results import Result

DatasetStage: TypeAlias = Literal["plan", "render", "denoise", "fit", "encode", "consolidate", "export"]
Stage: TypeAlias = DatasetStage | Literal["train"]
STAGES: tuple[Stage, ...] = ("plan", "render", "denoise", "fit", "encode", "consolidate", "export", "train")


def plan(planned: Iterable[Sample], tracker: TrainingProgressTracker, on_progress: Progress | None = None) -> int:
    """Give each sample its row without rendering it; returns how many rows there are.

    It reads all sources. Rendering plans as it goes, so this is for those who want to know what a run will hold.
    """
    tick = tracker.beating(on_progress)
    for _ in planned:
        tick()
    return tracker.rows_planned()


def render(
    planned: Iterable[Sample],
    cache: ImageCache,
    tracker: TrainingProgressTracker,
    max_errors: int | float | None = None,
    on_progress: Progress | None = None,
    stage: Literal["render", "denoise"] = "render",
) -> int:
    """Render, and denoise where the cache is to, the samples whose image is missing.

    Args:
        planned: samples as the planner hands them on.
        cache: where the images go.
        tracker: the run's.
        max_errors: how much may be quarantined; a count, or below 1 a part of all.
        on_progress: called often.
        stage: what the tracker shows meanwhile.

    Returns:
        How many images are new.

    Raises:
        UserError: when more is quarantined than `max_errors`.
    """
    tick = tracker.beating(on_progress)

    def resolved(keys: list[str], failed: dict[str, str]) -> None:
        tracker.resolve(keys, failed)
        if failed:
            refuse_too_many_errors(tracker, max_errors)
        tick()

    with tracker.stage(stage):
        rendered = cache.fill(planned, resolved, tick)
        refuse_too_many_errors(tracker, max_errors, final=True)
        return rendered


def fit(
    encoder: Encoder,
    config: MultimodalDatasetConfig,
    cache: ImageCache,
    tracker: TrainingProgressTracker,
    on_progress: Progress | None = None,
) -> None:
    """Train an encoder on the cached images of a run, and save it in the run's folder."""
    from trm_nb.training.encoder import ImageTargets, fit_encoder

    examples = ImageTargets(samples_table(tracker, cache.denoise_results), cache, encoder, tracker.paths.root)
    tracker.freeze("encode", config.stage_fields("encode"))
    fit_encoder(tracker.paths.fitted_encoder, examples, config, tracker, on_progress)


def train(
    config: MultimodalDatasetConfig,
    tracker: TrainingProgressTracker,
    alone: AbstractContextManager[None],
    on_progress: Progress | None = None,
) -> Result:
    """Train the model of the config's name on a finished dataset, and measure it on the held-out samples.

    `alone` is entered once there is something to learn from, and keeps other processes from this model.

    Raises:
        UserError: when there is nothing to learn from or to measure on, or the model of this name is one of other
            settings; after its folder is deleted, training starts from the beginning.
    """
    from trm_nb.training.train_objective import examples_of, planned, train_model
    from trm_nb.workers.distributed import ranks

    ranks().wait()  # the others read the dataset, which is complete now
    objective = examples_of(tracker.paths.root, config)  # first, so that a mistake can be corrected
    with alone:
        paths = tracker.paths.model(config.model)
        config, cost = planned(paths, objective, config)
        if cost:
            say(f"training {config.model}: {cost}")
        tracker.ask_training(config.model, config.train_steps)
        return train_model(paths, objective, config, tracker, on_progress)


def say(line: str) -> None:
    """Print a line; output that nobody reads ends no build."""
    with suppress(BrokenPipeError):
        print(line, flush=True)


def follow(config: MultimodalDatasetConfig, paths: RunPaths) -> None:
    """Take part in the training that the first process of a group leads; writes nothing into the run's folder."""
    from trm_nb.training import train_objective
    from trm_nb.workers.distributed import ranks

    ranks().wait()
    train_objective.follow(paths.model(config.model), train_objective.examples_of(paths.root, config), config)
