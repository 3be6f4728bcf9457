"""Train one model of a sweep: the child process of batch/sweep.py, `python -m trm_nb.batch.train_one`."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from trm_nb.batch.child import INTERRUPTED, obey_the_parent
from trm_nb.errors import DamagedError, UserError
from trm_nb.pipeline.run import open_run
from trm_nb.records import Progress


def train_one(output_dir: str | Path, model: str, values: dict[str, Any], tick: Progress | None = None) -> float:
    """Train a model with these settings on a run's dataset; returns its accuracy on the held-out samples.

    Raises:
        UserError: as `Run.train` does.
        DamagedError: as `Run.train` does.
    """
    with closing(open_run(output_dir=output_dir, model=model, **values)) as run:
        return run.train(tick).accuracy.share


def main() -> int:
    """Train what the job says; the last line of standard output is {"accuracy": ...} or {"error": ...} as JSON."""
    job = obey_the_parent()
    try:
        said: dict[str, Any] = {"accuracy": train_one(job["output_dir"], job["model"], job["values"])}
    except (UserError, DamagedError) as error:
        said = {"error": str(error)}
    except KeyboardInterrupt:
        return INTERRUPTED
    sys.stderr.flush()
    print(json.dumps(said), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
