"""Which split an item is in, by its content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from trm_nb.records import GridTask, ImageBytes, ImageFile, Item, Puzzle
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


def _content(item: Item, names_count: bool, forms_count: bool) -> Iterator[bytes]:
    payload = item.payload if item.split_as is None else item.split_as
    if isinstance(payload, str):
        yield payload.encode("utf-8", "surrogatepass")
    elif isinstance(payload, ImageFile):
        yield payload.sha256.encode()
    elif isinstance(payload, ImageBytes):
        yield payload.data
    elif isinstance(payload, GridTask) and not forms_count:
        yield common_form(payload)
    else:
        if isinstance(payload, GridTask):
            grids = [g for pair in payload.train for g in pair] + [*payload.test_inputs]
        elif isinstance(payload, Puzzle):
            board = payload.puzzle if payload.solution is None else payload.solution
            grids = [board if names_count or payload.kind != "sudoku" else relabelled(board)]
        else:
            grids = [payload]
        for grid in grids:
            yield str(grid.shape).encode() + grid.astype("<i8").tobytes()
