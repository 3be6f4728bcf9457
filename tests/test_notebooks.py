"""The stages' notebooks are code that a reader could have typed: short cells, no guards, the last expression shown."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
STAGES = sorted(NOTEBOOKS.glob("*.ipynb"))
STUDIES = sorted(NOTEBOOKS.glob("*/*.ipynb"))  # which train models and compare them


def code_cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.stem)
def test_cells_are_short_and_have_no_guards(path: Path) -> None:
    for cell in code_cells(path):
        source = "".join(cell["source"])
        is_parameters = "parameters" in cell["metadata"].get("tags", [])
        assert is_parameters or len(source.splitlines()) <= 10, source
        assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.If)], source


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.stem)
def test_each_has_parameters_and_a_headline_and_plain_cell_ids(path: Path) -> None:
    tags = [tag for cell in code_cells(path) for tag in cell["metadata"].get("tags", [])]
    assert tags.count("parameters") == 1 and "headline" in tags
    ids = [cell["id"] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    assert len(set(ids)) == len(ids) and all(name.startswith(path.stem[:2]) for name in ids)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_cells_of_studies_have_at_most_fifteen_lines(path: Path) -> None:
    sources = ["".join(cell["source"]) for cell in code_cells(path)]
    assert not [source for source in sources if len(source.splitlines()) > 15]
