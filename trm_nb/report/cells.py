"""The cells of one notebook as clean HTML: nbconvert with a template of our own on its `basic` one.

Every value the template shows passes a cleaning filter, and the finished body is cleaned once more.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from typing import Any

from trm_nb.progress.stats_text import duration
from trm_nb.report.sanitise import clean_body, clean_code, clean_piece

TEMPLATES = Path(__file__).parent / "templates"
_SLOW_SECONDS = 0.5
_ZOOM = '<details class="zoom"><summary>Enlarge</summary></details>'


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a Markdown cell: level 1..3, its text, and the id it has in the page."""

    level: int
    text: str
    anchor: str


class Cells:
    """Renders one notebook's cells, and gathers the headings on the way."""

    def __init__(self, notebook: dict[str, Any], name: str, prefix: str = "") -> None:
        from nbconvert.exporters import HTMLExporter

        self.notebook = notebook
        self.name = name
        self.prefix = prefix  # of the ids
        self.headings: list[Heading] = []
        self.exporter = HTMLExporter(  # type: ignore[no-untyped-call]
            template_name="cells",
            extra_template_basedirs=[str(TEMPLATES)],
            exclude_anchor_links=True,
            filters={
                "author": self.author, "clean_piece": clean_piece, "clean_code": clean_code,
                "cell_state": self.cell_state, "figure": self.figure, "table_or_images": self.table_or_images,
            },
        )  # fmt: skip

    def render(self, cells: list[dict[str, Any]]) -> str:
        """Some of the notebook's cells, which have their numbers, as clean HTML."""
        import nbformat

        node = nbformat.from_dict({**self.notebook, "cells": cells})  # type: ignore[no-untyped-call]
        body, _ = self.exporter.from_notebook_node(node)
        return clean_body(body)

    def markdown(self, source: str) -> str:
        """Markdown as clean HTML."""
        from nbconvert.filters.markdown_mistune import markdown2html_mistune

        return clean_piece(markdown2html_mistune(source))

    def author(self, html: str) -> str:
        """A Markdown cell: cleaned, its headings noted and given ids."""

        def noted(match: re.Match[str]) -> str:
            level, inner = int(match[1]), match[2]
            text = re.sub(r"\s+", " ", _plain(inner)).strip()
            words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
            anchor = self.prefix + f"s{len(self.headings) + 1}-{words}"[:60]
            self.headings.append(Heading(level, text, anchor))
            return f'<h{level} id="{anchor}">{inner}</h{level}>'

        return re.sub(r"<h([1-3])>(.*?)</h\1>", noted, clean_piece(html), flags=re.DOTALL)

    def cell_state(self, cell: dict[str, Any]) -> dict[str, str]:
        """What the template shows of a code cell's execution."""
        number, noted = cell["metadata"]["trm_number"], cell["metadata"].get("papermill", {})
        status = noted.get("status") or "completed"
        took = noted.get("duration") or 0.0
        label = f"Code of cell {number}" + (f", {duration(took)}" if took >= _SLOW_SECONDS else "")
        label += {"failed": ", stopped here", "pending": ", did not run"}.get(status, "")
        return {"status": re.sub(r"\W", "", str(status)), "anchor": f"{self.prefix}cell-{number}", "label": label}

    def figure(self, output: dict[str, Any], cell: dict[str, Any]) -> str:
        """An image with its description; the data is decoded and encoded again, so that it is nothing else."""
        (kind,) = output["data"]
        try:
            data = base64.b64encode(base64.b64decode(output["data"][kind], validate=False)).decode()
        except ValueError:
            return ""
        own = _metadata(output, kind)
        width, title = own.get("width"), escape(str(own.get("title") or ""))
        size = f' width="{int(width)}"' if isinstance(width, int | float) else ""
        described = escape(self.alt_of(output, cell))
        chart = " chart" if own.get("chart") is True else ""
        caption = f"<figcaption><strong>{title}.</strong> {described}</figcaption>" if title else ""
        image = f'<img src="data:{kind};base64,{data}" alt="{title or described}"{size}>'
        return f'<figure class="figure{chart}"><div class="canvas" tabindex="0">{image}</div>{caption}{_ZOOM}</figure>'

    def table_or_images(self, output: dict[str, Any], cell: dict[str, Any]) -> str:
        """An output of HTML: images as tiles, which can be enlarged; anything else scrolls where it is wide."""
        html = clean_piece(output["data"]["text/html"])
        if html.startswith('<figure class="trm-gallery">'):
            return f'<div class="output gallery">{html}{_ZOOM}</div>'
        return f'<div class="output" tabindex="0">{html}</div>'

    def alt_of(self, output: dict[str, Any], cell: dict[str, Any]) -> str:
        """A figure's description: its own, its cell's, else where it stands."""
        own = _metadata(output, next(iter(output["data"]))).get("alt") or cell["metadata"].get("alt")
        return str(own) if own else f"Figure under “{self.headings[-1].text if self.headings else self.name}”"

    def slowest(self) -> list[dict[str, str]]:
        """The five cells that took longest, if they took any time to speak of."""
        timed = []
        for number, cell in enumerate(self.notebook["cells"], 1):
            seconds = cell["metadata"].get("papermill", {}).get("duration") or 0.0
            if cell["cell_type"] == "code" and seconds >= _SLOW_SECONDS:
                first = next((line for line in cell["source"].splitlines() if line.strip()), "")
                timed.append(
                    (
                        seconds,
                        {
                            "anchor": f"{self.prefix}cell-{number}",
                            "label": f"cell {number}: {first[:70]}",
                            "duration": duration(seconds),
                        },
                    )
                )
        return [shown for _, shown in sorted(timed, key=lambda pair: -pair[0])[:5]]


def _metadata(output: dict[str, Any], kind: str) -> dict[str, Any]:
    """What an output says of its data of this kind."""
    own = (output.get("metadata") or {}).get(kind)
    return own if isinstance(own, dict) else {}


def _plain(html: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", html))
