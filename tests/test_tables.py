"""Tables row by row: the same items from every kind of file, rows that are no use, images, puzzles, hostile files."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.records import ImageBytes, ImageFile, Item, Puzzle, Rejected
from trm_nb.sources import byte_streams
from trm_nb.sources.reader import Entry, Skipped, scan
from trm_nb.sources.tables import lines as line_tables
from trm_nb.sources.tables import parquet as parquet_tables
from trm_nb.sources.tables import rows as table_rows

TEXTS = ["one", "two\nlines, with a comma", 'thr"ee', "žluť 行 \U0001f600", ""]
ROWS: list[dict[str, Any]] = [{"text": text, "kind": kind} for text, kind in zip(TEXTS, "abcab", strict=True)]


def entries(*paths: Path, **fields: Any) -> list[Entry]:
    config = MultimodalDatasetConfig(source_paths=[str(p) for p in paths], output_dir="unused", **fields)
    return [entry for reading in scan(config) for entry in reading.entries]


def items(found: list[Entry]) -> list[Item]:
    return [entry for entry in found if isinstance(entry, Item)]


def reasons(found: list[Entry]) -> dict[str, str]:
    return {entry.path.split("/", 1)[1]: entry.reason for entry in found if isinstance(entry, Rejected)}


def jsonl(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def csv_bytes(rows: list[dict[str, Any]]) -> bytes:
    def cell(value: Any) -> str:
        return '"' + str(value).replace('"', '""') + '"'

    lines = [",".join(rows[0]), *(",".join(map(cell, row.values())) for row in rows)]
    return "\r\n".join(lines).encode() + b"\r\n"


def parquet(rows: list[dict[str, Any]] | pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), out, **options)
    return out.getvalue()


WRITERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "t.jsonl": jsonl,
    "t.ndjson": jsonl,
    "t.jsonl.gz": lambda rows: gzip.compress(jsonl(rows)),
    "t.JSONL.ZST": lambda rows: bytes(pa.compress(jsonl(rows), "zstd", asbytes=True)),
    "t.csv": csv_bytes,
    "t.csv.gz": lambda rows: gzip.compress(csv_bytes(rows)),
    "t.csv.zst": lambda rows: bytes(pa.compress(csv_bytes(rows), "zstd", asbytes=True)),
    "t.parquet": parquet,
}


def png(colour: int = 0) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (4, 3), (colour, 99, 200)).save(data, "PNG")
    return data.getvalue()


# ------------------------------------------------------------------------------------- the same from every kind


@pytest.mark.parametrize("name", WRITERS)
def test_a_row_is_an_item(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WRITERS[name](ROWS))
    found = items(entries(tmp_path, label_column="kind"))
    assert [item.item_id for item in found] == [f"{tmp_path.name}/{name}#{n}" for n in range(5)]
    assert [item.payload for item in found] == TEXTS
    assert [item.label for item in found] == list("abcab")
    assert {item.modality for item in found} == {"text"}
    assert {item.encoding for item in found} == {None}
    assert {item.label for item in items(entries(tmp_path))} == {tmp_path.name}, "without a column, the folder's name"


@pytest.mark.parametrize("name", WRITERS)
def test_columns_are_named_by_the_config(tmp_path: Path, name: str) -> None:
    rows = [{"id": 7, "body": "words", "text": "not this"}]
    (tmp_path / name).write_bytes(WRITERS[name](rows))
    assert [item.payload for item in items(entries(tmp_path, text_column="body"))] == ["words"]


@pytest.mark.parametrize("name", WRITERS)
def test_a_column_that_is_not_there(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WRITERS[name](ROWS))
    for field in ("text_column", "image_column", "label_column"):
        (refused,) = entries(tmp_path, **{field: "body"})
        assert refused == Rejected(f"{tmp_path.name}/{name}", "no column 'body': it has text, kind")


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_without_columns_to_read_is_refused_and_never_a_page_of_its_labels(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WRITERS[name]([{"a": "x", "b": "y"}]))
    reason = "a table without a column text or image: it has a, b; set text_column or image_column"
    assert entries(tmp_path) == [Rejected(f"{tmp_path.name}/{name}", reason)]


@pytest.mark.parametrize("name", WRITERS)
def test_a_name_in_another_case_or_with_spaces_around_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WRITERS[name]([{"Text": "words", " KIND ": " a ", "kinder": "b"}]))
    (item,) = items(entries(tmp_path, label_column="kind"))
    assert (item.payload, item.label) == ("words", "a")
    (tmp_path / name).write_bytes(WRITERS[name]([{"Text": "words", "TEXT": "others"}]))
    assert "it has Text, TEXT; set text_column" in reasons(entries(tmp_path))[name], "two come into question"
    assert [item.payload for item in items(entries(tmp_path, text_column="TEXT"))] == ["others"]


@pytest.mark.parametrize("name", WRITERS)
def test_a_limit_ends_the_reading(tmp_path: Path, name: str) -> None:
    data = WRITERS[name](ROWS * 3000)
    (tmp_path / name).write_bytes(data)
    assert [item.item_id.rsplit("#")[1] for item in items(entries(tmp_path, limit=3))] == ["0", "1", "2"]
    assert len(items(entries(tmp_path))) == 15_000
    if name.endswith((".gz", ".zst", ".ZST")):
        (tmp_path / name).write_bytes(data[:-20])
        assert all(isinstance(entry, Item) for entry in entries(tmp_path, limit=3)), "the damage lies behind the limit"
        assert "damaged" in reasons(entries(tmp_path))[name]


@pytest.mark.parametrize("name", WRITERS)
def test_text_left_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WRITERS[name](ROWS))
    skipped = Skipped(f"{tmp_path.name}/{name}", "text is left out: include_text is false")
    assert entries(tmp_path, include_text=False) == [skipped]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=5))
def test_any_text_survives_any_table(tmp_path: Path, texts: list[str]) -> None:
    texts = [text.replace("\r", "") for text in texts]
    for name in ("t.jsonl", "t.csv", "t.parquet"):
        (tmp_path / name).write_bytes(WRITERS[name]([{"text": text, "n": 1} for text in texts]))
    found = [item.payload for item in items(entries(tmp_path))]
    assert found == texts * 3


# ------------------------------------------------------------------------------------- rows that are no use


def test_bad_rows_of_json_lines(tmp_path: Path) -> None:
    lines = [
        b'{"text": "good"}', b"", b'{"text": ', b'["a", "list"]', b'{"other": 1}', b'{"text": null}', b'{"text": 7}',
        b'{"text": "a", "text": "b"}', b"[" * 100_000, b'{"text": %s}' % (b"1" * 5000), b'{"text": "last"}',
    ]  # fmt: skip
    (tmp_path / "t.jsonl").write_bytes(b"\n".join(lines))
    found = entries(tmp_path)
    assert [(item.item_id.rsplit("#")[1], item.payload) for item in items(found)] == [("0", "good"), ("9", "last")]
    assert reasons(found) == {
        "t.jsonl#1": "line 3: malformed JSON at line 1, column 9: Expecting value",
        "t.jsonl#2": "line 4: the row: expected an object, got list",
        "t.jsonl#3": "no 'text' in this row",
        "t.jsonl#4": "no 'text' in this row",
        "t.jsonl#5": "'text': expected text, got int",
        "t.jsonl#6": "line 8: the row: the key 'text' stands twice",
        "t.jsonl#7": "line 9: JSON nested too deeply to read",
        "t.jsonl#8": "line 10: a number of 5000 digits",
    }


def test_bad_rows_of_csv(tmp_path: Path) -> None:
    text = 'id,text\n0,good\n\n1\n2,too,many\n3,"quoted, ""twice"""\n4,"quoted" badly\n5,good\n6,"never closed\n7,x\n'
    (tmp_path / "t.csv").write_text(text)
    found = entries(tmp_path)
    assert [item.payload for item in items(found)] == ["good", 'quoted, "twice"', "good"]
    assert [item.item_id.rsplit("#")[1] for item in items(found)] == ["0", "3", "5"]
    assert {number: reason[:30] for number, reason in reasons(found).items()} == {
        "t.csv#1": "expected 2 cells, as the heade",
        "t.csv#2": "expected 2 cells, as the heade",
        "t.csv#4": "not CSV: ',' expected after '\"",
        "t.csv#6": "not CSV: unexpected end of dat",
    }


