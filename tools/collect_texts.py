"""Collect the texts that the shipped encoder is pre-trained on, from Debian's packages and Python's.

    python tools/collect_texts.py WORK outputs/texts.parquet

WORK keeps the packages (`apt-get download`, 220 MB, and 0.8 GB unpacked). Writes one row for each document: `kind`
(`text:LANGUAGE`, `code:LANGUAGE`), `name`, `text` (600 to 20,000 characters, from a random line on) and `held_out`: one
in twenty, by the hash of its name. The choice follows from the files alone. Prints the packages' versions and how many
documents of each kind there are; the licences are in WORK/NAME/usr/share/doc/NAME/copyright.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import random
import re
import sys
import sysconfig
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from collect_photographs import unpack

LONGEST, SHORTEST = 20_000, 600  # characters of a document
HOLD_OUT = 20
LANGUAGES = (
    "ar", "fa", "el", "ru", "uk", "ja", "zh", "ko", "de", "fr", "es", "pl", "cs", "vi", "tr", "he", "hi", "it", "sv",
    "hu", "ta", "te", "en",
)  # fmt: skip
MANUALS = ("el", "ru", "uk", "ja", "zh", "de", "fr", "es", "pl", "tr", "it")  # have manual pages in their own package
HANDBOOK = "debian-handbook/usr/share/doc/debian-handbook/html"
HELP = "gnome-user-docs/usr/share/help"
INSTALLATION = "installation-guide-amd64/usr/share/doc/installation-guide-amd64"
BOOKS, MANUAL, CODE = 350, 250, 500  # documents of a kind at most: of a language's books, of its manual, of code
SOURCES = (  # kind, package, end of the files' names, and documents at most
    ("code:go", "golang-1.19-src", ".go", CODE),
    ("code:c", "golang-1.19-src", ".c", CODE),
    ("code:rust", "rust-src", ".rs", CODE),
    ("code:cpp", "libboost1.74-dev", ".hpp", CODE),
    ("code:c", "libc6-dev", ".h", CODE),
    ("code:js", "libjs-three", ".js", CODE),
    ("code:ruby", "libruby3.1", ".rb", CODE),
    ("code:perl", "perl-modules-5.36", ".pm", CODE),
    ("code:matlab", "octave-common", ".m", CODE),
    ("code:php", "php-doctrine-orm", ".php", CODE),
    ("code:php", "php-symfony-dependency-injection", ".php", CODE),
    ("code:lisp", "emacs-el", ".el.gz", 400),
    ("code:html", "sqlite3-doc", ".html", 150),
)
PYTHON = (
    "sympy", "networkx", "sklearn", "scipy", "skimage", "matplotlib", "pandas", "torch", "notebook", "dask",
    "distributed", "IPython",
)  # fmt: skip
PYTHON_MOST = 900
JAVA, JAVA_MOST = "openjdk-17-source", 500
SILENT = re.compile(r"<(script|style|head)\b.*?</\1>|<!--.*?-->", re.DOTALL | re.IGNORECASE)
LINE_END = re.compile(r"</(p|h\d|li|div|dt|dd|tr|title|pre)>|<br */?>")


@dataclass(frozen=True, slots=True)
class Document:
    """A row of the file."""

    kind: str
    name: str
    text: str


def main() -> None:
    """Write the second path given, with the first as the place to work."""
    work, out = (Path(name) for name in sys.argv[1:])
    for package in packages():
        unpack(work, package)
    documents = [*texts(work), *code(work), *python(), *java(work)]
    for kind, count in sorted(Counter(document.kind for document in documents).items()):
        print(kind, count)
    columns = {name: [getattr(document, name) for document in documents] for name in ("kind", "name", "text")}
    held_out = [is_held_out(document.name) for document in documents]
    out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**columns, "held_out": held_out}), out, compression="zstd")


def packages() -> list[str]:
    """All packages that are needed."""
    books = [path.partition("/")[0] for path in (HANDBOOK, HELP, INSTALLATION)]
    manuals = ["manpages-dev", *(f"manpages-{language}" for language in MANUALS)]
    return [*books, *manuals, *dict.fromkeys(package for _, package, *_ in SOURCES), JAVA]


def is_held_out(name: str) -> bool:
    """Whether the document of this name is one of those that are never trained on."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % HOLD_OUT == 0


