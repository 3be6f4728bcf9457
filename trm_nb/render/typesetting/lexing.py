"""Pygments in a process of its own, because some of its lexers take exponential time and only a kill ends them.

Choice: `re` holds the interpreter lock while it matches, so neither a thread nor an exception bounds it. The limit is
on processor time, so that a loaded machine colours the same texts as an idle one, and an order of magnitude above what
lexers take for code that people write. This file is also the program of that process (`python lexing.py`), so it
imports the standard library and Pygments only.
Cost: 0.2 s for the process, once; 0.1 ms a text for the pipes.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import hashlib
import os
import signal
import struct
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO

GUESS_FROM = 4096  # characters from which the language of a text without a name is guessed
SECONDS, SECONDS_A_CHARACTER = 5.0, 50e-6  # of processor time; ordinary code takes 1 to 4 us a character
TRIES = 2  # a process that is killed from outside says nothing about the text
_CLASSES = ("keyword", "string", "comment", "number", "name")
_ROWS = (".jsonl", ".ndjson", ".csv", ".parquet", ".gz", ".zst")  # a table's name says nothing of the texts in it
_PAST_LIMIT = -signal.SIGPROF if hasattr(signal, "SIGPROF") else 1  # its exit status
_REQUEST, _ANSWER = struct.Struct("<dII"), struct.Struct("<?I")  # limit and lengths; whether it worked and a length


class LexingError(Exception):
    """The text cannot be lexed; the message is the reason."""


def suffix_tells(name: str) -> bool:
    """Whether a file's name is meant to tell the language: it has a suffix, and is no table's."""
    return _suffix(name) not in ("", *_ROWS)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def classes_of(text: str, name: str) -> bytes:
    """The token class of each character: 0 plain, else 1 + its place in keyword, string, comment, number, name.

    Args:
        text: what to lex.
        name: its file's name, which decides the language; without a telling suffix it is guessed from the text.

    Raises:
        LexingError: the lexer failed, or took more than SECONDS + SECONDS_A_CHARACTER of processor time a character.
            The same text fails at once the next time.
        KeyboardInterrupt: `stop` was called.
    """
    return _process.classes_of(text, name)


def stop() -> None:
    """End the lexing under way, if there is one: its thread gets KeyboardInterrupt."""
    _process.stop()


# -- in the caller's process -----------------------------------------------------------------------------------------


class _Process:
    """The process that lexes: started at the first text, again after a kill, and ended with this one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._asked = self._stopped = False
        self._failed: dict[bytes, str] = {}

    def classes_of(self, text: str, name: str) -> bytes:
        body, title = (part.encode("utf-8", "surrogatepass") for part in (text, name))
        seconds = SECONDS + SECONDS_A_CHARACTER * len(text)
        request = _REQUEST.pack(seconds, len(title), len(body)) + title + body
        digest = hashlib.sha256(request).digest()
        with self._lock:
            if digest not in self._failed:
                worked, answer = self._tried(request, seconds)
                if worked:
                    return answer
                self._failed[digest] = answer.decode()
            raise LexingError(self._failed[digest])

    def _tried(self, request: bytes, seconds: float) -> tuple[bool, bytes]:
        for _ in range(TRIES):
            try:
                return self._exchanged(request)
            except (BrokenPipeError, EOFError):
                status = self.end()
                if self._stopped:
                    raise KeyboardInterrupt from None
                if status == _PAST_LIMIT:
                    return False, b"its Pygments lexer takes more than %.0f s of processor time" % seconds
            except BaseException:  # Ctrl-C: the answer would be taken for the next one's
                self.end()
                raise
            finally:
                self._asked = False
        return False, b"its Pygments lexer ends its process"

    def _exchanged(self, request: bytes) -> tuple[bool, bytes]:
        self._child = self._child or subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
        )
        self._asked, self._stopped = True, False
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(request)
        self._child.stdin.flush()
        worked, length = _ANSWER.unpack(_read(self._child.stdout, _ANSWER.size))
        return worked, _read(self._child.stdout, length)

    def stop(self) -> None:
        child = self._child
        if self._asked and child is not None:
            self._stopped = True
            child.kill()

    def end(self) -> int:
        """End the process; returns its exit status, 0 where there is none."""
        child, self._child = self._child, None
        if child is None:
            return 0
        if child.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(0.5)  # its pipes close a moment before it has ended
        child.kill()
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):  # what it did not read
                pipe.close()  # type: ignore[union-attr]
        return child.wait()


def _read(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data


_process = _Process()


def _begin_anew() -> None:
    """In a forked process: the other one's child, pipes and lock are not its own."""
    global _process
    _process = _Process()


# -- in the process that lexes ---------------------------------------------------------------------------------------


def _serve() -> None:
    """Answer requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to handle
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a lexer prints is no answer
    while head := requests.read(_REQUEST.size):
        seconds, *lengths = _REQUEST.unpack(head)
        name, text = (requests.read(length).decode("utf-8", "surrogatepass") for length in lengths)
        try:
            worked, answer = True, _lexed(text, name, seconds)
        except Exception as error:
            worked, answer = False, f"its Pygments lexer fails with {type(error).__name__}".encode()
        answers.write(_ANSWER.pack(worked, len(answer)) + answer)
        answers.flush()


def _lexed(text: str, name: str, seconds: float) -> bytes:
    from pygments.lexers import find_lexer_class_for_filename, guess_lexer
    from pygments.util import ClassNotFound

    guessed = not suffix_tells(name)
    if guessed:
        _load_all()
    _set_limit(seconds)
    try:
        lexer = None if _suffix(name) in _ROWS else find_lexer_class_for_filename(name)
        if lexer is None and guessed:
            lexer = type(guess_lexer(text[:GUESS_FROM]))
        found = bytearray(len(text) + 1)
        if lexer is not None:
            for start, kind, value in lexer().get_tokens_unprocessed(text + "\n"):  # some end a token at a line end
                if number := _class_of(kind):
                    found[start : start + len(value)] = bytes([number]) * len(value)
        return bytes(found[: len(text)])
    except ClassNotFound:
        return bytes(len(text))
    finally:
        _set_limit(0)


@lru_cache(maxsize=1)
def _load_all() -> None:
    """Import every lexer, so that the first text whose language is guessed does not pay for it."""
    from pygments.lexers import guess_lexer

    guess_lexer("")


def _set_limit(seconds: float) -> None:
    """End this process after so many seconds of processor time, also inside C code; 0: no longer."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)
    elif seconds:  # Windows counts elapsed time only
        faulthandler.dump_traceback_later(10 * seconds, exit=True, file=sys.stderr)
    else:
        faulthandler.cancel_dump_traceback_later()


@lru_cache(maxsize=1024)
def _class_of(kind: object) -> int:
    from pygments.token import Comment, Keyword, Name, Number, String

    classes = {
        "keyword": (Keyword,),
        "string": (String,),
        "comment": (Comment,),
        "number": (Number, Keyword.Constant),
        "name": (Name.Function, Name.Class, Name.Decorator, Name.Namespace, Name.Tag),
    }
    best = [name for name in _CLASSES if any(kind in parent for parent in classes[name])]
    return _CLASSES.index(best[-1]) + 1 if best else 0


if __name__ == "__main__":
    _serve()
else:
    atexit.register(lambda: _process.end())
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_begin_anew)
