"""The parts of the reference that are made from the code: every config field by stage, and every command.

`conf.py` puts them into the pages that hold their placeholders, so that no page can disagree with the code.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from trm_nb.config import MultimodalDatasetConfig, stage_of

STAGES = {
    "plan": "What is read, how it is rendered, and which samples are for training, validation and test.",
    "denoise": "What is denoised before the images are cached.",
    "encode": "How images become capsules.",
    "consolidate": "How batches become chunks.",
    "train": "What a model learns, and how. These fields are fixed for each model, from its first checkpoint on.",
    "free": "What cannot change a byte of a dataset. These fields may differ from call to call.",
}
LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "multiple_of": "a multiple of"}


def config_fields() -> str:
    """A Markdown section for each stage, with a table row for each of its fields."""
    sections = []
    for stage, about in STAGES.items():
        rows = [
            _row(name, field) for name, field in MultimodalDatasetConfig.model_fields.items() if stage_of(name) == stage
        ]
        table = "| field | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows)
        sections.append(f"## Stage `{stage}`\n\n{about}\n\n{table}\n")
    return "\n".join(sections)


def _row(name: str, field: FieldInfo) -> str:
    default = "required" if field.default is PydanticUndefined or field.is_required() else f"`{_yaml(field.default)}`"
    limits = [f"{LIMITS[key]} {value:,}" for key, value in _limits(field)]
    meaning = "; ".join([str(field.description), *limits]).replace("|", "\\|")
    return f"| `{name}` | {_type(field.annotation)} | {default} | {meaning} |"


def _yaml(value: Any) -> str:
    """A default as it stands in a params file."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _limits(field: FieldInfo) -> Iterator[tuple[str, Any]]:
    for part in field.metadata:
        for key in LIMITS:
            if getattr(part, key, None) is not None:
                yield key, getattr(part, key)


def _type(annotation: Any) -> str:
    """An annotation in words: `true or false`, a list of choices, or Python's own name."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(part) for part in get_args(annotation))
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    if origin is list:
        return f"list of {_type(get_args(annotation)[0])}"
    names = {bool: "`true`, `false`", type(None): "`null`"}
    return names.get(annotation, f"`{annotation.__name__}`")


def commands() -> str:
    """A Markdown section for each command of `trm-nb`, with its own help."""
    from trm_nb.cli.main import app

    helps = _helps(typer.main.get_command(app), "trm-nb")
    return "\n".join(f"## `{name}`\n\n```text\n{text}\n```\n" for name, text in helps)


def _helps(command: Any, name: str, parent: Any = None) -> Iterator[tuple[str, str]]:
    """The name and the help of a command and of those below it."""
    context = command.context_class(command, info_name=name, parent=parent, terminal_width=110, max_content_width=110)
    yield context.command_path, command.get_help(context).strip()
    for child in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from _helps(command.get_command(context, child), child, context)
