"""What a finished dataset holds beside its arrays, for people and programs without this package.

samples.parquet (one row a sample, in capsule row order), labels in capsules.zarr, quarantine.jsonl, dataset_info.json
and the dataset card README.md. All follow from the tracker, the arrays and the image cache's receipts, so they can be
written again at any time; what the denoiser did is forgotten with a cache that was cleared whole. dataset_info.json
also holds the results of the models that were trained on the dataset, and is written again after each training.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trm_nb._version import __version__
from trm_nb.dataset.capsules import read_capsules
from trm_nb.pipeline.consolidate import Consolidator
from trm_nb.pipeline.encode_task import COMPUTED_IN
from trm_nb.progress.model_record import summaries
from trm_nb.progress.planned import PlannedRow
from trm_nb.progress.run_folder import RunPaths
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import DenoiseResult, Receipt
from trm_nb.storage.arrays import write_labels
from trm_nb.storage.files import fault_point, publish, sha256_of, trouble_with, write_file, writing_into

if TYPE_CHECKING:
    import pandas as pd

    from trm_nb.cache.image_cache import ImageCache
    from trm_nb.models.encoder import Encoder

COLUMNS = {field.name: pa.int32() if field.type == "int" else pa.string() for field in fields(PlannedRow)}
del COLUMNS["row"], COLUMNS["target"]  # the first is the row's place, and the other one is grids here
ROWS_AT_ONCE = 4_000  # some 3 KB each while they are written
LIBRARIES = ("torch", "numpy", "pillow", "zarr")
_INFO, _FILES = "dataset_info", "dataset_files"  # what the tracker keeps: the former without the models
_FLAT = pa.schema([*COLUMNS.items(), ("noise", pa.float32()), ("edit", pa.string())])
_SCHEMA = _FLAT.append(pa.field("target", pa.list_(pa.list_(pa.list_(pa.int8())))))
DenoiseResults: TypeAlias = Callable[[Sequence[str]], Mapping[str, DenoiseResult]]


def samples_table(tracker: TrainingProgressTracker, denoise_results: DenoiseResults) -> pa.Table:
    """All rows as samples.parquet holds them; `denoise_results` tells what the denoiser made of which keys."""
    return pa.Table.from_batches(_record_batches(tracker, denoise_results, _SCHEMA), schema=_SCHEMA)


def samples_frame(tracker: TrainingProgressTracker, denoise_results: DenoiseResults) -> pd.DataFrame:
    """All rows as a DataFrame: the columns of samples.parquet but for `target`, whose nested lists are large in Python.

    The index is the row number. What is missing (a label, what the denoiser did) is NaN. Text stays in Arrow's
    memory, some 230 bytes a row.
    """
    table = pa.Table.from_batches(_record_batches(tracker, denoise_results, _FLAT), schema=_FLAT)
    frame: pd.DataFrame = table.to_pandas()
    return frame.rename_axis("row")


def _blocks(tracker: TrainingProgressTracker) -> Iterator[list[PlannedRow]]:
    for first in range(0, tracker.rows_planned(), ROWS_AT_ONCE):
        yield tracker.rows(first, first + ROWS_AT_ONCE)


def _record_batches(
    tracker: TrainingProgressTracker, denoise_results: DenoiseResults, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    for rows in _blocks(tracker):
        denoised = denoise_results([row.key for row in rows])
        columns = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
        for name in ("noise", "edit"):
            columns[name] = [getattr(denoised.get(row.key), name, None) for row in rows]
        if "target" in schema.names:
            columns["target"] = [row.target and json.loads(row.target) for row in rows]
        arrays = [pa.array(columns[field.name], field.type) for field in schema]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def content_digest(tracker: TrainingProgressTracker) -> str:
    """sha256 over, row after row in order, "key status\\n", and then the capsules' bytes (N, 12, 512) little-endian
    float16.

    It depends on what was planned and encoded, and on nothing else: no times, paths, batch sizes or workers.
    Raises DamagedError where capsules are missing or altered.
    """
    digest = hashlib.sha256()
    for rows in _blocks(tracker):
        digest.update("".join(f"{row.key} {row.status}\n" for row in rows).encode())
    for first in range(0, tracker.rows_planned(), 1000):
        rows_here = range(first, min(first + 1000, tracker.rows_planned()))
        digest.update(read_capsules(tracker.output_dir, rows_here).astype("<f2").tobytes())
    return digest.hexdigest()


def is_written(tracker: TrainingProgressTracker, consolidator: Consolidator) -> bool:
    """Whether all of them are there, whole by their sizes and of exactly these chunks."""
    return tracker.get("dataset_made_of") == _made_of(consolidator) and not damaged_files(tracker)


def write_dataset(
    settings: dict[str, Any],
    tracker: TrainingProgressTracker,
    consolidator: Consolidator,
    cache: ImageCache,
    encoder: Encoder,
) -> None:
    """Write all of them, dataset_info.json last. Size and sha256 of each are kept in the tracker for `verify`.

    Args:
        settings: the config, for dataset_info.json.
        tracker: the run's.
        consolidator: of the run, whose chunks are all made.
        cache: which knows what was denoised.
        encoder: what the capsules were encoded with.
    """
    fault_point("dataset-files")
    paths = tracker.paths
    classes = _write_tables(paths, tracker, cache.denoise_results)
    computed_in = tracker.frozen().get(COMPUTED_IN, "float32")
    weights = {
        "preset": encoder.preset, "fingerprint": encoder.fingerprint, "trained": encoder.trained,
        "weights": encoder.weight_count,
        "computed_in": computed_in,
    }  # fmt: skip
    shards = [
        {"chunk": c.number, "rows": c.rows, "nbytes": c.nbytes,
         "sha256": sha256_of(consolidator.chunk.file(consolidator.array, c.number))}
        for c in _receipts(consolidator)
    ]  # fmt: skip
    info = _info(settings, tracker, shards, weights, cache, classes)
    write_file(paths.card, _card(info).encode())
    written = [
        *(path for path in paths.tables if path != paths.info),
        *sorted(paths.capsules.parent.rglob("zarr.json")),
    ]
    written += [path for path in sorted((paths.labels / "c").rglob("*")) if path.is_file()]
    held = {path.relative_to(paths.root).as_posix(): [path.stat().st_size, sha256_of(path)] for path in written}
    with tracker.transaction():
        tracker.set(_INFO, info)
        tracker.set(_FILES, held)
    write_info(tracker)
    tracker.set("dataset_made_of", _made_of(consolidator))


def write_info(tracker: TrainingProgressTracker) -> None:
    """Write dataset_info.json, where it is not what it should be: the dataset, and the models that are finished.

    All of it follows from the tracker and the models' folders, so a kill at any moment is repaired by the next call.
    Nothing is written before the dataset is complete. The caller has the run's lock.
    """
    info, path = tracker.get(_INFO), tracker.paths.info
    if info is None:
        return
    models = [model for model in summaries(tracker.paths) if model["state"] == "done"]
    data = (json.dumps({**info, "models": models}, indent=2, ensure_ascii=False) + "\n").encode()
    held, known = tracker.get(_FILES, {}), [len(data), hashlib.sha256(data).hexdigest()]
    name = path.relative_to(tracker.paths.root).as_posix()
    if held.get(name) == known and path.is_file() and path.read_bytes() == data:
        return
    write_file(path, data)
    fault_point("dataset-info")
    tracker.set(_FILES, {**held, name: known})


def _receipts(consolidator: Consolidator) -> list[Receipt]:
    return [consolidator.receipt(chunk) for chunk in sorted(consolidator.tracker.chunks())]


def _made_of(consolidator: Consolidator) -> str:
    """A hash over the chunks that the files describe."""
    chunks = [(c.number, c.rows, c.sha256) for c in _receipts(consolidator)]
    return hashlib.sha256(json.dumps(chunks).encode()).hexdigest()


def damaged_files(tracker: TrainingProgressTracker, deep: bool = False) -> list[str]:
    """One sentence for each file of the dataset that is missing, of another size or, `deep`, of other bytes."""
    held = (tracker.get(_FILES) or {}).items()
    looked = [trouble_with(tracker.output_dir / name, size, sha256, deep) for name, (size, sha256) in held]
    return [trouble for trouble in looked if trouble]


def _write_tables(paths: RunPaths, tracker: TrainingProgressTracker, denoise_results: DenoiseResults) -> list[str]:
    staged = paths.samples.with_name(f"{paths.samples.name}.tmp")
    with writing_into(paths.root):
        with pq.ParquetWriter(staged, _SCHEMA, compression="zstd") as writer:
            for batch in _record_batches(tracker, denoise_results, _SCHEMA):
                writer.write_batch(batch)
        publish(staged, paths.samples)
    lines = [json.dumps({"path": r.path, "reason": r.reason}, ensure_ascii=False) + "\n" for r in tracker.rejected()]
    write_file(paths.quarantine, "".join(lines).encode("utf-8", "backslashreplace"))
    return _write_labels(paths, tracker)


def _write_labels(paths: RunPaths, tracker: TrainingProgressTracker) -> list[str]:
    names = tracker.label_names()
    number = {name: i for i, name in enumerate(names)}
    blocks = [np.array([number.get(row.label or "", -1) for row in rows], np.int32) for rows in _blocks(tracker)]
    write_labels(paths.labels, np.concatenate(blocks))
    return names


def _info(
    settings: dict[str, Any],
    tracker: TrainingProgressTracker,
    shards: list[dict[str, Any]],
    encoder: dict[str, Any],
    cache: ImageCache,
    classes: list[str],
) -> dict[str, Any]:
    stats = tracker.get_stats()
    return {
        "name": tracker.output_dir.name,
        "content_digest": content_digest(tracker),
        "counts": {
            "rows": stats["rows_planned"],
            "unique_images": tracker.unique_keys(),
            "quarantined_items": stats["items_quarantined"],
            "quarantined_samples": stats["samples_quarantined"],
            "left_out": tracker.left_out(),
            "modalities": stats["modalities"],
            "splits": tracker.split_counts(),
        },
        "classes": classes,
        "encoder": encoder,
        "denoiser": cache.denoiser.fingerprint if cache.denoiser else None,
        "denoiser_computed_in": cache.denoiser_precision if cache.denoiser else None,
        "config": settings,
        "shards": shards,
        "versions": {
            "trm-nb": __version__, "python": platform.python_version(), **{name: version(name) for name in LIBRARIES},
        },
    }  # fmt: skip


def _card(info: dict[str, Any]) -> str:
    counts = info["counts"]
    modalities = ", ".join(f"{count} {name}" for name, count in counts["modalities"].items())
    splits = ", ".join(f"{count} {name}" for name, count in counts["splits"].items())
    unusable = f"{counts['quarantined_items']} items and {counts['quarantined_samples']} samples"
    untrained = "UNTRAINED (random weights from the seed)" if info["encoder"]["weights"] else "a fixed transform"
    trained = "trained" if info["encoder"]["trained"] else untrained
    autocast = " autocast" if info["encoder"]["computed_in"] == "bfloat16" else ""
    by = f"by the denoiser {info['denoiser']}, computed in {info['denoiser_computed_in']}"
    denoised = by if info["denoiser"] else "by nothing, they are as rendered"
    return f"""---
