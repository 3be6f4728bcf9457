"""What an evaluation on ARC tasks found: scores in both published means, with baselines, tables and sentences.

Intervals and verdicts are those of training/verdicts.py, with the task as the unit, since the test inputs of one task
resemble each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from trm_nb.evaluation.arc.baselines import ABOUT
from trm_nb.evaluation.arc.questions import Question, Questions
from trm_nb.evaluation.arc.scoring import NEVER, PASSES, Candidate, Scores, rank_of
from trm_nb.evaluation.arc.submission import Submission, submission_of
from trm_nb.training.verdicts import accuracy, paired

ATTEMPTS = 2  # that Kaggle allows
SIZES = ((10, "1 to 10"), (20, "11 to 20"), (30, "21 to 30"))  # cells of the answer's longer side

Table = list[list[str]]  # rows of cells, the heading first


@dataclass(frozen=True, eq=False)
class ArcResult:
    """The candidates for each test input of a set of tasks, by the model and by the baselines.

    `model`, `steps`: its name and recursion steps. `questions`: what was asked. `views`: that were wanted of each;
    `asked` counts those that were predicted. `adapted`: the optimiser steps on each task's demonstrations before it was
    asked; `not_adapted` counts the tasks that had nothing to learn from. `candidates`: of each test input, the best
    first. `baselines`: name -> one grid int8 for each test input. `learnt`: the tasks of which the model has learnt
    from a view.
    """

    model: str
    steps: int
    questions: Questions
    views: int
    asked: int
    adapted: int
    not_adapted: int
    candidates: tuple[list[Candidate], ...]
    baselines: dict[str, tuple[np.ndarray | None, ...]]
    learnt: frozenset[str]

    @property
    def submission(self) -> Submission:
        """The two best candidates of each test input in Kaggle's form."""
        return submission_of([question.task for question in self.questions.each], self.candidates)

    @cached_property
    def known(self) -> tuple[Question, ...]:
        """The test inputs whose answers are known; the others are not scored."""
        return tuple(question for question in self.questions.each if question.answer is not None)

    @cached_property
    def scores(self) -> Scores:
        """The model's, over `known`."""
        return self._scores(self.candidates)

    @cached_property
    def baseline_scores(self) -> dict[str, Scores]:
        """Each baseline's, over `known`."""
        return {
            name: self._scores([[] if grid is None else [Candidate(grid, 1, 1.0)] for grid in grids])
            for name, grids in self.baselines.items()
        }

    def _scores(self, candidates: Sequence[Sequence[Candidate]]) -> Scores:
        ranks = [
            rank_of(question.answer, found)
            for question, found in zip(self.questions.each, candidates, strict=True)
            if question.answer is not None
        ]
        return Scores(np.array(ranks, np.int64), np.array([question.task for question in self.known], str))

    # -- for people -------------------------------------------------------------------------------------------------

    def about(self) -> list[str]:
        """What was asked, of which data, in how many views: sentences without Markdown."""
        questions = self.questions
        tasks, inputs = questions.test_inputs, len(questions.each)
        found = [
            f"{questions.data}: {len(tasks):,} tasks with {inputs:,} test inputs ({questions.revision}, content "
            f"{questions.digest})",
            f"model {self.model}, {self.steps} recursion steps, up to {self.views:,} views of a test input, "
            f"{self.asked:,} in all; ranked by votes, then by mean q",
        ]
        if self.adapted:
            found.append(f"each task after {self.adapted:,} steps of a model of its own on the task's demonstrations")
        silent = sum(not candidates for candidates in self.candidates)
        for what, count in (
            (
                "test inputs without a prediction, as their tasks do not fit on one image or no grid was predicted",
                silent,
            ),
            ("tasks without a demonstration to learn from", self.not_adapted),
            ("tasks that could not be read", questions.refused),
            ("test inputs without a known answer, which are not scored", inputs - len(self.known)),
            ("tasks that the model has learnt from, so that their scores are too high", len(self.learnt)),
        ):
            found += [f"{what}: {count:,}"] if count else []
        return found

    def passes(self) -> Table:
        """pass@k by both means."""
        return [
            ["mean", *(f"pass@{k}" for k in PASSES)],
            ["per test input, as Kaggle scores", *(_percent(self.scores.per_input(k)) for k in PASSES)],
            ["per task, as TRM and VARC report", *(_percent(self.scores.per_task(k)) for k in PASSES)],
        ]

    def compared(self) -> Table:
        """The baselines by both means; each has one prediction, so all its pass@k are the same."""
        rows = [["baseline", "per test input", "per task", "predicts"]]
        for name, scores in self.baseline_scores.items():
            rows.append([name, _percent(scores.per_input(1)), _percent(scores.per_task(1)), ABOUT[name]])
        return rows

    def by_group(self) -> Table:
        """A row for each set of tasks: training or evaluation, ARC-AGI-1 or 2."""
        return self._table("set", lambda question: question.group)

    def by_size(self) -> Table:
        """A row for each class of sizes of the answer."""

        def size_of(question: Question) -> str:
            assert question.answer is not None
            return next(name for most, name in SIZES if max(question.answer.shape) <= most)

        return self._table("longer side of the answer", size_of, [name for _, name in SIZES])

    def _table(self, name: str, group_of: Callable[[Question], str], order: Sequence[str] = ()) -> Table:
        groups = np.array([group_of(question) for question in self.known], str)
        shown = [group for group in order or dict.fromkeys(groups.tolist()) if (groups == group).any()]
        rows = [[name, "test inputs", *(f"pass@{k}" for k in PASSES), "pass@2 per task", *self.baseline_scores]]
        for group in shown:
            chosen = groups == group
            scores = self.scores.part(chosen)
            others = [other.part(chosen).per_input(1) for other in self.baseline_scores.values()]
            shares = [*(scores.per_input(k) for k in PASSES), scores.per_task(ATTEMPTS), *others]
            rows.append([group, f"{chosen.sum():,}", *map(_percent, shares)])
        return rows

    def sentences(self) -> list[str]:
        """The score with its interval, and the verdict on each baseline."""
        if not self.known:
            return ["No answer is known, so nothing is scored."]
        scores = self.scores
        measured = accuracy(scores.solved(ATTEMPTS), _numbered(scores.tasks))
        found = [measured.sentence("test inputs are solved by one of two attempts")]
        found += [
            paired(scores.solved(1), other.solved(1), _numbered(scores.tasks)).sentence(
                ABOUT[name], "the first attempt"
            )
            for name, other in self.baseline_scores.items()
        ]
        return [*(sentence.replace("**", "") for sentence in found), "An item is a task with all its test inputs."]

    # -- for programs -----------------------------------------------------------------------------------------------

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values: what was asked, both means for each k, and each test input's candidates."""
        return {
            "model": self.model,
            "recursion_steps": self.steps,
            "data": self.questions.data,
            "revision": self.questions.revision,
            "content": self.questions.digest,
            "views": self.views,
            "views_predicted": self.asked,
            "steps_on_demonstrations": self.adapted,
            "without_demonstrations": self.not_adapted,
            "tasks": len(self.questions.test_inputs),
            "test_inputs": len(self.questions.each),
            "learnt_from": sorted(self.learnt),
            "scores": _means(self.scores) if self.known else None,
            "baselines": {name: _means(scores) for name, scores in self.baseline_scores.items()} if self.known else {},
            "answers": self._answers(),
        }

    def _answers(self) -> list[dict[str, Any]]:
        """Of each test input, the rank of the answer from 1, and the votes and the q of the best candidates."""
        ranks = iter(self.scores.ranks.tolist())
        found = []
        for question, candidates in zip(self.questions.each, self.candidates, strict=True):
            rank = next(ranks) if question.answer is not None else NEVER
            found.append({
                "task": question.task,
                "test_input": question.number,
                "set": question.group,
                "known": question.answer is not None,
                "rank": None if rank == NEVER else rank + 1,
                "candidates": len(candidates),
                "best": [{"votes": one.votes, "q": one.q} for one in candidates[:ATTEMPTS]],
            })  # fmt: skip
        return found


def _means(scores: Scores) -> dict[str, dict[str, float]]:
    return {
        "per_test_input": {f"pass@{k}": scores.per_input(k) for k in PASSES},
        "per_task": {f"pass@{k}": scores.per_task(k) for k in PASSES},
    }


def _numbered(tasks: np.ndarray) -> np.ndarray:
    numbers: np.ndarray = np.unique(tasks, return_inverse=True)[1]
    return numbers


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
