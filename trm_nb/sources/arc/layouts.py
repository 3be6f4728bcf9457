"""Which of the published layouts of ARC data a JSON value has: tasks, lists of pairs, single pairs or bare grids.

A task has `train` and `test`. Whatever else is read asks no question: the files of RE-ARC are lists of pairs, those of
Google Code Golf have a third list beside `train` and `test`, BARC has rows with `examples`, others have a pair per row.
Each may stand alone, by id, by split and id, or in a list. A value whose leaves are mostly cells of grids, in a layout
that is not known, raises ArcError, and the caller quarantines it. Everything else is not ARC.
Cost: one pass over the parsed value.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from trm_nb.sources.arc.tasks import ArcError, check_object, parse, stands_twice

_MAX_DEPTH = 4  # {"rows": [{"row": task}]}
_LISTS = ("train", "test", "examples", "pairs", "instances", "arc-gen", "arc_gen")  # names of lists of pairs
_GRIDS = ("grid", "grids", "input", "output")
_TASK_IDS = ("task_id", "taskId", "task_name", "puzzle_id", "problem_id")  # a pair in a row of its own belongs to it
IDS = (*_TASK_IDS, "id", "uuid", "name")
NAMES = (*_LISTS, *_GRIDS, "task")  # members that may hold their value as JSON in a string
MAX_VALUES = 10**6  # lists and objects in such a string
_HAS_GRID = re.compile(r"\[\s*\[\s*[0-9]")
_MANY = 5  # members that a message lists


@dataclass(frozen=True, slots=True)
class Leaf:
    """What one task gives, unchecked.

    `name` is its id ("" where the file holds nothing else). `task` is what `tasks.to_task` takes, None where there
    is no question. `pairs` are lists of pairs beside it, by name. `grids` are bare grids. `unknown` names members that
    hold grids in a layout that is not known. `group` is the id of the task that a single pair belongs to.
    """

    name: str
    task: Any = None
    pairs: Mapping[str, list[Any]] = field(default_factory=dict)
    grids: tuple[Any, ...] = ()
    unknown: tuple[str, ...] = ()
    group: str | None = None


def find(value: Any) -> list[Leaf] | None:
    """Everything that stands where a task should, in order; None: not ARC.

    Args:
        value: What `tasks.parse` returned. Lists and grids may be strings of JSON, as in exported tables.

    Returns:
        One leaf per task, list of pairs or grid. An id below a split is `split/id`, without an id it is the position.

    Raises:
        ArcError: For an id that occurs twice or is empty, and for grids in a layout that is not known.
    """
    if not isinstance(value, dict | list):
        return None
    parsed = _without_strings(value)
    leaves: list[Leaf] = []
    if _is_task(parsed) or _holds_task(parsed) or _mostly_grids(parsed):
        leaves = [found] if (found := _leaf("", parsed)) else list(_leaves(parsed, ""))
        if not leaves and isinstance(parsed, list) and all(is_grid(grid) for grid in parsed):
            leaves = [Leaf("", grids=tuple(parsed))]
        if not leaves and _mostly_grids(value):
            raise ArcError(f"JSON with grids in a form that is not known: {_described(value)}")
    if not leaves:
        return None
    names = Counter(leaf.name for leaf in leaves)
    if len(names) < len(leaves):
        raise ArcError(f"two tasks have the id {names.most_common(1)[0][0]!r}")
    if len(leaves) > 1 and "" in names:
        raise ArcError("a task's id is empty")
    return leaves


def _may_hold_grids(text: str) -> bool:
    """Whether JSON text can hold a grid at all; much cheaper than `find`."""
    return _HAS_GRID.search(text) is not None


def is_grid(value: Any) -> bool:
    """Whether a value is a list of equally long lists of integers 0 to 9, of any size."""
    if not (isinstance(value, list) and value and isinstance(value[0], list) and value[0]):
        return False
    width = len(value[0])
    return all(
        isinstance(row, list) and len(row) == width and set(map(type, row)) == {int} and 0 <= min(row) <= max(row) <= 9
        for row in value
    )


# -- one task --------------------------------------------------------------------------------------------------------


def _leaf(name: str, value: Any) -> Leaf | None:
    """The value as one task, list of pairs, pair or grid; None: it is none of them."""
    if isinstance(value, list):
        if (pairs := _pairs(value)) is not None:
            return Leaf(name, pairs={"": pairs})
        return Leaf(name, grids=(value,)) if is_grid(value) else None
    if not isinstance(value, dict):
        return None
    lists = {key: pairs for key, inner in value.items() if (pairs := _pairs(inner, key in _LISTS)) is not None}
    known = _is_task(value) or not lists.keys().isdisjoint(_LISTS)
    if stands_twice(value) is not None:
        return Leaf(name, task=value) if known or _is_pair(value) else None  # to_task names the key
    if known:
        unknown = tuple(
            key for key, inner in value.items() if key not in (*lists, "train", "test") and _any_grid(inner)
        )
        if "test" not in value:
            return Leaf(name, pairs=lists, unknown=unknown)
        further = {key: pairs for key, pairs in lists.items() if key not in ("train", "test")}
        return Leaf(name, task={**value, **lists}, pairs=further, unknown=unknown)
    if (pairs := _pairs(value)) is not None:
        return Leaf(name, pairs={"": pairs})
    if _is_pair(value):
        group = next((str(value[key]) for key in _TASK_IDS if isinstance(value.get(key), str | int)), None)
        return Leaf(name, pairs={"": [value]}, group=group)
    grids = [value["grid"]] if "grid" in value else value.get("grids")
    if isinstance(grids, list) and grids and all(is_grid(grid) for grid in grids):
        return Leaf(name, grids=tuple(grids))
    return None


def _is_task(value: Any) -> bool:
    """Meant as a task: `train` and `test`, and a list of pairs (or nothing) where the pairs belong."""
    if not (isinstance(value, dict) and "train" in value and "test" in value):
        return False
    parts = (value["train"], value["test"])
    if any(_pairs(part, named=True) is not None for part in parts):
        return True
    pairs = [pair for part in parts if isinstance(part, list) for pair in part]
    return parts == ([], []) or any(isinstance(pair, dict) and isinstance(pair.get("input"), list) for pair in pairs)


def _pairs(value: Any, named: bool = False) -> list[Any] | None:
    """A list of {"input", "output"} out of a list of them, two parallel lists or, if `named`, a list of two grids each.

    Not every one has to be a pair: which are not, checking them says.
    """
    if isinstance(value, list):
        if any(_is_pair(pair) for pair in value):
            return value
        if named and value and all(isinstance(pair, list) and len(pair) == 2 and is_grid(pair[0]) for pair in value):
            return [{"input": one, "output": other} for one, other in value]
        return None
    if isinstance(value, dict) and stands_twice(value) is None:
        inputs, outputs = value.get("input"), value.get("output")
        if isinstance(inputs, list) and inputs and all(is_grid(grid) for grid in inputs):
            if not isinstance(outputs, list) or not outputs:
                return [{"input": grid} for grid in inputs]
            if len(outputs) == len(inputs):
                return [{"input": one, "output": other} for one, other in zip(inputs, outputs, strict=True)]
    return None


def _is_pair(value: Any) -> bool:
    if not (isinstance(value, dict) and is_grid(value.get("input"))):
        return False
    return value.get("output") is None or is_grid(value["output"])


# -- many tasks ------------------------------------------------------------------------------------------------------


def _holds_task(value: dict[str, Any] | list[Any], depth: int = _MAX_DEPTH) -> bool:
    """Whether a task with a pair in it stands so many levels deep."""
    if isinstance(value, dict):
        if _is_task(value) and (value["train"] or value["test"]):
            return True
        value = list(value.values())
    return depth > 1 and any(_holds_task(inner, depth - 1) for inner in value if isinstance(inner, dict | list))


def _leaves(value: Any, prefix: str, depth: int = _MAX_DEPTH) -> Iterator[Leaf]:
    """The leaves of a container. What has no grids is a description, unless it stands among tasks: then it is none."""
    if isinstance(value, dict):
        check_object(value, prefix or "the file")
    members = [(key, inner, _leaf(prefix + key, inner)) for key, inner in _members(value)]
    found = [leaf for _, inner, leaf in members if leaf is not None and not is_grid(inner)]
    deeper = {
        key: leaves
        for key, inner, leaf in members
        if leaf is None and depth > 1 and (leaves := list(_leaves(inner, f"{prefix}{key}/", depth - 1)))
    }
    if not found and not deeper:
        return  # bare grids, of which nobody knows what their names mean
    for key, inner, leaf in members:
        if leaf is not None:
            yield leaf
        elif key in deeper:
            yield from deeper[key]
        elif _any_grid(inner):
            yield Leaf(prefix + key, unknown=("",))
        elif len(found) > 1:
            yield Leaf(prefix + key, task=inner)


def _members(value: Any) -> list[tuple[str, Any]]:
    """An object's members, or a list's elements by their ids where each has one of its own, else by their position."""
    if isinstance(value, dict):
        return list(value.items())
    if not isinstance(value, list) or not any(isinstance(inner, dict | list) for inner in value):
        return []
    for key in IDS:
        ids = [str(inner[key]) for inner in value if isinstance(inner, dict) and isinstance(inner.get(key), str | int)]
        if len(set(ids)) == len(value) and "" not in ids:
            return list(zip(ids, value, strict=True))
    return [(str(number), inner) for number, inner in enumerate(value)]


# -- grids anywhere --------------------------------------------------------------------------------------------------


def _mostly_grids(value: Any) -> bool:
    """Whether more than half of all leaves are cells of grids."""
    cells, others = _counted(value)
    return cells > others


def _any_grid(value: Any) -> bool:
    return _counted(value)[0] > 0


def _counted(value: Any) -> tuple[int, int]:
    """Cells of grids and other leaves. No recursion: JSON may be nested as deeply as Python's stack."""
    stack, cells, others = [[value]], 0, 0
    while stack:
        for inner in stack.pop():
            if isinstance(inner, dict):
                stack.append(list(inner.values()))
            elif not isinstance(inner, list):
                others += 1
            elif is_grid(inner):
                cells += len(inner) * len(inner[0])
            elif not any(issubclass(kind, list | dict) for kind in set(map(type, inner))):
                others += len(inner)
            else:
                stack.append(inner)
    return cells, others


