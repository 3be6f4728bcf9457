"""Standard output that never ends a command.

What the terminal's encoding lacks is escaped, and a reader that goes away (`| head`) ends the output alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO, cast


@contextmanager
def forgiving_output() -> Iterator[None]:
    """Standard output and error take any text while the block runs, and outlive their readers."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        streams = sys.stdout or nowhere, sys.stderr or nowhere  # None: the program was started without (`>&-`)
        for stream in streams:
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        output, errors = map(_Lasting, streams)
        with redirect_stdout(cast(TextIO, output)), redirect_stderr(cast(TextIO, errors)):
            try:
                yield
            finally:
                output.flush()


class _Lasting:
    """A text stream that throws away what it gets once nobody reads it any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._let_go()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._let_go()

    def _let_go(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # also for what is buffered, and for the interpreter's last flush
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
