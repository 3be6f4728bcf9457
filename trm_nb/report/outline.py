"""What a page shows of an executed notebook, and what it folds away at its end.

A page begins with the notebook's title and introduction (the lead). Sections, from one second-level heading to the
next, are shown where their cells have something to show, and so are the steps within a section. Parameters, checks and
what has no result are folded, with their code. Where the execution stopped is shown. Works on a notebook's plain JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

PLUMBING = {"parameters", "injected-parameters", "plumbing"}  # tags of cells whose section is folded
HEADING = "## "
Cell: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outline:
    """The cells of a page: its title and introduction, what is shown, and what is folded."""

    lead: list[Cell]
    shown: list[Cell]
    folded: list[Cell]


def outline_of(notebook: dict[str, Any]) -> Outline:
    """The cells of a notebook, which are numbered from 1 in place; it has what is shown alone (sanitise.py)."""
    pieces: list[Cell] = []
    for number, cell in enumerate(notebook["cells"], 1):
        cell["metadata"]["trm_number"] = number
        pieces += _at_headings(cell) if cell["cell_type"] == "markdown" else [cell]
    ends = next((n for n, cell in enumerate(pieces) if not _is_prose(cell) or _begins_section(cell)), len(pieces))
    shown: list[Cell] = []
    folded: list[Cell] = []
    for section in _sections(pieces[ends:]):
        if not _is_shown(section):
            folded += section
            continue
        first, *others = _steps(section)
        shown += first
        for step in others:
            (shown if _has_something(step) else folded).extend(step)
    return Outline(pieces[:ends], shown, folded)


def _sections(cells: list[Cell]) -> list[list[Cell]]:
    """The cells from one second-level heading to the next; those before the first one are a section too."""
    found: list[list[Cell]] = []
    for cell in cells:
        if _begins_section(cell) or not found:
            found.append([])
        found[-1].append(cell)
    return found


def _is_shown(section: list[Cell]) -> bool:
    status = {_status(cell) for cell in section}
    if "failed" in status:
        return True
    tags = {tag for cell in section for tag in cell["metadata"].get("tags", [])}
    if tags & PLUMBING:
        return False
    return _has_something(section)


def _steps(section: list[Cell]) -> list[list[Cell]]:
    """The cells from one that is prose after code to the next."""
    found: list[list[Cell]] = [[]]
    for cell in section:
        if _is_prose(cell) and found[-1] and not _is_prose(found[-1][-1]):
            found.append([])
        found[-1].append(cell)
    return found


def _has_something(cells: list[Cell]) -> bool:
    """Whether there is an output, or a failure, or nothing but prose."""
    has_result = any(cell["outputs"] or _status(cell) == "failed" for cell in cells)
    return has_result or all(map(_is_prose, cells))


def _status(cell: Cell) -> str:
    return str(cell["metadata"].get("papermill", {}).get("status") or "completed")


def _is_prose(cell: Cell) -> bool:
    return bool(cell["cell_type"] == "markdown")


def _begins_section(cell: Cell) -> bool:
    return _is_prose(cell) and str(cell["source"]).startswith(HEADING)


def _at_headings(cell: Cell) -> list[Cell]:
    """A Markdown cell cut before each of its second-level headings, those inside of code blocks excepted."""
    parts: list[list[str]] = [[]]
    fenced = False
    for line in cell["source"].splitlines():
        fenced ^= line.startswith(("```", "~~~"))
        if line.startswith(HEADING) and not fenced and any(map(str.strip, parts[-1])):
            parts.append([])
        parts[-1].append(line)
    if len(parts) == 1:
        return [cell]
    return [
        {**cell, "id": f"{cell.get('id', 'cell')[:50]}-{n}", "source": "\n".join(lines).strip("\n")}
        for n, lines in enumerate(parts)
    ]
