"""Training a TinyRecursiveModel: it learns, what was killed ends as what was not, and what does not fit is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import stop_at
from runs import train_in as train
from torch import Tensor

from trm_nb.errors import UserError
from trm_nb.evaluation.puzzle_tokens import PuzzleTokens
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import Puzzle
from trm_nb.sources.puzzles.mazes import mazes
from trm_nb.sources.puzzles.sudoku import sudokus
from trm_nb.training.predictions import evaluate
from trm_nb.training.state import ROW, Settings, open_state
from trm_nb.training.verdicts import accuracy

SMALL = {"hidden_size": 32, "num_heads": 2, "H_cycles": 1, "L_cycles": 2, "mlp_t": True, "halt_max_steps": 4}
SETTINGS = Settings(steps=40, batch=8, log_every=10, checkpoint_every=10, torch_threads=1, warm_up=10)


def tokens(kind: str = "sudoku", **model: object) -> PuzzleTokens:
    puzzles = list(islice(sudokus(4, seed=0) if kind == "sudoku" else mazes(5, seed=0), 24))
    return PuzzleTokens(puzzles[:20], puzzles[20:], **(SMALL | model))  # type: ignore[arg-type]


class Copied(PuzzleTokens):
    """Full boards whose answer is the question: what a small model learns at once."""

    def __init__(self) -> None:
        full = [Puzzle("sudoku", p.solution, p.solution) for p in islice(sudokus(4, 0), 40) if p.solution is not None]
        super().__init__(full[:30], full[30:], **SMALL)  # type: ignore[arg-type]


def weights(folder: Path) -> dict[str, bytes]:
    saved = torch.load(folder / "training.pt", weights_only=True)
    parts = {f"{part}.{name}": value for part in ("model", "average") for name, value in saved[part].items()}
    parts |= {f"carry.{name}": value for name, value in (saved["carry"] | saved["data"]).items()}
    return {name: value.numpy().tobytes() for name, value in parts.items()}


def test_it_learns_and_asks_as_deep_as_it_is_told(tmp_path: Path) -> None:
    examples, settings = Copied(), replace(SETTINGS, steps=200, batch=16, learning_rate=3e-3)
    model = train(tmp_path, examples, settings).model
    answers = evaluate(model, examples, settings)
    assert answers.accuracy == answers.exact[-1].mean() > 0.9
    assert answers.exact.shape == answers.cells.shape == (4, 10)
    measured = accuracy(answers.exact[-1], answers.items)
    assert measured.low < answers.accuracy == measured.share <= measured.high
    assert np.array_equal(answers.rows, np.arange(10))
    assert np.array_equal((answers.predictions == answers.labels).all(1), answers.exact[-1])
    assert evaluate(model, examples, settings, steps=9).exact.shape == (9, 10)
    assert model.config.halt_max_steps == 4


def test_what_is_noted_while_it_trains(tmp_path: Path) -> None:
    train(tmp_path, tokens(), SETTINGS)
    tracker = TrainingProgressTracker(tmp_path)
    curve, stats = tracker.training_curve(), tracker.get_stats()
    tracker.close()
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()] == curve
    assert [step["global_step"] for step in curve] == [10, 20, 30, 40]
    assert {"loss", "lm_loss", "accuracy", "exact_accuracy", "steps", "chunk_progress"} <= curve[-1].keys()
    assert curve[-1]["epoch"] == 40 * 8 / 20 and curve[-1]["chunk_progress"] == 0.0
    assert (stats["global_step"], stats["chunk_progress"]) == (40, 0.0)
    assert curve[-1]["loss"] < curve[0]["loss"]


def test_an_embedding_of_the_task_is_learnt_too(tmp_path: Path) -> None:
    task = {"num_puzzle_identifiers": 1, "puzzle_emb_len": 2}
    train(tmp_path, tokens(**task), SETTINGS)  # type: ignore[arg-type]
    saved = torch.load(tmp_path / "training.pt", weights_only=True)
    assert saved["model"]["puzzle_emb.weight"].abs().max() > 0, "it begins at nothing"
    assert len(saved["optimisers"]) == 2


def test_matrices_between_features_are_trained_by_muon_where_its_rate_is_given(tmp_path: Path) -> None:
    settings = replace(SETTINGS, muon_rate=1e-2, weight_decay=0.2, learning_rate=1e-3)
    task = {"num_puzzle_identifiers": 1, "puzzle_emb_len": 2, "mlp_t": True}
    state = open_state(tmp_path / "none.pt", tokens(**task), settings)  # type: ignore[arg-type]
    names = {id(p): name for name, p in state.model.named_parameters()}
    found = {
        type(optimiser).__name__: (rate, {names[id(p)] for p in optimiser.param_groups[0]["params"]})
        for optimiser, rate in zip(state.optimisers, state.rates, strict=True)
    }
    parts = product((0, 1), ("mlp_t", "mlp"), ("gate_up", "down"))
    assert found == {
        "AdamATan2": (1e-3, {"embed_tokens.weight", "lm_head.weight", "q_head.weight", "q_head.bias"}),
        "Muon": (1e-2, {f"net.layers.{layer}.{mix}.{part}_proj.weight" for layer, mix, part in parts}),
        "SignSGD": (1e-2, {"puzzle_emb.weight"}),
    }
    assert state.optimisers[1].param_groups[0]["weight_decay"] == pytest.approx(0.2 * 1e-3 / 1e-2)
    assert len(open_state(tmp_path / "none.pt", tokens(), SETTINGS).optimisers) == 1
    train(tmp_path, tokens(), replace(SETTINGS, steps=1))
    with pytest.raises(UserError, match=r"muon_rate=0\.0, not 0\.01"):
        train(tmp_path, tokens(), replace(SETTINGS, muon_rate=1e-2))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("sudoku", SETTINGS), ("maze", SETTINGS), ("sudoku", replace(SETTINGS, muon_rate=1e-2))],
    ids=["sudoku", "maze", "by Muon"],
)
def test_stopped_in_the_middle_it_ends_with_the_same_weights(kind: str, settings: Settings, tmp_path: Path) -> None:
    examples = tokens(kind)
    train(tmp_path / "whole", examples, settings)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", examples, settings, stop_at(27))
    train(tmp_path / "stopped", examples, settings)
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    assert (tmp_path / "stopped" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


_KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_reasoning import SETTINGS, tokens
from runs import train_in as train
train(Path(sys.argv[1]), tokens(), SETTINGS)
"""


