"""Imports point down the list of folders, there are no cycles, and what must start at once imports nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "trm_nb"
# The layout's folders, highest first: a module imports from its own folder and from those below it.
FOLDERS = [
    "__init__",
    "cli",
    "report",
    "batch",
    "notebook",
    "evaluation",
    "pipeline",
    "training",
    "cache",
    "denoise",
    "dataset",
    "models",
    "sources",
    "render",
    "workers",
    "progress",
    "storage",
]
TOP = {"params", "config", "records", "errors", "describe", "_version"}  # modules beside the folders, below all of them
MOST_MODULES = 15  # in a folder


def _modules() -> dict[str, Path]:
    files = sorted(PACKAGE.rglob("*.py"))
    return {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in files}


MODULES = _modules()


def _imports(path: Path) -> set[str]:
    """The modules of trm_nb that a file imports: at its top, inside functions, and for type checking."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "trm_nb":
            assert node.module
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if {name, f"{name}.__init__"} & {*MODULES} else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "trm_nb"}
    return {name if name in MODULES else f"{name}.__init__" for name in found}


def _rank(module: str) -> int:
    """0 for the modules beside the folders, then the folders from the lowest to the highest."""
    part = module.split(".")[1]
    return 0 if part in TOP else len(FOLDERS) - FOLDERS.index(part)


def test_the_layout_is_the_list_above() -> None:
    assert {module.split(".")[1] for module in MODULES} == {*FOLDERS, *TOP}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    assert not [other for other in _imports(MODULES[module]) if _rank(other) > _rank(module)]


def test_there_are_no_cycles() -> None:
    graph = {name: _imports(path) - {name} for name, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names one


def test_no_folder_is_crowded() -> None:
    counts = Counter(path.parent for path in MODULES.values() if path.name != "__init__.py")
    crowded = [str(folder) for folder, count in counts.items() if count > MOST_MODULES]
    assert not crowded, f"expected at most {MOST_MODULES} modules in {crowded}; give some of them a folder of their own"


def test_only_the_arrays_import_zarr() -> None:
    def imports_zarr(path: Path) -> bool:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        return any(name.split(".")[0] == "zarr" for name in names)

    assert {name for name, path in MODULES.items() if imports_zarr(path)} == {"trm_nb.storage.arrays"}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("trm_nb", "torch zarr numpy pandas pydantic"),
        ("trm_nb.cli.main", "torch zarr numpy pandas matplotlib papermill"),
        ("trm_nb.batch.runner", "torch zarr pandas papermill matplotlib"),
        ("trm_nb.pipeline.run", "torch pandas papermill matplotlib"),
    ],
)
def test_what_must_start_at_once_imports_nothing_heavy(module: str, heavy: str) -> None:
    code = f"import sys, {module}; print(*sorted(set('{heavy}'.split()) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
