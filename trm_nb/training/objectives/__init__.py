"""The table of objectives: what a TRM can learn from a finished run. A new one is a module here and a line below.

The table holds import paths, so that the names are known without importing torch.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING

from trm_nb.errors import refuse_unknown

if TYPE_CHECKING:
    from trm_nb.training.objective import Objective

# name -> "module:class"
OBJECTIVES: dict[str, str] = {
    "label": "trm_nb.training.objectives.label:Labels",
    "grid": "trm_nb.training.objectives.grid:Grids",
    "next": "trm_nb.training.objectives.next_page:NextPages",
}


def objective_named(name: str) -> type[Objective]:
    """The objective of this name in the table; raises UserError, which lists the names, where there is none."""
    refuse_unknown("objective", name, OBJECTIVES)
    found: type[Objective] = resolve_name(OBJECTIVES[name])
    return found
