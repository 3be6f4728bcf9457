"""What the tracker's tables say, gathered for `get_stats`: every number is a query, none is kept."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trm_nb.progress.model_record import has_ended, summaries
from trm_nb.progress.plan_tables import PlanTables
from trm_nb.progress.tables import MODEL, TRAININGS
from trm_nb.storage.lock_holder import Holder, holder_of

STAGE_NAMES = ("render", "denoise", "fit", "encode", "consolidate", "train")  # fit only where an encoder is fitted
STALLED_SECONDS = 120.0
NOTEBOOKS, TRAIN_STEPS = "notebooks_asked", "train_steps_asked"  # what the tracker keeps of a command or a config


def gather(tracker: PlanTables) -> dict[str, Any]:
    """The run's progress as plain JSON values.

    Counts: rows_planned, plan_frozen, samples_cached, samples_encoded, samples_quarantined, items_quarantined,
    batches_built, batches_total, consolidation {total_batches_consolidated, chunks_built, chunks_total}, global_step,
    train_steps, chunk_progress (0..1, part of the training chunks seen in this epoch), modalities and
    quarantine_by_reason. model is the name of the one that was asked for last, whose training all of this is; None
    where none was. models: of each one that was begun its name and state (done, begun); of those that are done also
    objective, metric, value, interval, samples and items, balanced_accuracy, baseline, verdict, p, steps, best_step,
    chosen_by, stopped_early and validation. Totals are None while the plan still grows.
    notes: item -> what of it was not done as asked, the first 20.
    stages: name -> status (waiting, running, done, failed, stopped), done, total, unit, started, finished, seconds,
    message; "train" is the training of `model`. trainings: model -> status, done, total, message.
    notebooks: name -> status (pending, running, done, failed, interrupted) of those that `trm-nb run` was asked for, in
    order. pending: what a complete dataset still lacks, notebooks by name and "train". gone: the process
    that was killed at work, None where none was. heartbeat, seconds_since_heartbeat.
    state: new; running, with the stages at work; stalled (no heartbeat); stopped (begun, not complete, and nobody known
    to be at work); failed; done (the dataset is complete and nothing pending). `get_stats` adds disk_usage_gb
    (10^9 bytes).
    """
    stats = _counts(tracker)
    holders = _holders(tracker)  # after the tables: who is gone now has not written them since
    stats["stages"] = _stages(tracker, stats, holders)
    stats["trainings"] = trainings(tracker)
    return _with_state(tracker, stats, holders)


@dataclass(frozen=True, slots=True)
class _Holders:
    """Who writes the run, who executes its notebooks, and who trains `model`, which was asked for last."""

    writer: Holder | None
    runner: Holder | None
    trainer: Holder | None
    model: str | None

    def gone(self, stage: str) -> str | None:
        """Who was killed at a stage that is running in the tables; None where somebody is, or may be, at work on it."""
        holder = self.trainer if stage == "train" else self.writer
        if holder is None:  # a model that is trained is locked
            return "its process" if stage == "train" and self.model else None
        return holder.name if holder.alive is False else None


def _holders(tracker: PlanTables) -> _Holders:
    model, writer = tracker.get(MODEL), holder_of(tracker.output_dir)
    trainer = holder_of(tracker.paths.model(model).root) if model else writer  # a tool's training has no model
    return _Holders(writer, holder_of(tracker.paths.notebooks), trainer, model)


def at_work_on(tracker: PlanTables, model: str) -> bool:
    """Whether a model is trained at this moment, as far as that can be known here."""
    holder = holder_of(tracker.paths.model(model).root)
    return holder is not None and holder.alive is not False


def trainings(tracker: PlanTables) -> dict[str, dict[str, Any]]:
    """Each model whose training the tracker knows, by name: status, done and total (steps), message."""
    rows = tracker.query(
        "SELECT name, status, total, message, (SELECT max(global_step) FROM steps WHERE stage = name) FROM stages "
        "WHERE substr(name, 1, ?) = ? ORDER BY name",
        (len(TRAININGS), TRAININGS),
    )
    found = {}
    for name, status, total, message, done in rows:
        model = name.removeprefix(TRAININGS)
        if status == "running" and not at_work_on(tracker, model):
            status, message = "stopped", "its process is gone; run again, it continues"
        found[model] = {"status": status, "done": done or 0, "total": total, "message": message}
    return found


def _with_state(tracker: PlanTables, stats: dict[str, Any], holders: _Holders) -> dict[str, Any]:
    """The stats, which have the stages, with what follows from them: notebooks, pending, gone and state."""
    known = [holder for holder in (holders.writer, holders.runner, holders.trainer) if holder is not None]
    stats["notebooks"] = _notebooks(tracker, holders.runner)
    stats["pending"] = _pending(tracker, stats)
    stats["gone"] = next((holder.name for holder in known if holder.alive is False), None)
    stats["state"] = _state(stats, at_work=any(holder.alive for holder in known))
    return stats


def _counts(tracker: PlanTables) -> dict[str, Any]:
    status = dict(tracker.query("SELECT status, count(*) FROM rows GROUP BY status"))
    planned = sum(status.values())
    frozen = bool(tracker.get("plan_frozen", False))
    settings = tracker.frozen()
    batch_size, per_chunk = settings.get("batch_size"), settings.get("batches_per_chunk")
    batches_total = -(-planned // batch_size) if batch_size and frozen else None
    step, metrics = tracker.last_step()
    heartbeat = tracker.get("heartbeat")
    total = "SELECT total FROM stages WHERE name = ?"
    reasons = "SELECT reason, count(*) FROM quarantine GROUP BY reason ORDER BY count(*) DESC, reason LIMIT 20"
    return {
        "rows_planned": planned,
        "plan_frozen": frozen,
        "samples_cached": status.get("ok", 0),
        "samples_quarantined": status.get("quarantined", 0),
        "samples_encoded": int(tracker.value("SELECT coalesce(sum(rows), 0) FROM batches")),
        "items_quarantined": tracker.items_quarantined(),
        "batches_built": int(tracker.value("SELECT count(*) FROM batches")),
        "batches_total": batches_total,
        "consolidation": {
            "total_batches_consolidated": int(tracker.value("SELECT coalesce(sum(batches), 0) FROM chunks")),
            "chunks_built": int(tracker.value("SELECT count(*) FROM chunks")),
            "chunks_total": -(-batches_total // per_chunk) if batches_total is not None and per_chunk else None,
        },
        "model": tracker.get(MODEL),
        "models": summaries(tracker.paths),
        "global_step": step,
        "train_steps": tracker.get(TRAIN_STEPS) or tracker.value(total, (tracker.kept_as("train"),)) or 0,
        "chunk_progress": metrics.get("chunk_progress", 0.0),
        "modalities": tracker.modality_counts(),
        "quarantine_by_reason": dict(tracker.query(reasons)),
        "notes": tracker.notes(20),
        "heartbeat": heartbeat,
        "seconds_since_heartbeat": None if heartbeat is None else max(0.0, time.time() - heartbeat),
    }


def _stages(tracker: PlanTables, stats: dict[str, Any], holders: _Holders) -> dict[str, dict[str, Any]]:
    rows = stats["rows_planned"] if stats["plan_frozen"] else None
    resolved = stats["samples_cached"] + stats["samples_quarantined"]
    measures = {
        "render": (resolved, rows, "images"),
        "denoise": (resolved, rows, "images"),
        "encode": (stats["samples_encoded"], rows, "samples"),
        "consolidate": (stats["consolidation"]["total_batches_consolidated"], stats["batches_total"], "batches"),
        "train": (stats["global_step"], stats["train_steps"] or None, "steps"),
    }
    found = {values[0]: values[1:] for values in tracker.query("SELECT * FROM stages")}
    if "fit" in found:
        measures["fit"] = (tracker.last_step("fit")[0], found["fit"][3], "steps")
    report = {}
    for name in [name for name in STAGE_NAMES if name in measures]:
        status, started, finished, _, message = found.get(tracker.kept_as(name), ("waiting", None, None, None, None))
        if status == "running" and (gone := holders.gone(name)):
            status, finished, message = "stopped", stats["heartbeat"], f"{gone} is gone; run again, it continues"
        done, total, unit = measures[name]
        seconds = None if started is None else (finished or time.time()) - started
        report[name] = {
            "status": status,
            "done": done,
            "total": total,
            "unit": unit,
            "started": started,
            "finished": finished,
            "seconds": seconds,
            "message": message,
        }
    return report


def _notebooks(tracker: PlanTables, runner: Holder | None) -> dict[str, str]:
    """The notebooks that `trm-nb run` was asked for, with their status; one whose runner was killed is interrupted."""
    found = {}
    for name in tracker.get(NOTEBOOKS, []):
        status = (tracker.get(f"notebook:{name}") or {}).get("status", "pending")
        killed = status == "running" and (runner is None or runner.alive is False)
        found[name] = "interrupted" if killed else status
    return found


def _pending(tracker: PlanTables, stats: dict[str, Any]) -> list[str]:
    """What was asked for beyond the dataset, and is not there: notebooks by name, and "train".

    Notebooks that are all done found nothing to train on where there is no model.
    """
    notebooks = [name for name, status in stats["notebooks"].items() if status != "done"]
    asked, train = tracker.get(TRAIN_STEPS, 0), stats["stages"]["train"]
    if train["status"] == "done" or train["done"]:
        lacking = not has_ended(tracker.paths.model(tracker.get(MODEL, "main")), train["done"], asked)
    else:
        lacking = bool(notebooks) or not stats["notebooks"]
    return [*notebooks, *(["train"] if asked and lacking else [])]


def _state(stats: dict[str, Any], at_work: bool) -> str:
    stages, rows = stats["stages"], stats["rows_planned"]
    statuses = {stage["status"] for stage in stages.values()}
    if "failed" in statuses:
        return "failed"
    working = [name for name, stage in stages.items() if stage["status"] == "running"]
    if "train" not in working and any(one["status"] == "running" for one in stats["trainings"].values()):
        working.append("train")  # another model than that which was asked for last
    if working:
        silent = stats["seconds_since_heartbeat"] or 0.0
        return "stalled" if silent > STALLED_SECONDS else f"running {' + '.join(working)}"
    # a training may have no dataset
    complete = stages["consolidate"]["status"] == "done" or (stages["train"]["status"] == "done" and not rows)
    if complete and not stats["pending"]:
        return "done"
    if at_work:
        return "running"  # between two stages, or a notebook that shows what is there
    if "failed" in stats["notebooks"].values():
        return "failed"
    return "stopped" if rows or "stopped" in statuses or "interrupted" in stats["notebooks"].values() else "new"


def state_of(tracker: PlanTables) -> tuple[str, dict[str, str]]:
    """The state that `gather` tells, and the status of each stage that began, without counting rows."""
    holders = _holders(tracker)
    kept = dict(tracker.query("SELECT name, status FROM stages"))
    held = {name: kept[tracker.kept_as(name)] for name in STAGE_NAMES if tracker.kept_as(name) in kept}
    held = {name: "stopped" if status == "running" and holders.gone(name) else status for name, status in held.items()}
    heartbeat, step = tracker.get("heartbeat"), tracker.last_step()[0]
    stats = {
        "stages": {name: {"status": held.get(name, "waiting"), "done": step} for name in STAGE_NAMES},
        "trainings": trainings(tracker),
        "seconds_since_heartbeat": None if heartbeat is None else max(0.0, time.time() - heartbeat),
        "rows_planned": tracker.rows_planned(),
    }
    return _with_state(tracker, stats, holders)["state"], held


def disk_usage(folder: Path) -> int:
    """Bytes in the files below a folder, also while some of them come and go."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size  # noqa: PTH118 - a hot loop
            except FileNotFoundError:
                continue
    return total
