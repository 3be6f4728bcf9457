"""build(config) and open_run(params): the only place that wires the stages.

A `Run` is one output folder and its config. `run.up_to(stage)` performs what is missing of the stages up to that one,
in order, so that a notebook may start anywhere. `build` is all of them, with rendering and encoding overlapped. The
folder is locked while something is written, not while a Run lives.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.describe import printable
from trm_nb.errors import DamagedError, UserError
from trm_nb.params import load_params, resolve_paths
from trm_nb.pipeline.check import check, encode_settings, refuse_overlap
from trm_nb.pipeline.dataset_files import write_info
from trm_nb.pipeline.encode_task import COMPUTED_IN, ENCODER, precision_of
from trm_nb.pipeline.repair import recover
from trm_nb.pipeline.run_stages import RunStages
from trm_nb.pipeline.stages import DatasetStage, follow, plan, say, train
from trm_nb.progress.model_record import recorded_fields, steps_asked
from trm_nb.progress.run_folder import RunPaths
from trm_nb.progress.run_settings import fixed_settings, in_project, last_settings, remember_settings
from trm_nb.progress.stats import NOTEBOOKS
from trm_nb.progress.tables import SUSPECT
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import Progress
from trm_nb.storage.files import LOCK_SECONDS, locked
from trm_nb.workers.dask_cluster import connect

if TYPE_CHECKING:
    from trm_nb.training.results import Result

BEGIN_SECONDS = 10.0  # how long a training waits for others that begin at the same moment
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BuildReport:
    """A complete dataset, and what this call added to it.

    Attributes:
        output_dir: the run's folder, absolute.
        content_digest: 16 hex digits over the samples' keys, status and order and the capsules' bytes.
        rows: samples of the whole dataset, those in quarantine included.
        quarantined: items and samples that could not be used.
        images_rendered, batches_encoded: what is new since this call.
        training: the result of the config's model on held-out samples; None where the config asks for no training.
        notes: what was not done as asked of items that are used, by item id.
    """

    output_dir: Path
    content_digest: str
    rows: int
    quarantined: int
    images_rendered: int
    batches_encoded: int
    training: Result | None
    notes: dict[str, str]


def build(config: MultimodalDatasetConfig, on_progress: Progress | None = None) -> BuildReport:
    """Build the dataset of `config`, and train on it where the config asks for that. ONE call; it resumes.

    Run again after an interruption it says what it found and continues; on a complete run it changes nothing. It works
    from a script without a main guard, from standard input and in a notebook.

    Args:
        config: what is read, how it is rendered and encoded, and what is trained. Its relative paths are relative to
            the current folder.
        on_progress: called without arguments, often, by whichever stage is at work.

    Returns:
        The whole dataset's folder, digest and counts, what this call added, and the training's result.

    Raises:
        UserError: for what the user can correct: a mistake in the config or the sources, settings that differ from
            those the run was made with, or another process that writes the run.
        DamagedError: for data that is missing or altered; calling it again repairs it.
    """
    run = Run(resolve_paths(config, Path.cwd()))
    try:
        rendered, encoded = run.build(on_progress)
        training = run.train(on_progress) if run.config.trains else None
        rows, bad, notes = run.tracker.rows_planned(), len(run.tracker.rejected()), run.tracker.notes()
        return BuildReport(run.path, run.info()["content_digest"], rows, bad, rendered, encoded, training, notes)
    finally:
        run.close()


def open_run(
    params: str | Path | None = None,
    output_dir: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Run:
    """Open the run of a params file, or of a folder. Nothing is written before a stage is performed.

    What the stages of an existing run and the training of its `model` have fixed comes before the params file, which
    serves for the rest and for a new run or model. Without `params`, a run is opened by its folder alone, with the
    settings it was last worked on with, and its model with those that the model was last trained with; once it is
    finished, its sources need not be there. Relative paths are relative to the project's root.

    Args:
        params: a YAML file, relative to the current folder or to the project's root; None: open `output_dir`.
        output_dir: the run's folder, instead of the one that `params` names.
        overrides: values by config field, which come before all others, also where they are None.
        fields: likewise, as keywords; those that are None are left out.

    Returns:
        The run. Its stages are performed by `up_to`, `build` and `train`.

    Raises:
        UserError: for a file that is not there or not YAML, an unknown field or a value out of range, and a folder
            without settings where no params file is given. A stage refuses overrides that differ from what is fixed.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    given |= {} if output_dir is None else {"output_dir": str(output_dir)}
    given |= overrides or {}
    if params is None:
        return _open_by_folder(given)
    config = load_params(params, given)
    folder = Path(config.output_dir)
    fixed = fixed_settings(folder) | recorded_fields(RunPaths(folder).model(config.model), fixed=True)
    fixed = {name: value for name, value in fixed.items() if name not in given}
    asked = json.loads(config.model_dump_json())
    unasked = {"train_seed"} if config.train_seed is None else set()  # which follows from the seed
    unused = [name for name, value in fixed.items() if asked[name] != value and name not in unasked]
    if unused:
        shown = ", ".join(f"{name}={printable(repr(fixed[name]))}" for name in unused[:3])
        more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
        log.warning("%s was made with %s%s, and not with what %s says there", config.output_dir, shown, more, params)
    return Run(config.with_changes(**fixed))


