"""A run's folder: the names of what lies in it, whether it is a run's, and its frozen settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trm_nb.errors import DamagedError, UserError
from trm_nb.storage.files import read_json
from trm_nb.storage.lock_holder import LOCK


@dataclass(frozen=True, slots=True)
class RunPaths:
    """Where everything of a run lies; no other module knows a name in a run's folder."""

    root: Path

    @property
    def tracker(self) -> Path:
        """The tracker's database."""
        return self.root / "progress.sqlite"

    @property
    def frozen_copy(self) -> Path:
        """A copy of the settings that are frozen."""
        return self.root / ".frozen.json"

    @property
    def images(self) -> Path:
        """The image cache."""
        return self.root / "images.zarr"

    @property
    def batches(self) -> Path:
        """The Zarr array of encoded batches that are in no chunk yet."""
        return self.root / "batches.zarr" / "capsules"

    @property
    def capsules(self) -> Path:
        """The Zarr array of the consolidated capsules."""
        return self.root / "capsules.zarr" / "capsules"

    @property
    def labels(self) -> Path:
        """The Zarr array of the labels' numbers."""
        return self.root / "capsules.zarr" / "labels"

    @property
    def samples(self) -> Path:
        """The table of the samples."""
        return self.root / "samples.parquet"

    @property
    def quarantine(self) -> Path:
        """What could not be used, with the reasons."""
        return self.root / "quarantine.jsonl"

    @property
    def info(self) -> Path:
        """What the dataset is and what it was made with; written last."""
        return self.root / "dataset_info.json"

    @property
    def card(self) -> Path:
        """The dataset card."""
        return self.root / "README.md"

    @property
    def model(self) -> Path:
        """The folder of the trained TRM."""
        return self.root / "model"

    @property
    def weights(self) -> Path:
        """The trained TRM; after it is removed, training starts from the beginning."""
        return self.model / "trm.pt"

    @property
    def fitted_encoder(self) -> Path:
        """The encoder that was fitted to this run."""
        return self.model / "encoder" / "encoder.pt"

    @property
    def notebooks(self) -> Path:
        """The executed notebooks."""
        return self.root / "notebooks"

    @property
    def report(self) -> Path:
        """The notebooks as web pages."""
        return self.root / "report"

    @property
    def tables(self) -> tuple[Path, ...]:
        """The files that are written once the dataset is complete, the last one last."""
        return (self.samples, self.quarantine, self.card, self.info)

    def made(self) -> list[Path]:
        """What a run makes in its folder, the image cache excepted, whether it is there or not."""
        return [
            self.batches.parent, self.capsules.parent, *self.tables, self.frozen_copy, self.model, self.notebooks,
            self.report, *self.root.glob(f"{self.tracker.stem}.*"),
        ]  # fmt: skip


def read_frozen(folder: Path) -> dict[str, tuple[str, Any]]:
    """What `.frozen.json` says of the frozen settings: field -> (stage, value); {} where it is damaged."""
    try:
        return {
            name: (stage, value) for name, (stage, value) in read_json(RunPaths(folder).frozen_copy)["frozen"].items()
        }
    except (FileNotFoundError, DamagedError):
        return {}


def is_run(folder: Path) -> bool:
    """Whether a folder holds what a run makes, with or without its tracker."""
    return any(receipts.is_dir() for receipts in (_image_receipts(folder), *_capsule_receipts(folder)))


def is_empty_run(folder: Path) -> bool:
    """Whether a folder was a run's and holds no dataset, as after `reset`: cached images at most."""
    paths = RunPaths(folder)
    made = any(path.exists() for path in (*_capsule_receipts(folder), paths.frozen_copy, paths.tracker))
    return not made and (_image_receipts(folder).is_dir() or (folder / LOCK).exists())


def has_capsules(folder: Path) -> bool:
    """Whether a folder holds receipts of encoded batches or of chunks."""
    return any(any(receipts.glob("[0-9]*")) for receipts in _capsule_receipts(folder))


def refuse_foreign(folder: Path) -> None:
    """Raise UserError when the folder holds something and is no run: a run would overwrite what is not its own."""
    if not folder.is_dir() or RunPaths(folder).tracker.exists():
        return
    if is_run(folder):  # whose tracker was lost
        return
    theirs = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if theirs:
        raise UserError(
            f"{folder} is not empty ({theirs[0]}) and holds no run; name a new or empty folder as output_dir"
        )


def _image_receipts(folder: Path) -> Path:
    return RunPaths(folder).images / "images" / "receipts"


def _capsule_receipts(folder: Path) -> tuple[Path, Path]:
    paths = RunPaths(folder)
    return paths.batches / "receipts", paths.capsules / "receipts"