def test_bad_rows_of_parquet(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(parquet([{"text": "good"}, {"text": None}, {"text": "last"}]))
    found = entries(tmp_path)
    assert [item.payload for item in items(found)] == ["good", "last"]
    assert reasons(found) == {"t.parquet#1": "no 'text' in this row"}


def test_a_damaged_row_group_leaves_the_others(tmp_path: Path) -> None:
    rows = [{"text": f"row {n} {random.Random(n).randbytes(20).hex()}"} for n in range(300)]
    data = bytearray(parquet(rows, row_group_size=100, use_dictionary=False, compression="gzip"))
    second = pq.read_metadata(io.BytesIO(bytes(data))).row_group(1).column(0)
    middle = second.data_page_offset + second.total_compressed_size // 2
    data[middle : middle + 200] = bytes(200)
    (tmp_path / "t.parquet").write_bytes(data)
    found = entries(tmp_path)
    assert [item.payload for item in items(found)] == [row["text"] for row in rows[:100] + rows[200:]]
    assert items(found)[100].item_id.endswith("t.parquet#200")
    ((path, reason),) = reasons(found).items()
    assert path == "t.parquet#100"
    assert reason.startswith("rows 100 to 199 cannot be read: ")


@pytest.mark.parametrize(
    ("value", "label"),
    [("dog", "dog"), (" dog ", "dog"), (3, "3"), (-3, "-3"), (3.0, "3"), (-0.0, "0"), (2.5, "2.5"), (1e300, "1e+300"),
     (True, "True"), ("3.0", "3.0"), (None, None), ("", None), (" ", None), (float("nan"), None),
     (float("inf"), "inf"), ("a\nb", "a\\x0ab"), ("\ud800", "\\ud800"), ("Ka\u0308se", "K\u00e4se")],
    ids=repr,
)  # fmt: skip
def test_labels(tmp_path: Path, value: Any, label: str | None) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": "x", "y": value}))
    assert [item.label for item in items(entries(tmp_path, label_column="y"))] == [label]


@pytest.mark.parametrize("value", [[1], {"a": 1}, "x" * 201], ids=["list", "object", "long"])
def test_what_is_no_label(tmp_path: Path, value: Any) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": "x", "y": value}))
    assert reasons(entries(tmp_path, label_column="y"))["t.jsonl#0"].startswith("label: ")


@pytest.mark.parametrize(
    ("column", "fields", "reason"),
    [
        (pa.array([[1, 2]]), {"text_column": "x"}, "column 'x': expected text, got list<"),
        (pa.array([7]), {"text_column": "x"}, "column 'x': expected text, got int64"),
        (pa.array([[1]]), {"label_column": "x"}, "column 'x': expected a class name or number, got list<"),
    ],
    ids=["list as text", "number as text", "list as label"],
)
def test_types_of_parquet_columns(tmp_path: Path, column: Any, fields: dict[str, str], reason: str) -> None:
    (tmp_path / "t.parquet").write_bytes(parquet(pa.table({"x": column, "text": ["a"]})))
    assert reasons(entries(tmp_path, **fields))["t.parquet"].startswith(reason)


def test_a_column_twice(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(",text,label,label,\n0,a,b,c,\n")
    assert [item.payload for item in items(entries(tmp_path))] == ["a"], "nobody asks for it"
    twice = {"t.csv": "the column 'label' is there twice; rename one of them"}
    assert reasons(entries(tmp_path, label_column="label")) == twice
    (tmp_path / "t.csv").write_text("text,text\na,b\n")
    assert reasons(entries(tmp_path)) == {"t.csv": "the column 'text' is there twice; rename one of them"}


def test_json_lines_whose_first_rows_lack_the_column(tmp_path: Path) -> None:
    rows = [*({"id": n} for n in range(150)), {"id": 150, "text": "late", "kind": "a"}]
    (tmp_path / "t.jsonl").write_bytes(jsonl(rows))
    found = entries(tmp_path, label_column="kind")
    assert [(item.payload, item.label) for item in items(found)] == [("late", "a")]
    assert len(found) == 151 and set(reasons(found).values()) == {"no 'text' in this row"}
    (tmp_path / "t.jsonl").write_bytes(jsonl(rows[:150]))
    assert list(reasons(entries(tmp_path))) == ["t.jsonl"], "one note where it is in none"


# ------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("t.json", bytes),
        ("t.JSON.GZ", lambda data: gzip.compress(data)),
        ("t.json.zst", lambda data: bytes(pa.compress(data, "zstd", asbytes=True))),
    ],
)
@pytest.mark.parametrize(
    "data",
    [jsonl(ROWS), b"\xef\xbb\xbf\r\n" + jsonl(ROWS).replace(b"\n", b"\r\n"), jsonl(ROWS).replace(b"\n", b"\r"),
     json.dumps(ROWS).encode(), json.dumps(ROWS, indent=2).encode()],
    ids=["lines", "bom, blank line, crlf", "cr", "list", "printed list"],
)  # fmt: skip
def test_rows_in_a_file_named_json(tmp_path: Path, name: str, pack: Callable[[bytes], bytes], data: bytes) -> None:
    (tmp_path / name).write_bytes(pack(data))
    found = entries(tmp_path, label_column="kind")
    assert [(item.item_id, item.payload, item.label) for item in items(found)] == [
        (f"{tmp_path.name}/{name}#{n}", row["text"], row["kind"]) for n, row in enumerate(ROWS)
    ]
    assert len(found) == len(ROWS)


