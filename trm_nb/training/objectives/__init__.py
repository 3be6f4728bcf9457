"""The table of objectives: what a TRM can learn from a finished run. A new one is a module here and a line below."""

from __future__ import annotations

import difflib

from trm_nb.errors import UserError
from trm_nb.training.objective import Objective
from trm_nb.training.objectives.grid import Grids
from trm_nb.training.objectives.label import Labels
from trm_nb.training.objectives.next_page import NextPages

OBJECTIVES: dict[str, type[Objective]] = {
    "label": Labels,
    "grid": Grids,
    "next": NextPages,
}


def objective_named(name: str) -> type[Objective]:
    """The objective of this name in the table; raises UserError, which lists the names, where there is none."""
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    near = difflib.get_close_matches(name, OBJECTIVES, n=1, cutoff=0.5)
    suggestion = f", did you mean {near[0]!r}?" if near else ""
    raise UserError(f"objective: expected one of {', '.join(OBJECTIVES)}, got {name!r}{suggestion}")
