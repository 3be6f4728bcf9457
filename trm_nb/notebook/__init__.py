"""What the notebooks use besides the package itself: `open_run`, which knows what papermill injected, and others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trm_nb.notebook.explorer.explorer import Explorer
    from trm_nb.pipeline.run import Run


def open_run(**fields: Any) -> Run:
    """The run of this notebook: `pipeline.open_run` with the fields that are not None and what papermill injected.

    `params`, `output_dir` and any config field; relative paths are relative to the project's root wherever the
    kernel started. Where `output_dir` holds a run that is not that of the params file, the run is opened by its folder
    alone, unless papermill was given `params` too. Where another process works on the run, this watches until it is
    done. From then on DataFrames show themselves as in frames.py. Raises UserError for an unknown or wrong value.
    """
    from IPython.core.getipython import get_ipython

    from trm_nb.notebook.frames import install
    from trm_nb.notebook.parameters import injected, merge
    from trm_nb.notebook.watching import WatchingRun
    from trm_nb.pipeline.run import open_run as open_run_of
    from trm_nb.progress.run_settings import is_another_run

    shell = get_ipython()
    install(shell)
    given = {} if shell is None else injected(shell.user_ns)
    params, overrides = merge(fields, given)
    if params and not given.get("params") and is_another_run(overrides.get("output_dir"), params):
        params = None
    opened = open_run_of(params, overrides=overrides)
    run = WatchingRun(opened.config, sources_needed=opened.sources_needed)
    if run.watch_others():  # who may have frozen settings meanwhile
        run.close()
        opened = open_run_of(params, overrides=overrides)
        run = WatchingRun(opened.config, sources_needed=opened.sources_needed)
    return run


def open_project() -> Path:
    """The project's root, wherever the kernel started, for a notebook that has no run, or more than one.

    From then on DataFrames show themselves as in frames.py.
    """
    from IPython.core.getipython import get_ipython

    from trm_nb.notebook.frames import install
    from trm_nb.params import project_root

    install(get_ipython())
    return project_root(Path.cwd()) or Path.cwd()


def explore(run: Run | str | Path, model: str | None = None) -> Explorer:
    """Look at the samples of a finished run one by one, in widgets.

    Args:
        run: a run, or its folder; relative paths are relative to the project's root.
        model: whose predictions are shown first; None: the run's own, or its first one.

    Raises:
        UserError: where there is no finished dataset, or no model of this name.
    """
    from trm_nb.notebook.explorer.explorer import Explorer
    from trm_nb.pipeline.run import open_run as open_run_of

    return Explorer(open_run_of(output_dir=run) if isinstance(run, str | Path) else run, model)