def test_bad_rows_in_a_file_named_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"text": "a"}\n{"text": \n{"text": "c"}\n')
    (tmp_path / "b.json").write_bytes(b'[{"text": "a", "text": "b"}, {"text": "d"}]')
    found = entries(tmp_path)
    assert [item.payload for item in items(found)] == ["a", "c", "d"]
    assert reasons(found) == {
        "a.json#1": "line 2: malformed JSON at line 1, column 9: Expecting value",
        "b.json#0": "a key stands twice",
    }


@pytest.mark.parametrize(
    "value", [{"text": "a"}, [{"x": "a"}], [{"text": "a"}, 7], ["text"], [], "text"], ids=json.dumps
)
def test_other_json_is_a_document(tmp_path: Path, value: Any) -> None:
    for indent in (None, 1):
        (tmp_path / "t.json").write_text(json.dumps(value, indent=indent))
        assert [item.payload for item in items(entries(tmp_path))] == [json.dumps(value, indent=indent)]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("t.json", jsonl([{"a": 1}] * 2), "a table without a column text or image: it has a; "),
        ("t.json", b'[{"text": "a"}', "malformed JSON at line 1, column 15"),
        ("t.json.gz", gzip.compress(b'{"a":\n1}'), "packed JSON that is neither JSON Lines nor a list of objects"),
        ("t.json.gz", gzip.compress(jsonl([{"text": "a"}]))[:-9], "damaged gzip"),
        ("t.json.gz", b"no gzip", "damaged gzip"),
    ],
    ids=["no column", "torn list", "a packed document", "torn gzip", "no gzip"],
)
def test_json_that_is_refused(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert reasons(entries(tmp_path))[name].startswith(reason)


def test_a_list_above_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_tables, "MAX_JSON_BYTES", 2**20)
    (tmp_path / "t.json").write_bytes(json.dumps([{"text": "a" * 2**20}]).encode())
    assert reasons(entries(tmp_path))["t.json"].startswith("JSON larger than 1 MiB")
    monkeypatch.setattr(line_tables, "MAX_VALUES", 2)
    (tmp_path / "t.json").write_bytes(json.dumps([{"text": "a"}] * 3).encode())
    assert reasons(entries(tmp_path))["t.json"].startswith("JSON of more than 2 objects")
    (tmp_path / "t.json").write_bytes(jsonl([{"text": "a" * 2**19}] * 3))
    assert len(items(entries(tmp_path))) == 3, "lines are read one by one"


