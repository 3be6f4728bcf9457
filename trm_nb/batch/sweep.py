"""A sweep: the product of some settings' values, a model for each combination, on one finished dataset."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from trm_nb.config import stage_of
from trm_nb.errors import DamagedError, UserError
from trm_nb.params import parse_override
from trm_nb.pipeline.run import Run, open_run
from trm_nb.records import Progress

MOST = 1000  # models of one sweep


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
        if stage_of(name) != "train" and name not in ("train_steps", "test_steps"):
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
    output_dir: Path, trials: Sequence[Trial], showing: Callable[[Trial, Run], AbstractContextManager[Progress]]
) -> Iterator[Trained]:
    """Train a model for each trial, one after the other; one that fails does not stop the others.

    What is finished is not trained again, and what was interrupted continues.

    Args:
        output_dir: of a run whose dataset is finished.
        trials: what to train.
        showing: entered for each training with its run; gives what is to be called often meanwhile.

    Yields:
        What became of each trial, as soon as it is known.
    """
    for trial in trials:
        yield _trained(output_dir, trial, showing)


def _trained(
    output_dir: Path, trial: Trial, showing: Callable[[Trial, Run], AbstractContextManager[Progress]]
) -> Trained:
    try:
        with (
            closing(open_run(output_dir=output_dir, model=trial.name, **trial.values)) as run,
            showing(trial, run) as tick,
        ):
            return Trained(trial, run.train(tick).accuracy.share)
    except (UserError, DamagedError) as error:
        return Trained(trial, None, str(error))
