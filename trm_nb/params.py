"""Params files: a config as YAML, found from anywhere in a project, with overrides from a command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from trm_nb.config import MultimodalDatasetConfig, unknown_field
from trm_nb.errors import UserError
from trm_nb.records import ADDRESS, NAMED_SOURCES


def project_root(start: Path) -> Path | None:
    """The nearest folder upwards that holds notebooks/ and params/; None where there is none."""
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / "notebooks").is_dir() and (folder / "params").is_dir():
            return folder
    return None


def find_params(params: str | Path) -> Path:
    """The params file as given, or relative to the project's root of the current folder; raises UserError."""
    given = Path(params).expanduser()
    root = project_root(Path.cwd())
    tried = [given] if given.is_absolute() or root is None else [given, root / given]
    for path in tried:
        if path.is_file():
            return path.resolve()
    raise UserError(f"params file not found: {params} (looked at {', '.join(str(p) for p in tried)})")


def read_yaml(path: Path) -> dict[str, Any]:
    """A params file as a plain dict; raises UserError for what is not a YAML mapping."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: a params file is UTF-8 text, but byte {error.start} is not") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{path}: not valid YAML{at}: {getattr(error, 'problem', error)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected `name: value` lines, got {type(values).__name__}")
    for name in values:
        if not isinstance(name, str):
            raise UserError(f"{path}: expected a field's name before each colon, got {name!r}")
    return values


def load_params(params: str | Path, overrides: Mapping[str, Any] | None = None) -> MultimodalDatasetConfig:
    """Read a params file; `overrides` win, also with None. Raises UserError.

    Relative paths are resolved against the project's root: the nearest folder above the params file (else above the
    current folder) that holds notebooks/ and params/, else the current folder.
    """
    path = find_params(params)
    values, given = read_yaml(path), dict(overrides or {})
    config = MultimodalDatasetConfig.parse({**values, **given}, where=str(path), overrides=given)
    return resolve_paths(config, project_root(path.parent) or project_root(Path.cwd()) or Path.cwd())


def resolve_paths(config: MultimodalDatasetConfig, root: Path) -> MultimodalDatasetConfig:
    """The config with its relative paths made absolute under `root`."""

    def under(path: str) -> str:
        return str(root / os.path.expanduser(path))  # noqa: PTH111 - pathlib's raises for an unknown user

    return config.with_changes(
        source_paths=[p if p.startswith(NAMED_SOURCES) or ADDRESS.match(p) else under(p) for p in config.source_paths],
        output_dir=under(config.output_dir),
        denoiser_path=config.denoiser_path and under(config.denoiser_path),
        encoder_path=config.encoder_path and under(config.encoder_path),
    )


def parse_override(text: str) -> tuple[str, Any]:
    """`key=value` as typed on a command line; the value is read as YAML (`7`, `true`, `[a, b]`, `null`, text)."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"-p expects key=value, got {text!r}")
    if name not in MultimodalDatasetConfig.model_fields:
        raise UserError(f"-p {text}: {unknown_field(name)}")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"-p {text}: the value is not valid YAML; quote it") from None
