"""Bytes to text: strict UTF-8; else by a byte order mark; else by the likely encoding; else with visible escapes.

A byte that the encoding does not know becomes `\\x9f`, four visible characters: nothing is dropped, nothing becomes a
question mark. Text that is UTF-8 but for some damage stays UTF-8, with escapes, as any other reading would turn all of
its letters into others. What was not plain UTF-8 carries the name of its encoding, so that it can be counted and
judged: a guess from a few bytes can be wrong. The decision depends on nothing but the bytes.
Cost: plain UTF-8 is decoded at memory's speed; the guess reads 32 KiB at most, in some tens of milliseconds.
A stream is read twice, for the decision and for the text; memory stays at one piece of it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from trm_nb.sources.text.legacy_encodings import likely_encoding

MAX_LINE = 8 * 2**20  # characters of a line that is not cut: laying it out takes 60 bytes for each
SAMPLE_BYTES = 32 * 1024
_WINDOW = 2048  # bytes of the sample taken at one place
_MARKS = (  # the mark of UTF-32 begins with that of UTF-16, so it comes first
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
_DECLARED = re.compile(rb"(?:coding|charset|encoding)[ \t]*[:=][ \t]*[\"']?([-\w.]{3,20})")
_DECLARABLE = re.compile(r"(cp|koi8_|iso8859_|mac_|euc_|shift_jis|gb|big5|johab|tis_620|kz1048|ptcp154|hp_roman8).*")
_HIGH = re.compile(rb"[\x80-\xff]")
_SURROGATE = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")  # half an emoji, as some programs write it in UTF-8
_NOT_LEADING = bytes(range(0xC0))  # all but the bytes that begin a character of several bytes in UTF-8


class NotTextError(ValueError):
    """The bytes are no text. The message says what they are."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a file's bytes become text: a Python codec, after `mark` bytes of byte order mark."""

    codec: str = "utf-8"
    mark: int = 0

    def name(self, escaped: bool) -> str | None:
        """What a text decoded with it carries: None for plain UTF-8, and whether it holds escapes."""
        if escaped:
            return f"{self.codec} with escapes"
        return None if self.codec == "utf-8" else self.codec


def marked_encoding(head: bytes) -> Encoding | None:
    """The encoding that a file's first four bytes tell by a byte order mark; None where there is none."""
    return next((Encoding(codec, len(mark)) for mark, codec in _MARKS if head.startswith(mark)), None)


def decode(data: bytes) -> tuple[str, str | None]:
    """A whole file's text, and the name of its encoding (None: UTF-8). Raises NotTextError for binary data."""
    nul = data.find(0)
    if nul < 0:
        try:
            return data.removeprefix(codecs.BOM_UTF8).decode("utf-8"), None
        except UnicodeDecodeError:
            pass
    encoding = find_encoding([data])
    return next(decode_stream([data], encoding), ("", None))


def find_encoding(chunks: Iterable[bytes], letters: int = 0) -> Encoding:
    """The encoding of a stream of bytes, from all of it. Raises NotTextError for binary data: NUL without a mark.

    `letters` counts characters that were found to be UTF-8 before this stream.
    """
    survey: _Survey | None = None
    for chunk in chunks:
        survey = survey or _Survey(chunk, letters)
        survey.add(chunk)
    return survey.encoding() if survey else Encoding()


def decode_stream(
    chunks: Iterable[bytes], encoding: Encoding, escape: str = "backslashreplace"
) -> Iterator[tuple[str, str | None]]:
    """The text of a stream, a part for each chunk of bytes, each with the name of its encoding (see `decode`).

    `escape` is the codecs error handler that writes the escapes.
    """
    decoder = codecs.getincrementaldecoder(encoding.codec)()
    skip = encoding.mark
    last: bytes | None = None
    for chunk in chunks:
        if last is not None:
            yield _decode(decoder, last, False, encoding, escape)
        last, skip = chunk[skip:], max(0, skip - len(chunk))
    if last is not None:
        yield _decode(decoder, last, True, encoding, escape)


def text_parts(chunks: Iterable[bytes], encoding: Encoding, size: int) -> Iterator[tuple[str, str | None]]:
    """A long text in parts of at most `size` characters, cut behind line ends; joined they are the text.

    A line longer than `size` is a part of its own. Only a line longer than MAX_LINE is cut within, behind a blank where
    it has one: then a letter may be separated from a combining mark, and the line does not come back from the pixels.
    """
    held, names = "", set[str]()
    for text, name in decode_stream(chunks, encoding):
        held += text
        names |= {name} if name else set()
        while cut := _cut(held, size):
            yield held[:cut], worst(names)
            held, names = held[cut:], {name} if name else set()
    if held:
        yield held, worst(names)


