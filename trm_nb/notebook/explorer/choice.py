"""What the start page chooses: a params file, what is to be other than it says, and how text fields are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trm_nb.errors import UserError
from trm_nb.params import find_params, load_params, project_root, read_yaml
from trm_nb.pipeline.check import check_names

if TYPE_CHECKING:
    from trm_nb.config import MultimodalDatasetConfig


@dataclass(frozen=True, slots=True)
class Choice:
    """What to run: a params file, and what is to be other than it says (None: nothing).

    `command` is "run" or "build".
    """

    params: str
    source_paths: tuple[str, ...] | None = None
    output_dir: str | None = None
    limit: int | None = None
    train_steps: int | None = None
    command: str = "run"

    def overrides(self) -> dict[str, Any]:
        """The fields whose values are others than those of the params file."""
        fields = ("output_dir", "limit", "train_steps")
        given = {name: getattr(self, name) for name in fields if getattr(self, name) is not None}
        return given if self.source_paths is None else {"source_paths": list(self.source_paths), **given}

    def sources(self) -> list[str]:
        """The source paths as they were given, relative ones too."""
        return listed(self.source_paths or read_yaml(find_params(self.params)).get("source_paths"))

    def config(self) -> MultimodalDatasetConfig:
        """The config that this amounts to; raises UserError."""
        config = load_params(self.params, self.overrides())
        check_names(config)
        return config


def params_files(chosen: str) -> list[str]:
    """The params files of the project, and the chosen one."""
    root = project_root(Path.cwd()) or project_root(find_params(chosen).parent)
    found = [] if root is None else [f"params/{path.name}" for path in sorted((root / "params").glob("*.yaml"))]
    return found if chosen in found else [chosen, *found]


def first_comment(params: str) -> str:
    """What a params file says about itself in its first line."""
    first = find_params(params).read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""


def listed(value: Any) -> list[str]:
    """The source paths of a params file, which may be one."""
    return [value] if isinstance(value, str) else [str(one) for one in value or ()]


def lines(text: str) -> list[str]:
    """The lines of a text field that hold something."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def number(name: str, text: str) -> int | None:
    """What a text field named `name` holds, None for nothing; raises UserError."""
    if not text.strip():
        return None
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{name}: expected a whole number, or nothing, got {text!r}") from None
