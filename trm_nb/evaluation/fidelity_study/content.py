"""What the fidelity study shows: images whose content is known exactly, in two halves that share no item.

Natural text in five scripts, uniformly random characters, grids and whole tasks of ARC-AGI-2's evaluation set, random
grids, Sudokus and photographs. A document, a task or a photograph is on one side only: its decoder never saw it. All of
it is also held out from the pre-training of the shipped encoder.
Choice: what a cell can be is a set of templates (the glyphs of the study's pages, ten colours, the digits of a Sudoku),
so one way of reading serves all scripts: the template nearest to the pixels.
Cost: some 2 ms an image, 70 ms for a 9x9 Sudoku; an image is 150 KB of memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from trm_nb.errors import UserError
from trm_nb.evaluation.fidelity_study.sources import (
    SCRIPTS,
    SIDE,
    TEXT_CELLS,
    Texts,
    crop,
    evaluation_tasks,
    half,
    natural_page,
    opened,
)
from trm_nb.records import GridTask, Puzzle
from trm_nb.render.colours import pack
from trm_nb.render.grid import PALETTE, GridRenderer, grid_frames
from trm_nb.render.puzzle import PuzzleRenderer
from trm_nb.render.text import TextPage, TextRenderer
from trm_nb.render.typesetting.glyphs import BOX
from trm_nb.render.typesetting.reading import Reader
from trm_nb.sources.puzzles.sudoku import sudokus

CELL_HEIGHT, CELL_WIDTH = 14, 7
RANDOM_CHARACTERS = (32, 128, 512)  # on a page
PHOTOGRAPHS = "photographs"
LEAST_CHARACTERS = 64  # of a page of natural text


@dataclass(frozen=True, eq=False)
class Shown:
    """One image and what can be read on it.

    Attributes:
        kind: A row of the study's table; item: the document, task, board or photograph it comes from.
        image: uint8 (224, 224, 3).
        glyphs: int32 (512,), the glyph of each text cell in reading order; empty for an image without text.
        characters: int16 (n, 2), the first and the last cell of each character that is not blank.
        cells: int16 (n, 5), of each cell of grids and Sudokus the top, left, height and width in pixels, and the value.
        digits: The side of the Sudoku; 0 where the values are colours.
        size: The longer side of the grid (of a task: the side of its largest grid), or the number of characters.
        nbytes: What is shown as bytes: UTF-8 for text, log2(10) / 8 for a cell of a grid; 0 for a photograph.
    """

    kind: str
    item: str
    image: np.ndarray
    glyphs: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    characters: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int16))
    cells: np.ndarray = field(default_factory=lambda: np.zeros((0, 5), np.int16))
    digits: int = 0
    size: int = 0
    nbytes: float = 0.0


@dataclass(frozen=True, eq=False)
class StudyContent:
    """The images a decoder learns from and those it is measured on.

    `glyphs` uint8 (g, 14, 7) are all that stand on either; the first `known` of them are on the training images.
    """

    train: tuple[Shown, ...]
    test: tuple[Shown, ...]
    glyphs: np.ndarray
    known: int


class Glyphs:
    """Numbers the different cells of text pages by their pixels: two characters that look alike are one glyph."""

    def __init__(self) -> None:
        self.renderer = TextRenderer()
        self._reader = Reader(self.renderer.atlas)
        self._numbers: dict[bytes, int] = {}
        self._of_cell: dict[int, int] = {}
        self.blank = self._number(self.renderer.atlas.pixels(self.renderer.atlas.blank))

    def table(self) -> np.ndarray:
        """uint8 (g, 14, 7) in the order of the numbers."""
        flat = np.frombuffer(b"".join(self._numbers), np.uint8)
        return flat.reshape(-1, CELL_HEIGHT, CELL_WIDTH).copy()

    def shown(self, kind: str, item: str, page: TextPage) -> Shown:
        """A page of text with its glyphs and characters."""
        cells, atlas = page.cells.ravel(), self.renderer.atlas
        values, places = np.unique(cells, return_inverse=True)
        glyphs = np.array([self._cell(int(value)) for value in values], np.int32)[places]
        columns = page.cells.shape[1]
        for row, column in {(row, column) for row, column, _ in page.overlays.tolist()}:
            over = page.overlays[(page.overlays[:, :2] == (row, column)).all(axis=1), 2]
            layers = [atlas.pixels(int(cell)) for cell in (page.cells[row, column], *over)]
            glyphs[row * columns + column] = self._number(np.min(layers, axis=0))
        characters = self._characters(cells, glyphs)
        image = self.renderer.rasterise([page])[0]
        nbytes = len(self.renderer.decode(image).encode("utf-8", "surrogatepass"))
        return Shown(kind, item, image, glyphs, characters, size=len(characters), nbytes=float(nbytes))

    def _characters(self, cells: np.ndarray, glyphs: np.ndarray) -> np.ndarray:
        atlas = self.renderer.atlas
        wide, boxed = np.zeros(len(cells), bool), cells >= BOX
        wide[~boxed] = self._reader.is_wide_cell(cells[~boxed])
        wide[boxed] = (cells[boxed] - BOX) % 2 == 0
        second = np.concatenate([[False], wide[:-1]])
        first = np.flatnonzero(~second & (wide | (glyphs != self.blank)) & (cells != atlas.filler))
        return np.stack([first, first + wide[first]], axis=1).astype(np.int16)

    def _cell(self, cell: int) -> int:
        if cell not in self._of_cell:
            self._of_cell[cell] = self._number(self.renderer.atlas.pixels(cell))
        return self._of_cell[cell]

    def _number(self, pixels: np.ndarray) -> int:
        return self._numbers.setdefault(np.ascontiguousarray(pixels, np.uint8).tobytes(), len(self._numbers))


def study_content(texts: Texts, photographs: Sequence[Path], *, train: int, test: int, seed: int = 0) -> StudyContent:
    """`train` and `test` images of each kind; they follow from the arguments alone.

    Raises UserError where a script has fewer than two documents, or there are fewer than two photographs.
    """
    glyphs, parts = Glyphs(), []
    for side, count in (("train", train), ("test", test)):
        rng = np.random.default_rng([seed, side == "test"])
        shown = [*_texts(texts, glyphs, side, count, rng), *_random_pages(glyphs, side, count, rng)]
        shown += [*_grids(side, count, rng), *_sudokus(side, count, seed), *_photographs(photographs, side, count, rng)]
        parts.append((tuple(shown), len(glyphs.table())))
    return StudyContent(parts[0][0], parts[1][0], glyphs.table(), parts[0][1])


def _texts(texts: Texts, glyphs: Glyphs, side: str, count: int, rng: np.random.Generator) -> Iterator[Shown]:
    for script, kinds in SCRIPTS.items():
        documents = {f"{kind}/{name}": text for kind in kinds for name, text in texts.get(kind, ())}
        names = half(list(documents), side)
        if not names:
            raise UserError(
                f"texts: expected two or more held-out documents of {', '.join(kinds)}, got {len(documents)}"
            )
        made = 0
        for attempt in range(20 * count):
            name = names[attempt % len(names)]
            shown = glyphs.shown(f"text, {script}", name, natural_page(glyphs.renderer, documents[name], rng))
            if made < count and shown.size >= LEAST_CHARACTERS:
                made += 1
                yield shown


def _random_pages(glyphs: Glyphs, side: str, count: int, rng: np.random.Generator) -> Iterator[Shown]:
    """Visible ASCII characters, each as likely as any other, in random cells of the page."""
    for characters in RANDOM_CHARACTERS:
        for number in range(count):
            page = np.full(TEXT_CELLS, " ")
            page[rng.permutation(TEXT_CELLS)[:characters]] = [chr(code) for code in rng.integers(33, 127, characters)]
            text = "\n".join("".join(row) for row in page.reshape(-1, SIDE // CELL_WIDTH))
            shown = glyphs.shown(f"random text, {characters}", f"{side}/{number}", glyphs.renderer.pages(text)[0])
            yield shown


def _grids(side: str, count: int, rng: np.random.Generator) -> Iterator[Shown]:
    """Grids of ARC tasks and whole tasks, one of each task in turn, and random grids."""
    renderer, tasks = GridRenderer(), evaluation_tasks(side)
    names = list(tasks)
    for number in range(count):
        name, colour = names[number % len(names)], _recolouring(side, rng)
        grids = [grid for part in tasks[name] for pair in part for grid in pair]
        grid = colour[grids[int(rng.integers(len(grids)))]]
        yield grid_image("ARC grids", name, renderer.render(grid), max(grid.shape))
    for number in range(count):
        name, colour = names[number % len(names)], _recolouring(side, rng)
        train, test = tasks[name]
        task = GridTask(tuple((colour[a], colour[b]) for a, b in train), tuple(colour[a] for a, _ in test))
        pages = renderer.task_pages(task)
        largest = max(max(grid.shape) for pair in train for grid in pair)
        yield grid_image("ARC tasks", name, renderer.rasterise(pages[int(rng.integers(len(pages)))]), largest)
    for number in range(count):
        sides = rng.integers(1, 31, 2)
        image = renderer.render(rng.integers(0, 10, tuple(sides)))
        yield grid_image("random grids", f"{side}/{number}", image, int(sides.max()))


def _recolouring(side: str, rng: np.random.Generator) -> np.ndarray:
    """Which colour each colour becomes: while training any, so that few tasks give more."""
    return rng.permutation(10) if side == "train" else np.arange(10)


def grid_image(kind: str, item: str, image: np.ndarray, size: int) -> Shown:
    cells = []
    packed, palette = pack(image), pack(PALETTE)
    for frame in grid_frames(image):
        top, left = (part.ravel() for part in np.meshgrid(frame.rows, frame.columns, indexing="ij"))
        inside = np.full(len(top), frame.pitch - 1)
        value = (packed[top, left, None] == palette).argmax(axis=-1)
        cells.append(np.stack([top, left, inside, inside, value], axis=1))
    found = np.concatenate(cells).astype(np.int16)
    return Shown(kind, item, image, cells=found, size=size, nbytes=len(found) * np.log2(10) / 8)


def _sudokus(side: str, count: int, seed: int) -> Iterator[Shown]:
    """Boards of 4x4, 6x6 and 9x9 in turn; of the boards of one seed, which all differ, every other one is of a side."""
    renderer = PuzzleRenderer()
    makers = {n: islice(sudokus(n, seed), side == "test", None, 2) for n in (4, 6, 9)}
    for number in range(count):
        size = (4, 6, 9)[number % 3]
        puzzle = next(makers[size]).puzzle
        page = renderer.page(Puzzle("sudoku", puzzle, None))
        row, column = (part.ravel() for part in np.indices(puzzle.shape))
        inside = np.full(len(row), page.pitch - 6)
        top, left = page.top + row * page.pitch + 3, page.left + column * page.pitch + 3
        cells = np.stack([top, left, inside, inside, puzzle.ravel()], axis=1).astype(np.int16)
        nbytes = len(cells) * np.log2(size + 1) / 8
        yield Shown(
            "Sudokus", f"{side}/{number}", renderer.rasterise(page), cells=cells, digits=size, size=size, nbytes=nbytes
        )


@lru_cache
def digit_templates(side: int) -> np.ndarray:
    """uint8 (side + 1, h, w, 3): a blank cell and the digits of a Sudoku, without the lines around them."""
    renderer = PuzzleRenderer()
    board = np.zeros((side, side), np.int8)
    board[0], board[1, 0] = np.arange(side), side
    page = renderer.page(Puzzle("sudoku", board, None))
    image = renderer.rasterise(page)[page.top :, page.left :]
    places = [*((0, column) for column in range(side)), (1, 0)]
    inside = [[slice(at * page.pitch + 3, (at + 1) * page.pitch - 3) for at in place] for place in places]
    return np.stack([image[rows, columns] for rows, columns in inside])


def _photographs(paths: Sequence[Path], side: str, count: int, rng: np.random.Generator) -> Iterator[Shown]:
    """Square crops at random places and scales, of each photograph in turn."""
    paths = sorted(paths)
    mine = paths[side == "test" :: 2]
    if not mine:
        raise UserError(f"photographs: expected two or more that pre-training held out, got {len(paths)}")
    for number in range(count):
        path = mine[number % len(mine)]
        yield Shown(PHOTOGRAPHS, path.name, crop(opened(path), rng))
