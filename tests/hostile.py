"""A folder of damaged and hostile files, the same for the same seed: `python tests/hostile.py FOLDER [SEED]`.

Nothing in it is dangerous to keep: bombs are small on disk, and what claims to run is never run. Real images are
truncated, flipped bit by bit and given headers that lie; texts break their encoding; JSON and tables break their rules;
names, links and special files are what a file system allows. `make_corpus` returns the names of all that it made.
"""

from __future__ import annotations

import gzip
import io
import os
import pickle
import random
import stat
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from damage import Named, flipped
from hostile_data import json_files, tables
from hostile_images import MIB, damaged_images, lying_images, real_images


def make_corpus(folder: Path, seed: int = 0) -> list[str]:
    """Make every file under `folder`, which must not exist; returns their posix paths in it (surrogateescape)."""
    made = [name for part in PARTS for name in make_part(folder, part, seed)]
    return made + [f"special/{name}" for name in special_files(folder / "special")]


def make_part(folder: Path, part: Callable[[random.Random], Named], seed: int = 0) -> Iterator[str]:
    """Make the files of one of PARTS in a folder of its name, and name each."""
    for name, data in part(random.Random(f"{seed} {part.__name__}")):
        path = folder / part.__name__ / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        yield f"{part.__name__}/{name}"


def texts(rng: random.Random) -> Named:
    prose = "Příliš žluťoučký kůň, 漢字とかな, שלום, مرحبا, हिन्दी, emoji 👨\u200d👩\u200d👧.\n" * 20
    utf8 = prose.encode()
    yield "half-character.txt", utf8[: utf8.index("漢".encode()) + 2]
    yield from flipped("bits.txt", utf8, rng, 6)
    for codec in ("utf-16", "utf-16-be", "utf-32", "utf-32-le", "utf-7", "gb18030"):
        yield f"{codec}.txt", prose.encode(codec)
    for codec, line in (("latin-1", "déjà vu, garçon"), ("cp1251", "Привет, мир"), ("shift_jis", "こんにちは世界"),
                        ("euc_kr", "안녕하세요 세계"), ("big5", "你好，世界"), ("cp500", "EBCDIC text"),
                        ("cp037", "more EBCDIC")):  # fmt: skip
        yield f"{codec}.txt", (line + "\n").encode(codec) * 50
    yield "continuation.txt", b"a\x80b\xbfc\x80\x80\n" * 100
    yield "overlong.txt", b"\xc0\xaf\xe0\x80\xaf\xf0\x80\x80\xaf" * 50
    yield "surrogates.txt", b"\xed\xa0\x80\xed\xbf\xbf" * 50
    yield "above-unicode.txt", b"\xf4\x90\x80\x80\xf8\x88\x80\x80\x80" * 50
    yield "nul.txt", b"before\0after\n" * 30
    yield "only-nul.txt", bytes(4096)
    yield "bom-alone.txt", b"\xef\xbb\xbf"
    yield "bom-then-broken.txt", b"\xef\xbb\xbf\xff\xfeabc"
    yield "empty.txt", b""
    yield "blank.txt", b" \t\r\n\x0b\x0c" * 2000
    yield "random.txt", rng.randbytes(100_000)
    yield "random", rng.randbytes(5000)
    yield "controls.txt", bytes(range(1, 32)) * 50
    yield "terminal.txt", b"\x1b[2J\x1b]0;owned\x07\x1b[31mred\x1b[0m\x9b31m" * 50
    yield "20000-marks.txt", ("e" + "\u0301" * 20_000).encode()
    yield "disordered-marks.txt", ("e" + "\u0301\u0323" * 40_000).encode()
    yield "growing.txt", ("\U0001d160\u0344\ufb2c" * 10_000).encode()
    yield "overrides.txt", ("\u202e" * 2000 + "exe.txt" + "\u202c" * 2000 + "\n").encode()
    yield "isolates.txt", ("\u2067\u2066א a\u202b" * 3000 + "\n").encode()
    yield "mixed-directions.txt", ("אב (12) ab " * 5_000).encode()
    yield "one-line-of-arabic.txt", ("السلام عليكم " * 4_000).encode()
    yield "one-line.txt", b"x" * (MIB // 16)
    yield "one-line-of-tabs.txt", "é\t".encode() * 10_000
    yield "line-ends.txt", b"\n" * 3000 + b"end"
    yield "line-separators.txt", "\u2028\u2029\x85\x0b\x0c\x1c".encode() * 5000
    yield "joined.txt", ("👩" + "\u200d👩" * 20_000).encode()
    yield "no-characters.txt", "\ufffe\uffff\U0010ffff\U000e0001\U000e007f\ufdd0".encode() * 200
    yield "markup.html", b"<script>alert(1)</script><img src=x onerror=alert(2)>\n" * 20
    yield "braces.c", b"{" * 50_000
    yield "quotes.py", b'"""' + b'\\"' * 50_000


def names(rng: random.Random) -> Named:
    stems = [
        "line\nbreak", "escape\x1b[31m", "bell\x07", "quote'\"`", "<img src=x onerror=alert(1)>", "<b>&amp;",
        "$(reboot)", "; DROP TABLE rows;--", "-rf", " leading", "trailing ", "back\\slash", "hash#1", "percent%s%n",
        "{brace}", "[a-z]*?", "\u202egnp", "nfc-\u00e9", "nfc-e\u0301", "\u200b", "漢字" * 40, "e" * 250, "tab\tname",
        "~", "..twice", "CON", "null", "a#0", "a", "\x7f", "\u2028", "\U0001f480", "\udcff\udcfe-not-utf8",
        "half-\udce6\udcbc",
    ]  # fmt: skip
    for stem in stems:
        yield f"{stem}.txt", f"the file {stem!a}".encode()
    yield ".hidden.txt", b"hidden"
    yield ".folder/inside.txt", b"hidden too"
    yield "a.txt/a.txt".replace("a.txt/", "folder.png/"), b"in a folder named like an image"


def disguises(rng: random.Random) -> Named:
    packed, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("../../evil.txt"), bytes(50 * MIB), zipfile.ZIP_DEFLATED)
    with tarfile.open(fileobj=tarred, mode="w") as bundle:
        bundle.addfile(tarfile.TarInfo("../evil.txt"))
    array = io.BytesIO()
    np.save(array, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    contents = {
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "html": b"<!doctype html><script>alert(1)</script>",
        "pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n%%EOF",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) run\n",
        "zip": packed.getvalue(),
        "tar": gzip.compress(tarred.getvalue(), mtime=0),
        "pickle": pickle.dumps({"a": np.arange(3)}),
        "old-pickle": b"cos\nsystem\n(S'echo owned'\ntR.",
        "npy": array.getvalue(),
        "program": Path(sys.executable).resolve().read_bytes()[:50_000],
        "script": b"#!/bin/sh\necho owned\n",
    }
    for what, data in contents.items():
        for suffix in (".png", ".txt", ".json" if what in ("html", "zip") else ".jpg"):
            yield f"{what}{suffix}", data
    real = real_images()
    yield "image.txt", real["colour.png"]
    yield "image.json", real["baseline.jpg"]
    yield "png.jpg", real["colour.png"]
    yield "image.parquet", real["colour.png"]
    yield "text.parquet", b"only text"
    yield "gif-then-script.gif", b"GIF89a/*" + b"*/=1;alert(1)//" * 20


