"""The settings of an existing run, out of its folder alone: what it was made with, as far as it has come.

Three records are joined, the later ones first in rank: what its stages have fixed (the tracker, or `.frozen.json` where
the tracker is lost), what it was last worked on with (the tracker), and the config in dataset_info.json.
"""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import DamagedError, UserError
from trm_nb.params import load_params, project_root
from trm_nb.progress.run_folder import RunPaths, read_frozen
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import IN_MEMORY

_KEY = "settings"


def remember_settings(tracker: TrainingProgressTracker, config: MultimodalDatasetConfig) -> None:
    """Record what a run is worked on with, so that it can be opened by its folder alone."""
    tracker.ask(_KEY, config.model_dump(mode="json", exclude={"output_dir"}))


def fixed_settings(folder: Path) -> dict[str, Any]:
    """The config fields that the stages of a folder's run have fixed; none where there is no run.

    Training fields are fixed for each model, not for the run: see `model_record.recorded_fields`. A run of samples in
    memory has the source IN_MEMORY.
    """
    tracker = _tracker(folder)
    if tracker is not None:
        with closing(tracker):
            fixed = tracker.frozen()
    else:
        fixed = {name: value for name, (_, value) in read_frozen(folder).items()}
    if fixed and "source_paths" not in fixed:
        fixed["source_paths"] = [IN_MEMORY]
    return _fields(fixed)


def last_settings(folder: Path) -> dict[str, Any]:
    """The config fields that a folder's run was last worked on with; those that are not recorded are left out."""
    try:
        described = json.loads(RunPaths(folder).info.read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError, TypeError):
        described = {}
    tracker = _tracker(folder)
    if tracker is None:
        return _fields(described)
    with closing(tracker):
        return _fields({**described, **tracker.get(_KEY, {})})


def is_another_run(output_dir: str | None, params: str | Path) -> bool:
    """Whether `output_dir` holds a run that can be opened by its folder alone, and is not the one of a params file."""
    if not output_dir:
        return False
    folder = in_project(output_dir)
    if "batch_size" not in last_settings(folder) | fixed_settings(folder):  # no run, or hardly begun
        return False
    try:
        return load_params(params).output_dir != str(folder)
    except UserError:  # whatever is wrong with the params file, it is not needed
        return True


def in_project(path: str | Path) -> Path:
    """A path that may be relative to the project's root, or begin with ~."""
    return (project_root(Path.cwd()) or Path.cwd()) / os.path.expanduser(path)  # noqa: PTH111 - as resolve_paths


def _tracker(folder: Path) -> TrainingProgressTracker | None:
    try:
        return TrainingProgressTracker(folder)
    except (UserError, DamagedError):  # no run, or a tracker that is lost
        return None


def _fields(values: dict[str, Any]) -> dict[str, Any]:
    known = MultimodalDatasetConfig.model_fields.keys() - {"output_dir"}
    return {name: value for name, value in values.items() if name in known}
