"""Imports point one way, there are no cycles, and what must start at once imports nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "trm_nb"
# Lowest first. A module imports only from its own row and the rows above it.
LAYERS = [
    {"records", "describe"},
    {"config", "durable", "database", "lock_holder"},
    {"checkpoints", "run_folder"},
    {"training_progress", "run_stats", "run_settings", "store", "pool", "cluster", "trm", "patches"},
    {
        "render",
        "denoise",
        "sources",
        "image_index",
        "read_out",
        "vision_encoder",
        "capsule_decoder",
        "read_back",
        "tiny_recursive_model",
        "plan",
        "drawing",
        "encoding",
    },
    {"image_cache", "consolidate", "capsule_dataset", "capsule_stream", "dataset_files"},
    {"mending"},
    {"streaming_builder", "training", "evaluation", "verify"},
    {"pipeline"},
    {"notebook", "terminal", "standard_output", "doctor", "stopping"},
    {"cli"},
]


def _modules() -> dict[str, Path]:
    files = sorted(PACKAGE.rglob("*.py"))
    return {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in files}


def _imports(path: Path, everywhere: bool) -> set[str]:
    """The trm_nb modules that a file imports: at its top level, or also inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else iter(tree.body)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("trm_nb"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("trm_nb.")}
    return found


MODULES = _modules()


def _room(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("module", [name for name in MODULES if name != "trm_nb.__init__"])
def test_imports_point_one_way(module: str) -> None:
    rank = {room: i for i, rooms in enumerate(LAYERS) for room in rooms}
    assert _room(module) in rank, f"{module} is in no layer: give it one above"
    upwards = [
        other for other in _imports(MODULES[module], everywhere=True)
        if other != "trm_nb" and rank[_room(other)] > rank[_room(module)]
    ]  # fmt: skip
    assert not upwards


def test_there_are_no_cycles() -> None:
    graph = {name: _imports(path, everywhere=False) & MODULES.keys() for name, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names one


def test_only_the_store_imports_zarr() -> None:
    def imports_zarr(path: Path) -> bool:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        return any(name.split(".")[0] == "zarr" for name in names)

    assert {name for name, path in MODULES.items() if imports_zarr(path)} == {"trm_nb.store"}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("trm_nb", "torch zarr numpy pydantic"),
        ("trm_nb.cli", "torch zarr numpy pandas matplotlib papermill"),
        ("trm_nb.notebook.runner", "torch zarr papermill matplotlib"),
        ("trm_nb.pipeline", "torch papermill matplotlib"),
    ],
)
def test_what_must_start_at_once_imports_nothing_heavy(module: str, heavy: str) -> None:
    code = f"import sys, {module}; print(*sorted(set('{heavy}'.split()) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
