"""The command line. What a command needs is imported inside it, so that `trm-nb --help` is instant.

Exit codes: 0 well, 1 failed or damaged, 2 a mistake of the user (one sentence on standard error, never a traceback),
130 interrupted, 128 and the signal's number when `run`, `build` or `train` were stopped by one (143 for SIGTERM).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from trm_nb.cli import experiments
from trm_nb.cli.arc import evaluate_arc
from trm_nb.cli.common import Override, RunDir, overrides_of, run_of, say, tracker_of
from trm_nb.cli.predict import predict
from trm_nb.cli.stopping import stopped_by_signals

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Text, images and grids become images, images become capsules, capsules train a Tiny Recursive Model.",
)
cache_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The cached images of a run.")
app.add_typer(cache_app, name="cache")
experiments.add_to(app)
app.command()(predict)
app.command()(evaluate_arc)

Params = Annotated[
    Path, typer.Argument(metavar="PARAMS.yaml", help="the params file; `trm-nb doctor` lists the fields")
]
OutputDir = Annotated[Path | None, typer.Option("--output-dir", metavar="DIR", help="instead of the params file's")]


@app.command()
@stopped_by_signals()
def run(
    params: Annotated[list[Path], typer.Argument(metavar="PARAMS.yaml...", help="the params file, or several")],
    output_dir: OutputDir = None,
    p: Override = None,
    first: Annotated[int, typer.Option("--from", metavar="NN", help="first notebook")] = 1,
    last: Annotated[int, typer.Option("--to", metavar="NN", help="last notebook")] = 6,
    force: Annotated[bool, typer.Option("--force", help="execute what is up to date too")] = False,
) -> int:
    """Execute the notebooks in order; what is up to date is skipped, and a stopped run continues.

    Several params files are executed one after the other. One that fails does not stop the others; the exit code is
    then 1.
    """
    from trm_nb.errors import DamagedError, UserError

    if len(params) == 1:
        return _run_notebooks(params[0], overrides_of(p, output_dir), first, last, force)
    if output_dir is not None or any(pair.startswith("output_dir=") for pair in p or []):
        raise UserError(f"{len(params)} params files would share one output_dir; give it in each of the files")
    outcomes: list[str] = []
    for number, path in enumerate(params, 1):
        print(f"{number} of {len(params)}: {path}", flush=True)
        try:
            code = _run_notebooks(path, overrides_of(p, None), first, last, force)
            outcomes.append("failed" if code else "done")
        except (UserError, DamagedError) as error:
            say(f"trm-nb: {error}")
            outcomes.append("failed")
    width = max(len(str(path)) for path in params)
    for path, outcome in zip(params, outcomes, strict=True):
        print(f"{path!s:{width}}  {outcome}")
    print(f"{outcomes.count('done')} of {len(params)} runs are done")
    return 1 if "failed" in outcomes else 0


def _run_notebooks(params: Path, overrides: dict[str, Any], first: int, last: int, force: bool) -> int:
    """Execute the notebooks of one params file; returns the exit code."""
    from trm_nb.batch.runner import NotebookEvent, run_notebooks
    from trm_nb.cli.terminal import TerminalView, say_what_came_out
    from trm_nb.notebook.progress_view import duration

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
        outcome = run_notebooks(params, overrides, first, last, force, on_event)
    except KeyboardInterrupt:
        if begun:
            say_what_came_out(begun[0], new=True)
        raise
    say_what_came_out(outcome.output_dir, new=bool(outcome.executed or outcome.failure))
    if outcome.failure:
        say(outcome.failure.sentence)
    return outcome.exit_code


@app.command()
@stopped_by_signals()
def build(params: Params, output_dir: OutputDir = None, p: Override = None) -> int:
    """Build the same dataset without notebooks, rendering and encoding overlapped."""
    from trm_nb.cli.terminal import TerminalView, quarantined, result_of
    from trm_nb.params import load_params
    from trm_nb.pipeline.names import check_names
    from trm_nb.pipeline.run import build as build_dataset
    from trm_nb.progress.run_folder import RunPaths
    from trm_nb.progress.tracker import TrainingProgressTracker

    config = load_params(params, overrides_of(p, output_dir))
    check_names(config)
    tracker = TrainingProgressTracker(config.output_dir, create=True)
    try:
        with TerminalView(tracker, title="build") as view:
            report = build_dataset(config, on_progress=view.tick)
    finally:
        tracker.close()
    print(f"{report.rows:,} samples in {config.output_dir}")
    for line in quarantined(report.output_dir, report.quarantined):
        print(line)
    if report.notes:
        print(f"{len(report.notes):,} used, but not as asked: `trm-nb status` shows the notes")
    if report.training:
        print(result_of(report.training, RunPaths(report.output_dir).model(config.model).root))
    print(f"content_digest {report.content_digest}")
    return 0


@app.command()
def status(folder: RunDir, as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False) -> int:
    """What the tracker holds about a run, also while it is being built."""
    import json

    from trm_nb.notebook.progress_view import ProgressView

    tracker = tracker_of(folder)
    try:
        print(
            json.dumps(tracker.get_stats(), indent=2, ensure_ascii=sys.stdout.encoding.lower() != "utf-8")
            if as_json
            else ProgressView(tracker).snapshot()
        )
    finally:
        tracker.close()
    return 0


@app.command()
def verify(
    folder: RunDir, deep: Annotated[bool, typer.Option("--deep", help="read everything and check every hash")] = False
) -> int:
    """Check a run's data; exit code 1, and a list, when something is damaged."""
    from trm_nb.pipeline.verify import verify as damages_of

    damages = damages_of(folder, deep=deep)
    for damage in damages:
        print(damage)
    print(
        f"{len(damages)} damaged; run again to repair"
        if damages
        else "whole" + ("" if deep else " (sizes; --deep reads all)")
    )
    return 1 if damages else 0