def special_files(folder: Path) -> Iterator[str]:
    """Links, pipes, sockets, sparse giants and deep folders: what only a file system can hold."""
    folder.mkdir(parents=True)
    (folder / "plain.txt").write_text("plain")
    links = {"to-itself": "to-itself", "loop-a": "loop-b", "loop-b": "loop-a", "dangling.txt": "nowhere.txt",
             "to-parent": "..", "to-here": ".", "to-zeros.txt": "/dev/zero", "to-plain.txt": "plain.txt",
             "to-pipe.png": "pipe", "to-a-long-name": "n" * 255}  # fmt: skip
    for name, target in links.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "pipe.jsonl")
    os.mknod(folder / "socket.txt", stat.S_IFSOCK | 0o600)
    yield from ("plain.txt", *links, "pipe", "pipe.jsonl", "socket.txt")
    starts = {"txt": b"", "jsonl": b"", "csv": b"text\n", "png": b"\x89PNG\r\n\x1a\n", "parquet": b"PAR1", "json": b"["}
    for suffix, start in starts.items():
        name = f"zeros.{suffix}"
        with (folder / name).open("wb") as file:
            file.write(start)
            file.truncate(5 * 1024 * MIB)
        yield name
    deep = "/".join(["d" * 20] * 100)
    (folder / deep).mkdir(parents=True)
    (folder / deep / "deep.txt").write_text("deep")
    yield f"{deep}/deep.txt"
    (folder / "unreadable.txt").write_text("secret")
    (folder / "unreadable.txt").chmod(0)
    yield "unreadable.txt"


PARTS: tuple[Callable[[random.Random], Named], ...] = (
    damaged_images, lying_images, texts, json_files, tables, names, disguises
)  # fmt: skip

if __name__ == "__main__":
    made = make_corpus(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    print(f"{len(made)} files in {sys.argv[1]}")
