"""The files that a table names: below the table's folder, in whatever spelling the disk has.

A name never leads out of that folder by itself, neither by `..` nor as an absolute path. A link in the folder may,
where the walk over the source follows it, because the author of the source put it there.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

from trm_nb.sources.byte_streams import RefusedError
from trm_nb.sources.files import SourceFile, annexed, leads_up
from trm_nb.sources.roots import Root

_MAX_PATH = 4096  # characters; a longer cell is no path, but perhaps an image in base64


def named_file(table: SourceFile, name: str) -> Path:
    """The file that a table names by its path below the table's folder; raises RefusedError for any other path."""
    folder = table.path.parent
    try:
        path = path_below(name, folder)
        inside = path is not None and (path.resolve().is_relative_to(folder.resolve()) or _is_walked(path, table.root))
    except (OSError, ValueError, RuntimeError):  # too long, a NUL in it, a loop of links
        path, inside = None, False
    if path is not None and (reason := annexed(path)) is not None:
        raise RefusedError(reason)
    if path is None or not inside:
        link = "" if path is None else "; a link out of it is followed where the source path is a folder that holds it"
        raise RefusedError(f"expected a path below the table's folder{link}")
    return path


def _is_walked(path: Path, root: Root | None) -> bool:
    """Whether the walk over a source comes to a file through the folders and links of this path."""
    if root is None or not path.is_relative_to(root.path) or path == root.path:
        return False
    top, parts = root.path.resolve(), path.relative_to(root.path).parts
    folders = [Path(*parts[:count]) for count in range(1, len(parts))]
    return (
        not any(part.startswith(".") for part in parts)
        and root.takes(Path(*parts).as_posix())
        and all(root.enters(folder.as_posix()) for folder in folders)
        and not any(leads_up(link, top) for link in (root.path / f for f in folders) if link.is_symlink())
    )


def path_below(name: str, folder: Path) -> Path | None:
    """The file that a cell names below the table's folder, in the spelling it has on disk; None: it leads elsewhere.

    `/` or Windows' backslash sets folders apart; a name in one Unicode form also finds a file in the other.
    """
    windows = PureWindowsPath(name)
    if not 0 < len(name) <= _MAX_PATH or PurePosixPath(name).is_absolute() or windows.drive or windows.root:
        return None
    if ".." in windows.parts:
        return None
    found = _spelled_on_disk(PurePosixPath(name), folder)
    return found if "\\" not in name or os.path.lexists(found) else _spelled_on_disk(windows, folder)


def _spelled_on_disk(name: PurePath, folder: Path) -> Path:
    for part in name.parts:
        spellings = dict.fromkeys((part, unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part)))
        there = (folder / spelling for spelling in spellings if os.path.lexists(folder / spelling))
        folder = folder / part if len(spellings) == 1 else next(there, folder / part)
    return folder
