"""Which samples are for training, validation and test: whole groups of items, stratified by label.

Items that must not be in two splits (copies, the items of one task, puzzles of one solution) form a group, which is
named by a seeded hash of what they have in common. When the plan is complete, the groups of each label are ordered by
that hash; the first ones are for test, the next ones for validation, the others for training. So the splits follow from
the content, the labels and the seed alone, not from the order in which sources are read.
Cost: a hash for each item, and one pass over the tracker's rows in SQL; the numbers of groups are held by label.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from trm_nb.progress.plan_tables import PlanTables
from trm_nb.records import GridTask, Item, Puzzle
from trm_nb.render.modalities import MODALITIES, kind_of
from trm_nb.sources.arc.augment import common_form
from trm_nb.sources.puzzles.sudoku import relabelled


def group_of(item: Item, seed: int, *, names_count: bool = True, forms_count: bool = True) -> str:
    """The name of an item's group, 16 hexadecimal digits: equal for items that have to be in one split.

    Items with equal content are in one group, and so are items that belong together (`split_as`) and puzzles with equal
    solutions.

    Args:
        item: of a source.
        seed: of the run; groups come in another order with another seed.
        names_count: False: Sudokus whose solutions differ in the names of the digits alone are in one group too.
        forms_count: False: all forms of an ARC task (sources/arc/augment.py) are in one group too.
    """
    digest = hashlib.blake2b(seed.to_bytes(8, "little"), digest_size=8)
    for part in _content(item, names_count, forms_count):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _content(item: Item, names_count: bool, forms_count: bool) -> Iterable[bytes]:
    payload = item.payload if item.split_as is None else item.split_as
    if not forms_count and isinstance(payload, GridTask):
        return [common_form(payload)]
    if not names_count and isinstance(payload, Puzzle) and payload.kind == "sudoku":
        board = payload.puzzle if payload.solution is None else payload.solution
        payload = replace(payload, solution=relabelled(board))
    kind = kind_of(payload)
    assert kind is not None, f"{item.item_id}: no modality takes a payload of {type(payload).__name__}"
    return MODALITIES[kind].split_content(payload)


def assign_splits(tracker: PlanTables, test_fraction: float, val_fraction: float) -> None:
    """Give each row of a complete plan its split."""
    tracker.set_splits(quotas(tracker.groups_by_label(), test_fraction, val_fraction))


def quotas(
    groups: Iterable[tuple[str | None, int]], test_fraction: float, val_fraction: float
) -> Iterator[tuple[str | None, int, int]]:
    """How many groups of each label are for test and for validation.

    Each number differs from its fraction of the label's groups by less than one. What is lost in rounding is made up
    for in the next labels, so that many small labels together have the right share too. At least one group of each
    label is for training.

    Args:
        groups: label and number of groups, in an order that does not depend on how the run was made.
        test_fraction, val_fraction: of the groups, less than 1 together.

    Yields:
        label, groups for test, groups for validation.
    """
    missing = [0.0, 0.0]  # groups that the labels so far have too few of
    for label, count in groups:
        left, given = count - 1, []
        for n, fraction in enumerate((test_fraction, val_fraction)):
            wanted = fraction * count
            most = min(left, math.ceil(wanted))
            taken = min(most, max(math.floor(wanted), math.floor(wanted + missing[n] + 0.5)))
            missing[n] = min(1.0, missing[n] + wanted - taken)
            left -= taken
            given.append(taken)
        yield label, given[0], given[1]
