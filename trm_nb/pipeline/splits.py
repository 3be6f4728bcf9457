"""Which split an item is in, by its content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from trm_nb.records import GridTask, Item, Puzzle
from trm_nb.render.modalities import MODALITIES, kind_of
from trm_nb.sources.arc.augment import common_form
from trm_nb.sources.puzzles.sudoku import relabelled


def split_of(item: Item, seed: int, test_fraction: float, *, names_count: bool = True, forms_count: bool = True) -> str:
    """ "train" or "test", from the item's content: copies of one document never straddle the two.

    Items that belong together (`split_as`) are on one side. Puzzles go by their solution; unless `names_count`, Sudokus
    whose solutions differ only in the names of digits are on one side too, and unless `forms_count` all forms of an ARC
    task (sources/arc/augment.py).
    """
    digest = hashlib.blake2b(seed.to_bytes(8, "little"), digest_size=8)
    for part in _content(item, names_count, forms_count):
        digest.update(len(part).to_bytes(8, "little") + part)
    return "test" if int.from_bytes(digest.digest(), "big") < test_fraction * 2**64 else "train"


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
