"""Is a folder a run's, with or without its tracker, and what is that run bound to?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trm_nb.errors import DamagedError, UserError
from trm_nb.storage.files import read_json
from trm_nb.storage.lock_holder import LOCK

BOUND_FILE = ".bound.json"
MODEL = Path("model", "trm.pt")  # the trained TRM; after it is removed, training starts from the beginning
_IMAGES = "images.zarr/images/receipts"
_CAPSULES = ("batches.zarr/capsules/receipts", "capsules.zarr/capsules/receipts")


def read_bound(folder: Path) -> dict[str, tuple[str, Any]]:
    """What `.bound.json` says a run is bound to: field -> (stage, value); nothing where it is missing or damaged."""
    path = folder / BOUND_FILE
    try:
        return {name: (stage, value) for name, (stage, value) in read_json(path)["bound"].items()}
    except (FileNotFoundError, DamagedError):
        return {}


def is_run(folder: Path) -> bool:
    """Whether a folder holds what a run makes, with or without its tracker."""
    return any((folder / name).is_dir() for name in (_IMAGES, *_CAPSULES))


def is_empty_run(folder: Path) -> bool:
    """Whether a folder was a run's and holds no dataset, as after `reset`: cached images at most."""
    made = any((folder / name).exists() for name in (*_CAPSULES, BOUND_FILE, "progress.sqlite"))
    return not made and ((folder / _IMAGES).is_dir() or (folder / LOCK).exists())


def has_capsules(folder: Path) -> bool:
    """Whether a folder holds receipts of encoded batches or of chunks."""
    return any(any((folder / receipts).glob("[0-9]*")) for receipts in _CAPSULES)


def refuse_foreign(folder: Path) -> None:
    """Raise UserError when the folder holds something and is no run: a run would overwrite what is not its own."""
    if not folder.is_dir() or (folder / "progress.sqlite").exists():
        return
    if is_run(folder):  # whose tracker was lost
        return
    theirs = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if theirs:
        raise UserError(
            f"{folder} is not empty ({theirs[0]}) and holds no run; name a new or empty folder as output_dir"
        )
