"""Files of ARC tasks -> items, and Kaggle's answers, which lie in a file beside their tasks."""

from __future__ import annotations

from pathlib import Path

from trm_nb.records import Item, Rejected
from trm_nb.sources import arc_json
from trm_nb.sources.byte_streams import RefusedError, open_file, read_up_to
from trm_nb.sources.files import SourceFile
from trm_nb.sources.roots import printable
from trm_nb.sources.text_decoding import NotTextError, decode

MAX_JSON_BYTES = 64 * 2**20  # parsed JSON takes ten times its size in memory
_CHALLENGES, _SOLUTIONS = "_challenges.json", "_solutions.json"


def arc_entries(file: SourceFile, text: str, source: str) -> list[Item | Rejected] | None:
    """The tasks of a JSON file, or [] for answers that belong to one beside it; None: JSON that is not ARC.

    Raises ArcError for malformed JSON, RefusedError for answers without their tasks.
    """
    value = arc_json.parse(text)
    if file.path.name.endswith(_SOLUTIONS) and (answers := arc_json.find_answers(value)):
        return _orphans(file, answers)
    tasks = arc_json.find_tasks(value)
    if tasks is None:
        return None
    answers = _answers_beside(file.path)
    entries: list[Item | Rejected] = []
    for task_id, raw in tasks.items():
        if not task_id.startswith(file.part):
            continue
        name = f"{file.name}#{printable(task_id)}" if task_id else file.name
        try:
            task = arc_json.to_task(raw, answers.get(task_id))
            entries.append(Item(name, "grid", task, source, file.label))
        except arc_json.ArcError as error:
            entries.append(Rejected(name, str(error)))
    return entries


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
    return (arc_json.find_answers(solutions) if solutions else None) or {}


def _json_beside(path: Path) -> dict[str, object] | None:
    """The JSON object in a neighbouring file, None where there is no readable one: its own reading says why."""
    try:
        with open_file(path) as stream:
            data = read_up_to(stream, MAX_JSON_BYTES + 1)
        value = arc_json.parse(decode(data)[0]) if len(data) <= MAX_JSON_BYTES else None
    except (RefusedError, NotTextError, arc_json.ArcError):
        return None
    return value if isinstance(value, dict) else None
