"""What a notebook says about its data: findings and tables whose values are escaped, because the data is hostile.

The template is the notebook author's Markdown; every value that is not a number is data, and shows as itself.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Number
from typing import Any

_SPECIAL = str.maketrans({c: f"\\{c}" for c in r"\`*_{}[]()#+-.!|~$:^="})


def escaped(text: object) -> str:
    """Any text as Markdown that shows as this text, on one line; long ones lose their middle."""
    plain = " ".join(str(text).split())
    if len(plain) > 200:
        plain = f"{plain[:120]} … {plain[-60:]}"
    # the HTML entities come last: their & and ; mean nothing to Markdown, but a # would be escaped
    return escape(plain.translate(_SPECIAL), quote=False)


class _Formatter(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        shown = format(value, format_spec)
        return shown if isinstance(value, Number) else escaped(shown)


def finding(template: str, *places: object, **values: object) -> str:
    """Markdown: the author's template with numbers formatted (`{count:,}`, `{part:.0%}`) and all else escaped."""
    return _Formatter().format(template, *places, **values)


def say(template: str, *places: object, **values: object) -> None:
    """Show a finding below the cell."""
    from IPython.display import Markdown, display

    display(Markdown(finding(template, *places, **values)))  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Table:
    """A small table that prints as text and displays as escaped HTML. Columns of numbers align right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._html()}

    def __str__(self) -> str:
        lines = [list(self.columns), *([_shown(value) for value in row] for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        return "\n".join("  ".join(v.ljust(w) for v, w in zip(line, widths, strict=True)).rstrip() for line in lines)

    def _html(self) -> str:
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.columns)
        numbers = [all(_is_number(row[i]) for row in self.rows) for i in range(len(self.columns))]
        body = "".join(f"<tr>{''.join(map(_cell, row, numbers))}</tr>" for row in self.rows)
        return f'<table class="trm-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def table(rows: Sequence[Mapping[str, object]] | Mapping[str, object], columns: Sequence[str] = ("", "")) -> Table:
    """A table of records with the same keys, or of one mapping's pairs."""
    if isinstance(rows, Mapping):
        return Table(tuple(columns), tuple(rows.items()))
    names = tuple(rows[0]) if rows else tuple(columns)
    return Table(names, tuple(tuple(row[name] for name in names) for row in rows))


def _is_number(value: object) -> bool:
    return isinstance(value, Number) and not isinstance(value, bool)


def _cell(value: object, right: bool) -> str:
    kind = ' class="number"' if right else ""
    return f"<td{kind}>{escape(_shown(value))}</td>"


def _shown(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else " ".join(str(value).split())
