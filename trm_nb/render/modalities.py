"""The table of modalities: one line for each kind of content that becomes images. CONTRIBUTING shows how to add one.

Choice: the class of an item's payload, and of a page's content, decides which line it belongs to. Several lines may
share the name of a modality, as the pages of a PDF are images. A module outside the package may add its line when it is
imported.
Cost: a few `isinstance` a sample.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property

import numpy as np

from trm_nb.errors import Failure, RejectedError, UserError
from trm_nb.records import GridTask, ImageBytes, ImageFile, Item, Payload, Puzzle
from trm_nb.render import image as image_files
from trm_nb.render.comparison import compare_grid, compare_puzzle, compare_task, compare_text
from trm_nb.render.grid import GridRenderer
from trm_nb.render.modality import Begin, Found, Modality, Page, Pages, PlannedFiles, RenderSettings, one_by_one
from trm_nb.render.panels import GridPage
from trm_nb.render.pdf import Pdf
from trm_nb.render.puzzle import PuzzlePage, PuzzleRenderer
from trm_nb.render.text import TextPage, TextRenderer
from trm_nb.storage.files import fault_point


class Text(Modality):
    """Text as pages of character cells."""

    name, payloads, contents, readable = "text", (str,), (TextPage,), True

    @cached_property
    def renderer(self) -> TextRenderer:
        """What text is laid out, rendered and read with. Raises UserError for settings that do not fit together."""
        s = self.settings
        try:
            return TextRenderer(
                s.font_size,
                s.image_size,
                s.highlight,
                wrap=s.wrap,
                margin=s.margin,
                foreground=s.foreground,
                background=s.background,
            )
        except ValueError as error:
            raise UserError(str(error)) from None

    @classmethod
    def split_content(cls, payload: str) -> list[bytes]:
        return [payload.encode("utf-8", "surrogatepass")]

    def fingerprint(self) -> list[str]:
        s = self.settings
        versions = [f"Pygments {importlib.metadata.version('pygments')}"] if s.highlight else []
        return [
            str(s.font_size),
            s.wrap,
            str(s.margin),
            s.foreground,
            s.background,
            self.renderer.atlas.digest,
            *versions,
        ]

    def pages(self, item: Item) -> list[Page]:
        assert isinstance(item.payload, str)
        pages = self.renderer.pages(item.payload, _file_name(item), plain=item.plain)
        return [Page(page, page.content_bytes(), page.note) for page in pages]

    def render(self, pages: Pages, images: np.ndarray, begin: Begin) -> dict[int, Failure]:
        for first, run in _runs(pages):
            self.renderer.rasterise(run, images[first : first + len(run)])
        return {}

    def read_back(self, item: Item, images: np.ndarray, whole: bool) -> Found:
        assert isinstance(item.payload, str)
        return compare_text(self.renderer, item.payload, _file_name(item), images, whole)


def _file_name(item: Item) -> str:
    return item.item_id.partition("#")[0]


def _runs(pages: Pages) -> Iterator[tuple[int, list[TextPage]]]:
    """Pages whose numbers follow each other, with the first number: they are rendered in place, without a copy."""
    start = 0
    for stop in range(1, len(pages) + 1):
        if stop == len(pages) or pages[stop][0] != pages[stop - 1][0] + 1:
            yield pages[start][0], [page for _, page in pages[start:stop]]
            start = stop


class Image(Modality):
    """Photographs, scans and animations, in files or in memory."""

    name, payloads, untrusted = "image", (ImageFile, ImageBytes), True

    @classmethod
    def split_content(cls, payload: ImageFile | ImageBytes) -> list[bytes]:
        return [payload.sha256.encode() if isinstance(payload, ImageFile) else payload.data]

    def fingerprint(self) -> list[str]:
        return [self.settings.fit, image_files.versions()]

    def pages(self, item: Item) -> list[Page]:
        payload = item.payload
        assert isinstance(payload, ImageFile | ImageBytes)
        if isinstance(payload, ImageFile):
            whole = bytes.fromhex(payload.sha256)
        else:
            whole = hashlib.sha256(payload.data).digest()
        return [
            Page(
                replace(payload, frame=frame, tile=tile),
                whole + frame.to_bytes(4, "little") + tile.to_bytes(4, "little"),
            )
            for frame, tiles in enumerate(self._tiles(payload))
            for tile in range(tiles)
        ]

    def _tiles(self, payload: ImageFile | ImageBytes) -> list[int]:
        """How many images each page or frame gives."""
        s = self.settings
        if isinstance(payload, ImageBytes):
            return image_files.probe(payload.data, s.image_size, s.fit, s.frames)
        try:
            with payload.path.open("rb") as stream:
                return image_files.probe(stream, s.image_size, s.fit, s.frames)
        except OSError as error:
            raise RejectedError(f"the file cannot be read: {error.strerror or error}") from None

    def render(self, pages: Pages, images: np.ndarray, begin: Begin) -> dict[int, Failure]:
        files = PlannedFiles()
        with closing(image_files.ImageReader(self.settings.image_size, self.settings.fit)) as reader:

            def render_page(content: ImageFile | ImageBytes) -> np.ndarray:
                if isinstance(content, ImageBytes):
                    return reader.rasterise(content.data, content.frame, content.tile)
                data = files.read(content)
                fault_point(f"decode-{content.sha256}")
                return reader.rasterise(data, content.frame, content.tile)

            return one_by_one(render_page, pages, images, begin)


class Grid(Modality):
    """Grids, ARC tasks, Sudokus and mazes."""

    name, payloads, contents, readable = "grid", (GridTask, np.ndarray, Puzzle), (GridPage, PuzzlePage), True

    def __init__(self, settings: RenderSettings) -> None:
        super().__init__(settings)
        self._grids, self._puzzles = GridRenderer(settings.image_size), PuzzleRenderer(settings.image_size)

    @classmethod
    def split_content(cls, payload: GridTask | np.ndarray | Puzzle) -> list[bytes]:
        if isinstance(payload, GridTask):
            grids = [*(grid for pair in payload.train for grid in pair), *payload.test_inputs]
        elif isinstance(payload, Puzzle):
            grids = [payload.puzzle if payload.solution is None else payload.solution]
        else:
            grids = [payload]
        return [str(grid.shape).encode() + grid.astype("<i8").tobytes() for grid in grids]

    def fingerprint(self) -> Iterable[str]:
        return ()

    def pages(self, item: Item) -> list[Page]:
        payload = item.payload
        pages: Sequence[GridPage | PuzzlePage]
        if isinstance(payload, GridTask):
            pages = self._grids.task_pages(payload)
        elif isinstance(payload, Puzzle):
            pages = [self._puzzles.page(payload)]
        else:
            pages = self._grids.grid_pages(payload)
        return [Page(page, page.content_bytes()) for page in pages]

    def render(self, pages: Pages, images: np.ndarray, begin: Begin) -> dict[int, Failure]:
        for number, page in pages:
            images[number] = (self._puzzles if isinstance(page, PuzzlePage) else self._grids).rasterise(page)
        return {}

    def read_back(self, item: Item, images: np.ndarray, whole: bool) -> Found:
        payload = item.payload
        if isinstance(payload, Puzzle):
            return compare_puzzle(self._puzzles, payload.puzzle, images)
        if isinstance(payload, GridTask):
            return compare_task(self._grids, payload, images)
        return compare_grid(self._grids, np.asarray(payload), images)


MODALITIES: dict[str, type[Modality]] = {
    "text": Text,
    "image": Image,
    "grid": Grid,
    "pdf": Pdf,
}


def kind_of(payload: Payload) -> str | None:
    """The kind of content that an item's payload is; None where no line of the table takes it."""
    return next((kind for kind, entry in MODALITIES.items() if isinstance(payload, entry.payloads)), None)


def kind_of_page(content: object) -> str | None:
    """The kind whose pages hold such content; None where no line of the table renders it."""
    entries = MODALITIES.items()
    return next((kind for kind, entry in entries if isinstance(content, entry.contents or entry.payloads)), None)


def kind_of_file(head: bytes) -> str | None:
    """The kind of which a whole file that begins with `head` is an item; None: sources/ reads it in its own way."""
    return next((kind for kind, entry in MODALITIES.items() if entry.recognises(head)), None)


def is_untrusted(content: object) -> bool:
    """Whether the decoder of a page's content may crash or hang."""
    kind = kind_of_page(content)
    return kind is not None and MODALITIES[kind].untrusted
