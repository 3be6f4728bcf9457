"""Which files a run's sources hold, in an order that depends on nothing but their names.

The walk is sorted by the bytes of the posix path, whatever the locale and the file system, and keeps one folder's
names a level in memory. It follows a link to a folder once and never in a circle, and it leaves hidden names out.
Whatever is no readable file (a FIFO, a broken link) is listed with its refusal: nothing vanishes in silence.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError
from trm_nb.records import Modality, Rejected
from trm_nb.sources.byte_streams import RefusedError, kind, why
from trm_nb.sources.puzzles.generated import Generated
from trm_nb.sources.roots import Root, file_name, find_roots


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
    from 0. `refusal` says why the file will not be opened (hidden, a broken link, a FIFO); None: it will be. `part`
    begins the ids of the tasks to take from a file of many ("": all). `generated` is no file but puzzles to be made.
    `root` is the source that was walked; None: the file was not found by a walk.
    """

    path: Path
    name: str
    label: str
    source: int
    size: int = 0
    mtime_ns: int = 0
    refusal: Rejected | Skipped | None = None
    part: str = ""
    generated: Generated | None = None
    root: Root | None = None


def list_source_files(source_paths: list[str]) -> Iterator[SourceFile]:
    """All files of the sources, sources in their order, then by the bytes of the posix path.

    Raises UserError before the first file for a path that is missing, a folder without files, and a glob that matches
    none.
    """
    roots = find_roots(source_paths)
    for root in roots:
        if all(isinstance(file.refusal, Skipped) for file in _walk(root)):
            raise UserError(_no_files(root))
    return (file for root in roots for file in _walk(root))


def _no_files(root: Root) -> str:
    if root.pattern is None:
        return f"source path {root.given!r}: expected files in it, found none that is not hidden; add some"
    return (
        f"source path {root.given!r}: no file below {root.path} matches {'/'.join(root.pattern)!r}; "
        "a glob matches files that are not hidden, and ** any folders"
    )


_LEFT_OUT = (  # a modality without a field here is always included
    ("image", "include_images", "images are"),
    ("grid", "include_grids", "grids are"),
    ("text", "include_text", "text is"),
    ("text", "render_text_to_image", "text is"),
)


def left_out(modality: Modality, config: MultimodalDatasetConfig) -> str | None:
    """Why the config leaves a modality out; None where it does not."""
    for name, field, what in _LEFT_OUT:
        if name == modality and not getattr(config, field):
            return f"{what} left out: {field} is false"
    return None


def _walk(root: Root) -> Iterator[SourceFile]:
    if root.generated:
        yield SourceFile(root.path, root.name, root.label, root.number, generated=root.generated)
        return
    seen = {root.path.resolve()}
    stack = [
        ""
    ]  # posix paths under the root, the next one last; no recursion, as folders nest deeper than Python's stack
    while stack:
        relative = stack.pop()
        path = root.path / relative if relative else root.path
        if relative and not (root.takes(relative) or root.enters(relative)):
            continue
        if relative.rpartition("/")[2].startswith("."):
            yield _source_file(root, relative, skipped="hidden: its name begins with a dot")
            continue
        status = None
        try:
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                if relative and not root.enters(relative):
                    continue
                if relative and path.is_symlink():
                    _follow(path, seen, root)
                stack.extend(f"{relative}/{name}" if relative else name for name in reversed(_names(path)))
            elif not root.takes(relative):
                continue
            elif stat.S_ISREG(status.st_mode):
                yield _source_file(root, relative, status)
            else:
                yield _source_file(root, relative, rejected=f"not a file but a {kind(status.st_mode)}")
        except OSError as error:
            if status is not None or root.takes(relative):  # a glob has no use for a broken link of another name
                yield _source_file(root, relative, rejected=annexed(path) or f"cannot be opened: {why(error)}")
        except RefusedError as refusal:
            yield _source_file(root, relative, rejected=str(refusal))


def _follow(link: Path, seen: set[Path], root: Root) -> None:
    """Note the folder a link leads to, or refuse it: every folder is entered once by a link, so loops end."""
    target, top = link.resolve(), root.path.resolve()
    if leads_up(link, top):
        raise RefusedError("a link to a folder it lies in")
    for folder in (target, *target.parents):
        way = target.relative_to(folder)
        if folder == top and not root.enters(way.as_posix()):
            continue  # a glob passes it by
        if folder in seen and not any(part.startswith(".") for part in way.parts):
            raise RefusedError("a link to a folder that is read without it")
    seen.add(target)


def leads_up(link: Path, top: Path) -> bool:
    """Whether a link leads to a folder that it lies in, or that holds the folder `top` where the walk begins."""
    target = link.resolve()
    return link.parent.resolve().is_relative_to(target) or top.is_relative_to(target)


def annexed(path: Path) -> str | None:
    """What to do about a broken link of git-annex; None for any other path."""
    try:
        is_annexed = path.is_symlink() and not path.exists() and "/annex/objects/" in path.readlink().as_posix()
    except (OSError, ValueError):
        return None
    return "a git-annex link whose file is not here: run `git annex get` in the repository" if is_annexed else None


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
    root: Root, relative: str, status: os.stat_result | None = None, rejected: str = "", skipped: str = ""
) -> SourceFile:
    inner = relative or root.path.name
    path = root.path / relative if relative else root.path
    name = f"{root.name}/{file_name(inner)}"
    label = file_name(inner.partition("/")[0]) if "/" in inner else root.label
    refusal = Rejected(name, rejected) if rejected else Skipped(name, skipped) if skipped else None
    size, mtime_ns = (status.st_size, status.st_mtime_ns) if status else (0, 0)
    return SourceFile(path, name, label, root.number, size, mtime_ns, refusal, root.part, root=root)
