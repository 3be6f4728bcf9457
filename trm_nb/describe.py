"""How objects show themselves: `__repr__` as aligned lines of text, `_repr_html_` as a small table; data in Markdown.

A class states its facts once; both forms are made of them. What an object shows may come from data, which is hostile:
characters that do not print appear as escapes, and HTML is escaped. Neither form ever raises, because debuggers and
notebooks ask objects for them at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import TypeAlias

Facts: TypeAlias = Mapping[str, object]
_SPECIAL = str.maketrans({c: f"\\{c}" for c in r"\`*_{}[]()#+-.!|~$:^="})
MAX_LENGTH = 200  # characters of one value


class Described:
    """Gives a class with `_facts` its `__repr__` and its `_repr_html_`."""

    def _facts(self) -> Facts:
        """What the object holds, by name; None leaves a line out. Must be cheap."""
        return {}

    def __repr__(self) -> str:
        lines = aligned(attempted("cannot be read", self._facts))
        return "\n".join([type(self).__name__, *(f"  {line}" for line in lines)])

    def _repr_html_(self) -> str:
        left = 'style="text-align:left"'
        rows = "".join(
            f'<tr><th scope="row" {left}>{escape(name)}</th><td {left}>{escape(value)}</td></tr>'
            for name, value in _lines(attempted("cannot be read", self._facts)).items()
        )
        title = escape(type(self).__name__)
        return f'<div><strong>{title}</strong><table class="trm-table"><tbody>{rows}</tbody></table></div>'


def minute(moment: datetime) -> str:
    """A moment for people: the local date and minute, with the time zone."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M %Z}"


def aligned(facts: Facts) -> list[str]:
    """A line for each fact that is not None, the values one below the other."""
    lines = _lines(facts)
    width = max((len(name) for name in lines), default=0)
    return [f"{name:{width}}  {value}" for name, value in lines.items()]


def _lines(facts: Facts) -> dict[str, str]:
    return {printable(name): _shown(value) for name, value in facts.items() if value is not None}


def attempted(name: str, facts: Callable[[], Facts]) -> Facts:
    """The facts; where they cannot be had (damaged, gone, closed, half made), under `name` why."""
    try:
        return facts()
    except Exception as error:
        return {name: f"{type(error).__name__}: {error}"}


def counted(counts: Mapping[str, int], most: int = 8) -> str:
    """Counts as words: 151 grid, 89 image, 315 text; beyond `most` of them only how many more there are."""
    parts = [f"{count:,} {name}" for name, count in list(counts.items())[:most]]
    return _listed(parts, len(counts)) or "none"


def named(names: Sequence[str], most: int = 8) -> str:
    """How many names there are, and the first of them."""
    return f"{len(names):,}: {_listed(names[:most], len(names))}" if names else "none"


def _listed(shown: Sequence[str], total: int) -> str:
    return ", ".join(shown) + (f" and {total - len(shown):,} more" if total > len(shown) else "")


def printable(text: object) -> str:
    """Any text on one line, with escapes for what does not print."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(str(text).split()))


def escaped(text: object, most: int = 200) -> str:
    """Any text as Markdown that shows as this text, on one line; one above `most` characters loses its middle."""
    plain = " ".join(str(text).split())
    if len(plain) > most:
        plain = f"{plain[: most * 3 // 5]} … {plain[-most * 3 // 10 :]}"
    # the HTML entities come last: their & and ; mean nothing to Markdown, but a # would be escaped
    return escape(plain.translate(_SPECIAL), quote=False)


def _shown(value: object) -> str:
    """One value; a long one loses its middle."""
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else printable(value)
    text = f"{value:,.4g}" if isinstance(value, float) else text
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH * 2 // 3]} … {text[-MAX_LENGTH // 4 :]}"
