"""What of each source is on its pictures: items read again and compared with what their cached pictures say.

Choice: the figures are measured on the run's own pictures, not promised by the renderer. Text is decoded from its
pixels and compared character by character. A text with right-to-left lines has an order of its own on the page: there
the layout must name each character once, and the cached page must be, to the bit, what that layout draws. Grids and
puzzles are decoded cell by cell. Photographs are scaled, so of them only the number is told.
Cost: bounded by `at_most` pages, spread over the files of every source; about half a millisecond a page.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from trm_nb.errors import RejectedError
from trm_nb.pipeline.plan import as_noted
from trm_nb.records import GridTask, Item, Puzzle
from trm_nb.render.grid import MAX_SIDE, GridRenderer
from trm_nb.render.puzzle import PuzzleRenderer
from trm_nb.render.text import TextRenderer
from trm_nb.render.typesetting.glyphs import BOX
from trm_nb.render.typesetting.layout import code_points
from trm_nb.render.typesetting.right_to_left import lines_to_reorder
from trm_nb.sources.files import SourceFile
from trm_nb.sources.reader import list_files, read_items
from trm_nb.sources.roots import find_roots

if TYPE_CHECKING:
    import pyarrow as pa

    from trm_nb.pipeline.run import Run

FILES = 40  # of each source that are opened again


@dataclass(frozen=True, slots=True)
class Found:
    """Of some pages: how many, the characters or cells on them, those that are not there, the characters that are shown
    by their number, in a box, because no font has them, and the items whose text was not UTF-8."""

    pages: int = 0
    drawn: int = 0
    lost: int = 0
    boxed: int = 0
    recoded: int = 0

    def __add__(self, other: Found) -> Found:
        return Found(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def reads_back(run: Run, item: Item) -> bool | None:
    """Whether an item's pixels alone give its content again; None for a photograph, which is only scaled."""
    if item.modality == "image":
        return None
    pictures, _ = run.cache.renderer.draw(run.cache.samples(item))
    return not compare(run.cache.renderer.text, item, pictures).lost


