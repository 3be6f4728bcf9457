"""A batch of the pre-training: what an image is of, and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from trm_nb.training.pretraining.words import FAMILIES, in_place

ROWS, COLUMNS = 16, 32  # of the cells of a page
FAMILY = np.array([0, 0, 1, 1, 2, 2])  # of each kind, its place in words.FAMILIES


class Kind(IntEnum):
    """What an image is of."""

    TEXT, RANDOM, GRID, TASK, PHOTOGRAPH, OTHER = range(6)


class Part(IntEnum):
    """What a batch is for: other parts give other batches for the same seed and step."""

    TRAINING, START, PAIRS = range(3)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """b images; 2i and 2i + 1 are a pair.

    `images` uint8 (b, 224, 224, 3); `kinds` int64 (b,), see Kind; `related` bool (b / 2,): the pair belongs together;
    `cells` int64 (b, 512): the atlas cells of text pages in reading order, -1 elsewhere and where the atlas has none;
    `bags` float32 (b, 1184): the words of each image, see words.py.
    """

    images: np.ndarray
    kinds: np.ndarray
    related: np.ndarray
    cells: np.ndarray
    bags: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One image: `cells` int64 (512,), None where it is no page of text; `words` are those of its family."""

    image: np.ndarray
    kind: Kind
    words: np.ndarray
    cells: np.ndarray | None = None


def collated(examples: Sequence[Example], related: Sequence[bool]) -> Batch:
    """Examples in pairs as a batch; `related` says of each pair whether it belongs together."""
    cells = np.full((len(examples), ROWS * COLUMNS), -1, np.int64)
    for row, example in enumerate(examples):
        if example.cells is not None:
            cells[row] = example.cells
    families = [FAMILIES[FAMILY[example.kind]] for example in examples]
    return Batch(
        np.stack([example.image for example in examples]),
        np.array([example.kind for example in examples], np.int64),
        np.array(related),
        cells,
        np.stack([in_place(example.words, family) for example, family in zip(examples, families, strict=True)]),
    )
