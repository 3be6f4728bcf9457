"""The tables of progress.sqlite, what a run's tracker keeps; those of the plan are in plan_tables.py.

What is planned, cached, encoded, consolidated and trained is written here once, one transaction a task, after the data
is durable. Counts are queries, never kept, so a number shown anywhere is what the tables hold, also after a crash.

SQLite (`storage/sqlite.py`): one process writes the dataset's tables, the run's lock sees to that; each training writes
rows of its own, and the lock of its model's folder sees to that. There is any number of readers. A commit costs a few
milliseconds, once for 1000 samples or ten training steps.
"""

from __future__ import annotations

import builtins
import json
import logging
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from trm_nb.errors import DamagedError, UserError
from trm_nb.progress.planned import ROW_SCHEMA
from trm_nb.progress.run_folder import RunPaths, has_capsules, is_empty_run, is_run, read_frozen, refuse_foreign
from trm_nb.records import Receipt
from trm_nb.storage.files import write_json, writing_into
from trm_nb.storage.sqlite import Database

SOLVED = "solved"  # what notebook 08 measured, as a result of a model
SUSPECT = "suspect"  # set where damage was found or a tracker is new: the next run reads and hashes everything
_REBUILD = "run again, or `trm-nb doctor --rebuild DIR`: it is made anew from the receipts"
log = logging.getLogger(__name__)

