"""The command that uses a trained model: predict."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trm_nb.cli.common import RunDir, say

if TYPE_CHECKING:
    import pandas as pd


def predict(
    folder: RunDir,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="files and folders, read by content")],
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="as in models/NAME")] = "main",
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="cpu, cuda, ...; by default that of the run")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON, after every recursion step")] = False,
) -> int:
    """Predict files with a trained model, as its evaluation predicts held-out samples.

    What cannot be used is a sentence on standard error; the other files are predicted, and the exit code is then 1.
    """
    from trm_nb.pipeline.prediction.model import Model

    frame = Model.load(folder, model, device=device).predict(files)
    failed = frame[frame["error"].notna()]
    if as_json:
        rows = [{name: _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]
        print(json.dumps(rows, indent=2, ensure_ascii=sys.stdout.encoding.lower() != "utf-8"))
    else:
        for line in _lines(frame[frame["step"] == frame["step"].max()]):
            print(line)
    for row in failed.itertuples():
        say(f"{row.item_id}: {row.error}")
    return 1 if len(failed) else 0


def _lines(last: pd.DataFrame) -> Iterator[str]:
    """A line for each sample; a grid takes a line for each of its rows."""
    from trm_nb.describe import printable

    names = [
        row.item_id if count == 1 else f"{row.item_id}#{row.page}"
        for row, count in zip(last.itertuples(), last.groupby("item_id")["page"].transform("count"), strict=True)
    ]
    width = max(map(len, names), default=0)
    for name, value, probability in zip(names, last["prediction"], last["probability"], strict=True):
        cells = value if isinstance(value, list) else None
        shown = "" if cells else f"{printable(value)}  "
        yield f"{printable(name):{width}}  {shown}{probability:.1%}"
        yield from (f"  {' '.join(str(cell) for cell in row if cell >= 0)}" for row in cells or [] if max(row) >= 0)


def _plain(value: Any) -> Any:
    """A value as JSON has it; what is missing is null."""
    import pandas as pd

    return value if isinstance(value, list) or not pd.isna(value) else None
