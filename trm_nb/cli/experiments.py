"""The commands for many models on one dataset: train, sweep, list, compare."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trm_nb.cli.common import Override, RunDir, overrides_of, print_table, run_of, say
from trm_nb.cli.stopping import stopped_by_signals

if TYPE_CHECKING:
    import pandas as pd

    from trm_nb.batch.sweep import Trained, Trial
    from trm_nb.pipeline.run import Run
    from trm_nb.records import Progress

RunDirs = Annotated[list[Path], typer.Argument(metavar="DIR...", help="folders of runs")]


def add_to(app: typer.Typer) -> None:
    """Make them commands of the command line."""
    app.command()(train)
    app.command()(sweep)
    app.command("list")(list_models)
    app.command()(compare)


@stopped_by_signals()
def train(
    folder: RunDir,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="its name, as in models/NAME")] = None,
    p: Override = None,
) -> int:
    """Train a model on a run's dataset; what was interrupted continues.

    A model that is there keeps its settings. A new one takes those that the run was last built with, and what -p says.
    Started by `torchrun --nproc-per-node N -m trm_nb.cli train DIR`, N processes train it together.
    """
    from trm_nb.cli.terminal import TerminalView, result_of
    from trm_nb.workers.distributed import joined

    given = overrides_of(p, folder) | ({} if model is None else {"model": model})
    run = run_of(folder, given)
    path = run.paths.model(run.config.model).root
    try:
        with joined(run.config.device) as group:
            if group.rank:  # the first process writes and says everything
                run.follow()
                return 0
            with TerminalView(run.tracker, title=f"train {run.config.model}") as view:
                print(result_of(run.train(on_progress=view.tick), path))
    except KeyboardInterrupt:
        say(f"`trm-nb train {shlex.quote(str(folder))} --model {run.config.model}` continues this training")
        raise
    finally:
        run.close()
    return 0


@stopped_by_signals()
def sweep(
    folder: RunDir,
    p: Annotated[list[str], typer.Option("-p", metavar="KEY=V1,V2,...", help="values of a setting; repeatable")],
    prefix: Annotated[str, typer.Option("--name", metavar="PREFIX", help="what the models' names begin with")] = "",
) -> int:
    """Train a model for each combination of values on a run's dataset; what was interrupted continues.

    One that fails does not stop the others; the exit code is then 1.
    """
    from trm_nb.batch.sweep import sweep as sweep_models
    from trm_nb.batch.sweep import trials_of, values_of
    from trm_nb.cli.terminal import TerminalView

    run_of(folder).close()  # a folder without a run is one sentence
    trials = trials_of(values_of(p), prefix)
    done: list[Trained] = []

    @contextmanager
    def showing(trial: Trial, run: Run) -> Iterator[Progress]:
        with TerminalView(run.tracker, title=f"{len(done) + 1} of {len(trials)}: {trial.name}") as view:
            yield view.tick

    try:
        for trained in sweep_models(folder.resolve(), trials, showing):
            done.append(trained)
            outcome = trained.error or f"{trained.accuracy:.1%}"
            print(f"{len(done)} of {len(trials)}  {trained.trial.name}  {outcome}", flush=True)
    except KeyboardInterrupt:
        say("run the same command again, it continues")
        raise
    failed = sum(trained.accuracy is None for trained in done)
    print(f"{len(done) - failed} of {len(done)} models are trained; `trm-nb compare {shlex.quote(str(folder))}`")
    return 1 if failed else 0


def list_models(folders: RunDirs) -> int:
    """The models of runs: the settings that differ, the result with its 95 % interval, and the state."""
    from trm_nb.evaluation.trained_models import to_dataframe, trained_models

    frame = to_dataframe(trained_models(folders))
    if frame.empty:
        print("no models; `trm-nb train DIR` trains one")
        return 0
    if frame["run"].nunique() == 1:
        frame = frame.drop(columns="run")
    if "accuracy" in frame:
        frame["accuracy"] = [
            _interval(*values) for values in frame[["accuracy", "low", "high"]].itertuples(index=False)
        ]
        frame = frame.drop(columns=["low", "high"])
    frame["changed"] = frame["changed"].dt.strftime("%Y-%m-%d %H:%M")
    _print(frame)
    return 0


def compare(folders: RunDirs) -> int:
    """Compare the finished models of runs, on the held-out samples they share, seeds of a method together."""
    from trm_nb.errors import UserError
    from trm_nb.evaluation.comparison import compare_methods, methods_of
    from trm_nb.evaluation.trained_models import outcomes_of, trained_models

    models = trained_models(folders)
    finished = [model for model in models if model.state == "done"]
    if len(finished) < len(models):
        print(f"{len(models) - len(finished)} of {len(models)} models not finished, left out")
    outcomes = outcomes_of(finished)
    methods = methods_of(outcomes)
    if len(methods) < 2:
        raise UserError(
            f"expected models of two methods or more, got {len(methods)} (seeds of one method are taken together); "
            "train others with `trm-nb sweep DIR -p learning_rate=1e-3,3e-4`"
        )
    for method in methods:
        spread = f" ({method.lowest:.1%} to {method.highest:.1%})" if method.seeds > 1 else ""
        seeds = f"{method.seeds} seed{'s' if method.seeds > 1 else ''}"
        print(f"{method.accuracy:6.1%}{spread}  {method.name}, {seeds}")
    print("\nA model that was chosen by these samples looks better than it is.")
    for comparison in compare_methods(outcomes):
        print(f"- {comparison.sentence()}")
    return 0


def _interval(share: float, low: float, high: float) -> str:
    return "" if share != share else f"{share:.1%} ({low:.1%} to {high:.1%})"


def _print(frame: pd.DataFrame) -> None:
    print_table([[str(name) for name in frame], *([str(value) for value in row] for row in frame.to_numpy())])
