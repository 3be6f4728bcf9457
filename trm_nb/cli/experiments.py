"""The commands for many models on one dataset: train, sweep, list, compare."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trm_nb.cli.common import Override, RunDir, overrides_of, print_table, run_of, say, tracker_of
from trm_nb.cli.stopping import stopped_by_signals

if TYPE_CHECKING:
    import pandas as pd


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
    minutes: Annotated[
        float | None, typer.Option("--minutes", metavar="N", help="train for about N minutes, instead of train_steps")
    ] = None,
    p: Override = None,
) -> int:
    """Train a model on a run's dataset; what was interrupted continues.

    A model that is there keeps its settings. A new one takes those that the run was last built with, and what -p says.
    Started by `torchrun --nproc-per-node N -m trm_nb.cli train DIR`, N processes train it together.
    """
    from trm_nb.cli.terminal import TerminalView, result_of
    from trm_nb.workers.distributed import joined

    given = overrides_of(p, folder) | ({} if model is None else {"model": model})
    given |= {} if minutes is None else {"train_minutes": minutes, "train_steps": 0}
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
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", min=1, help="trainings side by side")] = 1,
    notebooks: Annotated[bool, typer.Option("--notebooks", help="each as notebook 06, with its page")] = False,
) -> int:
    """Train a model for each combination of values on a run's dataset; what was interrupted continues.

    What is finished is not trained again. One that fails does not stop the others; the exit code is then 1. The results
    do not depend on --jobs. With --notebooks, models/NAME/ holds the executed 06_train.ipynb, and 06_train.html.
    """
    from trm_nb.batch.sweep import sweep as sweep_models
    from trm_nb.batch.sweep import trials_of, values_of
    from trm_nb.cli.sweep_view import SweepView

    run_of(folder).close()  # a folder without a run is one sentence
    trials = trials_of(values_of(p), prefix)
    tracker = tracker_of(folder)
    try:
        with SweepView(tracker, [trial.name for trial in trials]) as view:
            for one in sweep_models(folder.resolve(), trials, jobs=jobs, notebooks=notebooks, tick=view.tick):
                view.say(one)
                if notebooks:
                    _write_page(folder, one.trial.name)
    except KeyboardInterrupt:
        say("run the same command again, it continues")
        raise
    finally:
        tracker.close()
    failed = sum(one.accuracy is None for one in view.done)
    print(f"{len(trials) - failed} of {len(trials)} models are trained; `trm-nb compare {shlex.quote(str(folder))}`")
    return 1 if failed else 0


def _write_page(folder: Path, model: str) -> None:
    """The page of a model's executed notebook, where there is one."""
    from trm_nb.progress.run_folder import RunPaths
    from trm_nb.report.report import write_page

    for path in RunPaths(folder).model(model).root.glob("[!.]*.ipynb"):
        write_page(path)


def list_models(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="[DIR...]", help="folders of runs; none: those in outputs/")
    ] = None,
) -> int:
    """The models of runs: the settings that differ, the result with its 95 % interval, and the state."""
    from trm_nb.evaluation.trained_models import to_dataframe, trained_models

    folders = folders or _runs_of_the_project()
    frame = to_dataframe(trained_models(folders))
    if frame.empty:
        print(f"no models in {', '.join(map(str, folders)) or 'outputs/'}; `trm-nb train DIR` trains one")
        return 0
    if frame["run"].nunique() == 1:
        print(f"{frame['run'].iloc[0]}: dataset {frame['dataset'].iloc[0]}")
        frame = frame.drop(columns=["run", "dataset"])
    if "accuracy" in frame:
        frame["accuracy"] = [
            _interval(*values) for values in frame[["accuracy", "low", "high"]].itertuples(index=False)
        ]
        frame = frame.drop(columns=["low", "high"])
    frame["changed"] = frame["changed"].dt.strftime("%Y-%m-%d %H:%M")
    _print(frame)
    return 0


