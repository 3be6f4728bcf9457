"""The run's one tracker: its tables, what its stages are doing, and what all that amounts to.

What is planned, cached, encoded, consolidated and trained is written to progress.sqlite once, one transaction a task,
after the data is durable. Counts are queries, never kept, so a number shown anywhere is what the tables hold, also
after a crash.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trm_nb.describe import Described, Facts, counted, named
from trm_nb.progress.model_record import last_step, read_metrics
from trm_nb.progress.plan_tables import PlanTables
from trm_nb.progress.stats import TRAIN_STEPS, at_work_on, disk_usage, gather, state_of, trainings
from trm_nb.progress.tables import MODEL, TRAININGS, train_stage
from trm_nb.records import Progress

BEAT_SECONDS = 1.0
COUNTED_ROWS = 100_000  # a tenth of a second


class TrainingProgressTracker(PlanTables, Described):
    """The tracker of a run; made on first use by a writer, or opened to be read. Safe to use from several threads.

    A writer puts a damaged one aside and makes another; the frozen settings of a lost one are read from `.frozen.json`,
    the rest is made again from the receipts (`pipeline.repair`).

    Args:
        output_dir: the run's folder.
        create: open it to write, and make it where it is not there.

    Raises:
        UserError: when `output_dir` holds no run and `create` is False.
        DamagedError: when its tracker is lost or damaged and `create` is False.
    """

    _last_beat = 0.0

    def _facts(self) -> Facts:
        return {"folder": self.output_dir, **self.facts()}

    def facts(self) -> Facts:
        """What a run holds, for people; rows are counted by kind only where that takes no time."""
        state, statuses, rows = *state_of(self), self.rows_planned()
        few = rows <= COUNTED_ROWS
        splits = self.split_counts() if few else {}
        return {
            "state": "at rest" if state == "stopped" else state,
            "samples": f"{rows:,}{'' if self.get('plan_frozen', False) else ' planned so far'}",
            "by split": counted(splits) if splits else None,
            "by modality": counted(self.modality_counts()) if few else None,
            "classes": named(self.label_names()) if few else None,
            "quarantined": self.quarantined(),
            "batches": int(self.value("SELECT count(*) FROM batches")),
            "chunks": int(self.value("SELECT count(*) FROM chunks")),
            "model": self.get(MODEL),
            "training steps": self.last_step()[0] or None,
            "stages": ", ".join(f"{name} {status}" for name, status in statuses.items()) or None,
        }

    # -- stages -----------------------------------------------------------------------------------------------------

    def begin(self, stage: str, total: int | None = None) -> None:
        """A stage starts (again)."""
        with self.transaction() as db:
            values = (self.kept_as(stage), "running", time.time(), None, total, None)
            db.execute("INSERT OR REPLACE INTO stages VALUES (?, ?, ?, ?, ?, ?)", values)
        self.beat(force=True)

    def finish(self, stage: str, message: str | None = None) -> None:
        """A stage is done."""
        self._end(stage, "done", message)

    def fail(self, stage: str, message: str) -> None:
        """A stage ended in an error, described in one sentence."""
        self._end(stage, "failed", message)

    def _end(self, stage: str, status: str, message: str | None) -> None:
        with self.transaction() as db:
            db.execute(
                "UPDATE stages SET status = ?, finished = ?, message = ? WHERE name = ?",
                (status, time.time(), message, self.kept_as(stage)),
            )
        self.beat(force=True)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        """begin ... finish; an exception in between is recorded as the stage's failure, an interruption as a stop."""
        self.begin(name, total)
        try:
            yield
        except Exception as error:
            self.fail(name, str(error) or type(error).__name__)
            raise
        except BaseException:
            self._end(name, "stopped", "interrupted; run again, it continues")
            raise
        self.finish(name)

    def end_stages_of_the_dead(self) -> None:
        """For a process that has the run's lock: stages that still run in the tables were those of a killed one.

        Trainings need no lock of the run; they go on where their model's folder is locked.
        """
        running = [name for (name,) in self.query("SELECT name FROM stages WHERE status = 'running'")]
        models = {name: name.removeprefix(TRAININGS) for name in running if name.startswith(TRAININGS)}
        dead = [name for name in running if not (name in models and at_work_on(self, models[name]))]
        if dead:
            message = "its process was killed; run again, it continues"
            with self.transaction() as db:
                ended = "UPDATE stages SET status = 'stopped', finished = ?, message = ? WHERE name = ?"
                db.executemany(ended, [(self.get("heartbeat"), message, name) for name in dead])

    def already_done(self, stage: str, message: str | None = None) -> None:
        """A stage found nothing to do: record it as done, whatever a killed attempt left."""
        if self.stage_status(stage) != "done":
            self.begin(stage)
            self.finish(stage, message)

    def stage_status(self, name: str) -> str:
        """waiting, running, done, failed or stopped."""
        return self.value("SELECT status FROM stages WHERE name = ?", (self.kept_as(name),)) or "waiting"

    def beating(self, on_progress: Progress | None) -> Progress:
        """What a working loop calls often: it beats, and then calls `on_progress`."""

        def tick() -> None:
            self.beat()
            if on_progress:
                on_progress()

        return tick

    def beat(self, force: bool = False) -> None:
        """Tell the readers that the run is alive; cheap to call often, writes once a second."""
        now = time.time()
        if force or now - self._last_beat >= BEAT_SECONDS:
            self._last_beat = now
            self.set("heartbeat", now)

    def ask_training(self, model: str, steps: int) -> None:
        """Record which model is asked for, and how many steps of it; 0 steps ask for none.

        What the tracker says of training is then said of this model, up to its last checkpoint. Other models are not
        concerned, nor is this one while it is trained. For a process that has the run's lock.
        """
        if steps and self.get(MODEL) != model:
            paths, stage = self.paths.model(model), train_stage(model)
            with self.transaction() as db:
                self.set(MODEL, model)
                if not at_work_on(self, model):
                    self.hold_steps(read_metrics(paths.metrics, last_step(paths.metrics)), stage)
                    db.execute("DELETE FROM stages WHERE name = ?", (stage,))
            if paths.is_finished():
                self.already_done(stage)
        self.ask(TRAIN_STEPS, steps)

    def trainings(self) -> dict[str, dict[str, Any]]:
        """Each model whose training the tracker knows, by name: its state and its steps, as in `get_stats`."""
        return trainings(self)

    # -- metrics ----------------------------------------------------------------------------------------------------

    def get_stats(self) -> dict[str, Any]:
        """Everything there is to know about the run's progress.

        Returns:
            Plain JSON values by name, among them `state` (new, running, stalled, stopped, failed or done),
            `rows_planned`, `samples_cached`, `samples_encoded`, `samples_quarantined` and `items_quarantined`,
            `batches_built` and `batches_total`, `consolidation` (`total_batches_consolidated`, `chunks_built`,
            `chunks_total`), `global_step` and `train_steps` of the training, `chunk_progress` (the part of an epoch's
            chunks that it has seen, 0 to 1), `stages`, `models`, and `disk_usage_gb` (10^9 bytes). Totals are None
            while the plan still grows. `progress/stats.py` describes all of them.
        """
        with self._db.moment():
            stats = gather(self)
        return {**stats, "disk_usage_gb": disk_usage(self.output_dir) / 1e9}  # a long walk, so outside the moment
