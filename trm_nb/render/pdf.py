"""PDF documents: each page is an image, rendered by PDFium (the extra `pdf`) and fitted as photographs are.

Choice: PDFium runs in a process of its own for each document (pdf_process.py), with a limit on its memory and on the
time of each page: documents are hostile, and some hang in C. A page is rendered on white at twice the size of its
image, never larger than MAX_PIXELS, and then reduced as a photograph is; `fit: tiles` takes it at DPI. Filled-in forms
and annotations are rendered; scripts are not run. Fonts that a document does not embed are the system's. What PDFium
cannot decode inside of a page is left blank, and PDFium does not report it.
Cost: 0.1 s for the process, then some 10 to 50 ms a page.
Pixels are equal for equal versions of PDFium and Pillow; both are in the keys of these images alone.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image

from trm_nb.errors import Failure, RejectedError
from trm_nb.records import Item, StoredFile
from trm_nb.render.guard import guarded
from trm_nb.render.image import ImageReader, on_squares
from trm_nb.render.image_files.fit import Fit, Fitted, fitted
from trm_nb.render.modality import Begin, Modality, Page, Pages, PlannedFiles, one_by_one, read_planned

INSTALL = "pip install 'trm-nb[pdf]'"
MAX_PAGES = 2000
MAX_PIXELS = 16_000_000  # of a bitmap, and of a page at DPI
DPI = 100  # a page's own resolution: 10 points are 14 pixels, as high as a line of text that is rendered here
SECONDS = 20.0  # of one page
MEMORY_MIB = 1024


@dataclass(frozen=True, slots=True, eq=False)
class PdfFile(StoredFile):
    """A page of a document, and which of its tiles where it is cut into several; both count from 0."""

    frame: int = 0
    tile: int = 0


class Pdf(Modality):
    """The pages of PDF documents; they are images, as those of a scan in a TIFF are."""

    name, payloads, untrusted = "image", (PdfFile,), True

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        return head.startswith(b"%PDF-")

    def fingerprint(self) -> list[str]:
        return [self.settings.fit, str(DPI), f"PDFium {_pdfium()}", f"Pillow {PIL.__version__}"]

    def pages(self, item: Item) -> list[Page]:
        file = item.payload
        assert isinstance(file, PdfFile)
        if _pdfium() is None:
            raise RejectedError(
                f"a PDF document, and pypdfium2 is not installed: {INSTALL}, and build into another output_dir"
            )
        whole = bytes.fromhex(file.sha256)
        tiles = guarded(lambda: list(self._tiles(read_planned(file))), "the document")
        return [
            Page(
                replace(file, frame=frame, tile=tile), whole + frame.to_bytes(4, "little") + tile.to_bytes(4, "little")
            )
            for frame, count in enumerate(tiles)
            for tile in range(count)
        ]

    def _tiles(self, data: bytes) -> Iterator[int]:
        """How many images each page gives; one for a page that cannot be read, which fails when it is rendered."""
        with closing(_Document(data)) as document:
            if document.pages > MAX_PAGES:
                raise RejectedError(f"expected at most {MAX_PAGES:,} pages, got {document.pages:,}")
            taken = 1 if self.settings.frames == "first" else document.pages
            sizes = [document.size(page) for page in range(taken)]
        if not any(sizes):
            raise RejectedError(f"damaged: none of its {taken} page(s) can be read")
        for size in sizes:
            yield 1 if size is None else _view(self.settings.fit, *size, self.settings.image_size).fitted.squares

    def render(self, pages: Pages, images: np.ndarray, begin: Begin) -> dict[int, Failure]:
        files = PlannedFiles()
        with closing(_PageReader(self.settings.image_size, self.settings.fit)) as reader:
            return one_by_one(
                lambda page: reader.rasterise(files.read(page), page.frame, page.tile), pages, images, begin
            )


def _pdfium() -> str | None:
    """The version of the installed PDFium; None where there is none. PDFium itself is not loaded."""
    found = importlib.util.find_spec("pypdfium2_raw")
    if found is None or not found.submodule_search_locations:
        return None
    built = json.loads((Path(found.submodule_search_locations[0]) / "version.json").read_text(encoding="utf-8"))
    parts = [built.get(name) for name in ("major", "minor", "build", "patch")]
    return f"{'.'.join(map(str, parts))} by pypdfium2 {importlib.metadata.version('pypdfium2')}"


@dataclass(frozen=True, slots=True)
class _View:
    """What is rendered of a page: a bitmap of `width` x `height` pixels, which becomes `fitted`.

    The whole page is `full` pixels large, and the bitmap begins at `left`, `top` of it.
    """

    fitted: Fitted
    width: int
    height: int
    left: int
    top: int
    full: tuple[int, int]


def _view(fit: Fit, width: float, height: float, side: int) -> _View:
    """How a page of `width` x `height` points comes into images of `side` pixels."""
    scale = min(DPI / 72, math.sqrt(MAX_PIXELS / (width * height)))
    own = max(1, int(width * scale)), max(1, int(height * scale))
    becomes = fitted(fit, *own, side)
    factor = 2 if 4 * becomes.width * becomes.height <= MAX_PIXELS else 1
    seen = factor * becomes.width, factor * becomes.height
    if fit != "crop":
        return _View(becomes, *seen, 0, 0, seen)
    across, down = (min(seen[0] * length // min(own), 2**24) for length in own)  # PDFium counts in C's int
    return _View(becomes, *seen, (across - seen[0]) // 2, (down - seen[1]) // 2, (across, down))


class _PageReader(ImageReader):
    """Renders pages one after the other; a document's process lasts for the pages that follow each other."""

    _document: _Document | None = None

    def close(self) -> None:
        """Let go of the last document and page."""
        super().close()
        document, self._document = self._document, None
        if document is not None:
            document.close()

    def _page(self, data: bytes, frame: int) -> np.ndarray:
        self._document = self._document or _Document(data)
        size = self._document.size(frame)
        if size is None:
            raise RejectedError(f"damaged: page {frame} cannot be read")
        view = _view(self.fit, *size, self.image_size)
        bitmap = Image.fromarray(self._document.pixels(frame, view))
        small = bitmap.resize((view.fitted.width, view.fitted.height), Image.Resampling.LANCZOS)
        return on_squares(small, view.fitted, self.image_size)


