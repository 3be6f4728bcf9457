"""What a model of ARC tasks is compared with: predictions from the task itself or from the nearest one, untrained.

Each baseline has one prediction for a test input, so its pass@k is the same for all k; compare it with pass@1.
"""

from __future__ import annotations

import numpy as np

from trm_nb.dataset.nearest import nearest
from trm_nb.evaluation.arc.questions import Question
from trm_nb.evaluation.arc.scoring import grids_at_top_left
from trm_nb.training.targets import CapsuleTargets

IDENTITY, COLOUR, NEAREST = "identity", "most common colour", "nearest task"
ABOUT = {  # completes "better than ..."
    IDENTITY: "the unchanged test input",
    COLOUR: "a grid of the test input's size in the most common colour of the demonstrations' outputs",
    NEAREST: "the answer of the training sample with the most similar capsules",
}


def identity(question: Question) -> np.ndarray:
    """The test input as it is."""
    return question.test_input


def most_common_colour(question: Question) -> np.ndarray:
    """A grid of the test input's size in the colour that most cells of the demonstrations' outputs have."""
    counts = np.zeros(10, np.int64)
    for _, output in question.asked.train:
        counts += np.bincount(output.ravel(), minlength=10)
    return np.full_like(question.test_input, counts.argmax())


def nearest_answers(objective: CapsuleTargets, asked: np.ndarray) -> list[np.ndarray | None]:
    """The answer of the training sample with the most similar capsules, by cosine after centring.

    Args:
        objective: the samples that a model has learnt from.
        asked: capsules of the test inputs' images, float16 (n, 12, 512).

    Returns:
        int8 (rows, columns) each.
    """
    places = nearest(objective.capsules, objective.train, np.arange(len(asked)), asked)
    return grids_at_top_left(objective.labels[places].reshape(-1, *objective.shape), objective.outside)
