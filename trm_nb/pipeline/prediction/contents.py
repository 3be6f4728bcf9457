"""What is to be predicted: files and values in memory, as items with the name that they are shown by.

Files are read as the run's sources are, by content and with the run's settings; what cannot be used keeps its reason
and ends nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError
from trm_nb.records import GridTask, Item, Puzzle
from trm_nb.sources.files import list_source_files
from trm_nb.sources.memory import as_items
from trm_nb.sources.reader import scan
from trm_nb.sources.roots import printable

_ONE = (str, os.PathLike, Image, np.ndarray, GridTask, Puzzle, Item)


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """An item, or the reason why there is none.

    `name`: the path as it was given, with the part of the file behind a `#`; the item's id for what is in memory.
    """

    name: str
    item: Item | None
    error: str | None = None


def contents_of(values: Any, config: MultimodalDatasetConfig) -> Iterator[Content]:
    """The contents of values, in their order.

    Args:
        values: one value or an iterable of them: paths of files and folders (`pathlib.Path`), text (str), PIL images,
            images uint8 (h, w, 3), integer grids, GridTasks, Puzzles and Items.
        config: the run's, as files are read by it.

    Raises:
        UserError: for a path that leads nowhere, before anything is read; for a value of another type; and for text
            that is the name of a file, since a path was probably meant.
    """
    given = [values] if isinstance(values, _ONE) else _listed(values)
    for value in given:
        if isinstance(value, os.PathLike):
            list_source_files([str(Path(value).absolute())])
    reading = config.with_changes(limit=None, arc_forms=0, arc_side=None)
    return (content for position, value in enumerate(given) for content in _contents(value, position, reading))


def _listed(values: Any) -> list[Any]:
    if isinstance(values, Iterable):
        return list(values)
    raise UserError(f"expected contents to predict, as a list of paths, texts or images, got {type(values).__name__}")


def _contents(value: Any, position: int, config: MultimodalDatasetConfig) -> Iterator[Content]:
    if isinstance(value, os.PathLike):
        yield from _of_path(Path(value), config)
        return
    if isinstance(value, str) and os.path.isfile(value):  # noqa: PTH113 - which takes any text
        raise UserError(
            f"sample {position}: the text {value!r} is the name of a file; give pathlib.Path({value!r}) to have the "
            "file read, or an Item to have its name predicted"
        )
    for item in as_items([value], position):
        yield Content(item.item_id, item)


def _of_path(given: Path, config: MultimodalDatasetConfig) -> Iterator[Content]:
    root = Path(os.path.abspath(given))  # noqa: PTH100 - as a source path is made absolute
    for reading in scan(config.with_changes(source_paths=[str(root)])):
        file = reading.file
        name = printable(str(given / file.path.relative_to(root)), also="")
        nothing = file.path == root  # of what is given; in a folder, what belongs to another file is read with that
        for entry in reading.entries:
            nothing = False
            if isinstance(entry, Item):
                yield Content(name + entry.item_id.removeprefix(file.name), entry)
            else:
                yield Content(name + entry.path.removeprefix(file.name), None, entry.reason)
        if nothing:
            reason = "nothing in it can be predicted: it is empty, or belongs to another file, as solutions of tasks do"
            yield Content(name, None, reason)
