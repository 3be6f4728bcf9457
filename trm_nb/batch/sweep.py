"""A sweep: the product of some settings' values, a model for each combination, on one finished dataset.

One after the other they are trained in this process; side by side, or as notebooks, each in a process of its own, which
costs the seconds in which torch is imported.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from trm_nb.batch.child import supervise
from trm_nb.batch.notebooks import TRAINING, find_notebooks, number_of
from trm_nb.batch.outcome import status_of
from trm_nb.batch.runner import execute_notebook
from trm_nb.batch.train_one import train_one
from trm_nb.config import stage_of
from trm_nb.errors import DamagedError, UserError
from trm_nb.evaluation.trained_models import trained_model
from trm_nb.params import parse_override, project_root
from trm_nb.pipeline.run import open_run
from trm_nb.progress.model_record import DIGEST, fixed_fields, read_settings, refuse_other_settings, steps_asked
from trm_nb.progress.run_folder import RunPaths
from trm_nb.records import Progress

MOST = 1000  # models of one sweep
TICK_SECONDS = 0.2
# Threads that wait for each other at a barrier sleep instead of keeping a core busy, which others need.
SHARED_CORES = {"OMP_WAIT_POLICY": "passive"}


@dataclass(frozen=True, slots=True)
class Trial:
    """One combination: the model's name, and its values by setting."""

    name: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trained:
    """What became of a trial: the accuracy on the held-out samples, or the sentence of its error."""

    trial: Trial
    accuracy: float | None
    error: str = ""


def values_of(pairs: Sequence[str]) -> dict[str, list[Any]]:
    """Setting -> values, from texts like `train_seed=1,2,3`.

    Raises:
        UserError: for a text of another form, or a setting that is given twice or is not one of a training.
    """
    found: dict[str, list[Any]] = {}
    for pair in pairs:
        name, given, values = pair.partition("=")
        if not given:
            raise UserError(f"-p {pair}: expected KEY=V1,V2,..., got no values")
        if name in found:
            raise UserError(f"-p {pair}: {name} is given twice; put its values into one -p, separated by commas")
        found[name] = [parse_override(f"{name}={value}")[1] for value in values.split(",")]
        if stage_of(name) != "train" and name not in ("train_steps", "train_minutes", "test_steps"):
            raise UserError(f"-p {pair}: a sweep varies settings of the training, and {name} is one of the dataset")
    return found


def trials_of(values: Mapping[str, Sequence[Any]], prefix: str = "") -> list[Trial]:
    """The product of the values, in the order in which they are given; the last setting varies fastest.

    Args:
        values: setting -> values.
        prefix: what the models' names begin with.

    Raises:
        UserError: for more than MOST combinations, and for two that would have the same name.
    """
    found = []
    for combination in product(*values.values()):
        given = dict(zip(values, combination, strict=True))
        named = "_".join(f"{name}-{re.sub(r'[^A-Za-z0-9.-]+', '-', str(value))}" for name, value in given.items())
        found.append(Trial("_".join(filter(None, (prefix, named))), given))
        if len(found) > MOST:
            raise UserError(f"a sweep of more than {MOST:,} models: give fewer values")
    names = [trial.name for trial in found]
    if len(set(names)) < len(names):
        raise UserError("two models of this sweep would have the same name: give each value once")
    return found


def sweep(
    output_dir: Path,
    trials: Sequence[Trial],
    *,
    jobs: int = 1,
    notebooks: bool = False,
    tick: Progress = lambda: None,
) -> Iterator[Trained]:
    """Train a model for each trial; one that fails does not stop the others.

    What is finished is not trained or measured again, and what was interrupted continues. A training computes with the
    run's `torch_threads` however many there are side by side, so the results do not depend on `jobs`.

    Args:
        output_dir: of a run; its dataset is completed first.
        trials: what to train.
        jobs: how many trainings at the same time, each in a process of its own.
        notebooks: train each model in notebook 06, executed into its folder.
        tick: called often meanwhile.

    Yields:
        What became of each trial, as soon as it is known.
    """
    with closing(open_run(output_dir=output_dir)) as run:
        run.complete(tick)
    source = _notebook_06() if notebooks else None
    missing = []
    for trial in trials:
        known = _known(output_dir, trial, source)
        if known is None:
            missing.append(trial)
        else:
            yield known
    if jobs == 1 and source is None:
        yield from (_here(output_dir, trial, tick) for trial in missing)
    else:
        yield from _side_by_side(output_dir, missing, jobs, source, tick)


