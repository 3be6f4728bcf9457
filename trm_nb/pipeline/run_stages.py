"""Each stage of a run with the parts it needs, and what is still missing of it; run.py says in which order and when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from trm_nb.config import FROZEN
from trm_nb.models.encoders import encoder_for
from trm_nb.pipeline.check import plan_settings
from trm_nb.pipeline.dataset_files import damaged_files, is_written, write_dataset, write_info
from trm_nb.pipeline.parts import RunParts
from trm_nb.pipeline.plan import Planner
from trm_nb.pipeline.stages import STAGES, DatasetStage, fit, plan, render
from trm_nb.pipeline.streaming import BatchEncoder, Producer
from trm_nb.progress.tables import SUSPECT
from trm_nb.records import Progress, Sample
from trm_nb.sources.memory import as_items


class RunStages(RunParts):
    """The parts of a run, and its stages performed with them. Whoever calls one holds the run's lock."""

    def _up_to(self, stage: DatasetStage, on_progress: Progress | None) -> int:
        perform = {
            "render": self._render,
            "denoise": self._denoise,
            "fit": self._fit,
            "encode": self._encode,
            "consolidate": self._consolidate,
            "export": self._export,
        }
        made = {name: perform[name](on_progress) for name in STAGES[1 : STAGES.index(stage) + 1]}
        return made["render"] + made["denoise"] if stage == "denoise" else made[stage]

    def _overlapped(self, on_progress: Progress | None) -> tuple[int, int]:
        """Render, denoise and encode at the same time; returns how many images and batches are new."""
        if self._all_rendered() and self._all_encoded():
            if self._samples is not None:  # which nobody has compared with the plan yet
                plan(self._planned(), self.tracker)
            return 0, 0
        if self.config.fit_encoder:  # which needs all images: nothing is left to overlap
            return self._up_to("denoise", on_progress), self._up_to("encode", on_progress)
        producer = Producer(self._render_all, self._planned())
        with producer, self.tracker.stage("encode"):
            threshold = self.config.start_threshold
            producer.wait(lambda: self.tracker.resolved() >= threshold, self.tracker.beating(on_progress))
            encoded = self._batch_encoder().encode(on_progress, producer)
        return producer.rendered, encoded

    def _render_all(
        self, samples: Iterable[Sample], on_progress: Progress | None, stage: Literal["render", "denoise"] = "render"
    ) -> int:
        return render(samples, self.cache, self.tracker, self.config.max_errors, on_progress, stage)

    def _render(self, on_progress: Progress | None) -> int:
        """Plan, and render every image that needs no denoising."""
        if self._all_rendered():
            self.tracker.already_done("render")
            return 0
        plain = (sample for sample in self._planned() if not self.cache.denoises(sample.modality))
        return self._render_all(plain, on_progress)

    def _denoise(self, on_progress: Progress | None) -> int:
        """Render and denoise what `_render` left to the denoiser."""
        if not self._all_rendered():
            return self._render_all(self._planned(), on_progress, "denoise")
        none = "no denoiser: images are cached as rendered"
        self.tracker.already_done("denoise", None if self.cache.denoiser else none)
        return 0

    def _fit(self, on_progress: Progress | None) -> int:
        """Train the encoder on the cached images, where `fit_encoder` asks for it; 1 if that was missing."""
        if self.config.fit_encoder is None:
            return 0
        if self.paths.fitted_encoder.is_file():
            self.tracker.already_done("fit")
            return 0
        fit(self.encoder, self.config, self.cache, self.tracker, on_progress)
        self._encoder = encoder_for(self.config, self.paths.fitted_encoder)
        return 1

    def _encode(self, on_progress: Progress | None) -> int:
        """Encode every batch that is missing."""
        if self._all_encoded():
            self.tracker.already_done("encode")
            return 0
        with self.tracker.stage("encode"):
            return self._batch_encoder().encode(on_progress)

    def _batch_encoder(self) -> BatchEncoder:
        return BatchEncoder(self.encoder, self.config, self.cache, self.consolidator, self.tracker)

    def _consolidate(self, on_progress: Progress | None) -> int:
        """Make the chunks that are missing."""
        if not self.consolidator.ready():
            return 0
        with self.tracker.stage("consolidate"):
            return self.consolidator.consolidate_ready(on_progress)

    def _export(self, on_progress: Progress | None) -> int:
        """Write the dataset's files, where they are not there or not of these chunks; 1 if so."""
        self.consolidator.restore_metadata()
        written = is_written(self.tracker, self.consolidator)
        if written:
            write_info(self.tracker)
        else:
            write_dataset(self.config.model_dump(), self.tracker, self.consolidator, self.cache, self.encoder)
        self.tracker.already_done("consolidate")
        self.consolidator.remove_batches_zarr()
        return int(not written)

    def _finished(self) -> bool:
        """Whether nothing has to be made; raises UserError for settings that differ from those it was made with."""
        c, tracker = self.config, self.tracker
        tracker.check_frozen({name: value for stage in FROZEN for name, value in c.stage_fields(stage).items()})
        if any(tracker.stage_status(stage) != "done" for stage in ("render", "encode", "consolidate")):
            return False
        if not (tracker.get("dataset_made_of") and self._all_rendered() and self._all_encoded()):
            return False
        if tracker.get(SUSPECT, False) or damaged_files(tracker) or self.cache.damaged():
            return False
        return not self.consolidator.damaged_chunks() and not self.consolidator.ready()

    def _planned(self) -> Iterator[Sample]:
        c = self.config
        planner = Planner(
            self.tracker,
            self.cache.samples,
            seed=c.seed,
            test_fraction=c.test_fraction,
            val_fraction=c.val_fraction,
            split_sudokus=c.split_sudokus,
            arc_forms=c.arc_forms,
            max_errors=c.max_errors,
            on_first_rows=lambda: self.tracker.freeze("plan", plan_settings(c, self.cache)),
        )
        return planner.from_sources(c) if self._samples is None else planner.from_items(as_items(self._samples))

    def _all_rendered(self) -> bool:
        return bool(self.tracker.get("plan_frozen", False)) and self.tracker.first_pending() is None

    def _all_encoded(self) -> bool:
        return len(self.tracker.batches()) == self.consolidator.batches_total()
