"""The pages' templates and what they are given: one page for each notebook, the index, or all of them as one document.

jinja2 with autoescape; what is marked as safe has passed sanitise.py, or is a file of ours. Each document's content
security policy forbids everything but inline styles and embedded images. Rendering cells takes most of the time, so it
is done once for both kinds of documents; what differs in them is where the ids of a page begin with its name.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trm_nb._version import __version__
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.describe import minute
from trm_nb.notebook.prose import size
from trm_nb.progress.run_folder import RunPaths
from trm_nb.progress.stats_text import bar, count, said, state_text
from trm_nb.report.cells import TEMPLATES, Cells
from trm_nb.report.outline import outline_of
from trm_nb.report.pages import Page, findings, thumbnail
from trm_nb.report.relative import Relative
from trm_nb.report.sanitise import only_what_is_shown
from trm_nb.report.summary import Summary

# Before the ids of a page, until it is known in which document it stands; no notebook can hold it.
MARK = f"p{secrets.token_hex(8)}--"
_LINK = re.compile(r'(<a href=")(?:([0-9]{2}_\w+)\.html)?(?:#([\w.-]*))?(")')  # as nh3 writes links


def render_cells(page: Page, notebook: dict[str, Any], relative: Relative) -> None:
    """Render a notebook's cells; the page has what they show, and what the index shows of it.

    Args:
        page: of the notebook, changed in place.
        notebook: plain JSON, changed in place.
        relative: makes folders relative.
    """
    only_what_is_shown(notebook)
    relative.notebook(notebook)
    page.message = relative.text(page.message)
    outline = outline_of(notebook)
    cells = Cells(notebook, page.short, MARK)
    lead, shown = cells.render(outline.lead), cells.render(outline.shown)
    headings = list(cells.headings)
    folded = cells.render(outline.folded)
    titles = [heading.text for heading in headings if heading.level == 1]
    page.title = titles[0] if titles else page.short
    page.thumbnail = thumbnail(notebook, cells.alt_of)
    page.finding = _markup("".join(map(cells.markdown, findings(notebook))))
    metadata = notebook["metadata"]
    page.shown = {
        "headings": headings,
        "titled": bool(titles),
        "lead": _markup(lead),
        "shown": _markup(shown),
        "folded": _markup(folded),
        "parameters": _pairs(metadata.get("papermill", {}).get("parameters") or {}, relative),
        "slowest": cells.slowest(),
        "environment": _pairs(metadata.get("trm_nb", {}).get("environment", {}), relative),
    }


class Frame:
    """What all pages of a report share.

    Args:
        run: the folder of the run.
        pages: those that are linked from each page, with their cells rendered.
        relative: makes folders relative.
        home: the address of the index; "" where there is none.
        single: whether all pages are in one document.
    """

    def __init__(
        self, run: Path, pages: Sequence[Page], relative: Relative, home: str = "index.html", single: bool = False
    ) -> None:
        import jinja2

        self.environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
        )
        self.run, self.pages, self.relative, self.single = run, list(pages), relative, single
        self.shared: dict[str, Any] = {
            "run": run.resolve().name,
            "pages": self.pages,
            "home": "#index" if single and home else home,
            "single": single,
            "address": lambda page: f"#{page.name}" if single else f"{page.name}.html",
            "version": __version__,
            "written": minute(datetime.now(UTC)),
            "style": _markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        }

    def article(self, page: Page) -> str:
        """The article of one notebook."""
        html = self.environment.get_template("article.html.j2").render(
            self.shared,
            page=page,
            prefix=MARK,
            before=self._beside(page, -1),
            after=self._beside(page, 1),
            **page.shown,
        )
        html = html.replace(MARK, f"{page.name}--" if self.single else "")
        return _LINK.sub(self._inside, html) if self.single else html

    def page(self, page: Page) -> str:
        """The document of one notebook."""
        return self._document(f"{page.title} - {self.shared['run']}", page.name, _markup(self.article(page)))

    def index(self, summary: Summary, stats: dict[str, Any], config: Mapping[str, Any]) -> str:
        """The document of the index, or of the whole report."""
        paths = RunPaths(self.run)
        files = {"samples": paths.samples, "dataset card": paths.card, "settings and counts": paths.info,
                 "what could not be used": paths.quarantine}  # fmt: skip
        html = self.environment.get_template("index.html.j2").render(
            self.shared,
            state=state_text(stats),
            state_class=stats["state"].split()[0],
            done=stats["state"] == "done",
            summary=summary,
            counts=_counts(stats),
            stages=[
                {"name": name, "bar": bar(stage), "count": count(stage), "said": self.relative.text(said(stage))}
                for name, stage in stats["stages"].items()
            ],
            quarantine=[(self.relative.text(r), f"{n:,}") for r, n in stats["quarantine_by_reason"].items()],
            changed=_pairs(_changed(config), self.relative),
            config=_pairs(dict(sorted(config.items())), self.relative),
            files=[] if self.single else [(name, f"../{path.name}") for name, path in files.items() if path.is_file()],
        )
        title = f"{self.shared['run']} - report"
        if not self.single:
            return self._document(title, None, _markup(html))
        return self._document(title, None, _markup(html + "".join(map(self.article, self.pages))))

    def _document(self, title: str, here: str | None, content: Any) -> str:
        return self.environment.get_template("base.html.j2").render(
            self.shared, title=title, here=here, content=content
        )

    def _beside(self, page: Page, step: int) -> Page | None:
        place = self.pages.index(page) + step
        return self.pages[place] if 0 <= place < len(self.pages) else None

    def _inside(self, match: re.Match[str]) -> str:
        """A link to another page, as one within the document."""
        before, name, anchor, end = match.groups()
        if name is None:
            return match[0]
        if name not in {page.name for page in self.pages}:
            return "<a" + end.replace('"', "")  # a page that is not there
        return f"{before}#{name}{f'--{anchor}' if anchor else ''}{end}"


def _pairs(values: Mapping[str, Any], relative: Relative) -> list[tuple[str, str]]:
    return [(str(name), relative.value(value)) for name, value in values.items()]


def _counts(stats: dict[str, Any]) -> list[tuple[str, str]]:
    consolidation = stats["consolidation"]
    return [
        ("samples planned" if stats["plan_frozen"] else "planned so far", f"{stats['rows_planned']:,}"),
        ("encoded", f"{stats['samples_encoded']:,}"),
        ("quarantined", f"{stats['samples_quarantined'] + stats['items_quarantined']:,}"),
        ("batches built", f"{stats['batches_built']:,}"),
        ("chunks", f"{consolidation['chunks_built']:,}"),
        ("training steps", f"{stats['global_step']:,}"),
        ("on disk", size(1e9 * stats["disk_usage_gb"])),
    ]


def _changed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that differ from their defaults, and those that have none."""
    fields = MultimodalDatasetConfig.model_fields
    return {
        name: value
        for name, value in config.items()
        if name in fields and (fields[name].is_required() or fields[name].default != value)
    }


def _markup(html: str) -> Any:
    import markupsafe

    return markupsafe.Markup(html)  # all that comes here is a file of ours, or has passed sanitise.py
