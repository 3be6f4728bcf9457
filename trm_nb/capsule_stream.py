"""CapsuleStream: a dataset's capsules in shuffled batches without end, read in pieces, resumed from any batch.

For runs that do not fit into memory: in an epoch the shards come in an order of its own, in a shard its batches, and
what follows each other there is mixed in a buffer. All of it follows from (seed, epoch), and neither depends on how
many processes read, so these may change when a training is resumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from trm_nb.capsule_dataset import CapsuleDataset
from trm_nb.store import capsule_layouts, read_capsules


class CapsuleStream(IterableDataset[dict[str, Any]]):
    """Batches of a dataset, epoch after epoch without end; each sample is once in an epoch, whose last batch is short.

    A batch is {"capsules": float32 (b, 12, 512), "label", "index" and "row": int64 (b,), "state": that after it},
    `index` being the place in the dataset, for whatever else it knows. Iterating begins at the state of
    `load_state_dict` (at first the start of epoch 0). Hand it to a DataLoader as it is, with batch_size=None and as
    many workers as you like: the batches stay the same and in order. A state is taken over when
    workers start, so not by persistent ones.
    Cost: `buffer` x 12 KB of memory in each worker; each worker reads every piece, and makes its share of the batches.
    Raises UserError and DamagedError as CapsuleDataset does, ValueError for an empty dataset.
    """

    def __init__(self, dataset: CapsuleDataset, batch_size: int = 64, seed: int = 0, buffer: int = 8000) -> None:
        if not len(dataset):
            raise ValueError("expected a dataset with samples, got an empty one")
        if batch_size < 1:
            raise ValueError(f"expected a batch_size of 1 or more, got {batch_size}")
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.buffer = max(1, buffer // batch_size) * batch_size
        self._epoch, self._position = 0, 0

    def state_dict(self) -> dict[str, int]:
        """Where iterating begins: the epoch, how many of its samples are done, and of which order they are."""
        return self._state(self._epoch, self._position)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin after the batch whose "state" this is; raises ValueError for that of another stream, and says which."""
        own = self._state(int(state["epoch"]), int(state["position"]))
        different = [
            f"{name}={state.get(name)}, not {value}" for name, value in own.items() if state.get(name) != value
        ]
        if different:
            raise ValueError(f"this state is of another stream: {'; '.join(different)}")
        self._epoch, self._position = own["epoch"], own["position"]

    def _state(self, epoch: int, position: int) -> dict[str, int]:
        order = {"seed": self.seed, "batch_size": self.batch_size, "buffer": self.buffer, "samples": len(self.dataset)}
        return {"epoch": epoch, "position": position, **order}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        reader = get_worker_info()
        readers, mine = (reader.num_workers, reader.id) if reader else (1, 0)
        epoch, position = self._epoch, self._position
        number = 0
        while True:
            order = self._pieces(epoch)
            while position < len(order):
                first = position - position % self.buffer
                window = order[first : first + self.buffer]
                capsules: np.ndarray | None = None
                mixed = np.random.default_rng([self.seed, epoch, first]).permutation(len(window))
                for start in range(position - first, len(window), self.batch_size):
                    chosen = mixed[start : start + self.batch_size]
                    position += len(chosen)
                    if number % readers == mine:
                        capsules = self._read(window) if capsules is None else capsules
                        after = position < len(order)
                        state = self._state(epoch + (not after), position if after else 0)
                        yield self._batch(window[chosen], capsules[chosen], state)
                    number += 1
            epoch, position = epoch + 1, 0

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
