"""build(config) and open_run(params): the only place that wires the stages.

A `Run` is one output folder and its config. Its stages are methods; each first completes what comes before it, does
what is missing, and returns at once when there is nothing to do, so that a notebook may start anywhere. `build` is
all of them with drawing and encoding overlapped. The folder is locked while something is written, not while a Run
lives.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from trm_nb.cache.image_cache import ImageCache
from trm_nb.config import STAGES, MultimodalDatasetConfig
from trm_nb.describe import Described, Facts, attempted, counted, named, printable
from trm_nb.errors import UserError
from trm_nb.params import load_params, resolve_paths
from trm_nb.pipeline.builder import StreamingEncoderBuilder
from trm_nb.pipeline.consolidate import Consolidator
from trm_nb.pipeline.dataset_files import damaged_files, finish_dataset, samples_table
from trm_nb.pipeline.encode_task import COMPUTED_IN, encoding_of, precision_for
from trm_nb.pipeline.plan import Planner, as_noted
from trm_nb.pipeline.repair import mend, noting_damage, take_stock
from trm_nb.pipeline.source_changes import source_changes
from trm_nb.progress.run_folder import MODEL, is_run, refuse_foreign
from trm_nb.progress.run_settings import fixed_settings, in_project, last_settings, remember_settings
from trm_nb.progress.stats import NOTEBOOKS, TRAIN_STEPS
from trm_nb.progress.tables import SUSPECT
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import Item, Progress, Rejected, Sample
from trm_nb.render.renderer import RenderSettings
from trm_nb.sources.reader import scan
from trm_nb.sources.roots import reads_from
from trm_nb.storage.files import locked
from trm_nb.workers.dask_cluster import connect

if TYPE_CHECKING:
    from trm_nb.models.vision_encoder import TRMVisionEncoder
    from trm_nb.training.answers import Answers

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BuildReport:
    """A complete dataset, and what this call added to it.

    `quarantined` counts items and samples that could not be used. `training` is None where the config asks for none.
    `notes` say, by item, what of those that are used was not done as asked.
    """

    output_dir: Path
    content_digest: str
    rows: int
    quarantined: int
    pictures_drawn: int
    batches_encoded: int
    training: Answers | None
    notes: dict[str, str]


def build(config: MultimodalDatasetConfig, on_progress: Progress | None = None) -> BuildReport:
    """Build the dataset of `config`, and train on it where `train_steps` asks for that. ONE call; it resumes.

    Run again after an interruption it says what it found and continues; on a complete run it changes nothing.
    Raises UserError for what the user can mend, DamagedError for data that is no longer what was written.
    """
    run = Run(resolve_paths(config, Path.cwd()))
    try:
        with run.writing("building"):
            run.prepare()
            run.tracker.ask(NOTEBOOKS, [])
            run.builder.announce()
            drawn, encoded = run.stream(on_progress)
            run.consolidate(on_progress)
            training = run.train(on_progress) if run.config.train_steps else None
            rows, bad, notes = run.tracker.rows_planned(), len(run.tracker.rejected()), run.tracker.notes()
        return BuildReport(run.path, run.info()["content_digest"], rows, bad, drawn, encoded, training, notes)
    finally:
        run.close()


def open_run(
    params: str | Path | None = None,
    output_dir: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Run:
    """The run of a params file, with other values where `fields` are not None, and whatever `overrides` hold.

    What the stages of an existing run have fixed comes before the params file, which serves for the rest and for a new
    run; `fields` and `overrides` come first of all, and a stage refuses those that differ from what is fixed. Without
    `params`, a run is opened by its folder alone, with the settings it was last worked on with; once it is finished,
    its sources need not be there. Relative paths are relative to the project's root. Raises UserError.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    given |= {} if output_dir is None else {"output_dir": str(output_dir)}
    given |= overrides or {}
    if params is None:
        return _open_by_folder(given)
    config = load_params(params, given)
    fixed = {n: v for n, v in fixed_settings(Path(config.output_dir)).items() if n not in given}
    unused = [name for name, value in fixed.items() if json.loads(json.dumps(getattr(config, name))) != value]
    if unused:
        shown = ", ".join(f"{name}={printable(repr(fixed[name]))}" for name in unused[:3])
        more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
        log.warning("%s was made with %s%s, and not with what %s says there", config.output_dir, shown, more, params)
    return Run(config.with_changes(**fixed))


def _open_by_folder(given: dict[str, Any]) -> Run:
    folder = in_project(given.get("output_dir") or "")
    own = last_settings(folder) | fixed_settings(folder) if given.get("output_dir") else {}
    config = MultimodalDatasetConfig.parse({**own, **given}, "open_run")
    config = resolve_paths(config, in_project(""))
    return Run(config, sources_needed="source_paths" in given)


