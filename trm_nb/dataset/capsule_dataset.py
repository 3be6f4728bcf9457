"""CapsuleDataset: a finished run's capsules and labels as a torch map-style Dataset.

The table of samples is read when the dataset is made; capsules are read when asked for, through `read_capsules`,
which checks what it reads. So a dataset is small, pickles into DataLoader workers, and never holds the run in memory
unless `all()` is called. Cost: capsules are read and checked in pieces of one batch (1000 samples, 12 MB), so read
neighbouring rows together: `ds[0:1000]`, or a DataLoader without shuffling; for shuffled epochs over a small run, take
`all()`.
"""

from __future__ import annotations

import json
import operator
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import Dataset

from trm_nb.dataset.capsules import read_capsules
from trm_nb.describe import Described, Facts, counted, named
from trm_nb.errors import UserError
from trm_nb.progress.run_folder import RunPaths
from trm_nb.records import class_order

Indices: TypeAlias = slice | Iterable[Any]  # a slice, integers, or a mask of the dataset's length


class CapsuleDataset(Described, Dataset[dict[str, Any]]):
    """The samples of a run that were encoded, in row order.

    `ds[i]` is {"capsules": float32 tensor (12, 512), "label": int (an index into `classes`, -1 for none), "row": int
    (the capsule row in the run), "sample_id": str}, the same keys and shapes for every sample, so that torch's default
    collate works. `ds.target(i)` gives the answer grids of a puzzle or a task, which differ in size.

    A slice, a list of indices, an array or tensor of integers, or a mask of `len(ds)` booleans selects several samples:
    `ds[0:3]` is the batch that a DataLoader makes of them, {"capsules": float32 (n, 12, 512), "label" and "row": int64
    (n,), "sample_id": list of str}. For a Dataset of a part, use `torch.utils.data.Subset(ds, indices)`.

    `rows`, `labels`: int64 (n,); `modalities`, `splits`, `sample_ids`: tuples of str. `classes` are the label names of
    the whole run as dataset_info.json numbers them, so that all splits do so alike: numbers by value, others by code
    points. `info` is dataset_info.json.

    Args:
        output_dir: the run's folder.
        split: "train", "val" or "test" for that part alone; None: all of it.

    Raises:
        UserError: when the run has no finished dataset or no such split.
        IndexError: for an index past the ends or a mask of another length; TypeError for any other index.
        DamagedError: when capsules are missing or altered, as they are read.
    """

    def __init__(self, output_dir: str | Path, split: str | None = None) -> None:
        self.output_dir, self.split = Path(output_dir), split
        table, self.info = _samples(self.output_dir)
        labels = (label for label in table["label"] if label is not None)
        self.classes: tuple[str, ...] = tuple(self.info.get("classes") or class_order(labels))
        if split is not None and split not in table["split"]:
            found = ", ".join(sorted(set(table["split"]))) or "none"
            raise UserError(f"split: expected one of this run's splits ({found}), got {split!r} in {self.output_dir}")
        number = {name: i for i, name in enumerate(self.classes)} | {None: -1}
        kept = [
            row
            for row, (status, of) in enumerate(zip(table["status"], table["split"], strict=True))
            if status == "ok" and split in (None, of)
        ]
        self.rows = np.asarray(kept, np.int64)
        self._targets = table["target"]
        self._items = [table["item_id"][row] for row in kept]
        self._rows_of = Counter(table["item_id"])
        self.labels = np.asarray([number[table["label"][row]] for row in kept], np.int64)
        self.modalities, self.splits, self.sample_ids = (
            tuple(table[name][row] for row in kept) for name in ("modality", "split", "sample_id")
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | Indices) -> dict[str, Any]:
        if not _is_several(index):
            place = self._place(index)
            return self._sample(place, self._read(np.array([place]))[0])
        places = self._places(index)
        return {
            "capsules": self._read(places),
            "label": torch.from_numpy(self.labels[places]),
            "row": torch.from_numpy(self.rows[places]),
            "sample_id": [self.sample_ids[place] for place in places.tolist()],
        }

    def __getitems__(self, indices: Iterable[Any]) -> list[dict[str, Any]]:
        """Several at once, which reads each file of capsules once; torch's DataLoader calls this."""
        places = [self._place(index) for index in indices]
        capsules = self._read(np.array(places, np.int64))
        return [self._sample(place, of) for place, of in zip(places, capsules, strict=True)]

    def _sample(self, place: int, capsules: Tensor) -> dict[str, Any]:
        label, row = int(self.labels[place]), int(self.rows[place])
        return {"capsules": capsules, "label": label, "row": row, "sample_id": self.sample_ids[place]}

    @cached_property
    def target_count(self) -> np.ndarray:
        """How many answer grids each sample has: int64 (n,)."""
        counts: np.ndarray = pc.list_value_length(self._targets).fill_null(0).to_numpy(zero_copy_only=False)
        return counts[self.rows].astype(np.int64)

    @cached_property
    def solvable(self) -> np.ndarray:
        """Which samples hold a whole question with one answer grid, not one page of a larger task: bool (n,)."""
        found: np.ndarray = (self.target_count == 1) & np.array(
            [self._rows_of[item] == 1 for item in self._items], bool
        )
        return found

    def column(self, name: str) -> list[Any]:
        """A column of samples.parquet for these samples.

        Args:
            name: of the column, such as "source" or "pages".

        Returns:
            n values, in the order of the samples.

        Raises:
            KeyError: where there is no such column.
        """
        table = pq.read_table(self.output_dir / "samples.parquet", columns=[name])
        return list(table[name].take(self.rows).to_pylist())

    def items_of(self, rows: np.ndarray) -> np.ndarray:
        """The items that rows of the run belong to.

        Copies of an item count as one item, and so do all forms of an ARC task (sources/arc/augment.py).

        Args:
            rows: int (n,), capsule rows of the run that are among `self.rows`.

        Returns:
            int64 (n,), numbers that are equal for rows of one item.
        """
        numbers: np.ndarray = self._item_numbers[np.searchsorted(self.rows, rows)]
        return numbers

    @cached_property
    def _item_numbers(self) -> np.ndarray:
        path = RunPaths(self.output_dir).samples
        has_keys = "key" in pq.read_schema(path).names
        keys = pq.read_table(path, columns=["key"])["key"].to_pylist() if has_keys else None
        names = [self._task_of(name) for name in self._items]
        content: dict[str, list[object]] = {name: [] for name in names}
        for name, row in zip(names, self.rows.tolist(), strict=True):
            content[name].append(keys[row] if keys else row)
        known: dict[tuple[object, ...], int] = {}
        number = {name: known.setdefault(tuple(held), len(known)) for name, held in content.items()}
        return np.array([number[name] for name in names], np.int64)

    def _task_of(self, name: str) -> str:
        """The item id of the task that an item is a form of, or the item's own."""
        task, _, form = name.rpartition("@")
        return task if form.isdecimal() and task in self._rows_of else name

    def target(self, index: int) -> tuple[Tensor, ...]:
        """The answer grids of a sample.

        For a batch of a DataLoader, `ds.rows.searchsorted(batch["row"])` are the samples' indices.

        Args:
            index: of the sample in this dataset, as in `ds[index]`.

        Returns:
            int64 (rows, columns) each, 0 to 9; none where the sample has no answer.

        Raises:
            IndexError: for an index past the ends.
        """
        return tuple(torch.tensor(grid) for grid in self._targets[int(self.rows[self._place(index)])].as_py() or ())

    def capsules(self, indices: Indices) -> Tensor:
        """The capsules of several samples.

        Args:
            indices: a slice, integers, or a mask of `len(ds)` booleans, as `ds[indices]` takes them.

        Returns:
            float32 (n, 12, 512), in the order of the indices.

        Raises:
            IndexError, TypeError, DamagedError: as `ds[indices]` does.
        """
        return self._read(self._places(indices))

    def all(self) -> tuple[Tensor, Tensor]:
        """Everything at once.

        Returns:
            Capsules float32 (n, 12, 512), 24 KB a sample, and labels int64 (n,), -1 for none.
        """
        return self.capsules(range(len(self))), torch.from_numpy(self.labels.copy())

    def _read(self, places: np.ndarray) -> Tensor:
        return torch.from_numpy(read_capsules(self.output_dir, self.rows[places]).astype(np.float32))

    def _place(self, index: Any) -> int:
        boolean = isinstance(index, bool) or str(getattr(index, "dtype", "")) in ("bool", "torch.bool")
        try:
            place = None if boolean else operator.index(index)
        except TypeError:
            place = None
        if place is None:
            raise TypeError(f"{self._expected()}, got {type(index).__name__} as one index")
        if not -len(self) <= place < len(self):
            raise IndexError(f"index {place} is outside of a dataset of {len(self)} samples")
        return place % len(self)

    def _places(self, indices: Any) -> np.ndarray:
        """What a slice, integers or a mask select: int64 (n,), each from 0 to len - 1."""
        if not _is_several(indices):
            raise TypeError(f"{self._expected()} as several indices, got {type(indices).__name__}")
        if isinstance(indices, slice):
            return np.arange(len(self))[indices]
        if isinstance(indices, Tensor):
            indices = indices.detach().cpu()
        if not hasattr(indices, "__array__"):
            indices = list(indices)
            if not indices or not all(isinstance(index, bool | np.bool_) for index in indices):
                return np.array([self._place(index) for index in indices], np.int64)
        chosen = np.asarray(indices)
        if chosen.dtype == bool:
            if chosen.shape != (len(self),):
                raise IndexError(f"expected a mask of {len(self)} booleans, one a sample, got shape {chosen.shape}")
            return np.flatnonzero(chosen)
        if chosen.dtype.kind not in "iu" or chosen.ndim != 1:
            raise TypeError(f"{self._expected()}, got {chosen.dtype} of shape {chosen.shape}")
        outside = chosen[(chosen < -len(self)) | (chosen >= len(self))]
        if len(outside):
            raise IndexError(f"index {outside[0]} is outside of a dataset of {len(self)} samples")
        return chosen.astype(np.int64) % max(1, len(self))

    def _expected(self) -> str:
        return f"expected an integer, a slice, a list of integers, or a mask of {len(self)} booleans"

    def _facts(self) -> Facts:
        return {
            "folder": self.output_dir,
            "split": self.split,
            "samples": len(self),
            "by split": counted(dict(sorted(Counter(self.splits).items()))),
            "by modality": counted(dict(sorted(Counter(self.modalities).items()))),
            "labelled": int((self.labels >= 0).sum()),
            "classes": named(self.classes),
            "with answer grids": int((self.target_count > 0).sum()) or None,
            "capsules": f"float32 ({len(self)}, 12, 512), read when asked for",
            "encoder": _encoder(self.info),
            "content digest": self.info.get("content_digest"),
        }