@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    train(tmp_path / "whole", tokens(), SETTINGS)
    script = _KILLED.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", script, str(tmp_path / "killed")]
    for nth in (17, 9):  # in the second checkpoint's steps, and then in those after the first that was reached
        killed = subprocess.run(command, env=os.environ | {"TRM_NB_FAULT": f"train-step:{nth}"}, check=False)
        assert killed.returncode == -signal.SIGKILL
    subprocess.run(command, check=True)
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


def test_a_training_in_another_precision_goes_on(tmp_path: Path) -> None:
    for first, then in (("float32", "bfloat16"), ("bfloat16", "float32")):
        train(tmp_path / first, tokens(forward_dtype=first), replace(SETTINGS, steps=17))
        train(tmp_path / first, tokens(forward_dtype=then), SETTINGS)
        saved = torch.load(tmp_path / first / "training.pt", weights_only=True)
        assert saved["step"] == SETTINGS.steps and str(saved["carry"]["z_H"].dtype) == f"torch.{then}"


def test_more_steps_go_on_and_nothing_is_done_twice(tmp_path: Path) -> None:
    examples = tokens()
    train(tmp_path / "parts", examples, replace(SETTINGS, steps=20))
    train(tmp_path / "parts", examples, SETTINGS)
    train(tmp_path / "whole", examples, SETTINGS)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


