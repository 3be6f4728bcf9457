"""One seam for parallel work: tasks go through an executor of local processes or of a Dask cluster, a few at a time.

Locally that is loky's reusable pool: its processes stay warm from call to call, a script needs no main guard, and it
works from standard input and in notebooks. One dead worker breaks such a pool, so the tasks that were in flight are
tried again one at a time; one that kills its worker alone is taken apart until the sample that does it is found, and
reported. A worker notes which sample it is at (worker.py), so that this takes three deaths; without a note the task is
halved.
Fewer than MIN_POOL samples are not worth starting processes for (about a second) and are done in this process.

The workers of a cluster (dask_cluster.py) are used in the same way; one that dies takes only its own task along.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar

from loky import get_reusable_executor
from loky.process_executor import ShutdownExecutorError

from trm_nb.storage.files import writing_into
from trm_nb.workers.dask_cluster import Cluster, connect
from trm_nb.workers.worker import Task, noted, start_worker

T = TypeVar("T")
R = TypeVar("R")

MIN_POOL = 50
IDLE_SECONDS = 300  # after which an unused worker ends
TASK_SECONDS = 1800.0  # a worker whose note does not change for so long is killed from here
POLL_SECONDS = 0.5
NOTHING_YET_SECONDS = 0.2  # until a stream of tasks that has none ready is asked again


class WorkerDied:
    """Stands for the result of a single sample whose worker died (or hung) each time it was tried alone."""

    reason = "its worker died or hung each time it was rendered"


def worker_count(workers: int | None) -> int:
    """The number of worker processes: as asked for, or the cores this process may use."""
    if workers is not None:
        return workers
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class _Processes:
    """Loky's reusable pool of so many local processes."""

    deaths = (BrokenProcessPool, ShutdownExecutorError)  # one died, or they were killed because one hung

    def __init__(self, count: int) -> None:
        self.count = count

    def size(self) -> int:
        return self.count

    def submit(self, function: Callable[..., R], *arguments: Any) -> Future[R]:
        try:
            return self._executor().submit(function, *arguments)  # type: ignore[no-any-return]
        except self.deaths:  # it died between two tasks; loky hands out a new one
            return self._executor().submit(function, *arguments)  # type: ignore[no-any-return]

    def died(self, future: Future[Any]) -> bool:
        return isinstance(future.exception(), self.deaths)

    def end_hung(self, what: str, seconds: float) -> None:
        self.end()

    def end(self) -> None:
        """Kill the processes. A file that one of them was writing has a temporary name, and is swept away later."""
        self._executor().shutdown(wait=False, kill_workers=True)

    def _executor(self) -> Any:
        return get_reusable_executor(
            max_workers=self.count, timeout=IDLE_SECONDS, initializer=start_worker, initargs=(os.getpid(),)
        )


def run_tasks(
    function: Callable[[Task[T]], R],
    tasks: Iterable[Task[T] | None],
    *,
    workers: int | None = None,
    cluster: str | None = None,
    on_wait: Callable[[], None] | None = None,
    task_seconds: float = TASK_SECONDS,
    min_pool: int = MIN_POOL,
    notes: Path | None = None,
    name: Callable[[T], str] = str,
) -> Iterator[tuple[Task[T], R | WorkerDied]]:
    """Apply `function` to each task, yielding (task, result) as they are done; results are asked for lazily.

    At most two tasks a worker are in flight and no more are taken from `tasks`, so memory is bounded; a None among
    them says that none is ready yet. An exception inside `function` is raised here. `on_wait` is called about twice a
    second while waiting. 0 workers without a `cluster`, or fewer than `min_pool` samples in all, run in this process.
    `notes` is the folder for the workers' notes, `*.tmp`, which a run that is killed leaves, and which the workers of
    a cluster must see; None: a temporary one. `name` names a sample in an error.
    """
    count, source = worker_count(workers), iter(tasks)
    here = not count and cluster is None
    first: list[Task[T] | None] = []
    while not here and sum(len(task) for task in first if task) < min_pool:
        try:
            first.append(next(source))
        except StopIteration:
            here = True
    if here:
        for task in chain(first, source):
            if task is not None:
                yield task, function(task)
                continue
            if on_wait:
                on_wait()
            time.sleep(NOTHING_YET_SECONDS)
        return
    pool = _Processes(count) if cluster is None else connect(cluster)
    with contextlib.nullcontext(notes) if notes else tempfile.TemporaryDirectory() as folder:
        flight = _InFlight(function, pool, on_wait, task_seconds, Path(folder), name)
        try:
            yield from flight.run(chain(first, source))
        except BaseException:  # interrupted, or nobody wants the rest: what is begun may take minutes
            if isinstance(pool, _Processes):
                pool.end()
            raise