@app.command()
def report(folder: RunDir) -> int:
    """Write the run's offline HTML report."""
    from trm_nb.report.report import write_report

    print(write_report(folder))
    return 0


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(context: typer.Context) -> int:
    """Open the project in JupyterLab; further arguments are passed on to it."""
    import subprocess

    from trm_nb.errors import UserError
    from trm_nb.params import project_root

    root = project_root(Path.cwd())
    if root is None:
        raise UserError(
            f"no project here: expected a folder with notebooks/ and params/ at or above {Path.cwd()}; change into it"
        )
    return subprocess.run([sys.executable, "-m", "jupyterlab", *context.args], cwd=root, check=False).returncode


@app.command()
def doctor(
    rebuild: Annotated[
        Path | None, typer.Option("--rebuild", metavar="DIR", help="make a run's tracker again from its receipts")
    ] = None,
) -> int:
    """What is installed, what the machine has, and every config field with its default."""
    if rebuild is None:
        from trm_nb.cli.doctor import examine

        return examine()
    from trm_nb.pipeline.maintenance import rebuild_tracker

    stats = rebuild_tracker(rebuild)
    print(
        f"{rebuild}: {stats['rows_planned']:,} samples planned, {stats['samples_cached']:,} rendered, "
        f"{stats['samples_encoded']:,} encoded, {stats['consolidation']['chunks_built']:,} chunks"
    )
    return 0


@cache_app.command("stats")
def cache_stats(folder: RunDir) -> int:
    """How many images are cached, and what they take."""
    from trm_nb.describe import aligned

    stats = run_of(folder).cache.stats()
    print("\n".join(aligned({"cache": str(folder), **stats})))
    return 0


@cache_app.command("clear")
def cache_clear(
    folder: RunDir,
    keep_index: Annotated[bool, typer.Option("--keep-index", help="remember which images were rendered")] = False,
) -> int:
    """Delete a run's images; its capsules stay, and images are rendered again when they are needed."""
    run = run_of(folder)
    with run.writing("clearing the cache"):
        images = len(run.cache)
        run.cache.clear(keep_index)
    print(f"{images:,} images deleted")
    return 0


@app.command()
def reset(
    folder: RunDir,
    with_cache: Annotated[bool, typer.Option("--with-cache", help="delete the cached images too")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> int:
    """Delete a run's dataset, tracker, models, executed notebooks and report."""
    from trm_nb.pipeline.maintenance import reset as reset_run

    if not yes and sys.stdin.isatty() and not typer.confirm(f"Delete what was built in {folder}?"):
        return 1
    print("deleted: " + (", ".join(reset_run(folder, keep_cache=not with_cache)) or "nothing"))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    from trm_nb.cli.standard_output import forgiving_output

    with forgiving_output():
        return _main(arguments)


def _main(arguments: list[str] | None) -> int:
    from typer._click.exceptions import ClickException

    from trm_nb.errors import DamagedError, UserError

    try:
        code = app(args=arguments, prog_name="trm-nb", standalone_mode=False)
    except UserError as error:
        say(f"trm-nb: {error}")
        return 2
    except DamagedError as error:
        say(f"trm-nb: {error}; `trm-nb verify DIR --deep` lists what is damaged, and running again repairs it")
        return 1
    except UnicodeEncodeError as error:
        if not isinstance(error.object, str) or error.encoding != sys.getfilesystemencoding():
            raise
        say(
            f"trm-nb: {error.object!r} cannot be a file name in this locale, whose encoding is {error.encoding}; "
            "set LC_ALL=C.UTF-8 or PYTHONUTF8=1"
        )
        return 2
    except ClickException as error:
        error.show()
        return error.exit_code
    except typer.Abort:
        code = 130
    if code == 130:
        say("trm-nb: interrupted; what was done is kept, run again to continue")
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main())