class Run(Described):
    """One output folder, its config and its stages. Use `open_run` to get one."""

    def __init__(self, config: MultimodalDatasetConfig, sources_needed: bool = True) -> None:
        """`sources_needed`: whether a finished run's sources must be there and be those that were planned.

        Raises UserError for an objective that is not in the table, and where the folder is in use for something else.
        """
        if config.objective != type(config).model_fields["objective"].default:  # looking it up imports torch
            from trm_nb.training.objectives import objective_named

            objective_named(config.objective)
        self.config = config
        self.sources_needed = sources_needed
        self.path = Path(config.output_dir)
        refuse_foreign(self.path)
        self._depth = 0
        self._prepared = False

    # -- its parts --------------------------------------------------------------------------------------------------

    @cached_property
    def tracker(self) -> TrainingProgressTracker:
        """The run's one record of progress."""
        return TrainingProgressTracker(self.path, create=True)

    @cached_property
    def cache(self) -> ImageCache:
        """The run's pictures."""
        c = self.config
        return ImageCache(
            self.path / "images.zarr", c.use_denoiser, c.denoiser_path, render=RenderSettings.of(c),
            shard_size=c.batch_size, workers=c.workers, cluster=c.cluster,
        )  # fmt: skip

    @cached_property
    def encoder(self) -> TRMVisionEncoder:
        """The encoder: fitted to this run, or read from `encoder_path`, or with the weights of `encoder_weights`."""
        from trm_nb.models.vision_encoder import TRMVisionEncoder

        c = self.config
        path = self._fitted if c.fit_encoder and self._fitted.is_file() else c.encoder_path
        if path:
            return TRMVisionEncoder.load(path, c.device, image_size=c.image_size)
        return TRMVisionEncoder(c.encoder, seed=c.seed, image_size=c.image_size, weights=c.encoder_weights)

    @property
    def _fitted(self) -> Path:
        return self.path / "model" / "encoder" / "encoder.pt"

    @cached_property
    def builder(self) -> StreamingEncoderBuilder:
        """What draws, encodes and consolidates."""
        c = self.config
        return StreamingEncoderBuilder(
            self.path,
            c.batch_size,
            batches_per_chunk=c.batches_per_chunk,
            cache=self.cache,
            encoder=lambda: self.encoder,
            micro_batch=c.micro_batch,
            torch_threads=c.torch_threads,
            device=c.device,
            precision=c.encoder_precision,
            cluster=c.cluster,
            max_errors=c.max_errors,
            tracker=self.tracker,
            settings=self._encode_settings(),
        )

    @property
    def consolidator(self) -> Consolidator:
        """What makes chunks of batches."""
        return self.builder.consolidator

    def close(self) -> None:
        """Close the run's databases; nothing is lost without it, but the files stay open until then."""
        for name in ("tracker", "cache"):
            if name in self.__dict__:
                getattr(self, name).close()
                del self.__dict__[name]
        self.__dict__.pop("builder", None)

    # -- looking ----------------------------------------------------------------------------------------------------

    def items(self) -> Iterator[Item]:
        """The items of the sources, read anew; what cannot be used is left out (see `rejected`)."""
        for reading in scan(self.config):
            yield from (as_noted(entry, self.tracker) for entry in reading.entries if isinstance(entry, Item))

    def samples(self) -> pa.Table:
        """The plan as a table with the columns of samples.parquet, in row order."""
        return samples_table(self.tracker, self.cache.treatments)

    def rejected(self) -> list[Rejected]:
        """What is quarantined, with the reasons."""
        return self.tracker.rejected()

    def _facts(self) -> Facts:
        return {"folder": self.path, **attempted("tracker", self._progress), **attempted("dataset", self._dataset)}

    def _progress(self) -> Facts:
        if "tracker" in self.__dict__:
            return self.tracker.facts()
        if not (self.path / "progress.sqlite").is_file() and not is_run(self.path):
            return {"state": "new"}
        tracker = TrainingProgressTracker(self.path)
        try:
            return tracker.facts()
        finally:
            tracker.close()

    def _dataset(self) -> Facts:
        if not (self.path / "dataset_info.json").is_file():
            return {"dataset": "not finished"}
        info = self.info()
        counts, encoder = info["counts"], info["encoder"]
        return {
            "by split": counted(counts["splits"]),
            "by modality": counted(counts["modalities"]),
            "classes": named(info["classes"]),
            "encoder": f"{encoder['preset']}, {'trained' if encoder['trained'] else 'untrained'}",
            "content digest": info["content_digest"],
        }

    def info(self) -> dict[str, Any]:
        """dataset_info.json of a finished dataset."""
        info: dict[str, Any] = json.loads((self.path / "dataset_info.json").read_text(encoding="utf-8"))
        return info

    # -- the stages -------------------------------------------------------------------------------------------------

    @contextmanager
    def writing(self, purpose: str) -> Iterator[None]:
        """Hold the folder's lock; calls may nest. Raises UserError when another process has it."""
        if self._depth:
            yield
            return
        with locked(self.path, purpose):
            self._depth += 1
            try:
                with noting_damage(lambda: self.tracker):
                    yield
            finally:
                self._depth -= 1
                self._prepared = False

    def prepare(self) -> None:
        """See that settings and sources are those of the run and can be used, and forget what is damaged.

        Once while the folder is locked: every stage asks for it, and it lists all sources.
        """
        if self._prepared:
            return
        if not self.sources_needed and self._finished():
            return
        _refuse_overlap(self.config)
        self.tracker.end_stages_of_the_dead()
        self.tracker.check_bound(self._plan_settings() | self._encode_settings())
        if self.config.encoder_path or self.config.device != "cpu":
            self.builder.encoder  # noqa: B018 - a mistake in them is told before anything is written
        source_changes(self.config, self.tracker)
        remember_settings(self.tracker, self.config)
        if self.config.cluster and not self._all_encoded():
            self._ask_the_cluster(self.config.cluster)
        if self.tracker.was_lost():
            self.tracker.set("lost", True)  # until all is taken over, also if this is killed
        if self.tracker.get("lost", False):
            log.warning("%s: its tracker was lost and is made again from the receipts", self.path)
            self._make_tracker_again()
        mend(self.tracker, self.cache, self.consolidator)
        self.tracker.ask(TRAIN_STEPS, self.config.train_steps)
        self._prepared = True

    def _make_tracker_again(self) -> None:
        """Plan once more, without rendering, and take over all that is durable; `mend` then looks at every byte."""
        for _ in self._planned():
            self.tracker.beat()
        bound, c = self.tracker.bound(), self.config
        weights = bound.get("encoder_fingerprint") or self.encoder.fingerprint
        precision = bound.get(COMPUTED_IN) or precision_for(c.encoder_precision, c.device)
        take_stock(self.tracker, self.cache, self.consolidator, encoding_of(weights, precision))
        if self.tracker.batches():  # encoded with these settings, which `.bound.json` may have lost too
            made_with = {"encoder_fingerprint": weights, COMPUTED_IN: precision}
            self.tracker.bind("encode", {**self._encode_settings(), **made_with})
        self.tracker.set("lost", False)

    def _ask_the_cluster(self, address: str) -> None:
        """See that it answers, and that its workers see the run's folder and the sources."""
        given = [Path(name) for name in (*self.config.source_paths, self.config.denoiser_path) if name]
        connect(address).refuse_blind_workers([self.path.absolute(), *(path for path in given if path.exists())])

    def render(self, on_progress: Progress | None = None) -> int:
        """Plan, and draw every picture that needs no denoising; returns how many were new."""
        with self.writing("rendering"):
            self.prepare()
            if self._all_drawn():
                self.tracker.already_done("render")
                return 0
            return self.builder.draw((s for s in self._planned() if not self.cache.denoises(s.modality)), on_progress)

    def denoise(self, on_progress: Progress | None = None) -> int:
        """Draw and denoise what `render` left to the denoiser; returns how many pictures were new."""
        with self.writing("denoising"):
            drawn = self.render(on_progress)
            if not self._all_drawn():
                return drawn + self.builder.draw(self._planned(), on_progress, stage="denoise")
            none = "no denoiser: pictures are cached as drawn"
            self.tracker.already_done("denoise", None if self.cache.denoiser else none)
            return drawn

    def fit(self, on_progress: Progress | None = None) -> bool:
        """Train the encoder on the cached pictures, where `fit_encoder` asks for it; returns whether it had to."""
        with self.writing("fitting the encoder"):
            self.denoise(on_progress)
            if self.config.fit_encoder is None:
                return False
            if self._fitted.is_file():
                self.tracker.already_done("fit")
                return False
            from trm_nb.training.encoder import PictureTargets, fit_encoder

            examples = PictureTargets(self.samples(), self.cache, self.encoder, self.path)
            self.tracker.bind("encode", self.config.stage_fields("encode"))
            fit_encoder(self._fitted, examples, self.config, self.tracker, on_progress)
            for held in ("encoder", "builder"):  # they are of the weights before
                self.__dict__.pop(held, None)
            return True

    def encode(self, on_progress: Progress | None = None) -> int:
        """Encode every batch that is missing; returns how many were."""
        with self.writing("encoding"):
            self.fit(on_progress)
            if self._all_encoded():
                self.tracker.already_done("encode")
                return 0
            self.builder.announce()
            return self.builder.encode(on_progress)

    def stream(self, on_progress: Progress | None = None) -> tuple[int, int]:
        """Draw, denoise and encode, overlapped; returns how many (pictures, batches) were new."""
        with self.writing("building"):
            if self._all_drawn() and self._all_encoded():
                for stage in ("render", "encode"):
                    self.tracker.already_done(stage)
                return 0, 0
            if self.config.fit_encoder:
                self.fit(on_progress)  # which needs all pictures: nothing is left to overlap
            report = self.builder.stream(self._planned(), self.config.start_threshold, on_progress)
            self.denoise(on_progress)
            return report.pictures_drawn, report.batches_encoded

    def consolidate(self, on_progress: Progress | None = None) -> int:
        """Make the chunks that are missing and write the dataset's files; returns how many chunks were new."""
        with self.writing("consolidating"):
            self.encode(on_progress)
            made = self.builder.consolidate(on_progress) if self.consolidator.ready() else 0
            finish_dataset(
                self.path,
                self.config.model_dump(),
                self.tracker,
                self.consolidator,
                self.cache,
                lambda: self.encoder,
            )
            return made

    def complete(self, on_progress: Progress | None = None) -> None:
        """See that the dataset is finished and whole by its files' sizes; only where it is not, sources are read."""
        with self.writing("looking at the dataset"):
            if not self._finished():
                self.consolidate(on_progress)

    def _finished(self) -> bool:
        """Whether nothing has to be made; raises UserError for settings that differ from those it was made with."""
        c, tracker = self.config, self.tracker
        tracker.check_bound({name: value for stage in STAGES[:-1] for name, value in c.stage_fields(stage).items()})
        if any(tracker.stage_status(stage) != "done" for stage in ("render", "encode", "consolidate")):
            return False
        if not (tracker.get("dataset_made_of") and self._all_drawn() and self._all_encoded()):
            return False
        if tracker.get(SUSPECT, False) or damaged_files(self.path, tracker) or self.cache.damaged():
            return False
        return not self.consolidator.damaged_chunks() and not self.consolidator.ready()

    def train(self, on_progress: Progress | None = None) -> Answers:
        """Train the TRM for `train_steps` steps on what `objective` says, and measure it on the held-out samples.

        Whoever removes model/trm.pt begins anew, with other settings if he likes.

        Raises UserError when there are no steps, or nothing to learn from or to measure on.
        """
        from trm_nb.training.train_objective import examples_of, train_objective

        if not self.config.train_steps:
            raise UserError("train_steps is 0, so there is nothing to train; set it, for example train_steps=1000")
        with self.writing("training"):
            self.complete(on_progress)
            examples = examples_of(self.path, self.config)  # first, so that a mistake can be corrected
            if not (self.path / MODEL).is_file():
                self.tracker.unbind("train")
            self.tracker.bind("train", self.config.stage_fields("train"))
            return train_objective(self.path / "model", examples, self.config, self.tracker, on_progress)

    def _planned(self) -> Iterator[Sample]:
        c = self.config
        planner = Planner(
            self.tracker,
            self.cache.samples,
            seed=c.seed,
            test_fraction=c.test_fraction,
            split_sudokus=c.split_sudokus,
            arc_forms=c.arc_forms,
            max_errors=c.max_errors,
            on_first_rows=lambda: self.tracker.bind("plan", self._plan_settings()),
        )
        return planner.from_sources(c)

    def _all_drawn(self) -> bool:
        return bool(self.tracker.get("plan_frozen", False)) and self.tracker.first_waiting() is None

    def _all_encoded(self) -> bool:
        return len(self.tracker.batches()) == self.consolidator.batches_total()

    def _plan_settings(self) -> dict[str, Any]:
        fields = self.config.stage_fields("plan") | self.config.stage_fields("denoise")
        return {**fields, "renderers": self.cache.fingerprints()}

    def _encode_settings(self) -> dict[str, Any]:
        return self.config.stage_fields("encode") | self.config.stage_fields("consolidate")


def _refuse_overlap(config: MultimodalDatasetConfig) -> None:
    """Raise UserError when the run's folder is a source or lies in one: it would read its own files."""
    output = Path(config.output_dir).resolve()
    for given in config.source_paths:
        if reads_from(given, output):
            raise UserError(f"output_dir {output} lies in the source path {given}; choose a folder outside the sources")
