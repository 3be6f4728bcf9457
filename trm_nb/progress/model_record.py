"""What a model's folder says of its training: its settings (config.yaml), how it went (metrics.jsonl), its result.

The training fields of the config are fixed for each model, from its first checkpoint on: a training that continues with
others is refused. These files are the record; the tracker holds the steps of the model that was asked for last.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from trm_nb._version import __version__
from trm_nb.config import MODEL_NAME, MultimodalDatasetConfig, stage_of
from trm_nb.errors import UserError
from trm_nb.progress.run_folder import ModelPaths, RunPaths
from trm_nb.storage.files import write_file

DIGEST = "content_digest"
MAX_BYTES = 100_000  # of a config.yaml, which has some 500
MAX_RESULT_BYTES = 10_000_000  # of a result.json, which has some 250 a class
TABLES = ("baselines", "by_class", "by_modality", "target", "correct")  # what a result holds besides its summary
_ALSO = ("train_steps", "train_minutes", "test_steps")  # recorded, and free to differ from call to call


def settings_of(config: MultimodalDatasetConfig, content_digest: str) -> dict[str, Any]:
    """What `config` trains its model with, and on which dataset, as config.yaml holds it."""
    return {
        "model": config.model,
        DIGEST: content_digest,
        **config.training_fields(),
        **{name: getattr(config, name) for name in (*_ALSO, "device", "torch_threads")},
        "versions": {"trm-nb": __version__, "torch": version("torch")},
    }


def recorded_fields(paths: ModelPaths, fixed: bool = False) -> dict[str, Any]:
    """The config fields that a model was last trained with; none where its folder has no config.yaml.

    Args:
        paths: the model's folder.
        fixed: only those that a training which continues must agree with; none before the first checkpoint.
    """
    if fixed and not paths.is_begun():
        return {}
    known = [name for name in MultimodalDatasetConfig.model_fields if stage_of(name) == "train"]
    known += [] if fixed else _ALSO
    return {name: value for name, value in read_settings(paths).items() if name in known}


def fixed_fields(config: MultimodalDatasetConfig) -> dict[str, Any]:
    """What a training that continues must agree with: the training fields, and the steps where the rate cools down."""
    steps = {"train_steps": config.train_steps} if config.cool_down and config.train_steps else {}
    return {**config.training_fields(), **steps}


def refuse_other_settings(paths: ModelPaths, wanted: Mapping[str, Any]) -> None:
    """Raise UserError naming what a model was trained with otherwise than is `wanted`, by the names in config.yaml."""
    if not paths.is_begun():
        return
    held = read_settings(paths)
    different = [
        f"{name}={reprlib.repr(held[name])}, not {name}={value!r}"
        for name, value in wanted.items()
        if name in held and held[name] != value
    ]
    if different:
        raise UserError(
            f"{paths.root}: this model was trained with {'; '.join(different)}; "
            "choose another `model` name, or delete that folder to train it from the beginning"
        )


def steps_asked(paths: ModelPaths, config: MultimodalDatasetConfig) -> int:
    """How many steps a training is to have: 0 for none, and 1 where its minutes have not been counted as steps yet."""
    if config.train_minutes is None:
        return config.train_steps
    return int(read_settings(paths).get("train_steps") or 1) if paths.is_begun() else 1


def write_settings(paths: ModelPaths, settings: Mapping[str, Any]) -> None:
    """Write config.yaml, where it is not there with these settings."""
    data = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True).encode()
    if not paths.settings.is_file() or paths.settings.read_bytes() != data:
        write_file(paths.settings, data)


def read_settings(paths: ModelPaths) -> dict[str, Any]:
    """What a model's config.yaml holds, {} where there is none; raises UserError where it is damaged."""
    path = paths.settings
    if not path.is_file():
        return {}
    try:
        held = yaml.safe_load(path.read_bytes()) if path.stat().st_size <= MAX_BYTES else None
    except (yaml.YAMLError, ValueError, RecursionError):
        held = None
    if not isinstance(held, dict):
        raise UserError(f"{path}: expected the settings of a training, got something else; restore it, or delete it")
    return held


def read_metrics(path: Path, last: int) -> list[dict[str, Any]]:
    """The steps up to `last` that metrics.jsonl holds; where it is gone or damaged, the last one alone, if any."""
    try:
        logged = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        held = [step for step in logged if step["global_step"] <= last]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        held = []
    return held or ([{"global_step": last}] if last else [])


def write_metrics(path: Path, curve: Sequence[Mapping[str, Any]]) -> None:
    """Write metrics.jsonl: a line for each logged step, with its `global_step`."""
    write_file(path, "".join(json.dumps(step) + "\n" for step in curve).encode())


def last_step(path: Path) -> int:
    """The last step in metrics.jsonl, which is that of the checkpoint; 0 where it is gone or damaged."""
    try:
        return int(json.loads(path.read_text(encoding="utf-8").splitlines()[-1])["global_step"])
    except (OSError, ValueError, TypeError, KeyError, IndexError, RecursionError):
        return 0


def write_result(paths: ModelPaths, result: Mapping[str, Any]) -> None:
    """Write result.json: plain JSON values, the summary and TABLES."""
    write_file(paths.result, (json.dumps(result, indent=2, ensure_ascii=False) + "\n").encode())


def read_result(paths: ModelPaths) -> dict[str, Any]:
    """What result.json holds; {} where the training has not ended, or where it is damaged."""
    try:
        held = json.loads(paths.result.read_bytes()) if paths.result.stat().st_size <= MAX_RESULT_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}


def has_ended(paths: ModelPaths, done: int, asked: int) -> bool:
    """Whether a training of which `done` steps are done is finished with all of its results.

    It is if no more steps are `asked` for, or if it stopped early.
    """
    return paths.is_finished() and (done >= asked or read_result(paths).get("stopped_early") is True)


def summaries(paths: RunPaths) -> list[dict[str, Any]]:
    """The models of a run, by name: of each its name and state (done, begun), and the summary of its result, if any."""
    found = []
    for root in paths.model_folders():
        if MODEL_NAME.fullmatch(root.name):
            model = ModelPaths(root)
            done = model.is_finished()
            known = {"name": root.name, "state": "done" if done else "begun"}
            result = read_result(model) if done else {}
            summary = {name: value for name, value in result.items() if name not in (*TABLES, *known)}
            found.append({**known, **summary})
    return found
