"""Which page follows? A page's capsules are read to find those of the next page among the batch's (contrastive).

A row of a batch asks for its own next page; the next pages of the other rows are the wrong answers. So an answer is one
place whose classes are the rows of the batch, and training and measuring are those of reasoning.py. Source: InfoNCE
(van den Oord et al., arXiv 1807.03748). Deviations: stablemax instead of softmax, as everywhere here, and a fixed scale
of the likeness. What is looked for is the page itself plus what the model makes of it, so that it starts from "the next
page is like this one": from nothing, 194 pages of the demo were learnt by heart and no other was found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.errors import UserError
from trm_nb.models.tiny_recursive_model import Carry, TinyRecursiveModel, TRMConfig
from trm_nb.models.trm import Linear
from trm_nb.records import CAPSULES
from trm_nb.training.answers import Answers
from trm_nb.training.reasoning import ROW, shuffled
from trm_nb.training.targets import gathered, mean_and_spread

NEXT = "next"  # the batch's entry with the capsules of the following pages
WIDTH = 128  # numbers in which pages are compared
SHARPNESS = 20.0  # likeness is a cosine times this


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


class NextPages:
    """The pages of a finished run that have a next page. An `Examples` of training/reasoning.py.

    Held-out pages are asked in pools as large as a batch of training, or as all of them where they are fewer; pages
    beyond the last whole pool are left out, so that every question has as many wrong answers. Pools are mixed from all
    held-out pages, as batches are.
    Raises UserError where fewer than two are on either side.
    """

    shape = (1, 1)

    def __init__(self, dataset: CapsuleDataset, **model: Any) -> None:
        first = np.flatnonzero(dataset.followed)
        splits = np.asarray(dataset.splits)[first]
        self.train, self.test = (np.flatnonzero(splits == name) for name in ("train", "test"))
        if min(len(self.train), len(self.test)) < 2:
            raise UserError(
                f"training on next pages needs two pages with a next one on both sides, but {dataset.output_dir} has "
                f"{len(self.train)} to learn from and {len(self.test)} to measure on; choose "
                "another objective, or build a new run with longer documents or a larger test_fraction"
            )
        self.test = np.random.default_rng(0).permutation(self.test)
        self.dataset = dataset
        self.rows = dataset.rows[first]
        self.capsules, self.next = (gathered(dataset.output_dir, rows) for rows in (self.rows, self.rows + 1))
        self.model = TRMConfig(WIDTH, 1, tokens=False, capsules=True, **model)
        self.per_epoch = len(self.train)
        said = f"next page {dataset.info['content_digest']}".encode() + self.rows[self.train].tobytes()
        self.name = hashlib.sha256(said).hexdigest()[:16]

    def new_model(self, generator: torch.Generator) -> NextPageTRM:
        """With the mean and spread of the training capsules."""
        model = NextPageTRM(self.model, generator)
        model.set_scale(*mean_and_spread(self.capsules, self.train))
        return model

    def train_batch(self, step: int, size: int, seed: int) -> dict[str, Tensor]:
        """Each training page once in an epoch, in an order of the epoch's own."""
        return self._batch(self.train[shuffled(step * size, size, len(self.train), seed)])

    def test_batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        """The held-out pools."""
        size = min(size, len(self.test))
        for first in range(0, len(self.test) - size + 1, size):
            yield self._batch(self.test[first : first + size])

    def items_of(self, rows: np.ndarray) -> np.ndarray:
        """As in the dataset."""
        return self.dataset.items_of(rows)

    def _batch(self, chosen: np.ndarray) -> dict[str, Tensor]:
        both = (torch.from_numpy(of[chosen].astype(np.float32)) for of in (self.capsules, self.next))
        labels = torch.arange(len(chosen))[:, None]
        return {
            **dict(zip(("capsules", NEXT), both, strict=True)),
            "labels": labels,
            ROW: torch.from_numpy(self.rows[chosen]),
        }


def rows_said(answers: Answers) -> np.ndarray:
    """The rows of the pages that the model holds for the next ones of `answers.rows`: int64 (n,)."""
    places = np.arange(len(answers.rows)) + (answers.predictions - answers.labels)[:, 0]
    said: np.ndarray = answers.rows[places] + 1
    return said
