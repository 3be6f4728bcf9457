"""A project for those who only installed the package: what `trm-nb new` writes, and the wheel that it comes from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from served_lab import TOKEN, served

from trm_nb.batch.notebooks import find_notebooks
from trm_nb.batch.project import DATA, new_project, notebooks_of
from trm_nb.cli.main import main
from trm_nb.errors import UserError
from trm_nb.notebook import open_project
from trm_nb.params import load_params
from trm_nb.progress.run_folder import RunPaths
from trm_nb.progress.tables import SOLVED
from trm_nb.progress.tracker import TrainingProgressTracker
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


# --------------------------------------------------------------------------------------- what a wheel alone can do

SAMPLES, BOARDS = 621, 60  # of the demo
PART = {"limit": "30", "train_steps": "60", "solve_puzzles": "24"}  # of the demo, and shorter
MOST_BYTES = 5_000_000  # of its report as one file
ALONE = ["unshare", "--net", "--map-root-user"]  # a network namespace in which even the loopback device is down


@dataclass(frozen=True)
class Installed:
    """The wheel in a virtual environment, and the environment variables of somebody who has no checkout."""

    environment: Path
    variables: dict[str, str]
    prefix: list[str]  # of commands that get no network; [] where this machine does not allow that

    @property
    def trm_nb(self) -> str:
        return str(self.environment / "bin" / "trm-nb")

    def run(self, *arguments: str, folder: Path) -> str:
        """Run trm-nb in a folder, without a network; returns its standard output."""
        done = subprocess.run(
            [*self.prefix, self.trm_nb, *arguments], cwd=folder, env=self.variables, capture_output=True, text=True,
            timeout=1800, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel, installed by pip into a fresh virtual environment outside of the repository.

    Its requirements are not downloaded: they are the packages of the environment that runs the tests, which a .pth file
    puts behind the wheel's own files. That environment's .pth files, and with them this checkout, are not read.
    """
    folder = tmp_path_factory.mktemp("wheel")
    environment, home, pip = folder / "venv", folder / "home", [sys.executable, "-m", "pip"]
    home.mkdir()
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], check=True, timeout=300)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=300)
    for data in ("etc", "share"):  # of JupyterLab
        if (Path(sys.prefix) / data).is_dir():
            (environment / data).symlink_to(Path(sys.prefix) / data)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "requirements.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    install = ["--python", str(environment / "bin/python"), "install", "-q", "--no-deps", "--no-compile"]
    subprocess.run([*pip, *install, *map(str, folder.glob("*.whl"))], check=True, timeout=300)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HOME": str(home)}
    allowed = shutil.which("unshare") and subprocess.run([*ALONE, "true"], capture_output=True).returncode == 0
    found = Installed(environment, variables, ALONE if allowed else [])
    program = [str(environment / "bin" / "python"), "-c", "import sys, trm_nb; print(trm_nb.__file__, *sys.path)"]
    said = subprocess.run(program, cwd=folder, env=variables, capture_output=True, text=True, check=True).stdout.split()
    assert said[0].startswith(str(environment)) and str(ROOT) not in said, "the checkout is imported"
    return found


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(PART, id="a part of it", marks=pytest.mark.slow(minutes=3)),
        pytest.param({}, id="all of it", marks=pytest.mark.study),
    ],
)
def test_the_wheel_alone_reaches_the_demos_report(
    installed: Installed, tmp_path: Path, changed: dict[str, str]
) -> None:
    """In an empty folder, without a network where this machine allows that."""
    if changed:
        installed.run("new", "trm-nb-demo", folder=tmp_path)
        params = tmp_path / "trm-nb-demo" / "params" / "demo.yaml"
        lines = [line for line in params.read_text("utf-8").splitlines() if line.partition(":")[0] not in changed]
        params.write_text("\n".join([*lines, *(": ".join(value) for value in changed.items())]), encoding="utf-8")
    said = installed.run("demo", folder=tmp_path)
    assert said.startswith("made the project trm-nb-demo\n") is not bool(changed)
    assert said.endswith("report: trm-nb-demo/outputs/demo/report/index.html\n")
    run = RunPaths(tmp_path / "trm-nb-demo" / "outputs" / "demo")
    info = json.loads(run.info.read_text(encoding="utf-8"))
    assert info["counts"]["rows"] == SAMPLES or changed
    boards = int(changed.get("solve_puzzles", BOARDS))
    with closing(TrainingProgressTracker(run.root)) as tracker:
        solved, notebooks = tracker.get(SOLVED), tracker.get_stats()["notebooks"]
    assert len(notebooks) == 7 and set(notebooks.values()) == {"done"}
    assert solved["samples"] == boards and solved["value"] > 0.85 and solved["baselines"][0]["verdict"] == "better"
    pages = {page.name: page.read_text(encoding="utf-8") for page in run.report.glob("*.html")}
    assert len(pages) == 8 and info["content_digest"] in pages["index.html"]
    assert "solver that comes with the package" in pages["index.html"]
    assert f"of {boards} 9x9 Sudokus are solved from their images" in pages["08_solve.html"]
    installed.run("report", "outputs/demo", "--single-file", folder=tmp_path / "trm-nb-demo")
    assert run.single_report.stat().st_size < MOST_BYTES
    folders = [str(folder) for folder in (tmp_path, installed.environment.parent, ROOT)]
    assert not [(name, folder) for name, page in pages.items() for folder in folders if folder in page]


@pytest.mark.slow
def test_the_wheel_alone_makes_a_project_runs_it_and_opens_it(installed: Installed, tmp_path: Path) -> None:
    """One notebook is enough here, as the demo executes all of them.

    JupyterLab needs the loopback device, so it has a network; test_lab_explorer checks that its pages use none.
    """
    project = tmp_path / "my-study"
    installed.run("new", "my-study", folder=tmp_path)
    installed.run("run", "params/smoke.yaml", "--to", "1", folder=project)
    assert (project / "outputs" / "smoke" / "report" / "index.html").is_file()
    params = tmp_path / "elsewhere.yaml"
    params.write_text("source_paths: [my-study/data/demo/prose]\noutput_dir: own\nencoder: tiny\nlimit: 2\n")
    installed.run("run", "elsewhere.yaml", "--to", "1", folder=tmp_path)  # outside any project
    assert (tmp_path / "own" / "notebooks" / "01_render.ipynb").is_file()
    (tmp_path / "home").mkdir()
    with served(project, tmp_path / "home", [installed.trm_nb], installed.variables) as address:
        with urllib.request.urlopen(f"{address}/?token={TOKEN}", timeout=60) as page:
            assert page.geturl().startswith(f"{address}/lab/tree/notebooks/00_start.ipynb")
        with urllib.request.urlopen(f"{address}/api/contents/notebooks/00_start.ipynb?token={TOKEN}") as held:
            assert json.load(held)["type"] == "notebook"
    with pytest.raises(urllib.error.URLError):  # SIGTERM has ended the server, not the command alone
        urllib.request.urlopen(address, timeout=5)
