"""Files of ARC tasks -> items, and Kaggle's answers, which lie in a file beside their tasks."""

from __future__ import annotations

from pathlib import Path

from trm_nb.records import Item, Rejected
from trm_nb.sources.arc import layouts as arc_layouts
from trm_nb.sources.arc import tasks as arc_tasks
from trm_nb.sources.arc.items import arc_items
from trm_nb.sources.byte_streams import RefusedError, open_file, read_up_to
from trm_nb.sources.files import SourceFile
from trm_nb.sources.roots import printable
from trm_nb.sources.text.decoding import NotTextError, decode

MAX_JSON_BYTES = 64 * 2**20  # parsed JSON takes ten times its size in memory
_CHALLENGES, _SOLUTIONS = "_challenges.json", "_solutions.json"


def arc_entries(file: SourceFile, text: str, source: str) -> list[Item | Rejected] | None:
    """The tasks of a JSON file, or [] for answers that belong to one beside it; None: JSON that is not ARC.

    Raises ArcError for malformed JSON and for grids in an unknown layout, RefusedError for answers without their tasks.
    """
    value = arc_tasks.parse(text)
    if file.path.name.endswith(_SOLUTIONS) and (answers := arc_tasks.find_answers(value)):
        return _orphans(file, answers)
    leaves = arc_layouts.find(value)
    if leaves is None:
        return None
    wanted = (leaf for leaf in leaves if leaf.name.startswith(file.part))
    return list(arc_items(wanted, file.name, source, file.label, _answers_beside(file.path)))


def _orphans(file: SourceFile, answers: dict[str, object]) -> list[Item | Rejected]:
    challenges = file.path.with_name(file.path.name.removesuffix(_SOLUTIONS) + _CHALLENGES)
    tasks = _json_beside(challenges)
    if tasks is None:
        raise RefusedError(f"answers without their tasks: no readable {printable(challenges.name)} beside it")
    return [
        Rejected(f"{file.name}#{printable(task_id)}", f"an answer to no task of {printable(challenges.name)}")
        for task_id in answers
        if task_id not in tasks
    ]


def _answers_beside(path: Path) -> dict[str, object]:
    if not path.name.endswith(_CHALLENGES):
        return {}
    solutions = _json_beside(path.with_name(path.name.removesuffix(_CHALLENGES) + _SOLUTIONS))
    return (arc_tasks.find_answers(solutions) if solutions else None) or {}


def _json_beside(path: Path) -> dict[str, object] | None:
    """The JSON object in a neighbouring file, None where there is no readable one: its own reading says why."""
    try:
        with open_file(path) as stream:
            data = read_up_to(stream, MAX_JSON_BYTES + 1)
        value = arc_tasks.parse(decode(data)[0]) if len(data) <= MAX_JSON_BYTES else None
    except (RefusedError, NotTextError, arc_tasks.ArcError):
        return None
    return value if isinstance(value, dict) else None
