"""What a model must agree with before it predicts: its run, its dataset, and what renders and denoises images here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trm_nb.config import MODEL_NAME, MultimodalDatasetConfig, stage_of
from trm_nb.errors import UserError
from trm_nb.pipeline.run import Run, open_run
from trm_nb.progress.model_record import DIGEST
from trm_nb.progress.run_folder import ModelPaths, RunPaths

if TYPE_CHECKING:
    from trm_nb.training.objective import Objective

log = logging.getLogger(__name__)


def finished_model(paths: RunPaths, name: str) -> ModelPaths:
    """The folder of a model; raises UserError where there is no finished one of this name."""
    there = [path.name for path in paths.model_folders()]
    if not MODEL_NAME.fullmatch(name) or name not in there:
        known = f"expected one of {', '.join(there)}, got" if there else "no model is there, and asked for is"
        raise UserError(f"{paths.models}: {known} {name!r}; `trm-nb list` shows a run's models")
    model = paths.model(name)
    if not model.weights.is_file():
        raise UserError(f"{model.root}: this training is not finished; `trm-nb train` continues it")
    return model


def run_of(paths: RunPaths, name: str, values: Mapping[str, Any], device: str | None) -> Run:
    """The run with the settings that the header of the model's weights holds."""
    fields = [field for field in MultimodalDatasetConfig.model_fields if stage_of(field) == "train"]
    trained = {field: values[field] for field in (*fields, "test_steps") if field in values}
    given = {**trained, "model": name, "output_dir": str(paths.root)}
    return open_run(overrides=given if device is None else {**given, "device": device})


def refuse_foreign(model: ModelPaths, values: Mapping[str, Any], objective: Objective) -> None:
    """Raise UserError where a model was trained on another dataset, or is of another size than its settings say."""
    held = values.get("architecture")
    wanted = {"dataset": objective.dataset.info["content_digest"], **asdict(objective.model)}
    got = {"dataset": values.get(DIGEST), **(held if isinstance(held, dict) else {})}
    del wanted["forward_dtype"]  # that of the device
    different = [f"{name}={got.get(name)!r}, not {want!r}" for name, want in wanted.items() if got.get(name) != want]
    if different:
        raise UserError(
            f"{model.weights}: this model has {'; '.join(different[:3])}, so it belongs to another dataset or version; "
            "use it with the run that it was trained in"
        )


def compare_renderers(here: Mapping[str, str], made: Mapping[str, str], folder: Path) -> None:
    """Compare what shapes images here with what shaped those of the run, by modality: renderer, space, denoiser.

    Raises UserError for another denoiser; another renderer (which includes the version of Pillow) is a warning, as its
    images differ little.
    """
    for modality in sorted(here.keys() & made.keys()):
        (renderer, _, denoiser), (renderer_then, _, denoiser_then) = (
            one[modality].partition(" ") for one in (here, made)
        )
        if denoiser != denoiser_then:
            raise UserError(
                f"{folder}: the images of the modality {modality} were denoised by {denoiser_then or 'nothing'}, and "
                f"here that is {denoiser or 'nothing'}; put back the file at denoiser_path"
            )
        if renderer != renderer_then:
            log.warning("%s: here %s is rendered by another version, so predictions may differ", folder, modality)
