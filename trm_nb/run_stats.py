"""What the tracker's tables say, gathered for `get_stats`: every number is a query, none is kept."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trm_nb.training_progress import TrainingProgressTracker

STAGE_NAMES = ("render", "denoise", "fit", "encode", "consolidate", "train")  # fit only where an encoder is fitted
STALLED_SECONDS = 120.0


def gather(tracker: TrainingProgressTracker) -> dict[str, Any]:
    """The run's progress as plain JSON values.

    Counts: rows_planned, plan_frozen, samples_cached, samples_encoded, samples_quarantined, items_quarantined,
    batches_built, batches_total, consolidation {total_batches_consolidated, chunks_built, chunks_total}, global_step,
    train_steps, chunk_progress (0..1, part of the training chunks seen in this epoch), modalities and
    quarantine_by_reason. Totals are None while the plan still grows.
    notes: item -> what of it was not done as asked, the first 20.
    stages: name -> status (waiting, running, done, failed, stopped), done, total, unit, started, finished, seconds,
    message. state: new, running ..., stalled, stopped, failed or done. heartbeat, seconds_since_heartbeat.
    `get_stats` adds disk_usage_gb (10^9 bytes).
    """
    stats = _counts(tracker)
    stats["stages"] = _stages(tracker, stats)
    stats["state"] = _state(stats)
    return stats


def _counts(tracker: TrainingProgressTracker) -> dict[str, Any]:
    status = dict(tracker.query("SELECT status, count(*) FROM rows GROUP BY status"))
    planned = sum(status.values())
    frozen = bool(tracker.get("plan_frozen", False))
    bound = tracker.bound()
    batch_size, per_chunk = bound.get("batch_size"), bound.get("batches_per_chunk")
    batches_total = -(-planned // batch_size) if batch_size and frozen else None
    last = tracker.query("SELECT global_step, figures FROM steps ORDER BY global_step DESC LIMIT 1")
    heartbeat = tracker.get("heartbeat")
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
        "global_step": last[0][0] if last else 0,
        "train_steps": tracker.value("SELECT total FROM stages WHERE name = 'train'") or 0,
        "chunk_progress": json.loads(last[0][1]).get("chunk_progress", 0.0) if last else 0.0,
        "modalities": dict(tracker.query("SELECT modality, count(*) FROM rows GROUP BY modality ORDER BY modality")),
        "quarantine_by_reason": dict(tracker.query(reasons)),
        "notes": tracker.notes(20),
        "heartbeat": heartbeat,
        "seconds_since_heartbeat": None if heartbeat is None else max(0.0, time.time() - heartbeat),
    }


def _stages(tracker: TrainingProgressTracker, stats: dict[str, Any]) -> dict[str, dict[str, Any]]:
    rows = stats["rows_planned"] if stats["plan_frozen"] else None
    settled = stats["samples_cached"] + stats["samples_quarantined"]
    measures = {
        "render": (settled, rows, "pictures"),
        "denoise": (settled, rows, "pictures"),
        "encode": (stats["samples_encoded"], rows, "samples"),
        "consolidate": (stats["consolidation"]["total_batches_consolidated"], stats["batches_total"], "batches"),
        "train": (stats["global_step"], stats["train_steps"] or None, "steps"),
    }
    found = {values[0]: values[1:] for values in tracker.query("SELECT * FROM stages")}
    if "fit" in found:
        measures["fit"] = (tracker.value("SELECT max(global_step) FROM fit_steps") or 0, found["fit"][3], "steps")
    report = {}
    for name in [name for name in STAGE_NAMES if name in measures]:
        status, started, finished, _, message = found.get(name, ("waiting", None, None, None, None))
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


def _state(stats: dict[str, Any]) -> str:
    by_status: dict[str, list[str]] = {}
    for name, stage in stats["stages"].items():
        by_status.setdefault(stage["status"], []).append(name)
    if "failed" in by_status:
        return "failed"
    if "running" in by_status:
        silent = stats["seconds_since_heartbeat"] or 0.0
        return "stalled" if silent > STALLED_SECONDS else f"running {' + '.join(by_status['running'])}"
    done = by_status.get("done", [])
    if "consolidate" in done or ("train" in done and not stats["rows_planned"]):  # a training that has no dataset
        return "done"
    return "stopped" if stats["rows_planned"] else "new"


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
