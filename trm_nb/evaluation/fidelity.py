"""What of each source is on its images: items are read again and compared with their cached images.

Choice: the numbers are measured on the run's own images, not promised by the renderer. How images are compared with
their item is in the table of modalities (render/comparison.py for text and grids). Images that cannot be read back, as
those of photographs, are only counted.
Cost: bounded by `at_most` pages, spread over the files of every source; about half a millisecond a page.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from trm_nb.errors import RejectedError
from trm_nb.pipeline.plan import as_noted
from trm_nb.records import GridTask, Item
from trm_nb.render.modality import Found
from trm_nb.sources.files import SourceFile
from trm_nb.sources.reader import list_files, read_items
from trm_nb.sources.roots import find_roots

if TYPE_CHECKING:
    import pandas as pd

    from trm_nb.pipeline.run import Run

FILES = 40  # of each source that are opened again


def reads_back(run: Run, item: Item) -> bool | None:
    """Whether an item's pixels alone give its content again; None where they are not meant to, as for photographs."""
    if not run.cache.renderer.is_readable(item):
        return None
    images, _ = run.cache.renderer.rasterise(run.cache.samples(item))
    return not run.cache.renderer.read_back(item, images).lost


def by_source(run: Run, samples: pd.DataFrame, at_most: int = 2000) -> pd.DataFrame:
    """One row a source path: items, pages, pages looked at, characters or cells rendered and lost, fallbacks,
    texts that were not UTF-8, quarantined. Items, pages and quarantined are of the whole run, the others of up to
    `at_most` pages. Missing: nothing there can be read back, as in a source of photographs."""
    import pandas as pd

    item_ids = samples["item_id"].tolist()
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
            "rendered": found.rendered if measured else None, "lost": found.lost if measured else None,
            "glyph fallbacks": found.boxed if measured else None,
            "not UTF-8": found.recoded if measured else None, "quarantined": refused[root.name],
        })  # fmt: skip
    return pd.DataFrame(records).set_index("source").astype("Int64")


def sentence(sources: pd.DataFrame) -> str:
    """What `by_source` found, over all sources, as one sentence of Markdown."""
    pages, of, rendered, lost = (int(sources[name].sum()) for name in ("looked at", "pages", "rendered", "lost"))
    if not pages:
        return "This run has neither text nor grids, so there is **nothing to read back**."
    return (
        f"On the **{pages:,}** of {of:,} pages looked at are **{rendered:,}** characters and cells; "
        f"**{lost:,}** are lost."
    )


def item_sentence(exact: bool | None) -> str:
    """What `reads_back` found, as one sentence of Markdown."""
    if exact is None:
        return "The item cannot be read back: as a photograph, it was scaled."
    how = "**exactly**" if exact else "**not**"
    return f"Read back from its pixels, the item is {how} what was rendered."


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
    renderer = run.cache.renderer
    for number, file in enumerate(files):
        left = at_most // (len(files) - number)
        for entry in read_items(file, run.config):
            if left <= 0:
                break
            if not isinstance(entry, Item) or not renderer.is_readable(entry):
                continue
            try:
                keys = run.cache.keys_for(as_noted(entry, run.tracker))
            except RejectedError:
                continue  # it is in the quarantine
            taken = keys if isinstance(entry.payload, GridTask) else keys[:left]
            if not all(key in run.cache for key in taken):
                break  # beyond the limit of the plan
            found = renderer.read_back(entry, run.cache.get_many(taken), whole=len(taken) == len(keys))
            at_most, left = at_most - found.pages, left - found.pages
            yield found + Found(recoded=int(entry.encoding is not None))


def spread(total: int, count: int) -> np.ndarray:
    """Up to `count` places evenly spread over 0..total-1, int64, the first and the last among them."""
    return (
        np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int64))
        if total
        else np.zeros(0, np.int64)
    )