# ------------------------------------------------------------------------------------- encodings


@pytest.mark.parametrize("codec", ["cp1252", "utf-16", "utf-8-sig"])
def test_csv_in_other_encodings(tmp_path: Path, codec: str) -> None:
    words = ["ASCII", "Räksmörgås på ön, für Übermut", "“fine”"]
    (tmp_path / "t.csv").write_bytes(("text,n\n" + "".join(f'"{w}",1\n' for w in words)).encode(codec))
    found = items(entries(tmp_path))
    assert [item.payload for item in found] == words
    expected = {"cp1252": [None, "cp1252", "cp1252"], "utf-16": ["utf-16-le"] * 3, "utf-8-sig": [None] * 3}
    assert [item.encoding for item in found] == expected[codec]


def test_damage_behind_the_first_legacy_line_is_told(tmp_path: Path) -> None:
    rows = [f"Räksmörgås {random.Random(n).randbytes(30).hex()}" for n in range(3000)]
    data = gzip.compress("\n".join(["text", *rows]).encode("cp1252"))
    (tmp_path / "t.csv.gz").write_bytes(data[: len(data) * 45 // 100])
    found = entries(tmp_path)
    assert [item.payload for item in items(found)] == rows[: len(items(found))] != []
    assert "damaged gzip" in reasons(found)["t.csv.gz"]


def test_a_bad_byte_is_escaped_in_its_row_alone(tmp_path: Path) -> None:
    rows = ["žluťoučký kůň", "ďábelské ódy", "příliš"]
    lines = [json.dumps({"text": row}, ensure_ascii=False).encode() for row in rows]
    bad = b'{"text": "damaged \x9f byte"}'
    for place in (2, 3):
        (tmp_path / "t.jsonl").write_bytes(b"\n".join([*lines[:place], bad, *lines[place:]]))
        found = items(entries(tmp_path))
        assert [item.payload for item in found] == [*rows[:place], "damaged \\x9f byte", *rows[place:]]
        assert [i for i, item in enumerate(found) if item.encoding is not None] == [place]
        assert found[place].encoding == "utf-8 with escapes"


# ------------------------------------------------------------------------------------- images


def test_images_as_bytes_struct_base64_and_files(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p/red.png").write_bytes(png(255))
    data, text = png(), base64.b64encode(png()).decode()
    (tmp_path / "a.parquet").write_bytes(parquet([{"image": data}]))
    struct = [{"image": {"bytes": data, "path": "x.png"}}, {"image": {"bytes": None, "path": "p/red.png"}}]
    (tmp_path / "b.parquet").write_bytes(parquet(struct))
    (tmp_path / "c.jsonl").write_bytes(
        jsonl(
            [
                {"image": text},
                {"image": f"data:image/png;base64,{text}"},
                {"image": "p/red.png"},
                {"image": struct[1]["image"]},
            ]
        )
    )
    (tmp_path / "d.csv").write_bytes(csv_bytes([{"image": "p/red.png"}, {"image": text}]))
    found = {item.item_id.split("/", 1)[1]: item for item in items(entries(tmp_path))}
    red = [name for name, item in found.items() if isinstance(item.payload, ImageFile)]
    assert red == ["b.parquet#1", "c.jsonl#2", "c.jsonl#3", "d.csv#0"], "a file that a table names is read there alone"
    assert len({found[name].payload.sha256 for name in red}) == 1  # type: ignore[union-attr]
    held = [item for item in found.values() if isinstance(item.payload, ImageBytes)]
    assert [item.item_id.split("/", 1)[1] for item in held] == [
        "a.parquet#0", "b.parquet#0", "c.jsonl#0", "c.jsonl#1", "d.csv#1",
    ]  # fmt: skip
    assert {item.payload.data for item in held} == {data}  # type: ignore[union-attr]
    assert {item.modality for item in found.values()} == {"image"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param("../secret.png", "expected a path below the table's folder", id="dots"),
        pytest.param("a/../../secret.png", "expected a path below the table's folder", id="dots further on"),
        pytest.param("/etc/passwd", "expected a path below the table's folder", id="absolute"),
        pytest.param("C:\\secret.png", "expected a path below the table's folder", id="windows"),
        pytest.param("..\\secret.png", "expected a path below the table's folder", id="windows dots"),
        pytest.param("out.png", "expected a path below the table's folder", id="link to outside"),
        pytest.param("loop", "expected a path below|cannot be read", id="loop of links"),
        pytest.param("a\0b.png", "expected a path below the table's folder", id="nul"),
        pytest.param("x" * 5000, "expected a path below|cannot be read", id="long name"),
        pytest.param("https://example.org/a.png", "images are not fetched", id="url"),
        pytest.param("gone.png", "it leads nowhere", id="missing"),
        pytest.param("words.png", "no image", id="no image"),
        pytest.param("fifo", "not a file but a FIFO", id="fifo"),
        pytest.param("folder", "directory|not a file", id="folder"),
        pytest.param("", "expected a path", id="empty"),
        pytest.param("data:image/png;base64,???", "a data URL that is no base64", id="data url"),
        pytest.param("data:image/png;base64,aGVsbG8gd29ybGQ=", "no image", id="data url of words"),
        pytest.param(7, "expected an image as bytes, base64 or a relative path, got int", id="number"),
        pytest.param({"path": None, "bytes": None}, "got nothing", id="empty struct"),
        pytest.param(None, "no 'image' in this row", id="none"),
    ],
)
def test_what_is_no_image(tmp_path: Path, value: Any, reason: str) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(png())
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "loop").symlink_to(root / "loop")
    (root / "words.png").write_text("words")
    os.mkfifo(root / "fifo")
    (root / "t.jsonl").write_bytes(jsonl([{"image": value}, {"image": base64.b64encode(png()).decode()}]))
    found = entries(root / "t.jsonl")
    assert re.search(reason, reasons(found)["t.jsonl#0"]), found
    assert [item.item_id for item in items(found)] == ["root/t.jsonl#1"]


def test_a_link_is_followed_where_the_walk_follows_it(tmp_path: Path) -> None:
    snapshot, outside = tmp_path / "hub/snapshots/abc", tmp_path / "outside"
    for folder in (snapshot / "images", snapshot / ".hidden", tmp_path / "hub/blobs", outside):
        folder.mkdir(parents=True)
    (tmp_path / "hub/blobs/1").write_bytes(png(1))
    (outside / "2.png").write_bytes(png(2))
    (snapshot / "images/a.png").symlink_to("../../../blobs/1")
    (snapshot / "linked").symlink_to(outside)
    (snapshot / "up").symlink_to(tmp_path)
    (snapshot / ".hidden/b.png").symlink_to("../../../blobs/1")
    names = [
        "images/a.png",
        "./linked//2.png",
        "up/outside/2.png",
        ".hidden/b.png",
        "images/../../../blobs/1",
        "no.png",
    ]
    (tmp_path / "hub/blobs/table").write_bytes(jsonl([{"image": name} for name in names]))
    (snapshot / "t.jsonl").symlink_to("../../blobs/table")
    followed = ["t.jsonl#0", "t.jsonl#1"]
    for source, expected in [
        (snapshot, followed), (tmp_path / "hub/snapshots", followed), (snapshot / "**", followed),
        (snapshot / "*.jsonl", []), (snapshot / "t.jsonl", []),
    ]:  # fmt: skip
        found = entries(source)
        rows = [item.item_id.rpartition("/")[2] for item in items(found) if "t.jsonl" in item.item_id]
        assert rows == expected, source
        refused = {name.rpartition("/")[2]: reason for name, reason in reasons(found).items()}
        assert all("expected a path below" in refused[f"t.jsonl#{n}"] for n in (2, 3, 4)), refused
        assert "it leads nowhere" in refused["t.jsonl#5"]


def test_texts_and_images_in_one_table_are_two_items_a_row(tmp_path: Path) -> None:
    rows = [{"image": png(), "text": "a caption"}, {"image": None, "text": "no image"}]
    (tmp_path / "t.parquet").write_bytes(parquet(rows))
    found = entries(tmp_path)
    assert [(i.item_id.split("#")[1], i.modality) for i in items(found)] == [
        ("0/text", "text"), ("0/image", "image"), ("1/text", "text"),
    ]  # fmt: skip
    left_out = [(entry.path.split("#")[1], entry.reason) for entry in found if isinstance(entry, Skipped)]
    assert left_out == [("1/image", "no 'image' in this row, only 'text'")] and not reasons(found)
    only = entries(tmp_path, include_images=False)
    assert [item.item_id.split("#")[1] for item in items(only)] == ["0/text", "1/text"]
    assert [entry.reason for entry in only if isinstance(entry, Skipped)] == [
        "images are left out: include_images is false"
    ]


def test_two_columns_asked_for_and_one_there(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(jsonl([{"body": "words"}]))
    found = entries(tmp_path, text_column="body", image_column="photo")
    assert [item.payload for item in items(found)] == ["words"]
    assert [entry.reason for entry in found if isinstance(entry, Skipped)] == ["no column 'photo' in it"]


# ------------------------------------------------------------------------------------- puzzles


SUDOKU = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"
SOLVED = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"


def test_tables_of_puzzles(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"source,question,answer,rating\nx,{SUDOKU.replace('0', '.')},{SOLVED},3\n")
    (tmp_path / "b.csv").write_text(f"quizzes,solutions\n{SUDOKU},{SOLVED}\n{SUDOKU},{SUDOKU}\n{SUDOKU[:80]},\n")
    (tmp_path / "c.jsonl").write_bytes(jsonl([{"Puzzle": "S G ", "Solution": None}]))
    found = entries(tmp_path, label_column=None)
    assert [item.item_id.split("/")[1] for item in items(found)] == ["a.csv#0", "b.csv#0", "c.jsonl#0"]
    first, second, maze = (item.payload for item in items(found))
    assert isinstance(first, Puzzle)
    assert isinstance(second, Puzzle)
    assert isinstance(maze, Puzzle)
    assert np.array_equal(first.puzzle, second.puzzle)
    assert first.solution is not None
    assert "".join(map(str, first.solution.ravel())) == SOLVED
    assert maze.kind == "maze"
    assert reasons(found)["b.csv#1"] == "answer: a blank at row 0, column 2"
    assert reasons(found)["b.csv#2"].startswith("expected 16, 36 or 81 digits")
    left_out = entries(tmp_path, include_grids=False)
    assert {entry.reason for entry in left_out if isinstance(entry, Skipped)} == {
        "grids are left out: include_grids is false"
    }
    assert len(left_out) == 3


BOARD, FILLED = "1030040200430021", "1234341221434321"  # a 4x4 Sudoku and its solution


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"puzzle": BOARD, "solution": FILLED}, id="one-object"),
        pytest.param({"puzzle": [BOARD] * 2, "solution": [FILLED] * 2, "from": "x"}, id="lists"),
        pytest.param({"Puzzle": {"0": BOARD}, "Solution": {"0": FILLED}}, id="pandas"),
        pytest.param([{"quiz": BOARD, "answer": FILLED}], id="list-of-objects"),
        pytest.param({"data": [{"puzzle": BOARD, "solution": FILLED}] * 2, "count": 2}, id="list in an object"),
        pytest.param({"easy": {"all": [{"puzzle": BOARD, "solution": FILLED}]}, "hard": []}, id="deeper"),
        pytest.param({"train": {"puzzle": [BOARD] * 3, "solution": [FILLED] * 3}}, id="columns in an object"),
    ],
)
def test_puzzles_in_one_json_document_show_no_solution(tmp_path: Path, value: Any) -> None:
    (tmp_path / "p.json").write_text(json.dumps(value, indent=1))
    found = items(entries(tmp_path))
    assert found and all(isinstance(item.payload, Puzzle) and item.payload.solution is not None for item in found)


