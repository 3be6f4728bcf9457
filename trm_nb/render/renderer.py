"""Everything that turns an item into images: `Renderer` lays out (samples) and renders (render).

Choice: layout and rendering are two steps, because the plan needs to know how many images an item gives, and their
keys, long before a pixel is rendered. A key hashes the laid-out content with all that shapes its pixels, so equal keys
mean equal images, in every run and on every machine (photographs: with the same Pillow). How each kind of content is
laid out and rendered is in the table of modalities.
Cost: planning reads no pixel of a photograph, only its header; rendering is some tens of microseconds a page of text,
1 ms a task, tens of milliseconds a photograph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from trm_nb.errors import Failure, RejectedError
from trm_nb.records import Item, Sample
from trm_nb.render.modalities import MODALITIES, Text, kind_of, kind_of_page
from trm_nb.render.modality import Found, Modality, RenderSettings
from trm_nb.render.text import TextRenderer

__all__ = ["RejectedError", "RenderSettings", "Renderer"]

VERSION = 2  # to be raised by whoever changes a pixel; tests/golden/render.json tells when


class Renderer:
    """Items to samples, samples to images. One for a process; the atlas is loaded at the first text."""

    def __init__(self, settings: RenderSettings | None = None) -> None:
        self.settings = settings or RenderSettings()
        self._modalities: dict[str, Modality] = {}
        self._fingerprints: dict[str, str] = {}

    def __reduce__(self) -> tuple[type[Renderer], tuple[RenderSettings]]:
        return Renderer, (self.settings,)

    def modality(self, kind: str) -> Modality:
        """The entry of the table for one kind of content, with this renderer's settings; made at its first use."""
        if kind not in self._modalities:
            self._modalities[kind] = MODALITIES[kind](self.settings)
        return self._modalities[kind]

    @property
    def text(self) -> TextRenderer:
        """What text is laid out, rendered and read with. Raises UserError for settings that do not fit together."""
        entry = self.modality("text")
        assert isinstance(entry, Text)
        return entry.renderer

    def fingerprint(self, kind: str) -> str:
        """16 hex digits over all that shapes the pixels of one kind of content besides the content itself."""
        if kind not in self._fingerprints:  # asked for each item, and versions are read from the disk
            parts = [f"render {VERSION}", kind, str(self.settings.image_size), *self.modality(kind).fingerprint()]
            self._fingerprints[kind] = hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()
        return self._fingerprints[kind]

    def samples(self, item: Item, salt: str = "") -> list[Sample]:
        """Lay an item out: one sample a page, in order. `salt` names what is done to the images after rendering.

        Raises RejectedError when the item cannot be rendered, TypeError when its payload is not of its modality.
        """
        kind = _kind(item)
        pages = self.modality(kind).pages(item)
        prefix = [part.encode() for part in (item.modality, self.fingerprint(kind), salt)]
        return [
            Sample(
                key=_key(*prefix, page.identity),
                item_id=item.item_id,
                modality=item.modality,
                source=item.source,
                page=number,
                pages=len(pages),
                label=item.label,
                content=page.content,
                note=page.note,
            )
            for number, page in enumerate(pages)
        ]

    def rasterise(
        self, samples: Sequence[Sample], begin: Callable[[int], None] = lambda number: None
    ) -> tuple[np.ndarray, dict[int, Failure]]:
        """uint8 (n, h, w, 3) in the order of the samples, and index -> failure for those that could not be rendered.

        The image of a failed sample is zeros. Only untrusted content can fail: it is first decoded here. A file that
        cannot be read, or changed, or takes too long, fails with a retryable reason. `begin` is called with the index
            of
        each untrusted sample before it is decoded: a decoder may not come back.
        """
        size = self.settings.image_size
        images = np.zeros((len(samples), size, size, 3), np.uint8)
        pages: dict[str, list[tuple[int, Any]]] = {}
        for number, sample in enumerate(samples):
            kind = kind_of_page(sample.content)
            if kind is None:
                raise TypeError(f"{sample.sample_id}: {_unknown_page(sample.content)}")
            pages.setdefault(kind, []).append((number, sample.content))
        failed: dict[int, Failure] = {}
        for kind in sorted(pages, key=lambda kind: MODALITIES[kind].untrusted):  # those last, as `begin` starts a clock
            announce = begin if MODALITIES[kind].untrusted else lambda number: None
            failed |= self.modality(kind).render(pages[kind], images, announce)
        return images, failed

    def is_readable(self, item: Item) -> bool:
        """Whether `read_back` can say what is on the item's images."""
        return MODALITIES[_kind(item)].readable

    def read_back(self, item: Item, images: np.ndarray, whole: bool = True) -> Found:
        """Compare what is read from an item's images, uint8 (n, h, w, 3), with the item; see `is_readable`.

        Not `whole`: the images are only the item's first.
        """
        return self.modality(_kind(item)).read_back(item, images, whole)


def _kind(item: Item) -> str:
    kind = kind_of(item.payload)
    if kind is None or MODALITIES[kind].name != item.modality:
        got = type(item.payload).__name__
        raise TypeError(f"{item.item_id}: a payload of {got} does not go with {item.modality!r}")
    return kind


def _unknown_page(content: object) -> str:
    found = type(content)
    return (
        f"content of type {found.__name__} is no page of a modality in the table; its module, {found.__module__}, must "
        "be importable here and add its line when it is imported"
    )


def _key(*parts: bytes) -> str:
    """32 hex digits; each part is preceded by its length, so that no two lists of parts run together."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
