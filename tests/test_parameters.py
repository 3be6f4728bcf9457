"""What papermill injects, in namespaces like a kernel's and in one real papermill run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from trm_nb.errors import UserError
from trm_nb.notebook.parameters import assigned, injected, merge

DECLARED = "# What can be told\nparams = 'params/demo.yaml'\nlimit = None\nshown = 4"


def kernel(*cells: str, **values: Any) -> dict[str, Any]:
    return {"In": ["", *cells], **values}


@pytest.mark.parametrize(
    ("namespace", "expected"),
    [
        pytest.param({}, {}, id="no-kernel"),
        pytest.param(kernel(DECLARED, "x = 1", x=1), {}, id="nothing-injected"),
        pytest.param(kernel(DECLARED, "# Parameters\nlimit = 3\n", limit=3), {"limit": 3}, id="a-field"),
        pytest.param(kernel(DECLARED, "# Parameters\nshown = 9", shown=9), {"shown": 9}, id="the-notebook's-own"),
        pytest.param(kernel("# Parameters\nseed = 1", seed=1), {"seed": 1}, id="no-parameters-cell"),
        pytest.param(
            kernel("# Parameters\nseed = 1", "# Parameters\nlimit = 2", seed=1, limit=5),
            {"limit": 5},
            id="last-one-counts",
        ),
        pytest.param(
            kernel(
                DECLARED,
                '# Parameters\nPAPERMILL_INPUT_PATH = "in"\nPAPERMILL_OUTPUT_PATH = "out"\nlimit = 2',
                PAPERMILL_INPUT_PATH="in",
                PAPERMILL_OUTPUT_PATH="out",
                limit=2,
            ),
            {"limit": 2},
            id="papermill's-own",
        ),
        pytest.param(kernel("# Parameters\nseed = 1\n%magic", seed=1), {}, id="not-python"),
    ],
)
def test_injected(namespace: dict[str, Any], expected: dict[str, Any]) -> None:
    assert injected(namespace) == expected


def test_a_misspelt_name_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(UserError, match="unknown parameter 'limt', did you mean 'limit'"):
        injected(kernel(DECLARED, "# Parameters\nlimt = 3", limt=3))


def test_assigned() -> None:
    assert assigned("a = b = 1\nc: int = 2\nd, e = 3, 4\nf.g = 5\nprint(a)") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("fields", "given", "expected"),
    [
        pytest.param({"params": "p", "limit": None}, {}, ("p", {}), id="none-means-not-said"),
        pytest.param({"params": "p", "limit": 3}, {"limit": 4}, ("p", {"limit": 4}), id="injected-wins"),
        pytest.param({"params": "p", "limit": 3}, {"limit": None}, ("p", {"limit": None}), id="an-injected-none-wins"),
        pytest.param({"params": "p"}, {"params": "q"}, ("q", {}), id="another-params-file"),
        pytest.param({"params": "p"}, {"shown": 4}, ("p", {}), id="not-for-the-run"),
        pytest.param(
            {"params": "p", "seed": None},
            {"source_paths": ["d"], "output_dir": "o", "seed": 1},
            (None, {"source_paths": ["d"], "output_dir": "o", "seed": 1}),
            id="a-whole-config",
        ),
        pytest.param({"params": "p"}, {"source_paths": "d", "params": "q"}, ("q", {"source_paths": "d"}), id="both"),
    ],
)
def test_merge(fields: dict[str, Any], given: dict[str, Any], expected: tuple[str | None, dict[str, Any]]) -> None:
    assert merge(fields, given) == expected


@pytest.mark.slow
def test_papermill_itself(tmp_path: Path) -> None:
    """`papermill NB OUT -f FILE` with fields that the notebook does not declare, from a folder below the root."""
    declared = nbformat.v4.new_code_cell(DECLARED, metadata={"tags": ["parameters"]})
    asks = "from trm_nb.notebook import open_run\nc = open_run(params=params).config\n"
    asks += "print(c.source_paths, c.output_dir, c.seed, c.limit, c.batch_size, c.test_fraction)"
    made = nbformat.v4.new_notebook(cells=[declared, nbformat.v4.new_code_cell(asks)])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "params").mkdir()
    nbformat.write(made, tmp_path / "notebooks" / "in.ipynb")
    given = "source_paths: [data/a]\noutput_dir: outputs/x\nseed: 7\nlimit: null\n"
    (tmp_path / "notebooks" / "given.yaml").write_text(given, encoding="utf-8")
    command = ["papermill", "in.ipynb", "out.ipynb", "-f", "given.yaml", "-p", "shown", "2", "--no-progress-bar"]
    command += ["--inject-paths", "-y", "batch_size: 3", "-r", "test_fraction", "0.5", "--report-mode"]
    subprocess.run([sys.executable, "-m", *command], cwd=tmp_path / "notebooks", check=True, capture_output=True)
    said = nbformat.read(tmp_path / "notebooks" / "out.ipynb", as_version=4).cells[-1].outputs[0].text
    assert said.strip() == f"['{tmp_path / 'data/a'}'] {tmp_path / 'outputs/x'} 7 None 3 0.5"