@pytest.mark.parametrize("bad", [1, 2])
def test_a_table_of_few_puzzles_keeps_those_that_can_be_read(tmp_path: Path, bad: int) -> None:
    rows = [{"puzzle": BOARD, "solution": FILLED}] * bad + [{"puzzle": "not one", "solution": "?"}] * bad
    (tmp_path / "t.jsonl").write_bytes(jsonl(rows))
    found = entries(tmp_path)
    assert len(items(found)) == bad and len(reasons(found)) == bad


def test_a_table_with_tabs_may_be_called_so(tmp_path: Path) -> None:
    (tmp_path / "t.tab").write_text("text\tlabel\nwords\tone\n", encoding="utf-8")
    assert [item.payload for item in items(entries(tmp_path))] == ["words"]


def test_questions_that_are_no_puzzles(tmp_path: Path) -> None:
    (tmp_path / "qa.csv").write_text("question,answer\nWhy?,Because.\n")
    assert reasons(entries(tmp_path))["qa.csv"].endswith("it has question, answer; set text_column or image_column")
    assert [item.payload for item in items(entries(tmp_path, text_column="question"))] == ["Why?"]
    (tmp_path / "qa.csv").write_text("question,answer\nWhat is it?,a\n0123012301230123,b\nWhy?,c\n")
    assert not items(entries(tmp_path)), "one cell that looks like a puzzle does not make a table of them"
    (tmp_path / "qa.csv").write_text(f"text,question,answer\nread me,{SUDOKU},{SOLVED}\n")
    assert [item.payload for item in items(entries(tmp_path))] == ["read me"], "a column of texts goes first"


