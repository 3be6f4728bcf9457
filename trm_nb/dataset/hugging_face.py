"""A run's capsules as a dataset of Hugging Face's `datasets`, the optional extra of that name.

The capsules are copied once, into the Arrow cache of `datasets`, which maps them into memory from then on; asking again
for equal content finds that copy. Cost: 12 KB a sample on disk, written at some 6,000 samples a second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.errors import UserError
from trm_nb.records import CAPSULES, FEATURES

if TYPE_CHECKING:
    import datasets

ROWS_AT_ONCE = 1_000
_COLUMNS = "capsules label row sample_id item_id modality split"  # what a copy holds; part of its fingerprint


def to_hugging_face(dataset: CapsuleDataset, cache_dir: str | Path | None = None) -> datasets.Dataset:
    """Copy capsules into a `datasets.Dataset`, or find the copy that was made before.

    Args:
        dataset: a run, or one split of it.
        cache_dir: where the copy goes; None: the cache of `datasets`.

    Returns:
        A row for each sample, in the order of `dataset`: `capsules` float16 (12, 512), which `with_format("torch")` and
        `with_format("numpy")` give as float32 and float16; `label` (ClassLabel with the run's classes, -1 for none),
        `row` (that of samples.parquet, which has the targets), `sample_id`, `item_id`, `modality` and `split`.

    Raises:
        UserError: when `datasets` is not installed.
        DamagedError: for capsules that are missing or altered.
    """
    try:
        from datasets import Array2D, ClassLabel, Dataset, Features, Value
    except ImportError:
        raise UserError("the package datasets is not installed; `pip install 'trm-nb[datasets]'`") from None
    identity = [_COLUMNS, dataset.info.get("content_digest"), dataset.split, *dataset.classes]
    text = Value("string")
    return Dataset.from_generator(
        _examples,
        features=Features({
            "capsules": Array2D((CAPSULES, FEATURES), "float16"),
            "label": ClassLabel(names=list(dataset.classes)),
            "row": Value("int64"),
            **dict.fromkeys(("sample_id", "item_id", "modality", "split"), text),
        }),
        cache_dir=None if cache_dir is None else str(cache_dir),
        gen_kwargs={"dataset": dataset},
        split=dataset.split or "train",  # as `datasets` calls what has no splits
        fingerprint=hashlib.sha256(repr(identity).encode()).hexdigest()[:32],
    )  # fmt: skip


def _examples(dataset: CapsuleDataset) -> Iterator[dict[str, Any]]:
    items = dataset.column("item_id")
    for first in range(0, len(dataset), ROWS_AT_ONCE):
        places = range(first, min(first + ROWS_AT_ONCE, len(dataset)))
        for place, capsules in zip(places, dataset.capsules(places).numpy().astype("float16"), strict=True):
            yield {
                "capsules": capsules,
                "label": int(dataset.labels[place]),
                "row": int(dataset.rows[place]),
                "sample_id": dataset.sample_ids[place],
                "item_id": items[place],
                "modality": dataset.modalities[place],
                "split": dataset.splits[place],
            }