def _known(output_dir: Path, trial: Trial, source: Path | None) -> Trained | None:
    """What is known of a trial without training: its result where it is finished, or why it is refused."""
    try:
        with closing(open_run(output_dir=output_dir, model=trial.name, **trial.values)) as run:
            paths, config = run.paths.model(trial.name), run.config
            refuse_other_settings(paths, {DIGEST: run.info()[DIGEST], **fixed_fields(config)})
            asked = steps_asked(paths, config)
            recorded = {name: read_settings(paths).get(name) for name in ("train_steps", "test_steps")}
    except (UserError, DamagedError) as error:
        return Trained(trial, None, str(error))
    same = recorded == {"train_steps": asked, "test_steps": config.test_steps}
    executed = source is None or status_of(paths.root / source.name) == "done"
    return Trained(trial, _accuracy(output_dir, trial)) if same and executed and paths.is_finished() else None


def _here(output_dir: Path, trial: Trial, tick: Progress) -> Trained:
    try:
        return Trained(trial, train_one(output_dir, trial.name, trial.values, tick))
    except (UserError, DamagedError) as error:
        return Trained(trial, None, str(error))


def _side_by_side(
    output_dir: Path, trials: Sequence[Trial], jobs: int, source: Path | None, tick: Progress
) -> Iterator[Trained]:
    """Trials in processes of their own, at most `jobs` at a time; a thread of this process waits for each."""
    stop = threading.Event()

    def go_on() -> None:
        if stop.is_set():
            raise KeyboardInterrupt  # in the thread: its process is asked to stop

    def train(trial: Trial) -> Trained:
        go_on()
        if source is None:
            return _in_child(output_dir, trial, go_on)
        return _as_notebook(output_dir, trial, source, go_on)

    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(train, trial) for trial in trials}
        try:
            while waiting:
                done, waiting = wait(waiting, TICK_SECONDS, FIRST_COMPLETED)
                tick()
                yield from (one.result() for one in done)
        finally:
            stop.set()


def _in_child(output_dir: Path, trial: Trial, go_on: Progress) -> Trained:
    job = {"output_dir": str(output_dir), "model": trial.name, "values": trial.values}
    ended = supervise("trm_nb.batch.train_one", job, output_dir, go_on, SHARED_CORES)
    if ended.code:
        return Trained(trial, None, f"its process ended with {ended.code}: {ended.last_line}")
    said = json.loads(ended.last_line)
    return Trained(trial, said.get("accuracy"), said.get("error", ""))


def _as_notebook(output_dir: Path, trial: Trial, source: Path, go_on: Progress) -> Trained:
    target = RunPaths(output_dir).model(trial.name).root / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    parameters = {"params": None, "output_dir": str(output_dir), "model": trial.name, **trial.values}
    truth = execute_notebook(source, target, parameters, source.parent.parent, go_on, SHARED_CORES)
    if truth.status != "done":
        return Trained(trial, None, f"{truth.message} ({target})")
    if not RunPaths(output_dir).model(trial.name).is_finished():
        return Trained(trial, None, f"nothing was trained; {target} says why")
    return Trained(trial, _accuracy(output_dir, trial))


def _accuracy(output_dir: Path, trial: Trial) -> float:
    result = trained_model(output_dir, trial.name).result()
    assert result is not None  # as it is finished
    return result.share


def _notebook_06() -> Path:
    """The notebook that trains: the project's, or that of the package."""
    root = project_root(Path.cwd()) or Path.cwd()
    return next(path for path in find_notebooks(root) if number_of(path) == TRAINING)