def by_source(run: Run, samples: pa.Table, at_most: int = 2000) -> list[dict[str, Any]]:
    """One record a source path: items, pages, pages looked at, characters or cells drawn and lost, fallbacks,
    texts that were not UTF-8, quarantined. Items, pages and quarantined are of the whole run, the others of up to
    `at_most` pages. None: only photographs there, which cannot be read back."""
    item_ids = samples["item_id"].to_pylist()
    pages = Counter(name.partition("/")[0] for name in item_ids)
    items = Counter(name.partition("/")[0] for name in dict.fromkeys(item_ids))
    refused = Counter(entry.path.partition("/")[0] for entry in run.rejected())
    files = _planned_files(run, item_ids)
    roots = find_roots(run.config.source_paths)
    records = []
    for root in roots:
        found = sum(_look(run, files[root.number], at_most // len(roots)), Found())
        measured = found.pages > 0
        records.append({
            "source": root.name, "items": items[root.name], "pages": pages[root.name], "looked at": found.pages,
            "drawn": found.drawn if measured else None, "lost": found.lost if measured else None,
            "glyph fallbacks": found.boxed if measured else None,
            "not UTF-8": found.recoded if measured else None, "quarantined": refused[root.name],
        })  # fmt: skip
    return records


def totals(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The sums over all sources: pages (looked at), drawn, lost and boxed, as in `Found`."""
    names = {"pages": "looked at", "drawn": "drawn", "lost": "lost", "boxed": "glyph fallbacks"}
    return {total: sum(record[name] or 0 for record in records) for total, name in names.items()}


def _planned_files(run: Run, item_ids: Sequence[str]) -> dict[int, list[SourceFile]]:
    """By number of the source, up to FILES of its files that are in the plan, the first and the last among them."""
    planned = {item_id.partition("#")[0] for item_id in item_ids}
    files: dict[int, list[SourceFile]] = defaultdict(list)
    for file in list_files(run.config):
        if file.name in planned:
            files[file.source].append(file)
    return defaultdict(list, {number: [of[n] for n in spread(len(of), FILES)] for number, of in files.items()})


def _look(run: Run, files: Sequence[SourceFile], at_most: int) -> Iterator[Found]:
    """What is found of each item of these files, until each file has had its part of the pages."""
    texts = run.cache.renderer.text
    for number, file in enumerate(files):
        left = at_most // (len(files) - number)
        for entry in read_items(file, run.config):
            if left <= 0:
                break
            if not isinstance(entry, Item) or entry.modality == "image":
                continue
            try:
                keys = run.cache.keys_for(as_noted(entry, run.tracker))
            except RejectedError:
                continue  # it is in the quarantine
            taken = keys if isinstance(entry.payload, GridTask) else keys[:left]
            if not all(key in run.cache for key in taken):
                break  # beyond the limit of the plan
            found = compare(texts, entry, run.cache.get_many(taken), whole=len(taken) == len(keys))
            at_most, left = at_most - found.pages, left - found.pages
            yield found + Found(recoded=int(entry.encoding is not None))


def compare(texts: TextRenderer, item: Item, pictures: np.ndarray, whole: bool = True) -> Found:
    """What an item's pictures, uint8 (n, h, w, 3), say of it; not `whole`: the first of its pictures.

    `texts` is the renderer that text was drawn with.
    """
    payload = item.payload
    if isinstance(payload, str):
        normalised = texts.normalise(payload)
        if next(lines_to_reorder(normalised), None) is None:
            return _read(texts, normalised, pictures, whole)
        return _named_by_layout(texts, normalised, item.item_id.partition("#")[0], pictures)
    if isinstance(payload, Puzzle):
        shown = [_or_nothing(PuzzleRenderer(texts.image_size), picture) for picture in pictures]
        return _cells([payload.puzzle], shown, len(pictures))
    grids = GridRenderer(texts.image_size)
    if isinstance(payload, GridTask):
        expected = [*(grid for pair in payload.train for grid in pair), *payload.test_inputs]
    else:
        array = np.asarray(payload)
        tops, lefts = (range(0, side, MAX_SIDE) for side in array.shape)
        expected = [array[top : top + MAX_SIDE, left : left + MAX_SIDE] for top in tops for left in lefts]
        expected = expected[: len(pictures)]
    return _cells(expected, [grid for picture in pictures for grid in _grids_on(grids, picture)], len(pictures))


def _read(texts: TextRenderer, normalised: str, pictures: np.ndarray, whole: bool) -> Found:
    read, told = texts.decode(pictures).split("\n"), texts.fold(normalised).split("\n")
    if not whole:  # the last line may go on on a page that is not looked at
        told = [*told[: len(read) - 1], *(line[: len(read[-1])] for line in told[len(read) - 1 : len(read)])]
    lost = 0
    for line, wanted in zip_longest(read, told, fillvalue=""):
        if line != wanted:
            lost += max(1, sum((Counter(wanted) - Counter(line)).values()))
    boxed = (texts.atlas.first[code_points("".join(told))] >= BOX).sum()
    return Found(len(pictures), sum(map(len, told)), lost, int(boxed))


def _named_by_layout(texts: TextRenderer, normalised: str, name: str, pictures: np.ndarray) -> Found:
    pages = texts.pages(normalised, name)
    same = [np.array_equal(texts.draw([page])[0], picture) for page, picture in zip(pages, pictures, strict=False)]
    named = np.zeros(len(normalised), np.int64)
    spans = texts.layout(normalised)
    for page in np.flatnonzero(same).tolist():
        for start, stop in spans[page].reshape(-1, 2).tolist():
            named[start:stop] += 1
    last = len(normalised) if len(pictures) == len(pages) else int(spans[: len(pictures)].max())
    codes = code_points(normalised)[:last]
    there = codes != 0x0A
    boxed = (texts.atlas.first[codes[there]] >= BOX).sum()
    return Found(len(pictures), int(there.sum()), int((named[:last][there] != 1).sum()), int(boxed))


def _cells(expected: Sequence[np.ndarray], shown: Sequence[np.ndarray], pages: int) -> Found:
    there = Counter((grid.shape, *grid.ravel().tolist()) for grid in shown)
    missing = Counter((grid.shape, *grid.ravel().tolist()) for grid in expected) - there
    lost = sum(len(grid[1:]) * count for grid, count in missing.items())
    return Found(pages, sum(grid.size for grid in expected), lost)


def _grids_on(grids: GridRenderer, picture: np.ndarray) -> list[np.ndarray]:
    try:
        return grids.decode_all(picture)
    except ValueError:  # a cell in no colour of a grid's: then nothing on the page counts as read
        return []


def _or_nothing(puzzles: PuzzleRenderer, picture: np.ndarray) -> np.ndarray:
    try:
        return puzzles.decode(picture)
    except ValueError:
        return np.zeros((0, 0), np.int64)


def spread(total: int, count: int) -> np.ndarray:
    """Up to `count` places evenly spread over 0..total-1, int64, the first and the last among them."""
    return (
        np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int64))
        if total
        else np.zeros(0, np.int64)
    )