def _without_strings(value: Any) -> Any:
    """The value with its lists and grids that are JSON in a string parsed; in a list, those of each element."""
    if isinstance(value, list):
        return [_without_strings(inner) if isinstance(inner, dict) else inner for inner in value]
    if not isinstance(value, dict) or stands_twice(value) is not None:
        return value
    return {key: _from_string(inner) if key in NAMES else inner for key, inner in value.items()}


def _from_string(value: Any) -> Any:
    """What a string of JSON holds, or of Python's notation for the same; the value itself where there is no grid."""
    if not isinstance(value, str) or not _may_hold_grids(value) or value.count("[") + value.count("{") > MAX_VALUES:
        return value
    for text in (value, value.replace("'", '"')):
        try:
            return parse(text)
        except ArcError:
            continue
    return value


def _described(value: Any, depth: int = 2) -> str:
    """What a value is, for a message: its kind and, so many levels deep, its first members."""
    if is_grid(value):
        return f"a grid of {len(value)}x{len(value[0])}"
    if isinstance(value, list):
        first = f", the first {_described(value[0], depth - 1)}" if value and depth else ""
        return f"a list of {len(value)}{first}"
    if not isinstance(value, dict):
        return type(value).__name__
    shown = [(repr(str(key)[:40]), inner) for key, inner in list(value.items())[:_MANY]]
    names = [f"{key}: {_described(inner, depth - 1)}" if depth else key for key, inner in shown]
    return f"an object of {', '.join(names)}" + (f" and {len(value) - _MANY} more" if len(value) > _MANY else "")
