"""What models of answer grids and next pages are compared with: a lookup by cosine similarity that learns nothing.

Both read the capsules that the model reads, centred by the mean of the training samples, as the nearest neighbour of
labels does (label_baselines.py). The cost is that of comparing all held-out samples with all training
samples (grids), or with those of their pool (next pages).
"""

from __future__ import annotations

import numpy as np

from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.evaluation.label_baselines import directions, nearest_labels
from trm_nb.training.answers import Answers
from trm_nb.training.next_page import NextPages
from trm_nb.training.targets import gathered, mean_and_spread, of_grids


def nearest_grids(dataset: CapsuleDataset) -> np.ndarray:
    """Answer each held-out sample with the grid of the training sample nearest to it.

    Returns:
        Whether each cell is right, bool (n, cells), samples in row order as in `Answers` of objective grid.
    """
    examples = of_grids(dataset)
    test = np.isin(np.arange(len(examples.labels)), examples.test)
    nearest = nearest_labels(examples.capsules, np.arange(len(test)), test)
    right: np.ndarray = examples.labels[nearest] == examples.labels[test]
    return right


def most_similar_pages(dataset: CapsuleDataset, answers: Answers) -> np.ndarray:
    """Take for the next page the one of the pool that is most similar to the page, itself excepted.

    Args:
        dataset: the whole run.
        answers: those of objective next, whose pools are asked again.

    Returns:
        Whether that is right, bool (n,), in the order of `answers`.
    """
    pages = NextPages(dataset)
    mean = mean_and_spread(pages.capsules, pages.train)[0].ravel().astype(np.float32)
    pool = int(answers.labels.max()) + 1
    right = np.zeros(len(answers.rows), bool)
    for first in range(0, len(right), pool):
        rows = answers.rows[first : first + pool]
        asked, following = (directions(gathered(dataset.output_dir, of), mean) for of in (rows, rows + 1))
        similar = np.where(rows[:, None] == rows + 1, -np.inf, asked @ following.T)
        right[first : first + pool] = similar.argmax(axis=1) == np.arange(len(rows))
    return right
