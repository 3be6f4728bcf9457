"""A look at a TIFF's tables before Pillow reads them: a hostile one makes it take a hundred times the file in memory.

Pillow turns every number of a table into a Python object and every strip into a record (12 GB for a file of 100 MB),
at opening, before it can be asked for the size; and it decodes a tile whole, however small the image in it is. So
the tables' lengths and the tiles' sides are read here first.
Cost: some microseconds a page.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from trm_nb.errors import RejectedError

MAX_VALUES = 250_000  # numbers in one table, as the places of a page's strips; bytes are no numbers
MAX_TILE_SIDE = 8192
_BYTES = (1, 2, 6, 7)  # types BYTE, ASCII, SBYTE and UNDEFINED
_SHORT, _TILE_SIDES = 3, (322, 323)


def check_tables(stream: BinaryIO, pages: int) -> None:
    """Raise RejectedError for a table of too many numbers, or a huge tile, on one of the first `pages` pages.

    Reads from the beginning of `stream` and comes back there. What is no TIFF, or damaged, passes: Pillow says so.
    """
    try:
        for tag, kind, count, value in _entries(stream, pages):
            if kind not in _BYTES and count > MAX_VALUES:
                raise RejectedError(f"expected at most {MAX_VALUES} numbers in a TIFF's table, got {count} (tag {tag})")
            if tag in _TILE_SIDES and value > MAX_TILE_SIDE:
                raise RejectedError(f"expected tiles of at most {MAX_TILE_SIDE} pixels a side in a TIFF, got {value}")
    except struct.error:  # it ends in the middle of a table
        pass
    finally:
        stream.seek(0)


def _entries(stream: BinaryIO, pages: int) -> Iterator[tuple[int, int, int, int]]:
    """Tag, type, count and first value of every entry, page after page. Raises struct.error where the file ends."""
    stream.seek(0)
    start = stream.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None:
        return
    if start.startswith(b"MM\0+"):
        raise RejectedError("a BigTIFF in big-endian order cannot be read: convert it")  # Pillow takes it for a TIFF
    if start[2:3] == b"+":  # BigTIFF
        head, entry, link, place = order + "Q", order + "HHQ8s", order + "Q", start[8:16]
    else:
        head, entry, link, place = order + "H", order + "HHI4s", order + "I", start[4:8]
    seen: set[int] = set()
    for _ in range(pages):
        at = struct.unpack(link, place)[0]
        if at == 0 or at in seen or at >= 2**63:
            return
        seen.add(at)
        stream.seek(at)
        (entries,) = struct.unpack(head, stream.read(struct.calcsize(head)))
        if entries > 65536:
            raise RejectedError(f"expected at most 65536 entries in a TIFF's directory, got {entries}")
        size = struct.calcsize(entry)
        table = stream.read(entries * size)
        for tag, kind, count, field in struct.iter_unpack(entry, table[: len(table) // size * size]):
            (value,) = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), field)
            yield tag, kind, count, value
        place = stream.read(struct.calcsize(link))
