"""WatchingRun: the run of a notebook, which watches while another process works on it, and then goes on.

The command line refuses such a run in one sentence; somebody who opens a notebook wants to see how far it is. What is
waited for is a lock, which the operating system releases however its process ends, so nobody waits for the dead. The
`trm-nb run` that executes this notebook is not waited for: it waits for this one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trm_nb.describe import printable
from trm_nb.notebook.progress_view import ProgressView
from trm_nb.pipeline.run import BEGIN_SECONDS, Run
from trm_nb.progress.following import RUNNER
from trm_nb.storage.files import LOCK_SECONDS
from trm_nb.storage.lock_holder import holder_of

POLL_SECONDS = 0.5
_DATASET = ("render", "encode", "consolidate")  # the stages that are done once the dataset is there


class WatchingRun(Run):
    """A run whose stages begin once no other process works on the same; see `Run`."""

    def watch_others(self) -> bool:
        """Watch, below the cell, while another process makes this run's dataset; False where none does."""
        return self._watch(self._maker)

    @contextmanager
    def writing(self, purpose: str, seconds: float = LOCK_SECONDS) -> Iterator[None]:
        """As `Run.writing`, once no other process makes the dataset."""
        if not self._locked:
            self.watch_others()
        with super().writing(purpose, max(seconds, BEGIN_SECONDS)):
            yield

    @contextmanager
    def _training_alone(self) -> Iterator[None]:
        self._watch(lambda: _other(self.paths.model(self.config.model).root))
        with super()._training_alone():
            yield

    def _maker(self) -> str | None:
        """The other process that makes the dataset: one that writes, or executes notebooks while it is not complete."""
        writer = _other(self.path)
        if writer or not self.paths.tracker.is_file():
            return writer
        if all(self.tracker.stage_status(stage) == "done" for stage in _DATASET):
            return None
        return _other(self.paths.notebooks)

    def _watch(self, worker: Callable[[], str | None]) -> bool:
        name = worker()
        if name is None:
            return False
        print(f"{name} works on {printable(self.path)}: watching until it is done, and going on then", flush=True)
        with ProgressView(self.tracker) as view:
            while worker() is not None:
                view.tick()
                time.sleep(POLL_SECONDS)
        return True


def _other(folder: Path) -> str | None:
    """The name of the live process that holds a folder's lock and is neither this one nor the one that executes it."""
    holder = holder_of(folder)
    if holder is None or not holder.alive:
        return None
    own = (os.getpid(), os.environ.get(RUNNER))
    return None if any(holder.name.startswith(f"process {number} (") for number in own) else holder.name
