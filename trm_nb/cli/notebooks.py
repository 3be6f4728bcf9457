"""`trm-nb run`: the notebooks of one params file, or of several."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer

from trm_nb.cli.common import OutputDir, Override, overrides_of, say, tracker_of
from trm_nb.cli.stopping import stopped_by_signals


@stopped_by_signals()
def run(
    params: Annotated[list[Path], typer.Argument(metavar="PARAMS.yaml...", help="the params file, or several")],
    output_dir: OutputDir = None,
    p: Override = None,
    first: Annotated[int, typer.Option("--from", metavar="NN", help="first notebook")] = 1,
    last: Annotated[int, typer.Option("--to", metavar="NN", help="last notebook")] = 8,
    force: Annotated[bool, typer.Option("--force", help="execute what is up to date too")] = False,
) -> int:
    """Execute the notebooks in order; what is up to date is skipped, and a stopped run continues.

    Several params files are executed one after the other. One that fails does not stop the others; the exit code is
    then 1.
    """
    from trm_nb.errors import DamagedError, UserError

    if len(params) == 1:
        return execute(params[0], overrides_of(p, output_dir), first, last, force)
    if output_dir is not None or any(pair.startswith("output_dir=") for pair in p or []):
        raise UserError(f"{len(params)} params files would share one output_dir; give it in each of the files")
    outcomes: list[str] = []
    for number, path in enumerate(params, 1):
        print(f"{number} of {len(params)}: {path}", flush=True)
        try:
            code = execute(path, overrides_of(p, None), first, last, force)
            outcomes.append("failed" if code else "done")
        except (UserError, DamagedError) as error:
            say(f"trm-nb: {error}")
            outcomes.append("failed")
    width = max(len(str(path)) for path in params)
    for path, outcome in zip(params, outcomes, strict=True):
        print(f"{path!s:{width}}  {outcome}")
    print(f"{outcomes.count('done')} of {len(params)} runs are done")
    return 1 if "failed" in outcomes else 0


def execute(params: Path, overrides: dict[str, Any], first: int, last: int, force: bool, project: Path = Path()) -> int:
    """Execute the notebooks of one params file in the folder `project`; returns the exit code."""
    from trm_nb.batch.runner import NotebookEvent, run_notebooks
    from trm_nb.cli.terminal import TerminalView, say_what_came_out
    from trm_nb.progress.stats_text import duration

    begun: list[Path] = []  # the run, once a notebook has begun
    view: TerminalView | None = None

    def on_event(event: NotebookEvent) -> None:
        nonlocal view
        begun[:] = [event.run]
        if event.status == "running":
            view = view or TerminalView(tracker_of(event.run), title=event.notebook)
            view.tick()
            return
        if view is not None:
            view.close()
            view.tracker.close()
            view = None
        print(
            f"{event.notebook}: {event.status}" + (f" in {duration(event.seconds)}" if event.seconds else ""),
            flush=True,
        )

    try:
        with contextlib.chdir(project):
            outcome = run_notebooks(params, overrides, first, last, force, on_event)
    except KeyboardInterrupt:
        if begun:
            say_what_came_out(begun[0], new=True)
        raise
    say_what_came_out(outcome.output_dir, new=bool(outcome.executed or outcome.failure))
    if outcome.failure:
        say(outcome.failure.sentence)
    return outcome.exit_code
