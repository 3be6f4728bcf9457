"""Run the project's notebooks in order, each in a process of its own, and skip what is up to date.

Each executed copy is whole or not there, and says how its execution ended, also where its process was killed. Only the
child imports papermill; nothing here imports torch or zarr.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trm_nb.batch.child import supervise
from trm_nb.batch.notebooks import COMPARISON, FIRST, SOLVING, find_notebooks, fingerprints, number_of, up_to_date
from trm_nb.batch.outcome import Truth, as_bytes, read_notebook, resolve, running_cell, status_of
from trm_nb.batch.project import notebooks_of
from trm_nb.errors import UserError
from trm_nb.params import find_params, load_params, project_root
from trm_nb.pipeline.check import check_names
from trm_nb.progress.model_record import fixed_fields, refuse_other_settings
from trm_nb.progress.provenance import note_command
from trm_nb.progress.run_folder import RunPaths
from trm_nb.progress.run_settings import fixed_settings
from trm_nb.progress.stats import NOTEBOOKS
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.storage.files import locked, write_file

_KILLED = "the process that executed it was killed (out of memory?)"
_CHILD = "trm_nb.batch.execute"


@dataclass(frozen=True, slots=True)
class Failure:
    """The notebook that stopped the order. `cell` counts from 1 in the executed notebook; None: no cell was reached."""

    notebook: str
    cell: int | None
    message: str
    user_error: bool
    path: Path

    @property
    def sentence(self) -> str:
        """One sentence: notebook, cell, the exception's last line, and what next."""
        where = f"{self.notebook}.ipynb" + ("" if self.cell is None else f", cell {self.cell}")
        return f"{where}: {self.message} (the executed notebook is {self.path}; run again to continue there)"


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What `run_notebooks` did: names of the executed and the skipped notebooks, and the failure that stopped it."""

    output_dir: Path
    executed: tuple[str, ...]
    skipped: tuple[str, ...]
    failure: Failure | None = None

    @property
    def exit_code(self) -> int:
        """0, 1 for a failed notebook, 2 when it failed by a user's error."""
        if self.failure is None:
            return 0
        return 2 if self.failure.user_error else 1


@dataclass(frozen=True, slots=True)
class NotebookEvent:
    """Passed to `on_event`: a notebook is "running" (also every fifth of a second), "done", "failed" or "skipped"."""

    run: Path
    notebook: str
    status: str
    seconds: float


def run_notebooks(
    params: str | Path,
    overrides: Mapping[str, Any] | None = None,
    first: int = FIRST,
    last: int = SOLVING,
    force: bool = False,
    on_event: Callable[[NotebookEvent], None] = lambda event: None,
) -> RunOutcome:
    """Execute notebooks first..last of the project with the params file, in order; stop at the first failure.

    The executed copies are `<output_dir>/notebooks/NN_name.ipynb`, each whole or not there. What is up to date is
    skipped unless `force`. Raises UserError for what can be known beforehand (params, no notebooks, a run under way).
    """
    overrides = dict(overrides or {})
    params_file = find_params(params)
    config = load_params(params_file, overrides)
    check_names(config)
    root = _root(params_file)
    notebooks = find_notebooks(root, solves=config.solve_puzzles > 0)
    prints = fingerprints(notebooks, config)
    chosen = [path for path in notebooks if first <= number_of(path) <= last]
    if not chosen:
        names = ", ".join(path.stem for path in notebooks)
        raise UserError(f"no notebook numbered {first:02d} to {last:02d} in {notebooks_of(root)}: there are {names}")
    run = Path(config.output_dir)
    tracker = TrainingProgressTracker(run, create=True)
    tracker.check_frozen({name: getattr(config, name) for name in fixed_settings(run)})
    tracker.close()
    refuse_other_settings(RunPaths(run).model(config.model), fixed_fields(config))
    parameters = {"params": str(params_file), **overrides, "output_dir": str(run)}
    executed: list[str] = []
    skipped: list[str] = []
    with locked(RunPaths(run).notebooks, "trm-nb run"):
        with closing(TrainingProgressTracker(run)) as tracker:
            tracker.ask(NOTEBOOKS, [path.stem for path in notebooks])  # one that stops after some of them is not done
            note_command(tracker, "run", params_file, overrides)
        for path in chosen:
            name, target = path.stem, RunPaths(run).notebooks / path.name
            if not force and up_to_date(run, path, prints[name], config.model):
                skipped.append(name)
                on_event(NotebookEvent(run, name, "skipped", 0.0))
                continue
            truth = _run_one(path, target, parameters, root, prints[name], on_event)
            if truth.status != "done":
                cell = None if truth.cell is None else truth.cell + 1
                failure = Failure(name, cell, truth.message, truth.user_error, target)
                return RunOutcome(run, tuple(executed), tuple(skipped), failure)
            executed.append(name)
    return RunOutcome(run, tuple(executed), tuple(skipped))


