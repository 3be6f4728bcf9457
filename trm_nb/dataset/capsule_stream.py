"""CapsuleStream: a dataset's capsules in shuffled batches without end, read in pieces, resumed from any batch.

For runs that do not fit into memory: in an epoch the shards come in an order of its own, in a shard its batches, and
what follows each other there is mixed in a buffer. All of it follows from (seed, epoch), and neither depends on how
many workers read, so these may change when a training is resumed. The processes of a distributed training divide each
buffered piece of that order among them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import IterableDataset, get_worker_info

from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.dataset.capsules import capsule_layouts, read_capsules
from trm_nb.describe import Described, Facts


class CapsuleStream(Described, IterableDataset[dict[str, Any]]):
    """Batches of a dataset, epoch after epoch without end; each sample is once in an epoch, whose last batch is short.

    A batch is {"capsules": float32 (b, 12, 512), "label", "index" and "row": int64 (b,), "state": that after it},
    `index` being the place in the dataset, for whatever else it knows. Iterating begins at the state of
    `load_state_dict` (at first the start of epoch 0). Hand it to a DataLoader as it is, with batch_size=None and as
    many workers as you like: the batches stay the same and in order. A state is taken over when
    workers start, so not by persistent ones.

    In a distributed training each process gets its own part of every epoch: the parts are disjoint, their union is the
    dataset, and all have the same number of batches. Where the samples do not divide evenly, the last batch of some
    processes holds one sample more than that of others (so at most `batch_size` + 1); nothing is dropped or repeated.
    All ranks have the same state at the same batch, so one of them saves it for all; it can be resumed with the same
    world size.

    Cost: `buffer` x 12 KB of memory in each worker; each worker reads all of its process's part, and makes its share of
    the batches.

    Args:
        dataset: a run, or one split of it.
        batch_size: samples in a batch of one process, 1 or more.
        seed: of the order, which follows from it and the epoch alone.
        buffer: samples that are read at a time and mixed.
        rank, world_size: which process this is (from 0), and of how many. None: as torch.distributed says where it is
            initialised, else as torchrun's environment does. Pass them where only some of the processes divide the
            data, as in a mesh.

    Raises:
        TypeError: for what is no CapsuleDataset.
        ValueError: for an empty dataset, fewer samples than processes, or a batch size or rank out of range.
        UserError, DamagedError: as CapsuleDataset does.
    """

    def __init__(
        self,
        dataset: CapsuleDataset,
        batch_size: int = 64,
        seed: int = 0,
        buffer: int = 8000,
        *,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if not isinstance(dataset, CapsuleDataset):
            raise TypeError(
                f"expected a CapsuleDataset, got {type(dataset).__name__}; a stream reads a whole run or "
                "CapsuleDataset(run, split=...), and a DataLoader with shuffle=True reads any part"
            )
        if not len(dataset):
            raise ValueError("expected a dataset with samples, got an empty one")
        if batch_size < 1:
            raise ValueError(f"expected a batch_size of 1 or more, got {batch_size}")
        if (rank is None) != (world_size is None):
            raise ValueError(f"expected both rank and world_size or neither, got {rank=}, {world_size=}")
        if rank is not None and world_size is not None and not 0 <= rank < world_size:
            raise ValueError(f"expected a rank from 0 to world_size - 1, got {rank=}, {world_size=}")
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.buffer = max(1, buffer // batch_size) * batch_size
        self._given = None if rank is None or world_size is None else (rank, world_size)
        self._epoch, self._position = 0, 0
        self._rank_and_size()  # too few samples for the processes are an error at once

    def __getstate__(self) -> dict[str, Any]:
        # a spawned DataLoader worker is in no process group
        return {**self.__dict__, "_given": self._rank_and_size()}

    def _rank_and_size(self) -> tuple[int, int]:
        if self._given is not None:
            rank, size = self._given
        elif dist.is_available() and dist.is_initialized():
            rank, size = dist.get_rank(), dist.get_world_size()
        elif dist.is_available() and dist.is_torchelastic_launched():
            rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        else:
            rank, size = 0, 1
        if len(self.dataset) < size:
            raise ValueError(f"expected at least a sample for each of {size} processes, got {len(self.dataset)}")
        return rank, size

    def state_dict(self) -> dict[str, int]:
        """Where iterating begins.

        Returns:
            The epoch, how many of its samples are done (position), and what their order follows from.
        """
        return self._state(self._epoch, self._position)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin after the batch whose "state" this is.

        Args:
            state: of a batch, or of `state_dict`.

        Raises:
            ValueError: for a state of another stream; it says what differs.
        """
        saved = {"world_size": 1, **state}  # which states of older versions do not name
        own = self._state(int(state["epoch"]), int(state["position"]))
        different = [
            f"{name}={saved.get(name)}, not {value}" for name, value in own.items() if saved.get(name) != value
        ]
        if different:
            raise ValueError(
                f"this state is of another stream: {'; '.join(different)}; make the stream with the values it was "
                "saved with, or begin anew without the state"
            )
        self._epoch, self._position = own["epoch"], own["position"]

    def _state(self, epoch: int, position: int) -> dict[str, int]:
        order = {"seed": self.seed, "batch_size": self.batch_size, "buffer": self.buffer, "samples": len(self.dataset)}
        return {"epoch": epoch, "position": position, **order, "world_size": self._rank_and_size()[1]}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        reader = get_worker_info()
        readers, mine = (reader.num_workers, reader.id) if reader else (1, 0)
        rank, size = self._rank_and_size()
        epoch, position = self._epoch, self._position
        number = 0
        while True:
            order = self._pieces(epoch)
            for first, end in self._windows(len(order), size):
                own = np.array_split(np.arange(first, end), size)[rank]
                share = order[own]
                mixed = np.random.default_rng([self.seed, epoch, int(own[0])]).permutation(len(share))
                capsules: np.ndarray | None = None
                steps = -(-((end - first) // size) // self.batch_size)
                for step in range(max(0, position - first) // (size * self.batch_size), steps):
                    last = step == steps - 1
                    chosen = mixed[step * self.batch_size : None if last else (step + 1) * self.batch_size]
                    position = end if last else first + (step + 1) * size * self.batch_size
                    if number % readers == mine:
                        capsules = self._read(share) if capsules is None else capsules
                        after = position < len(order)
                        state = self._state(epoch + (not after), position if after else 0)
                        yield self._batch(share[chosen], capsules[chosen], state)
                    number += 1
            epoch, position = epoch + 1, 0

    def _windows(self, samples: int, size: int) -> Iterator[tuple[int, int]]:
        """(first, end) of the pieces of an epoch's order that are read at a time, each with a sample for every rank."""
        length = self.buffer * size
        count = max(1, samples // length + (samples % length >= size))
        for window in range(count):
            yield window * length, samples if window == count - 1 else (window + 1) * length

    def _facts(self) -> Facts:
        rank, size = self._rank_and_size()
        return {
            "folder": self.dataset.output_dir,
            "split": self.dataset.split,
            "samples": len(self.dataset),
            "batch size": self.batch_size,
            "buffer": f"{self.buffer:,} samples",
            "seed": self.seed,
            "begins at": f"epoch {self._epoch}, sample {self._position:,}",
            "process": None if size == 1 else f"rank {rank} of {size}",
        }

    def _pieces(self, epoch: int) -> np.ndarray:
        """All indices of the dataset: shards in the epoch's order, and in each its batches in the epoch's order."""
        rng = np.random.default_rng([self.seed, epoch])
        batch, chunk = capsule_layouts(self.dataset.output_dir)
        batches = self.dataset.rows // batch.rows
        shards = batches // (chunk.rows // batch.rows)
        by_shard, by_batch = (rng.random(int(of[-1]) + 1) for of in (shards, batches))
        return np.lexsort((self.dataset.rows, by_batch[batches], by_shard[shards]))

    def _read(self, indices: np.ndarray) -> np.ndarray:
        return read_capsules(self.dataset.output_dir, self.dataset.rows[indices])

    def _batch(self, indices: np.ndarray, capsules: np.ndarray, state: dict[str, int]) -> dict[str, Any]:
        return {
            "capsules": torch.from_numpy(capsules.astype(np.float32)),
            "label": torch.from_numpy(self.dataset.labels[indices]),
            "index": torch.from_numpy(indices),
            "row": torch.from_numpy(self.dataset.rows[indices]),
            "state": state,
        }