def _is_several(index: object) -> bool:
    """Whether an index stands for several samples: a slice, or a list, array or tensor that is no scalar."""
    if isinstance(index, slice):
        return True
    return isinstance(index, Iterable) and not isinstance(index, str | bytes) and getattr(index, "ndim", 1) != 0


def _encoder(info: Mapping[str, Any]) -> str | None:
    """The encoder that dataset_info.json names."""
    made = info.get("encoder")
    return made and f"{made['preset']}, {'trained' if made['trained'] else 'untrained'}, {made['fingerprint']}"


def _samples(output_dir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns of samples.parquet that are needed, and dataset_info.json; raises UserError where there is none."""
    paths = RunPaths(output_dir)
    table, described = paths.samples, paths.info
    again = "`trm-nb build PARAMS.yaml` or the notebooks up to 04_consolidate make it, and continue where they stopped"
    if not table.is_file() or not described.is_file():
        state = "is not finished" if paths.tracker.is_file() else "holds no run"
        raise UserError(f"{output_dir}: expected a dataset, but this folder {state}; {again}")
    wanted = ["sample_id", "item_id", "modality", "label", "split", "status"]
    targets = ["target"] if "target" in pq.read_schema(table).names else []  # an older dataset has none
    columns = pq.read_table(table, columns=wanted + targets)
    facts = json.loads(described.read_text(encoding="utf-8"))
    rows = facts["counts"]["rows"]
    if columns.num_rows != rows:
        raise UserError(
            f"{output_dir}: samples.parquet has {columns.num_rows} rows and dataset_info.json counts {rows}, "
            f"so the dataset is being written or was changed by hand; {again}"
        )
    answers = columns["target"].combine_chunks() if targets else pa.nulls(rows, pa.list_(pa.null()))
    return {**{name: columns[name].to_pylist() for name in wanted}, "target": answers}, facts
