"""What `layouts` finds -> items: a task, the pairs beside it or without one, bare grids.

Pairs without a question become items of at most 100 demonstration pairs, so that memory and the time to pack an image
do not follow from the length of a list. All items of one task are in one split, that of the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from trm_nb.records import GridTask, Item, Payload, Rejected
from trm_nb.sources.arc.layouts import Leaf
from trm_nb.sources.arc.tasks import ArcError, to_pair, to_task
from trm_nb.sources.roots import printable

PAIRS = 100  # of an item without a question
TASK_PAIRS = 200  # demonstrations that stay beside a task's question; more are pairs without one


def arc_items(
    leaves: Iterable[Leaf],
    name: str,
    source: str,
    label: str | None,
    answers: Mapping[str, Any] | None = None,
    below: str = "#",
) -> Iterator[Item | Rejected]:
    """The items of these leaves in their order, and what is refused.

    Args:
        leaves: What one file or one row holds.
        name: Begins the items' ids; after `below`, the names of the leaf and of the list follow, where there are any.
        source: The file, as `Item.source` has it.
        label: The class of all items.
        answers: Lists of test outputs by the name of the leaf, where they are in a file of their own.
        below: What separates `name` from the names that follow.
    """
    seen: set[str] = set()
    for leaf in leaves:
        first: Payload | None = None if leaf.group is None else f"task {leaf.group}"
        for path, payload in _payloads(leaf, (answers or {}).get(leaf.name)):
            item_id = "/".join(part for part in (leaf.name, path) if part)
            item_id = f"{name}{below}{printable(item_id)}" if item_id else name
            if isinstance(payload, str):
                yield Rejected(item_id, printable(payload, also=""))
            elif item_id in seen:
                yield Rejected(item_id, "another item of this file has the same id")
            else:
                seen.add(item_id)
                item = Item(item_id, "grid", payload, source, label)
                yield item if first is None else replace(item, split_as=first)
                first = payload if first is None else first


def _payloads(leaf: Leaf, answers: Any) -> Iterator[tuple[str, GridTask | np.ndarray | str]]:
    """Payloads with what their ids end in; a str is the reason why there is none."""
    further = dict(leaf.pairs)
    if leaf.task is not None:
        try:
            task = to_task(leaf.task, answers)
        except ArcError as error:
            yield "", str(error)
        else:
            yield "", replace(task, train=task.train[:TASK_PAIRS])
            if len(task.train) > TASK_PAIRS:
                further = {"train": leaf.task["train"], **further}
    for name, pairs in further.items():
        done = TASK_PAIRS if leaf.task is not None and name == "train" else 0
        yield from _chunks(name, pairs, done)
    for number, grid in enumerate(leaf.grids):
        yield (str(number) if len(leaf.grids) > 1 else ""), np.array(grid, np.int8)
    for name in leaf.unknown:
        yield name, "grids in a form that is not known: expected pairs of input and output"


def _chunks(name: str, pairs: list[Any], done: int) -> Iterator[tuple[str, GridTask | str]]:
    """The pairs from `done` on, so many at a time; each that is refused, alone."""
    for start in range(done, len(pairs), PAIRS):
        stop = min(start + PAIRS, len(pairs))
        checked = []
        for number in range(start, stop):
            try:
                checked.append(to_pair(pairs[number], f"pair {number}"))
            except ArcError as error:
                yield "/".join(part for part in (name, str(number)) if part), str(error)
        if checked:
            part = f"{start}-{stop - 1}" if len(pairs) > PAIRS else ""
            yield "/".join(p for p in (name, part) if p), GridTask(tuple(checked), ())
