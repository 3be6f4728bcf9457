"""Many models on one dataset: each has a folder with its settings, metrics, predictions, weights and card."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from conftest import config_for, make_sources
from runs import make_run

from trm_nb import CapsuleDataset, build
from trm_nb.cli.main import main
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError
from trm_nb.evaluation.trained_models import trained_models
from trm_nb.models.checkpoints import load_weights, read_weights
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel, TRMConfig
from trm_nb.notebook.progress_view import ProgressView
from trm_nb.pipeline.maintenance import rebuild_tracker, reset
from trm_nb.pipeline.run import Run, open_run
from trm_nb.pipeline.verify import verify
from trm_nb.progress.model_record import MAX_BYTES, read_settings
from trm_nb.progress.run_folder import ModelPaths, RunPaths
from trm_nb.progress.stats_text import state_text
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.storage.files import locked
from trm_nb.training.model_results import write_results
from trm_nb.training.objectives import objective_named
from trm_nb.training.results import Result
from trm_nb.training.state import KIND
from trm_nb.training.train_objective import examples_of, train_model

STEPS = 110  # beyond the checkpoint after 100
SHORT = {"train_steps": 3, "train_width": 64, "train_batch_size": 8, "test_fraction": 0.5}


@pytest.fixture(scope="module")
def sources_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sources(tmp_path_factory.mktemp("many models"))


@pytest.fixture(scope="module")
def built(sources_of_all: Path) -> Path:
    """A finished run with the model `main`."""
    return build(config_for(sources_of_all, sources_of_all.parent / "built", **SHORT)).output_dir


@pytest.fixture(scope="module")
def whole(built: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelPaths:
    """A model that was trained in one go, in a copy of that run."""
    folder = Path(shutil.copytree(built, tmp_path_factory.mktemp("whole") / "run"))
    open_run(output_dir=folder, model="second", train_steps=STEPS, train_seed=3).train()
    return RunPaths(folder).model("second")


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "a run"))


@pytest.fixture
def config_of(folder: Path, sources_of_all: Path) -> Callable[..., MultimodalDatasetConfig]:
    return lambda **changes: config_for(sources_of_all, folder, **(SHORT | changes))


def weights(paths: ModelPaths) -> dict[str, bytes]:
    held, _ = read_weights(paths.weights, KIND)
    return {name: weight.numpy().tobytes() for name, weight in held.items()}


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of each file, however deep."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_the_training_seed_changes_the_training_and_nothing_else(
    folder: Path, config_of: Callable[..., MultimodalDatasetConfig]
) -> None:
    before, main_before = (folder / "samples.parquet").read_bytes(), state(RunPaths(folder).model("main").root)
    digests = {
        build(config_of(model=name, train_seed=seed)).content_digest for name, seed in [("a", 7), ("b", 7), ("c", 8)]
    }
    a, b, c = (weights(RunPaths(folder).model(name)) for name in "abc")
    assert a == b and a.keys() == c.keys() and a != c
    assert weights(RunPaths(folder).model("main")) not in (a, c)
    assert digests == {CapsuleDataset(folder).info["content_digest"]}
    assert (folder / "samples.parquet").read_bytes() == before
    assert state(RunPaths(folder).model("main").root) == main_before
    assert verify(folder, deep=True) == []


def test_without_a_training_seed_it_is_the_seed(
    folder: Path, config_of: Callable[..., MultimodalDatasetConfig]
) -> None:
    build(config_of(model="other", train_seed=0))
    assert weights(RunPaths(folder).model("other")) == weights(RunPaths(folder).model("main"))


def test_a_deleted_model_is_trained_anew(folder: Path, config_of: Callable[..., MultimodalDatasetConfig]) -> None:
    paths = RunPaths(folder).model("main")
    before = weights(paths)
    shutil.rmtree(paths.root)
    with closing(TrainingProgressTracker(folder)) as tracker:
        assert tracker.get_stats()["pending"] == ["train"]
    build(config_of())
    assert weights(paths) == before and paths.is_finished()
    shutil.rmtree(paths.root)
    build(config_of(learning_rate=0.5))  # in another way
    assert weights(paths) != before


TRAIN = """
import sys
from trm_nb.pipeline.run import open_run
open_run(output_dir=sys.argv[1], model=sys.argv[2], train_steps=int(sys.argv[3]), train_seed=3).train()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    ["train-step:50", "train-checkpoint", f"train-step:{STEPS - 4}", "train-checkpoint:2"],
    ids=["before a checkpoint", "at a checkpoint", "after it", "at the end"],
)
def test_killed_in_the_second_model_it_ends_with_the_same_weights(
    folder: Path, whole: ModelPaths, run_python: Callable[..., subprocess.CompletedProcess[str]], fault: str
) -> None:
    paths = RunPaths(folder)
    first = state(paths.model("main").root)
    killed = run_python(TRAIN, str(folder), "second", str(STEPS), fault=fault)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not paths.model("second").is_finished()
    with closing(TrainingProgressTracker(folder)) as tracker:
        stats = tracker.get_stats()
    assert (stats["model"], stats["train_steps"], stats["pending"]) == ("second", STEPS, ["train"])
    second = paths.model("second")
    open_run(output_dir=folder, model="second").train()
    assert weights(second) == weights(whole)
    for name in ("settings", "metrics", "weights", "predictions", "result", "card"):
        assert getattr(second, name).read_bytes() == getattr(whole, name).read_bytes(), name
    assert state(paths.model("main").root) == first


