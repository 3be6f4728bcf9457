"""What is done to a run from outside: making its tracker again, and deleting it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from trm_nb.errors import UserError
from trm_nb.pipeline.run import open_run
from trm_nb.progress.run_folder import RunPaths, is_run, read_frozen
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import NAMED_SOURCES
from trm_nb.storage.files import locked
from trm_nb.storage.lock_holder import holder_of


def rebuild_tracker(output_dir: str | Path) -> dict[str, Any]:
    """Make a run's tracker again from its receipts, reading the sources once more; nothing is rendered or encoded.

    The tracker that is there, if any, is kept beside it, and put back if this fails. Returns the new one's
    `get_stats()`. Raises UserError when the folder holds no run, is being written, or does not say what it was made
    from, and when a source is gone.
    """
    path = Path(output_dir).resolve()
    if not is_run(path):
        raise UserError(f"{path}: no run here (no receipts), so there is nothing to rebuild its tracker from")
    frozen = read_frozen(path)
    if "source_paths" not in frozen:
        raise UserError(
            f"{RunPaths(path).frozen_copy}: missing, damaged, or of a run that was not made from sources; "
            "run `trm-nb build` with its params file again, which rebuilds the tracker too"
        )
    for given in frozen["source_paths"][1]:
        named = given.startswith(NAMED_SOURCES) or any(mark in given for mark in "*?[")
        if not named and not Path(given).exists():
            raise UserError(f"{given}: this source is gone, and the tracker is made from the sources and the receipts")
    held = RunPaths(path).tracker
    aside = held.with_name(f"{held.stem}.before-{time.time_ns()}{held.suffix}")
    with locked(path, "rebuilding the tracker"):
        refuse_while_training(RunPaths(path))
        if held.is_file():
            held.replace(aside)
        TrainingProgressTracker(path, create=True).close()
    run = open_run(output_dir=path)
    try:
        run.rebuild()
        return run.tracker.get_stats()
    except BaseException:
        run.close()
        if aside.is_file():
            aside.replace(held)
        raise
    finally:
        run.close()


def reset(output_dir: str | Path, keep_cache: bool = True) -> list[str]:
    """Delete a run's dataset, tracker, models, notebooks and report (and, unless kept, its images); returns the names.

    Only what a run makes is touched. Raises UserError when the folder holds no run, is being written, or holds a model
    that is being trained.
    """
    path = Path(output_dir)
    paths = RunPaths(path)
    if not paths.tracker.is_file() and not is_run(path):
        raise UserError(f"{path}: no run here (progress.sqlite is missing), so nothing is deleted")
    removed = []
    with locked(path, "reset"):
        refuse_while_training(paths)
        for target in [*([] if keep_cache else [paths.images]), *paths.made()]:
            if target.is_dir():
                shutil.rmtree(target)
            elif target.exists():
                target.unlink()
            else:
                continue
            removed.append(target.name)
    return removed


def refuse_while_training(paths: RunPaths) -> None:
    """Raise UserError while a model of a run is trained; for a caller that has the run's lock, so that none begins."""
    for model in paths.model_folders():
        holder = holder_of(model)
        if holder is not None and holder.alive:
            raise UserError(f"{model}: this model is being trained by {holder.name}; wait for it, or stop it")
