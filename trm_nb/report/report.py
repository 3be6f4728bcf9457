"""A run's offline report: an index over the run and a page for each executed notebook, or all of it as one file.

nbconvert renders the cells with a small template on its `basic` one (its `lab` template loads four foreign addresses);
all it renders passes the allow-list of sanitise.py, and frame.py puts it into a page. Costs two seconds, mostly for
importing nbconvert. Reading the tracker only: no torch, no zarr.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trm_nb.batch.outcome import read_notebook
from trm_nb.errors import UserError
from trm_nb.notebook.prose import as_plain
from trm_nb.progress.run_folder import RunPaths
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.report.frame import Frame, render_cells
from trm_nb.report.pages import Page, executed, findings, page_of
from trm_nb.report.relative import Relative
from trm_nb.report.sanitise import only_what_is_shown
from trm_nb.report.summary import Summary, summary_of
from trm_nb.storage.files import write_file


@dataclass(frozen=True, slots=True)
class _Known:
    """What a report is made of. The cells of its pages are rendered."""

    run: Path
    pages: list[Page]
    stats: dict[str, Any]
    config: dict[str, Any]
    summary: Summary
    relative: Relative


def write_report(output_dir: str | Path) -> Path:
    """Write `<output_dir>/report/` from the tracker and the executed notebooks; returns its index.html.

    Raises UserError when there is no run in `output_dir`. Each file is replaced whole.
    """
    return _write_pages(_known(Path(output_dir)))


def write_single_file(output_dir: str | Path) -> Path:
    """Write the whole report as one HTML file, `<output_dir>/report.html`, which can be mailed; returns it.

    Raises UserError when there is no run in `output_dir`.
    """
    return _write_single_file(_known(Path(output_dir)))


def write_both(output_dir: str | Path) -> tuple[Path, Path]:
    """Write what `write_report` and `write_single_file` do, with every cell rendered once; returns both files."""
    known = _known(Path(output_dir))
    return _write_pages(known), _write_single_file(known)


def _write_pages(known: _Known) -> Path:
    frame, folder = Frame(known.run, known.pages, known.relative), RunPaths(known.run).report
    for page in known.pages:
        write_file(folder / f"{page.name}.html", frame.page(page).encode(errors="replace"))
    for stale in {p.stem for p in folder.glob("*.html")} - {page.name for page in known.pages} - {"index"}:
        (folder / f"{stale}.html").unlink()
    index = folder / "index.html"
    write_file(index, frame.index(known.summary, known.stats, known.config).encode(errors="replace"))
    return index


def _write_single_file(known: _Known) -> Path:
    frame = Frame(known.run, known.pages, known.relative, single=True)
    written = RunPaths(known.run).single_report
    write_file(written, frame.index(known.summary, known.stats, known.config).encode(errors="replace"))
    return written


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
    page = page_of(path, notebook, {}, path.parent)
    page.notebook = path.name
    index = next(
        (found for above in path.parents[:3] if (found := RunPaths(above).report / "index.html").is_file()), None
    )
    home = "" if index is None else Path(os.path.relpath(index, path.parent)).as_posix()
    written = path.with_suffix(".html")
    relative = Relative(path.parent)
    render_cells(page, notebook, relative)
    html = Frame(path.parent, [page], relative, home).page(page)

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
    for path, notebook in _notebooks(Path(output_dir)):
        only_what_is_shown(notebook)
        status = notebook["metadata"].get("trm_nb", {}).get("status", "done")
        found.append((path.stem, as_plain(" ".join(findings(notebook))) if status == "done" else status))
    return found


def _notebooks(run: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in executed(run):
        notebook = read_notebook(path)
        if notebook is not None:
            yield path, notebook


def _known(run: Path) -> _Known:
    """What there is to report; raises UserError when there is no run."""
    with closing(TrainingProgressTracker(run)) as tracker:
        relative, stats, pages = Relative(run), tracker.get_stats(), []
        for path, notebook in _notebooks(run):
            page = page_of(path, notebook, tracker.get(f"notebook:{path.stem}") or {}, run)
            page.notebook = f"../{RunPaths(run).notebooks.name}/{page.name}.ipynb"
            render_cells(page, notebook, relative)
            pages.append(page)
        return _Known(run, pages, stats, tracker.frozen(), summary_of(run, tracker, stats, relative), relative)