def test_more_steps_take_the_results_away_until_they_are_done(
    folder: Path, config_of: Callable[..., MultimodalDatasetConfig]
) -> None:
    paths = RunPaths(folder).model("main")
    steps = iter(range(5))
    run = Run(config_of(train_steps=9))

    def stop() -> None:
        if next(steps) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.train(stop)
    assert not any(path.exists() for path in paths.results) and paths.checkpoint.is_file()
    stats = run.tracker.get_stats()
    assert (stats["state"], state_text(stats)) == ("stopped", "stopped: interrupted")
    run.train()
    assert "trained for 9 steps" in paths.card.read_text(encoding="utf-8")
    run.close()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 0.01}, "learning_rate=0.001, not learning_rate=0.01"),
        ({"train_seed": 5}, "train_seed=0, not train_seed=5"),
        ({"objective": "grid"}, "objective='label', not objective='grid'"),
        ({"train_width": 128, "weight_decay": 0.0}, "train_width=64, not train_width=128; weight_decay=0.1, not"),
    ],
    ids=["rate", "seed", "objective", "two"],
)
def test_a_model_of_other_settings_is_refused_by_name(
    folder: Path, config_of: Callable[..., MultimodalDatasetConfig], changes: dict[str, object], named: str
) -> None:
    before = state(folder / "models")
    with pytest.raises(UserError) as refused:
        build(config_of(**changes))
    assert named in str(refused.value) and str(folder / "models" / "main") in str(refused.value)
    assert "choose another `model` name, or delete that folder" in str(refused.value)
    assert state(folder / "models") == before
    with closing(TrainingProgressTracker(folder)) as tracker:
        assert tracker.get_stats()["state"] == "done"
    assert build(config_of(model="another", **changes)).training is not None


def test_a_model_of_another_dataset_is_refused(folder: Path, config_of: Callable[..., MultimodalDatasetConfig]) -> None:
    settings = RunPaths(folder).model("main").settings
    settings.write_text(settings.read_text(encoding="utf-8").replace("content_digest: ", "content_digest: 0"))
    with pytest.raises(UserError, match=r"this model was trained with content_digest='0.*, not content_digest="):
        build(config_of())


