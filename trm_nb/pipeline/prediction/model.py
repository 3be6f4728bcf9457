"""Model: a trained model of a run, which predicts new content as the evaluation predicts held-out samples.

Content takes the way of the run's own samples: it is read with the run's settings, rendered and denoised by an
ImageCache in a temporary folder, encoded by the run's encoder, and asked by `training.predictions.evaluate`. So equal
content gives the classes that predictions.parquet has; probabilities may differ in their last bits, since the rest of
a batch differs.
Cost: loading reads samples.parquet and the weights. Contents are rendered and encoded BLOCK pages at a time, so memory
does not grow with their number, except for 12 KB a page where one page is chosen among the others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from trm_nb.cache.image_cache import ImageCache
from trm_nb.describe import Described, Facts
from trm_nb.errors import RejectedError, UserError
from trm_nb.models.checkpoints import load_weights, read_weights
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel
from trm_nb.pipeline.encode_task import ENCODER, denoiser_precision_of, encode_images, precision_of
from trm_nb.pipeline.prediction.checks import compare_renderers, finished_model, refuse_foreign, run_of
from trm_nb.pipeline.prediction.contents import Content, contents_of
from trm_nb.pipeline.run import Run
from trm_nb.progress.run_folder import RunPaths
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import CAPSULES, FEATURES, Sample
from trm_nb.render.renderer import RenderSettings
from trm_nb.training.predictions import evaluate
from trm_nb.training.state import KIND
from trm_nb.training.train_objective import examples_of, settings_of

if TYPE_CHECKING:
    from trm_nb.training.objective import Objective

BLOCK = 1000  # pages that are rendered and encoded before others are read


@dataclass(frozen=True, slots=True, eq=False)
class _Page:
    """One sample of a content, or why there is none. `name` is the content's."""

    name: str
    sample: Sample | None
    error: str | None = None

    @property
    def page_name(self) -> str:
        """Unique among the pages of different contents, as `Sample.sample_id` is."""
        several = self.sample is not None and self.sample.pages > 1
        return f"{self.name}#{self.sample.page}" if self.sample and several else self.name


@dataclass(frozen=True, slots=True, eq=False)
class _NewSamples:
    """Samples as `evaluate` asks them: capsules float16 (n, 12, 512), of which those `asked` are."""

    objective: Objective
    capsules: np.ndarray
    asked: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return self.objective.shape

    def val_batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        return iter(())

    def test_batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        size = len(self.asked) if self.objective.among_samples else size
        for first in range(0, len(self.asked), size):
            yield self.objective.question(self.capsules, self.asked[first : first + size])

    def items_of(self, rows: np.ndarray) -> np.ndarray:
        return rows


