"""JSON and tables for `hostile.py`: broken rules, broken encodings, and bombs that are small until unpacked."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from damage import Named, flipped, truncated
from hostile_images import MIB, PHOTO

PAIR = {"input": [[0, 1], [2, 3]], "output": [[9]]}


def task(**changes: object) -> bytes:
    return json.dumps({"train": [PAIR, PAIR], "test": [PAIR], **changes}).encode()


def grid_task(grid: str) -> bytes:
    """A task whose first input is this JSON text."""
    return task().replace(b"[[0, 1], [2, 3]]", grid.encode(), 1)


def json_files(rng: random.Random) -> Named:
    whole = task()
    yield "whole.json", whole
    yield from truncated("task.json", whole, (0.3, 0.6))
    yield from flipped("task.json", whole, rng, 8)
    for name, grid in {
        "ragged": "[[1, 2], [3]]", "too-wide": json.dumps([[0] * 31]), "too-high": json.dumps([[0]] * 31),
        "huge-integer": f"[[{'9' * 100_000}]]", "float": "[[0.5]]", "exponent": "[[1e400]]", "nan": "[[NaN]]",
        "infinity": "[[-Infinity]]", "negative": "[[-1]]", "ten": "[[10]]", "text": '[["1"]]', "null": "[[null]]",
        "true": "[[true]]", "empty": "[]", "empty-row": "[[]]", "no-list": "7", "object": '{"0": [1]}',
        "three-deep": "[[[1]]]", "minus-zero": "[[-0]]", "a-million-rows": json.dumps([[0]] * 1_000_000),
    }.items():  # fmt: skip
        yield f"grid-{name}.json", grid_task(grid)
    yield "key-twice.json", whole[:-1] + b', "train": []}'
    yield "grid-twice.json", whole.replace(b'"output"', b'"input"', 1)
    yield "no-test.json", task(test=None)
    yield "no-pairs.json", task(train=[], test=[])
    yield "pairs-are-text.json", task(train="abc")
    yield "3000-pairs.json", task(train=[PAIR] * 3000)
    yield "100-large-pairs.json", task(train=[{"input": [[1] * 30] * 30, "output": [[2] * 30] * 30}] * 100)
    yield "100000-deep.json", b"[" * 100_000 + b"]" * 100_000
    yield "100000-objects-deep.json", b'{"train":' * 100_000 + b"1" + b"}" * 100_000
    yield "100000-open.json", b"[" * 100_000
    yield "deep-in-a-task.json", grid_task("[" * 90_000 + "]" * 90_000)
    yield "lone-surrogates.json", b'{"\\ud800": {"train": [], "test": []}}'
    yield "surrogate-id.json", b'{"\\ud800\\udfff": ' + whole + b', "\\ud800": ' + whole + b"}"
    yield "hostile-id.json", json.dumps({"<b>\x1b[31m#../../x\n\u202e": json.loads(whole), "": {}}).encode()
    yield "nul.json", whole + b"\0"
    yield "not-utf8.json", whole.replace(b"train", b"tr\xe9in")
    yield "utf-16.json", whole.decode().encode("utf-16")
    yield "one-number.json", b"1" * 100_000
    yield "escapes.json", b'"' + b"\\u0000" * 12_000 + b'"'
    yield "orphan_solutions.json", b'{"a": [[[1]]], "b": 3}'
    yield "broken_challenges.json", b'{"a": ' + whole
    yield "broken_solutions.json", b'{"a": [[[1, 2], [3]]], "c": [[[1]]]}'


def parquet(table: pa.Table, **options: object) -> bytes:
    data = io.BytesIO()
    pq.write_table(table, data, **options)
    return data.getvalue()


def tables(rng: random.Random) -> Named:
    yield from csv_files(rng)
    yield from lines_of_json(rng)
    yield from parquet_files(rng)


def csv_files(rng: random.Random) -> Named:
    rows = "text,label\n" + "".join(f'"row {n}, quoted ""x""",class {n % 3}\n' for n in range(20))
    whole = rows.encode()
    yield "whole.csv", whole
    yield from truncated("rows.csv", whole, (0.3, 0.6))
    yield from flipped("rows.csv", whole, rng, 4)
    yield "open-quote.csv", whole + b'"never closed' + b" more" * 40_000
    yield "long-field.csv", b"text\n" + b"y" * 150_000 + b"\n"
    yield "100000-columns.csv", b"text," + b"c," * 100_000 + b"\n" + b"1," * 100_000 + b"\n"
    yield "ragged.csv", b"text,label\na\nb,c,d,e\n\n,\n"
    yield "header-alone.csv", b"text,label\n"
    yield "header-twice.csv", b"text,text\na,b\n"
    yield "no-header.csv", b"1,2\n3,4\n"
    yield "empty.csv", b""
    yield "nul.csv", b"text\na\0b\n"
    yield "latin-1.csv", "text\nd\xe9j\xe0\n".encode("latin-1")
    yield "carriage-returns.csv", b"text,label\ra,b\rc,d\r"
    yield "formulas.csv", b"text,label\n\"=cmd|'/C calc'!A0\",+1+1\n"
    yield "labels.csv", "text,label\na,<script>alert(1)</script>\nb,\x1b[31m\nc,\u202egpj\nd,../../etc\n".encode()
    yield (
        "paths.csv",
        b"image,label\n../../../../etc/passwd,a\n/dev/zero,b\nfile:///etc/passwd,c\nhttp://x/y.png,d\n,e\n",
    )
    yield "sudoku.csv", b"quizzes,solutions\n" + b"0" * 81 + b"," + b"1" * 80 + b"\nabc,def\n" + b"9" * 5000 + b",1\n"


