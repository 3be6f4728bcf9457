"""Batches prepared ahead of the training: in a thread beside it, or by worker processes that keep a GPU busy.

A batch follows from the seed and the step, so it makes no difference who prepares it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager

from loky import ProcessPoolExecutor

from trm_nb.training.pretraining.content import Batch, Content
from trm_nb.training.pretraining.material import Material


class _Worker:
    """What a worker process makes batches with."""

    content: Content


def _begin(material: Material) -> None:
    _Worker.content = Content(material)


def _batch(seed: int, step: int, size: int) -> Batch:
    return _Worker.content.batch(seed, step, size)


@contextmanager
def feeding(content: Content, seed: int, steps: range, size: int, workers: int = 0) -> Iterator[Iterator[Batch]]:
    """The batches of `steps` in order; prepared by one thread, or by `workers` processes."""
    if workers:
        processes = ProcessPoolExecutor(workers, initializer=_begin, initargs=(content.material,))
        try:
            yield _in_order(processes, _batch, seed, steps, size, 2 * workers)
        finally:
            processes.shutdown(kill_workers=True)
    else:
        thread = ThreadPoolExecutor(1)
        try:
            yield _in_order(thread, content.batch, seed, steps, size, 1)
        finally:
            thread.shutdown(cancel_futures=True)


def _in_order(
    executor: Executor, make: Callable[[int, int, int], Batch], seed: int, steps: range, size: int, ahead: int
) -> Iterator[Batch]:
    waiting: deque[Future[Batch]] = deque()
    for step in steps:
        waiting.append(executor.submit(make, seed, step, size))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
