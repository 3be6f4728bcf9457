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

from trm_nb.notebook.progress_view import duration
from trm_nb.report.sanitise import clean_body, clean_code, clean_piece

TEMPLATES = Path(__file__).parent / "templates"
_SLOW_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a Markdown cell: level 1..3, its text, and the id it has in the page."""

    level: int
    text: str
    anchor: str


class Cells:
    """Renders one notebook's cells, and gathers the headings on the way."""

    def __init__(self, notebook: dict[str, Any], name: str) -> None:
        from nbconvert.exporters import HTMLExporter

        self.notebook = notebook
        self.name = name
        self.headings: list[Heading] = []
        self.exporter = HTMLExporter(  # type: ignore[no-untyped-call]
            template_name="cells",
            extra_template_basedirs=[str(TEMPLATES)],
            exclude_anchor_links=True,
            filters={
                "author": self.author, "clean_piece": clean_piece, "clean_code": clean_code,
                "cell_state": self.cell_state, "figure": self.figure,
            },
        )  # fmt: skip

    def render(self) -> str:
        """The body: clean HTML of all cells."""
        import nbformat

        node = nbformat.from_dict(self.notebook)  # type: ignore[no-untyped-call]
        for number, cell in enumerate(node.cells, 1):
            cell.metadata["trm_number"] = number
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
            anchor = f"s{len(self.headings) + 1}-{re.sub(r'[^a-z0-9]+', '-', text.lower()).strip('-')}"[:60]
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
        return {"status": re.sub(r"\W", "", str(status)), "anchor": f"cell-{number}", "label": label}

    def figure(self, output: dict[str, Any], cell: dict[str, Any]) -> str:
        """An image with its description; the data is decoded and encoded again, so that it is nothing else."""
        (kind,) = output["data"]
        try:
            data = base64.b64encode(base64.b64decode(output["data"][kind], validate=False)).decode()
        except ValueError:
            return ""
        width = output.get("metadata", {}).get(kind, {}).get("width")
        size = f' width="{int(width)}"' if isinstance(width, int | float) else ""
        described = escape(self.alt_of(output, cell))
        return f'<div class="figure"><img src="data:{kind};base64,{data}" alt="{described}"{size}></div>'

    def alt_of(self, output: dict[str, Any], cell: dict[str, Any]) -> str:
        """A figure's description: its own, its cell's, else where it stands."""
        (kind,) = output["data"]
        own = output.get("metadata", {}).get(kind, {}).get("alt") or cell["metadata"].get("alt")
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
                            "anchor": f"cell-{number}",
                            "label": f"cell {number}: {first[:70]}",
                            "duration": duration(seconds),
                        },
                    )
                )
        return [shown for _, shown in sorted(timed, key=lambda pair: -pair[0])[:5]]


def _plain(html: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", html))