@pytest.mark.parametrize(
    "data",
    [b"[1, 2]", b"\xff", b"a: [", b"", b"a: &a [1]\n" + b"# long\n" * MAX_BYTES, b"[" * 5000],
    ids=["list", "not-utf8", "not-yaml", "empty", "huge", "deep"],
)
def test_damaged_settings_of_a_model_are_one_sentence(
    folder: Path, config_of: Callable[..., MultimodalDatasetConfig], data: bytes
) -> None:
    RunPaths(folder).model("main").settings.write_bytes(data)
    with pytest.raises(UserError, match=r"config\.yaml: expected the settings of a training"):
        build(config_of())


def test_before_the_first_checkpoint_settings_may_change(
    folder: Path, config_of: Callable[..., MultimodalDatasetConfig]
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    run = Run(config_of(model="new", learning_rate=0.5))
    with pytest.raises(KeyboardInterrupt):
        run.train(stop)
    run.close()
    assert open_run(output_dir=folder, model="new").config.learning_rate == 0.5, "and it continues with its own"
    assert build(config_of(model="new", learning_rate=0.1)).training is not None
    assert yaml.safe_load(RunPaths(folder).model("new").settings.read_text())["learning_rate"] == 0.1


def test_the_tracker_tells_of_the_model_that_was_asked_for_last(
    folder: Path, config_of: Callable[..., MultimodalDatasetConfig]
) -> None:
    run = Run(config_of(model="longer", train_steps=25))
    run.train()
    curve, stats = run.tracker.training_curve(), run.tracker.get_stats()
    assert (stats["model"], stats["global_step"], stats["train_steps"], stats["state"]) == ("longer", 25, 25, "done")
    assert [step["global_step"] for step in curve] == [10, 20, 25]
    assert [json.loads(line) for line in run.paths.model("longer").metrics.read_text().splitlines()] == curve
    assert "model: longer" in str(ProgressView(run.tracker).snapshot())
    run.close()

    run = Run(config_of())
    run.up_to("export")  # which asks for `main`, and trains nothing
    stats = run.tracker.get_stats()
    assert (stats["model"], stats["global_step"], stats["train_steps"], stats["state"]) == ("main", 3, 3, "done")
    assert stats["stages"]["train"]["status"] == "done" and len(run.tracker.training_curve()) == 1
    run.close()

    run = Run(config_of(model="new"))
    run.up_to("export")
    stats = run.tracker.get_stats()
    assert (stats["global_step"], stats["chunk_progress"], stats["pending"]) == (0, 0.0, ["train"])
    run.close()

    run = Run(config_of(train_steps=0, model="none"))
    run.up_to("export")
    assert run.tracker.get("model_asked") == "new", "0 steps ask for no model"
    run.close()


def test_the_model_of_an_earlier_version_is_refused_in_one_sentence(
    folder: Path, config_of: Callable[..., MultimodalDatasetConfig]
) -> None:
    shutil.rmtree(folder / "models")
    (folder / "model").mkdir()
    (folder / "model" / "trm.pt").touch()
    with pytest.raises(
        UserError, match=r"model/trm\.pt: this model was trained by an earlier version .*, delete .*/model"
    ):
        build(config_of())
    shutil.rmtree(folder / "model")
    assert build(config_of()).training is not None


def test_reset_deletes_models_and_the_fitted_encoder(folder: Path) -> None:
    RunPaths(folder).encoder.mkdir()
    RunPaths(folder).fitted_encoder.touch()
    assert {"models", "encoder"} <= set(reset(folder))
    assert not (folder / "models").exists() and not (folder / "encoder").exists()


# -- its result, in the tracker's statistics and in dataset_info.json ------------------------------------------------


def test_results_are_in_the_status_and_in_the_dataset_s_file(
    folder: Path, config_of: Callable[..., MultimodalDatasetConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    digest = CapsuleDataset(folder).info["content_digest"]
    result = build(config_of(model="other", train_steps=12)).training
    assert result is not None and result.trained is not None
    info = CapsuleDataset(folder).info
    assert info["content_digest"] == digest and verify(folder, deep=True) == []
    main_model, other = info["models"]
    assert (main_model["name"], other["name"], other["objective"], other["state"]) == ("main", "other", "label", "done")
    assert (other["metric"], other["value"]) == ("accuracy", result.accuracy.share)
    assert other["interval"] == [result.accuracy.low, result.accuracy.high]
    assert (other["baseline"]["name"], other["verdict"]) == (
        "the nearest neighbour", result.baselines[0].against.outcome,
    )  # fmt: skip
    (listed,) = [model for model in trained_models([folder]) if model.name == "other"]
    assert listed.result() == result.accuracy, "the validation samples do not count"
    assert (other["steps"], other["best_step"]) == (12, result.trained.best_step) and "by_class" not in other
    capsys.readouterr()
    assert main(["status", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"] == info["models"]

    for path in RunPaths(folder).model("other").results:
        path.unlink()
    with closing(TrainingProgressTracker(folder)) as tracker:
        assert tracker.get_stats()["models"] == [main_model, {"name": "other", "state": "begun"}]
    build(config_of())
    assert CapsuleDataset(folder).info["models"] == [main_model] and verify(folder, deep=True) == []


@pytest.mark.parametrize("data", [b"", b"[]", b'{"value": ', b"[" * 5000], ids=["empty", "list", "cut", "deep"])
def test_a_damaged_result_is_none(folder: Path, data: bytes) -> None:
    RunPaths(folder).model("main").result.write_bytes(data)
    with closing(TrainingProgressTracker(folder)) as tracker:
        assert tracker.get_stats()["models"] == [{"name": "main", "state": "done"}]


@pytest.mark.slow
def test_killed_while_it_notes_a_result_the_next_training_repairs_it_without_the_sources(
    folder: Path,
    sources_of_all: Path,
    config_of: Callable[..., MultimodalDatasetConfig],
    run_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    killed = run_python(TRAIN, str(folder), "second", "3", fault="dataset-info")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(CapsuleDataset(folder).info["models"]) == 2 and verify(folder) != []
    moved = sources_of_all.rename(sources_of_all.with_name("moved"))
    try:
        open_run(output_dir=folder, model="second").train()
    finally:
        moved.rename(sources_of_all)
    assert verify(folder, deep=True) == []


def test_a_training_that_stopped_early_has_ended(
    folder: Path, config_of: Callable[..., MultimodalDatasetConfig]
) -> None:
    config = config_of(model="early", train_steps=500, validate_every=1, early_stopping=2)
    first = build(config).training
    assert first is not None and first.trained is not None and first.trained.stopped_early
    assert first.trained.steps < 500 and "Training stopped early" in first.choice()
    with closing(TrainingProgressTracker(folder)) as tracker:
        stats = tracker.get_stats()
        assert (stats["state"], stats["pending"], stats["global_step"]) == ("done", [], first.trained.steps)
        assert stats["stages"]["train"]["message"].startswith("stopped early: no validation after step")
    again = build(config.with_changes(train_steps=600)).training
    assert again is not None and again.trained is not None and again.trained.steps == first.trained.steps


def test_a_training_whose_folder_is_gone_is_not_running(folder: Path) -> None:
    with closing(TrainingProgressTracker(folder, create=True)) as tracker:
        tracker.begin("train", 9)
        with locked(RunPaths(folder).model("main").root, "training"):
            assert tracker.get_stats()["state"] == "running train" and tracker.facts()["state"] == "running train"
        shutil.rmtree(RunPaths(folder).model("main").root)
        stats = tracker.get_stats()
        assert (stats["state"], stats["stages"]["train"]["status"]) == ("stopped", "stopped")
        assert tracker.facts()["state"] == "at rest" and tracker.trainings()["main"]["status"] == "stopped"


@pytest.mark.parametrize("change", [reset, rebuild_tracker])
def test_a_run_stays_while_one_of_its_models_is_trained(folder: Path, change: Callable[[Path], object]) -> None:
    before = state(folder)
    with locked(RunPaths(folder).model("main").root, "training"):
        with pytest.raises(UserError, match=r"models/main: this model is being trained by process \d+ \(training\)"):
            change(folder)
        with pytest.raises(UserError, match=r"models/main is being written by process \d+ \(training\)"):
            open_run(output_dir=folder).train()
    assert state(folder).items() >= before.items()


# -- what its folder holds ------------------------------------------------------------------------------------------

SPLITS = ["train", "train", "test"] * 20
GRIDS = [[[[row % 3, 1]]] if row % 2 else [[[row % 3], [2]]] for row in range(60)]


def trained(folder: Path, objective: str, val: bool = False, **changes: object) -> tuple[Result, ModelPaths]:
    """A model `m` on a run made by hand, whose labels are a, b, c and whose grids have two sizes."""
    splits = ["train", "val", "train", "test"] * 15 if val else SPLITS
    make_run(folder, ["a", "b", "c"] * 20, splits, targets=GRIDS)  # type: ignore[arg-type]
    table = pq.read_table(folder / "samples.parquet")
    if objective == "next":
        books = [f"book{row // 6}" for row in range(60)]
        table = table.drop_columns(["item_id", "split"]).append_column("item_id", [books])
        parts = ("train", "test", "train", "val") if val else ("train", "test")
        table = table.append_column("split", [[parts[row // 6 % len(parts)] for row in range(60)]])
    pq.write_table(table, folder / "samples.parquet")
    values: dict[str, Any] = {
        "train_steps": 12,
        "train_width": 64,
        "train_batch_size": 8,
        "torch_threads": 1,
        **changes,
    }
    config = MultimodalDatasetConfig(
        source_paths=["unused"], output_dir=str(folder), objective=objective, model="m", **values
    )
    (folder / "progress.sqlite").touch()
    paths = RunPaths(folder).model("m")
    with closing(TrainingProgressTracker(folder, create=True)) as tracker:
        return train_model(paths, examples_of(folder, config), config, tracker), paths


@pytest.mark.parametrize("objective", ["label", "grid", "next"])
def test_predictions_have_a_row_for_each_held_out_sample_and_recursion_step(tmp_path: Path, objective: str) -> None:
    result, paths = trained(tmp_path, objective)
    held, dataset = pandas.read_parquet(paths.predictions), CapsuleDataset(tmp_path)
    steps, n = result.predictions.exact.shape
    assert len(held) == steps * n and sorted(held["step"].unique()) == list(range(1, steps + 1))
    assert np.allclose(held.groupby("step")["correct"].mean(), [step.exact for step in result.steps])
    assert np.allclose(held.groupby("step")["cells_correct"].mean(), [step.cells for step in result.steps])
    assert held["row"].is_monotonic_increasing and set(held["split"]) == {"test"}
    assert dict(zip(held["row"], held["sample_id"], strict=True)) == {
        row: dataset.sample_ids[dataset.rows.searchsorted(row)] for row in result.predictions.rows
    }
    numbered = dict(zip(result.predictions.rows.tolist(), result.predictions.items.tolist(), strict=True))  # type: ignore[union-attr]
    assert dict(zip(held["row"], held["item"], strict=True)) == numbered
    same = [_plain(one) == _plain(other) for one, other in zip(held["target"], held["prediction"], strict=True)]
    assert same == held["correct"].tolist()
    for row, target in zip(held["row"], held["target"], strict=True):
        assert _plain(target) == _expected(objective, row)


def _expected(objective: str, row: int) -> object:
    if objective == "grid":  # cells outside of the grid are -1
        grid = np.full((2, 2), -1)
        cells = np.array(GRIDS[row][0])
        grid[: cells.shape[0], : cells.shape[1]] = cells
        return grid.tolist()
    return "abc"[row % 3] if objective == "label" else row + 1


def _plain(value: Any) -> object:
    return [_plain(one) for one in value] if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize(("mixing", "local"), [("all", False), ("neighbours", True)])
def test_cells_are_mixed_as_the_settings_say_and_a_training_stays_with_it(
    tmp_path: Path, mixing: str, local: bool
) -> None:
    _, paths = trained(tmp_path, "grid", mixing=mixing)
    held, _ = read_weights(paths.weights, KIND)
    assert any(".self_attn." in name or ".mlp_t." in name for name in held) is not local
    assert f"| mixing | {mixing} |" in paths.card.read_text(encoding="utf-8")
    other = "all" if local else "neighbours"
    with pytest.raises(UserError, match=f"mixing='{mixing}', not mixing='{other}'"):
        trained(tmp_path, "grid", mixing=other)


@pytest.mark.parametrize("objective", ["label", "grid", "next"])
def test_validation_chooses_the_step_and_its_predictions_are_kept(tmp_path: Path, objective: str) -> None:
    result, paths = trained(tmp_path, objective, val=True, validate_every=4)
    assert result.trained is not None and result.val is not None and result.val_accuracy is not None
    steps = [json.loads(line) for line in paths.metrics.read_text(encoding="utf-8").splitlines()]
    assert [step["global_step"] for step in steps if "val_loss" in step] == [4, 8, 12]
    held, splits = pandas.read_parquet(paths.predictions), dict(enumerate(CapsuleDataset(tmp_path).splits))
    assert set(held["split"]) == {"val", "test"}
    assert [splits[row] for row in held["row"]] == held["split"].tolist()
    last = held[held["step"] == held["step"].max()].groupby("split")["correct"].mean()
    assert last["test"] == result.accuracy.share and last["val"] == result.val_accuracy.share
    best = {step["global_step"]: step for step in steps}[result.trained.best_step]
    assert best["val_exact_accuracy"] == pytest.approx(result.val_accuracy.share)
    card = paths.card.read_text(encoding="utf-8")
    assert f"The weights of step **{result.trained.best_step}** of 12 are used, the best one on the validation" in card
    assert "The test samples took no part in this: they were evaluated once, after the training had ended." in card
    assert "| grid | " in card and ("| recall of " in card) is (objective == "label")
    said = json.loads(paths.result.read_bytes())
    assert (said["best_step"], said["chosen_by"], said["name"]) == (
        result.trained.best_step, "validation", "m",
    )  # fmt: skip
    assert (said["value"], said["validation"]["value"]) == (result.accuracy.share, result.val_accuracy.share)


def test_without_validation_samples_the_card_says_that_it_is_the_last_step(tmp_path: Path) -> None:
    result, paths = trained(tmp_path, "label")
    assert result.val is None and json.loads(paths.result.read_bytes())["chosen_by"] == "last step"
    card = paths.card.read_text(encoding="utf-8")
    assert (
        "There are no validation samples, so the weights of the last step, **12**, are used. The test samples" in card
    )


def test_names_of_classes_are_text_in_the_card(tmp_path: Path) -> None:
    result, paths = trained(tmp_path, "label")
    hostile = "<img src=x>|`*a"
    classes = tuple(replace(one, name=hostile) for one in result.classes)
    assert result.trained is not None
    write_results(paths, replace(result, classes=classes), result.trained, read_settings(paths))
    card = paths.card.read_text(encoding="utf-8")
    assert hostile not in card and "\n| &lt;img src\\=x&gt;\\|\\`\\*a | " in card
    assert json.loads(paths.result.read_bytes())["by_class"][0]["class"] == hostile


@pytest.mark.parametrize("objective", ["label", "grid"])
def test_the_weights_hold_all_that_the_model_is_made_of(tmp_path: Path, objective: str) -> None:
    _, paths = trained(tmp_path, objective)
    held, values = read_weights(paths.weights, KIND)
    model = TinyRecursiveModel(TRMConfig(**values["architecture"]), torch.Generator())
    load_weights(model, held, paths.weights)
    saved = torch.load(paths.checkpoint, weights_only=True)
    assert all(torch.equal(saved["average"][name], weight) for name, weight in held.items())
    settings = yaml.safe_load(paths.settings.read_text(encoding="utf-8"))
    assert {name: values[name] for name in settings} == settings and values["steps"] == 12
    assert settings["content_digest"] == CapsuleDataset(tmp_path).info["content_digest"]
    assert (settings["objective"], settings["train_seed"], settings["train_width"]) == (objective, 0, 64)


def test_the_card_states_what_was_measured(tmp_path: Path) -> None:
    result, paths = trained(tmp_path, "label")
    card = paths.card.read_text(encoding="utf-8")
    assert all(sentence in card for sentence in result.sentences())
    assert all(f"| {one.name} |" in card for one in result.baselines)
    assert "# Model `m`" in card and "trained for 12 steps" in card and objective_named("label").target in card
    assert f"`{CapsuleDataset(tmp_path).info['content_digest']}`" in card and "## Limits" in card


def test_measured_again_its_files_are_the_same(tmp_path: Path) -> None:
    _, paths = trained(tmp_path, "grid")
    before = {path: path.read_bytes() for path in paths.root.iterdir() if path.name[0] != "."}
    for path in paths.results:
        path.unlink()
    trained(tmp_path, "grid")
    assert {path: path.read_bytes() for path in before} == before


# -- the command ------------------------------------------------------------------------------------------------


def test_the_command_trains_beside_what_is_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(folder), "--model", "low", "-p", "learning_rate=1e-5", "-p", "train_seed=4"]) == 0
    said = capsys.readouterr().out
    assert "held-out labels are predicted correctly" in said and said.endswith(f"{Path('models', 'low')}\n")
    settings = yaml.safe_load(RunPaths(folder).model("low").settings.read_text(encoding="utf-8"))
    assert (settings["learning_rate"], settings["train_seed"], settings["train_width"]) == (1e-5, 4, 64)
    assert main(["train", str(folder), "--model", "low"]) == 0, "it knows its own settings"
    assert main(["train", str(folder), "--model", "low", "-p", "learning_rate=1e-4"]) == 2
    assert "learning_rate=1e-05, not learning_rate=0.0001" in capsys.readouterr().err
    assert main(["train", str(folder), "-p", "seed=1"]) == 2
    assert "this run was made with seed=0, not seed=1" in capsys.readouterr().err
    assert main(["train", str(folder / "none")]) == 2


HOSTILE_NAMES = ["../x", "a/b", ".x", "..", "", "a b", "a\\b", "a\n", "é", "x" * 101, "a:b", "\0", "/tmp/x"]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_a_name_that_leaves_the_folder_is_refused(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.parent.rglob("*"))
    assert main(["train", str(folder), "--model", name]) == 2
    assert "model: expected a name of 1 to 100 letters, digits, -, _ and ., not beginning" in capsys.readouterr().err
    assert sorted(folder.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ["a", "3e-4", "seed_1.lr-2", "x" * 100, "-a", "main"])
def test_a_name_that_is_a_file_name_is_taken(name: str, config_of: Callable[..., MultimodalDatasetConfig]) -> None:
    assert config_of(model=name).model == name


@pytest.mark.slow
def test_interrupted_the_command_says_how_to_continue(folder: Path) -> None:
    command = [sys.executable, "-m", "trm_nb.cli", "train", str(folder), "--model", "long"]
    process = subprocess.Popen([*command, "-p", "train_steps=100000"], stderr=subprocess.PIPE, text=True)
    checkpoint = RunPaths(folder).model("long").checkpoint
    until = time.monotonic() + 120
    while not checkpoint.is_file() and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"trm-nb train '{folder}' --model long` continues this training" in said
    with closing(TrainingProgressTracker(folder)) as tracker:
        stats = tracker.get_stats()
    assert (stats["model"], stats["train_steps"], stats["pending"]) == ("long", 100000, ["train"])
    assert main(["train", str(folder), "--model", "long", "-p", "train_steps=1"]) == 0, "what there is can be measured"
