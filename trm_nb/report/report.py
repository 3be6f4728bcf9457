"""A run's offline report: one HTML page for each executed notebook, and an index over the run.

nbconvert renders the cells with a small template on its `basic` one (its `lab` template loads four foreign addresses);
all it renders passes the allow-list of sanitise.py; jinja2 with autoescape puts it into a page whose content
security policy forbids everything but inline styles and embedded images. Costs two seconds, mostly for
importing nbconvert. Reading the tracker only: no torch, no zarr.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from trm_nb._version import __version__
from trm_nb.batch.outcome import read_notebook
from trm_nb.errors import UserError
from trm_nb.notebook.progress_view import bar, count, duration, said, state_text
from trm_nb.notebook.prose import as_plain
from trm_nb.progress.run_folder import RunPaths
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.report.cells import TEMPLATES, Cells
from trm_nb.report.sanitise import only_what_is_shown
from trm_nb.storage.files import write_file
from trm_nb.storage.lock_holder import holder_of

_THUMBNAIL = (720, 420)


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

    @property
    def short(self) -> str:
        """The name as navigation shows it."""
        return self.name.replace("_", " ")


def write_report(output_dir: str | Path) -> Path:
    """Write `<output_dir>/report/` from the tracker and the executed notebooks; returns its index.html.

    Raises UserError when there is no run in `output_dir`. Each file is replaced whole.
    """
    run = Path(output_dir)
    folder = RunPaths(run).report
    tracker = TrainingProgressTracker(run)
    try:
        noted = {path.stem: tracker.get(f"notebook:{path.stem}") or {} for path in _executed(run)}
        stats, config = tracker.get_stats(), tracker.frozen()
    finally:
        tracker.close()
    found = [(path, notebook) for path in _executed(run) if (notebook := read_notebook(path)) is not None]
    pages = [_page(path, notebook, noted[path.stem], run) for path, notebook in found]
    frame = _Frame(run, pages)
    for page, (_, notebook) in zip(pages, found, strict=True):
        write_file(folder / f"{page.name}.html", frame.notebook(page, notebook).encode(errors="replace"))
    for stale in {p.stem for p in folder.glob("*.html")} - {page.name for page in pages} - {"index"}:
        (folder / f"{stale}.html").unlink()
    index = folder / "index.html"
    write_file(index, frame.index(stats, config).encode(errors="replace"))
    return index


def write_page(path: str | Path) -> Path:
    """Write the page of one executed notebook next to it, as of a model's or of a comparison; returns the page.

    It links to the report of the run in whose folder it lies, where there is one.

    Raises:
        UserError: where `path` holds no notebook.
    """
    path = Path(path)
    notebook = read_notebook(path)
    if notebook is None:
        raise UserError(f"{path}: expected an executed notebook (JSON with cells), found none")
    page = _page(path, notebook, {}, path.parent)
    index = next(
        (found for above in path.parents[:3] if (found := RunPaths(above).report / "index.html").is_file()), None
    )
    home = "" if index is None else Path(os.path.relpath(index, path.parent)).as_posix()
    written = path.with_suffix(".html")
    html = _Frame(path.parent, [page], home).notebook(page, notebook)

    def link(match: re.Match[str]) -> str:
        """To a page of the run's report; nothing where there is no such page."""
        there = index is not None and (index.parent / match[1]).is_file()
        return f' href="{home.removesuffix("index.html")}{match[1]}{match[2] or ""}"' if there else ""

    html = re.sub(rf' href="(?!{re.escape(written.stem)}\.)([0-9]{{2}}_\w+\.html)(#[\w.-]*)?"', link, html)
    write_file(written, html.encode(errors="replace"))
    return written


def headlines(output_dir: str | Path) -> list[tuple[str, str]]:
    """The executed notebooks of a run, each with the finding that the index shows of it, as plain text on one line.

    One that did not come to its end has its status instead, as "failed".
    """
    found = []
    for path in _executed(Path(output_dir)):
        notebook = read_notebook(path)
        if notebook is not None:
            only_what_is_shown(notebook)
            status = notebook["metadata"].get("trm_nb", {}).get("status", "done")
            found.append((path.stem, _first_finding(notebook, as_plain) if status == "done" else status))
    return found


def _executed(run: Path) -> list[Path]:
    return sorted(path for path in RunPaths(run).notebooks.glob("*.ipynb") if not path.name.startswith("."))


def _page(path: Path, notebook: dict[str, Any], noted: dict[str, Any], run: Path) -> Page:
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


