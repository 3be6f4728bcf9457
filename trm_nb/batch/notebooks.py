"""The project's notebooks in their order: which there are, what each works on, and whether it is up to date.

A notebook is up to date when its fingerprint (its source, the config fields of the stages up to it, the package's
version, and the fingerprints of the notebooks before it) is the one the tracker holds with the status "done", the
executed file is there, and the stage it works on is done, or the model it trained is there. The check reads a few files
and the tracker, so that a complete run returns at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from trm_nb._version import __version__
from trm_nb.batch.outcome import read_notebook
from trm_nb.batch.project import notebooks_of
from trm_nb.config import MultimodalDatasetConfig, Stage
from trm_nb.errors import UserError
from trm_nb.progress.run_folder import RunPaths
from trm_nb.progress.tracker import TrainingProgressTracker

FIRST, TRAINING, COMPARISON, SOLVING = 1, 6, 7, 8
_STAGES: dict[int, tuple[Stage, ...]] = {
    1: ("plan",),
    2: ("plan", "denoise"),
    3: ("plan", "denoise", "encode"),
    4: ("plan", "denoise", "encode", "consolidate"),
    5: ("plan", "denoise", "encode", "consolidate"),
    TRAINING: ("plan", "denoise", "encode", "consolidate", "train"),
    SOLVING: ("plan", "denoise", "encode", "consolidate"),
}
_WORKS_ON = {1: "render", 3: "encode", 4: "consolidate", 5: "consolidate", SOLVING: "consolidate"}


def find_notebooks(root: Path, solves: bool = False) -> list[Path]:
    """The pipeline's notebooks, NN_name.ipynb, by number; raises UserError when there is none.

    Outside any project they are those that come with the package. SOLVING is one of them where the run `solves`
    puzzles. Those that are not part of the order: 00 starts it, and COMPARISON compares models, of which a new run has
    one at most.
    """
    wanted = {*range(FIRST, TRAINING + 1), *([SOLVING] if solves else [])}
    found = sorted(path for path in notebooks_of(root).glob("[0-9][0-9]_*.ipynb") if number_of(path) in wanted)
    if not found:
        raise UserError(
            f"{notebooks_of(root)}: expected notebooks named NN_name.ipynb, found none; `trm-nb build` needs none"
        )
    return found


def number_of(path: Path) -> int:
    """The number a notebook's name begins with."""
    return int(path.stem[:2])


def fingerprints(notebooks: Sequence[Path], config: MultimodalDatasetConfig) -> dict[str, str]:
    """16 hex digits a notebook, by name: over its source, its config fields, the version, and those before it."""
    found: dict[str, str] = {}
    before = ""
    for path in notebooks:
        number = number_of(path)
        parts = [before, __version__, _source(path), config.fingerprint(*_STAGES.get(number, _STAGES[TRAINING]))]
        if number == TRAINING:
            parts += [config.model, str(config.train_steps), str(config.train_minutes), str(config.test_steps)]
        parts += [str(config.solve_puzzles)] if number == SOLVING else []
        found[path.stem] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
        before = before if number == TRAINING else found[path.stem]  # no later notebook reads the model
    return found


def up_to_date(run: Path, path: Path, fingerprint: str, model: str = "main") -> bool:
    """Whether the notebook at `path` has been executed in `run` as it is now, and what it made is still held whole.

    `model` is the one that notebook 06 trains.
    """
    paths = RunPaths(run)
    if not paths.tracker.is_file() or not (paths.notebooks / path.name).is_file():
        return False
    with closing(TrainingProgressTracker(run)) as tracker:
        noted = tracker.get(f"notebook:{path.stem}") or {}
        if noted.get("status") != "done" or noted.get("fingerprint") != fingerprint:
            return False
        summary = tracker.get(f"summary:{path.stem}") or {}
        if number_of(path) == TRAINING and summary.get("trained") and not paths.model(model).is_finished():
            return False
        return _WORKS_ON.get(number_of(path)) not in _unfinished(tracker)


def _unfinished(tracker: TrainingProgressTracker) -> set[str]:
    """The stages that began and are not done, or are incomplete again because data was damaged."""
    found = set()
    for name, measured in tracker.get_stats()["stages"].items():
        short = measured["total"] is not None and measured["done"] < measured["total"]
        if measured["status"] != "waiting" and (measured["status"] != "done" or short):
            found.add(name)
    return found


def _source(path: Path) -> str:
    notebook = read_notebook(path)
    if notebook is None:
        raise UserError(f"{path}: expected a Jupyter notebook (JSON with cells), got something else; restore the file")
    cells = [[c["cell_type"], "".join(c["source"]), c["metadata"].get("tags", [])] for c in notebook["cells"]]
    return json.dumps(cells)
