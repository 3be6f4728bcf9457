"""What a finished training leaves for people and other programs: its weights, predictions, result and model card.

All follow from the checkpoint and the dataset, so they can be written again at any time. The card comes last, so that a
folder with a card is complete. The cost is that of a file with a row per evaluated sample and recursion step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trm_nb.describe import escaped
from trm_nb.models.checkpoints import save_weights
from trm_nb.progress.model_record import DIGEST, write_result
from trm_nb.progress.run_folder import ModelPaths
from trm_nb.storage.files import publish, write_file, writing_into
from trm_nb.training.objective import Objective
from trm_nb.training.predictions import Predictions
from trm_nb.training.reasoning import Trained
from trm_nb.training.results import Result
from trm_nb.training.state import KIND

SAMPLES_AT_ONCE = 1_000  # while predictions are written
MOST_CLASSES = 100  # in the card; result.json has all
_SHOWN = (
    "train_steps", "train_batch_size", "learning_rate", "muon_rate", "weight_decay", "train_width", "mixing",
    "train_seed", "validate_every", "early_stopping", "device",
)  # fmt: skip
_UNSET = {"validate_every": "an epoch, 10 steps at least", "early_stopping": "off"}


def write_results(paths: ModelPaths, result: Result, trained: Trained, values: Mapping[str, Any]) -> None:
    """Write the weights, the predictions, the result and the card of a training.

    Args:
        paths: the model's folder.
        result: the predictions for the held-out samples, with the baselines.
        trained: what the training ended with.
        values: what config.yaml holds. The header of the weights has them, with `steps`, `best_step` and the model's
            sizes (`TRMConfig`) as `architecture`.
    """
    values = {**values, "steps": trained.steps, "best_step": trained.best_step}
    header = {**values, "architecture": asdict(result.objective.model)}
    save_weights(paths.weights, KIND, trained.model.state_dict(), header)
    write_predictions(paths, result)
    named = {"name": values["model"], "objective": values["objective"]}
    read_as = {"target": result.objective.target, "correct": result.objective.correct}
    write_result(paths, {**named, **result.summary(), **result.tables(), **read_as})
    parameters = sum(parameter.numel() for parameter in trained.model.parameters())
    write_file(paths.card, _card(result, values, parameters).encode())


def write_predictions(paths: ModelPaths, result: Result) -> None:
    """Write predictions.parquet: a row per evaluated sample and recursion step, by split and row."""
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
    for predictions in (result.predictions, result.val):
        if predictions is not None:
            yield from _tables_of(result.objective, predictions)


def _tables_of(objective: Objective, predictions: Predictions) -> Iterator[pa.Table]:
    dataset, steps = objective.dataset, len(predictions.exact)
    order = np.argsort(predictions.rows, kind="stable")
    targets = objective.readable(predictions, predictions.labels)
    predicted = [objective.readable(predictions, classes) for classes in predictions.by_step]
    items = predictions.rows if predictions.items is None else predictions.items
    places = dataset.rows.searchsorted(predictions.rows)
    also = {"probability": predictions.probability, "halts": predictions.halts}
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
            **{name: held[of, samples] for name, held in also.items() if held is not None},
        })  # fmt: skip


def _card(result: Result, values: Mapping[str, Any], parameters: int) -> str:
    objective, measured = result.objective, result.accuracy
    size = objective.model
    known = _UNSET | {name: value for name, value in values.items() if value is not None}
    settings = "\n".join(f"| {name} | {known[name]} |" for name in _SHOWN)
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

{result.choice()}

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
{_by_class(result)}{_by_modality(result)}
## Limits

- The samples are held out of this one dataset. The result says nothing about data from elsewhere.
- It is the result of one training. Another `train_seed` gives another one; how far they differ is not measured here.
- If models or settings, `train_steps` among them, were chosen by their accuracy on these samples, the accuracy of the
  chosen one is optimistic. Choose by the validation samples.
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
| predictions.parquet | a row per validation or test sample and recursion step: target, prediction, probability, halts |
| result.json | the result with its tables as JSON |
| metrics.jsonl | a line per logged training step, validations included |
| config.yaml | the settings; a training that continues must agree with them |
| training.pt | the state from which training continues if `train_steps` is raised |

```python
import pandas
predictions = pandas.read_parquet("predictions.parquet")
last = predictions[(predictions["split"] == "test") & (predictions["step"] == predictions["step"].max())]
wrong = last[~last["correct"]]
```
"""


def _by_class(result: Result) -> str:
    """A table of the classes, those with most samples where there are many."""
    if not result.classes:
        return ""
    shown = sorted(result.classes, key=lambda one: -one.accuracy.rows)[:MOST_CLASSES]
    rows = "".join(
        f"| {escaped(one.name)} | {one.accuracy.rows:,} | {one.accuracy.items:,} | {_percent(one.accuracy.share)} "
        f"({_percent(one.accuracy.low)} to {_percent(one.accuracy.high)}) | {_percent(one.precision)} "
        f"| {_percent(one.baseline)} |\n"
        for one in result.classes
        if one in shown
    )
    left_out = len(result.classes) - len(shown)
    more = f"\nOf {left_out:,} more classes, with fewer samples, result.json has the figures.\n" if left_out else ""
    baseline = result.baselines[0].name
    return f"""
Recall is the share of a class's samples that is right, precision the share of right ones among the samples that were
taken for it.

| class | samples | items | recall (95 % interval) | precision | recall of {baseline} |
|---|---|---|---|---|---|
{rows}{more}"""


def _by_modality(result: Result) -> str:
    rows = "".join(
        f"| {escaped(one.name)} | {one.accuracy.rows:,} | {one.accuracy.items:,} | {_percent(one.accuracy.share)} "
        f"({_percent(one.accuracy.low)} to {_percent(one.accuracy.high)}) | {_percent(one.against.second)} "
        f"| {one.against.outcome} |\n"
        for one in result.modalities
    )
    return f"""
The baseline of a modality is to predict its most common target always.

| modality | samples | items | accuracy (95 % interval) | baseline | the model is |
|---|---|---|---|---|---|
{rows}"""


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share == share else "-"
