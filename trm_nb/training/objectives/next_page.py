"""Objective `next`: which page follows? The model reads a page and finds the next one among a batch (contrastive).

A row of a batch asks for its own next page; the next pages of the other rows are the wrong answers. So an answer is one
place whose classes are the rows of the batch, and training and measuring are those of reasoning.py. Source: InfoNCE
(van den Oord et al., arXiv 1807.03748). Deviations: stablemax instead of softmax, as everywhere here, and a fixed scale
of the likeness. What is looked for is the page itself plus what the model makes of it, so that it starts from "the next
page is like this one": from nothing, 194 pages of the demo were learnt by heart and no other was found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.dataset.nearest import directions
from trm_nb.errors import NothingToLearnError
from trm_nb.models.tiny_recursive_model import Carry, TinyRecursiveModel, TRMConfig
from trm_nb.models.trm import Linear
from trm_nb.records import CAPSULES, Payload
from trm_nb.training.objective import Baseline, Detail, Images, Objective
from trm_nb.training.predictions import Predictions
from trm_nb.training.reasoning import shuffled
from trm_nb.training.state import ROW
from trm_nb.training.targets import gathered, mean_and_spread

NEXT = "next"  # the batch's entry with the capsules of the following pages
WIDTH = 128  # numbers in which pages are compared
SHARPNESS = 20.0  # likeness is a cosine times this
SHOWN = 3  # of the pages whose next one is not found


class NextPageTRM(TinyRecursiveModel):
    """A TinyRecursiveModel whose classes are the batch's next pages; a batch has `capsules` and NEXT, (b, 12, 512).

    Its logits are (b, 1, b).
    """

    def __init__(self, config: TRMConfig, generator: torch.Generator) -> None:
        super().__init__(config, generator)
        self.page_head = Linear(CAPSULES * config.hidden_size, config.vocab_size, generator)

    def forward(
        self, carry: Carry, batch: Mapping[str, Tensor], generator: torch.Generator | None = None
    ) -> tuple[Carry, dict[str, Tensor]]:
        carry, outputs = super().forward(carry, batch, generator)
        asked = self._compared(carry.current_data["capsules"]) + outputs["logits"][:, 0]
        pages = self._compared(carry.current_data[NEXT])
        likeness = F.normalize(asked.float(), dim=-1) @ F.normalize(pages.float(), dim=-1).T
        rows = carry.current_data[ROW]
        again = (rows[:, None] == rows) & ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        likeness = likeness.masked_fill(again, -1.0)  # the same page in another row of the batch is no wrong answer
        return carry, outputs | {"logits": SHARPNESS * likeness[:, None]}

    def _compared(self, capsules: Tensor) -> Tensor:
        """A page as pages are compared: (b, 12, 512) -> (b, vocab_size)."""
        compared: Tensor = self.page_head(self.projected(capsules).flatten(1))
        return compared


class NextPages(Objective):
    """The pages of a finished run that have a next page.

    Held-out pages are asked in pools as large as a batch of training, or as all of them where they are fewer; pages
    beyond the last whole pool are left out, so that every question has as many wrong answers. Pools are mixed from all
    held-out pages, as batches are.
    A single validation page is no question, so there is no validation then.
    Raises NothingToLearnError where fewer than two are on either side.
    """

    target: ClassVar[str] = "a page's next page"
    correct: ClassVar[str] = "next pages are found"
    constant: ClassVar[str] = "guessing"
    about: ClassVar[str] = (
        "Each held-out page is asked for its next page among as many as a batch of training holds. Guessing finds one "
        "in so many; the harder baseline takes the page that is most similar to the one asked about (cosine, after "
        "subtracting the mean of the training pages)."
    )
    alike: ClassVar[bool] = False  # a held-out pool may be smaller than a batch of training
    network: ClassVar[type[TinyRecursiveModel]] = NextPageTRM
    among_samples: ClassVar[bool] = True
    shape = (1, 1)

    def __init__(self, dataset: CapsuleDataset, **sizes: Any) -> None:
        first = np.flatnonzero(has_next_page(dataset))
        splits = np.asarray(dataset.splits)[first]
        self.train, self.val, self.test = (np.flatnonzero(splits == name) for name in ("train", "val", "test"))
        if min(len(self.train), len(self.test)) < 2:
            raise NothingToLearnError(
                f"training on next pages needs two pages with a next one on both sides, but {dataset.output_dir} has "
                f"{len(self.train)} to learn from and {len(self.test)} to measure on; choose "
                "another objective, or build a new run with longer documents or a larger test_fraction"
            )
        self.test = np.random.default_rng(0).permutation(self.test)
        self.val = np.random.default_rng(0).permutation(self.val if len(self.val) > 1 else self.val[:0])
        self.dataset = dataset
        self.rows = dataset.rows[first]
        self.model = TRMConfig(WIDTH, 1, tokens=False, capsules=True, **sizes)
        self.per_epoch = len(self.train)
        chosen = self.rows[self.train].tobytes() + b"val" + self.rows[self.val].tobytes()
        said = f"next page {dataset.info['content_digest']}".encode() + chosen
        self.name = hashlib.sha256(said).hexdigest()[:16]

    @cached_property
    def capsules(self) -> np.ndarray:
        """The pages' capsules, float16 (n, 12, 512), mapped from a file that is written at the first use."""
        return gathered(self.dataset.output_dir, self.rows)

    @cached_property
    def next(self) -> np.ndarray:
        """The capsules of the pages that follow, likewise."""
        return gathered(self.dataset.output_dir, self.rows + 1)

    def new_model(self, generator: torch.Generator) -> TinyRecursiveModel:
        """With the mean and spread of the training capsules."""
        model = self.network(self.model, generator)
        model.set_scale(*mean_and_spread(self.capsules, self.train))
        return model

    def train_batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        """Each training page once in an epoch, in an order of the epoch's own."""
        return self._batch(self.train[shuffled(step * size, size, len(self.train), seed)])

    def val_batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        """The pools of validation pages."""
        return self._pools(self.val, size)

    def test_batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        """The held-out pools."""
        return self._pools(self.test, size)

    def _pools(self, places: np.ndarray, size: int) -> Iterator[dict[str, Tensor]]:
        size = min(size, len(places)) or 1
        for first in range(0, len(places) - size + 1, size):
            yield self._batch(places[first : first + size])

    def baselines(self, predictions: Predictions) -> tuple[Baseline, ...]:
        """The page of the pool that is most similar to the one asked about, itself excepted."""
        mean = mean_and_spread(self.capsules, self.train)[0].ravel().astype(np.float32)
        pool, correct = _pool(predictions), np.zeros((len(predictions.rows), 1), bool)
        for first in range(0, len(correct), pool):
            rows = predictions.rows[first : first + pool]
            asked, following = (directions(gathered(self.dataset.output_dir, of), mean) for of in (rows, rows + 1))
            similar = np.where(rows[:, None] == rows + 1, -np.inf, asked @ following.T)
            correct[first : first + pool, 0] = similar.argmax(axis=1) == np.arange(len(rows))
        return (Baseline("taking the most similar page", correct),)

    def chance(self, predictions: Predictions) -> tuple[str, float]:
        """Guessing finds one page in as many as a pool holds."""
        pool = _pool(predictions)
        return f"guessing among {pool:,} pages", 1 / pool

    def readable(self, predictions: Predictions, classes: np.ndarray) -> list[int]:
        """The rows of the pages, as in samples.parquet."""
        found: list[int] = _rows_of(predictions, classes).tolist()
        return found

    def details(self, predictions: Predictions) -> tuple[Detail, ...]:
        """Some pages whose next one is not found."""
        missed = np.flatnonzero(~predictions.exact[-1])[:SHOWN]
        triples = np.stack([predictions.rows, predicted_rows(predictions), predictions.rows + 1], axis=1)[missed]
        captions = ("a page", "predicted to be next", "the next page")
        return (Images("Pages whose next one is not found.", triples, captions),) if len(missed) else ()

    @classmethod
    def why_not(cls, payload: Payload, pages: int) -> str | None:
        """A page alone has no next one."""
        return (
            None if pages > 1 else "the model predicts which page of a document is the next one, and this has one page"
        )

    def asked(self, next_page_follows: np.ndarray) -> np.ndarray:
        """The pages that have a next one; these next ones are what is chosen among."""
        return np.flatnonzero(next_page_follows)

    def question(self, capsules: np.ndarray, asked: np.ndarray) -> dict[str, Tensor]:
        """One pool."""
        return _pool_of(capsules[asked], capsules[asked + 1], asked)

    def _batch(self, chosen: np.ndarray) -> dict[str, Tensor]:
        return _pool_of(self.capsules[chosen], self.next[chosen], self.rows[chosen])


