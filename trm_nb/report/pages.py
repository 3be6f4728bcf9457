"""What the index and the navigation tell of an executed notebook: its state, its finding and its first figure."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trm_nb.notebook.progress_view import duration
from trm_nb.progress.run_folder import RunPaths
from trm_nb.storage.lock_holder import holder_of

_THUMBNAIL = (560, 330)
_MOST_FINDINGS = 4  # paragraphs on a card
_EMBEDDED = re.compile(r"data:image/(?:png|jpeg);base64,([A-Za-z0-9+/=]+)")


@dataclass(slots=True)
class Page:
    """What the index and the page's frame tell of one executed notebook; `cell` counts from 1."""

    name: str
    status: str
    duration: str = ""
    message: str = ""
    cell: int | None = None
    title: str = ""
    thumbnail: str = ""
    alt: str = ""
    finding: str = ""
    notebook: str = ""  # the address of the executed notebook
    body: str = ""  # of the page, in a report that is one file

    @property
    def short(self) -> str:
        """The name as navigation shows it."""
        return self.name.replace("_", " ")


def executed(run: Path) -> list[Path]:
    """The executed notebooks of a run, in order."""
    return sorted(path for path in RunPaths(run).notebooks.glob("*.ipynb") if not path.name.startswith("."))


def page_of(path: Path, notebook: dict[str, Any], noted: dict[str, Any], run: Path) -> Page:
    """The page of a notebook, as far as its metadata and what the tracker `noted` tell of it."""
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


def thumbnail(notebook: dict[str, Any], alt_of: Callable[[dict[str, Any], dict[str, Any]], str]) -> tuple[str, str]:
    """The first figure, made small, as a data address, and its description; two empty strings without one."""
    from PIL import Image

    for data, described in _images(notebook, alt_of):
        try:
            with Image.open(io.BytesIO(base64.b64decode(data))) as image:
                small = image.convert("RGBA")
        except (ValueError, OSError):
            continue
        small.thumbnail(_THUMBNAIL)
        white = Image.new("RGB", small.size, "white")
        white.paste(small, mask=small.getchannel("A"))
        encoded = io.BytesIO()
        white.save(encoded, "PNG", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}", described
    return "", ""


def _images(
    notebook: dict[str, Any], alt_of: Callable[[dict[str, Any], dict[str, Any]], str]
) -> Iterator[tuple[str, str]]:
    """The figures in base64 with their descriptions; those of cells tagged `headline` come first."""
    cells = sorted(notebook["cells"], key=lambda cell: "headline" not in cell["metadata"].get("tags", []))
    for cell in cells:
        for output in cell["outputs"]:
            data = output.get("data") or {}
            for kind in ("image/png", "image/jpeg"):
                if kind in data:
                    yield data[kind], alt_of(output, cell)
            if first := _EMBEDDED.search(data.get("text/html", "")):
                yield first[1], alt_of(output, cell)
