"""What the index and the navigation say about an executed notebook: its state, its finding and its first figure."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trm_nb.notebook.shown import data_address
from trm_nb.progress.run_folder import RunPaths
from trm_nb.progress.stats_text import duration
from trm_nb.storage.lock_holder import holder_of

if TYPE_CHECKING:
    from PIL.Image import Image

_IN_A_ROW = 3  # images of a gallery
_THUMBNAIL = (560, 330)
_MOST_FINDINGS = 4  # paragraphs on a card
_EMBEDDED = re.compile(r"data:image/(?:png|jpeg);base64,([A-Za-z0-9+/=]+)")


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A notebook's first figure, made small: a data address, what it shows, and whether it is a chart."""

    address: str
    alt: str
    chart: bool


@dataclass(slots=True)
class Page:
    """What the index and the page's frame say about one executed notebook; `cell` counts from 1."""

    name: str
    status: str
    duration: str = ""
    message: str = ""
    cell: int | None = None
    title: str = ""
    thumbnail: Thumbnail | None = None
    finding: str = ""
    notebook: str = ""  # the address of the executed notebook
    shown: dict[str, Any] = field(default_factory=dict)  # its cells and facts, as the template takes them

    @property
    def short(self) -> str:
        """The name as navigation shows it."""
        return self.name.replace("_", " ")


def executed(run: Path) -> list[Path]:
    """The executed notebooks of a run, in order."""
    return sorted(path for path in RunPaths(run).notebooks.glob("*.ipynb") if not path.name.startswith("."))


def page_of(path: Path, notebook: dict[str, Any], noted: dict[str, Any], run: Path) -> Page:
    """The page of a notebook, from its metadata and what the tracker `noted`."""
    recorded = notebook["metadata"].get("trm_nb", {})
    seconds = (
        noted.get("seconds") or recorded.get("seconds") or notebook["metadata"].get("papermill", {}).get("duration")
    )
    status = noted.get("status") or recorded.get("status") or "executed"
    if status == "running" and ((runner := holder_of(RunPaths(run).notebooks)) is None or runner.alive is False):
        status = "interrupted"  # whoever ran it was killed before it could say so
    page = Page(path.stem, status, duration(seconds) if seconds else "")
    if recorded.get("status") not in (None, "done"):
        page.message = recorded["message"]
        page.cell = None if recorded["cell"] is None else recorded["cell"] + 1
    return page


def findings(notebook: dict[str, Any]) -> list[str]:
    """The notebook's answer as Markdown: what its cells tagged `headline` say, else the first that any cell says."""
    said = [
        (output["data"]["text/markdown"], "headline" in cell["metadata"].get("tags", []))
        for cell in notebook["cells"]
        for output in cell["outputs"]
        if "text/markdown" in (output.get("data") or {})
    ]
    chosen = [text for text, tagged in said if tagged] or [text for text, _ in said[:1]]
    return [paragraph for text in chosen for paragraph in text.split("\n\n")][:_MOST_FINDINGS]


def thumbnail(notebook: dict[str, Any], alt_of: Callable[[dict[str, Any], dict[str, Any]], str]) -> Thumbnail | None:
    """The first figure that can be read, or the first images of a gallery in a row; None where there is none."""
    for output, cell in _with_images(notebook):
        kind = next(iter(output["data"]))
        held = output["data"][kind]
        found = [held] if kind.startswith("image/") else _EMBEDDED.findall(held)[:_IN_A_ROW]
        images = [image for data in found if (image := _small(data)) is not None]
        if images:
            chart = ((output.get("metadata") or {}).get(kind) or {}).get("chart") is True
            return Thumbnail(_beside_each_other(images), alt_of(output, cell), chart)
    return None


def _with_images(notebook: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The outputs that hold images, each with its cell; those of cells tagged `headline` come first."""
    cells = sorted(notebook["cells"], key=lambda cell: "headline" not in cell["metadata"].get("tags", []))
    for cell in cells:
        for output in cell["outputs"]:
            data = output.get("data") or {}
            if any(kind.startswith("image/") or _EMBEDDED.search(data.get("text/html", "")) for kind in data):
                yield output, cell


def _small(data: str) -> Image | None:
    """An image in base64 on white, at most as large as a thumbnail; None where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            small = image.convert("RGBA")
    except (ValueError, OSError, Image.DecompressionBombError):
        return None
    small.thumbnail(_THUMBNAIL)
    white = Image.new("RGB", small.size, "white")
    white.paste(small, mask=small.getchannel("A"))
    return white


def _beside_each_other(images: list[Image]) -> str:
    """Images in a row as one PNG with nothing between them, so that the page is seen there; as a data address."""
    from PIL import Image

    gap, height = 12, min(image.height for image in images)
    images = [image.resize((round(image.width * height / image.height), height)) for image in images]
    side = (sum(image.width for image in images) + gap * (len(images) - 1), max(image.height for image in images))
    row = Image.new("RGBA", side)
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width + gap
    row.thumbnail(_THUMBNAIL)
    encoded = io.BytesIO()
    row.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(encoded, "PNG", optimize=True)
    return data_address(encoded.getvalue())
