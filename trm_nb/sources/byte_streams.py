"""The bytes of files that nobody vouches for: opened safely, hashed, unpacked and cut into lines, all within limits.

Memory never follows from a file's size: whoever reads here holds a block, or a line up to its limit. Only a regular
file is opened, so nothing waits for a FIFO. Unpacking (pyarrow: gzip, zstd) stops at a bomb: texts of some size pack to
a tenth, logs to a hundredth, and what goes below a two-hundredth is meant to fill a disk.
"""

from __future__ import annotations

import codecs
import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trm_nb.sources.foreign_formats import is_avif

BLOCK_BYTES = 2**20
UNPACKED_BYTES = 2**16  # unpacked at once, and lost where the packing is damaged
UNPACKED_FREELY = 256 * 2**20  # whatever the ratio
MAX_RATIO = 200
GIVE_UP_BYTES = 2**30  # without the end of a line
PACKED = {".gz": "gzip", ".zst": "zstd"}
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class RefusedError(Exception):
    """Why a file, or the rest of one, cannot be used; becomes its Rejected."""


def why(error: OSError) -> str:
    """An operating system's error as part of a sentence, without the path."""
    if error.errno == errno.ENOENT:
        return "it leads nowhere"  # its folder named it, so it is a link, or was deleted a moment ago
    return (error.strerror or type(error).__name__).lower()


def kind(mode: int) -> str:
    """What a thing that is no regular file is, by its `st_mode`."""
    kinds = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFBLK: "device", stat.S_IFCHR: "device"}
    return {**kinds, stat.S_IFDIR: "folder"}.get(stat.S_IFMT(mode), "special file")


def open_file(path: Path) -> io.BufferedReader:
    """A regular file, opened for reading; raises RefusedError for anything else, also what became it just now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            os.close(descriptor)
            raise RefusedError(f"not a file but a {kind(mode)}")
        return os.fdopen(descriptor, "rb")
    except OSError as error:
        raise RefusedError(f"cannot be read: {why(error)}") from None


def read_up_to(file: io.BufferedReader, count: int) -> bytes:
    """The next `count` bytes, fewer at the end; raises RefusedError when the disk fails."""
    try:
        return file.read(count)
    except OSError as error:
        raise RefusedError(f"cannot be read: {why(error)}") from None


def blocks(file: io.BufferedReader) -> Iterator[bytes]:
    """The rest of a file in blocks of BLOCK_BYTES; raises RefusedError when the disk fails."""
    while block := read_up_to(file, BLOCK_BYTES):
        yield block


def sha256_of_rest(file: io.BufferedReader, head: bytes = b"") -> str:
    """The sha256 of `head` and of what comes after it in the file, in hexadecimal."""
    digest = hashlib.sha256(head)
    for block in blocks(file):
        digest.update(block)
    return digest.hexdigest()


def stamp(file: io.BufferedReader) -> tuple[int, ...]:
    """What changes when somebody writes to an open file, or puts another in its place."""
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def is_image(head: bytes) -> bool | None:
    """By the first bytes: yes, no, or None for letters that prose may begin with too (GIF89a, RIFF, BM)."""
    if head.startswith(_MAGIC) or is_avif(head):
        return True
    letters = (
        head.startswith((b"GIF87a", b"GIF89a"))
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[:2] == b"BM" and head[6:10] == bytes(4))
    )
    return None if letters else False


def open_unpacked(path: Path) -> io.BufferedReader:
    """The file's content, unpacked where it ends in .gz or .zst; reading raises RefusedError for damage or a bomb."""
    file = open_file(path)
    packing = PACKED.get(path.suffix.lower())
    if packing is None:
        return file
    size = os.fstat(file.fileno()).st_size
    import pyarrow as pa

    try:
        source = pa.input_stream(file, compression=packing)
    except (pa.ArrowException, OSError) as error:
        file.close()
        raise RefusedError(f"not {packing}: {error}") from None
    return io.BufferedReader(_Unpacked(source, size, packing), UNPACKED_BYTES)


class _Unpacked(io.RawIOBase):
    """pyarrow's unpacking as a raw stream, with its limit."""

    def __init__(self, source: Any, packed_bytes: int, packing: str) -> None:
        self._source, self._packing = source, packing
        self._packed_bytes = packed_bytes
        self._left = max(UNPACKED_FREELY, packed_bytes * MAX_RATIO)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        import pyarrow as pa

        try:
            data = self._source.read(len(buffer))
        except (pa.ArrowException, OSError, EOFError) as error:
            raise RefusedError(f"damaged {self._packing}: {str(error).splitlines()[0]}") from None
        self._left -= len(data)
        if self._left < 0:
            raise RefusedError(
                f"a decompression bomb: {self._packed_bytes} bytes of {self._packing} hold more than "
                f"{MAX_RATIO} times as many"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._source.close()
        super().close()


class Recoded(io.RawIOBase):
    """A stream in another encoding as UTF-8, so that it can be cut at line ends; what is no character is escaped."""

    def __init__(self, stream: io.BufferedReader, codec: str) -> None:
        self._stream, self._rest, self._ended = stream, b"", False
        self._decoder = codecs.getincrementaldecoder(codec)("backslashreplace")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest and not self._ended:
            block = self._stream.read(BLOCK_BYTES)
            self._ended = not block
            self._rest = self._decoder.decode(block, self._ended).encode("utf-8", "surrogatepass")
        data, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def lines(stream: io.BufferedReader, limit: int) -> Iterator[bytes | None]:
    """The lines of a stream with their line ends; None for one of more than `limit` bytes, which is passed over.

    Raises RefusedError where no line ends within GIVE_UP_BYTES, and for what reading raises.
    """
    while line := _readline(stream, limit + 1):
        if len(line) <= limit:
            yield line
            continue
        passed = len(line)
        while not line.endswith(b"\n") and (line := _readline(stream, BLOCK_BYTES)):
            passed += len(line)
            if passed > GIVE_UP_BYTES:
                raise RefusedError(f"no line ends within {GIVE_UP_BYTES // 2**20} MiB")
        yield None


def _readline(stream: io.BufferedReader, limit: int) -> bytes:
    try:
        return stream.readline(limit)
    except OSError as error:
        raise RefusedError(f"cannot be read: {why(error)}") from None