class _Document:
    """A document in a process of its own. Each method raises RejectedError, retryable where it died."""

    def __init__(self, data: bytes) -> None:
        program = Path(__file__).with_name("pdf_process.py")  # not imported: PDFium would be loaded here
        command = [sys.executable, "-P", str(program), str(MEMORY_MIB), str(SECONDS)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            self.pages = int(self._ask({"bytes": len(data)}, data))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what it did not read
                pipe.close()  # type: ignore[union-attr]
        self._process.wait()

    def size(self, page: int) -> tuple[float, float] | None:
        """Width and height in points; None for a page that cannot be read."""
        size = self._ask({"size": page})
        return None if size is None else (size[0], size[1])

    def pixels(self, page: int, view: _View) -> np.ndarray:
        """uint8 (h, w, 3), RGB: the view's bitmap."""
        length = self._ask({"render": [page, view.width, view.height, view.left, view.top, *view.full]})
        assert self._process.stdout is not None
        data = self._process.stdout.read(length)
        return np.frombuffer(data, np.uint8).reshape(view.height, view.width, 3)[..., ::-1]

    def _ask(self, request: dict[str, Any], data: bytes = b"") -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        line, asked = b"", time.monotonic()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.write(data)
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            if time.monotonic() - asked >= SECONDS:
                raise RejectedError(f"a PDF document that takes longer than {SECONDS:g} s", retryable=True)
            raise RejectedError("a PDF document at which PDFium crashes or takes too much memory", retryable=True)
        answer = json.loads(line)
        if isinstance(answer, dict):
            raise RejectedError(f"a PDF document that cannot be rendered: {answer['error']}")
        return answer
