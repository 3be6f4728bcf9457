"""The models of one or several runs, side by side: their settings, their results, and what differs.

Everything is read from the models' folders (config.yaml, metrics.jsonl, predictions.parquet), so that models are listed
while others train, and without torch.
Cost: a file of predictions per model, some 30 bytes a held-out sample and recursion step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from trm_nb.errors import UserError
from trm_nb.evaluation.comparison import Outcomes
from trm_nb.progress.model_record import DIGEST, last_step, read_metrics, read_settings
from trm_nb.progress.run_folder import ModelPaths, RunPaths
from trm_nb.storage.lock_holder import holder_of
from trm_nb.training.verdicts import Accuracy, accuracy

SEED = "train_seed"
HELD_OUT = "test"  # the split that models are compared on
_NOT_COMPARED = {"model", "versions", "device", "torch_threads"}  # they do not make another method


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """One training.

    `run`: its run's folder. `settings`: what config.yaml holds. `state`: "done"; where results are missing, "training"
    while a process is at work on it, else "begun".
    `steps`: that are trained. `changed`: when its record was last written, in UTC.
    """

    run: Path
    paths: ModelPaths
    settings: dict[str, Any]
    state: str
    steps: int
    changed: datetime

    @property
    def name(self) -> str:
        """Unique in its run."""
        return self.paths.root.name

    @property
    def dataset(self) -> str:
        """The first digits of the content digest of the dataset that it was trained on."""
        return str(self.settings.get(DIGEST, ""))[:8]

    def result(self) -> Accuracy | None:
        """The accuracy on the held-out samples after the last recursion step; None where the training is not done."""
        if self.state != "done":
            return None
        last = self.predictions(columns=["item", "correct"])
        return accuracy(last["correct"].to_numpy(), last["item"].to_numpy())

    def curve(self) -> list[dict[str, Any]]:
        """The logged steps up to the last checkpoint, each with its `global_step`."""
        return read_metrics(self.paths.metrics, self.steps)

    def predictions(self, every_step: bool = False, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows of predictions.parquet for the held-out samples after the last recursion step, or after each.

        Args:
            every_step: after each.
            columns: that are read, with `split` and `step`; None: all. Grids take most of the time.

        Raises:
            UserError: where the training is not done, or the file cannot be read.
        """
        if self.state != "done":
            raise UserError(f"{self.paths.root}: this training is not finished; `trm-nb train` continues it")
        try:
            wanted = None if columns is None else [*columns, "split", "step"]
            frame: pd.DataFrame = pq.read_table(self.paths.predictions, columns=wanted).to_pandas()
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"{self.paths.predictions}: cannot be read ({error}); `trm-nb train` writes it again"
            ) from None
        held_out = frame[frame["split"] == HELD_OUT]
        return held_out if every_step else held_out[held_out["step"] == held_out["step"].max()]


def trained_models(folders: Iterable[str | Path], names: Sequence[str] | None = None) -> list[TrainedModel]:
    """The models in runs' folders, by run and name; only those with these `names` where some are given.

    Raises:
        UserError: where a folder holds no run or a record that cannot be read, or no model has one of the names.
    """
    found = [
        _model(Path(folder), path)
        for folder in folders
        for path in _paths_of_run(Path(folder)).model_folders()
        if any(path.glob("[!.]*"))
    ]
    known = {model.name for model in found}
    if unknown := [name for name in names or [] if name not in known]:
        raise UserError(
            f"model {unknown[0]!r}: expected one of {', '.join(sorted(known)) or 'none, as there are none'}"
        )
    return [model for model in found if not names or model.name in names]


def trained_model(run: str | Path, name: str) -> TrainedModel:
    """One model of a run; raises UserError where a record cannot be read."""
    return _model(Path(run), RunPaths(Path(run)).model(name).root)


def differing(models: Sequence[TrainedModel]) -> list[str]:
    """The names of the settings in which the models differ, in the order of config.yaml."""
    names = dict.fromkeys(name for model in models for name in model.settings if name not in _NOT_COMPARED)
    return [name for name in names if len({repr(model.settings.get(name)) for model in models}) > 1]


def to_dataframe(models: Sequence[TrainedModel]) -> pd.DataFrame:
    """A row for each model, for one's own analysis.

    Args:
        models: as `trained_models` finds them.

    Returns:
        Columns: run, dataset (the first digits of its digest), model, objective, each setting that differs, state,
        steps, accuracy (0 to 1) with its 95 % interval (low, high), changed (when, in UTC).
    """
    rows, different = [], [name for name in differing(models) if name not in ("objective", DIGEST)]
    for model in models:
        row: dict[str, Any] = {"run": str(model.run), "dataset": model.dataset, "model": model.name}
        row |= {"objective": model.settings.get("objective")}
        row |= {name: model.settings.get(name) for name in different}
        row |= {"state": model.state, "steps": model.steps}
        measured = model.result()
        row |= {"accuracy": measured.share, "low": measured.low, "high": measured.high} if measured else {}
        rows.append({**row, "changed": model.changed})
    return pd.DataFrame(rows)


def predictions_to_dataframe(models: Sequence[TrainedModel], every_step: bool = False) -> pd.DataFrame:
    """A row for each prediction of the finished models.

    Args:
        models: those that are not done are left out.
        every_step: also the predictions before the last recursion step.

    Returns:
        Columns: run, model, and those of predictions.parquet.
    """
    frames = [
        model.predictions(every_step).assign(run=str(model.run), model=model.name)
        for model in models
        if model.state == "done"
    ]
    if not frames:
        return pd.DataFrame()
    together = pd.concat(frames, ignore_index=True)
    return together[["run", "model", *together.columns.drop(["run", "model"])]]