@pytest.mark.parametrize(
    "question",
    [SUDOKU.replace("0", ".") * 3 + SUDOKU[:13], "123456789ABCDEFG" * 16, "S" + "#" * 1598 + "G", "1.3." * 5,
     "#" * 30 + "\nS" + " " * 28 + "G\n" + "#" * 30],
    ids=["16x16", "16x16 of letters", "40x40 maze", "20 characters", "3x30 maze"],
)  # fmt: skip
def test_puzzles_that_cannot_be_read_are_one_note(tmp_path: Path, question: str) -> None:
    rows = [{"puzzle": question, "solution": "7" * len(question)}] * 20
    for name in ("t.csv", "t.jsonl", "t.parquet", "t.json"):
        (tmp_path / name).write_bytes(json.dumps(rows).encode() if name == "t.json" else WRITERS[name](rows))
    found = entries(tmp_path)
    assert {entry.path.split("/")[1] for entry in found} == {"t.csv", "t.jsonl", "t.parquet", "t.json"}
    assert len(found) == 4
    start = "the column 'puzzle' seems to hold puzzles, but none of the first 10 can be read: expected 16, 36 or 81 "
    assert all(isinstance(entry, Rejected) and entry.reason.startswith(start) for entry in found)


def test_puzzles_of_several_sizes(tmp_path: Path) -> None:
    rows = [{"puzzle": "." * 256, "solution": "1" * 256}, {"puzzle": SUDOKU.replace("0", "_"), "solution": SOLVED}]
    (tmp_path / "t.csv").write_bytes(csv_bytes(rows))
    found = entries(tmp_path)
    assert [item.item_id.split("#")[1] for item in items(found)] == ["1"]
    assert "got 256 characters" in reasons(found)["t.csv#0"]


