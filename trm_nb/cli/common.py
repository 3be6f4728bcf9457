"""What several commands share: their arguments, and the run in a folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from trm_nb.pipeline.run import Run
    from trm_nb.progress.tracker import TrainingProgressTracker

Override = Annotated[
    list[str] | None, typer.Option("-p", metavar="KEY=VALUE", help="another value for a field; repeatable")
]
Params = Annotated[
    Path, typer.Argument(metavar="PARAMS.yaml", help="the params file; `trm-nb doctor` lists the fields")
]
OutputDir = Annotated[Path | None, typer.Option("--output-dir", metavar="DIR", help="instead of the params file's")]
RunDir = Annotated[Path, typer.Argument(metavar="DIR", help="the run's folder (its output_dir)")]


def tracker_of(folder: Path) -> TrainingProgressTracker:
    """The tracker of the run in a folder, to be read."""
    from trm_nb.progress.tracker import TrainingProgressTracker

    return TrainingProgressTracker(folder)


def run_of(folder: Path, overrides: dict[str, Any] | None = None) -> Run:
    """The run in a folder, with its frozen settings, and the overrides."""
    from trm_nb.errors import UserError
    from trm_nb.pipeline.run import open_run

    tracker = tracker_of(folder)
    begun = "source_paths" in tracker.frozen()
    tracker.close()
    if not begun:
        raise UserError(f"{folder}: this run has not begun, so it holds nothing; `trm-nb build PARAMS.yaml` begins it")
    return open_run(overrides={**(overrides or {}), "output_dir": str(folder.resolve())})


def overrides_of(pairs: list[str] | None, output_dir: Path | None) -> dict[str, Any]:
    """The fields that -p and --output-dir give."""
    from trm_nb.params import parse_override

    given = {} if output_dir is None else {"output_dir": str(Path.cwd() / output_dir)}
    return {**dict(parse_override(pair) for pair in pairs or []), **given}


def say(sentence: str) -> None:
    """Print a sentence to standard error."""
    print(" ".join(sentence.split()), file=sys.stderr)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells in columns; text of folders, settings and data is shown with escapes."""
    from trm_nb.describe import printable

    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[n]) for row in cells) for n in range(len(cells[0]))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