def lines_of_json(rng: random.Random) -> Named:
    whole = b"".join(json.dumps({"text": f"line {n} ž", "label": f"c{n % 2}"}).encode() + b"\n" for n in range(30))
    packed = gzip.compress(whole, mtime=0)
    zstd = bytes(pa.compress(whole, codec="zstd", asbytes=True))
    yield "whole.jsonl", whole
    for name, data in (("lines.jsonl", whole), ("lines.jsonl.gz", packed), ("lines.jsonl.zst", zstd)):
        yield from truncated(name, data, (0.3, 0.9))
        yield from flipped(name, data, rng, 3)
    yield "broken-line.jsonl", whole + b'{"text": "open\n' + whole + b"null\n[1]\n7\n\n{}\n" + whole
    yield "deep-line.jsonl", whole + b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
    yield "surrogates.jsonl", b'{"text": "\\ud800 alone", "label": "\\udfff"}\n{"text": "ok", "label": "\\u0000"}\n'
    yield "types.jsonl", b'{"text": 1}\n{"text": null}\n{"text": ["a"]}\n{"text": "a", "label": {"b": 1}}\n'
    yield "huge-integer.jsonl", b'{"text": "a", "label": ' + b"9" * 100_000 + b"}\n"
    yield "keys-twice.jsonl", b'{"text": "a", "text": "b"}\n'
    yield "not-utf8.jsonl", whole + b'{"text": "\xff"}\n' + whole
    yield "nul.jsonl", bytes(5000)
    yield "images.jsonl", json.dumps({"image": base64.b64encode(b"no image").decode()}).encode() + b"\n"
    yield "wrong-sum.jsonl.gz", packed[:-8] + bytes(8)
    yield "twice.jsonl.gz", gzip.compress(packed, mtime=0)
    yield "garbage-after.jsonl.gz", packed + rng.randbytes(500)
    yield "no-gzip.jsonl.gz", whole
    member = gzip.compress(b"z" * 16 * MIB, mtime=0)
    yield "one-line-bomb.jsonl.gz", gzip.compress(b'{"text": "', mtime=0) + 64 * member
    yield "blank-lines-bomb.jsonl.gz", gzip.compress(b"\n" * 16 * MIB, mtime=0)
    frame = bytes(pa.compress(b"z" * 16 * MIB, codec="zstd", asbytes=True))
    yield "one-line-bomb.jsonl.zst", 64 * frame
    yield "text-bomb.txt.gz", 64 * member


def parquet_files(rng: random.Random) -> Named:
    words = pa.table({"text": [f"row {n}" for n in range(50)], "label": [f"c{n % 3}" for n in range(50)]})
    whole = parquet(words)
    yield "whole.parquet", whole
    yield from truncated("rows.parquet", whole, (0.3, 0.9))
    yield from flipped("rows.parquet", whole, rng, 8)
    yield "footer-outside.parquet", whole[:-8] + struct.pack("<I", 2**31) + b"PAR1"
    yield "marks-alone.parquet", b"PAR1PAR1"
    yield "no-rows.parquet", parquet(words.slice(0, 0))
    yield "no-columns.parquet", parquet(pa.table({}))
    yield "types.parquet", parquet(pa.table({"text": [1, 2], "label": [1.5, None]}))
    yield "lists.parquet", parquet(pa.table({"text": [["a", "b"], None]}))
    yield "nulls.parquet", parquet(pa.table({"text": pa.array([None, "a", None], pa.string())}))
    yield "broken-strings.parquet", parquet(pa.table({"text": pa.array([b"\xff\xfe", b"ok"]).view(pa.string())}))
    yield "images.parquet", parquet(pa.table({"image": [PHOTO.read_bytes()[:3000], b"", b"no image", None]}))
    yield "image-paths.parquet", parquet(pa.table({"image": [{"bytes": None, "path": "/etc/passwd"}]}))
    one = pa.array(["z" * 300 * MIB], pa.large_string())
    yield "long-text-bomb.parquet", parquet(pa.table({"text": one}), compression="zstd", use_dictionary=False)
    same = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2000, np.int32)), one)
    yield "dictionary-bomb.parquet", parquet(pa.table({"text": same}), compression="zstd")