# ------------------------------------------------------------------------------------- hostile files


def test_a_line_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_tables, "MAX_LINE_BYTES", 100)
    (tmp_path / "t.jsonl").write_bytes(jsonl([{"text": "a"}, {"text": "b" * 200}, {"text": "c"}]))
    found = entries(tmp_path)
    assert [item.payload for item in items(found)] == ["a", "c"]
    assert "line 2: a line of more than" in reasons(found)["t.jsonl#1"]
    (tmp_path / "t.jsonl").unlink()
    (tmp_path / "t.csv").write_text("text\na\n" + "b" * 200 + "\nc\n")
    found = entries(tmp_path)
    assert [item.payload for item in items(found)] == ["a"], "in a CSV it is not certain where the next row begins"
    assert "row 1: a line of more than" in reasons(found)["t.csv"]


def test_a_cell_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_tables, "MAX_LINE_BYTES", 100)
    (tmp_path / "t.csv").write_text('text\na\n"' + "b\n" * 200 + '"\nc\n')
    found = entries(tmp_path)
    assert [item.payload for item in items(found)] == ["a"]
    assert "row 1: a cell of more than 100 characters" in reasons(found)["t.csv"]


def test_a_text_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_rows, "MAX_TEXT", 9)
    for name in ("t.jsonl", "t.csv", "t.parquet"):
        (tmp_path / name).write_bytes(WRITERS[name]([{"text": "x" * 10, "n": 1}, {"text": "y" * 9, "n": 1}]))
    found = entries(tmp_path)
    assert {item.payload for item in items(found)} == {"y" * 9}
    assert set(reasons(found).values()) == {"a text of 10 characters; at most 9 are taken from one row"}
    assert len(found) == 6


def test_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_tables, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(byte_streams, "GIVE_UP_BYTES", 2**21)
    (tmp_path / "t.jsonl").write_bytes(b'{"text": "a"}\n' + b"x" * 2**22)
    found = entries(tmp_path)
    assert [item.payload for item in items(found)] == ["a"]
    assert reasons(found) == {"t.jsonl": "no line ends within 2 MiB"}


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv"])
def test_blank_lines_are_none_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(line_tables, "MAX_BLANK_LINES", 20)
    lines = WRITERS[name](ROWS[:1]).replace(b"\r\n", b"\n")
    more = lines if name == "t.jsonl" else lines.split(b"\n", 1)[1]
    (tmp_path / name).write_bytes(lines + b"\n" * 20 + more + b"\n" * 21 + more)
    found = entries(tmp_path)
    assert len(items(found)) == 2
    assert reasons(found) == {name: "more than 20 blank lines in a row; the rest of the file is left out"}


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet"])
def test_a_table_of_nothing_but_its_header(tmp_path: Path, name: str) -> None:
    table = parquet(pa.Table.from_pylist(ROWS).slice(0, 0)) if name == "t.parquet" else b"text,kind\n"
    (tmp_path / name).write_bytes(gzip.compress(table) if name.endswith("gz") else table)
    assert reasons(entries(tmp_path)) == {name: "a table without rows"}


