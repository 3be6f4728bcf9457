"""Lines of text out of packed and unpacked files, and the rows of JSON Lines and of JSON lists of objects.

A row is a dictionary of values; a row that cannot be read is a `BadRow`, and the next one follows, as long as it is
certain where the next one begins. Whatever the size of a JSON Lines file, memory holds one line of at most 16 MiB and
what it is parsed to; a JSON list is parsed as a whole, so it has a limit. Cost: the standard library's parsers, some
100 MB/s.
"""

from __future__ import annotations

import codecs
import io
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trm_nb.sources.arc import tasks as arc_tasks
from trm_nb.sources.arc.task_files import MAX_JSON_BYTES
from trm_nb.sources.byte_streams import BLOCK_BYTES, Recoded, RefusedError, lines, open_unpacked
from trm_nb.sources.puzzles.text import QUESTIONS, puzzles_in
from trm_nb.sources.text.decoding import (
    Encoding,
    NotTextError,
    decode,
    decode_stream,
    find_encoding,
    marked_encoding,
    worst,
)

MAX_LINE_BYTES = 16 * 2**20
MAX_VALUES = 10**6  # lists and objects in a line: 16 MiB of brackets would take a gigabyte
MAX_BLANK_LINES = 10**6
MAX_COLUMNS = 10_000
NO_ROWS = "a table without rows"
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
    Lines end in LF or CRLF, or in CR alone where the first one does.
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
        if _ends_in_cr(stream.peek(BLOCK_BYTES)):
            stream = io.BufferedReader(_CrToLf(stream), BLOCK_BYTES)
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


def _ends_in_cr(head: bytes) -> bool:
    """Whether the first line ends in CR alone, as on old Macs (or in CR CR LF, as after a careless conversion)."""
    first = head.find(b"\r")
    return 0 <= first < len(head) - 1 and head[first + 1 : first + 2] != b"\n" and b"\n" not in head[:first]


class _CrToLf(io.RawIOBase):
    """A stream with each CR as LF, so that it can be cut at line ends."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer)).replace(b"\r", b"\n")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def one_more(blank: int) -> int:
    """Count a blank line; raises RefusedError when there are too many."""
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
                    blank = one_more(blank)
                    continue
                number, blank = number + 1, 0
                if line.count("[") + line.count("{") > MAX_VALUES:
                    raise arc_tasks.ArcError(f"more than {MAX_VALUES} lists and objects")
                yield Row(number, arc_tasks.parse_object(line.rstrip(), lists), text.take_encoding())
            except StopIteration:
                return
            except LongLineError as error:
                number += 1
                yield BadRow(number, f"line {place}: {error}")
            except arc_tasks.ArcError as error:
                yield BadRow(number, f"line {place}: {error}")


def json_columns(path: Path, enough: Callable[[Collection[str]], bool] = bool) -> list[str]:
    """The keys of the first 100 rows and, unless these are `enough`, of the next ones until they are.

    Raises RefusedError for a file in which no row can be read, and for more than MAX_COLUMNS keys.
    """
    names: dict[str, None] = {}
    count, known, trouble = 0, -1, ""
    with closing(json_rows(path)) as rows:
        try:
            for count, row in enumerate(rows, 1):
                if isinstance(row, Row):
                    names |= dict.fromkeys(row.values)
                else:
                    trouble = trouble or row.reason
                if len(names) > MAX_COLUMNS:
                    raise RefusedError(f"expected at most {MAX_COLUMNS} columns, got more up to row {row.number}")
                if count >= _LOOK_ROWS and known != (known := len(names)) and enough(names):
                    break
        except RefusedError as refusal:
            if len(names) > MAX_COLUMNS:
                raise
            trouble = trouble or str(refusal)
    if not names and (trouble or not count):
        raise RefusedError(trouble or NO_ROWS)
    return list(names)


def is_json_lines(path: Path, alone: bool) -> bool:
    """Whether a file begins with a line that is a JSON object, and more follows, or it stands `alone`.

    A JSON document of one value is none: nothing can follow its end.
    """
    with closing(json_rows(path)) as rows:
        first = None
        try:
            first = next(rows, None)
            return isinstance(first, Row) and (alone or next(rows, None) is not None)
        except RefusedError:
            return isinstance(first, Row)


# -- lists of objects ------------------------------------------------------------------------------------------------


def json_records(path: Path) -> list[dict[str, Any]] | None:
    """The objects of a JSON file that holds a list of nothing else, or puzzles in an object; None for all others.

    Raises RefusedError for what cannot be read, and for a list above MAX_JSON_BYTES or MAX_VALUES objects.
    """
    with open_unpacked(path) as stream:
        first = stream.peek(1).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
        data = stream.read(MAX_JSON_BYTES + 1) if first in (b"[", b"{") else b""
    if first != b"[" and not any(name.encode() in data.lower() for name in QUESTIONS):
        return None
    advice = "the most that is parsed; split it, or write it as JSON Lines, which are read row by row"
    if len(data) > MAX_JSON_BYTES:
        raise RefusedError(f"JSON larger than {MAX_JSON_BYTES // 2**20} MiB, {advice}")
    if data.count(b"{") > MAX_VALUES:
        raise RefusedError(f"JSON of more than {MAX_VALUES} objects, {advice}")
    try:
        value = arc_tasks.parse(decode(data)[0])
    except (arc_tasks.ArcError, NotTextError):
        return None
    if isinstance(value, dict):
        return puzzles_in(value)
    return value if isinstance(value, list) and value and all(isinstance(row, dict) for row in value) else None


def record_rows(records: list[dict[str, Any]]) -> Iterator[Row | BadRow]:
    """The rows of `json_records`."""
    for number, record in enumerate(records):
        if type(record) is dict:
            yield Row(number, record)
        else:  # as `arc_tasks.parse` marks it
            yield BadRow(number, "a key stands twice")
