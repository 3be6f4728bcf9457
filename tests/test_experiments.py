"""Sweeps, the list of models and their comparison, from the command line: what is trained, shown and refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import config_for, make_sources

from trm_nb import build
from trm_nb.batch.outcome import status_of
from trm_nb.batch.sweep import Trial, sweep, trials_of, values_of
from trm_nb.cli.main import main
from trm_nb.errors import UserError
from trm_nb.evaluation.trained_models import (
    differing,
    disagreements,
    distinct,
    outcomes_of,
    predictions_to_dataframe,
    to_dataframe,
    trained_model,
    trained_models,
)
from trm_nb.notebook.comparison_report import ComparedPair, ModelComparison
from trm_nb.notebook.shown import Gallery, Plot, Text
from trm_nb.progress.run_folder import RunPaths
from trm_nb.storage.files import locked

SHORT = {"train_steps": 3, "train_width": 64, "train_batch_size": 8, "test_fraction": 0.5}
SWEEP = ["-p", "train_seed=1,2", "-p", "learning_rate=1e-3,1e-2"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the model `main` and those of a sweep."""
    sources = make_sources(tmp_path_factory.mktemp("experiments"))
    folder = build(config_for(sources, sources.parent / "run", **SHORT)).output_dir
    assert main(["sweep", str(folder), *SWEEP]) == 0
    return folder


def test_a_sweep_trains_each_combination_on_one_dataset(swept: Path) -> None:
    models = trained_models([swept])
    assert [model.name for model in models] == [
        "main", "train_seed-1_learning_rate-1e-2", "train_seed-1_learning_rate-1e-3",
        "train_seed-2_learning_rate-1e-2", "train_seed-2_learning_rate-1e-3",
    ]  # fmt: skip
    assert {model.state for model in models} == {"done"} and {model.steps for model in models} == {3}
    assert differing(models) == ["train_seed", "learning_rate"]
    assert len({model.settings["content_digest"] for model in models}) == 1


def test_a_second_sweep_trains_nothing_again(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = RunPaths(swept).models
    before = {path: path.stat().st_mtime_ns for path in models.rglob("*")}
    assert main(["sweep", str(swept), *SWEEP, "--jobs", "2"]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in models.rglob("*")} and len(before) > 5 * 6
    assert "4 of 4 models are trained" in capsys.readouterr().out


def test_one_that_fails_does_not_stop_the_others(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(swept, tmp_path / "run"))
    assert main(["sweep", str(folder), "-p", "train_width=63,64", "--name", "w"]) == 1
    said = capsys.readouterr().out
    assert "w_train_width-63" in said and "multiple of 64" in said and "1 of 2 models are trained" in said
    assert RunPaths(folder).model("w_train_width-64").is_finished()


def test_a_model_of_other_settings_is_refused(swept: Path) -> None:
    name = "train_seed-1_learning_rate-1e-3"
    before = {path: path.stat().st_mtime_ns for path in RunPaths(swept).model(name).root.iterdir()}
    (refused,) = sweep(swept, [Trial(name, {"learning_rate": 0.5, "train_seed": 1})])
    assert refused.accuracy is None and "learning_rate=0.001, not learning_rate=0.5" in refused.error
    assert before == {path: path.stat().st_mtime_ns for path in RunPaths(swept).model(name).root.iterdir()}


@pytest.mark.slow
def test_results_do_not_depend_on_how_many_are_trained_side_by_side(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(swept, tmp_path / "run"))
    for path in RunPaths(folder).models.glob("train_seed*"):
        shutil.rmtree(path)
    assert main(["sweep", str(folder), *SWEEP, "--jobs", "3"]) == 0
    for model in trained_models([swept]):
        for name in ("predictions", "weights", "metrics", "settings", "card"):
            path: Path = getattr(model.paths, name)
            assert path.read_bytes() == (RunPaths(folder).model(model.name).root / path.name).read_bytes()
    assert main(["sweep", str(folder), "-p", "train_width=63,64", "--jobs", "2"]) == 1
    assert "multiple of 64" in capsys.readouterr().out


@pytest.mark.slow
def test_a_model_can_be_trained_as_a_notebook_with_a_page(swept: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(swept, tmp_path / "run"))
    command = [
        "sweep",
        str(folder),
        "-p",
        "train_seed=1",
        "-p",
        "learning_rate=1e-3,1e-2",
        "--notebooks",
        "--jobs",
        "2",
    ]
    (RunPaths(folder).model("train_seed-1_learning_rate-1e-2").card).unlink()
    assert main(command) == 0
    for rate in ("1e-3", "1e-2"):
        model = trained_model(folder, f"train_seed-1_learning_rate-{rate}")
        page = (model.paths.root / "06_train.html").read_text(encoding="utf-8")
        assert model.name in page and "What can a Tiny Recursive Model work out" in page
        before = model.paths.predictions.read_bytes()
        assert before == RunPaths(swept).model(model.name).predictions.read_bytes()
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("06_train.ipynb")}
    assert main(command) == 0 and len(times) == 2
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("06_train.ipynb")}


