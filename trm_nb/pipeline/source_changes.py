"""Whether the sources are still those that a run's plan was made from."""

from __future__ import annotations

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.sources.reader import list_files
from trm_nb.storage.files import sha256_of

ADVICE = "; a run's plan is fixed: put the sources back, or use another output_dir, or `trm-nb reset` this one"


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
