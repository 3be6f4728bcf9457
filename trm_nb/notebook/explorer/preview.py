"""What samples will look like before a run exists: the first items of each source, rendered as the run will do it.

Only so many items are read as are shown, and nothing is written. The denoiser is not at work here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import RejectedError, UserError
from trm_nb.notebook.explorer.pieces import figure, png, short
from trm_nb.records import Item, Rejected
from trm_nb.render.renderer import Renderer, RenderSettings
from trm_nb.sources.reader import scan

SHOWN = 3  # samples of a source
MOST_SOURCES = 12
LOOKED_AT = 200  # entries of a source that are read to find them


@dataclass(frozen=True, slots=True, eq=False)
class SourcePreview:
    """The first samples of one source.

    images: uint8 (n, h, w, 3). captions: one each, text of the data. trouble: why there are none, or what was left out.
    """

    source: str
    images: np.ndarray
    captions: tuple[str, ...]
    trouble: str = ""


def previews(config: MultimodalDatasetConfig, names: Sequence[str]) -> list[SourcePreview]:
    """The first samples of each source of a config, up to MOST_SOURCES of them; `names` are those that users gave."""
    shown = zip(names, config.source_paths[:MOST_SOURCES], strict=False)
    return [_preview(config, name, source) for name, source in shown]


def _preview(config: MultimodalDatasetConfig, name: str, source: str) -> SourcePreview:
    size = config.image_size
    found: list[np.ndarray] = []
    captions: list[str] = []
    trouble = ""
    try:
        renderer = Renderer(RenderSettings.of(config))
        for entry in _first(config.with_changes(source_paths=[source], limit=SHOWN)):
            if not isinstance(entry, Item):
                trouble = trouble or f"{entry.path}: {entry.reason}"
                continue
            try:
                samples = renderer.samples(entry)
                images, failed = renderer.rasterise(samples[:1])
            except RejectedError as rejected:
                trouble = trouble or f"{entry.item_id}: {rejected}"
                continue
            if samples and not failed:
                found.append(images[0])
                pages = f", page 1 of {len(samples):,}" if len(samples) > 1 else ""
                captions.append(f"{entry.item_id}{pages} [{entry.label or 'no label'}]")
    except UserError as error:
        trouble = str(error)
    images = np.stack(found) if found else np.zeros((0, size, size, 3), np.uint8)
    return SourcePreview(name, images, tuple(captions), trouble or ("" if found else "nothing in it can be used"))


def _first(config: MultimodalDatasetConfig) -> list[Item | Rejected]:
    """The first items of the one source, and what was rejected on the way."""
    entries: list[Item | Rejected] = []
    for reading in scan(config, named_images=()):
        for entry in reading.entries:
            if isinstance(entry, Item | Rejected):
                entries.append(entry)
            if len(entries) >= LOOKED_AT:
                return entries
    return entries


def as_html(found: list[SourcePreview], total: int) -> str:
    """Previews as HTML, all text of the data escaped."""
    more = f"<p>and {total - len(found):,} more sources</p>" if total > len(found) else ""
    return f'<div class="trm-row">{"".join(_section(one) for one in found)}</div>{more}'


def _section(one: SourcePreview) -> str:
    figures = "".join(
        figure(image, short(caption, 60), 150) for image, caption in zip(one.images, one.captions, strict=True)
    )
    trouble = f'<div class="trm-says">{escape(one.trouble)}</div>' if one.trouble else ""
    return f'<div style="width:470px"><h4>{short(one.source)}</h4>{trouble}<div class="trm-row">{figures}</div></div>'


def as_static(found: list[SourcePreview]) -> str:
    """The same for reports, which keep no classes: a line of images a source."""
    rows = []
    for one in found:
        shown = " ".join(
            f'<img src="{png(image)}" alt="{short(caption)}" width="150">'
            for image, caption in zip(one.images, one.captions, strict=True)
        )
        rows.append(f"<tr><td>{short(one.source)}</td><td>{shown or escape(one.trouble)}</td></tr>")
    head = '<tr><th scope="col">source</th><th scope="col">first samples</th></tr>'
    return f'<table class="trm-table"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
