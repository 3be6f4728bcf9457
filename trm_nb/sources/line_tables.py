"""The rows of JSON Lines and CSV files, packed or not, one at a time.

A row is a dictionary of values; a row that cannot be read is a `BadRow`, and the next one follows, as long as it is
certain where the next one begins. Whatever the file's size, memory holds one line of 16 MiB at most and what it is
parsed to. Cost: the standard library's parsers, some 100 MB/s.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from trm_nb.sources import arc_json
from trm_nb.sources.byte_streams import BLOCK_BYTES, Recoded, RefusedError, lines, open_unpacked
from trm_nb.sources.text_decoding import Encoding, decode_stream, find_encoding, marked_encoding, worst

MAX_LINE_BYTES = 16 * 2**20
MAX_VALUES = 10**6  # lists and objects in a line: 16 MiB of brackets would take a gigabyte
MAX_BLANK_LINES = 10**6
_LOOK_ROWS = 100
_AHEAD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its number from 0, its values by column, and the encoding of its text (None: UTF-8)."""

    number: int
    values: Mapping[str, Any]
    encoding: str | None = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read, and why."""

    number: int
    reason: str


# -- lines of text ---------------------------------------------------------------------------------------------------


class LongLineError(RefusedError):
    """A line beyond MAX_LINE_BYTES, which was passed over."""


class TextLines:
    """The lines of a stream as text: UTF-8 until a line is not, from there what `find_encoding` makes of the next ones.

    A line that its encoding cannot decode has escapes. `take_encoding` tells what the lines since the last call needed.
    Raises RefusedError for binary data, LongLineError (and goes on) for a line beyond MAX_LINE_BYTES. `escape` is the
    codecs error handler that writes the escapes.
    """

    def __init__(self, stream: io.BufferedReader, escape: str = "backslashreplace") -> None:
        head = stream.peek(4)
        marked = marked_encoding(head) or Encoding()
        nul = head.find(0, 0, 4096)
        if nul >= 0 and marked.codec == "utf-8":
            raise RefusedError(f"no table: binary, with a NUL at byte {nul}")
        stream.read(marked.mark)
        self._plain, self._escape = Encoding(marked.codec), escape
        if marked.codec != "utf-8":
            stream = io.BufferedReader(Recoded(stream, marked.codec), BLOCK_BYTES)
        self._lines, self._ahead = lines(stream, MAX_LINE_BYTES), deque[bytes | None]()
        self._trouble: RefusedError | None = None  # met while looking ahead
        self._found: Encoding | None = None
        self._letters = 0
        self._names: set[str] = set()

    def __iter__(self) -> TextLines:
        return self

    def __next__(self) -> str:
        if not self._ahead and self._trouble is not None:
            raise self._trouble
        line = self._ahead.popleft() if self._ahead else next(self._lines)
        if line is None:
            raise LongLineError(f"a line of more than {MAX_LINE_BYTES // 2**20} MiB")
        if self._found is None:
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError:
                self._found = self._find(line)
            else:
                self._letters += not line.isascii()
                self._note(self._plain.name(escaped=False))
                return text
        text, name = next(decode_stream([line], self._found, self._escape))
        self._note(None if line.isascii() else name)
        return text

    def take_encoding(self) -> str | None:
        """The encoding of the lines since the last call, the one with escapes where there are several."""
        names, self._names = self._names, set()
        return worst(names)

    def _note(self, name: str | None) -> None:
        if name is not None:
            self._names.add(name)

    def _find(self, line: bytes) -> Encoding:
        """By this line and as many of the next as make a sample; they stay to be read."""
        sample = bytearray(line)
        try:
            while len(sample) < _AHEAD_BYTES and (ahead := next(self._lines, b"")) != b"":
                self._ahead.append(ahead)
                sample += ahead or b""
        except RefusedError as trouble:
            self._trouble = trouble
        # A line end before it, as no byte order mark is meant in the middle; no NUL, as it is certain to be text.
        return find_encoding([b"\n" + sample.replace(b"\0", b"")], self._letters)


def _one_more(blank: int) -> int:
    if blank >= MAX_BLANK_LINES:  # they pack to nothing, and each takes a microsecond
        raise RefusedError(f"more than {MAX_BLANK_LINES:,} blank lines in a row; the rest of the file is left out")
    return blank + 1


# -- JSON Lines ------------------------------------------------------------------------------------------------------


def _doubled(error: UnicodeError) -> tuple[str | bytes, int]:
    text, place = codecs.backslashreplace_errors(error)
    return str(text).replace("\\", "\\\\"), place  # as a backslash is written in JSON


codecs.register_error("trm_nb.json", _doubled)


def json_rows(path: Path, lists: bool = False) -> Generator[Row | BadRow, None, None]:
    """The rows; blank lines are none; `lists` are rows too, of one column with an empty name.

    Raises RefusedError where the rest of the file cannot be read.
    """
    with open_unpacked(path) as stream:
        text, number, place, blank = TextLines(stream, "trm_nb.json"), -1, 0, 0
        while True:
            place += 1
            text.take_encoding()
            try:
                line = next(text)
                if not line.strip():
                    blank = _one_more(blank)
                    continue
                number, blank = number + 1, 0
                if line.count("[") + line.count("{") > MAX_VALUES:
                    raise arc_json.ArcError(f"more than {MAX_VALUES} lists and objects")
                yield Row(number, arc_json.parse_object(line.rstrip(), lists), text.take_encoding())
            except StopIteration:
                return
            except LongLineError as error:
                number += 1
                yield BadRow(number, f"line {place}: {error}")
            except arc_json.ArcError as error:
                yield BadRow(number, f"line {place}: {error}")


def json_columns(path: Path) -> list[str]:
    """All keys of the first 100 rows; raises RefusedError for a file in which none of them can be read."""
    names: dict[str, None] = {}
    trouble = ""
    with closing(json_rows(path)) as rows:
        try:
            for row in islice(rows, _LOOK_ROWS):
                if isinstance(row, Row):
                    names |= dict.fromkeys(row.values)
                else:
                    trouble = trouble or row.reason
        except RefusedError as refusal:
            trouble = trouble or str(refusal)
    if trouble and not names:
        raise RefusedError(trouble)
    return list(names)


# -- CSV -------------------------------------------------------------------------------------------------------------


def csv_columns(path: Path) -> list[str]:
    """The first line's cells; raises RefusedError for a file that does not begin like a table."""
    with open_unpacked(path) as stream:
        return _header(_csv_reader(TextLines(stream)))


def _csv_reader(text: TextLines) -> Iterator[list[str]]:
    csv.field_size_limit(MAX_LINE_BYTES)  # the module's own, of all readers of this process, is 128 KiB
    return csv.reader(text, strict=True)


def _header(reader: Iterator[list[str]]) -> list[str]:
    try:
        return next((cells for cells in reader if cells), [])
    except csv.Error as error:
        raise RefusedError(f"its first line is no header of a CSV file: {error}") from None


def csv_rows(path: Path) -> Iterator[Row | BadRow]:
    """The rows; blank lines are none. Raises RefusedError where the rest of the file cannot be read."""
    with open_unpacked(path) as stream:
        text = TextLines(stream)
        reader = _csv_reader(text)
        header, number, blank = _header(reader), -1, 0
        while True:
            text.take_encoding()
            try:
                cells = next(reader)
                if not cells:
                    blank = _one_more(blank)
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
                    raise RefusedError(
                        _LOST.format(number, f"a cell of more than {MAX_LINE_BYTES} characters")
                    ) from None
                yield BadRow(number, f"not CSV: {error}")
            except LongLineError as error:
                raise RefusedError(_LOST.format(number + 1, error)) from None


_LOST = "row {}: {}; where the next row begins is not known, so the rest is left out"