def _pool_of(pages: np.ndarray, following: np.ndarray, rows: np.ndarray) -> dict[str, Tensor]:
    """A batch of pages with the pages that follow them, capsules float16 (b, 12, 512) each."""
    both = (torch.from_numpy(of.astype(np.float32)) for of in (pages, following))
    return {
        **dict(zip(("capsules", NEXT), both, strict=True)),
        "labels": torch.arange(len(rows))[:, None],
        ROW: torch.from_numpy(rows),
    }


def has_next_page(dataset: CapsuleDataset) -> np.ndarray:
    """Which samples have the next page of their item right after them: bool (n,)."""
    same = [one == other for one, other in pairwise(dataset.column("item_id"))]
    return np.append((np.diff(dataset.rows) == 1) & np.array(same, bool), False)[: len(dataset)]


def predicted_rows(predictions: Predictions) -> np.ndarray:
    """The rows of the pages that the model takes for the next ones of `predictions.rows`: int64 (n,)."""
    return _rows_of(predictions, predictions.predictions)


def _rows_of(predictions: Predictions, classes: np.ndarray) -> np.ndarray:
    """The rows of the pages at these places of each one's pool, int (n, 1): int64 (n,)."""
    places = np.arange(len(predictions.rows)) + (classes.astype(np.int64) - predictions.labels)[:, 0]
    found: np.ndarray = predictions.rows[places] + 1
    return found


def _pool(predictions: Predictions) -> int:
    """How many pages were asked together."""
    return int(predictions.labels.max()) + 1
