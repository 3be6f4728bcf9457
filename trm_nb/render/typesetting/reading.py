"""From the pixels of cells back to characters: makes `TextRenderer.decode` exact, and tells which marks to overlay.

Choice: no recognition, only equality. A cell is looked up among the atlas's; two that make a wide character, a hex box
or a base with one or two marks over it are tried after that. Characters whose renderings are equal are folded to the
lowest code point. A mark is laid over its base only where this reader then reads the same characters; otherwise it
stands in its own cell, so that nothing that was written can be lost.
Cost: tables of 30 MB, built at the first decode or the first mark that is not precomposed; a millisecond for each new
pair of base and mark, which is remembered.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from trm_nb.render.typesetting.glyphs import BOX, BOXED_ALONE, CODES, DIGITS, MARK, WIDTH, Atlas, digit_places, hex_box
from trm_nb.render.typesetting.layout import code_points

UNREADABLE = "\ufffd"
TRIED_BASES = 48  # bases tried for a cell with marks, those with the most foreground first


class Reader:
    """Reads cells of one atlas."""

    def __init__(self, atlas: Atlas) -> None:
        self._atlas = atlas
        self.tells_apart = lru_cache(maxsize=65536)(self._tells_apart)

    # -- tables ---------------------------------------------------------------------------------------------------

    @cached_property
    def _class_of(self) -> tuple[dict[bytes, int], np.ndarray]:
        """Pixels of a cell -> the first cell with these pixels; and that first cell for every cell (cells)."""
        flat = self._atlas.gray.reshape(len(self._atlas.gray), -1)
        known: dict[bytes, int] = {}
        raw = flat.tobytes()
        size = flat.shape[1]
        first = np.fromiter(
            (known.setdefault(raw[i * size : (i + 1) * size], i) for i in range(len(flat))), np.int64, len(flat)
        )
        return known, first

    @cached_property
    def _wide_cells(self) -> np.ndarray:
        """bool (cells): the cell is the left half of a wide character."""
        wide = np.zeros(len(self._atlas.gray), bool)
        codes = self._atlas.codes
        wide[self._atlas.first[codes[(self._atlas.props[codes] & WIDTH) == 2]]] = True
        return wide

    def is_wide_cell(self, cells: np.ndarray) -> np.ndarray:
        """bool, for cells of the atlas."""
        return self._wide_cells[cells] if len(cells) else np.zeros(0, bool)

    @cached_property
    def _names(self) -> tuple[dict[int, str], dict[tuple[int, int], str], np.ndarray]:
        """Class -> narrow character; classes of both halves -> wide character; code point -> its representative."""
        _, class_of = self._class_of
        narrow: dict[int, str] = {class_of[self._atlas.filler]: ""}
        wide: dict[tuple[int, int], str] = {}
        fold = np.arange(CODES, dtype=np.int32)
        blank = int(class_of[self._atlas.blank])
        props, first = self._atlas.props, self._atlas.first
        for code in self._atlas.codes.tolist():
            left = int(class_of[first[code]])
            if props[code] & WIDTH == 1:
                fold[code] = ord(narrow.setdefault(left, chr(code)))
                continue
            pair = (left, int(class_of[first[code] + 1]))
            if pair != (blank, blank) and not props[code] & BOXED_ALONE:
                fold[code] = ord(wide.setdefault(pair, chr(code)))
        return narrow, wide, fold

    def fold(self, text: str) -> str:
        """Every character replaced by the lowest code point with the same pixels, U+3000 by two spaces."""
        text = text.replace("\u3000", "  ")
        return str(self._names[2][code_points(text)].astype("<u4").tobytes().decode("utf-32-le", "surrogatepass"))

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self, cells: np.ndarray) -> list[str]:
        """One string a row of cells, uint8 (rows, columns, h, w); folded, blank cells as spaces.

        Rows of narrow characters, which most are, are read all at once.
        """
        cells = np.ascontiguousarray(cells)
        classes = self._classes(cells)
        codes = self._narrow_codes[classes]
        text = codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
        columns = cells.shape[1]
        lines = [text[at : at + columns] for at in range(0, len(text), columns)]
        for row in np.flatnonzero((codes == 0).any(axis=1)).tolist():
            lines[row] = self._read_row(cells[row], classes[row].tolist())
        return lines

    def _classes(self, cells: np.ndarray) -> np.ndarray:
        """int64 (rows, columns): each cell's class, -1 for pixels that are not the atlas's."""
        known, _ = self._class_of
        raw, size = cells.tobytes(), cells.shape[2] * cells.shape[3]
        found = (known.get(raw[at : at + size], -1) for at in range(0, len(raw), size))
        return np.fromiter(found, np.int64, cells.shape[0] * cells.shape[1]).reshape(cells.shape[:2])

    @cached_property
    def _narrow_codes(self) -> np.ndarray:
        """uint32 (cells + 1): the character of a class that can only be narrow, 0 for all others and for class -1."""
        narrow, wide, _ = self._names
        codes = np.zeros(len(self._atlas.gray) + 1, np.uint32)
        for number, character in narrow.items():
            codes[number] = ord(character) if character else 0
        for left, right in wide:
            if left in narrow and right in narrow:
                codes[left] = 0
        return codes

    def _read_row(self, row: np.ndarray, classes: list[int]) -> str:
        narrow, wide, _ = self._names
        classes = [*classes, -1]
        parts: list[str] = []
        at = 0
        while at < len(row):
            text, taken = wide.get((classes[at], classes[at + 1])), 2
            if text is None:
                text, taken = narrow.get(classes[at]), 1
            if text is None:
                text, taken = self._read_rare(row[at : at + 2])
            parts.append(text)
            at += taken
        return "".join(parts)

    def _read_rare(self, cells: np.ndarray) -> tuple[str, int]:
        """A hex box, or a base with marks over it: its characters and the number of cells, from (1 or 2, h, w)."""
        if len(cells) == 2 and (code := self._read_box(np.concatenate([*cells], axis=1))) is not None:
            return chr(code), 2
        for taken in range(1, len(cells) + 1):
            text = self._read_overlaid(np.concatenate([*cells[:taken]], axis=1).tobytes(), taken)
            if text is not None:
                return text, taken
        return UNREADABLE, 1

    def _read_box(self, pair: np.ndarray) -> int | None:
        """The code point whose box has exactly these pixels (h, 2w), else None."""
        size = self._atlas.font_size
        levels = (255 - pair) // 17
        for count in (4, 6):
            digits = [
                _match_digit(levels[t : t + 5, c : c + 3] == foreground)
                for t, c, foreground in digit_places(size, count)
            ]
            if None in digits:
                continue
            code = int("".join(d for d in digits if d is not None), 16)
            if code < CODES and np.array_equal(hex_box(code, size), pair):
                return code
        return None

    # -- marks ----------------------------------------------------------------------------------------------------

    @lru_cache(maxsize=2)  # noqa: B019  an atlas's reader lives as long as the process
    def _drawings(self, width: int) -> tuple[_Renderings, _Renderings]:
        """Of the characters of this width in cells: the bases by falling foreground, and the marks."""
        atlas = self._atlas
        codes = atlas.codes[(atlas.props[atlas.codes] & WIDTH) == width]
        is_mark = (atlas.props[codes] & MARK) != 0
        bases = codes[~is_mark]
        bases = bases[self._names[2][bases] == bases]

        def renderings(of: np.ndarray) -> _Renderings:
            cells = [(255 - atlas.gray[atlas.first[of] + half]) // 17 for half in range(width)]
            levels = np.concatenate(cells, axis=2).reshape(len(of), -1)
            order = np.lexsort((of, -levels.sum(axis=1, dtype=np.int64)))
            return _Renderings(of[order], levels[order], _inked(levels[order]))

        return renderings(bases), renderings(codes[is_mark])

    @lru_cache(maxsize=65536)  # noqa: B019
    def _read_overlaid(self, pixels: bytes, width: int) -> str | None:
        """Base and one or two marks whose darkest pixels together are these (h, width * w); the darkest base."""
        levels = (255 - np.frombuffer(pixels, np.uint8)) // 17
        bases, marks = (renderings.inside(levels) for renderings in self._drawings(width))
        if not len(marks.codes):
            return None
        order = np.argsort(marks.codes)  # two marks are read in the order of their code points
        codes, foreground = marks.codes[order], marks.levels[order]
        for base, base_ink in zip(bases.codes[:TRIED_BASES].tolist(), bases.levels, strict=False):
            rest = base_ink != levels
            found = _cover(foreground[:, rest], levels[rest])
            if found is not None:
                return chr(base) + "".join(chr(self._names[2][codes[m]]) for m in found)
        return None

    def _tells_apart(self, base: int, marks: tuple[int, ...]) -> bool:
        """Would `base` with `marks` rendered over it be read as just these characters (or their look-alikes)?"""
        atlas, fold = self._atlas, self._names[2]
        width = int(atlas.props[base] & (WIDTH | MARK))
        if any(atlas.props[mark] & WIDTH != width for mark in marks) or atlas.first[base] >= BOX:
            return False
        cells = np.stack(
            [atlas.gray[[atlas.first[code] + half for code in (base, *marks)]].min(axis=0) for half in range(width)]
        )
        return self.read(cells[None])[0] == "".join(chr(fold[code]) for code in (base, *marks))


@dataclass(frozen=True, eq=False)
class _Renderings:
    """`codes` (n), `levels` uint8 (n, pixels) 0..15, `inked` uint64 (words, n): a bit a pixel that has foreground."""

    codes: np.ndarray
    levels: np.ndarray
    inked: np.ndarray

    def inside(self, levels: np.ndarray) -> _Renderings:
        """Those that are nowhere darker than `levels` (pixels). The bits first: they leave a few hundred."""
        outside = ~_inked(levels[None])
        near = np.flatnonzero(~np.logical_or.reduce((self.inked & outside) != 0, axis=0))
        near = near[(self.levels[near] <= levels).all(axis=1)]
        return _Renderings(self.codes[near], self.levels[near], self.inked[:, near])


def _inked(levels: np.ndarray) -> np.ndarray:
    bits = np.packbits(levels != 0, axis=1)
    words = np.zeros((len(bits), -(-bits.shape[1] // 8) * 8), np.uint8)
    words[:, : bits.shape[1]] = bits
    return np.ascontiguousarray(words.view(np.uint64).T)


def _cover(marks: np.ndarray, wanted: np.ndarray) -> tuple[int, ...] | None:
    """The first one or two marks (n, pixels) whose maximum is `wanted`; None where there are none."""
    if not np.array_equal(marks.max(axis=0), wanted):
        return None
    single = np.flatnonzero((marks == wanted).all(axis=1))
    if len(single):
        return (int(single[0]),)
    for first in range(len(marks)):
        second = np.flatnonzero((np.maximum(marks[first], marks[first + 1 :]) == wanted).all(axis=1))
        if len(second):
            return first, first + 1 + int(second[0])
    return None


def _match_digit(bits: np.ndarray) -> str | None:
    value = int("".join("1" if bit else "0" for bit in bits.ravel()), 2)
    return f"{DIGITS.index(value):X}" if value in DIGITS else None
