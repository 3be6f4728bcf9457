"""`trm-nb new` and `trm-nb demo`: a project in a folder of its own, for those who installed the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trm_nb.cli.stopping import stopped_by_signals

NEXT = """next:
  cd {folder}
  trm-nb run params/smoke.yaml   # everything once, in seconds
  trm-nb lab                     # the notebooks in JupyterLab"""


def new(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="of the project, new or empty")]) -> int:
    """Make a project: notebooks, params files, the demo's data, .gitignore and README.

    Example: trm-nb new my-study
    """
    from trm_nb.batch.project import DATA, new_project

    for name in new_project(folder):
        print(f"{folder / name}")
    print(f"{folder / DATA}/")
    print(NEXT.format(folder=folder))
    return 0


@stopped_by_signals()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="of the project; made where it is not there")] = Path(
        "trm-nb-demo"
    ),
) -> int:
    """Run the demo in a project of its own, in minutes; what was stopped continues.

    Example: trm-nb demo
    """
    from trm_nb.batch.project import new_project
    from trm_nb.cli.notebooks import execute

    params = Path("params", "demo.yaml")
    if not (folder / params).is_file():
        new_project(folder)
        print(f"made the project {folder}", flush=True)
    return execute(params, {}, 1, 8, force=False, project=folder)
