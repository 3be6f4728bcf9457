"""A finished run's folder made by hand, for tests of what reads capsules; and trainings in a folder of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import Receipt
from trm_nb.storage import arrays, shards
from trm_nb.storage.files import commit
from trm_nb.storage.receipts import write_receipt
from trm_nb.training import reasoning
from trm_nb.training.state import Examples, Settings


def make_run(
    folder: Path,
    labels: list[str | None],
    splits: list[str],
    *,
    status: list[str] | None = None,
    signal: float = 1.0,
    batch_size: int = 8,
    seed: int = 0,
    targets: list[list[list[list[int]]] | None] | None = None,
) -> np.ndarray:
    """Write capsules.zarr's batches, samples.parquet and dataset_info.json; returns the capsules float16 (n, 12, 512).

    Capsules are noise plus `signal` times a pattern of their label. Quarantined rows are NaN.
    `targets` are the answer grids of each row.
    """
    n = len(labels)
    status = status or ["ok"] * n
    rng = np.random.default_rng(seed)
    names = sorted({name for name in labels if name})
    patterns = rng.standard_normal((len(names), 12, 512))
    capsules = rng.standard_normal((n, 12, 512))
    for row, name in enumerate(labels):
        if name:
            capsules[row] += signal * patterns[names.index(name)]
    capsules[np.array(status) != "ok"] = np.nan
    capsules = capsules.astype(np.float16)
    write_batches(folder, capsules, batch_size)
    table = {
        "sample_id": [f"item{row}" for row in range(n)],
        "item_id": [f"item{row}" for row in range(n)],
        "modality": [("text", "image", "grid")[row % 3] for row in range(n)],
        "label": labels,
        "split": splits,
        "status": status,
    }
    held = pa.table(table)
    if targets is not None:
        held = held.append_column("target", pa.array(targets, pa.list_(pa.list_(pa.list_(pa.int8())))))
    pq.write_table(held, folder / "samples.parquet")
    digest = f"made by hand, {seed}, {signal}, {n}"
    (folder / "dataset_info.json").write_text(json.dumps({"content_digest": digest, "counts": {"rows": n}}))
    return capsules


def write_batches(folder: Path, capsules: np.ndarray, batch_size: int) -> None:
    """The capsules as batches that are not consolidated yet."""
    batch, chunk = arrays.batch_layout(batch_size), arrays.chunk_layout(batch_size, 100)
    arrays.write_metadata(folder / "capsules.zarr" / "capsules", chunk, len(capsules))
    array = folder / "batches.zarr" / "capsules"
    for number, first in enumerate(range(0, len(capsules), batch_size)):
        part = capsules[first : first + batch_size]
        staged = shards.stage_batch(folder, part, batch)
        commit(staged, batch.file(array, number))
        write_receipt(array, Receipt("batch", number, len(part), staged.nbytes, staged.sha256))


def train_in(
    folder: Path,
    examples: Examples,
    settings: Settings,
    on_step: Callable[[], None] | None = None,
) -> reasoning.Trained:
    """`reasoning.train` with the folder's own tracker."""
    with closing(TrainingProgressTracker(folder, create=True)) as tracker:
        return reasoning.train(folder, examples, settings, tracker, on_step=on_step)


def stop_at(nth: int) -> Callable[[], None]:
    """What is called after each step, and stops the training at the nth, as Ctrl-C does."""
    steps = iter(range(1, nth + 1))

    def on_step() -> None:
        if next(steps) == nth:
            raise KeyboardInterrupt

    return on_step


def walk_through(heading: str) -> str:
    """The code of a walk-through in CONTRIBUTING.md."""
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition(f"### {heading}\n")[2].partition("\n### ")[0].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return str(code)
