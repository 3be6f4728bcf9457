"""Objective `label`: which label does a sample have? One target cell, whose classes are the run's labels."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import numpy as np

from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.errors import NothingToLearnError
from trm_nb.training.objective import Confusion, Detail
from trm_nb.training.predictions import Predictions
from trm_nb.training.targets import CapsuleTargets


class Labels(CapsuleTargets):
    """The samples that have a label; raises NothingToLearnError where training has fewer than two of them."""

    target: ClassVar[str] = "a sample's label"
    correct: ClassVar[str] = "labels are predicted correctly"
    constant: ClassVar[str] = "always predicting the most common label"
    nearest_name: ClassVar[str] = "the nearest neighbour"
    about: ClassVar[str] = (
        "Three numbers matter: the accuracy of the model; that of the nearest neighbour, which learns nothing and "
        "looks up the most similar training sample (cosine, after subtracting the mean of the training samples); and "
        "that of always predicting the most common label. The nearest neighbour is usually the harder baseline: a "
        "model below it does worse than a plain look-up."
    )

    def __init__(self, dataset: CapsuleDataset, **sizes: Any) -> None:
        labelled = np.flatnonzero(dataset.labels >= 0)
        learnt = {int(dataset.labels[i]) for i in labelled if dataset.splits[i] == "train"}
        if len(learnt) < 2:
            raise NothingToLearnError(
                f"training needs at least two different labels among the training rows, but {dataset.output_dir} has "
                f"{len(learnt)} of the labels {list(dataset.classes)} there; put the files of each class into a folder "
                "of its own and build a new run"
            )
        super().__init__(dataset, labelled, list(dataset.labels[labelled, None, None]), **sizes)

    def counts(self) -> dict[str, tuple[int, int, int]]:
        """By label."""
        train, val, test = (Counter(self.labels[places, 0].tolist()) for places in (self.train, self.val, self.test))
        return {name: (train[i], val[i], test[i]) for i, name in enumerate(self.dataset.classes)}

    def class_names(self) -> tuple[str, ...]:
        """The labels' names."""
        return self.dataset.classes

    def readable(self, predictions: Predictions, classes: np.ndarray) -> list[str]:
        """The labels' names."""
        return [self.dataset.classes[number] for number in classes[:, 0].tolist()]

    def details(self, predictions: Predictions) -> tuple[Detail, ...]:
        """Where the model is wrong."""
        true, predicted = predictions.labels[:, 0], predictions.predictions[:, 0]
        confusion = np.zeros((len(self.dataset.classes),) * 2, np.int64)
        np.add.at(confusion, (true, predicted), 1)
        return (
            Confusion(
                "Where is the model wrong? Rows are the true labels, columns the predicted ones.",
                confusion,
                self.dataset.classes,
            ),
        )
