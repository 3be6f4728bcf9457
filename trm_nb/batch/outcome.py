"""What really happened to an executed notebook, written into its metadata.

papermill marks every cell `completed`, the never-run ones too, when the kernel dies, and leaves `running` behind when
it is killed itself. Whoever ends an execution calls `resolve`, so that the saved notebook, the report and the tracker
tell the same story. Works on the plain JSON of a notebook: importing this costs nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

Status: TypeAlias = Literal["done", "failed", "interrupted"]
_MARKER = "papermill-error-cell-tag"


@dataclass(frozen=True, slots=True)
class Truth:
    """How an execution ended. `cell` is the index of the cell that failed or was running, None when none was.

    `message` is one line (empty when all is well); `user_error` tells a UserError from other failures.
    """

    status: Status
    cell: int | None = None
    message: str = ""
    user_error: bool = False


def resolve(notebook: dict[str, Any], truth: Truth, **facts: Any) -> None:
    """Write the truth, and `facts` (JSON values), into a notebook's metadata; papermill's banner cells are removed.

    Cells before `truth.cell` are left as they are, that cell becomes `failed`, those after it `pending`.
    """
    notebook["cells"] = [c for c in notebook["cells"] if _MARKER not in c["metadata"].get("tags", [])]
    notebook["metadata"]["trm_nb"] = {**facts, **asdict(truth)}
    if truth.status == "done":
        return
    notebook["metadata"].setdefault("papermill", {})["exception"] = True
    first_unknown = 0 if truth.cell is None else truth.cell
    for index, cell in enumerate(notebook["cells"][first_unknown:], first_unknown):
        noted = cell["metadata"].setdefault("papermill", {})
        if index == truth.cell:
            noted.update(status="failed", exception=True)
        else:
            noted.update(status="pending", exception=None, start_time=None, end_time=None, duration=None)


def running_cell(notebook: dict[str, Any]) -> int | None:
    """The index of the cell that papermill noted as running when it last saved; None when it noted none."""
    for index, cell in enumerate(notebook["cells"]):
        if cell["metadata"].get("papermill", {}).get("status") == "running":
            return index
    return None


def read_notebook(path: Path) -> dict[str, Any] | None:
    """The JSON of a notebook, None when the file is absent, half-written or something else."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    whole = isinstance(notebook, dict) and isinstance(notebook.get("cells"), list) and "metadata" in notebook
    return notebook if whole else None


def status_of(path: Path) -> str:
    """How the execution of a notebook ended, as it is noted there; "failed" where nothing is noted."""
    notebook = read_notebook(path)
    return str(((notebook or {}).get("metadata", {}).get("trm_nb") or {}).get("status", "failed"))


def as_bytes(notebook: dict[str, Any]) -> bytes:
    """A notebook as JSON in Jupyter's own style: one space, unescaped UTF-8, a final newline."""
    return (json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode(errors="replace")