def execute_comparison(folders: Sequence[Path], models: Sequence[str] | None = None) -> Path:
    """Execute notebook 07 on the models of these runs, into the first one's folder of notebooks; returns its path.

    `models` are the names of those that are compared, None for all.

    Raises:
        UserError: where the project has no such notebook, or it fails.
    """
    runs = [folder.resolve() for folder in folders]
    root = _root(runs[0])
    source = next(notebooks_of(root).glob(f"{COMPARISON:02d}_*.ipynb"), None)
    if source is None:
        raise UserError(f"{notebooks_of(root)}: expected a notebook {COMPARISON:02d}_name.ipynb, found none")
    target = RunPaths(runs[0]).notebooks / source.name
    with locked(target.parent, "comparing models"):
        parameters = {"folders": [str(run) for run in runs], "models": models and list(models)}
        truth = execute_notebook(source, target, parameters, root, lambda: None)
    if truth.status != "done":
        raise UserError(Failure(source.stem, truth.cell, truth.message, True, target).sentence)
    return target


def _root(near: Path) -> Path:
    """The project that the current folder is in, or a file; the current folder where there is none."""
    return project_root(Path.cwd()) or project_root(near.parent) or Path.cwd()


def _run_one(
    source: Path,
    target: Path,
    parameters: dict[str, Any],
    root: Path,
    fingerprint: str,
    on_event: Callable[[NotebookEvent], None],
) -> Truth:
    """Execute one notebook into `target` and note it in the tracker; KeyboardInterrupt passes on after both."""
    started, run = time.monotonic(), target.parent.parent
    _note(target, fingerprint, "running", 0.0)
    try:
        return execute_notebook(
            source, target, parameters, root,
            lambda: on_event(NotebookEvent(run, source.stem, "running", time.monotonic() - started)),
        )  # fmt: skip
    finally:
        seconds, status = time.monotonic() - started, status_of(target)
        _note(target, fingerprint, status, seconds)
        on_event(NotebookEvent(run, source.stem, status, seconds))


def execute_notebook(
    source: Path,
    target: Path,
    parameters: dict[str, Any],
    root: Path,
    tick: Callable[[], None],
    environment: Mapping[str, str] | None = None,
) -> Truth:
    """Execute a notebook of the project in a process of its own, and leave the executed one at `target`.

    Args:
        source: the notebook.
        target: a path in a folder that is there.
        parameters: what papermill puts into it.
        root: the folder in which it runs.
        tick: called often; what it raises stops the notebook, which is saved, and passes on.
        environment: variables in addition to those of this process.
    """
    partial = target.with_name(f".{target.stem}.partial.ipynb")
    partial.unlink(missing_ok=True)
    silent = Truth("failed", None, _KILLED)  # what is true when the child could not tell
    try:
        job = {"source": str(source), "partial": str(partial), "parameters": parameters, "folder": str(root)}
        ended = supervise(_CHILD, job, root, tick, environment)
        if not partial.is_file():
            raise RuntimeError(f"{_CHILD} ended with {ended.code} before it began: {ended.last_line}")
    except KeyboardInterrupt:
        silent = Truth("interrupted", None, "interrupted")
        raise
    finally:
        truth = _take_over(source, partial, target, silent)
    return truth


def _take_over(source: Path, partial: Path, target: Path, silent: Truth) -> Truth:
    """Give the child's notebook its name and return its truth; `silent` is the truth when the child could not tell."""
    notebook = read_notebook(partial)
    recorded = notebook and notebook["metadata"].get("trm_nb")
    if notebook is None:  # killed in the middle of a write, or before the first
        notebook = read_notebook(source)
        assert notebook is not None
    if recorded:
        truth = Truth(recorded["status"], recorded["cell"], recorded["message"], recorded["user_error"])
    else:
        truth = replace(silent, cell=running_cell(notebook))
        resolve(notebook, truth)
    write_file(target, as_bytes(notebook))
    partial.unlink(missing_ok=True)
    return truth


def _note(target: Path, fingerprint: str, status: str, seconds: float) -> None:
    with closing(TrainingProgressTracker(target.parent.parent, create=True)) as tracker:
        noted = {"fingerprint": fingerprint, "status": status, "seconds": round(seconds, 3)}
        tracker.set(f"notebook:{target.stem}", noted)
