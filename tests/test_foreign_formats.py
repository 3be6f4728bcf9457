"""Formats that are not read are refused by name, and text that looks like one stays text."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import pickle
import re
import sqlite3
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, features

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.records import Item, Rejected
from trm_nb.sources import foreign_formats
from trm_nb.sources.reader import Entry, scan

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 12345\n"
TABLE = pa.table({"text": ["a"]})


def ftyp(*brands: bytes) -> bytes:
    body = brands[0] + bytes(4) + b"".join(brands[1:])
    return struct.pack(">I", 8 + len(body)) + b"ftyp" + body + bytes(100)


def image(kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 20), (200, 30, 60)).save(out, kind, **options)
    return out.getvalue()


def zipped(name: str, content: str = "words") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, content)
    return out.getvalue()


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    out = io.BytesIO()
    write(out)
    return out.getvalue()


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    return out.getvalue()


def arrow_stream() -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return bytes(sink.getvalue())


def sqlite() -> bytes:
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE a (b)")
        data = database.serialize()
    database.close()
    return data


NAMED = [
    ("a.heic", ftyp(b"heic", b"mif1", b"heic"), "a HEIC image, .* convert it to JPEG or PNG"),
    ("phone.jpg", ftyp(b"mif1", b"heic"), "a HEIC image, .* convert"),
    ("a.cr3", ftyp(b"crx ", b"isom"), r"a Canon raw file \(CR3\), .* develop it"),
    ("a.mp4", ftyp(b"isom", b"mp41"), "an MP4 or QuickTime file, .* save its frames"),
    ("a.mov", ftyp(b"qt  "), "an MP4 or QuickTime file"),
    ("a.jp2", image("JPEG2000"), "a JPEG 2000 image, .* convert"),
    ("a.j2k", image("JPEG2000", no_jp2=True), "a JPEG 2000 image"),
    ("a.jxl", b"\xff\x0a" + bytes(range(64)), "a JPEG XL image, .* convert"),
    ("a.ppm", image("PPM"), "a Netpbm image, .* convert"),
    ("words.pgm", b"P2\n# comment\n2 1\n255\n0 1\n", "a Netpbm image"),
    ("a.tga", image("TGA"), "a TGA image, .* convert"),
    ("a.ico", image("ICO"), "an icon, .* convert"),
    ("a.psd", b"8BPS\0\1" + bytes(30), "a Photoshop document, .* export it"),
    ("a.orf", b"IIRO\x08\0\0\0" + bytes(30), "a camera's raw file, .* develop it"),
    ("a.dcm", bytes(128) + b"DICM" + bytes(30), "a DICOM image, .* convert it"),
    ("a.nii", struct.pack("<i", 348) + bytes(340) + b"n+1\0", "a NIfTI volume, .* save its slices"),
    ("a.fits", b"SIMPLE  =                    T / file".ljust(2880), "a FITS file, .* save its images"),
    ("train-images-idx3-ubyte", struct.pack(">IIII", 2051, 1, 2, 2) + bytes(4), "an IDX file, .* save its images"),
    ("a.npy", written(lambda out: np.save(out, np.zeros(3))), "a NumPy array, .* save its images"),
    ("a.npz", written(lambda out: np.savez(out, a=np.zeros(3))), "an archive of NumPy arrays"),
    ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(30), "an HDF5 file"),
    ("a.pkl", pickle.dumps(list(range(99))), "a Python pickle"),
    ("a.pt", zipped("archive/data.pkl"), "a PyTorch file"),
    ("blob", written(lambda out: pq.write_table(TABLE, out)), r"a Parquet file, .* a name that ends in \.parquet"),
    ("a.arrow", arrow_stream(), "an Arrow file, .* export it as Parquet"),
    ("a.db", sqlite(), "an SQLite database, .* export it"),
    ("a.docx", zipped("[Content_Types].xml"), "a Microsoft Office document, .* save it"),
    ("table.csv", zipped("[Content_Types].xml"), "a Microsoft Office document, .* CSV"),
    ("a.epub", zipped("mimetype", "application/epub+zip"), "an EPUB or OpenDocument file"),
    ("a.zip", zipped("a.txt"), "a ZIP archive, .* unpack it"),
    ("a.tar", tar(), "a tar archive, .* unpack it"),
    ("a.txt.gz", gzip.compress(b"words"), "a gzip file, .* unpack it"),
    ("a.bz2", bz2.compress(b"words" * 99), "a bzip2 file, .* unpack it"),
    ("a.xz", lzma.compress(b"words"), "an xz file, .* unpack it"),
    ("a.mp3", b"ID3\4" + bytes(30), "a sound"),
    ("a.wav", b"RIFF\x24\0\0\0WAVEfmt " + bytes(30), "a sound"),
    ("a.tfrecord", bytes(range(40)), "a TFRecord file, .* export it"),
    ("drawing.png", b"<?xml version='1.0'?>\n<!-- a -->\n<svg xmlns='b'/>", "an SVG file, .* convert"),
    ("page.jpg", b"<!DOCTYPE html>\n<html>Log in</html>", "an HTML page, .* the download failed"),
    ("words.jpg", b"words", "no image in a .jpg file: its first bytes are those of no known format"),
    *((name, POINTER, "a Git LFS pointer in place of the file: run `git lfs pull`") for name in
      ("a.jpg", "a.txt", "a", "a.json", "a.csv", "a.jsonl", "a.parquet", "a.jsonl.gz", "a_challenges.json")),
    ("b.png", b"/annex/objects/SHA256E-s12--ab.png\n", "a git-annex pointer in place of the file: run `git annex get`"),
]  # fmt: skip

IN_A_COLUMN = [
    *NAMED,
    ("a.pdf", b"%PDF-1.4\nwords alone\n", "a PDF document, .* put the file itself among the sources"),
]


def entries(path: Path, **fields: object) -> list[Entry]:
    config = MultimodalDatasetConfig(source_paths=[str(path)], output_dir="unused", **fields)
    return [entry for reading in scan(config) for entry in reading.entries]


@pytest.mark.parametrize(("name", "data", "reason"), NAMED, ids=[name for name, _, _ in NAMED])
@pytest.mark.parametrize("fields", [{}, {"text_column": "text"}], ids=["", "with a text column"])
def test_a_format_that_is_not_read_is_named(tmp_path: Path, name: str, data: bytes, reason: str, fields: dict) -> None:
    (tmp_path / name).write_bytes(data)
    (entry,) = entries(tmp_path, **fields)
    assert isinstance(entry, Rejected)
    assert re.match(reason, entry.reason), entry.reason


@pytest.mark.parametrize(("name", "data", "reason"), IN_A_COLUMN, ids=[name for name, _, _ in IN_A_COLUMN])
def test_bytes_in_an_image_column_are_named(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    rows = pa.table({"image": [data, image("PNG")]})
    pq.write_table(rows, tmp_path / "t.parquet")
    found = entries(tmp_path)
    assert isinstance(found[0], Rejected) and isinstance(found[1], Item)
    expected = re.sub(" in a .... file", "", reason)
    assert re.match(f"{expected}|no image: its first bytes", found[0].reason), found[0].reason


TEXTS = {
    "ORC": b"ORCHESTRA",
    "8BPS": b"8BPS begins a Photoshop file",
    "ID3": b"ID3 tags",
    "BZh": b"BZh is a magic",
    "P6": b"P6 10 20 is no image here",
    "PostScript": b"%!PS-Adobe-3.0\n",
    "SVG": b"<svg xmlns='b'/>",
    "HTML": b"<!DOCTYPE html><html></html>",
    "LFS": b"The file begins with version https://git-lfs.github.com/spec/v1\n",
    "annex": b"/annex/objects/ is a folder\n",
    "UTF-16": "ID3 words".encode("utf-16"),
    "controls": b"colour \x1b[31m and form feed \x0c\n",
}


@pytest.mark.parametrize("data", TEXTS.values(), ids=TEXTS.keys())
def test_text_stays_text(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    (entry,) = entries(tmp_path)
    assert isinstance(entry, Item) and entry.modality == "text"


def test_what_a_table_names_is_named_too(tmp_path: Path) -> None:
    names = {"folder": "'folder': not a file but a folder; name one image in each row",
             "a.heic": "'a.heic': a HEIC image, .* convert it",
             "a.jpg": "'a.jpg': a Git LFS pointer .* run `git lfs pull`",
             "annex.png": "'annex.png': a git-annex link whose file is not here: run `git annex get`",
             "a.svg": "'a.svg': an SVG file, .* convert it",
             "https://example.org/a.png": "the address .*; download it",
             base64.b64encode(ftyp(b"heic") * 3).decode(): "a HEIC image, .* convert it"}  # fmt: skip
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.heic").write_bytes(ftyp(b"heic"))
    (tmp_path / "a.jpg").write_bytes(POINTER)
    (tmp_path / "annex.png").symlink_to("../.git/annex/objects/aa/bb/x.png")
    (tmp_path / "a.svg").write_bytes(b"<svg xmlns='b'/>")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"image": name}) + "\n" for name in names))
    found = entries(tmp_path / "t.jsonl")
    for entry, reason in zip(found, names.values(), strict=True):
        assert isinstance(entry, Rejected) and re.match(reason, entry.reason), entry
    (walked,) = (entry for entry in entries(tmp_path) if isinstance(entry, Rejected) and "/annex" in entry.path)
    assert walked.reason == "a git-annex link whose file is not here: run `git annex get` in the repository"


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read_where_pillow_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.avif").write_bytes(image("AVIF"))
    (tmp_path / "b.jpg").write_bytes(image("AVIF"))
    assert [isinstance(entry, Item) and entry.modality for entry in entries(tmp_path)] == ["image", "image"]
    monkeypatch.setattr(foreign_formats, "_READS_AVIF", False)
    refused = entries(tmp_path)
    assert [isinstance(e, Rejected) and e.reason[:32] for e in refused] == ["an AVIF image, which is not read"] * 2