class _Frame:
    """The pages' templates, and what all of them show."""

    def __init__(self, run: Path, pages: list[Page], home: str = "index.html") -> None:
        import jinja2

        self.environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
        )
        self.shared: dict[str, Any] = {
            "run": run.resolve().name,
            "pages": pages,
            "home": home,
            "version": __version__,
            "written": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
            "style": _markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        }
        self.run = run
        self.pages = pages

    def notebook(self, page: Page, notebook: dict[str, Any]) -> str:
        """The HTML of one notebook's page; fills in what the index shows of it."""
        only_what_is_shown(notebook)
        cells = Cells(notebook, page.short)
        body = cells.render()
        page.title = next((h.text for h in cells.headings if h.level == 1), page.short)
        page.thumbnail, page.alt = _thumbnail(notebook, cells.alt_of)
        page.finding = _markup(_first_finding(notebook, cells.markdown))
        metadata = notebook["metadata"]
        parameters = metadata.get("papermill", {}).get("parameters") or {}
        return self.environment.get_template("page.html.j2").render(
            self.shared,
            title=f"{page.title} - {self.shared['run']}",
            here=page.name,
            page=page,
            headings=cells.headings,
            body=_markup(body),
            parameters=[(name, _value(value)) for name, value in parameters.items()],
            slowest=cells.slowest(),
            environment=list(metadata.get("trm_nb", {}).get("environment", {}).items()),
        )

    def index(self, stats: dict[str, Any], config: dict[str, Any]) -> str:
        """The HTML of the index."""
        stages = [
            {"name": name, "bar": bar(stage), "count": count(stage), "said": said(stage)}
            for name, stage in stats["stages"].items()
        ]
        return self.environment.get_template("index.html.j2").render(
            self.shared,
            title=f"{self.shared['run']} - report",
            here=None,
            folder=str(self.run),
            state=state_text(stats),
            state_class=stats["state"].split()[0],
            counts=_counts(stats),
            modalities=", ".join(f"{number:,} {name}" for name, number in stats["modalities"].items()),
            stages=stages,
            quarantine=[(reason, f"{number:,}") for reason, number in stats["quarantine_by_reason"].items()],
            config=[(name, _value(value)) for name, value in sorted(config.items())],
        )


def _counts(stats: dict[str, Any]) -> list[tuple[str, str]]:
    consolidation = stats["consolidation"]
    return [
        ("samples planned" if stats["plan_frozen"] else "planned so far", f"{stats['rows_planned']:,}"),
        ("encoded", f"{stats['samples_encoded']:,}"),
        ("quarantined", f"{stats['samples_quarantined'] + stats['items_quarantined']:,}"),
        ("batches built", f"{stats['batches_built']:,}"),
        ("chunks", f"{consolidation['chunks_built']:,}"),
        ("training steps", f"{stats['global_step']:,}"),
        ("on disk", _disk(stats["disk_usage_gb"])),
    ]


def _disk(gigabytes: float) -> str:
    return f"{gigabytes * 1000:,.1f} MB" if gigabytes < 1 else f"{gigabytes:,.2f} GB"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _markup(html: str) -> Any:
    import markupsafe

    return markupsafe.Markup(html)  # all that comes here is a file of ours, or has passed sanitise.py


def _outputs(notebook: dict[str, Any], *kinds: str) -> list[tuple[dict[str, Any], dict[str, Any], str]]:
    """Outputs of these kinds with their cell; those of cells tagged `headline` come first."""
    cells = sorted(notebook["cells"], key=lambda cell: "headline" not in cell["metadata"].get("tags", []))
    return [
        (output, cell, kind)
        for cell in cells
        for output in cell["outputs"]
        for kind in kinds
        if kind in (output.get("data") or {})
    ]


def _first_finding(notebook: dict[str, Any], render: Callable[[str], str]) -> str:
    for output, _, kind in _outputs(notebook, "text/markdown"):
        return render(output["data"][kind])
    return ""


def _thumbnail(notebook: dict[str, Any], alt_of: Callable[[dict[str, Any], dict[str, Any]], str]) -> tuple[str, str]:
    """The first figure, made small, as a data address, and its description; two empty strings without one."""
    from PIL import Image

    for output, cell, kind in _outputs(notebook, "image/png", "image/jpeg"):
        try:
            with Image.open(io.BytesIO(base64.b64decode(output["data"][kind]))) as image:
                small = image.convert("RGB")
        except (ValueError, OSError):
            continue
        small.thumbnail(_THUMBNAIL)
        encoded = io.BytesIO()
        small.save(encoded, "PNG", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}", alt_of(output, cell)
    return "", ""
