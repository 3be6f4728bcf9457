"""submission.json as Kaggle's ARC Prize competitions take it, and what makes one invalid.

    {"task id": [{"attempt_1": [[0, 1], ...], "attempt_2": [[0, 1], ...]}, ...], ...}

Every task is there, with one entry for each of its test inputs in their order, and two attempts in each, also where
they are equal. A score is the share of test inputs of which one attempt is the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trm_nb.errors import UserError
from trm_nb.evaluation.arc.scoring import Candidate
from trm_nb.sources.arc.tasks import ArcError, check_grid

ATTEMPTS = ("attempt_1", "attempt_2")
NO_PREDICTION = [[0, 0], [0, 0]]  # what stands in Kaggle's sample_submission.json

Submission = dict[str, list[dict[str, list[list[int]]]]]


def submission_of(tasks: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> Submission:
    """The two best candidates of each test input.

    Args:
        tasks: the task of each test input; those of one task are in the order of its test inputs.
        candidates: of each test input, the best first. One alone stands for both attempts; of none, both are 2x2 zeros.
    """
    made: Submission = {}
    for task, found in zip(tasks, candidates, strict=True):
        grids = [one.grid.tolist() for one in found[: len(ATTEMPTS)]] or [NO_PREDICTION]
        attempts = dict(zip(ATTEMPTS, [*grids, *grids[:1]], strict=False))
        made.setdefault(task, []).append(attempts)
    return made


def check_submission(value: Any, test_inputs: Mapping[str, int]) -> None:
    """Raise UserError, naming the place, for what is no submission for these tasks.

    Args:
        value: what the file holds.
        test_inputs: how many test inputs each task has.
    """
    if not isinstance(value, dict):
        raise UserError(f"submission: expected an object of tasks, got {type(value).__name__}")
    for names, what in ((test_inputs.keys() - value.keys(), "lacks"), (value.keys() - test_inputs.keys(), "also has")):
        if names:
            raise UserError(f"submission: expected the tasks that were asked, but it {what} {min(names)!r}")
    for task, count in test_inputs.items():
        entries = value[task]
        if not isinstance(entries, list) or len(entries) != count:
            got = len(entries) if isinstance(entries, list) else type(entries).__name__
            raise UserError(f"submission, {task}: expected a list of {count} entries, one a test input, got {got}")
        for number, entry in enumerate(entries):
            _check_entry(entry, f"submission, {task}, test input {number}")


def _check_entry(entry: Any, place: str) -> None:
    if not isinstance(entry, dict) or set(entry) != set(ATTEMPTS):
        raise UserError(f"{place}: expected attempt_1 and attempt_2 and nothing else")
    for name in ATTEMPTS:
        try:
            check_grid(entry[name], f"{place}, {name}")
        except ArcError as error:
            raise UserError(str(error)) from None


def kaggle_score(submission: Submission, answers: Mapping[str, Sequence[np.ndarray]]) -> float:
    """The share of the answers, by task in the order of its test inputs, that one of the two attempts is."""
    right = [
        any(np.array_equal(np.array(entry[name]), answer) for name in ATTEMPTS)
        for task, known in answers.items()
        for entry, answer in zip(submission[task], known, strict=True)
    ]
    return float(np.mean(right))
