"""The layouts in which ARC data is published: what each becomes, what is refused, and that nothing is left out."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.pipeline.splits import group_of
from trm_nb.records import GridTask, Item, Rejected
from trm_nb.render.grid import GridRenderer
from trm_nb.render.renderer import Renderer
from trm_nb.sources.arc.items import PAIRS, TASK_PAIRS
from trm_nb.sources.reader import Entry, Skipped, scan

G, H = [[0, 1], [2, 3]], [[4, 4, 4], [5, 5, 5]]
PAIR = {"input": G, "output": H}
TASK = {"train": [PAIR, PAIR], "test": [PAIR]}
BARC = {"source": "def main(): ...", "examples": [[G, H], [H, G]], "seeds": ["a.py"]}
PARALLEL = {"input": [G, H], "output": [H, G]}


def numbered(count: int) -> list[dict[str, Any]]:
    """Pairs that all differ."""
    return [{"input": [[n % 10, n // 10 % 10]], "output": [[n // 100 % 10], [n % 7]]} for n in range(count)]


def entries(path: Path, **fields: Any) -> list[Entry]:
    config = MultimodalDatasetConfig(source_paths=[str(path)], output_dir="unused", **fields)
    return [entry for reading in scan(config) for entry in reading.entries]


def summary(found: list[Entry], path: Path) -> dict[str, Any]:
    """Each entry's id below its file: (pairs, test inputs, test outputs), a grid's shape, a modality or a reason."""
    told: dict[str, Any] = {}
    for entry in found:
        name = entry.item_id if isinstance(entry, Item) else entry.path
        value: Any = entry.modality if isinstance(entry, Item) else entry.reason
        if isinstance(entry, Item) and isinstance(entry.payload, GridTask):
            task = entry.payload
            value = (len(task.train), len(task.test_inputs), len(task.test_outputs))
        elif isinstance(entry, Item) and isinstance(entry.payload, np.ndarray):
            value = entry.payload.shape
        told[name.removeprefix(f"{path.parent.name}/{path.name}").removeprefix("#")] = value
    assert len(told) == len(found), "ids are unique"
    return told


def written(folder: Path, name: str, data: Any) -> Path:
    path = folder / name
    if name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in data))
    elif name.endswith(".csv"):
        with path.open("w", newline="") as file:
            rows = csv.DictWriter(file, list(data[0]))
            rows.writeheader()
            rows.writerows(data)
    elif name.endswith(".parquet"):
        pq.write_table(data if isinstance(data, pa.Table) else pa.Table.from_pylist(data), path)
    else:
        path.write_text(json.dumps(data))
    return path


# ------------------------------------------------------------------------------------- what is read

LAYOUTS = [
    pytest.param(TASK, {"": (2, 1, 1)}, id="task"),
    pytest.param({**TASK, "id": "x", "metadata": {"size": [3, 4]}}, {"": (2, 1, 1)}, id="task with more keys"),
    pytest.param([PAIR] * 3, {"": (3, 0, 0)}, id="list of pairs (RE-ARC)"),
    pytest.param({**TASK, "arc-gen": [PAIR] * 5}, {"": (2, 1, 1), "arc-gen": (5, 0, 0)}, id="third list (Code Golf)"),
    pytest.param({**TASK, "any name": [PAIR]}, {"": (2, 1, 1), "any name": (1, 0, 0)}, id="third list of any name"),
    pytest.param({"a": TASK, "b": TASK}, {"a": (2, 1, 1), "b": (2, 1, 1)}, id="tasks by id"),
    pytest.param(
        {"training": {"a": TASK}, "evaluation": {"b": TASK}},
        {"training/a": (2, 1, 1), "evaluation/b": (2, 1, 1)},
        id="tasks by split and id",
    ),
    pytest.param([TASK, TASK], {"0": (2, 1, 1), "1": (2, 1, 1)}, id="list of tasks"),
    pytest.param(
        [{**TASK, "id": "a"}, {**TASK, "id": "b"}], {"a": (2, 1, 1), "b": (2, 1, 1)}, id="list of tasks with ids"
    ),
    pytest.param(
        [{**TASK, "id": "a"}, {**TASK, "id": "a"}], {"0": (2, 1, 1), "1": (2, 1, 1)}, id="list of tasks, one id"
    ),
    pytest.param({"version": 1, "tasks": [TASK]}, {"tasks/0": (2, 1, 1)}, id="tasks below a key"),
    pytest.param({"train": [TASK], "test": [TASK]}, {"train/0": (2, 1, 1), "test/0": (2, 1, 1)}, id="tasks by split"),
    pytest.param({"id": "x", "task": TASK}, {"task": (2, 1, 1)}, id="task below a key"),
    pytest.param(
        {"rows": [{"row_idx": 0, "row": TASK, "truncated_cells": []}]}, {"rows/0/row": (2, 1, 1)}, id="dataset viewer"
    ),
    pytest.param({"a": [PAIR], "b": [PAIR] * 2}, {"a": (1, 0, 0), "b": (2, 0, 0)}, id="lists of pairs by id"),
    pytest.param({"a": TASK, "b": [PAIR] * 2}, {"a": (2, 1, 1), "b": (2, 0, 0)}, id="tasks and lists of pairs"),
    pytest.param({"train": [PAIR]}, {"train": (1, 0, 0)}, id="train alone"),
    pytest.param({"instances": [PAIR]}, {"instances": (1, 0, 0)}, id="instances (ARC-GEN)"),
    pytest.param(BARC, {"examples": (2, 0, 0)}, id="pairs as lists of two grids (BARC)"),
    pytest.param({"train": PARALLEL, "test": {"input": [G], "output": [H]}}, {"": (2, 1, 1)}, id="parallel lists"),
    pytest.param({"train": [PAIR], "test": {"input": [G]}}, {"": (1, 1, 0)}, id="parallel lists, no answer"),
    pytest.param({"train": [PAIR], "test": [{"input": G, "output": None}]}, {"": (1, 1, 0)}, id="answer is null"),
    pytest.param({**TASK, "train": json.dumps([PAIR])}, {"": (1, 1, 1)}, id="list as a string"),
    pytest.param({**TASK, "train": str([PAIR])}, {"": (1, 1, 1)}, id="list as a string of Python"),
    pytest.param(PAIR, {"": (1, 0, 0)}, id="one pair"),
    pytest.param(PARALLEL, {"": (2, 0, 0)}, id="parallel lists alone"),
    pytest.param(G, {"": (2, 2)}, id="grid"),
    pytest.param([[7] * 40] * 35, {"": (35, 40)}, id="grid above 30x30"),
    pytest.param([G, H], {"0": (2, 2), "1": (2, 3)}, id="list of grids"),
    pytest.param({"id": 3, "grid": H}, {"": (2, 3)}, id="grid below its key"),
    pytest.param([{"grid": H, "id": 3}, {"grid": H, "id": 4}], {"3": (2, 3), "4": (2, 3)}, id="list of such"),
]


@pytest.mark.parametrize(("value", "expected"), LAYOUTS)
def test_layouts(tmp_path: Path, value: Any, expected: dict[str, Any]) -> None:
    path = written(tmp_path, "t.json", value)
    assert summary(entries(path.parent), path) == expected


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        pytest.param("t.jsonl", [{"id": "a", **TASK}] * 2, {"0": (2, 1, 1), "1": (2, 1, 1)}, id="jsonl of tasks"),
        pytest.param("t.jsonl", [BARC] * 2, {"0/examples": (2, 0, 0), "1/examples": (2, 0, 0)}, id="jsonl of BARC"),
        pytest.param("t.jsonl", [[PAIR] * 2, [PAIR]], {"0": (2, 0, 0), "1": (1, 0, 0)}, id="jsonl of lists"),
        pytest.param("t.jsonl", [PAIR] * 2, {"0": (1, 0, 0), "1": (1, 0, 0)}, id="jsonl of pairs"),
        pytest.param("t.jsonl", [{"grid": G}, {"grid": H}], {"0": (2, 2), "1": (2, 3)}, id="jsonl of grids"),
        pytest.param(
            "t.jsonl", [{"text": "a prompt", **TASK}] * 2, {"0": (2, 1, 1), "1": (2, 1, 1)}, id="tasks beside a text"
        ),
        pytest.param(
            "t.jsonl", [{"text": "words", "grid": G}] * 2, {"0": "text", "1": "text"}, id="text beside a grid"
        ),
        pytest.param(
            "t.jsonl",
            [TASK, {"id": 1}, {**TASK, "test": []}],
            {
                "0": (2, 1, 1),
                "1": "no task, no list of pairs and no grid in this row",
                "2": "test: expected a list of at least one pair, got none",
            },
            id="jsonl with bad rows",
        ),
        pytest.param(
            "t.csv", [{"id": "a", **{key: json.dumps(TASK[key]) for key in TASK}}], {"0": (2, 1, 1)}, id="csv"
        ),
        pytest.param("t.csv", [{"id": "a", **TASK}], {"0": (2, 1, 1)}, id="csv in Python's notation"),
        pytest.param("t.parquet", [{"id": "a", **TASK}] * 40, {str(n): (2, 1, 1) for n in range(40)}, id="parquet"),
        pytest.param(
            "t.parquet", [{key: json.dumps(TASK[key]) for key in TASK}], {"0": (2, 1, 1)}, id="parquet of strings"
        ),
        pytest.param(
            "t.parquet", [{"train": PARALLEL, "test": {"input": [G], "output": [H]}}], {"0": (2, 1, 1)}, id="sequence"
        ),
        pytest.param("t.parquet", [BARC], {"0/examples": (2, 0, 0)}, id="parquet of BARC"),
        pytest.param("t.parquet", [PAIR] * 2, {"0": (1, 0, 0), "1": (1, 0, 0)}, id="parquet of pairs"),
    ],
)
def test_tables(tmp_path: Path, name: str, rows: Any, expected: dict[str, Any]) -> None:
    path = written(tmp_path, name, rows)
    assert summary(entries(path.parent), path) == expected


@pytest.mark.parametrize(
    "grid",
    [pa.list_(pa.list_(pa.uint8(), 2), 2), pa.large_list(pa.large_list(pa.int32())), pa.list_(pa.list_(pa.int64()))],
    ids=["fixed size", "large", "plain"],
)
def test_types_of_lists_in_parquet(tmp_path: Path, grid: pa.DataType) -> None:
    pairs = pa.list_(pa.struct([("input", grid), ("output", grid)]))
    square = {"input": G, "output": [[9, 8], [7, 6]]}
    table = pa.table({"train": pa.array([[square]], pairs), "test": pa.array([[square]], pairs), "kind": ["x"]})
    (item,) = entries(written(tmp_path, "t.parquet", table), label_column="kind")
    assert isinstance(item, Item) and isinstance(item.payload, GridTask)
    assert (item.label, item.payload.test_outputs[0].tolist()) == ("x", [[9, 8], [7, 6]])


def test_labels_and_grids_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, "t.jsonl", [{**TASK, "kind": 7}])
    (item,) = entries(path, label_column="kind")
    assert isinstance(item, Item) and item.label == "7"
    (refused,) = entries(path, label_column="sort")
    assert isinstance(refused, Rejected) and refused.reason == "no column 'sort': it has train, test, kind"
    (skipped,) = entries(path, include_grids=False)
    assert isinstance(skipped, Skipped)


def test_columns_that_the_config_names_win(tmp_path: Path) -> None:
    path = written(tmp_path, "t.jsonl", [{"prompt": "words", **TASK}])
    assert summary(entries(path, text_column="prompt"), path) == {"0": "text"}


# ------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(
            {"before": G, "after": H},
            {
                "": "JSON with grids in a form that is not known: "
                "an object of 'before': a grid of 2x2, 'after': a grid of 2x3"
            },
            id="grids by unknown names",
        ),
        pytest.param(
            {"00576224": [{"attempt_1": G, "attempt_2": H}]},
            {
                "": "JSON with grids in a form that is not known: "
                "an object of '00576224': a list of 1, the first an object of 'attempt_1', 'attempt_2'"
            },
            id="submission",
        ),
        pytest.param(
            {"a": [G, H]},
            {"": "JSON with grids in a form that is not known: an object of 'a': a list of 2, the first"},
            id="answers under another name",
        ),
        pytest.param(
            [[G, H], [G, H]],
            {"": "JSON with grids in a form that is not known: a list of 2, the first"},
            id="lists of two",
        ),
        pytest.param(
            {**TASK, "solution": H},
            {"": (2, 1, 1), "solution": "grids in a form that is not known: expected pairs of input and output"},
            id="more grids in a task",
        ),
        pytest.param(
            {"a": TASK, "b": TASK, "c": [G], "d": 3},
            {
                "a": (2, 1, 1),
                "b": (2, 1, 1),
                "c": "grids in a form that is not known: expected pairs of input and output",
                "d": "task: expected an object, got int",
            },
            id="among tasks",
        ),
        pytest.param(
            [PAIR, {"input": [[10]], "output": G}, PAIR, {"input": G}, 7],
            {
                "": (2, 0, 0),
                "1": "pair 1.input, row 0, column 0: expected an integer 0 to 9, got '10'",
                "3": "pair 3: 'output' is missing",
                "4": "pair 4: expected an object, got int",
            },
            id="bad pairs in a list",
        ),
        pytest.param(
            {**TASK, "arc-gen": [{"input": G, "output": [[0] * 31]}, PAIR]},
            {
                "": (2, 1, 1),
                "arc-gen": (1, 0, 0),
                "arc-gen/0": "pair 0.output, row 0: expected 1 to 30 cells, got 31 cells",
            },
            id="bad pair in a third list",
        ),
        pytest.param(
            {"test": [PAIR]}, {"": "train: expected a list of at least one pair, got nothing"}, id="test alone"
        ),
        pytest.param({"weights": [[0.5, 1], [2, 3]], "name": "x"}, {"": "text"}, id="numbers that are no grid"),
        pytest.param(
            {"name": "board", "author": "me", "year": 2024, "tags": ["a", "b"], "size": [[8, 8]]},
            {"": "text"},
            id="a small table among much else",
        ),
        pytest.param([{"train": [], "test": []}, {"loss": [1, 2]}], {"": "text"}, id="a log of two losses"),
        pytest.param(
            {"prompt": "What comes next?", "input": "Solve [[1, 2]]", "output": "[[2, 1], [1, 2]]"},
            {"": "text"},
            id="a prompt with a grid",
        ),
        pytest.param(
            [{"input": [[1, 2]], "output": [[2]], "code": "x", "a": 1, "b": 2, "c": 3}], {"": "text"}, id="a unit test"
        ),
        pytest.param([[1, 20], [3, 4]], {"": "text"}, id="a matrix of larger numbers"),
    ],
)
def test_refused_and_not_arc(tmp_path: Path, value: Any, expected: dict[str, Any]) -> None:
    path = written(tmp_path, "t.json", value)
    found = summary(entries(path.parent), path)
    assert found.keys() == expected.keys()
    for name, told in expected.items():
        assert found[name].startswith(told) if isinstance(told, str) else found[name] == told


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
def test_a_table_of_grids_in_an_unknown_layout(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, [{"before": G, "after": H}] * 3)
    told = "row 0: JSON with grids in a form that is not known: an object of 'before': a grid of 2x2, 'after': a grid"
    assert summary(entries(path), path)[""].startswith(told)


def test_a_bomb_in_a_nested_column(tmp_path: Path) -> None:
    """A few kilobytes that are one list of eight million numbers."""
    count = 2**23
    cells = pa.array(np.zeros(count, np.int64))
    rows = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), cells)
    column = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), rows)
    path = written(tmp_path, "t.parquet", pa.table({"train": column, "test": [[[0]]]}))
    assert path.stat().st_size < 10_000
    (refused,) = entries(path)
    assert isinstance(refused, Rejected)
    assert "cannot be read" in refused.reason or "too large" in refused.reason


# ------------------------------------------------------------------------------------- many pairs


@pytest.mark.parametrize(
    ("value", "names"),
    [
        pytest.param(numbered(250), ["0-99", "100-199", "200-249"], id="list of pairs"),
        pytest.param(
            {**TASK, "arc-gen": numbered(250)},
            ["", "arc-gen/0-99", "arc-gen/100-199", "arc-gen/200-249"],
            id="third list",
        ),
        pytest.param({**TASK, "train": numbered(250)}, ["", "train/200-249"], id="demonstrations"),
    ],
)
def test_no_pair_is_lost_and_all_are_in_one_group(tmp_path: Path, value: Any, names: list[str]) -> None:
    assert (PAIRS, TASK_PAIRS) == (100, 200)
    groups = set()
    for number in range(6):  # a last pair that differs, so that their groups do too
        last = {"input": [[9] * 9], "output": [[number % 10] * 9] * 9}
        path = written(tmp_path, f"{number}.json", [last, *value] if isinstance(value, list) else _with(value, last))
    for path in sorted(tmp_path.iterdir()):
        items = [entry for entry in entries(path) if isinstance(entry, Item)]
        of_file = {group_of(item, 0) for item in items}
        assert len(of_file) == len({group_of(item, 0, forms_count=False) for item in items}) == 1
        groups |= of_file
    assert len(groups) == 6
    path = written(tmp_path, "t.json", value)
    found = entries(path)
    assert list(summary(found, path)) == names
    rendered = Counter(
        grid.tobytes() + bytes(grid.shape)
        for item in found
        if isinstance(item, Item)
        for page in Renderer().rasterise(Renderer().samples(item))[0]
        for grid in GridRenderer(224).decode_all(page)
    )
    pairs = value if isinstance(value, list) else [pair for part in value.values() for pair in part]
    grids = [np.array(pair[name], np.int64) for pair in pairs for name in ("input", "output")]
    missing = Counter(grid.tobytes() + bytes(grid.shape) for grid in grids) - rendered
    assert sum(missing.values()) == (0 if isinstance(value, list) else len(TASK["test"])), (
        "only answers are not rendered"
    )


def _with(task: dict[str, Any], pair: dict[str, Any]) -> dict[str, Any]:
    return {**task, "train": [pair, *task["train"]]}


def test_pairs_in_rows_of_their_own_are_split_by_their_task(tmp_path: Path) -> None:
    rows = [{"task_id": f"t{n // 20}", **pair} for n, pair in enumerate(numbered(200))]
    items = [entry for entry in entries(written(tmp_path, "t.jsonl", rows)) if isinstance(entry, Item)]
    groups = [{group_of(item, 0) for item in items[first : first + 20]} for first in range(0, 200, 20)]
    assert all(len(of) == 1 for of in groups) and len(set.union(*groups)) == 10
