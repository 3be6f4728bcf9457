"""How DataFrames show themselves in a notebook: escaped, on one line a row, numbers aligned right.

pandas escapes HTML, but keeps control characters and overrides of the reading direction, which data can hold. So
`open_run` lets the kernel show DataFrames and Series by `as_html` and `as_text`. They stay DataFrames otherwise. A long
text loses its middle, and of many rows the first and the last ones are shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.describe import printable
from trm_nb.notebook.prose import NO_BREAK, Quantity

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from trm_nb.pipeline.run import Run

MOST_ROWS = 40
_HALF = MOST_ROWS // 2
MOST_COLUMNS = 20
MOST = 200  # characters of a cell
_NUMBER = ' class="number"'
_MEASURED = re.compile(rf"[-+]?\d[\d,.]*({NO_BREAK}\S+)?")  # as `prose.percent` and `prose.size` make them


def install(shell: InteractiveShell | None) -> None:
    """Let this kernel show DataFrames and Series so; nothing where there is no kernel."""
    if shell is None or shell.display_formatter is None:
        return
    formatters = shell.display_formatter.formatters
    for kind in (pd.DataFrame, pd.Series):
        formatters["text/html"].for_type(kind, as_html)
        formatters["text/plain"].for_type(kind, lambda data, printer, _: printer.text(as_text(data)))


def as_html(data: pd.DataFrame | pd.Series) -> str:
    """A table with a cell for each value, all text escaped; an index that only numbers the rows is left out."""
    columns = _columns(data)
    numbers = [all(map(_is_number, values)) for _, values in columns]
    head = "".join(
        f'<th scope="col"{_NUMBER if right else ""}>{escape(name)}</th>'
        for (name, _), right in zip(columns, numbers, strict=True)
    )
    rows = _rows(columns, len(data))
    body = "".join(f"<tr>{''.join(map(_cell, row, numbers))}</tr>" for row in rows)
    kind = "trm-table" if len(data) else "trm-table trm-empty"
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def as_text(data: pd.DataFrame | pd.Series) -> str:
    """The same for a terminal."""
    columns = _columns(data)
    lines = [[name for name, _ in columns], *_rows(columns, len(data))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(v.ljust(w) for v, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _columns(data: pd.DataFrame | pd.Series) -> list[tuple[str, list[Any]]]:
    """The columns that are shown, those of the index first: a heading, and the first and the last values."""
    rows = data if len(data) <= MOST_ROWS else data.iloc[[*range(_HALF), *range(-_HALF, 0)]]
    index = data.index
    named = index.names if index.name is not None or not isinstance(index, pd.RangeIndex) else []
    found = [(name, rows.index.get_level_values(level).tolist()) for level, name in enumerate(named)]
    if isinstance(rows, pd.DataFrame):
        found += [(name, rows.iloc[:, place].tolist()) for place, name in enumerate(data.columns[:MOST_COLUMNS])]
        more = len(data.columns) - MOST_COLUMNS
        found += [(f"… {more:,} more", ["…"] * len(rows))] if more > 0 else []
    else:
        found.append((data.name, rows.tolist()))
    return [("" if name is None else _short(printable(name)), values) for name, values in found]


def _rows(columns: list[tuple[str, list[Any]]], total: int) -> list[tuple[str, ...]]:
    """The rows as they are shown, with one that says how many are left out of a long table."""
    rows = list(zip(*([_text(value) for value in values] for _, values in columns), strict=True))
    if not rows:
        return [("no rows", *[""] * (len(columns) - 1))]
    if len(rows) < total:
        rows.insert(_HALF, (f"… {total - len(rows):,} more", *[""] * (len(columns) - 1)))
    return rows


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, Real) and value != value)


def _is_number(value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return False
    measured = isinstance(value, str) and bool(_MEASURED.fullmatch(value))
    return measured or isinstance(value, Real) or _is_missing(value)


def _cell(value: str, right: bool) -> str:
    return f"<td{_NUMBER if right else ''}>{escape(value)}</td>"


def _text(value: Any) -> str:
    if _is_missing(value):
        return "-"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return f"{int(value):,}"
    if isinstance(value, Real):
        size = abs(float(value))
        return f"{value:,.0f}" if 1e4 <= size < 1e15 else f"{value:,.4g}"
    if isinstance(value, Quantity) or (isinstance(value, str) and _MEASURED.fullmatch(value)):
        return str(value)
    return _short(printable(value))


def _short(text: str) -> str:
    return text if len(text) <= MOST else f"{text[: MOST * 3 // 5]} … {text[-MOST * 3 // 10 :]}"


def recorded(run: Run, notebook: str, **summary: object) -> pd.DataFrame:
    """Note a notebook's summary, of plain values (JSON), in the run's tracker, and return it as a table."""
    run.tracker.set(f"summary:{notebook}", summary)
    return pd.DataFrame(list(summary.items()), columns=["recorded", "value"], dtype=object)


def changed_settings(fields: Mapping[str, Any]) -> pd.DataFrame:
    """The config fields that differ from their defaults, or have none, with both as a table; `fields` are by name."""
    known = MultimodalDatasetConfig.model_fields
    defaults = {name: "required" if known[name].is_required() else known[name].default for name in fields}
    rows = [(name, value, defaults[name]) for name, value in fields.items() if value != defaults[name]]
    return pd.DataFrame(rows, columns=["changed setting", "value", "default"], dtype=object)