@pytest.mark.slow
def test_in_a_terminal_each_training_has_a_line(swept: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(swept, tmp_path / "run"))
    leader, terminal = os.openpty()
    command = [sys.executable, "-m", "trm_nb.cli", "sweep", str(folder), "--name", "long"]
    command += ["-p", "train_steps=40", "-p", "train_seed=1,2"]
    with subprocess.Popen(command, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        said = b""
        with suppress(OSError):  # the end, on Linux
            while part := os.read(leader, 4096):
                said += part
    os.close(leader)
    assert process.returncode == 0, said.decode()
    assert b"0 of 2 models done, 1 at work" in said and b" of 40 steps" in said and b"2 of 2 models are trained" in said
    assert b"1 of 2  long_train_steps-40_train_seed-1  " in said
    hidden, shown = said.count(b"\x1b[?25l"), said.count(b"\x1b[?25h")
    assert hidden == shown == 1, "the lines take the cursor away, and give it back"


def test_the_list_shows_what_differs(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", str(swept)]) == 0
    where, head, *rows = capsys.readouterr().out.splitlines()
    digest = trained_models([swept])[0].settings["content_digest"]
    assert where == f"{swept}: dataset {digest[:8]}"
    assert head.split() == [
        "model",
        "objective",
        "train_seed",
        "learning_rate",
        "state",
        "steps",
        "accuracy",
        "changed",
    ]
    assert len(rows) == 5 and all("done" in row and "%" in row for row in rows)
    frame = to_dataframe(trained_models([swept]))
    assert frame["accuracy"].between(frame["low"], frame["high"]).all() and set(frame["run"]) == {str(swept)}


def test_seeds_of_a_method_are_compared_together(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(swept)]) == 0
    said = capsys.readouterr().out
    rows = [line.split()[:3] for line in said.splitlines()[:3]]
    assert rows == [["seeds", "learning_rate", "accuracy"], ["3", "0.001", rows[1][2]], ["2", "0.01", rows[2][2]]]
    assert "between learning_rate=0.001 and learning_rate=0.01 is shown" in said and "after Holm" in said
    assert "held-out samples differently; --notebook shows them" in said.splitlines()[-1]
    outcomes = outcomes_of(trained_models([swept]))
    assert all(np.array_equal(np.sort(one.keys), np.sort(outcomes[0].keys)) for one in outcomes)
    assert len(set(outcomes[0].keys)) == len(outcomes[0].keys)


def test_a_row_for_each_prediction(swept: Path) -> None:
    models = trained_models([swept])
    frame = predictions_to_dataframe(models)
    assert frame.groupby("model")["correct"].mean().to_dict() == pytest.approx(
        to_dataframe(models).set_index("model")["accuracy"].to_dict()
    )
    assert list(frame.columns[:2]) == ["run", "model"] and frame.groupby("model").size().nunique() == 1
    every = predictions_to_dataframe(models, every_step=True)
    assert len(every) == len(frame) * every["step"].max() > len(frame)
    assert predictions_to_dataframe([]).empty


@pytest.fixture
def knowing(swept: Path, tmp_path: Path) -> Path:
    """A copy of the run with a model `other` of another learning rate, which predicts every second sample right."""
    folder = Path(shutil.copytree(swept, tmp_path / "run"))
    paths = RunPaths(folder).model("other")
    shutil.copytree(RunPaths(folder).model("main").root, paths.root)
    settings = paths.settings.read_text(encoding="utf-8")
    paths.settings.write_text(settings.replace("learning_rate: 0.001", "learning_rate: 0.5"), encoding="utf-8")
    held = pd.read_parquet(paths.predictions)
    knows = held["row"].isin(sorted(held["row"].unique())[::2])
    held["prediction"] = np.where(knows, held["target"], "none of them")
    held["correct"], held["cells_correct"] = knows, knows.astype(np.float32)
    held.to_parquet(paths.predictions)
    return folder


def test_disagreements_are_those_that_only_one_has_right_first(knowing: Path) -> None:
    first, second = trained_model(knowing, "main"), trained_model(knowing, "other")
    found, one, two = disagreements(first, second), first.predictions(), second.predictions()
    differ = one["prediction"].to_numpy() != two["prediction"].to_numpy()
    assert sorted(found["row"]) == sorted(one["row"][differ]) and 0 < len(found) <= len(one)
    only_one = (found["correct_1"] != found["correct_2"]).tolist()
    assert only_one == sorted(only_one, reverse=True) and len(set(only_one)) == 2
    assert found["target"].tolist() == one.set_index("row")["target"][found["row"]].tolist()
    assert disagreements(first, first).empty


def test_the_same_settings_and_seed_count_once(swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(swept, tmp_path / "run"))
    shutil.copytree(RunPaths(folder).model("main").root, RunPaths(folder).model("twin").root)
    models = trained_models([folder])
    assert [model.name for model in models if model not in distinct(models)] == ["twin"]
    assert main(["compare", str(folder)]) == 0
    assert "1 of 6 models repeat another's settings and seed, left out" in capsys.readouterr().out
    assert main(["compare", str(folder), "--model", "main", "--model", "train_seed-1_learning_rate-1e-2"]) == 0
    assert main(["compare", str(folder), "--model", "mein"]) == 2
    assert "model 'mein': expected one of main, " in capsys.readouterr().err


def test_a_comparison_shows_each_part(knowing: Path) -> None:
    comparison = ModelComparison.of(knowing)
    assert len(comparison.table) == 6 and list(comparison.spread["seeds"]) == [3, 1, 2]
    settings, tests, curves = comparison.settings, comparison.tests, comparison.curves("loss", "loss")
    assert isinstance(settings, pd.DataFrame) and list(settings) == ["method", "seeds", "learning_rate"]
    assert isinstance(tests, pd.DataFrame) and tests["p"].tolist() == [one.p for one in comparison.comparisons]
    assert isinstance(curves, Plot) and "a line for each model" in curves.alt
    said, plot = comparison.headline.parts  # type: ignore[union-attr]
    assert said.markdown.count("after Holm") == 3 and "learning\\_rate\\=0\\.001" in said.markdown
    assert "(seeds: 3)" in plot.alt
    pair = comparison.pair("main", "other")
    assert isinstance(pair, ComparedPair) and isinstance(pair.images, Gallery)
    assert "target: " in pair.images.rows[0][0].caption
    assert isinstance(comparison.pair(), ComparedPair)
    same = comparison.pair("main", "main")
    assert isinstance(same, ComparedPair) and "predict the same everywhere" in same.images.markdown  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"expected a finished model among main, .*, got none"):
        comparison.pair("none", "main")


