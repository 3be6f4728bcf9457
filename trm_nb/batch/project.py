"""A project's folder: notebooks, params files and data, as `trm-nb new` writes it for those who installed the package.

An installed package carries notebooks and params files in assets/project; in a checkout they are at its root. The
demo's data comes along as data/demo, where a user's own would lie too.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trm_nb.errors import UserError
from trm_nb.params import project_root

PACKAGE = Path(__file__).resolve().parents[1]
DEMO, DATA = "trm_nb/assets/demo", "data/demo"  # where params files look for the demo's data, here and in a new project
IGNORED = "outputs/\ndatasets/\n.ipynb_checkpoints/\n"
README = """# {name}

A project of trm-nb: text, images and grids become images, images become capsules, capsules train a Tiny Recursive
Model.

| folder | what |
|---|---|
| `notebooks/` | the notebooks, in their order; `trm-nb lab` opens them |
| `params/` | what a run is made of: a params file for each kind of run, to copy and change |
| `data/` | what is read; `data/demo` is the demo's |
| `outputs/` | what the runs make: dataset, models, executed notebooks, report |

    trm-nb run params/smoke.yaml   # everything once, in seconds
    trm-nb run params/demo.yaml    # the demo, in minutes; its report is outputs/demo/report/index.html
    trm-nb run params/text.yaml    # your own text: change its `source_paths` first
    trm-nb lab                     # the notebooks in JupyterLab
    trm-nb doctor                  # every field of a params file, and what this machine has
"""


def templates() -> Path:
    """The folder whose notebooks/ and params/ come with the package."""
    installed = PACKAGE / "assets" / "project"
    return installed if installed.is_dir() else PACKAGE.parent


def notebooks_of(root: Path) -> Path:
    """The folder of a project's notebooks; outside any project, of those that come with the package."""
    return root / "notebooks" if project_root(root) == root.resolve() else templates() / "notebooks"


def new_project(folder: Path) -> list[str]:
    """Make a project.

    Args:
        folder: its folder, which is new or empty.

    Returns:
        The relative paths of its files, in order, those of the demo's data left out.

    Raises:
        UserError: for a folder that holds something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: expected a new or empty folder, found something there; choose another name")
    files = dict(_files(folder.resolve().name))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".trm-nb-") as name:
        staged = Path(name) / "project"
        for relative, text in files.items():
            path = staged / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        shutil.copytree(PACKAGE / "assets" / "demo", staged / DATA)
        if folder.exists():
            folder.rmdir()
        staged.rename(folder)
    return sorted(files)


def _files(name: str) -> Iterator[tuple[str, str]]:
    """Relative path and text of each file but the data."""
    source = templates()
    for path in sorted((source / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        yield f"notebooks/{path.name}", path.read_text(encoding="utf-8")
    for path in sorted((source / "params").glob("*.yaml")):
        yield f"params/{path.name}", path.read_text(encoding="utf-8").replace(DEMO, DATA)
    yield ".gitignore", IGNORED
    yield "README.md", README.format(name=name)
