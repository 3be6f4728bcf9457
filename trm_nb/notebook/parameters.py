"""What papermill injected into this kernel, and how it joins what a notebook hands to `open_run`.

papermill writes parameters into a cell of their own and only warns about those that the notebook does not declare. So
the injected cell is looked up in the kernel's history: a whole params file can be given to a notebook that declares
the fields of its stage only (`papermill NB OUT -f params/smoke.yaml`), and a misspelt name is an error.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from trm_nb.config import MultimodalDatasetConfig, unknown_field
from trm_nb.errors import UserError

_MARK = "# Parameters"
_PAPERMILLS_OWN = "PAPERMILL_"  # begins what --inject-paths and the like add


def injected(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that papermill injected, with their present values; empty where none were.

    `namespace` is the kernel's: `In` holds the executed cells, of which the last one that papermill wrote counts. A
    name that is no config field must have been assigned by an earlier cell (the notebook declares it); else UserError.
    The paths that papermill itself adds (`--inject-paths`) are left out.
    """
    cells = list(namespace.get("In") or [])
    written = [index for index, source in enumerate(cells) if source.split("\n", 1)[0].strip() == _MARK]
    if not written:
        return {}
    declared = {name for source in cells[: written[-1]] for name in assigned(source)}
    given = [name for name in assigned(cells[written[-1]]) if not name.startswith(_PAPERMILLS_OWN)]
    found = {name: namespace[name] for name in given if name in namespace}
    for name in found:
        if name not in MultimodalDatasetConfig.model_fields and name != "params" and name not in declared:
            raise UserError(f"papermill was given an {unknown_field(name)}")
    return found


def assigned(source: str) -> list[str]:
    """The names that a cell assigns at its top level, in order; none for a cell that is not plain Python."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # a magic, or a cell with an error in it
        return []
    names: list[str] = []
    for statement in statements:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        names += [target.id for target in targets if isinstance(target, ast.Name)]
    return names


def merge(fields: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The params file and the values that win over it, from a notebook's fields and what papermill injected.

    A field that is None is not said; an injected None is, as `-p limit null` means it. A whole config that was injected
    (it has `source_paths` and no `params`) stands alone: the params file is then None.
    """
    said = {name: value for name, value in fields.items() if value is not None}
    said |= {name: value for name, value in given.items() if name in MultimodalDatasetConfig.model_fields}
    params = given.get("params") or (None if given.get("source_paths") else said.get("params"))
    return params, {name: value for name, value in said.items() if name != "params"}
