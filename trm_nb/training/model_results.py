"""What a finished training leaves for people and other programs: its weights, its predictions and its model card.

All three follow from the checkpoint and the dataset, so they can be written again at any time. The card comes last, so
that a folder with a card is complete. The cost is that of a file with a row per held-out sample and recursion step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trm_nb.models.checkpoints import save_weights
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel
from trm_nb.progress.model_record import DIGEST
from trm_nb.progress.run_folder import ModelPaths
from trm_nb.storage.files import publish, write_file, writing_into
from trm_nb.training.reasoning import KIND
from trm_nb.training.results import Result

SAMPLES_AT_ONCE = 1_000  # while predictions are written
_SHOWN = ("train_steps", "train_batch_size", "learning_rate", "weight_decay", "train_width", "train_seed", "device")


def write_results(paths: ModelPaths, result: Result, model: TinyRecursiveModel, values: Mapping[str, Any]) -> None:
    """Write the weights, the predictions and the card of a training.

    Args:
        paths: the model's folder.
        result: the predictions for the held-out samples, with the baselines.
        model: with the averaged weights.
        values: what config.yaml holds, and `steps`, the steps that were trained. The header of the weights has them,
            with the model's sizes (`TRMConfig`) as `architecture`.
    """
    architecture = asdict(result.objective.model)
    save_weights(paths.weights, KIND, model.state_dict(), {**values, "architecture": architecture})
    write_predictions(paths, result)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    write_file(paths.card, _card(result, values, parameters).encode())


def write_predictions(paths: ModelPaths, result: Result) -> None:
    """Write predictions.parquet: a row per held-out sample and recursion step, in the order of samples.parquet."""
    staged = paths.predictions.with_name(f"{paths.predictions.name}.tmp")
    writer = None
    with writing_into(paths.root):
        try:
            for table in _tables(result):
                writer = writer or pq.ParquetWriter(staged, table.schema, compression="zstd")
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()
        publish(staged, paths.predictions)


def _tables(result: Result) -> Iterator[pa.Table]:
    predictions, objective = result.predictions, result.objective
    dataset, steps = objective.dataset, len(predictions.exact)
    order = np.argsort(predictions.rows, kind="stable")
    targets = objective.readable(predictions, predictions.labels)
    predicted = [objective.readable(predictions, classes) for classes in predictions.by_step]
    items = predictions.rows if predictions.items is None else predictions.items
    places = dataset.rows.searchsorted(predictions.rows)
    for first in range(0, len(order), SAMPLES_AT_ONCE):
        chosen = order[first : first + SAMPLES_AT_ONCE]
        each = [(n, step) for n in chosen.tolist() for step in range(steps)]
        samples, of = np.repeat(chosen, steps), np.tile(np.arange(steps), len(chosen))
        yield pa.table({
            "row": predictions.rows[samples],
            "sample_id": [dataset.sample_ids[places[n]] for n, _ in each],
            "item": items[samples],
            "split": [dataset.splits[places[n]] for n, _ in each],
            "step": (of + 1).astype(np.int16),
            "target": [targets[n] for n, _ in each],
            "prediction": [predicted[step][n] for n, step in each],
            "correct": predictions.exact[of, samples],
            "cells_correct": predictions.cells[of, samples].astype(np.float32),
            **({} if predictions.probability is None else {"probability": predictions.probability[of, samples]}),
        })  # fmt: skip


def _card(result: Result, values: Mapping[str, Any], parameters: int) -> str:
    objective, measured = result.objective, result.accuracy
    size = objective.model
    settings = "\n".join(f"| {name} | {values[name]} |" for name in _SHOWN)
    compared = "\n".join(
        f"| {one.name} | {100 * one.against.second:.1f} % | {one.against.outcome} |" for one in result.baselines
    )
    sentences = "\n".join(f"- {sentence}" for sentence in result.sentences())
    recursion = (
        f"{size.H_cycles} x {size.L_cycles} cycles, {size.halt_max_steps} steps, {len(result.steps)} when measured"
    )
    versions = ", ".join(f"{name} {number}" for name, number in values["versions"].items())
    return f"""---
tags: [tiny-recursive-model]
---
# Model `{values["model"]}`

A Tiny Recursive Model of {parameters:,} parameters that reads the 12 capsules of a sample and predicts
{objective.target} (objective `{values["objective"]}`). It was trained for {values["steps"]:,} steps on the dataset with
the content digest `{values[DIGEST]}`.

## Settings

| setting | value |
|---|---|
{settings}
| recursion | {recursion} |
| versions | {versions} |

config.yaml has all settings.

## Result

Measured on {measured.rows:,} held-out samples of {measured.items:,} items. Samples of one item resemble each other, so
the item is the unit of intervals and tests.

{sentences}

| compared with | its accuracy | the model is |
|---|---|---|
{compared}

## Limits

- The samples are held out of this one dataset. The result says nothing about data from elsewhere.
- It is the result of one training. Another `train_seed` gives another one; how far they differ is not measured here.
- If models were chosen by their accuracy on these samples, the accuracy of the chosen one is optimistic.
- The model reads capsules of the encoder that this dataset was made with, and of no other.

## Use

```python
from trm_nb import Model
model = Model.load("the run's folder", "{values["model"]}")
model.predict(["a text"])  # also pathlib.Path of files, images, grids and tasks
```

## Files

| file | what |
|---|---|
| model.safetensors | the moving average of the weights; the header's `values` have the settings and the sizes as JSON |
| predictions.parquet | a row per held-out sample and recursion step: target, prediction, probability, correct |
| metrics.jsonl | a line per logged training step |
| config.yaml | the settings; a training that continues must agree with them |
| training.pt | the state from which training continues if `train_steps` is raised |

```python
import pandas
predictions = pandas.read_parquet("predictions.parquet")
last = predictions[predictions["step"] == predictions["step"].max()]
wrong = last[~last["correct"]]
```
"""
