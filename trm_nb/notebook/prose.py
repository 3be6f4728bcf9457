"""What a notebook says about its data: findings whose values are escaped, because the data is hostile.

The template is the notebook author's Markdown; every value that is not a number is data, and shows as itself.
A number and its unit are held together by a no-break space, percent signs too. `plain` does for figures what `escaped`
does for Markdown.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from functools import cache
from html import unescape
from numbers import Number
from typing import Any

import numpy as np

from trm_nb.describe import escaped

_SIGN = re.compile(r"(?<=\d) ?(?=%)")
_SPACED_SIGN = re.compile(r"(?<=\d) (?=%)")  # in templates, where {part:.0%} is to stay
NO_BREAK = "\u00a0"


class Quantity(str):
    """A number with its unit, as text: the notebook's own, so it is not escaped; a column of them aligns right."""

    __slots__ = ()


def percent(part: float, digits: int = 0) -> Quantity:
    """A part of 1 as a percentage, its sign never on another line; "-" for nan."""
    return Quantity(f"{100 * part:.{digits}f}{NO_BREAK}%" if part == part else "-")


def size(nbytes: float) -> Quantity:
    """Bytes as people read them: three digits and a decimal unit (12.4 KB)."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if nbytes >= 0.9995 * factor:
            digits = 2 - sum(nbytes / factor >= limit for limit in (9.995, 99.95))
            return Quantity(f"{nbytes / factor:,.{digits}f}{NO_BREAK}{unit}")
    return Quantity(f"{nbytes:.0f}{NO_BREAK}bytes")


def plain(text: object, length: int = 34) -> str:
    """Text of the data as a figure can show it: no mathtext, no missing glyphs, each line at most `length` long."""
    known = _glyphs()
    lines = []
    for line in str(text).split("\n"):
        shown = [c if ord(c) in known else ascii(c)[1:-1] for c in " ".join(line.split())]
        if sum(map(len, shown)) > length:  # an escape is kept whole or left out
            shown = [*_within(shown, length // 3), "…", *reversed(_within(shown[::-1], length - length // 3 - 1))]
        lines.append("".join(shown).replace("$", r"\$"))
    return "\n".join(lines)


def _within(shown: Sequence[str], length: int) -> Sequence[str]:
    """As many of the first pieces as fit into `length` characters."""
    fitting = int(np.searchsorted(np.cumsum([len(piece) for piece in shown]), length, side="right"))
    return shown[:fitting]


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def as_plain(markdown: str) -> str:
    """A finding as plain text on one line: no emphasis, no escapes, and what cannot be printed as backslash escapes.

    No-break spaces are kept, for callers that wrap the text.
    """
    text = unescape(re.sub(r"\\([!-/:-@[-`{-~])|\*\*|`", r"\1", re.sub(r"[ \t\n]+", " ", markdown.strip())))
    return "".join(c if c.isprintable() or c == NO_BREAK else ascii(c)[1:-1] for c in text)


class _Formatter(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        shown = format(value, format_spec)
        return _SIGN.sub(NO_BREAK, shown) if isinstance(value, (Number, Quantity)) else escaped(shown)


def finding(template: str, *places: object, **values: object) -> str:
    """Markdown: the author's template with numbers formatted (`{count:,}`, `{part:.0%}`) and all else escaped."""
    return _Formatter().format(_SPACED_SIGN.sub(NO_BREAK, template), *places, **values)


def say(template: str, *places: object, **values: object) -> None:
    """Show a finding below the cell."""
    from IPython.display import Markdown, display

    display(Markdown(finding(template, *places, **values)))  # type: ignore[no-untyped-call]
