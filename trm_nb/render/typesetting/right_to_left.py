"""Right-to-left lines: the order in which the characters of a row stand, and the joined forms of Arabic letters.

Choice: a line is wrapped in logical order first and each row is reordered then, as UAX #9 asks. The embedding levels
are python-bidi's (its debugging output is the only way in which it tells levels instead of a string, and only levels
say which character went where); rules L1, L2 and L4 are here. Arabic is joined by presentation forms, which Unicode
itself maps to letters, so no font engine is needed; letters that have none (Kashmiri, Sindhi and the like beyond
U+06FF) stand unjoined. Where a paragraph runs right to left, so do its rows: they end at the left edge.
Cost: some 3 us a character and 50 us a line, paid only by lines that hold a right-to-left character.
Source: Unicode Standard Annex #9. Deviation: a line of more than LINE characters is resolved in parts of that length.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

import bidi
import numpy as np
from bidi.mirror import MIRRORED

LINE = 4096
_RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u08ff\u200f\u202b\u202e\u2067\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
_LEVEL = re.compile(r"Level\(\s*(\d+)")
# what ends a paragraph for UAX #9 but is a character like others here, and what UTF-8 cannot hold
_STAND_INS = {0x85: 0x20, 0x2029: 0x20} | dict.fromkeys(range(0xD800, 0xE000), 0xFFFD)
_TATWEEL, _ZWJ, _ZWNJ, _LAM = 0x0640, 0x200D, 0x200C, 0x0644

Forms = tuple[int, int, int, int]  # isolated, final, initial, medial; 0 where there is none
Levels = tuple[int, np.ndarray]  # the paragraph's, and uint8 (characters)
Lines = dict[tuple[int, int], Levels]  # start and end of the lines to reorder, and their levels


def lines_to_reorder(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of every line of `text` that holds a right-to-left character or number, or forces that order."""
    found = None if text.isascii() else _RIGHT_TO_LEFT.search(text)
    while found:
        start = text.rfind("\n", 0, found.start()) + 1
        end = text.find("\n", found.end())
        end = len(text) if end < 0 else end
        yield start, end
        found = _RIGHT_TO_LEFT.search(text, end)


def levels_of(line: str) -> Levels:
    """The paragraph's level (0 left to right, 1 right to left) and uint8 (characters) embedding levels of a line."""
    line = line.translate(_STAND_INS)
    base: int | None = None
    parts = []
    for start in range(0, len(line), LINE):
        part = line[start : start + LINE]
        debug = bidi.get_display(part, base_dir=None if base is None else "LR"[base], debug=True)
        _, _, debug = debug.rpartition("\n    levels: [")  # the text stands before it, with its line ends escaped
        levels, _, paragraph = debug.partition("\n    paragraphs: [")
        if base is None:
            base = int(_LEVEL.findall(paragraph)[0]) & 1
        of_bytes = np.array(_LEVEL.findall(levels), np.uint8)
        codes = np.frombuffer(part.encode("utf-32-le"), np.uint32)
        lengths = 1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000).astype(np.int64)
        parts.append(of_bytes[np.cumsum(lengths) - lengths])
    return base or 0, np.concatenate(parts) if parts else np.zeros(0, np.uint8)


def levels_of_lines(text: str) -> Lines:
    """The levels of the lines of `text` whose characters are reordered or joined.

    A line whose characters from right-to-left blocks are all neutral or weak (punctuation, digits, marks) has even
    levels only. Its order does not change, so it is laid out, and read back, like any other line.
    """
    found: Lines = {}
    for start, end in lines_to_reorder(text):
        base, levels = levels_of(text[start:end])
        if (levels & 1).any() or any(shaped(text[start:end])):  # joined at even levels: Arabic inside an override
            found[start, end] = base, levels
    return found


def visual_order(levels: np.ndarray) -> np.ndarray:
    """Indices of a row's characters from left to right (rule L2)."""
    order = np.arange(len(levels))
    odd = levels[levels & 1 == 1]
    for level in range(int(levels.max(initial=0)), int(odd.min(initial=255)) - 1, -1):
        inside = np.concatenate(([False], levels[order] >= level, [False]))
        starts, stops = (
            np.flatnonzero(np.diff(inside.astype(np.int8)) == 1),
            np.flatnonzero(np.diff(inside.astype(np.int8)) == -1),
        )
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            order[start:stop] = order[start:stop][::-1]
    return order


