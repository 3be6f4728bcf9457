"""One seam for parallel work: tasks go through a `concurrent.futures.Executor`, a few at a time.

Locally that is loky's reusable pool: its processes stay warm from call to call, a script needs no main guard, and it
works from standard input and in notebooks. One dead worker breaks such a pool, so the tasks that were in flight are
tried again one at a time; whoever kills a worker alone is halved until the sample that does it is found, and reported.
Fewer than MIN_POOL samples are not worth starting processes for (about a second) and are done in this process.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from typing import Generic, TypeAlias, TypeVar

from loky import get_reusable_executor
from loky.process_executor import ShutdownExecutorError

T = TypeVar("T")
R = TypeVar("R")
Task: TypeAlias = Sequence[T]

MIN_POOL = 50
IDLE_SECONDS = 300  # after which an unused worker ends
TASK_SECONDS = 900.0  # a task that takes longer hangs: its worker is killed and the task treated as a killer
POLL_SECONDS = 0.5
_DEATH = (BrokenProcessPool, ShutdownExecutorError)  # it died, or was killed because it hung


class WorkerDied:
    """Stands for the result of a single sample whose worker died (or hung) each time it was tried alone."""

    reason = "its worker died or hung each time it was drawn"


def worker_count(workers: int | None) -> int:
    """The number of worker processes: as asked for, or the cores this process may use."""
    if workers is not None:
        return workers
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def run_tasks(
    function: Callable[[Task[T]], R],
    tasks: Iterable[Task[T]],
    *,
    workers: int | None = None,
    on_wait: Callable[[], None] | None = None,
    task_seconds: float = TASK_SECONDS,
) -> Iterator[tuple[Task[T], R | WorkerDied]]:
    """Apply `function` to each task, yielding (task, result) as they are done; results are asked for lazily.

    At most two tasks a worker are in flight and no more are taken from `tasks`, so memory is bounded. An exception
    inside `function` is raised here. `on_wait` is called about twice a second while waiting. 0 workers, or fewer than
    MIN_POOL samples in all, run in this process.
    """
    count, source = worker_count(workers), iter(tasks)
    first: list[Task[T]] = []
    while count and sum(map(len, first)) < MIN_POOL:
        task = next(source, None)
        if task is None:
            count = 0
        else:
            first.append(task)
    if count == 0:
        for task in chain(first, source):
            yield task, function(task)
        return
    yield from _InFlight(function, count, on_wait, task_seconds).run(chain(first, source))


class _InFlight(Generic[T, R]):
    """The tasks under way, the suspects among them, and the pool they run in."""

    def __init__(
        self, function: Callable[[Task[T]], R], workers: int, on_wait: Callable[[], None] | None, task_seconds: float
    ) -> None:
        self.function, self.workers, self.on_wait, self.task_seconds = function, workers, on_wait, task_seconds
        self.running: dict[Future[R], tuple[Task[T], float]] = {}
        self.suspects: deque[Task[T]] = deque()
        self.last_death: Task[T] | None = None

    def run(self, source: Iterator[Task[T]]) -> Iterator[tuple[Task[T], R | WorkerDied]]:
        exhausted = False
        while not exhausted or self.running or self.suspects:
            while not exhausted and not self.suspects and len(self.running) < 2 * self.workers:
                task = next(source, None)
                exhausted = task is None
                if task is not None:
                    self._submit(task)
            if self.suspects and not self.running:
                self._submit(self.suspects.popleft())
            yield from self._collect()

    def _executor(self) -> Executor:
        return get_reusable_executor(  # type: ignore[no-any-return]
            max_workers=self.workers, timeout=IDLE_SECONDS, initializer=_start_worker, initargs=(os.getpid(),)
        )

    def _submit(self, task: Task[T]) -> None:
        try:
            future = self._executor().submit(self.function, task)
        except _DEATH:  # it died between two tasks; loky hands out a new one
            future = self._executor().submit(self.function, task)
        self.running[future] = (task, time.monotonic())

    def _collect(self) -> Iterator[tuple[Task[T], R | WorkerDied]]:
        done, _ = wait(self.running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        if self.on_wait:
            self.on_wait()
        self._kill_hung()
        for future in done:
            if isinstance(future.exception(), _DEATH):
                yield from self._after_death()
                return
            task, _ = self.running.pop(future)
            yield task, future.result()

    def _kill_hung(self) -> None:
        started = min((start for _, start in self.running.values()), default=time.monotonic())
        # Two tasks a worker are in flight, so one may have waited for another before it began.
        if time.monotonic() - started > 2 * self.task_seconds:
            self._executor().shutdown(wait=False, kill_workers=True)  # type: ignore[call-arg]
            wait(self.running)

    def _after_death(self) -> Iterator[tuple[Task[T], R | WorkerDied]]:
        """A worker died. Keep what was finished; try the rest again alone; halve or give up what was alone already."""
        wait(self.running)
        alone = len(self.running) == 1
        for future, (task, _) in list(self.running.items()):
            if not isinstance(future.exception(), _DEATH):
                yield task, future.result()
            elif not alone:
                self.suspects.append(task)
            elif len(task) > 1:
                self.suspects.extendleft([task[len(task) // 2 :], task[: len(task) // 2]])
            elif self.last_death is task:
                yield task, WorkerDied()
            else:
                self.last_death = task
                self.suspects.appendleft(task)
        self.running.clear()


def _start_worker(parent: int) -> None:
    """In a new worker: yield to the encoder, which needs the cores more, and end when the run was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's to handle
    if hasattr(os, "nice"):
        os.nice(5)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="watch the parent", daemon=True).start()