_SCHEMA = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE frozen (field TEXT PRIMARY KEY, stage TEXT NOT NULL, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE files (name TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT, first_row INTEGER, rows INTEGER,
    items INTEGER, left_out INTEGER);
CREATE TABLE rows ({ROW_SCHEMA});
CREATE INDEX rows_by_key ON rows (key);
CREATE INDEX rows_pending ON rows (row) WHERE status = 'planned';
CREATE TABLE quarantine (path TEXT NOT NULL, reason TEXT NOT NULL, sample INTEGER NOT NULL,
    PRIMARY KEY (path, sample));
CREATE TABLE batches (batch INTEGER PRIMARY KEY, rows INTEGER NOT NULL, nbytes INTEGER NOT NULL, sha256 TEXT NOT NULL,
    seconds REAL NOT NULL);
CREATE TABLE chunks (chunk INTEGER PRIMARY KEY, batches INTEGER NOT NULL, nbytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL);
CREATE TABLE stages (name TEXT PRIMARY KEY, status TEXT NOT NULL, started REAL NOT NULL, finished REAL, total INTEGER,
    message TEXT) WITHOUT ROWID;
CREATE TABLE steps (stage TEXT NOT NULL, global_step INTEGER NOT NULL, metrics TEXT NOT NULL,
    PRIMARY KEY (stage, global_step)) WITHOUT ROWID;
"""
MODEL = "model_asked"  # the name of the model that was asked for last; "train" is the stage of its training
TRAININGS = "train/"  # and a model's name: the stage in which it is trained
_FORMER_TABLES = ("bound", "fit_steps")


def train_stage(model: str) -> str:
    """The stage in which a model of the run is trained, as it stands in the tables."""
    return f"{TRAININGS}{model}"


class RunTables:
    """The tables of the run in `output_dir`, for its tracker, which says when they are made and by whom."""

    def __init__(self, output_dir: str | Path, *, create: bool = False) -> None:
        self.output_dir = Path(output_dir)
        self.paths = RunPaths(self.output_dir)
        self.path = self.paths.tracker
        if create:
            refuse_foreign(self.output_dir)
            with writing_into(self.output_dir):
                self.output_dir.mkdir(parents=True, exist_ok=True)
            self._put_aside_if_damaged()
        elif not self.path.is_file() or (not self.path.stat().st_size and is_run(self.output_dir)):
            if is_empty_run(self.output_dir):
                raise UserError(f"{self.output_dir}: no dataset here yet; `trm-nb build PARAMS.yaml` makes one")
            if is_run(self.output_dir):
                raise DamagedError(f"{self.path}: missing or empty; {_REBUILD}")
            raise UserError(
                f"{self.output_dir}: no run here (progress.sqlite is missing); `trm-nb build PARAMS.yaml` makes one"
            )
        try:
            self._db = Database(self.path, _SCHEMA)
        except DamagedError as error:
            raise DamagedError(f"{error}; {_REBUILD}") from None
        if self.value("SELECT count(*) FROM sqlite_master WHERE name IN (?, ?)", _FORMER_TABLES) or not self.value(
            "SELECT count(*) FROM pragma_table_info('rows') WHERE name = 'split_group'"
        ):
            self._db.close()
            raise UserError(
                f"{self.output_dir}: this run was made by an earlier version of trm-nb, in which settings, columns and "
                "files had other names; build it again in another output_dir"
            )
        if create:
            if not self.frozen():
                self._restore_frozen()
            if not self.rows_planned() and is_run(self.output_dir):  # lost, or of a run that was reset
                self.set(SUSPECT, True)

    def _put_aside_if_damaged(self) -> None:
        if not self.path.is_file():
            return
        try:
            database = Database(self.path, _SCHEMA)
            trouble = database.trouble()
            database.close()
        except DamagedError as error:
            trouble = str(error)
        if trouble:
            taken = len(list(self.output_dir.glob(f"{self.path.stem}.damaged-*")))
            aside = self.path.with_suffix(f".damaged-{taken + 1}")
            log.warning("%s; it is put aside as %s and made again from the receipts", trouble, aside.name)
            self.path.rename(aside)

    def rows_planned(self) -> int:
        """How many rows the plan has so far."""
        return int(self.value("SELECT coalesce(max(row) + 1, 0) FROM rows"))

    def was_lost(self) -> bool:
        """Whether this tracker knows no sample of a run that has encoded some."""
        return not self.rows_planned() and has_capsules(self.output_dir)

    def trouble(self) -> str | None:
        """One sentence when the database itself is damaged; reads all of it."""
        return self._db.trouble()

    def close(self) -> None:
        """Close the database; the tracker cannot be used afterwards."""
        self._db.close()

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """One durable transaction; nested calls join the outer. A full disk raises UserError and changes nothing."""
        return self._db.transaction()

    def query(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows that a query finds."""
        return self._db.query(query, values)

    def value(self, query: str, values: Sequence[Any] = ()) -> Any:
        """The first value that a query finds, None where it finds nothing."""
        return self._db.value(query, values)

    # -- values, settings -------------------------------------------------------------------------------------------

    def set(self, name: str, value: Any) -> None:
        """Keep a JSON value under a name."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, json.dumps(value)))

    def ask(self, name: str, value: Any) -> None:
        """Keep a JSON value that a command or a config asks for; nothing is written where it is kept already."""
        if self.get(name) != value:
            self.set(name, value)

    def get(self, name: str, default: Any = None) -> Any:
        """The JSON value kept under a name."""
        found = self.value("SELECT value FROM meta WHERE name = ?", (name,))
        return default if found is None else json.loads(found)

    def frozen(self) -> dict[str, Any]:
        """The config fields that are frozen for this run, by name."""
        return {name: json.loads(value) for name, value in self.query("SELECT field, value FROM frozen")}

    def freeze(self, stage: str, fields: dict[str, Any]) -> None:
        """Freeze a stage's config fields; raises UserError naming the field when one is frozen at another value."""
        self.check_frozen(fields)
        with self.transaction() as db:
            db.executemany(
                "INSERT OR IGNORE INTO frozen VALUES (?, ?, ?)",
                [(name, stage, json.dumps(value)) for name, value in fields.items()],
            )
        self.write_frozen_copy()

    def write_frozen_copy(self) -> None:
        """Copy the frozen settings to `.frozen.json`: without the tracker, other settings must not mix either."""
        if self.frozen_copy_trouble():
            write_json(self.paths.frozen_copy, {"frozen": self._frozen_by_stage()})

    def frozen_copy_trouble(self) -> str | None:
        """One sentence when `.frozen.json` is missing, damaged, or holds other settings than the tracker."""
        same = read_frozen(self.output_dir) == self._frozen_by_stage()
        return None if same else f"{self.paths.frozen_copy}: not the settings that the tracker holds"

    def _frozen_by_stage(self) -> dict[str, tuple[str, Any]]:
        rows = self.query("SELECT field, stage, value FROM frozen ORDER BY stage, field")
        return {name: (stage, json.loads(value)) for name, stage, value in rows}

    def _restore_frozen(self) -> None:
        rows = [(name, stage, json.dumps(value)) for name, (stage, value) in read_frozen(self.output_dir).items()]
        if rows:
            with self.transaction() as db:
                db.executemany("INSERT OR IGNORE INTO frozen VALUES (?, ?, ?)", rows)
        elif self.paths.frozen_copy.exists():
            log.warning("%s is damaged too, so this call's settings hold", self.paths.frozen_copy)

    def check_frozen(self, fields: dict[str, Any]) -> None:
        """Raise UserError naming the first of these fields that is frozen at another value."""
        held = self.frozen()
        for name, value in fields.items():
            if name in held and held[name] != json.loads(json.dumps(value)):
                raise UserError(
                    f"{self.output_dir}: this run was made with {name}={held[name]!r}, not {name}={value!r}; "
                    f"use another output_dir, or `trm-nb reset {self.output_dir}`"
                )

    # -- batches, chunks, steps -------------------------------------------------------------------------------------

    def add_batch(self, receipt: Receipt, seconds: float) -> None:
        """Record an encoded batch."""
        with self.transaction() as db:
            values = (receipt.number, receipt.rows, receipt.nbytes, receipt.sha256, seconds)
            db.execute("INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?, ?)", values)

    def add_chunk(self, receipt: Receipt) -> None:
        """Record a consolidated chunk."""
        with self.transaction() as db:
            values = (receipt.number, len(receipt.parts), receipt.nbytes, receipt.sha256)
            db.execute("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?)", values)

    def drop(self, batches: Iterable[int] = (), chunks: Iterable[int] = ()) -> None:
        """Forget batches and chunks whose files are gone or damaged, so that they are made again."""
        with self.transaction() as db:
            db.executemany("DELETE FROM batches WHERE batch = ?", [(n,) for n in batches])
            db.executemany("DELETE FROM chunks WHERE chunk = ?", [(n,) for n in chunks])

    def batches(self) -> builtins.set[int]:
        """The numbers of the encoded batches."""
        return {n for (n,) in self.query("SELECT batch FROM batches")}

    def loose_batches(self, per_chunk: int) -> dict[int, int]:
        """How many batches are encoded of each chunk that is not made yet, by the chunk's number, in order."""
        query = (
            "SELECT batch / ?, count(*) FROM batches WHERE batch / ? NOT IN (SELECT chunk FROM chunks)"
            " GROUP BY 1 ORDER BY 1"
        )
        return dict(self.query(query, (per_chunk, per_chunk)))

    def batch_file(self, batch: int) -> tuple[int, str]:
        """(nbytes, sha256) of an encoded batch's file."""
        found = self.query("SELECT nbytes, sha256 FROM batches WHERE batch = ?", (batch,))
        return (int(found[0][0]), str(found[0][1]))

    def chunks(self) -> builtins.set[int]:
        """The numbers of the consolidated chunks."""
        return {n for (n,) in self.query("SELECT chunk FROM chunks")}

    def batch_seconds(self) -> list[float]:
        """Seconds spent on each encoded batch, in order."""
        return [s for (s,) in self.query("SELECT seconds FROM batches ORDER BY batch")]

    def kept_as(self, stage: str) -> str:
        """The name of a stage in the tables: "train" is the training of the model that was asked for last, if any was.

        Other stages with steps are "fit", the encoder's before it, and `train_stage(model)`.
        """
        model = self.get(MODEL) if stage == "train" else None
        return train_stage(model) if model else stage

    def log_step(self, global_step: int, stage: str = "train", /, **metrics: float) -> None:
        """Record metrics of a training step (loss, accuracy, chunk_progress, ...); logging a step again replaces it."""
        with self.transaction() as db:
            values = (self.kept_as(stage), global_step, json.dumps(metrics))
            db.execute("INSERT OR REPLACE INTO steps VALUES (?, ?, ?)", values)

    def forget_steps(self, after: int = 0, stage: str = "train") -> None:
        """Drop the logged steps beyond `after`, when training goes on from a checkpoint of that step."""
        with self.transaction() as db:
            db.execute("DELETE FROM steps WHERE stage = ? AND global_step > ?", (self.kept_as(stage), after))

    def hold_steps(self, curve: Iterable[dict[str, Any]], stage: str = "train") -> None:
        """Put these logged steps, each with its global_step, in the place of those that are held of a stage."""
        with self.transaction():
            self.forget_steps(-1, stage)
            for step in curve:
                metrics = {name: value for name, value in step.items() if name != "global_step"}
                self.log_step(step["global_step"], stage, **metrics)

    def last_step(self, stage: str = "train") -> tuple[int, dict[str, float]]:
        """The last logged step of a stage, and its metrics; 0 and none where none was logged."""
        found = self.query(
            "SELECT global_step, metrics FROM steps WHERE stage = ? ORDER BY global_step DESC LIMIT 1",
            (self.kept_as(stage),),
        )
        return (int(found[0][0]), json.loads(found[0][1])) if found else (0, {})

    def training_curve(self, stage: str = "train") -> list[dict[str, float]]:
        """The logged steps of a stage in order, each with its global_step."""
        query = "SELECT global_step, metrics FROM steps WHERE stage = ? ORDER BY global_step"
        found = self.query(query, (self.kept_as(stage),))
        return [{"global_step": step, **json.loads(metrics)} for step, metrics in found]
