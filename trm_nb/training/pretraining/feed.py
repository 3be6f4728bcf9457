"""Batches prepared ahead of the training: in a thread beside it, or by worker processes that keep a GPU busy.

A batch follows from the seed and the step, so it makes no difference who prepares it. Worker processes hand their
batches over in shared memory, as torch's DataLoader does, and for a GPU they are moved to pinned memory on the way.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from trm_nb.training.pretraining.content import Content
from trm_nb.training.pretraining.losses import Inputs
from trm_nb.training.pretraining.material import Material

AHEAD = 2  # batches that each worker process prepares beforehand


class _Batches(Dataset[Inputs]):
    """What a worker process gets: the material, of which it makes its own content once."""

    def __init__(self, material: Material, seed: int, steps: range, size: int) -> None:
        self.material, self.seed, self.steps, self.size = material, seed, steps, size

    @cached_property
    def content(self) -> Content:
        return Content(self.material)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, number: int) -> Inputs:
        return Inputs.of(self.content.batch(self.seed, self.steps[number], self.size))


@contextmanager
def feeding(content: Content, seed: int, steps: range, size: int, workers: int = 0) -> Iterator[Iterator[Inputs]]:
    """The batches of `steps` in order, on the CPU; prepared by one thread, or by `workers` processes."""
    if workers:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        loader: DataLoader[Inputs] = DataLoader(
            _Batches(content.material, seed, steps, size),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=AHEAD,
            multiprocessing_context=context,
            pin_memory=torch.cuda.is_available(),
        )
        made: Any = iter(loader)
        try:
            yield made
        finally:
            del made  # ends the processes
    else:
        thread = ThreadPoolExecutor(1)
        try:
            yield _one_ahead(thread, lambda step: Inputs.of(content.batch(seed, step, size)), steps)
        finally:
            thread.shutdown(cancel_futures=True)


def _one_ahead(thread: ThreadPoolExecutor, make: Callable[[int], Inputs], steps: range) -> Iterator[Inputs]:
    waiting: deque[Future[Inputs]] = deque()
    for step in steps:
        waiting.append(thread.submit(make, step))
        if len(waiting) > 1:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
