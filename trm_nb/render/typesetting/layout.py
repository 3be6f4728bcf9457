"""Where every character of a text goes: rows and columns of cells, soft wraps, overlaid marks.

Choice: a line is wrapped at the last cell, by character, or after the last blank that fits, by word; nothing is cut
and white space inside a line is kept. All of it is NumPy over the whole text; Python loops only over what is rare
(tabs beside wide characters, rows of wide characters or of whole words, combining marks that no precomposed character
holds, right-to-left lines).
Cost: about 10 us for a page of 32x16 when a text has many; some 80 bytes of memory a character while it runs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from trm_nb.render.typesetting import right_to_left
from trm_nb.render.typesetting.glyphs import BOX, BOXED_ALONE, MARK, WIDTH, Atlas
from trm_nb.render.typesetting.right_to_left import Lines

BLANKS = " \u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
TAB = 4
BY_CHARACTER, BY_WORD = 1, 2  # how a row goes on in the next one; by word, one blank stands at its end
MARKS_RIGHT_TO_LEFT = 4  # most marks over one character where reading back from pixels is not promised
_BLANK_CODES = np.array([ord(c) for c in BLANKS], np.uint32)
_CONTROLS = {c: 0x2400 + c for c in range(0x20) if c != 0x0A} | {0x7F: 0x2421}
_MAYBE_MARKS = re.compile(r"[^\w\s\x00-\u02ff]{64,}")  # no mark is a letter, a digit, white space or below U+0300
_HAS_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f]")

Overlayable = Callable[[int, tuple[int, ...]], bool]  # base, marks -> can it be read back when rendered in one place?


@dataclass(frozen=True, eq=False)
class Placement:
    """Cells of a text; arrays of its characters, but the last two.

    `row`, `column`: int64, where it stands (an overlaid mark: where its base's first cell stands). `cell`: int32 first
    cell. `width`: int64, 0 overlaid mark or line break, 1, 2. `overlaid`: bool. `wrapped`: uint8 (rows), BY_CHARACTER
    or BY_WORD where the line goes on in the next row, else 0. `short`: the rows that end one cell early, because a wide
    character did not fit.
    """

    row: np.ndarray
    column: np.ndarray
    cell: np.ndarray
    width: np.ndarray
    overlaid: np.ndarray
    wrapped: np.ndarray
    short: np.ndarray


def code_points(text: str) -> np.ndarray:
    """uint32 (characters), lone surrogates included."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def normalise(text: str, atlas: Atlas) -> str:
    """NFC; CRLF and CR to LF; tabs to spaces up to the next multiple of 4 columns; white space before a line end and
    blank lines at the end dropped; C0 controls and DEL as their symbols (U+2400...). Nothing else.

    White space here is what is rendered blank. NFC is Python's own; it is the same in all versions for every character
    of Unicode 14.
    """
    if not text.isascii():
        text = _nfc(text)
    if _HAS_CONTROLS.search(text):
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if "\t" in text:
            text = _expand_tabs(text, atlas)
        text = text.translate(_CONTROLS)
    return "\n".join([line.rstrip(BLANKS) for line in text.split("\n")]).rstrip("\n")


def _nfc(text: str) -> str:
    """NFC; Python's own takes minutes for 100,000 marks in a row, which it sorts by swapping neighbours."""
    return unicodedata.normalize("NFC", _MAYBE_MARKS.sub(lambda run: _sorted_marks(run[0]), text))


def _sorted_marks(run: str) -> str:
    """The same text, canonically equivalent, with the marks of each character decomposed and in canonical order."""
    if not any(map(unicodedata.combining, set(run))):
        return run
    parts = {character: unicodedata.normalize("NFD", character) for character in set(run)}
    marks = groupby("".join([parts[character] for character in run]), lambda c: unicodedata.combining(c) > 0)
    return "".join(["".join(sorted(group, key=unicodedata.combining) if mark else group) for mark, group in marks])


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


def place(normalised: str, columns: int, atlas: Atlas, overlayable: Overlayable, by_word: bool = False) -> Placement:
    """Lay out a normalised text on rows of `columns` (at least 2) cells."""
    codes = code_points(normalised)
    breaks = codes == 0x0A
    overlaid = np.zeros(len(codes), bool)
    if normalised.isascii():
        cell, width = atlas.first[codes], (~breaks).astype(np.int64)
        return _wrapped(codes, cell, width, overlaid, breaks, columns, by_word)
    reordered = right_to_left.levels_of_lines(normalised)
    rendered = _with_forms(normalised, codes, reordered, overlaid, atlas) if reordered else codes
    props = atlas.props[rendered]
    width, cell = (props & WIDTH).astype(np.int64), atlas.first[rendered]
    cell[overlaid] = atlas.blank  # alefs that a ligature has taken in
    if ((props != 1) & ~breaks).any():
        overlaid |= _overlaid(rendered, props, overlayable, reordered)
        alone = ((props & BOXED_ALONE) != 0) & ~overlaid
        cell[alone], width[alone] = BOX + 2 * codes[alone].astype(np.int32), 2
    width[overlaid | breaks] = 0
    placed = _wrapped(codes, cell, width, overlaid, breaks, columns, by_word)
    return _reordered(normalised, reordered, placed, columns) if reordered else placed


def _wrapped(
    codes: np.ndarray,
    cell: np.ndarray,
    width: np.ndarray,
    overlaid: np.ndarray,
    breaks: np.ndarray,
    columns: int,
    by_word: bool,
) -> Placement:
    """Rows and columns from the running sum of widths; a line of no cells still takes a row."""
    ends = np.append(np.flatnonzero(breaks), len(width))
    starts = np.concatenate(([0], ends[:-1] + 1))
    before = np.concatenate(([0], np.cumsum(width)))
    long = np.flatnonzero(before[ends] - before[starts] > columns)
    if by_word or not np.array_equal(width, ~breaks):
        inner, kinds, short, unseen = _row_starts(codes, before, overlaid, starts[long], ends[long], columns, by_word)
        overlaid[unseen], width[unseen] = True, 0
    else:
        inner = _even_row_starts(starts[long], ends[long], columns)
        kinds, short = np.full(len(inner), BY_CHARACTER, np.uint8), np.zeros(len(inner), bool)
    row_starts = np.concatenate([starts, inner])
    order = np.argsort(row_starts, kind="stable")
    wrapped = np.zeros(len(row_starts), np.uint8)
    wrapped[np.flatnonzero(order >= len(starts)) - 1] = kinds  # a row that begins inside a line follows a wrapped one
    row_starts = row_starts[order]
    cells_before = before[row_starts]
    lengths = np.diff(np.append(row_starts, len(width)))
    row = np.repeat(np.arange(len(row_starts)), lengths)
    column = before[:-1] - np.repeat(cells_before, lengths)
    if overlaid.any():
        base = np.maximum.accumulate(np.where(overlaid, -1, np.arange(len(width))))[overlaid]
        row[overlaid], column[overlaid] = row[base], column[base]
    return Placement(row, column, cell, width, overlaid, wrapped, np.flatnonzero(wrapped)[short])


def _even_row_starts(starts: np.ndarray, ends: np.ndarray, columns: int) -> np.ndarray:
    """Where long lines of characters of one cell each go on in a new row, int64."""
    counts = (ends - starts - 1) // columns
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(np.repeat(starts, counts) + columns * (1 + number))


def _row_starts(
    codes: np.ndarray,
    before: np.ndarray,
    overlaid: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    columns: int,
    by_word: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """Where long lines go on in a new row, how (BY_...), and whether the row before ended a cell early: int64, uint8
    and bool, in the order of the text. And the blanks after a word that fills its row: they are laid over its end."""
    found: list[tuple[int, int, bool]] = []
    unseen: list[int] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        sums = before[start : end + 1]
        blanks = _word_ends(codes[start:end], overlaid[start:end]) if by_word else np.zeros(0, np.int64)
        at = 0
        while sums[at] + columns < sums[-1]:
            limit = sums[at] + columns
            stop = int(np.searchsorted(sums, limit, side="right")) - 1
            full = int(sums[stop] == limit)  # then a blank may follow the word that ends the row
            kind, short = BY_CHARACTER, not full
            word = int(blanks[np.searchsorted(blanks, stop + full, side="right") - 1]) if len(blanks) else 0
            if at < word <= stop + full:
                unseen += [start + stop] if word > stop else []
                stop, kind, short = word, BY_WORD, False
            found.append((start + stop, kind, short))
            at = stop
    inner, kinds, early = zip(*found, strict=True) if found else ((), (), ())
    return np.array(inner, np.int64), np.array(kinds, np.uint8), np.array(early, bool), unseen


def _word_ends(codes: np.ndarray, overlaid: np.ndarray) -> np.ndarray:
    """int64: places in a line after a single blank, or after the first of several: there it may go on in a new row."""
    blank = codes == 0x20
    first = blank[1:] & ~np.isin(codes[:-1], _BLANK_CODES)
    first &= ~np.append(overlaid[2:], False)
    return np.flatnonzero(first) + 2


def _overlaid(codes: np.ndarray, props: np.ndarray, overlayable: Overlayable, reordered: Lines) -> np.ndarray:
    """bool (characters): marks to render over the character before them, the most of each run that can be read back."""
    overlaid = np.zeros(len(codes), bool)
    is_mark = (props & MARK) != 0
    free = np.zeros(len(codes), bool)
    for start, end in reordered:
        free[start:end] = True
    marks = np.flatnonzero(is_mark)
    runs = np.split(marks, np.flatnonzero(np.diff(marks) != 1) + 1)
    for run in runs:
        if len(run) == 0 or run[0] == 0 or codes[run[0] - 1] == 0x0A:
            continue
        if free[run[0]]:
            same = props[run[:MARKS_RIGHT_TO_LEFT]] & WIDTH == props[run[0] - 1] & WIDTH
            overlaid[run[:MARKS_RIGHT_TO_LEFT][np.logical_and.accumulate(same)]] = True  # what follows has its own cell
            continue
        base, follow = int(codes[run[0] - 1]), tuple(codes[run[:2]].tolist())
        for count in range(len(follow), 0, -1):
            if overlayable(base, follow[:count]):
                overlaid[run[:count]] = True
                break
    return overlaid


# -- right-to-left lines ----------------------------------------------------------------------------------------------


def _with_forms(text: str, codes: np.ndarray, lines: Lines, taken: np.ndarray, atlas: Atlas) -> np.ndarray:
    """uint32: the code points to render, Arabic joined and brackets mirrored; sets `taken` for what ligatures hold."""
    rendered = codes.copy()
    for (start, end), levels in lines.items():
        line = text[start:end]
        forms, inside = right_to_left.shaped(line)
        for index, code in {**forms, **right_to_left.mirrored(line, levels)}.items():
            if atlas.first[code] < BOX:
                rendered[start + index] = code
        taken[[start + index for index in inside]] = True
    return rendered


def _reordered(text: str, lines: Lines, placed: Placement, columns: int) -> Placement:
    """The characters of these lines in the columns of their visual order; no row of theirs is marked as short."""
    column, row = placed.column.copy(), placed.row
    for (start, end), levels in lines.items():
        line = slice(start, end)
        column[line] = right_to_left.reordered(text[line], levels, row[line], column[line], placed.width[line], columns)
    rows = np.concatenate([row[start:end] for start, end in lines])
    return replace(placed, column=column, short=placed.short[~np.isin(placed.short, rows)])
