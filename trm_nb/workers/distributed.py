"""Training in several processes that `torchrun` starts: each has a part of every batch, and gradients are added up.

Collectives on whole tensors, without a wrapper around the model: a step then is that of one process with the whole
batch, up to the order of sums. The first process alone writes; the others follow it. Without a process group everything
here does nothing. Cost: one sum over all gradients a step, and the rows under way when a checkpoint is saved.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from trm_nb.errors import UserError

PATIENCE = timedelta(days=2)  # while the first process completes a dataset; one that died is noticed at once


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process, `rank`, of the `size` processes that train together."""

    rank: int
    size: int

    def part(self, rows: int) -> tuple[int, int]:
        """The first row of this process in a batch, and how many rows the batch has; raises UserError for a rest."""
        if rows % self.size:
            raise UserError(
                f"train_batch_size: expected a multiple of the {self.size} processes, got {rows}; change one of them"
            )
        return self.rank * (rows // self.size), rows

    def own(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This process's rows of a batch, or of a carry."""
        found = {}
        for name, rows in batch.items():
            first, count = self.part(len(rows))
            found[name] = rows[first : first + count // self.size]
        return found

    def whole(self, part: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The rows of all processes, in order."""
        if self.size == 1:
            return dict(part)
        return {name: self._gathered(rows) for name, rows in part.items()}

    def _gathered(self, rows: Tensor) -> Tensor:
        plain = rows.to(torch.uint8) if rows.dtype == torch.bool else rows  # which every backend can send
        parts = [torch.empty_like(plain) for _ in range(self.size)]
        with _noticing_the_dead():
            dist.all_gather(parts, plain.contiguous())
        return torch.cat(parts).to(rows.dtype)

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each of them, of one dtype, by its sum over all processes, which then have equal bits."""
        if self.size == 1:
            return
        held = list(tensors)
        together = torch.cat([tensor.reshape(-1) for tensor in held])
        with _noticing_the_dead():
            dist.all_reduce(together)
        for tensor, total in zip(held, torch.split(together, [tensor.numel() for tensor in held]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            with _noticing_the_dead():
                dist.barrier()


def ranks() -> Ranks:
    """This process and the others of its process group; one alone where there is none."""
    joined = dist.is_available() and dist.is_initialized()
    return Ranks(dist.get_rank(), dist.get_world_size()) if joined else Ranks(0, 1)


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started together; does nothing in a process that it did not start.

    Args:
        device: what to train on; on GPUs each process of a machine takes its own.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        yield ranks()
        return
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        yield ranks()
    finally:
        dist.destroy_process_group()


@contextmanager
def _noticing_the_dead() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of the backend: a closed connection
        reason = re.sub(r"^\[\S*\] ", "", str(error).splitlines()[0])  # without the place in the backend's source
        raise UserError(
            "another process of this training ended, so run the same command again, which continues from the last "
            f"checkpoint; the connection said: {reason[:100]}"
        ) from None
