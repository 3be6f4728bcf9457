"""Everything that turns an item into pictures: `Renderer` lays out (samples) and draws.

Choice: layout and drawing are two steps, because the plan needs to know how many pictures an item gives, and their
keys, long before a pixel is drawn. A key hashes the laid-out content with all that shapes its pixels, so equal keys
mean equal pictures, in every run and on every machine (photographs: with the same Pillow).
Cost: planning reads no pixel of a photograph, only its header; drawing is some tens of microseconds a page of text,
1 ms a task, tens of milliseconds a photograph.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import PassingReason, RejectedError, UserError
from trm_nb.records import GridTask, ImageBytes, ImageFile, Item, Modality, Puzzle, Sample
from trm_nb.render import image as photographs
from trm_nb.render.grid import GridPage, GridRenderer
from trm_nb.render.image_files.fit import Fit
from trm_nb.render.puzzle import PuzzlePage, PuzzleRenderer
from trm_nb.render.text import TextPage, TextRenderer
from trm_nb.storage.files import fault_point

__all__ = ["RejectedError", "RenderSettings", "Renderer"]

VERSION = 2  # to be raised by whoever changes a pixel; tests/golden/render.json tells when

Page = TextPage | GridPage | PuzzlePage | ImageFile | ImageBytes


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """All that shapes pixels beside the content, as in MultimodalDatasetConfig (which says what each is)."""

    image_size: int = 224
    font_size: int = 12
    wrap: Literal["character", "word"] = "character"
    margin: int = 0
    highlight: bool = False
    ink: str = "#000000"
    paper: str = "#ffffff"
    fit: Fit = "letterbox"
    frames: Literal["all", "first"] = "all"

    @classmethod
    def of(cls, config: MultimodalDatasetConfig) -> RenderSettings:
        """The settings that a config gives."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})


class Renderer:
    """Items to samples, samples to pictures. One for a process; the atlas is loaded at the first text."""

    def __init__(self, settings: RenderSettings | None = None) -> None:
        self.settings = settings or RenderSettings()
        self._grids = GridRenderer(self.settings.image_size)
        self._puzzles = PuzzleRenderer(self.settings.image_size)
        self._fingerprints: dict[Modality, str] = {}

    def __reduce__(self) -> tuple[type[Renderer], tuple[RenderSettings]]:
        return Renderer, (self.settings,)

    @cached_property
    def text(self) -> TextRenderer:
        """What text is laid out, drawn and read with. Raises UserError for settings that do not fit together."""
        s = self.settings
        try:
            return TextRenderer(
                s.font_size, s.image_size, s.highlight, wrap=s.wrap, margin=s.margin, ink=s.ink, paper=s.paper
            )
        except ValueError as error:
            raise UserError(str(error)) from None

    def fingerprint(self, modality: Modality) -> str:
        """16 hex digits over all that shapes this modality's pixels beside the content."""
        if modality not in self._fingerprints:  # asked for each item, and versions are read from the disk
            self._fingerprints[modality] = self._fingerprint(modality)
        return self._fingerprints[modality]

    def _fingerprint(self, modality: Modality) -> str:
        parts = [f"render {VERSION}", modality, str(self.settings.image_size)]
        if modality == "text":
            s = self.settings
            parts += [str(s.font_size), s.wrap, str(s.margin), s.ink, s.paper, self.text.atlas.digest]
            parts += [f"Pygments {importlib.metadata.version('pygments')}"] if s.highlight else []
        elif modality == "image":
            parts += [self.settings.fit, photographs.versions()]
        return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()

    def samples(self, item: Item, salt: str = "") -> list[Sample]:
        """Lay an item out: one sample a page, in order. `salt` names what is done to the pictures after drawing.

        Raises RejectedError when the item cannot be drawn, TypeError when its payload is not of its modality.
        """
        pages = self._pages(item)
        prefix = (item.modality, self.fingerprint(item.modality), salt)
        whole = _sha256(item.payload) if isinstance(item.payload, ImageFile | ImageBytes) else b""
        return [
            Sample(
                key=_key(*(part.encode() for part in prefix), _content_bytes(content, whole)),
                item_id=item.item_id,
                modality=item.modality,
                source=item.source,
                page=number,
                pages=len(pages),
                label=item.label,
                content=content,
                note=content.note if isinstance(content, TextPage) else "",
            )
            for number, content in enumerate(pages)
        ]

    def _pages(self, item: Item) -> Sequence[Page]:
        payload = item.payload
        if item.modality == "text" and isinstance(payload, str):
            return self.text.pages(payload, item.item_id.partition("#")[0], plain=item.plain)
        if item.modality == "grid" and isinstance(payload, GridTask):
            return self._grids.task_pages(payload)
        if item.modality == "grid" and isinstance(payload, np.ndarray):
            return self._grids.grid_pages(payload)
        if item.modality == "grid" and isinstance(payload, Puzzle):
            return [self._puzzles.page(payload)]
        if item.modality == "image" and isinstance(payload, ImageFile | ImageBytes):
            tiles = self._tiles(payload)
            return [replace(payload, frame=frame, tile=tile) for frame, n in enumerate(tiles) for tile in range(n)]
        raise TypeError(f"{item.item_id}: a payload of {type(payload).__name__} does not go with {item.modality!r}")

    def _tiles(self, payload: ImageFile | ImageBytes) -> list[int]:
        """How many pictures each page or frame gives."""
        settings = self.settings
        if isinstance(payload, ImageBytes):
            return photographs.probe(payload.data, settings.image_size, settings.fit, settings.frames)
        try:
            with payload.path.open("rb") as stream:
                return photographs.probe(stream, settings.image_size, settings.fit, settings.frames)
        except OSError as error:
            raise RejectedError(f"the file cannot be read: {error.strerror or error}") from None

    def draw(
        self, samples: Sequence[Sample], on_photograph: Callable[[int], None] = lambda number: None
    ) -> tuple[np.ndarray, dict[int, str]]:
        """uint8 (n, h, w, 3) in the order of the samples, and index -> reason for those that could not be drawn.

        The picture of a failed sample is zeros. Only photographs can fail: their pixels are first decoded here. A file
        that cannot be read, or changed, or takes too long, fails by a PassingReason. `on_photograph` is called with
        the index of each before it is decoded: a decoder may not come back.
        """
        size = self.settings.image_size
        pictures = np.zeros((len(samples), size, size, 3), np.uint8)
        failed: dict[int, str] = {}
        texts: list[tuple[int, TextPage]] = []
        photos: list[tuple[int, ImageFile | ImageBytes]] = []
        for number, sample in enumerate(samples):
            content = sample.content
            if isinstance(content, TextPage):
                texts.append((number, content))
            elif isinstance(content, GridPage):
                pictures[number] = self._grids.draw(content)
            elif isinstance(content, PuzzlePage):
                pictures[number] = self._puzzles.draw(content)
            elif isinstance(content, ImageFile | ImageBytes):
                photos.append((number, content))
            else:
                raise TypeError(f"{sample.sample_id}: content of type {type(content).__name__} is no page")
        for first, pages in _runs(texts):
            self.text.draw(pages, pictures[first : first + len(pages)])
        with closing(_Photographs(self.settings)) as reader:
            for number, photo in photos:
                on_photograph(number)
                try:
                    pictures[number] = reader.draw(photo)
                except RejectedError as error:
                    failed[number] = error.args[0]
        return pictures, failed


