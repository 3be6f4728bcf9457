"""What the notebooks use besides the package itself: `open_run`, which knows what papermill injected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trm_nb.pipeline import Run


def open_run(**fields: Any) -> Run:
    """The run of this notebook: `pipeline.open_run` with the fields that are not None and what papermill injected.

    `params`, `output_dir` and any config field; relative paths are relative to the project's root wherever the
    kernel started. Raises UserError for an unknown or wrong value.
    """
    from IPython.core.getipython import get_ipython

    from trm_nb.notebook.parameters import injected, merge
    from trm_nb.pipeline import open_run as open_run_of

    shell = get_ipython()
    params, overrides = merge(fields, {} if shell is None else injected(shell.user_ns))
    return open_run_of(params, overrides=overrides)
