"""What notebook 06 shows: parts of a report for each objective, and the reason where nothing was trained."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.notebook.frames import as_html
from trm_nb.notebook.prose import NO_BREAK
from trm_nb.notebook.shown import Gallery, Plot, Shown, Text
from trm_nb.notebook.training_report import LearningProblem, NothingTrained, TrainingReport
from trm_nb.pipeline.run import Run, build

HOSTILE = "<b>*a*"
PARTS = ("loss", "learning_curve", "about", "headline", "gap", "steps", "choice", "classes", "modalities", "details")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of one or two pages in two folders, one of which has a hostile name; and Sudokus, which have no label."""
    folder = tmp_path_factory.mktemp("report")
    for number in range(40):
        path = folder / "texts" / ("plain" if number % 2 else HOSTILE) / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Text {number} of some length. " * (5 + 30 * (number // 2 % 2)))
    build(config_of(folder))
    return folder


def config_of(folder: Path, **changes: object) -> MultimodalDatasetConfig:
    values = {
        "source_paths": [str(folder / "texts"), "sudoku:4:30"], "output_dir": str(folder / "run"), "encoder": "tiny",
        "workers": 0, "torch_threads": 1, "test_fraction": 0.4, "train_width": 64, "train_batch_size": 8, **changes,
    }  # fmt: skip
    return MultimodalDatasetConfig.parse(values, "the test")


def run_of(built: Path, tmp_path: Path, **changes: object) -> Run:
    """A copy of the run, opened with other settings."""
    shutil.copytree(built / "run", tmp_path / "run")
    return Run(config_of(built, output_dir=str(tmp_path / "run"), **changes))


def flat(part: object) -> list[object]:
    return list(part.parts) if isinstance(part, Shown) else [part]


def words(part: object) -> str:
    """All the Markdown, descriptions and HTML of a part; renders its plots."""
    found = []
    for one in flat(part):
        if isinstance(one, Plot):
            data, described = one._repr_mimebundle_()
            with Image.open(io.BytesIO(data["image/png"])) as image:
                assert min(image.size) > 50
            found.append(described["image/png"]["alt"])
        elif isinstance(one, Gallery):
            found.append(one._repr_mimebundle_()[0]["text/html"])
        elif isinstance(one, pd.DataFrame):
            found.append(as_html(one))
        else:
            assert isinstance(one, Text)
            found.append(one.markdown)
    return "\n".join(found)


@pytest.mark.parametrize(
    ("objective", "headline", "details"),
    [
        ("label", "held-out labels are predicted correctly", "the true labels"),
        (
            "grid",
            "held-out answer grids are exactly right",
            "grids after step 1, step 2, step 3, step 5, step 8; wrong cells: ",
        ),
        ("next", "guessing among", "In each line: a page, predicted to be next, the next page."),
    ],
)
def test_each_objective_is_shown(built: Path, tmp_path: Path, objective: str, headline: str, details: str) -> None:
    run = run_of(built, tmp_path, objective=objective, train_steps=4)
    problem = LearningProblem.of(run)
    report = problem.train()
    assert isinstance(report, TrainingReport) and problem.objective is not None
    shown = {name: words(getattr(report, name)) for name in PARTS}
    assert headline in shown["headline"] and "this model" in shown["headline"]
    assert f"95{NO_BREAK}% interval" in shown["headline"]
    assert objective != "grid" or "None is right in the end" in shown["details"]
    assert details in shown["details"] and shown["about"] == problem.objective.about
    assert "recursion step" in shown["steps"] and "the first step" in shown["steps"]
    assert "**4** of 4 are used, the best one on the validation samples" in shown["choice"]
    assert "in validation" in shown["loss"] and "val accuracy" in shown["learning_curve"]
    assert ("precision" in shown["classes"]) is (objective == "label") and "baseline" in shown["modalities"]
    assert all("<b>" not in text for text in shown.values()), "names of the data are escaped"
    report.check()
    recorded = str(report.record())
    noted = run.tracker.get("summary:06_train")
    assert (noted["model"], noted["objective"], noted["trained"], noted["steps"]) == (
        "main",
        objective,
        True,
        4,
    ) and "verdict" in recorded
    run.close()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"train_steps": 0, "objective": "grid"}, r"train\_steps is 0.", id="no steps"),
        pytest.param(
            {"train_steps": 4, "objective": "next"}, "training on next pages needs two", id="nothing to learn"
        ),
    ],
)
def test_where_nothing_is_trained_each_part_says_so(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    run = Run(config_of(tmp_path, source_paths=["sudoku:4:8"], **changes))
    run.complete()
    report = LearningProblem.of(run).train()
    assert isinstance(report, NothingTrained)
    assert words(report.headline).startswith(f"**Nothing is trained**: {reason}")
    assert {words(getattr(report, name)) for name in PARTS} - {words(report.headline)} == {words(report.loss)}
    report.check()
    report.record()
    assert run.tracker.get("summary:06_train") == {
        "model": "main", "objective": run.config.objective, "trained": False, "steps": 0,
    }  # fmt: skip
    assert not (run.path / "models").exists()
    run.close()