class Model(Described):
    """A trained model of a run; get one with `Model.load`.

    `model.predict([Path("photo.jpg"), "some text"])` is a DataFrame. `config` has the settings of the run and of the
    model.

    Args:
        run: whose encoder and renderer are used.
        objective: what it was trained to predict.
        network: the TinyRecursiveModel with the averaged weights, on the device of the run's config.
        frozen: the settings that the run's dataset was made with.
    """

    def __init__(self, run: Run, objective: Objective, network: TinyRecursiveModel, frozen: Mapping[str, Any]) -> None:
        self.config, self.objective, self.network = run.config, objective, network
        self._run, self._frozen = run, frozen

    @classmethod
    def load(cls, folder: str | Path, name: str = "main", *, device: str | None = None) -> Self:
        """Load a trained model.

        Args:
            folder: the run's folder.
            name: of the model, as in `models/<name>`.
            device: what to compute on; None: what the run was encoded and the model trained on.

        Returns:
            The model, which predicts as its evaluation did.

        Raises:
            UserError: when the folder holds no finished dataset or no finished model of this name; when the model's
                files are damaged, or of another dataset or version; and when the encoder or the denoiser is not the
                one that the dataset was made with.
        """
        paths = RunPaths(Path(folder).resolve())
        with closing(TrainingProgressTracker(paths.root)) as tracker:
            frozen = tracker.frozen()
        model = finished_model(paths, name)
        weights, values = read_weights(model.weights, KIND)
        try:
            run = run_of(paths, name, values, device)
            objective = examples_of(paths.root, run.config)
        except UserError as error:
            raise UserError(f"{model.root}: {error}") from None
        refuse_foreign(model, values, objective)
        if run.encoder.fingerprint != frozen.get(ENCODER):
            raise UserError(
                f"{paths.root}: the capsules were made by the encoder {frozen.get(ENCODER)}, and this is "
                f"{run.encoder.fingerprint}; put back the encoder_path or the version of trm-nb that made them"
            )
        network = objective.network(objective.model, torch.Generator())
        load_weights(network, weights, model.weights)
        return cls(run, objective, network.to(run.config.device).eval(), frozen)

    def predict(self, contents: Any) -> pd.DataFrame:
        """Predict what the model was trained to predict.

        Args:
            contents: one value or an iterable of them, in any mixture: `pathlib.Path` for files and folders, which are
                read by content as sources are; str for text; PIL images; uint8 arrays (h, w, 3); integer grids;
                `GridTask`, `Puzzle` and `Item`.

        Returns:
            A row for each sample and recursion step, in the order of the contents: `item_id` (the path as given, or
            the item's id), `page` (from 0), `step` (from 1; the last one counts), `prediction` (a label's name; a grid
            as nested lists, -1 outside of it; with the objective `next` the name of the page among those given),
            `probability` (float, what the model gives to it; for a grid the product over its cells) and `error`. What
            cannot be used has one row whose `error` is a sentence; the other columns are missing there.

        Raises:
            UserError: for a path that leads nowhere, and for a value of a type that is not named above.
        """
        found = contents_of(contents, self.config)
        with self._temporary_cache() as cache:
            pages = self._pages(found, cache)
            size = None if self.objective.among_samples else BLOCK
            rows: list[tuple[Any, ...]] = []
            while block := list(islice(pages, size)):
                rows += self._rows(*self._encoded(block, cache))
                cache.clear()
        columns = ("item_id", "page", "step", "prediction", "probability", "error")
        frame = pd.DataFrame({name: [row[n] for row in rows] for n, name in enumerate(columns)}, dtype=object)
        return frame.astype({"page": "Int64", "step": "Int64", "probability": "float64"})

    @contextmanager
    def _temporary_cache(self) -> Iterator[ImageCache]:
        c = self.config
        with tempfile.TemporaryDirectory(prefix="trm-nb-") as folder:
            cache = ImageCache(
                folder, c.use_denoiser, c.denoiser_path, denoiser=c.denoiser,
                denoiser_precision=denoiser_precision_of(self._frozen, c),
                render=RenderSettings.of(c), workers=c.workers,
            )  # fmt: skip
            with closing(cache):
                compare_renderers(cache.fingerprints(), self._frozen.get("renderers") or {}, self._run.path)
                yield cache

    def _pages(self, contents: Iterable[Content], cache: ImageCache) -> Iterator[_Page]:
        for content in contents:
            try:
                samples = [] if content.item is None else cache.samples(content.item)
            except RejectedError as rejected:
                yield _Page(content.name, None, str(rejected))
                continue
            reason = content.error
            if content.item is not None:
                reason = self.objective.why_not(content.item.payload, len(samples))
            if reason is not None:
                yield _Page(content.name, None, reason)
                continue
            yield from (_Page(content.name, sample) for sample in samples)

    def _encoded(self, pages: list[_Page], cache: ImageCache) -> tuple[list[_Page], np.ndarray]:
        """The pages, with what failed, and the capsules of the others: float16 (n, 12, 512)."""
        failed: dict[str, str] = {}
        samples = [page.sample for page in pages if page.sample is not None]
        cache.fill(samples, lambda _, bad: failed.update(bad))
        pages = [_Page(page.name, page.sample, failed.get(page.sample.key)) if page.sample else page for page in pages]
        keys = [sample.key for sample in samples if sample.key not in failed]
        capsules = np.empty((len(keys), CAPSULES, FEATURES), np.float16)
        c, precision = self.config, precision_of(self._frozen, self.config)
        at_once = c.micro_batch * c.torch_threads
        for first in range(0, len(keys), at_once):
            some = slice(first, first + at_once)
            capsules[some] = encode_images(self._run.encoder, cache.get_many(keys[some]), c, precision)
        return pages, capsules

    def _rows(self, pages: list[_Page], capsules: np.ndarray) -> Iterator[tuple[Any, ...]]:
        """The rows of the DataFrame for these pages."""
        usable = [page for page in pages if page.error is None]
        predicted = self._predicted(usable, capsules)
        number = -1
        for page in pages:
            at = page.sample.page if page.sample else None
            if page.error is not None:
                yield page.name, at, None, None, None, page.error
                continue
            number += 1
            for step, (value, probability) in enumerate(predicted.get(number, ()), 1):
                yield page.name, at, step, value, probability, None

    def predict_capsules(self, capsules: np.ndarray) -> list[list[tuple[Any, float]]]:
        """Predict from capsules that this run's encoder made, each sample alone.

        Args:
            capsules: float16 (n, 12, 512).

        Returns:
            For each sample the prediction and its probability after each recursion step, as in `predict`.

        Raises:
            UserError: where the objective chooses among the samples that are asked together.
        """
        if self.objective.among_samples:
            raise UserError(f"this model predicts {self.objective.target}, so a sample cannot be asked about alone")
        predicted = self._by_step(capsules, np.arange(len(capsules)), None)
        return [predicted[n] for n in range(len(capsules))]

    def _predicted(self, pages: list[_Page], capsules: np.ndarray) -> dict[int, list[tuple[Any, float]]]:
        """By the place of a page that is asked: prediction and probability after each recursion step."""
        return self._by_step(capsules, self.objective.asked(_next_page_follows(pages)), pages)

    def _by_step(
        self, capsules: np.ndarray, asked: np.ndarray, pages: list[_Page] | None
    ) -> dict[int, list[tuple[Any, float]]]:
        if not len(asked):
            return {}
        questions, settings = _NewSamples(self.objective, capsules, asked), settings_of(self.config)
        predictions = evaluate(self.network, questions, settings, self.config.test_steps)
        assert predictions.probability is not None
        values = [self.objective.readable(predictions, classes) for classes in predictions.by_step]
        if self.objective.among_samples and pages:
            values = [[pages[place].page_name for place in step] for step in values]
        return {
            place: [(step[n], float(sure[n])) for step, sure in zip(values, predictions.probability, strict=True)]
            for n, place in enumerate(asked.tolist())
        }

    def _facts(self) -> Facts:
        c, model = self.config, self._run.paths.model(self.config.model)
        return {
            "folder": model.root,
            "predicts": self.objective.target,
            "objective": c.objective,
            "recursion steps": c.test_steps or self.objective.model.halt_max_steps,
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "encoder": self._frozen.get(ENCODER),
            "device": c.device,
        }


def _next_page_follows(pages: list[_Page]) -> np.ndarray:
    """Whether the next page of its content is the page behind it: bool (n,)."""
    follows = np.zeros(len(pages), bool)
    for n, (one, other) in enumerate(pairwise(pages)):
        assert one.sample and other.sample
        follows[n] = one.name == other.name and other.sample.page == one.sample.page + 1
    return follows
