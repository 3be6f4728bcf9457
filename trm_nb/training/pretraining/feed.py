"""Batches prepared ahead of the training: in a thread beside it, or by worker processes that keep a GPU busy.

A batch follows from the seed and the step, so it makes no difference who prepares it. Worker processes hand their
batches over in shared memory, as torch's DataLoader does, and for a GPU they are moved to pinned memory on the way.
Where they still are slower than the GPU, a batch can be used several times, some batches apart.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
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
APART = 16  # new batches between two uses of one


class _Batches(Dataset[Inputs]):
    """What a worker process gets: the material, of which it makes its own content once."""

    def __init__(self, material: Material, seed: int, numbers: Sequence[int], size: int) -> None:
        self.material, self.seed, self.numbers, self.size = material, seed, numbers, size

    @cached_property
    def content(self) -> Content:
        return Content(self.material)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, i: int) -> Inputs:
        return Inputs.of(self.content.batch(self.seed, self.numbers[i], self.size))


@contextmanager
def feeding(
    content: Content, seed: int, steps: range, size: int, workers: int = 0, uses: int = 1
) -> Iterator[Iterator[Inputs]]:
    """The batches of `steps` in order, on the CPU; prepared by one thread, or by `workers` processes.

    Each is used `uses` times, see `batch_of`.
    """
    numbers = steps if uses == 1 else list(dict.fromkeys(batch_of(step, uses) for step in steps))
    if workers:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        loader: DataLoader[Inputs] = DataLoader(
            _Batches(content.material, seed, numbers, size),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=AHEAD,
            multiprocessing_context=context,
            pin_memory=torch.cuda.is_available(),
        )
        made: Any = iter(loader)
        try:
            yield _used(made, steps, uses)
        finally:
            del made  # ends the processes
    else:
        thread = ThreadPoolExecutor(1)
        try:
            made = _one_ahead(thread, lambda number: Inputs.of(content.batch(seed, number, size)), numbers)
            yield _used(made, steps, uses)
        finally:
            thread.shutdown(cancel_futures=True)


def batch_of(step: int, uses: int) -> int:
    """The number of the batch of a step: every `uses` steps a new one, and between them earlier ones."""
    newest, use = divmod(step, uses)
    return newest - min(use * APART, newest * use // uses)


def _used(made: Iterator[Inputs], steps: range, uses: int) -> Iterator[Inputs]:
    """The batch of each step, from batches that come in the order in which they are first needed."""
    kept: dict[int, Inputs] = {}
    for step in steps:
        number = batch_of(step, uses)
        if number not in kept:
            kept[number] = next(made)
        yield kept[number]
        kept.pop(step // uses - (uses - 1) * APART - 1, None)  # was needed last by the steps before


def _one_ahead(thread: ThreadPoolExecutor, make: Callable[[int], Inputs], numbers: Iterable[int]) -> Iterator[Inputs]:
    waiting: deque[Future[Inputs]] = deque()
    for number in numbers:
        waiting.append(thread.submit(make, number))
        if len(waiting) > 1:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