@dataclass(slots=True)
class _Job(Generic[T]):
    """A task under way, the note of its worker, and since when that is as it is (None: no worker has begun)."""

    task: Task[T]
    note: Path
    alone: bool = False
    since: float | None = None
    written: int = 0

    def look(self) -> None:
        """See whether the note was written again."""
        note = self.note.stat()
        if note.st_size and note.st_mtime_ns != self.written:
            self.written, self.since = note.st_mtime_ns, time.monotonic()

    def at(self) -> int | None:
        """The sample its worker was at; None where it did not say."""
        said = self.note.read_bytes()
        return int(said) if said and 0 <= int(said) < len(self.task) else None


class _InFlight(Generic[T, R]):
    """The tasks under way, the suspects among them, and the pool they run in."""

    def __init__(
        self,
        function: Callable[[Task[T]], R],
        pool: _Processes | Cluster,
        on_wait: Callable[[], None] | None,
        task_seconds: float,
        notes: Path,
        name: Callable[[T], str],
    ) -> None:
        self.function, self.pool, self.on_wait, self.task_seconds = function, pool, on_wait, task_seconds
        self.notes, self.name = notes, name
        self.running: dict[Future[R], _Job[T]] = {}
        self.suspects: deque[Task[T]] = deque()
        self.last_death: Task[T] | None = None

    def run(self, source: Iterator[Task[T] | None]) -> Iterator[tuple[Task[T], R | WorkerDied]]:
        exhausted = False
        while not exhausted or self.running or self.suspects:
            ready = not self.suspects
            while ready and not exhausted and len(self.running) < 2 * self.pool.size():
                try:
                    task = next(source)
                except StopIteration:
                    exhausted = True
                else:
                    ready = task is not None
                    if task is not None:
                        self._submit(task)
            if self.suspects and not self.running:
                self._submit(self.suspects.popleft(), alone=True)
            yield from self._collect(POLL_SECONDS if ready else NOTHING_YET_SECONDS)

    def _submit(self, task: Task[T], alone: bool = False) -> None:
        note = self.notes / f"{uuid.uuid4().hex}.tmp"
        with writing_into(self.notes):
            note.touch()
        future = self.pool.submit(noted, self.function, task, str(note))
        self.running[future] = _Job(task, note, alone)

    def _collect(self, seconds: float) -> Iterator[tuple[Task[T], R | WorkerDied]]:
        if not self.running:
            time.sleep(seconds)
        done, _ = wait(self.running, timeout=seconds, return_when=FIRST_COMPLETED)
        if self.on_wait:
            self.on_wait()
        self._end_hung()
        for future in done:
            job = self.running.pop(future)
            at = job.at()
            job.note.unlink(missing_ok=True)
            if not self.pool.died(future):
                yield job.task, future.result()
            elif self.last_death is job.task:
                yield job.task, WorkerDied()
            else:
                self._suspect(job, at)

    def _end_hung(self) -> None:
        for future, job in self.running.items():
            if not future.done():
                job.look()
                if job.since is not None and time.monotonic() - job.since > self.task_seconds:
                    more = f" and {len(job.task) - 1} more" if len(job.task) > 1 else ""
                    self.pool.end_hung(f"the task of {self.name(job.task[0])}{more}", self.task_seconds)
                    wait(self.running)
                    return

    def _suspect(self, job: _Job[T], at: int | None) -> None:
        """A worker died at this task, or a neighbour's did and took it along: try it again, alone, or take it apart."""
        if not job.alone:
            self.suspects.append(job.task)
        elif len(job.task) > 1:
            self.suspects.extendleft(reversed(self._taken_apart(job.task, at)))
        else:
            self.last_death = job.task
            self.suspects.appendleft(job.task)

    def _taken_apart(self, task: Task[T], at: int | None) -> list[Task[T]]:
        """The sample its worker died at, which has one more try, and the others; two halves where no note tells."""
        if at is None:
            return [task[: len(task) // 2], task[len(task) // 2 :]]
        self.last_death = task[at : at + 1]
        return [self.last_death, [*task[:at], *task[at + 1 :]]]