@pytest.mark.parametrize("name", ["t.jsonl.gz", "t.jsonl.zst"])
def test_a_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(byte_streams, "UNPACKED_FREELY", 2**20)
    data = jsonl([{"text": "a"}]) + b" " * 2**25
    (tmp_path / name).write_bytes(
        gzip.compress(data) if name.endswith("gz") else pa.compress(data, "zstd", asbytes=True)
    )
    ((path, reason),) = reasons(entries(tmp_path)).items()
    assert path == name
    assert reason.startswith("a decompression bomb: ")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        pytest.param("t.jsonl.gz", b"no gzip", "damaged gzip", id="no gzip"),
        pytest.param("t.jsonl.zst", b"no zstd", "damaged zstd", id="no zstd"),
        pytest.param("t.parquet", b"PAR1 no parquet", "no Parquet file", id="no parquet"),
        pytest.param("t.parquet", b"", "no Parquet file", id="empty parquet"),
        pytest.param("t.parquet", parquet(ROWS)[:-9], "no Parquet file", id="torn parquet"),
        pytest.param("t.csv.gz", gzip.compress(b"text\n\0\0\0"), "binary, with a NUL at byte 5", id="binary in gzip"),
        pytest.param("t.jsonl", b"\0" * 99, "with a NUL at byte 0", id="binary jsonl"),
        pytest.param("t.csv.gz", gzip.compress(b",".join([b"x"] * 10_001)), "at most 10000 columns", id="columns"),
        pytest.param("t.jsonl", b'{"text": [' + b"[]," * 1_100_000 + b"0]}", "lists and objects", id="brackets"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(data)
    (entry,) = entries(tmp_path, text_column="text" if name == "t.jsonl" else None)
    assert isinstance(entry, Rejected)
    assert reason in entry.reason, entry


def test_parquet_that_repeats_a_value_is_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_tables, "UNPACKED_FREELY", 2**22)
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), pa.array(["ab" * 50_000]))
    data = parquet(pa.table({"text": repeated}), store_schema=False, compression="zstd")
    assert len(data) < 10_000
    (tmp_path / "t.parquet").write_bytes(data)
    found = entries(tmp_path)
    assert reasons(found)["t.parquet"].startswith("a decompression bomb: it holds more than 200 times")
    assert 10 < len(items(found)) < 100


def test_parquet_of_rows_without_bytes_is_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_tables, "MAX_EMPTY_ROWS", 1000)
    (tmp_path / "t.parquet").write_bytes(parquet(pa.table({"text": pa.nulls(10**6, pa.string())})))
    assert reasons(entries(tmp_path))["t.parquet"].startswith("a decompression bomb: 1000000 rows in ")


FLAT = """
import sys
from pathlib import Path
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.records import Item
from trm_nb.sources.reader import scan

def peak():  # not getrusage: that begins with the peak of the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) // 1024

config = MultimodalDatasetConfig(source_paths=[sys.argv[1]], output_dir="unused")
before, count = peak(), 0
for reading in scan(config):
    for entry in reading.entries:
        count += isinstance(entry, Item)
    reading.sha256()
print(count, peak() - before)
"""


def _items_and_megabytes(path: Path) -> tuple[int, int]:
    """What a fresh process finds in a source, and by how much its memory's peak grows meanwhile."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of memory is read from Linux's /proc")
    run = subprocess.run([sys.executable, "-c", FLAT, str(path)], capture_output=True, text=True, check=True)
    count, megabytes = map(int, run.stdout.split())
    return count, megabytes


def _long_rows(count: int) -> Iterator[bytes]:
    words = "the quick brown fox jumps over the lazy dog and goes on to the next row of the table " * 12
    for number in range(count):
        yield f"{number} {words}".encode()


def _write(path: Path, count: int) -> None:
    if path.suffix == ".parquet":
        schema = pa.schema([("text", pa.string())])
        with pq.ParquetWriter(path, schema, use_dictionary=False, compression="none") as writer:
            for _ in range(10):
                rows = [row.decode() for row in _long_rows(count // 10)]
                writer.write_table(pa.table({"text": rows}, schema))
        return
    with gzip.open(path, "wb", 1) if path.suffix == ".gz" else path.open("wb") as file:
        if path.suffix == ".csv":
            file.write(b"text\n")
        for row in _long_rows(count):
            file.write(b'{"text": "' + row + b'"}\n' if ".jsonl" in path.name else row + b"\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.csv", "t.parquet", "t.txt"])
def test_three_hundred_megabytes_stay_on_the_disk(tmp_path: Path, name: str) -> None:
    _write(tmp_path / name, 300_000)
    count, megabytes = _items_and_megabytes(tmp_path / name)
    assert count == 300_000 if name != "t.txt" else 35 < count < 45
    assert megabytes < 150, "more than the file's half in memory"


@pytest.mark.slow
def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "t.jsonl.gz", "wb", 6) as file:
        file.write(b'{"text": "a"}\n{"text": "')
        for _ in range(2000):
            file.write(b"A" * 2**20)
    count, megabytes = _items_and_megabytes(tmp_path)
    assert count == 1
    assert megabytes < 150
