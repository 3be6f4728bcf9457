"""What the README says is so: the tree is complete, the snippet runs, the commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import make_sources

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROOMS = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## The rooms")[1]


PACKAGES = [path.parent.relative_to(ROOT) for path in ROOT.glob("trm_nb/*/**/__init__.py")]
FOLDERS = sorted(str(folder) for folder in PACKAGES if folder.name != "pretraining")  # which has one line in the tree


def _tracked() -> list[Path]:
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [Path(name) for name in names]


@pytest.mark.parametrize("folder", ["trm_nb", *FOLDERS, "notebooks", "tools"])
def test_the_file_tree_is_complete(folder: str) -> None:
    files = [path.name for path in _tracked() if path.parent == Path(folder) and path.suffix in (".py", ".ipynb")]
    missing = [name for name in files if name != "__init__.py" and f" {name} " not in ROOMS]
    assert not missing, f"CONTRIBUTING's rooms lack {missing} of {folder}"


def test_the_file_tree_names_nothing_that_is_gone() -> None:
    named = set(re.findall(r"^ +([\w.]+\.(?:py|ipynb)) ", ROOMS, flags=re.M))
    there = {path.name for path in (*ROOT.glob("*/*"), *ROOT.glob("trm_nb/**/*.py"))}
    assert named
    assert named <= there


def _snippet(folder: Path) -> str:
    """The README's program, with its paths inside `folder` and settings that finish in seconds."""
    code = next(block for block in re.findall(r"```python\n(.*?)```", README, flags=re.S) if "build(config)" in block)
    sources = make_sources(folder)
    code = code.replace('["data/arc/", "data/text/"]', f"[{str(sources / 'tasks')!r}, {str(sources / 'code')!r}]")
    code = code.replace('"datasets/vision_unified"', repr(str(folder / "out")))
    changed = code.replace("include_grids=True)", "include_grids=True, encoder='tiny', batch_size=20)")
    assert changed != code
    return changed


@pytest.mark.parametrize("how", ["from a file", pytest.param("from standard input", marks=pytest.mark.slow)])
def test_the_snippet_runs_as_it_stands(tmp_path: Path, how: str) -> None:
    code = _snippet(tmp_path)
    (tmp_path / "script.py").write_text(code)
    arguments = [sys.executable, "script.py"] if how == "from a file" else [sys.executable]
    done = subprocess.run(
        arguments,
        input=code if how != "from a file" else None,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    batches, samples, _ = done.stdout.split()
    assert int(samples) >= 60, "few samples need no processes, and those are what the main guard is about"
    assert int(batches) == -(-int(samples) // 20)


def test_the_commands_of_the_table_exist(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    named = set(re.findall(r"`(?:trm-nb )?((?:cache )?\w+) (?:PARAMS\.yaml|DIR)`", README)) | {"doctor", "lab"}
    assert len(named) >= 8
    for command in sorted(named):
        code = "import sys; from trm_nb.cli.main import main; sys.argv[1:] = [*sys.argv[1].split(), '--help']; main()"
        assert run_python(code, command).returncode == 0, command
