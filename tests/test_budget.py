"""Trainings of so many minutes: what a step costs, how the rate falls, and checkpoints by the clock."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import make_run, stop_at
from runs import train_in as train
from test_reasoning import SETTINGS, tokens, weights

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError
from trm_nb.progress.model_record import write_settings
from trm_nb.progress.run_folder import ModelPaths
from trm_nb.training import budget, reasoning
from trm_nb.training.budget import Cost, cost_of
from trm_nb.training.train_objective import examples_of, planned, settings_of

COST = Cost(seconds=0.5, step_seconds=0.25, peak=0.126)


@pytest.mark.parametrize(
    ("steps", "said"),
    [(100, "100 steps take about 50 seconds"), (4000, "4,000 steps take about 33 minutes"), (10**5, "13.9 hours")],
    ids=["seconds", "minutes", "hours"],
)
def test_how_long_it_takes_is_said_in_a_fitting_unit(steps: int, said: str) -> None:
    assert said in COST.sentence(steps)
    assert COST.sentence(steps).endswith("4 steps/s, 13 % of the operations of a large matrix product")


def test_minutes_are_counted_as_steps() -> None:
    assert [COST.steps_in(minutes) for minutes in (8, 0.5, 0.001)] == [960, 60, 1]


def test_the_cost_is_measured_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(budget, "SECONDS", 0.0)
    examples = tokens()
    alone = cost_of(examples, SETTINGS)
    assert 0 < alone.step_seconds == alone.seconds and 0 < alone.peak < 2, "there are no validation examples"
    train(tmp_path / "measured", examples, SETTINGS)
    train(tmp_path / "plain", tokens(), SETTINGS)
    assert weights(tmp_path / "measured") == weights(tmp_path / "plain")


def config_of(folder: Path, **changes: object) -> MultimodalDatasetConfig:
    values = {"train_width": 64, "train_batch_size": 8, "torch_threads": 1, "device": "cpu", **changes}
    return MultimodalDatasetConfig(source_paths=["unused"], output_dir=str(folder), **values)


def test_the_number_of_steps_is_fixed_when_the_training_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(budget, "SECONDS", 0.0)
    make_run(tmp_path, ["a", "b"] * 12, (["train"] * 3 + ["val", "test"]) * 4 + ["train"] * 4)
    config, paths = config_of(tmp_path, train_minutes=0.01), ModelPaths(tmp_path / "models" / "main")
    objective = examples_of(tmp_path, config)
    fixed, said = planned(paths, objective, config)
    assert fixed.train_steps > 1 and fixed.train_minutes is None
    assert re.fullmatch(rf"{fixed.train_steps:,} steps take about 1 seconds: .*", said)

    paths.root.mkdir(parents=True)
    train(paths.root, objective, settings_of(fixed.with_changes(train_steps=2)))
    write_settings(paths, {"train_steps": 2})
    assert planned(paths, objective, config) == (fixed.with_changes(train_steps=2), "")
    few = config.with_changes(train_minutes=None, train_steps=3)
    assert planned(ModelPaths(tmp_path / "models" / "other"), objective, few) == (few, "")


def test_a_length_is_steps_or_minutes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one of them, and 0 or null for the other, got 5 and 2"):
        config_of(tmp_path, train_minutes=2, train_steps=5)


def rate(folder: Path, stop: int) -> float:
    """The learning rate of the step at which a training of 20 steps is stopped."""
    settings = replace(SETTINGS, steps=20, checkpoint_every=1, cool_down=0.5, warm_up=5)
    with pytest.raises(KeyboardInterrupt):
        train(folder, tokens(), settings, stop_at(stop))
    saved = torch.load(folder / "training.pt", weights_only=True)
    return float(saved["optimisers"][0]["param_groups"][0]["lr"])


def test_the_rate_falls_at_the_end_where_the_length_is_fixed(tmp_path: Path) -> None:
    falling = [rate(tmp_path / str(stop), stop) for stop in (2, 10, 15, 20)]
    assert falling == pytest.approx([4e-4, 1e-3, 6e-4, 1e-4])
    with pytest.raises(UserError, match="steps=20, not 30"):
        train(tmp_path / "20", tokens(), replace(SETTINGS, steps=30, checkpoint_every=1, cool_down=0.5, warm_up=5))


def test_a_checkpoint_by_the_clock_continues_as_any_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seldom = replace(SETTINGS, steps=30, checkpoint_every=10**6)
    train(tmp_path / "whole", tokens(), seldom)
    monkeypatch.setattr(reasoning, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", tokens(), seldom, stop_at(17))
    assert torch.load(tmp_path / "stopped" / "training.pt", weights_only=True)["step"] == 17
    train(tmp_path / "stopped", tokens(), seldom)
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    assert (tmp_path / "stopped" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
