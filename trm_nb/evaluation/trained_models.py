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

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from trm_nb.errors import UserError
from trm_nb.evaluation.comparison import Outcomes
from trm_nb.progress.model_record import last_step, read_settings
from trm_nb.progress.run_folder import ModelPaths, RunPaths
from trm_nb.training.verdicts import Accuracy, accuracy

SEED = "train_seed"
_NOT_COMPARED = {"model", "versions", "device", "torch_threads"}  # they do not make another method


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """One training.

    `run`: its run's folder. `settings`: what config.yaml holds. `state`: "done", or "begun" where results are missing.
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

    def result(self) -> Accuracy | None:
        """The accuracy on the held-out samples after the last recursion step; None where the training is not done."""
        if self.state != "done":
            return None
        last = _last_step_of(self.paths)
        return accuracy(last["correct"].to_numpy(), last["item"].to_numpy())


def trained_models(folders: Iterable[str | Path]) -> list[TrainedModel]:
    """The models in runs' folders, by run and name.

    Raises:
        UserError: where a folder holds no run, or a record that cannot be read.
    """
    return [
        _model(Path(folder), path)
        for folder in folders
        for path in sorted(_models_folder(Path(folder)).glob("[!.]*"))
        if path.is_dir()
    ]


def differing(models: Sequence[TrainedModel]) -> list[str]:
    """The names of the settings in which the models differ, in the order of config.yaml."""
    names = dict.fromkeys(name for model in models for name in model.settings if name not in _NOT_COMPARED)
    return [name for name in names if len({repr(model.settings.get(name)) for model in models}) > 1]


def to_dataframe(models: Sequence[TrainedModel]) -> pd.DataFrame:
    """A row for each model: run, name, objective, what differs, state, steps, accuracy with its interval, date."""
    rows, different = [], [name for name in differing(models) if name != "objective"]
    for model in models:
        row = {"run": str(model.run), "model": model.name, "objective": model.settings.get("objective")}
        row |= {name: model.settings.get(name) for name in different}
        row |= {"state": model.state, "steps": model.steps}
        measured = model.result()
        row |= {"accuracy": measured.share, "low": measured.low, "high": measured.high} if measured else {}
        rows.append({**row, "changed": model.changed})
    return pd.DataFrame(rows)


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
    different = ", ".join(f"{name}={_shown(model.settings.get(name))}" for name in names)
    return different or str(model.settings.get("objective"))


def _shown(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) > 40 else text  # a digest


def _models_folder(folder: Path) -> Path:
    paths = RunPaths(folder)
    if not paths.tracker.is_file():
        raise UserError(f"{folder}: no run here (progress.sqlite is missing); give the folder of a run")
    return paths.models


def _model(run: Path, root: Path) -> TrainedModel:
    paths = RunPaths(run).model(root.name)
    written = [path.stat().st_mtime for path in (paths.card, paths.metrics, paths.settings, root) if path.exists()]
    return TrainedModel(
        run, paths, read_settings(paths), "done" if paths.is_finished() else "begun", last_step(paths.metrics),
        datetime.fromtimestamp(max(written), UTC),
    )  # fmt: skip


def _last_step_of(paths: ModelPaths) -> pd.DataFrame:
    """The predictions for the held-out samples after the last recursion step."""
    try:
        table = pq.read_table(paths.predictions, columns=["row", "item", "split", "step", "target", "correct"])
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{paths.predictions}: cannot be read ({error}); `trm-nb train` writes it again") from None
    frame: pd.DataFrame = table.to_pandas()
    return frame[(frame["split"] == "test") & (frame["step"] == frame["step"].max())]


def _outcomes(model: TrainedModel, method: str) -> Outcomes:
    if model.state != "done":
        raise UserError(f"{model.paths.root}: this training is not finished; `trm-nb train` continues it")
    last = _last_step_of(model.paths).sort_values("row")
    keys = pq.read_table(RunPaths(model.run).samples, columns=["key", "item_id"]).to_pandas().iloc[last["row"]]
    target = [repr(value) for value in last["target"]]
    same = pd.Series([f"{key} {goal}" for key, goal in zip(keys["key"], target, strict=True)])
    copy = same.groupby(same).cumcount().astype(str)  # equal images keep a row each
    objective = str(model.settings.get("objective"))
    return Outcomes(
        name=f"{model.run.name}/{model.name}",
        method=method,
        keys=(objective + " " + same + " " + copy).to_numpy(dtype=str),
        correct=last["correct"].to_numpy(),
        items=keys["item_id"].to_numpy(dtype=str),
    )