pretty_name: {json.dumps(info["name"])}
tags: [capsules, tiny-recursive-model]
---
# Capsule dataset

{counts["rows"]} samples ({modalities}; {splits}), each an image turned into 12 capsules of 512 float16 numbers.
{counts["unique_images"]} images are different. {unusable}
could not be used; quarantine.jsonl says why. {counts["left_out"]} files or items were left out by the config.

The encoder ({info["encoder"]["preset"]}, weights {info["encoder"]["fingerprint"]}) is {trained}.
Capsules were computed in {info["encoder"]["computed_in"]}{autocast}.

Samples are for training (`train`), validation (`val`) or test (`split` in samples.parquet). Items of equal content and
items that belong together are in one split, and have the same `split_group`. Each label has the same part of its items
in each split, as far as their number allows.

Images were denoised {denoised}; samples.parquet says which, and how much was taken away.

| file | what |
|---|---|
| capsules.zarr/capsules | float16 (N, 12, 512), Zarr v3; the row of a quarantined sample is NaN |
| capsules.zarr/labels | int32 (N), an index into `classes` of dataset_info.json, -1 for none |
| samples.parquet | one row a sample, in the same order; `target` holds the answer grids of puzzles and tasks |
| images.zarr | the images, uint8 (rows, h, w, 3); images/receipts/ names the key in each slot |
| quarantine.jsonl | path and reason of what could not be used |
| dataset_info.json | config, counts, versions, sha256 of each shard, content digest, results of the trained models |

```python
import zarr, pandas
capsules = zarr.open_array("capsules.zarr/capsules", mode="r")
samples = pandas.read_parquet("samples.parquet")
```

Content digest: `{info["content_digest"]}`, the sha256
over "key status" lines of all rows in order and then the bytes of all capsules.
Licences are those of the sources.
"""
