"""What the plan records of a sample and of a source file.

The fields of `PlannedRow` are the columns of a sample's row, said once: the tracker's table and samples.parquet follow
from them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import attrgetter

_SQL = {"int": "INTEGER NOT NULL", "str": "TEXT NOT NULL", "str | None": "TEXT"}
_CONSTRAINTS = {
    "row": "PRIMARY KEY",
    "status": "DEFAULT 'planned' CHECK (status IN ('planned', 'ok', 'quarantined'))",
}


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """One row of samples.parquet as the plan fixed it; `status` is planned, ok or quarantined.

    `split` is train, val or test, and empty until the plan is complete. `target` is the answer to a puzzle or a task,
    grids in JSON; None where there is none. `split_group` is equal for rows that have to be in one split.
    """

    row: int
    sample_id: str
    item_id: str
    modality: str
    source: str
    page: int
    pages: int
    label: str | None
    split: str
    key: str
    status: str = "planned"
    target: str | None = None
    split_group: str = ""


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A source file as it was planned: its `items` have the rows first_row .. first_row + rows - 1.

    `left_out` counts what the config excludes. `sha256` is of the file's bytes, "" for what is not a file.
    """

    name: str
    size: int
    mtime_ns: int
    sha256: str
    first_row: int
    rows: int
    items: int
    left_out: int


ROW_COLUMNS = tuple(field.name for field in fields(PlannedRow))
ROW_SCHEMA = ", ".join(
    f"{field.name} {_SQL[str(field.type)]} {_CONSTRAINTS.get(field.name, '')}".rstrip() for field in fields(PlannedRow)
)
row_values = attrgetter(*ROW_COLUMNS)  # of a PlannedRow, in the order of ROW_COLUMNS
