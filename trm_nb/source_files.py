"""Which files a run's sources hold, in an order that depends on nothing but their names.

The walk is sorted by the bytes of the posix path, whatever the locale and the file system, and keeps one folder's
names a level in memory. It follows a link to a folder once and never in a circle, and it leaves hidden names out.
Whatever is no readable file (a FIFO, a broken link) is listed with its refusal: nothing vanishes in silence.
"""

from __future__ import annotations

import difflib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trm_nb.records import Rejected, UserError


@dataclass(frozen=True, slots=True)
class Skipped:
    """What was left out on purpose (a hidden file, a modality that is switched off), and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source, not yet opened.

    `name` begins the ids of its items: the source folder's name and the posix path under it, printable and unique in
    a run. `label` is the first folder under the source, or the source's own name. `source` counts the source paths
    from 0. `refusal` says why the file will not be opened (hidden, a broken link, a FIFO); None: it will be.
    """

    path: Path
    name: str
    label: str
    source: int
    size: int = 0
    mtime_ns: int = 0
    refusal: Rejected | Skipped | None = None


@dataclass(frozen=True, slots=True)
class _Root:
    given: str
    path: Path
    name: str
    label: str
    number: int


class _RefusedError(Exception):
    """Why a link is not followed; becomes its Rejected."""


def list_source_files(source_paths: list[str]) -> Iterator[SourceFile]:
    """All files of the sources, sources in their order, then by the bytes of the posix path.

    Raises UserError before the first file for a path that is missing and for a folder without files.
    """
    roots = _roots(source_paths)
    for root in roots:
        if all(isinstance(file.refusal, Skipped) for file in _walk(root)):
            raise UserError(
                f"source path {root.given!r}: expected files in it, found none that is not hidden; add some"
            )
    return (file for root in roots for file in _walk(root))


def printable(name: str, also: str = "\\#") -> str:
    """`name` with backslash escapes for what a terminal, SQLite or UTF-8 cannot take, and for the characters `also`.

    Two names never become one, and the `#` that sets a task or a page apart is the only one in an id.
    """
    return "".join(c if c.isprintable() and c not in also else _escape(c) for c in name)


def why(error: OSError) -> str:
    """An operating system's error as part of a sentence, without the path."""
    if error.errno == errno.ENOENT:
        return "it leads nowhere"  # its folder named it, so it is a link, or was deleted a moment ago
    return (error.strerror or type(error).__name__).lower()


def kind(mode: int) -> str:
    """What a thing that is no regular file is, by its `st_mode`."""
    kinds = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFBLK: "device", stat.S_IFCHR: "device"}
    return kinds.get(stat.S_IFMT(mode), "special file")


def _escape(character: str) -> str:
    if character.isascii():
        return f"\\x{ord(character):02x}" if character != "\\" else "\\\\"
    return character.encode("unicode_escape").decode("ascii")


def _roots(given: list[str]) -> list[_Root]:
    roots: list[_Root] = []
    taken: set[str] = set()
    for number, text in enumerate(given):
        # abspath, not resolve: a link keeps its own name; expanduser of os, as pathlib's raises where there is no home
        path = Path(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111
        try:
            folder = path if stat.S_ISDIR(path.stat().st_mode) else path.parent
        except OSError as error:
            raise UserError(_missing(text, path, error)) from None
        label = name = printable(folder.name) or "root"
        copy = 2
        while name in taken:
            name, copy = f"{label}~{copy}", copy + 1
        taken.add(name)
        roots.append(_Root(text, path, name, label, number))
    return roots


def _missing(given: str, path: Path, error: OSError) -> str:
    if path.is_symlink() or not isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"source path {given!r} cannot be opened: {why(error)} ({path})"
    folder = next(parent for parent in path.parents if parent.is_dir())
    missing = path.relative_to(folder).parts[0]
    near = difflib.get_close_matches(missing, sorted(os.listdir(folder)), n=1)  # noqa: PTH208 - names only
    hint = f"did you mean {near[0]!r}?" if near else "check the path, and the folder it is relative to"
    return f"source path {given!r} does not exist: no {missing!r} in {folder}; {hint}"


def _walk(root: _Root) -> Iterator[SourceFile]:
    seen = {root.path.resolve()}
    stack = [
        ""
    ]  # posix paths under the root, the next one last; no recursion, as folders nest deeper than Python's stack
    while stack:
        relative = stack.pop()
        path = root.path / relative if relative else root.path
        if relative.rpartition("/")[2].startswith("."):
            yield _source_file(root, relative, skipped="hidden: its name begins with a dot")
            continue
        try:
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                if relative and path.is_symlink():
                    _follow(path, seen, root.path.resolve())
                stack.extend(f"{relative}/{name}" if relative else name for name in reversed(_names(path)))
            elif stat.S_ISREG(status.st_mode):
                yield _source_file(root, relative, status)
            else:
                yield _source_file(root, relative, rejected=f"not a file but a {kind(status.st_mode)}")
        except OSError as error:
            yield _source_file(root, relative, rejected=f"cannot be opened: {why(error)}")
        except _RefusedError as refusal:
            yield _source_file(root, relative, rejected=str(refusal))


def _follow(link: Path, seen: set[Path], top: Path) -> None:
    """Note the folder a link leads to, or refuse it: every folder is entered once by a link, so loops end."""
    target = link.resolve()
    if link.parent.resolve().is_relative_to(target) or top.is_relative_to(target):
        raise _RefusedError("a link to a folder it lies in")
    for folder in (target, *target.parents):
        if folder in seen and not any(part.startswith(".") for part in target.relative_to(folder).parts):
            raise _RefusedError("a link to a folder that is read without it")
    seen.add(target)


def _names(folder: Path) -> list[str]:
    """A folder's names in the order that the bytes of whole posix paths have: `a.b` comes before `a/`."""

    def key(entry: os.DirEntry[str]) -> bytes:
        try:
            return os.fsencode(entry.name) + (b"/" if entry.is_dir() else b"")
        except OSError:  # a link to itself
            return os.fsencode(entry.name)

    with os.scandir(folder) as entries:
        return [entry.name for entry in sorted(entries, key=key)]


def _source_file(
    root: _Root, relative: str, status: os.stat_result | None = None, rejected: str = "", skipped: str = ""
) -> SourceFile:
    inner = relative or root.path.name
    path = root.path / relative if relative else root.path
    name = f"{root.name}/{printable(inner)}"
    label = printable(inner.partition("/")[0]) if "/" in inner else root.label
    refusal = Rejected(name, rejected) if rejected else Skipped(name, skipped) if skipped else None
    size, mtime_ns = (status.st_size, status.st_mtime_ns) if status else (0, 0)
    return SourceFile(path, name, label, root.number, size, mtime_ns, refusal)