def _runs_of_the_project() -> list[Path]:
    """The folders in outputs/ of the project, or of the current folder, that hold a run."""
    from trm_nb.cli.terminal import from_here
    from trm_nb.params import project_root
    from trm_nb.progress.run_folder import RunPaths

    outputs = (project_root(Path.cwd()) or Path.cwd()) / "outputs"
    found = [folder for folder in sorted(outputs.glob("*")) if RunPaths(folder).tracker.is_file()]
    return [Path(from_here(folder)) for folder in found]


def compare(
    folders: RunDirs,
    names: Annotated[
        list[str] | None, typer.Option("--model", metavar="NAME", help="only this one; repeatable")
    ] = None,
    notebook: Annotated[bool, typer.Option("--notebook", help="execute notebook 07 into the first run, too")] = False,
) -> int:
    """Compare the finished models of runs, on the held-out samples they share, seeds of a method together.

    --notebook executes 07_compare, which also shows learning curves and the samples on which two models disagree, into
    the first folder's notebooks/ and report/.
    """
    from trm_nb.errors import UserError
    from trm_nb.evaluation.comparison import best_two, compare_methods, methods_of
    from trm_nb.evaluation.trained_models import disagreements, distinct, methods_table, outcomes_of, trained_models

    models = trained_models(folders, names)
    done = [model for model in models if model.state == "done"]
    compared = distinct(done)
    if len(done) < len(models):
        print(f"{len(models) - len(done)} of {len(models)} models not finished, left out")
    if len(compared) < len(done):
        print(f"{len(done) - len(compared)} of {len(done)} models repeat another's settings and seed, left out")
    outcomes = outcomes_of(compared)
    methods = methods_of(outcomes)
    if len(methods) < 2:
        raise UserError(
            f"expected models of two methods or more, got {len(methods)} (seeds of one method are taken together); "
            "train others with `trm-nb sweep DIR -p learning_rate=1e-3,3e-4`"
        )
    comparisons = compare_methods(outcomes)
    frame = methods_table(compared).drop(columns="method")
    frame["accuracy"] = [f"{method.accuracy:.1%}" for method in methods]
    frame["lowest to highest"] = [f"{one.lowest:.1%} to {one.highest:.1%}" if one.seeds > 1 else "" for one in methods]
    of = [[model for model, has in zip(compared, outcomes, strict=True) if has.method == one.name] for one in methods]
    frame["loss"] = [_loss(model.curve() for model in models) for models in of]
    _print(frame)
    print("\nIf you choose a model by these samples, its accuracy on them is an overestimate; measure it on new ones.")
    for comparison in comparisons:
        print(f"- {comparison.sentence()}")
    first, second = (compared[place] for place in best_two(outcomes))
    differ = len(disagreements(first, second))
    print(f"- {first.name} and {second.name} predict {differ:,} held-out samples differently; --notebook shows them.")
    if notebook:
        _compare_in_notebook(folders, names)
    return 0


def _compare_in_notebook(folders: list[Path], names: list[str] | None) -> None:
    """Execute 07_compare into the first run, whose report gets a page of it; raises UserError where that fails."""
    from trm_nb.batch.runner import execute_comparison
    from trm_nb.progress.run_folder import RunPaths
    from trm_nb.report.report import write_report

    execute_comparison(folders, names)
    write_report(folders[0])
    print(f"report: {RunPaths(folders[0]).report / '07_compare.html'}")


def _loss(curves: Iterable[list[dict[str, Any]]]) -> str:
    """The mean loss over seeds as a curve of characters, and its last value."""
    import pandas as pd

    from trm_nb.progress.stats_text import curve

    logged = [(step["global_step"], step["loss"]) for steps in curves for step in steps if "loss" in step]
    mean = pd.DataFrame(logged, columns=["step", "loss"]).groupby("step")["loss"].mean()
    return f"{curve(list(mean))} {mean.iloc[-1]:.3g}" if len(mean) else ""


def _interval(share: float, low: float, high: float) -> str:
    return "" if share != share else f"{share:.1%} ({low:.1%} to {high:.1%})"


def _print(frame: pd.DataFrame) -> None:
    print_table([[str(name) for name in frame], *([str(value) for value in row] for row in frame.to_numpy())])
