"""check(config, ...): the mistakes in a config and its sources that can be found before anything is written.

It is imported before every command that takes a params file, so it imports nothing that reads arrays or computes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError, refuse_unknown
from trm_nb.models.encoders import ENCODERS, encoder_for
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import IN_MEMORY
from trm_nb.sources.reader import list_files
from trm_nb.sources.roots import reads_from
from trm_nb.storage.files import sha256_of
from trm_nb.training.objectives import OBJECTIVES

if TYPE_CHECKING:
    from trm_nb.cache.image_cache import ImageCache

DENOISED_IN = "denoiser_computed_in"  # the precision that "auto" stood for when the plan began
ADVICE = "; a run's plan is fixed: put the sources back, or use another output_dir, or `trm-nb reset` this one"


def check(config: MultimodalDatasetConfig, tracker: TrainingProgressTracker, cache: ImageCache) -> None:
    """Compare a config with what its run was made with, and with its sources; changes nothing.

    Args:
        config: of the run.
        tracker: the run's.
        cache: the run's, which knows the renderers and the denoiser.

    Raises:
        UserError: for other settings than those that are frozen, sources that changed, and an encoder that cannot be
            used.
    """
    tracker.check_frozen(plan_settings(config, cache) | encode_settings(config))
    if config.encoder_path or config.device != "cpu" or config.image_size != 224 or config.fit_encoder:
        encoder = encoder_for(config, tracker.paths.fitted_encoder)  # which may refuse them
        if config.fit_encoder and not encoder.weight_count:
            raise UserError(
                f"fit_encoder: the encoder {encoder.preset!r} is a fixed transform, which has no weights to train; "
                "leave fit_encoder out, or choose another encoder"
            )
    if config.source_paths != [IN_MEMORY]:
        source_changes(config, tracker)


def check_names(config: MultimodalDatasetConfig) -> None:
    """Raise UserError for a name that is not in its table, or a mixing that the objective has no cells for."""
    refuse_unknown("encoder", config.encoder, ENCODERS)
    refuse_unknown("objective", config.objective, OBJECTIVES)
    if config.mixing == "neighbours" and config.objective in ("label", "next"):
        raise UserError(
            f"mixing=neighbours: an answer of objective={config.objective} is one cell, which has no neighbours; "
            "use objective=grid, or mixing=all"
        )


def refuse_overlap(config: MultimodalDatasetConfig) -> None:
    """Raise UserError when the run's folder is a source or is inside one: it would read its own files."""
    output = Path(config.output_dir).resolve()
    for given in config.source_paths:
        if reads_from(given, output):
            raise UserError(f"output_dir {output} lies in the source path {given}; choose a folder outside the sources")


def plan_settings(config: MultimodalDatasetConfig, cache: ImageCache) -> dict[str, Any]:
    """What is frozen before the first row is recorded."""
    fields = config.stage_fields("plan") | config.stage_fields("denoise")
    denoised = {DENOISED_IN: cache.denoiser_precision} if cache.denoiser else {}
    return {**fields, "renderers": cache.fingerprints(), **denoised}


def encode_settings(config: MultimodalDatasetConfig) -> dict[str, Any]:
    """What is frozen before the first batch is encoded."""
    return config.stage_fields("encode") | config.stage_fields("consolidate")


def source_changes(config: MultimodalDatasetConfig, tracker: TrainingProgressTracker) -> None:
    """Compare the sources with a frozen plan; raises UserError that names what was added, changed or gone.

    Sizes and times are compared first; a file is hashed only when one of them differs. Listing is all it costs
    otherwise.
    """
    if not tracker.get("plan_frozen", False):
        return
    added: list[str] = []
    changed: list[str] = []
    seen = 0
    for file in list_files(config):
        known = tracker.file(file.name)
        if known is None:
            added += [] if config.limit else [file.name]  # beyond a limit, files are not in the plan
            continue
        seen += 1
        touched = known.sha256 and (known.size, known.mtime_ns) != (file.size, file.mtime_ns)
        if touched and sha256_of(file.path) != known.sha256:
            changed.append(file.name)
    gone = (
        [] if seen == tracker.file_count() else sorted(set(tracker.file_names()) - {f.name for f in list_files(config)})
    )
    if added or changed or gone:
        parts = [
            f"{_some(names)} {word}"
            for names, word in ((added, "added"), (changed, "changed"), (gone, "gone"))
            if names
        ]
        raise UserError(f"the sources changed since they were planned: {', '.join(parts)}{ADVICE}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