def _open_by_folder(given: dict[str, Any]) -> Run:
    folder = in_project(given.get("output_dir") or "")
    own = last_settings(folder) | fixed_settings(folder) if given.get("output_dir") else {}
    config = MultimodalDatasetConfig.parse({**own, **given}, "open_run")
    if given.get("output_dir"):
        own |= recorded_fields(RunPaths(folder).model(config.model))
        config = MultimodalDatasetConfig.parse({**own, **given}, "open_run")
    config = resolve_paths(config, in_project(""))
    return Run(config, sources_needed="source_paths" in given)


class Run(RunStages):
    """One output folder, its config and its stages. Use `open_run` to get one."""

    _locked = False

    @contextmanager
    def writing(self, purpose: str, seconds: float = LOCK_SECONDS) -> Iterator[None]:
        """Hold the folder's lock, also for what the block calls.

        Args:
            purpose: what the error says to others who want to write, as "training".
            seconds: how long to wait for another process that holds it.

        Raises:
            UserError: when another process keeps it for longer.
        """
        if self._locked:
            yield
            return
        with locked(self.path, purpose, seconds), self._suspecting():
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    @contextmanager
    def _suspecting(self) -> Iterator[None]:
        """Have the next run read and hash everything where the block meets damage."""
        try:
            yield
        except DamagedError:
            with suppress(UserError, DamagedError):  # the error that is being raised says more
                self.tracker.set(SUSPECT, True)
            raise

    def up_to(self, stage: DatasetStage, on_progress: Progress | None = None) -> int:
        """Perform what is missing of the stages up to this one, in order.

        Args:
            stage: a name in STAGES, but for "train". "plan" is performed by "render", as it goes, unless it is the
                stage that is asked for.
            on_progress: called often.

        Returns:
            How many rows there are after "plan"; how many images, batches or chunks the other stages have newly made
            (of images, those of "render" and "denoise" together).

        Raises:
            UserError: for a mistake in the config or its sources, and when another process writes the run.
            DamagedError: for data that is missing or altered; running again repairs it.
        """
        with self.writing(stage):
            if not self.sources_needed and self._finished():
                return self.tracker.rows_planned() if stage == "plan" else 0
            self._prepare()
            if stage == "plan":
                return plan(self._planned(), self.tracker, on_progress)
            return self._up_to(stage, on_progress)

    def build(self, on_progress: Progress | None = None) -> tuple[int, int]:
        """Perform all stages but "train", with rendering and encoding overlapped.

        Says first, on standard output, what an interrupted run left.

        Args:
            on_progress: called often.

        Returns:
            How many images and how many batches are new.

        Raises:
            UserError, DamagedError: as `up_to` does.
        """
        with self.writing("building"):
            if not self.sources_needed and self._finished():
                return 0, 0
            self._prepare()
            self.tracker.ask(NOTEBOOKS, [])
            announce(self.tracker)
            made = self._overlapped(on_progress)
            self._up_to("export", on_progress)
            return made

    def complete(self, on_progress: Progress | None = None) -> None:
        """See that the dataset is finished and whole by its files' sizes; only where it is not, sources are read.

        Args:
            on_progress: called often.

        Raises:
            UserError, DamagedError: as `up_to` does.
        """
        with self.writing("completing the dataset"):
            write_info(self.tracker)
            if not self._finished():
                self.up_to("export", on_progress)

    def train(self, on_progress: Progress | None = None) -> Result:
        """Train the config's `model` as long as that says, and measure it on the held-out samples.

        The dataset is completed first. A model that is there continues where it stopped; after its folder in models/ is
        deleted, training starts from the beginning, also with other settings. The run is locked only until the training
        begins, the model's folder until its end: so models of one run can be trained side by side.

        Args:
            on_progress: called often.

        Returns:
            The accuracy on the held-out samples beside its baselines, with intervals and verdicts.

        Raises:
            UserError: when there are no steps, nothing to learn from or to measure on, a model of this name that was
                trained with other settings, or another process that trains it.
        """
        if not self.config.trains:
            raise UserError("train_steps is 0, so there is nothing to train; set it, for example train_steps=1000")
        refuse_former_model(self.paths)
        if not self._finished():  # looked at without the lock, so that many can begin at once
            self.complete(on_progress)
        with self._suspecting():
            result = train(self.config, self.tracker, self._training_alone(), on_progress)
        with self.writing("recording a result", BEGIN_SECONDS):
            write_info(self.tracker)
        return result

    @contextmanager
    def _training_alone(self) -> Iterator[None]:
        """Hold the lock of the model's folder, taken under the run's, so that `reset` finds whoever began."""
        with ExitStack() as stack:
            with self.writing("beginning a training", BEGIN_SECONDS):
                stack.enter_context(locked(self.paths.model(self.config.model).root, "training"))
                self.tracker.end_stages_of_the_dead()
            yield

    def follow(self) -> None:
        """Take part in `train` of the first process of a group that torchrun started; see workers/distributed.py."""
        follow(self.config, self.paths)

    def _prepare(self) -> None:
        """See that the run can go on as the config says, and then recover what an interruption or damage left."""
        if self._samples is None:
            refuse_overlap(self.config)
        check(self.config, self.tracker, self.cache)
        if self.config.cluster and not self._all_encoded():
            self._ask_the_cluster(self.config.cluster)
        remember_settings(self.tracker, self.config)
        recover(self.tracker, self.cache, self.consolidator, encode_settings(self.config), self._replan)
        self.tracker.ask_training(self.config.model, steps_asked(self.paths.model(self.config.model), self.config))

    def rebuild(self) -> None:
        """Make a lost tracker again, and the dataset's files where nothing has to be rendered or encoded for that."""
        with self.writing("rebuilding the tracker"):
            self._prepare()
            if self._all_rendered() and self._all_encoded():
                self._up_to("export", None)

    def _replan(self) -> dict[str, str]:
        """Plan once more, without rendering; returns what the batches were encoded with."""
        plan(self._planned(), self.tracker)
        frozen = self.tracker.frozen()
        weights = frozen.get(ENCODER) or self.encoder.fingerprint
        return {ENCODER: weights, COMPUTED_IN: precision_of(frozen, self.config)}

    def _ask_the_cluster(self, address: str) -> None:
        """See that it answers, and that its workers see the run's folder and the sources."""
        given = [Path(name) for name in (*self.config.source_paths, self.config.denoiser_path) if name]
        connect(address).refuse_blind_workers([self.path.absolute(), *(path for path in given if path.exists())])


def refuse_former_model(paths: RunPaths) -> None:
    """Raise UserError where a run has the one model of an earlier version, whose training cannot be continued."""
    model = paths.former_model
    if (model / "trm.pt").is_file() and not paths.models.exists():
        raise UserError(
            f"{model / 'trm.pt'}: this model was trained by an earlier version of trm-nb and cannot be continued; move "
            f"{model / 'encoder'}, if there is one, to {paths.encoder}, delete {model}, and train again"
        )


def announce(tracker: TrainingProgressTracker) -> None:
    """Say what an interrupted run left."""
    batches, chunks = len(tracker.batches()), len(tracker.chunks())
    if batches or chunks:
        say(f"Found existing progress: {batches} batches + {chunks} chunks")
