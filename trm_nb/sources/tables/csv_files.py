"""The rows of CSV files, packed or not, one at a time, as spreadsheets and programs write them.

Cells are separated by commas, semicolons, tabs or vertical bars. Which of them, the file's first 64 KiB decide: the one
that makes at least two columns of the header and puts as many cells into the most rows; `sep=;` in the first line, as
Excel reads it, says so. Spaces behind the separators are left out where the header has them behind each one.
Memory holds one row, of 16 MiB lines and cells at most.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trm_nb.sources.byte_streams import RefusedError, open_unpacked
from trm_nb.sources.tables import lines as line_tables
from trm_nb.sources.tables.lines import NO_ROWS, BadRow, LongLineError, Row, TextLines, one_more

_SEPARATORS = (",", ";", "\t", "|")  # the first one where nothing tells them apart
_ANNOUNCED = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_SAMPLE = 64 * 1024  # characters
_LOST = "row {}: {}; where the next row begins is not known, so the rest is left out"


@dataclass(frozen=True, slots=True)
class _Dialect:
    separator: str = ","
    spaced: bool = False  # a space behind each separator
    announced: bool = False  # in a first line that is no header

    def reader(self, lines: Iterable[str]) -> Iterator[list[str]]:
        csv.field_size_limit(line_tables.MAX_LINE_BYTES)  # the module's own, of all readers here, is 128 KiB
        return csv.reader(lines, delimiter=self.separator, skipinitialspace=self.spaced, strict=True)


def csv_columns(path: Path) -> list[str]:
    """The header's cells; raises RefusedError for a file that does not begin like a table."""
    dialect = _dialect_of(path)
    with open_unpacked(path) as stream:
        return _header(dialect, TextLines(stream))[0]


def csv_rows(path: Path) -> Iterator[Row | BadRow]:
    """The rows; blank lines are none. Raises RefusedError where the rest of the file cannot be read."""
    dialect = _dialect_of(path)
    with open_unpacked(path) as stream:
        text = TextLines(stream)
        header, reader = _header(dialect, text)
        number, blank = -1, 0
        while True:
            text.take_encoding()
            try:
                cells = next(reader)
                if not cells:
                    blank = one_more(blank)
                    continue
                number, blank = number + 1, 0
                if len(cells) == len(header):
                    yield Row(number, dict(zip(header, cells, strict=True)), text.take_encoding())
                else:
                    yield BadRow(number, f"expected {len(header)} cells, as the header has, got {len(cells)}")
            except StopIteration:
                return
            except csv.Error as error:
                number += 1
                if "field larger" in str(error):
                    reason = f"a cell of more than {line_tables.MAX_LINE_BYTES} characters"
                    raise RefusedError(_LOST.format(number, reason)) from None
                yield BadRow(number, f"not CSV: {error}")
            except LongLineError as error:
                raise RefusedError(_LOST.format(number + 1, error)) from None


def _header(dialect: _Dialect, text: TextLines) -> tuple[list[str], Iterator[list[str]]]:
    """The header's cells, and a reader of what comes after it."""
    if dialect.announced:
        next(text)
    reader = dialect.reader(text)
    try:
        cells = next((cells for cells in reader if cells), None)
    except csv.Error as error:
        raise RefusedError(f"its first line is no header of a CSV file: {error}") from None
    if cells is None:
        raise RefusedError(NO_ROWS)
    return cells, reader


def _dialect_of(path: Path) -> _Dialect:
    sample = _first_lines(path)
    if sample and (announced := _ANNOUNCED.fullmatch(sample[0])):
        return _spaced(_Dialect(announced[1], announced=True), sample[1:])
    best, agreed = _Dialect(), (0, 0)
    for separator in _SEPARATORS:
        dialect = _Dialect(separator)
        header, *others = [len(cells) for cells in _cells(dialect, sample)] or [0]
        agreeing = sum(count == header for count in others), header
        if header > 1 and agreeing > agreed:
            best, agreed = dialect, agreeing
    return _spaced(best, sample)


def _spaced(dialect: _Dialect, sample: list[str]) -> _Dialect:
    names = next(_cells(dialect, sample), [])[1:]
    spaced = bool(names) and all(name.startswith(" ") for name in names)
    return _Dialect(dialect.separator, spaced, dialect.announced)


def _first_lines(path: Path) -> list[str]:
    """The lines of the file's first 64 KiB, fewer where it is damaged; raises RefusedError for binary data."""
    sample: list[str] = []
    with open_unpacked(path) as stream:
        text, left = TextLines(stream), _SAMPLE
        try:
            while left > 0:
                sample.append(next(text))
                left -= len(sample[-1])
        except (StopIteration, RefusedError):
            pass
    return sample


def _cells(dialect: _Dialect, sample: list[str]) -> Iterator[list[str]]:
    """The rows of the sample that are not blank; no cells for one that cannot be read."""
    reader = dialect.reader(sample)
    while True:
        try:
            if cells := next(reader):
                yield cells
        except StopIteration:
            return
        except csv.Error:
            yield []