def _cut(held: str, size: int) -> int:
    """Where the first part ends, behind a character; 0: not yet known."""
    if len(held) <= size:
        return 0
    cut = held.rfind("\n", 0, size) + 1 or held.rfind("\r", 0, size - 1) + 1 or held.find("\n", size, MAX_LINE) + 1
    if not cut and len(held) > MAX_LINE:
        cut = held.rfind(" ", 0, MAX_LINE) + 1 or MAX_LINE
    return cut


def worst(names: set[str]) -> str | None:
    """Of the encodings of the parts of a text the one to tell: one with escapes where there is one; None: UTF-8."""
    return max(names, key=lambda name: ("escapes" in name, name), default=None)


def _decode(
    decoder: codecs.IncrementalDecoder, chunk: bytes, final: bool, encoding: Encoding, escape: str
) -> tuple[str, str | None]:
    state = decoder.getstate()
    try:
        return decoder.decode(chunk, final), encoding.name(escaped=False)
    except UnicodeDecodeError:
        decoder.setstate(state)
        decoder.errors = escape
        text = decoder.decode(chunk, final)
        decoder.errors = "strict"
        return text, encoding.name(escaped=True)


class _Survey:
    """What one pass over a stream shows about its encoding."""

    def __init__(self, first: bytes, letters: int) -> None:
        marked = marked_encoding(first)
        self._utf8 = marked if marked and marked.codec == "utf-8" else Encoding()
        self._marked = marked if marked != self._utf8 else None
        self._decoder = codecs.getincrementaldecoder((self._marked or self._utf8).codec)("replace")
        self._head = self._last = first[:1024]
        self._place = self._length = self._bad = 0
        self._letters = letters
        self._sample = bytearray()

    def add(self, chunk: bytes) -> None:
        nul = -1 if self._marked else chunk.find(0)
        if nul >= 0:
            raise NotTextError(f"neither text nor an image: binary, with a NUL at byte {self._place + nul}")
        text = self._decoder.decode(chunk)
        replaced = text.count("\ufffd")
        if replaced and not self._marked:
            meant = chunk.count(b"\xef\xbf\xbd")
            replaced = max(0, replaced - meant - 3 * len(_SURROGATE.findall(chunk)))
        if replaced and len(self._sample) < SAMPLE_BYTES:
            _take(chunk, self._sample, whole=self._place == 0)
        self._bad += replaced
        self._length += len(text)
        self._letters += len(chunk.translate(None, _NOT_LEADING))
        self._last = chunk
        self._place += len(chunk)

    def encoding(self) -> Encoding:
        torn = self._decoder.decode(b"", True).count("\ufffd")
        self._bad += torn
        if torn and not self._sample:
            _take(self._last, self._sample, whole=self._place == len(self._last))
        if self._marked:
            if self._bad > 1 + self._length // 50:  # a torn end is one
                raise NotTextError(f"binary: it begins like {self._marked.codec} text and is none")
            return self._marked
        if self._utf8.mark or not self._bad or self._letters - self._bad > self._bad - torn:
            return self._utf8
        declared = _declared(self._head, bytes(self._sample))
        found = declared or likely_encoding(bytes(self._sample))
        return Encoding(found) if found else self._utf8


def _declared(head: bytes, sample: bytes) -> str | None:
    """The encoding that a file names in its first lines, as Python, XML and HTML do, if the sample agrees."""
    match = _DECLARED.search(head)
    try:
        name = codecs.lookup(match[1].decode("ascii")).name.replace("-", "_") if match else ""
        return name if _DECLARABLE.fullmatch(name) and sample.decode(name) else None
    except (LookupError, UnicodeDecodeError):
        return None


def _take(chunk: bytes, sample: bytearray, whole: bool) -> None:
    """Add windows around bytes above 127 to the sample, cut where no character is cut.

    No encoding in use has white space inside a character. Where there is none for a whole window (Chinese without
    line ends), the window ends after an even number of bytes, as nearly all characters there have two.
    """
    place = 0 if whole else min((i for i in (chunk.find(b"\n"), chunk.find(b" ")) if i >= 0), default=0)
    while len(sample) < SAMPLE_BYTES and (match := _HIGH.search(chunk, place)):
        high = match.start()
        start = max(place, chunk.rfind(b"\n", place, high) + 1, high - 200)
        end = min(len(chunk), high + _WINDOW)
        if end < len(chunk):
            cut = max(chunk.rfind(b"\n", high, end), chunk.rfind(b" ", high, end))
            end = cut + 1 if cut > high else end - (end - high) % 2
        sample += chunk[start:end]
        place = end
