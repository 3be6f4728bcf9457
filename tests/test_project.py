"""A project for those who only installed the package: what `trm-nb new` writes, and the wheel that it comes from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trm_nb.batch.notebooks import find_notebooks
from trm_nb.batch.project import DATA, new_project, notebooks_of
from trm_nb.cli.main import main
from trm_nb.errors import UserError
from trm_nb.notebook import open_project
from trm_nb.params import load_params
from trm_nb.records import NAMED_SOURCES

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home") / "my-study"
    new_project(folder)
    return folder


def test_a_new_project_has_what_the_checkout_has(project: Path) -> None:
    names = {path.name for path in find_notebooks(project, solves=True)} | {"00_start.ipynb", "07_compare.ipynb"}
    assert names == {path.name for path in (project / "notebooks").iterdir()}
    for name in names:
        assert (project / "notebooks" / name).read_bytes() == (ROOT / "notebooks" / name).read_bytes()
    assert {path.name for path in (project / "params").iterdir()} == {p.name for p in (ROOT / "params").glob("*.yaml")}
    assert (project / "README.md").read_text(encoding="utf-8").startswith("# my-study\n")
    assert "outputs/\n" in (project / ".gitignore").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "params").glob("*.yaml")))
def test_params_name_the_projects_own_data(project: Path, name: str) -> None:
    config = load_params(project / "params" / name)
    paths = [Path(path) for path in config.source_paths if not path.startswith(NAMED_SOURCES)]
    own = [project / "data"] if name == "full.yaml" else [project / DATA / path.name for path in paths]  # a user's data
    assert paths == own and all(path.is_dir() for path in paths)
    assert Path(config.output_dir).is_relative_to(project)


@pytest.mark.parametrize(("where", "root"), [("", ""), ("notebooks", ""), ("..", "..")], ids=["root", "below", "above"])
def test_a_notebook_finds_its_project(project: Path, where: str, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project / where)
    assert open_project() == (project / root).resolve()


@pytest.mark.parametrize("there", ["a file", "a folder with a file"])
def test_what_is_there_is_not_overwritten(tmp_path: Path, there: str) -> None:
    folder = tmp_path / "taken"
    if there == "a file":
        folder.write_text("mine")
    else:
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="taken: expected a new or empty folder"):
        new_project(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_the_command_says_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["new", "empty"]) == 0
    shown = capsys.readouterr().out
    assert "empty/notebooks/01_render.ipynb\n" in shown and "  cd empty\n" in shown
    assert main(["new", "empty"]) == 2
    assert "expected a new or empty folder" in capsys.readouterr().err


def test_outside_any_project_the_packages_notebooks_are_used(tmp_path: Path, project: Path) -> None:
    assert notebooks_of(tmp_path) == ROOT / "notebooks"
    assert notebooks_of(project) == project / "notebooks"


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "trm-nb 0.1.0\n"


@pytest.mark.slow
def test_the_wheel_alone_makes_a_project_and_runs_it(tmp_path: Path) -> None:
    """The wheel's files before those of this checkout; its requirements are those that are installed here."""
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    install = ["install", "-q", "--no-deps", "--no-compile", "--target", str(tmp_path / "site"), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, timeout=300)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}

    def command(*arguments: str, folder: Path) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "trm_nb.cli", *arguments], cwd=folder, env=environment, capture_output=True,
            text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    command("new", "my-study", folder=tmp_path)
    command("run", "params/smoke.yaml", folder=tmp_path / "my-study")
    index = tmp_path / "my-study" / "outputs" / "smoke" / "report" / "index.html"
    assert index.is_file() and str(ROOT) not in index.read_text(encoding="utf-8")
    params = tmp_path / "elsewhere.yaml"
    params.write_text("source_paths: [my-study/data/demo/prose]\noutput_dir: own\nencoder: tiny\nlimit: 2\n")
    command("run", "elsewhere.yaml", "--to", "1", folder=tmp_path)  # outside any project
    assert (tmp_path / "own" / "notebooks" / "01_render.ipynb").is_file()