def reordered(
    line: str, levels: Levels, row: np.ndarray, column: np.ndarray, width: np.ndarray, columns: int
) -> np.ndarray:
    """int64 (characters): the columns of a line's characters in visual order.

    `row`, `column`, `width`: where the wrapped line's characters stand in logical order; 0 cells wide is what is laid
    over the character before it, and goes where that goes.
    """
    base, of_characters = levels
    column = column.copy()
    blank = np.array([unicodedata.bidirectional(c) in ("WS", "BN", "S", "B") for c in line])
    shown = np.flatnonzero(width)
    for units in np.split(shown, np.flatnonzero(np.diff(row[shown])) + 1):
        of_row = of_characters[units].copy()
        last = np.flatnonzero(~blank[units])
        of_row[last[-1] + 1 if len(last) else 0 :] = base  # rule L1: white space at the end of a row
        order = units[visual_order(of_row)]
        ends = np.cumsum(width[order])
        column[order] = ends - width[order] + (columns - ends[-1] if base and len(ends) else 0)
    if len(shown) and len(shown) < len(width):
        before = np.searchsorted(shown, np.arange(len(width)), side="right") - 1
        column[:] = column[shown[np.maximum(before, 0)]]
    return column


def mirrored(line: str, levels: Levels) -> dict[int, int]:
    """Index -> code point to render instead, for brackets and the like that stand right to left (rule L4)."""
    return {i: ord(MIRRORED[c]) for i, c in enumerate(line) if c in MIRRORED and levels[1][i] & 1}


# -- Arabic ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _presentation_forms() -> tuple[dict[int, Forms], dict[int, Forms]]:
    """Of letters, and of lam followed by an alef, by the alef: from Unicode's own decompositions."""
    kinds = ("<isolated>", "<final>", "<initial>", "<medial>")
    letters: dict[int, list[int]] = {}
    ligatures: dict[int, list[int]] = {}
    for code in (*range(0xFB50, 0xFE00), *range(0xFE70, 0xFEFD)):
        kind, *parts = unicodedata.decomposition(chr(code)).split() or [""]
        if kind not in kinds:
            continue
        bases = [int(part, 16) for part in parts]
        if len(bases) == 1:
            letters.setdefault(bases[0], [0] * 4)[kinds.index(kind)] = code
        elif bases[0] == _LAM and bases[1] in (0x622, 0x623, 0x625, 0x627) and len(bases) == 2:
            ligatures.setdefault(bases[1], [0] * 4)[kinds.index(kind)] = code
    return (
        {base: (f[0], f[1], f[2], f[3]) for base, f in letters.items()},
        {base: (f[0], f[1], f[2], f[3]) for base, f in ligatures.items()},
    )


def shaped(line: str) -> tuple[dict[int, int], list[int]]:
    """Index -> code point of the joined form to render; and the indices of alefs that a ligature has taken in."""
    letters, ligatures = _presentation_forms()
    places = [i for i, c in enumerate(line) if unicodedata.category(c) not in ("Mn", "Me", "Cf") or ord(c) in _JOINERS]
    codes = [ord(line[i]) for i in places] + [0]
    rendered: dict[int, int] = {}
    taken: list[int] = []
    joined = False  # does the letter before reach to this one?
    for n, place in enumerate(places):
        code, following = codes[n], codes[n + 1]
        forms = letters.get(code)
        if taken and taken[-1] == place:
            joined = False
            continue
        if code == _LAM and following in ligatures:
            rendered[place] = ligatures[following][1 if joined else 0]
            taken.append(places[n + 1])
            continue
        goes_on = _reaches_on(code, letters) and _takes(following, letters)
        if forms:
            form = forms[(3 if goes_on else 1) if joined else (2 if goes_on else 0)]
            if form:
                rendered[place] = form
        joined = goes_on
    return rendered, taken


_JOINERS = frozenset({_TATWEEL, _ZWJ, _ZWNJ})


def _reaches_on(code: int, letters: dict[int, Forms]) -> bool:
    return code in (_TATWEEL, _ZWJ) or (code in letters and letters[code][2] != 0)


def _takes(code: int, letters: dict[int, Forms]) -> bool:
    return code in (_TATWEEL, _ZWJ) or (code in letters and letters[code][1] != 0)