def distinct(models: Sequence[TrainedModel]) -> list[TrainedModel]:
    """The models without those that repeat the settings and the seed of an earlier one, whose result would count twice.

    They are the same model, also where their names or the runs with their dataset differ.
    """
    found: dict[str, TrainedModel] = {}
    for model in models:
        settings = {name: value for name, value in model.settings.items() if name not in _NOT_COMPARED}
        found.setdefault(repr(sorted(settings.items())), model)
    return list(found.values())


def methods_table(models: Sequence[TrainedModel]) -> pd.DataFrame:
    """A row for each method, which is the models that differ in their seed alone: name, seeds, settings that differ."""
    names = [name for name in differing(models) if name != SEED]
    rows: dict[str, dict[str, Any]] = {}
    for model in models:
        name = _method_name(model, names)
        values = {_said(setting): _shown(model.settings.get(setting)) for setting in names}
        rows.setdefault(name, {"method": name, "seeds": 0} | values)["seeds"] += 1
    return pd.DataFrame(list(rows.values()))


def disagreements(first: TrainedModel, second: TrainedModel) -> pd.DataFrame:
    """The held-out samples that two models predict differently, those that only one of them has right first.

    Returns:
        A row for each sample: its `row` in the run of the first model, `sample_id`, `target`, and of both models
        `prediction`, `correct` and `cells_correct`, with the suffixes _1 and _2.

    Raises:
        UserError: for a model that is not done.
    """
    each = [(model, model.predictions()) for model in (first, second)]
    keyed = [last.assign(key=_keys_of(model, last)) for model, last in each]
    columns = ["key", "prediction", "correct", "cells_correct"]
    both = keyed[0][["row", "sample_id", "target", *columns]].merge(keyed[1][columns], on="key", suffixes=("_1", "_2"))
    same = [
        repr(_plain(one)) == repr(_plain(two))
        for one, two in zip(both["prediction_1"], both["prediction_2"], strict=True)
    ]
    found = both[~np.array(same, bool)].drop(columns="key")
    one_right = found["correct_1"] != found["correct_2"]
    return (
        found.assign(only_one=one_right)
        .sort_values(["only_one", "row"], ascending=[False, True])
        .drop(columns="only_one")
    )


def outcomes_of(models: Sequence[TrainedModel]) -> list[Outcomes]:
    """What the models have right of their held-out samples, for `comparison.compare_methods`.

    A sample is the same in two runs when its image, its target and its objective are. The name of a method is what
    distinguishes it from the others.

    Raises:
        UserError: for a model that is not done.
    """
    names = [name for name in differing(models) if name != SEED]
    return [_outcomes(model, _method_name(model, names)) for model in models]


def _method_name(model: TrainedModel, names: Sequence[str]) -> str:
    different = ", ".join(f"{_said(name)}={_shown(model.settings.get(name))}" for name in names)
    return different or str(model.settings.get("objective"))


def _said(name: str) -> str:
    return "dataset" if name == DIGEST else name


def _shown(value: object) -> str:
    text = str(value)
    return text[:8] if len(text) > 40 else text  # a digest


def _paths_of_run(folder: Path) -> RunPaths:
    paths = RunPaths(folder)
    if not paths.tracker.is_file():
        raise UserError(f"{folder}: no run here (progress.sqlite is missing); give the folder of a run")
    return paths


def _model(run: Path, root: Path) -> TrainedModel:
    paths = RunPaths(run).model(root.name)
    written = [path.stat().st_mtime for path in (paths.card, paths.metrics, paths.settings, root) if path.exists()]
    holder = None if paths.is_finished() else holder_of(root)
    state = "done" if paths.is_finished() else "training" if holder is not None and holder.alive else "begun"
    changed = datetime.fromtimestamp(max(written), UTC)
    return TrainedModel(run, paths, read_settings(paths), state, last_step(paths.metrics), changed)


def _outcomes(model: TrainedModel, method: str) -> Outcomes:
    last = model.predictions(columns=["row", "target", "correct"])
    return Outcomes(
        name=f"{model.run.name}/{model.name}",
        method=method,
        keys=_keys_of(model, last),
        correct=last["correct"].to_numpy(),
        items=_column(model, "item_id", last).to_numpy(dtype=str),
    )


def _column(model: TrainedModel, name: str, last: pd.DataFrame) -> pd.Series:
    """A column of samples.parquet for the samples of a model's predictions."""
    return pq.read_table(RunPaths(model.run).samples, columns=[name]).to_pandas()[name].iloc[last["row"]]


def _keys_of(model: TrainedModel, last: pd.DataFrame) -> np.ndarray:
    """What makes the samples of `last`, a model's predictions, the same as another's: objective, image and target."""
    keys = _column(model, "key", last)
    target = [repr(_plain(value)) for value in last["target"]]
    same = pd.Series([f"{key} {goal}" for key, goal in zip(keys, target, strict=True)], dtype=str)
    copy = same.groupby(same).cumcount().astype(str)  # equal images keep a row each
    return np.asarray(str(model.settings.get("objective")) + " " + same + " " + copy, dtype=str)


def _plain(value: object) -> object:
    """A grid as nested lists, anything else as it is."""
    return [_plain(one) for one in value] if isinstance(value, np.ndarray) else value
