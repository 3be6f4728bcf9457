"""Where every character of a text goes: rows and columns of cells, soft wraps, overlaid marks.

Choice: a line is wrapped at the last cell, by character; nothing is cut and white space inside a line is kept. All of
it is NumPy over the whole text; Python loops only over what is rare (tabs beside wide characters, rows of wide
characters, combining marks that no precomposed character holds). Lines run left to right in logical order: Hebrew and
Arabic are not reordered, Arabic letters have their isolated forms.
Cost: about 10 us for a page of 32x16 when a text has many; some 80 bytes of memory a character while it runs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trm_nb.render.glyphs import BOX, BOXED_ALONE, MARK, WIDTH, Atlas

BLANKS = " \u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
TAB = 4
FILLER = 0x110000  # stands, in the array of code points, for the cell that a wide character left over
_CONTROLS = {c: 0x2400 + c for c in range(0x20) if c != 0x0A} | {0x7F: 0x2421}
_HAS_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f]")

Overlayable = Callable[[int, tuple[int, ...]], bool]  # base, marks -> can it be read back when drawn in one place?


@dataclass(frozen=True, eq=False)
class Placement:
    """Cells of a whole text. All arrays are of the text's units (characters and fillers) but the last two.

    `index`: int64, the unit's place in the normalised text (-1 filler). `row`, `column`: int64, where it stands (an
    overlaid mark: where its base's first cell stands). `cell`: int32 first cell. `width`: 0 overlaid mark or line
    break, 1, 2. `overlaid`: bool. `rows`: number of rows. `wrapped`: bool (rows), the line goes on in the next row.
    """

    index: np.ndarray
    row: np.ndarray
    column: np.ndarray
    cell: np.ndarray
    width: np.ndarray
    overlaid: np.ndarray
    rows: int
    wrapped: np.ndarray


def code_points(text: str) -> np.ndarray:
    """uint32 (characters), lone surrogates included."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def normalise(text: str, atlas: Atlas) -> str:
    """NFC; CRLF and CR to LF; tabs to spaces up to the next multiple of 4 columns; white space before a line end and
    blank lines at the end dropped; C0 controls and DEL as their symbols (U+2400...). Nothing else.

    White space here is what is drawn blank. NFC is Python's own; it is the same in all versions for every character
    of Unicode 14.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if _HAS_CONTROLS.search(text):
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if "\t" in text:
            text = _expand_tabs(text, atlas)
        text = text.translate(_CONTROLS)
    return "\n".join([line.rstrip(BLANKS) for line in text.split("\n")]).rstrip("\n")


def _expand_tabs(text: str, atlas: Atlas) -> str:
    if text.isascii():
        return text.expandtabs(TAB)
    return "\n".join(_expand_line(line, atlas) if "\t" in line else line for line in text.split("\n"))


def _expand_line(line: str, atlas: Atlas) -> str:
    if line.isascii():
        return line.expandtabs(TAB)
    parts, column = [], 0
    for part in line.split("\t"):
        props = atlas.props[code_points(part)]
        column += int((props & WIDTH)[(props & MARK) == 0].sum())
        stop = TAB - column % TAB
        parts += [part, " " * stop]
        column += stop
    return "".join(parts[:-1])


def place(normalised: str, columns: int, atlas: Atlas, overlayable: Overlayable) -> Placement:
    """Lay out a normalised text on rows of `columns` (at least 2) cells."""
    codes = code_points(normalised)
    props = atlas.props[codes]
    breaks = codes == 0x0A
    width = (props & WIDTH).astype(np.int64)
    cell = atlas.first[codes]
    overlaid = np.zeros(len(codes), bool)
    index = np.arange(len(codes))
    plain = not ((props != 1) & ~breaks).any()
    if not plain:
        overlaid = _overlaid(codes, props, overlayable)
        width[overlaid] = 0
        alone = ((props & BOXED_ALONE) != 0) & ~overlaid
        cell[alone], width[alone] = BOX + 2 * codes[alone].astype(np.int32), 2
    width[breaks] = 0
    if not plain:
        at = _fillers(width, breaks, columns)
        index = np.insert(index, at, -1)
        cell, width = np.insert(cell, at, atlas.filler), np.insert(width, at, 1)
        overlaid, breaks = np.insert(overlaid, at, False), np.insert(breaks, at, False)
    return _wrap(index, cell, width, overlaid, breaks, columns)


def _wrap(
    index: np.ndarray, cell: np.ndarray, width: np.ndarray, overlaid: np.ndarray, breaks: np.ndarray, columns: int
) -> Placement:
    """Rows and columns from the running sum of widths; a line of no cells still takes a row."""
    ends = np.append(np.flatnonzero(breaks), len(width))
    starts = np.concatenate(([0], ends[:-1] + 1))
    before = np.concatenate(([0], np.cumsum(width)))
    cells_in_line = before[ends] - before[starts]
    rows_in_line = np.maximum(1, -(-cells_in_line // columns))
    first_row = np.cumsum(rows_in_line) - rows_in_line
    units_in_line = np.append(ends[:-1] + 1, len(width)) - starts
    # place of a unit, counted in cells from the first row of the text
    place = before[:-1] + np.repeat(first_row * columns - before[starts], units_in_line)
    place[overlaid] = _base_places(place, overlaid)
    row, column = np.divmod(place, columns)
    rows = int(rows_in_line.sum())
    wrapped = np.ones(rows, bool)
    wrapped[first_row + rows_in_line - 1] = False
    return Placement(index, row, column, cell, width, overlaid, rows, wrapped)


def _base_places(place: np.ndarray, overlaid: np.ndarray) -> np.ndarray:
    base = np.maximum.accumulate(np.where(overlaid, -1, np.arange(len(place))))
    return np.asarray(place[base[overlaid]])


def _overlaid(codes: np.ndarray, props: np.ndarray, overlayable: Overlayable) -> np.ndarray:
    """bool (characters): marks to draw over the character before them, the most of each run that can be read back."""
    overlaid = np.zeros(len(codes), bool)
    marks = np.flatnonzero((props & MARK) != 0)
    runs = np.split(marks, np.flatnonzero(np.diff(marks) != 1) + 1)
    for run in runs:
        if len(run) == 0 or run[0] == 0 or codes[run[0] - 1] == 0x0A:
            continue
        base, follow = int(codes[run[0] - 1]), tuple(codes[run[:2]].tolist())
        for count in range(len(follow), 0, -1):
            if overlayable(base, follow[:count]):
                overlaid[run[:count]] = True
                break
    return overlaid


def _fillers(width: np.ndarray, breaks: np.ndarray, columns: int) -> np.ndarray:
    """Units before which a filler goes, because a wide character would stand on both sides of a wrap."""
    ends = np.append(np.flatnonzero(breaks), len(width))
    before = np.concatenate(([0], np.cumsum(width)))
    starts = np.concatenate(([0], ends[:-1] + 1))
    at: list[int] = []
    for start, end in zip(starts[(long := before[ends] - before[starts] > columns)], ends[long], strict=True):
        if not (width[start:end] == 2).any():
            continue
        sums = before[start : end + 1]
        row_start = sums[0]
        while row_start + columns < sums[-1]:
            # the last unit boundary inside this row; one cell short of its end where a wide character does not fit
            unit = int(np.searchsorted(sums, row_start + columns, side="right")) - 1
            if sums[unit] < row_start + columns:
                at.append(int(start) + unit)
            row_start = sums[unit]
    return np.asarray(at, np.int64)