def texts(work: Path) -> Iterator[Document]:
    """Books, help and manual pages of each language."""
    for language in LANGUAGES:
        books = [
            *_pages(work / HANDBOOK, language, ".html"),
            *_pages(work / HELP, language, ".page"),
            *_pages(work / INSTALLATION, language, ".html"),
        ]
        yield from chosen(f"text:{language}", work, books, plain_of_html, BOOKS)
        if language in MANUALS:
            pages = (work / f"manpages-{language}/usr/share/man").rglob("*.gz")
            yield from chosen(f"text:{language}", work, pages, plain_of_manual, MANUAL)
    yield from chosen("text:en", work, (work / "manpages-dev").rglob("*.gz"), plain_of_manual, CODE)


def _pages(folder: Path, language: str, suffix: str) -> Iterator[Path]:
    """Files of a folder that has one for each language, called `de`, `pt-BR`, `zh_CN` or `C` (English)."""
    for of_language in folder.iterdir():
        name = "en" if of_language.name == "C" else re.split("[-_]", of_language.name)[0]
        if name == language and of_language.is_dir():
            yield from of_language.rglob(f"*{suffix}")


def code(work: Path) -> Iterator[Document]:
    """Source code of the packages."""
    for kind, package, suffix, most in SOURCES:
        yield from chosen(kind, work, (work / package).rglob(f"*{suffix}"), str, most)


def python() -> Iterator[Document]:
    """Source code of this interpreter's site-packages, as far as they are installed."""
    folder = Path(sysconfig.get_path("purelib"))
    files = [path for name in PYTHON for path in (folder / name).rglob("*.py")]
    yield from chosen("code:python", folder, files, str, PYTHON_MOST)


def java(work: Path) -> Iterator[Document]:
    """Java's own classes, from the archive in their package, without the licence at the top."""
    archive = next(path for path in sorted((work / JAVA).rglob("*.zip")) if path.is_file())
    with zipfile.ZipFile(archive) as opened:
        names = sorted(name for name in opened.namelist() if re.match(r"java\.base/java.*\.java$", name))
        random.Random(0).shuffle(names)
        for name in names[:JAVA_MOST]:
            text = opened.read(name).decode("utf-8")
            text = text[text.find("package ") :]
            if len(text) > SHORTEST:
                yield Document("code:java", name, text[:LONGEST])


def chosen(
    kind: str, folder: Path, files: Iterable[Path], plain_of: Callable[[str], str], most: int
) -> Iterator[Document]:
    """At most so many documents of the files below `folder`; those that are too short or not UTF-8 are left out."""
    ordered = sorted(path for path in files if path.is_file())
    random.Random(kind).shuffle(ordered)
    count = 0
    for path in ordered:
        try:
            text = plain_of(read(path))
        except (UnicodeDecodeError, OSError, EOFError):
            continue
        if len(text) >= SHORTEST and count < most:
            name = str(path.relative_to(folder))
            yield Document(kind, name, part_of(text, name))
            count += 1


def read(path: Path) -> str:
    """A file as text, unpacked where it is compressed."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")


def part_of(text: str, name: str) -> str:
    """A long text from a random line on, which follows from its name."""
    if len(text) <= LONGEST:
        return text
    start = text.find("\n", random.Random(name).randrange(len(text) - LONGEST)) + 1
    return text[start : start + LONGEST]


def plain_of_html(page: str) -> str:
    """The text of a page of HTML, or of Mallard, line by line."""
    text = re.sub(r"<[^>]+>", "", LINE_END.sub("\n", SILENT.sub("", page)))
    return fewer_blank_lines("\n".join(" ".join(line.split()) for line in html.unescape(text).split("\n")))


def plain_of_manual(page: str) -> str:
    """The text of a manual page in roff, without its requests and escapes."""
    lines = [line for line in page.split("\n") if not line.startswith(("'\\\"", '.\\"', ".."))]
    text = re.sub(r"(?m)^\.[A-Za-z]+ ?", "", "\n".join(lines))
    return fewer_blank_lines(re.sub(r"\\f.|\\&", "", text).replace("\\-", "-").replace("\\", ""))


def fewer_blank_lines(text: str) -> str:
    """No two blank lines after each other."""
    return re.sub(r"\n{3,}", "\n\n", text)


if __name__ == "__main__":
    main()