@pytest.mark.parametrize(
    ("settings", "model", "message"),
    [
        ({"seed": 1}, {}, "seed=0, not 1"),
        ({"learning_rate": 0.5}, {}, "learning_rate=0.001, not 0.5"),
        ({}, {"hidden_size": 64}, "hidden_size=32, not 64"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_with_the_difference(
    settings: dict[str, float], model: dict[str, object], message: str, tmp_path: Path
) -> None:
    train(tmp_path, tokens(), replace(SETTINGS, steps=2))
    with pytest.raises(UserError, match=message):
        train(tmp_path, tokens(**model), replace(SETTINGS, steps=4, **settings))  # type: ignore[arg-type]


class Broken(PuzzleTokens):
    """A model's input that is no number from the 25th step on."""

    def train_batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        batch = super().train_batch(step, size, seed)
        capsules = torch.full((size, 12, 512), float("nan") if step >= 24 else 0.1)
        return {**batch, "capsules": capsules}


def test_a_loss_that_is_no_number_stops_it_and_names_the_rows(tmp_path: Path) -> None:
    puzzles = list(islice(sudokus(4, 0), 24))
    examples = Broken(puzzles[:20], puzzles[20:], **(SMALL | {"capsules": True}))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"NaN or infinite at step \d+, on the rows \[\d+, .*checkpoint"):
        train(tmp_path, examples, SETTINGS)
    saved = torch.load(tmp_path / "training.pt", weights_only=True)
    assert saved["step"] == 20
    assert all(value.isfinite().all() for value in saved["model"].values())


class Steep(PuzzleTokens):
    """A model whose gradient is no number, though its loss is one."""

    def new_model(self, generator: torch.Generator) -> TinyRecursiveModel:
        model = super().new_model(generator)
        model.lm_head.weight.register_hook(lambda gradient: gradient * float("nan"))
        return model


def test_a_gradient_that_is_no_number_stops_it_before_it_is_in_the_weights(tmp_path: Path) -> None:
    puzzles = list(islice(sudokus(4, 0), 24))
    with pytest.raises(UserError, match=r"gradient is NaN or infinite at step 1, on the rows \[\d+, .*checkpoint"):
        train(tmp_path, Steep(puzzles[:20], puzzles[20:], **SMALL), replace(SETTINGS, steps=1))  # type: ignore[arg-type]
    assert not (tmp_path / "training.pt").exists()


@pytest.mark.parametrize("metrics", ["kept", "gone", "damaged"])
def test_a_lost_tracker_learns_how_the_training_went(metrics: str, tmp_path: Path) -> None:
    train(tmp_path, tokens(), SETTINGS)
    (tmp_path / "progress.sqlite").write_bytes(b"")
    told = tmp_path / "metrics.jsonl"
    before = [json.loads(line) for line in told.read_text("utf-8").splitlines()]
    if metrics == "gone":
        told.unlink()
    elif metrics == "damaged":
        told.write_bytes(told.read_bytes()[:-20])
    train(tmp_path, tokens(), SETTINGS)
    with closing(TrainingProgressTracker(tmp_path)) as tracker:
        assert tracker.get_stats()["global_step"] == 40
        assert tracker.training_curve() == (before if metrics == "kept" else [{"global_step": 40}])


def test_another_split_of_the_same_puzzles_is_another_training() -> None:
    puzzles = list(islice(sudokus(4, 0), 12))
    names = {PuzzleTokens(puzzles[:n], puzzles[n:], **SMALL).name for n in (4, 8)}  # type: ignore[arg-type]
    assert len(names) == 2


def test_an_epoch_holds_every_puzzle_once_and_augmentation_keeps_rows_apart(tmp_path: Path) -> None:
    examples = tokens()

    def rows(steps: range, size: int) -> Iterator[int]:
        for step in steps:
            yield from examples.train_batch(step, size, 0)[ROW].tolist()

    assert sorted(rows(range(4), 5)) == sorted(rows(range(4, 8), 5)) == list(range(20))
    assert list(rows(range(20), 4)) == list(rows(range(10), 8)), "order does not depend on the batch"
    first, again = examples.train_batch(3, 8, 0), examples.train_batch(3, 8, 0)
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = examples.train_batch(3, 8, 1)
    assert not torch.equal(first["inputs"], other["inputs"])
    blank = first["inputs"] == 0
    assert torch.equal(first["inputs"][~blank], first["labels"][~blank])


@pytest.mark.parametrize(
    ("part", "message"),
    [([], "no training puzzles"), ([next(mazes(5, 0))], "one kind and size"),
     ([Puzzle("sudoku", np.zeros((4, 4), np.int8))], "with its solution")],
)  # fmt: skip
def test_puzzles_that_do_not_go_together_are_refused(part: list[Puzzle], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PuzzleTokens(part, [next(sudokus(4, 0))], **SMALL)  # type: ignore[arg-type]
