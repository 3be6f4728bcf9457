"""What an explorer looks at: the samples of a finished run, a map of them, their neighbours and their predictions.

The map and the neighbours are over at most MAPPED samples, spread evenly over the run, because all of their capsules
are held in memory: 24 KB each. Every sample of the run can be looked at, in the map or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.dataset.nearest import directions
from trm_nb.errors import UserError
from trm_nb.evaluation.capsule_stats import principal_plane
from trm_nb.evaluation.neighbours import vectors_of
from trm_nb.pipeline.prediction.model import Model
from trm_nb.records import Item
from trm_nb.sources.reader import list_files, read

if TYPE_CHECKING:
    import pandas as pd

    from trm_nb.pipeline.run import Run
    from trm_nb.sources.files import SourceFile

MAPPED = 2000
NEIGHBOURS = 6
ANY = "any"  # no filter


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A sample of the map: its place in the dataset, and 1 minus the cosine similarity after centring."""

    place: int
    distance: float


@dataclass(frozen=True, slots=True)
class Filter:
    """Which samples are looked at; `wrong_of` is the model whose wrong predictions are, None for all samples.

    `contains` is a part of the sample's name, without regard to case.
    """

    modality: str = ANY
    label: str = ANY
    split: str = ANY
    wrong_of: str | None = None
    contains: str = ""


class Collection:
    """The encoded samples of a finished run. A `place` is a sample's index in `dataset` and in `table`.

    Args:
        run: a run whose dataset is finished.

    Raises:
        UserError: where it is not, or holds no sample.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.dataset = CapsuleDataset(run.path)
        if not len(self.dataset):
            raise UserError(f"{run.path}: expected samples to explore, but all of this run's are quarantined")
        self.table: pd.DataFrame = run.samples().iloc[self.dataset.rows].reset_index(drop=True)
        self.mapped, vectors = vectors_of(self.dataset, MAPPED)
        self.positions, self.explained = principal_plane(vectors)
        self._mean = vectors.mean(axis=0)
        self._unit = directions(vectors, self._mean)
        self._wrong: dict[str, np.ndarray] = {}
        self._models: dict[str, Model] = {}

    def values(self, column: str) -> list[str]:
        """The different values of a column of the table, in order; missing ones are left out."""
        return sorted({str(value) for value in self.table[column].dropna()})

    @cached_property
    def models(self) -> tuple[str, ...]:
        """The names of the finished models."""
        paths = self.run.paths
        return tuple(path.name for path in paths.model_folders() if paths.model(path.name).is_finished())

    def matching(self, wanted: Filter) -> np.ndarray:
        """The places of the samples that pass a filter: int64 (n,), ascending."""
        kept = np.ones(len(self.table), bool)
        for column in ("modality", "label", "split"):
            value = getattr(wanted, column)
            if value != ANY:
                kept &= (self.table[column] == value).to_numpy()
        if wanted.contains:
            kept &= self.table["sample_id"].str.contains(wanted.contains, case=False, regex=False).to_numpy()
        if wanted.wrong_of is not None:
            kept &= np.isin(self.dataset.rows, self._wrong_rows(wanted.wrong_of))
        return np.flatnonzero(kept)

    def _wrong_rows(self, model: str) -> np.ndarray:
        """The rows that a model predicts wrongly after its last recursion step."""
        if model not in self._wrong:
            path = self.run.paths.model(model).predictions
            held = pq.read_table(path, columns=["row", "step", "correct"]).to_pandas()
            last = held[held["step"] == held["step"].max()]
            self._wrong[model] = last.loc[~last["correct"], "row"].to_numpy(np.int64)
        return self._wrong[model]

    def nearest(self, capsules: np.ndarray, place: int | None = None) -> list[Neighbour]:
        """The samples of the map whose capsules are nearest to (12, 512) ones; `place` is the sample's own."""
        similar = self._unit @ directions(capsules[None], self._mean)[0]
        if place is not None:
            similar[self.mapped == place] = -np.inf
        order = np.argsort(-similar, kind="stable")[:NEIGHBOURS]
        return [Neighbour(int(self.mapped[n]), 1 - float(similar[n])) for n in order if np.isfinite(similar[n])]

    def model(self, name: str) -> Model:
        """A trained model, which is loaded at its first use."""
        if name not in self._models:
            self._models[name] = Model.load(self.run.path, name)
        return self._models[name]

    def recorded(self, model: str, place: int) -> list[tuple[Any, float]]:
        """What predictions.parquet holds for a sample: prediction and probability by step; [] for a training sample."""
        path = self.run.paths.model(model).predictions
        wanted = [("row", "==", int(self.dataset.rows[place]))]
        held = pq.read_table(path, columns=["step", "prediction", "probability"], filters=wanted).sort_by("step")
        return list(zip(held["prediction"].to_pylist(), held["probability"].to_pylist(), strict=True))

    def item(self, place: int) -> Item | None:
        """The item of a sample, read again from its source; None where that is not there, or holds it no more."""
        name = str(self.table["item_id"].iloc[place])
        file = self._files.get(name) or self._files.get(name.rpartition("#")[0])
        entries = () if file is None else read(file, self.run.config).entries
        return next((entry for entry in entries if isinstance(entry, Item) and entry.item_id == name), None)

    @cached_property
    def _files(self) -> dict[str, SourceFile]:
        try:
            return {file.name: file for file in list_files(self.run.config)}
        except UserError:  # the sources of a finished run may be gone
            return {}