def test_nothing_to_compare_is_a_sentence(swept: Path) -> None:
    for names in (["main"], ["main", "train_seed-1_learning_rate-1e-3"]):
        comparison = ModelComparison.of([swept], names)
        parts = (comparison.headline, comparison.tests, comparison.pair())
        assert all(isinstance(part, Text) and "Nothing is compared" in part.markdown for part in parts)
    assert isinstance(comparison.curves("loss", "loss"), Plot) and isinstance(comparison.curves("x", "x"), Text)


@pytest.mark.slow
def test_the_notebook_of_the_comparison_is_a_page_of_the_report(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(swept, tmp_path / "run"))
    monkeypatch.chdir(Path(__file__).parents[1])
    assert main(["compare", str(folder), "--notebook"]) == 0
    page = (RunPaths(folder).report / "07_compare.html").read_text(encoding="utf-8")
    assert "Which model is better" in page and page.count("<img") >= 4
    assert status_of(folder / "notebooks" / "07_compare.ipynb") == "done"
    assert "07_compare" in (RunPaths(folder).report / "index.html").read_text(encoding="utf-8")
    assert capsys.readouterr().out.endswith(f"report: {RunPaths(folder).report / '07_compare.html'}\n")
    assert main(["compare", str(folder), "--notebook", "--model", "main", "--model", "x"]) == 2
    (folder / "notebooks" / "07_compare.ipynb").unlink()
    monkeypatch.chdir(tmp_path)  # outside any project, with the notebook of the package
    assert main(["compare", str(folder), "--notebook"]) == 0
    assert (folder / "notebooks" / "07_compare.ipynb").is_file()


def test_models_of_two_runs_are_compared_on_the_samples_they_share(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = make_sources(tmp_path / "other")
    other = build(config_for(sources, tmp_path / "b", **SHORT | {"test_fraction": 0.8, "learning_rate": 0.1}))
    assert main(["compare", str(swept), str(other.output_dir)]) == 0
    assert "samples that only one of them has answered are left out" in capsys.readouterr().out


def test_an_unfinished_model_is_listed_and_left_out(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(swept, tmp_path / "run"))
    RunPaths(folder).model("main").card.unlink()
    assert main(["list", str(folder)]) == 0
    assert "begun" in capsys.readouterr().out
    with locked(RunPaths(folder).model("main").root, "training"):
        assert trained_model(folder, "main").state == "training"
    assert main(["compare", str(folder)]) == 0
    assert "1 of 5 models not finished, left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        pytest.param(["seed=1,2"], "seed is one of the dataset", id="of the dataset"),
        pytest.param(["train_seed=1", "train_seed=2"], "train_seed is given twice", id="twice"),
        pytest.param(["learning_rat=1"], "did you mean 'learning_rate'", id="misspelt"),
        pytest.param(["train_seed"], "expected KEY=V1,V2", id="no values"),
    ],
)
def test_wrong_values_are_one_sentence(pairs: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        values_of(pairs)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"train_seed": [1, 1]}, "the same name", id="twice the same"),
        pytest.param({"train_seed": range(40), "train_width": range(40)}, "more than 1,000 models", id="too many"),
    ],
)
def test_a_sweep_that_cannot_be(values: dict[str, list[int]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        trials_of(values)


def test_a_folder_without_a_run_is_one_sentence(tmp_path: Path) -> None:
    for command in ("list", "compare"):
        done = subprocess.run(
            [sys.executable, "-m", "trm_nb.cli", command, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (2, "") and "no run here" in done.stderr
