"""ARC data in JSON: parse it, check every cell, and say where one is wrong.

Which layout a value has, `layouts.py` decides. The standard library's parser is enough: 400 tasks take well under a
second, and the check of every cell is what costs. No value is repaired: a grid is right, or its task or its pair is
refused.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from trm_nb.records import GridTask
from trm_nb.render.grid import MAX_SIDE

COLOURS = 10
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


def parse_object(text: str, lists: bool = False) -> dict[str, Any]:
    """The JSON object of `text`, each key once; raises ArcError as `parse`, and for any other value.

    With `lists`, a list comes as the one member of an object, with an empty name.
    """
    value = _parse(text, _any_integer)
    if lists and isinstance(value, list):
        return {"": value}
    check_object(value, "the row")
    assert isinstance(value, dict)
    return value


def find_answers(value: Any) -> dict[str, Any] | None:
    """Kaggle's solutions, id -> list of grids, to be checked by `to_task`; None: something else."""
    if isinstance(value, dict) and any(_is_list_of_grids(v) for v in value.values()):
        check_object(value, "the file")
        return value
    return None


def to_task(value: Any, answers: Any = None) -> GridTask:
    """A checked task: int8 grids of 1..30 x 1..30 cells of 0..9. Raises ArcError naming the place.

    `answers` (a list of grids, one a test input) stand in for outputs that the tests do not hold themselves.
    """
    check_object(value, "task")
    train = [to_pair(pair, f"train[{i}]") for i, pair in enumerate(_pairs(value, "train"))]
    tests = _pairs(value, "test")
    inputs = [_grid(pair, "input", f"test[{i}]") for i, pair in enumerate(tests)]
    answered = [isinstance(pair, dict) and pair.get("output") is not None for pair in tests]
    outputs: list[np.ndarray] = []
    if any(answered):
        outputs = [_grid(pair, "output", f"test[{i}]") for i, pair in enumerate(tests)]
    elif answers is not None:
        if not isinstance(answers, list) or len(answers) != len(inputs):
            count = len(answers) if isinstance(answers, list) else 0
            raise ArcError(f"solutions: expected {len(inputs)} answers, one a test input, got {count}")
        outputs = [check_grid(grid, f"solutions[{i}]") for i, grid in enumerate(answers)]
    return GridTask(tuple(train), tuple(inputs), tuple(outputs))


def to_pair(value: Any, place: str) -> tuple[np.ndarray, np.ndarray]:
    """The checked input and output of a pair, int8 (rows, columns) each. Raises ArcError naming the place."""
    return _grid(value, "input", place), _grid(value, "output", place)


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


def check_object(value: Any, place: str) -> None:
    """Raise ArcError, naming the place, for a value that is no object, and for one in which a key stands twice."""
    if not isinstance(value, dict):
        raise ArcError(f"{place}: expected an object, got {type(value).__name__}")
    if isinstance(value, _Twice):
        raise ArcError(f"{place}: the key {value.key!r} stands twice")


def stands_twice(value: dict[str, Any]) -> str | None:
    """The key that stood twice in a parsed object, None where there is none."""
    return value.key if isinstance(value, _Twice) else None


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


def _is_list_of_grids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_list_of_lists(grid) for grid in value)


def _is_list_of_lists(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], list)


def _pairs(task: dict[str, Any], part: str) -> list[Any]:
    pairs = task.get(part)
    if not isinstance(pairs, list) or not pairs:
        got = "none" if pairs == [] else "nothing" if pairs is None else type(pairs).__name__
        raise ArcError(f"{part}: expected a list of at least one pair, got {got}")
    return pairs


def _grid(pair: Any, name: str, place: str) -> np.ndarray:
    check_object(pair, place)
    if pair.get(name) is None:
        raise ArcError(f"{place}: {name!r} is missing")
    return check_grid(pair[name], f"{place}.{name}")
