"""The command line. What a command needs is imported inside it, so that `trm-nb --help` is instant.

Exit codes: 0 well, 1 failed or damaged, 2 a mistake of the user (one sentence on standard error, never a traceback),
130 interrupted, 128 and the signal's number when `run`, `build` or `train` were stopped by one (143 for SIGTERM).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from trm_nb.cli import experiments
from trm_nb.cli.arc import evaluate_arc
from trm_nb.cli.common import OutputDir, Override, Params, RunDir, overrides_of, run_of, say, tracker_of
from trm_nb.cli.notebooks import run
from trm_nb.cli.predict import predict
from trm_nb.cli.project import demo, new
from trm_nb.cli.stopping import stopped_by_signals

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"max_content_width": 120},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Text, images and grids become images, images become capsules, capsules train a Tiny Recursive Model.",
)
cache_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The cached images of a run.")
app.add_typer(cache_app, name="cache")
for command in (new, demo, run):
    app.command()(command)
experiments.add_to(app)
app.command()(predict)
app.command()(evaluate_arc)


def _show_version(wanted: bool) -> None:
    if wanted:
        from trm_nb._version import __version__

        print(f"trm-nb {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="show the version and exit", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
@stopped_by_signals()
def build(params: Params, output_dir: OutputDir = None, p: Override = None) -> int:
    """Build the same dataset without notebooks, rendering and encoding overlapped."""
    from trm_nb.cli.terminal import TerminalView, quarantined, result_of
    from trm_nb.params import load_params
    from trm_nb.pipeline.check import check_names
    from trm_nb.pipeline.run import build as build_dataset
    from trm_nb.progress.provenance import note_command
    from trm_nb.progress.run_folder import RunPaths
    from trm_nb.progress.tracker import TrainingProgressTracker

    given = overrides_of(p, output_dir)
    config = load_params(params, given)
    check_names(config)
    tracker = TrainingProgressTracker(config.output_dir, create=True)
    try:
        note_command(tracker, "build", params, given)
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
def status(
    folder: RunDir,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="follow it until it ends")] = False,
) -> int:
    """What the tracker holds about a run, also while it is being built.

    Example: trm-nb status outputs/demo --watch
    """
    import json

    from trm_nb.cli.terminal import TerminalView
    from trm_nb.notebook.progress_view import ProgressView
    from trm_nb.progress.following import followed

    tracker = tracker_of(folder)
    try:
        if watch:
            with TerminalView(tracker, title=folder.name) as view:
                for _ in followed(tracker.get_stats, poll=0.5):
                    view.tick()
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
def report(
    folder: RunDir,
    single_file: Annotated[bool, typer.Option("--single-file", help="also as one HTML file, report.html")] = False,
    pdf: Annotated[bool, typer.Option("--pdf", help="also as report.pdf; needs Chromium")] = False,
) -> int:
    """Write the run's offline HTML report, a page for each notebook.

    Example: trm-nb report outputs/demo --single-file
    """
    from trm_nb.report.printing import print_report
    from trm_nb.report.report import write_both, write_report

    for written in write_both(folder) if single_file or pdf else [write_report(folder)]:
        print(written)
    if pdf:
        print(print_report(folder))
    return 0


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(context: typer.Context) -> int:
    """Open the project in JupyterLab, at notebooks/00_start.ipynb; further arguments are passed on to it."""
    import contextlib

    from trm_nb.errors import UserError
    from trm_nb.params import project_root

    root = project_root(Path.cwd())
    if root is None:
        raise UserError(
            f"no project here: expected a folder with notebooks/ and params/ at or above {Path.cwd()}; change into "
            "it, or make one with `trm-nb new FOLDER`"
        )
    from jupyterlab.labapp import LabApp  # a second

    start = "notebooks/00_start.ipynb"  # as an address and not as a file, whose folder alone would be served
    opened = [f"--LabApp.default_url=/lab/tree/{start}"] if (root / start).is_file() else []
    arguments = [*context.args, *opened]
    with contextlib.chdir(root):  # in this very process, so that Ctrl-C and SIGTERM are JupyterLab's to answer
        LabApp.launch_instance(arguments)
    return 0


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