def _runs(pages: list[tuple[int, TextPage]]) -> Iterator[tuple[int, list[TextPage]]]:
    """Pages whose numbers follow each other, with the first number: they are drawn where they belong, uncopied."""
    start = 0
    for stop in range(1, len(pages) + 1):
        if stop == len(pages) or pages[stop][0] != pages[stop - 1][0] + 1:
            yield pages[start][0], [page for _, page in pages[start:stop]]
            start = stop


class _Photographs:
    """Draws photographs one after the other; a file's pages and tiles read and check it once."""

    def __init__(self, settings: RenderSettings) -> None:
        self._reader = photographs.PictureReader(settings.image_size, settings.fit)
        self._file: tuple[Path, str] | None = None
        self._data = b""

    def close(self) -> None:
        """Let go of the last one."""
        self._reader.close()

    def draw(self, content: ImageFile | ImageBytes) -> np.ndarray:
        """uint8 (h, w, 3). Raises RejectedError."""
        if isinstance(content, ImageBytes):
            return self._reader.draw(content.data, content.frame, content.tile)
        if (content.path, content.sha256) != self._file:
            self._file, self._data = None, b""
            self._data = _read(content)
            self._file = content.path, content.sha256
        fault_point(f"decode-{content.sha256}")
        return self._reader.draw(self._data, content.frame, content.tile)


def _read(content: ImageFile) -> bytes:
    """The encoded picture: the very bytes that were planned."""
    try:
        data = content.path.read_bytes()
    except OSError as error:
        raise RejectedError(PassingReason(f"the file cannot be read: {error.strerror or error}")) from None
    found = hashlib.sha256(data).hexdigest()
    if found != content.sha256:
        raise RejectedError(
            PassingReason(f"the file changed after it was planned: sha256 {content.sha256[:16]}, now {found[:16]}")
        )
    return data


def _sha256(picture: ImageFile | ImageBytes) -> bytes:
    if isinstance(picture, ImageFile):
        return bytes.fromhex(picture.sha256)
    return hashlib.sha256(picture.data).digest()


def _content_bytes(content: Page, whole: bytes) -> bytes:
    """`whole` is the hash of the file or bytes that a photograph is a page or tile of."""
    if isinstance(content, ImageFile | ImageBytes):
        return whole + content.frame.to_bytes(4, "little") + content.tile.to_bytes(4, "little")
    return content.content_bytes()


def _key(*parts: bytes) -> str:
    """32 hex digits; each part is preceded by its length, so that no two lists of parts run together."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
