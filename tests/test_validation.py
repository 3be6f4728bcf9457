"""Validation while a model is trained: the best step is kept and used, early stopping, and what is untouched by it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from runs import stop_at
from runs import train_in as train
from torch import Tensor

from trm_nb.errors import UserError
from trm_nb.evaluation.puzzle_tokens import PuzzleTokens
from trm_nb.sources.puzzles.sudoku import sudokus
from trm_nb.training.predictions import evaluate
from trm_nb.training.reasoning import Trained
from trm_nb.training.state import Settings
from trm_nb.training.validation import CELLS, EXACT, LOSS, Best, interval

SMALL = {"hidden_size": 32, "num_heads": 2, "H_cycles": 1, "L_cycles": 2, "mlp_t": True, "halt_max_steps": 2}
# a rate at which the validation accuracy goes up and down
SETTINGS = Settings(
    steps=30, batch=8, log_every=5, checkpoint_every=10, torch_threads=1, warm_up=2, learning_rate=1e-2, average=0.7,
    validate_every=3, seed=1,
)  # fmt: skip
EARLY = replace(SETTINGS, steps=1000, patience=2)


class Puzzles(PuzzleTokens):
    """A few Sudokus in three parts, whose held-out part must not be asked for."""

    def __init__(self, val: int = 8) -> None:
        puzzles = list(islice(sudokus(4, seed=0), 40))
        super().__init__(puzzles[:24], puzzles[32:], puzzles[24 : 24 + val], augment=False, **SMALL)  # type: ignore[arg-type]

    def test_batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        raise AssertionError("the test part is not for training")


def curve(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def weights(trained: Trained) -> dict[str, bytes]:
    return {name: weight.numpy().tobytes() for name, weight in trained.model.state_dict().items()}


def best_in(steps: list[dict[str, float]]) -> float:
    """The best step of a curve."""
    found = [step for step in steps if "val_loss" in step]
    return max(found, key=lambda one: (one["val_exact_accuracy"], one["val_accuracy"], -one["val_loss"]))["global_step"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    """A training in one go."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(folder, Puzzles(), SETTINGS)


@pytest.fixture(scope="module")
def early(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    """A training that stopped early, so that its best step is not its last one."""
    folder = tmp_path_factory.mktemp("early")
    return folder, train(folder, Puzzles(), EARLY)


def test_the_best_step_is_kept_and_used(early: tuple[Path, Trained], tmp_path: Path) -> None:
    folder, trained = early
    found = curve(folder)
    assert [step["global_step"] for step in found if "val_loss" in step] == list(range(3, trained.steps + 1, 3))
    assert trained.best_step == best_in(found) < trained.steps and trained.validated
    until_then = train(tmp_path, Puzzles(), replace(SETTINGS, steps=trained.best_step))
    assert weights(trained) == weights(until_then), "the weights are those of a training that ended there"


def test_a_validation_is_what_evaluation_finds(early: tuple[Path, Trained]) -> None:
    folder, trained = early
    (measured,) = [step for step in curve(folder) if step["global_step"] == trained.best_step]
    asked = evaluate(trained.model, Puzzles(), SETTINGS, part="val")
    assert measured["val_exact_accuracy"] == pytest.approx(asked.accuracy)
    assert measured["val_accuracy"] == pytest.approx(asked.cells[-1].mean())


@pytest.mark.parametrize("nth", [5, 20])
def test_stopped_and_continued_the_best_step_is_the_same(whole: tuple[Path, Trained], tmp_path: Path, nth: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Puzzles(), SETTINGS, stop_at(nth))
    continued = train(tmp_path, Puzzles(), SETTINGS)
    assert continued.best_step == whole[1].best_step and weights(continued) == weights(whole[1])
    assert (tmp_path / "metrics.jsonl").read_bytes() == (whole[0] / "metrics.jsonl").read_bytes()


def test_more_steps_choose_as_a_training_in_one_go(whole: tuple[Path, Trained], tmp_path: Path) -> None:
    part = train(tmp_path, Puzzles(), replace(SETTINGS, steps=20))
    assert part.steps == 20 and part.best_step == best_in(curve(tmp_path))
    continued = train(tmp_path, Puzzles(), SETTINGS)
    assert continued.best_step == whole[1].best_step and weights(continued) == weights(whole[1])


def test_the_last_step_is_validated_too(tmp_path: Path) -> None:
    trained = train(tmp_path, Puzzles(), replace(SETTINGS, steps=2))
    assert (trained.best_step, trained.validated) == (2, True)
    assert [step["global_step"] for step in curve(tmp_path) if "val_loss" in step] == [2]
    saved = torch.load(tmp_path / "training.pt", weights_only=True)
    assert saved["best"] is None, "a longer training does not choose among the ends of shorter ones"


def test_without_validation_examples_it_is_the_last_step(whole: tuple[Path, Trained], tmp_path: Path) -> None:
    trained = train(tmp_path, Puzzles(val=0), replace(SETTINGS, patience=1))
    assert (trained.best_step, trained.validated, trained.stopped_early) == (30, False, False)
    assert not any("val_loss" in step for step in curve(tmp_path))
    saved, held = (torch.load(path / "training.pt", weights_only=True) for path in (tmp_path, whole[0]))
    same = [torch.equal(saved["average"][name], held["average"][name]) for name in saved["average"]]
    assert all(same), "validation changes no step"


def test_it_stops_early_and_for_good(early: tuple[Path, Trained]) -> None:
    folder, trained = early
    found = curve(folder)
    assert trained.stopped_early and trained.steps == trained.best_step + 6 == found[-1]["global_step"] < 1000
    assert {"loss", "val_loss"} <= found[-1].keys(), "the last step has both"
    again = train(folder, Puzzles(), EARLY)
    assert (again.steps, again.best_step, again.stopped_early) == (trained.steps, trained.best_step, True)
    assert curve(folder) == found and weights(again) == weights(trained)
    with pytest.raises(UserError, match="patience=2, not 4"):
        train(folder, Puzzles(), replace(EARLY, patience=4))


NAN = math.nan


@pytest.mark.parametrize(
    ("found", "better"),
    [
        pytest.param((0.6, 0.1, 9.0), True, id="more examples"),
        pytest.param((0.4, 0.9, 0.1), False, id="fewer examples"),
        pytest.param((0.5, 0.8, 9.0), True, id="more cells"),
        pytest.param((0.5, 0.6, 0.1), False, id="fewer cells"),
        pytest.param((0.5, 0.7, 0.9), True, id="a lower loss"),
        pytest.param((0.5, 0.7, 1.0), False, id="the same"),
        pytest.param((0.5, 0.7, 1.1), False, id="a higher loss"),
        pytest.param((0.5, 0.7, NAN), False, id="no loss"),
    ],
)
def test_which_of_two_steps_is_better(found: tuple[float, float, float], better: bool) -> None:
    values = dict(zip((EXACT, CELLS, LOSS), found, strict=True))
    assert Best(10, 0.5, 0.7, 1.0, {}).is_worse_than(values) is better


@pytest.mark.parametrize(
    ("asked", "per_epoch", "batch", "expected"),
    [(None, 640, 64, 10), (None, 641, 64, 11), (None, 5, 64, 10), (None, 64_000, 64, 1000), (3, 64_000, 64, 3)],
    ids=["an epoch", "rounded up", "ten at least", "a long epoch", "as asked"],
)
def test_how_often(asked: int | None, per_epoch: int, batch: int, expected: int) -> None:
    assert interval(asked, per_epoch, batch) == expected
