"""Batches of images for the pre-training, in pairs: pages of text, grids, ARC tasks, photographs and others.

Half of the images are grids and ARC tasks, as whole tasks are the hardest to read back; pages are cut at random places
of documents. Grids and tasks are augmented: colours are permuted, and the grids of a pair turned and mirrored alike.
What is harder to read back comes more often: languages by the perplexity of their characters, tasks by the
root of the mean size of their grids (a ninth of ARC-AGI-2's training tasks have more than 400 cells a grid, but 42 %
of its evaluation tasks have).
The two images of most pairs belong together (one document, one ARC task, one photograph), which the contrastive loss
uses. All of a batch follows from the seed and the step.
Cost: about 2 ms an image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from trm_nb.records import GridTask
from trm_nb.render.grid import GridRenderer
from trm_nb.render.panels import GridPage
from trm_nb.render.puzzle import PuzzleRenderer
from trm_nb.render.text import TextPage, TextRenderer
from trm_nb.render.typesetting.glyphs import BOX
from trm_nb.sources.arc.augment import View
from trm_nb.training.pretraining.batch import COLUMNS, ROWS, Batch, Example, Kind, Part, collated
from trm_nb.training.pretraining.material import Material, grids_of
from trm_nb.training.pretraining.other_images import SIDE, letterboxed, random_puzzle, rectangles
from trm_nb.training.pretraining.words import FAMILIES, grid_words, image_words, in_place, page_words

PHOTOGRAPH_SIDE = 900  # photographs are kept so large
BATCH = 64  # images that the counts of PAIRS add up to
PERPLEXITY_CHARACTERS = 500_000  # of each language that are looked at
LATIN = np.r_[33:127, 0xA1:0x250]
OTHER_SCRIPTS = np.r_[0x386:0x3CF, 0x400:0x460, 0x5D0:0x5EB]  # Greek, Cyrillic, Hebrew
EAST_ASIAN = np.r_[0x4E00:0x9FA0, 0x3041:0x30FF, 0xAC00:0xD7A0]
HIGHLIGHTED = {"code:python": "a.py", "code:c": "a.c", "code:js": "a.js", "code:java": "a.java"}
STYLES = (
    {"font_size": 8},
    {"font_size": 8},
    {"foreground": "#e6e6e6", "background": "#202428"},
    {"foreground": "#402010", "background": "#f6f0dc"},
    {"margin": 14},
    {"highlight": True},
    {"font_size": 8, "highlight": True},
    {"foreground": "#1a2a6c", "wrap": "word"},
)


Pair = tuple[Example, Example]


class Content:
    """Makes examples and batches of one side of the material."""

    def __init__(self, material: Material) -> None:
        self.material = material
        self.text, self.grids, self._puzzles = TextRenderer(), GridRenderer(), PuzzleRenderer()
        self._styles = [TextRenderer(**style) for style in STYLES]
        self._kinds = list(material.documents)
        difficulty = np.array([_perplexity(documents) for documents in material.documents.values()])
        self._kind_chances = difficulty / difficulty.sum()
        sides = np.sqrt([np.mean([grid.size for grid in grids_of(task)]) for task in material.tasks])
        self._task_chances = sides / sides.sum()
        self._highlighted = [kind for kind in self._kinds if kind in HIGHLIGHTED] or self._kinds
        self._photographs: dict[int, Image.Image] = {}

    def batch(self, seed: int, step: int, size: int = BATCH, part: Part = Part.TRAINING) -> Batch:
        """The batch of a step; about `size` images, as each part of the mixture has whole pairs, at least one."""
        rng = np.random.default_rng([seed, part, step])
        mixture: list[tuple[int, bool, Callable[[np.random.Generator], Pair]]] = [
            (6, True, self.text_pair),
            (3, False, self._twice(self.random_page)),
            (7, True, self.grid_pair),
            (3, False, self._twice(self.random_grid)),
            (7, False, self._twice(self.task)),
            (4, True, self.photograph_pair),
            (2, False, self._twice(self.other)),
        ]
        pairs, related = [], []
        for count, belong, make in mixture:
            for _ in range(max(1, round(count * size / BATCH))):
                pairs.append(make(rng))
                related.append(belong)
        return collated([example for pair in pairs for example in pair], related)

    def related_bags(self, seed: int, count: int) -> np.ndarray:
        """Bags of `count` pairs that belong together, of pages, grids and photographs: float32 (3, count, 2, 1184)."""
        rng = np.random.default_rng([seed, Part.PAIRS])
        makers = (self.text_pair, self.grid_pair, self.photograph_pair)
        bags = [
            [in_place(example.words, family) for example in make(rng)]
            for make, family in zip(makers, FAMILIES, strict=True)
            for _ in range(count)
        ]
        return np.array(bags, np.float32).reshape(len(FAMILIES), count, 2, -1)

    @staticmethod
    def _twice(make: Callable[[np.random.Generator], Example]) -> Callable[[np.random.Generator], Pair]:
        return lambda rng: (make(rng), make(rng))

    # -- text ----------------------------------------------------------------------------------------------------------

    def text_pair(self, rng: np.random.Generator) -> Pair:
        """Two pages of one document."""
        document = self._document(rng.choice(self._kinds, p=self._kind_chances), rng)
        return self.page(document, rng), self.page(document, rng)

    def page(self, document: str, rng: np.random.Generator) -> Example:
        """A page from a random line of a document on."""
        start = _line_start(document, rng)
        return self._page(self.text.pages(document[start : start + 700])[0], Kind.TEXT)

    def random_page(self, rng: np.random.Generator) -> Example:
        """Characters without sense, of ASCII or of the many that are hard to tell apart, on all or some cells."""
        choice = rng.random()
        if choice < 0.4:
            characters = np.arange(33, 127)
        else:
            characters = LATIN if choice < 0.6 else OTHER_SCRIPTS if choice < 0.7 else EAST_ASIAN
        shape = (ROWS, COLUMNS if choice < 0.7 else COLUMNS // 2)
        codes = rng.choice(characters, shape)
        if rng.random() < 0.4:
            codes = np.where(rng.random(shape) < rng.uniform(0.06, 1), codes, 32)
        lines = ("".join(map(chr, row)).rstrip() or " " for row in codes)
        return self._page(self.text.pages("\n".join(lines))[0], Kind.RANDOM)

    def _document(self, kind: str, rng: np.random.Generator) -> str:
        documents = self.material.documents[kind]
        return documents[rng.integers(len(documents))]

    def _page(self, page: TextPage, kind: Kind) -> Example:
        cells = page.cells.ravel().astype(np.int64)
        cells[cells >= BOX] = -1
        for row, column, _ in page.overlays:
            cells[row * COLUMNS + column] = -1
        return Example(self.text.rasterise([page])[0], kind, page_words(page.cells, self.text.atlas.blank), cells)

    # -- grids ---------------------------------------------------------------------------------------------------------

    def grid_pair(self, rng: np.random.Generator, augment: bool = True) -> Pair:
        """Two grids of one ARC task."""
        task = self._task(rng, augment)
        grids = grids_of(task)
        first, second = rng.choice(len(grids), 2, replace=False)
        return self.grid(grids[first]), self.grid(grids[second])

    def random_grid(self, rng: np.random.Generator) -> Example:
        """Cells of random colours, sometimes with some of them rare."""
        height, width = rng.integers(1, 31, 2)
        colours = rng.permutation(10)[: rng.integers(2, 11)]
        if rng.random() < 0.3:
            return self.grid(rng.choice(colours, (height, width), p=rng.dirichlet(np.ones(len(colours)))))
        return self.grid(colours[rng.integers(0, len(colours), (height, width))])

    def task(self, rng: np.random.Generator, augment: bool = True) -> Example:
        """A page of an ARC task."""
        pages = self.grids.task_pages(self._task(rng, augment))
        return self._grid(pages[rng.integers(len(pages))], Kind.TASK)

    def grid(self, grid: np.ndarray) -> Example:
        """A grid alone."""
        return self._grid(self.grids.grid_page(grid), Kind.GRID)

    def _task(self, rng: np.random.Generator, augment: bool) -> GridTask:
        task = self.material.tasks[rng.choice(len(self._task_chances), p=self._task_chances)]
        return augmented(task, rng) if augment else task

    def _grid(self, page: GridPage, kind: Kind) -> Example:
        return Example(self.grids.rasterise(page), kind, grid_words([grid for p in page.panels for grid in p.grids]))

    # -- photographs and others ----------------------------------------------------------------------------------------

    def photograph_pair(self, rng: np.random.Generator) -> Pair:
        """Two crops of one photograph."""
        number = int(rng.integers(len(self.material.photographs)))
        return self.crop(number, rng), self.crop(number, rng)

    def crop(self, number: int, rng: np.random.Generator, flip: bool = True) -> Example:
        """A square of a photograph, 0.35 to 1 of its shorter side, half of them mirrored."""
        pixels = self._crop(number, rng, flip)
        return Example(pixels, Kind.PHOTOGRAPH, image_words(pixels))

    def _crop(self, number: int, rng: np.random.Generator, flip: bool) -> np.ndarray:
        photograph = self._photograph(number)
        side = rng.uniform(0.35, 1) * min(photograph.size)
        x, y = (rng.uniform(0, length - side) for length in photograph.size)
        pixels = np.asarray(photograph.resize((SIDE, SIDE), Image.Resampling.BICUBIC, (x, y, x + side, y + side)))
        return pixels[:, ::-1] if flip and rng.random() < 0.5 else pixels

    def _photograph(self, number: int) -> Image.Image:
        if number not in self._photographs:
            with Image.open(self.material.photographs[number]) as opened:
                photograph = opened.convert("RGB")
            photograph.thumbnail((PHOTOGRAPH_SIDE, PHOTOGRAPH_SIDE))
            self._photographs[number] = photograph
        return self._photographs[number]

    def other(self, rng: np.random.Generator) -> Example:
        """Puzzles, text in other styles, letterboxed photographs, and rectangles; the decoder's pixels count alone."""
        choice = rng.random()
        if choice < 0.3:
            pixels = self._puzzles.render(random_puzzle(rng))
        elif choice < 0.8:
            pixels = self._styled(rng)
        elif choice < 0.9:
            pixels = letterboxed(self._crop(int(rng.integers(len(self.material.photographs))), rng, True), rng)
        else:
            pixels = rectangles(rng)
        return Example(pixels, Kind.OTHER, image_words(pixels))

    def _styled(self, rng: np.random.Generator) -> np.ndarray:
        renderer = self._styles[rng.integers(len(self._styles))]
        kinds = self._highlighted if renderer.highlight else self._kinds
        kind = kinds[rng.integers(len(kinds))]
        document = self._document(kind, rng)
        start = _line_start(document, rng)
        pages = renderer.pages(document[start : start + 1100], HIGHLIGHTED.get(kind, "a.txt"))
        return np.asarray(renderer.rasterise(pages[:1])[0])


def _perplexity(documents: Sequence[str]) -> float:
    """How many equally frequent characters would be as hard to guess as those of the documents."""
    counts = np.array(list(Counter("".join(documents)[:PERPLEXITY_CHARACTERS]).values()))
    shares = counts / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def augmented(task: GridTask, rng: np.random.Generator) -> GridTask:
    """A task with its colours permuted (in half of the cases black stays black), turned and mirrored."""
    colours = rng.permutation(10) if rng.random() < 0.5 else np.r_[0, 1 + rng.permutation(9)]
    turns, mirror = int(rng.integers(4)), rng.random() < 0.5
    return View(7 - turns if mirror else turns, tuple(colours.tolist())).task(task)


def _line_start(document: str, rng: np.random.Generator) -> int:
    """Where a random line begins, seldom among the last 500 characters."""
    return document.rfind("\n", 0, int(rng.integers(max(1, len(document) - 500)))) + 1
