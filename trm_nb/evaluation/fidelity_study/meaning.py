"""Meaning: do the nearest neighbours of a code share its label, and does a linear probe find it?

Five questions: the modality, the programming language, the natural language, the ARC task, the handwritten digit. A
neighbour is never of the sample's own item, and a probe is fitted on folds that share no item with those it answers.
Choice: cosine after centring, and ridge regression on one-hot labels whose penalty is chosen by the leave-one-out error
of the training folds; both need no step size and give the same result each time.
Cost: products of all samples with each other, 2,000 by 6,144 numbers: seconds an arm.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from trm_nb.errors import UserError
from trm_nb.evaluation.fidelity_study.sources import SIDE, Texts, crop, evaluation_tasks, natural_page, opened
from trm_nb.records import GridTask
from trm_nb.render.grid import GridRenderer
from trm_nb.render.text import TextRenderer
from trm_nb.training.verdicts import Accuracy, accuracy

FOLDS = 5
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # times the mean squared length of a code
GRIDS_OF_A_TASK = 6
THUMBNAIL = 56


@dataclass(frozen=True, eq=False)
class Question:
    """Images and what is asked about them.

    `images` uint8 (n, 224, 224, 3), `labels` int64 (n,), `items` int64 (n,): the unit of the interval. `apart`: a
    sample's neighbours and its probe's training are of other items; else only the sample itself is left out.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    items: np.ndarray
    classes: tuple[str, ...]
    apart: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """How often an arm's nearest neighbour and its linear probe are right; `majority` always says the commonest."""

    question: str
    arm: str
    neighbour: Accuracy
    probe: Accuracy
    majority: float
    classes: int


def questions(
    texts: Texts, photographs: Sequence[Path], *, most: int = 30, tasks: int = 120, digits: int = 1797
) -> list[Question]:
    """The five questions with at most `most` documents of a language, `tasks` tasks and `digits` digits."""
    grids = same_task(tasks)
    code, language = (
        _languages(name, texts, prefix, most)
        for name, prefix in (("programming language", "code:"), ("natural language", "text:"))
    )
    return [_modality(code, language, photographs, most), code, language, grids, handwritten(digits)]


def ask(question: Question, arm: str, vectors: np.ndarray) -> Answer:
    """Ask an arm's codes (n, ...) of the question's images."""
    flat = np.ascontiguousarray(vectors.reshape(len(vectors), -1), np.float32)
    groups = question.items if question.apart else np.arange(len(flat))
    neighbour = accuracy(nearest(flat, question.labels, groups) == question.labels, question.items)
    probe = accuracy(ridge(flat, question.labels, groups) == question.labels, question.items)
    majority = float(np.bincount(question.labels).max() / len(question.labels))
    return Answer(question.name, arm, neighbour, probe, majority, len(question.classes))


def nearest(vectors: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The label of the most similar sample of another group, int64 (n,): cosine after centring."""
    centred = vectors - vectors.mean(axis=0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    similar = centred @ centred.T
    similar[groups[:, None] == groups] = -np.inf
    found: np.ndarray = labels[similar.argmax(axis=1)]
    return found


def ridge(vectors: np.ndarray, labels: np.ndarray, groups: np.ndarray, folds: int = FOLDS) -> np.ndarray:
    """The label that a linear probe fitted on the other folds gives each sample, int64 (n,)."""
    number = np.unique(groups, return_inverse=True)[1]
    fold = (np.random.default_rng(0).permutation(number.max() + 1) % folds)[number]
    centred = torch.from_numpy(vectors).double()
    found = np.empty(len(labels), np.int64)
    for held_out in range(folds):
        test = fold == held_out
        if test.any():
            found[test] = _fitted(centred[torch.from_numpy(~test)], labels[~test], centred[torch.from_numpy(test)])
    return found


def _fitted(train: torch.Tensor, labels: np.ndarray, test: torch.Tensor) -> np.ndarray:
    """Ridge regression by its dual; the leave-one-out residuals are in closed form."""
    mean = train.mean(0)
    train, test = train - mean, test - mean
    wanted = torch.nn.functional.one_hot(torch.from_numpy(labels)).double()
    offset = wanted.mean(0)
    values, vectors = torch.linalg.eigh(train @ train.T)
    unit, rotated = float(values.clamp_min(0).mean()) + 1e-12, vectors.T @ (wanted - offset)
    best, weights = -1.0, rotated
    for penalty in PENALTIES:
        inverse = 1 / (values.clamp_min(0) + penalty * unit)
        dual = vectors @ (inverse[:, None] * rotated)
        left_out = wanted - dual / (vectors.square() @ inverse)[:, None]
        right = float((left_out.argmax(1) == wanted.argmax(1)).double().mean())
        if right > best:
            best, weights = right, dual
    predicted: np.ndarray = ((test @ train.T) @ weights + offset).argmax(1).numpy()
    return predicted


def thumbnails(images: np.ndarray) -> np.ndarray:
    """float32 (n, 9408): the images at 56x56 pixels, means over areas; what the codes are compared with."""
    small = images.reshape(-1, THUMBNAIL, SIDE // THUMBNAIL, THUMBNAIL, SIDE // THUMBNAIL, 3).mean(axis=(2, 4))
    return np.asarray(small.reshape(len(images), -1), np.float32)


def handwritten(most: int = 1797) -> Question:
    """The digits that scikit-learn ships (8x8 pixels, 0 to 16), enlarged to the image, dark on white."""
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise UserError("scikit-learn is needed for its handwritten digits: pip install 'trm-nb[study]'")
    with gzip.open(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt", encoding="ascii") as lines:
        rows = np.array([[int(float(value)) for value in row] for row in csv.reader(lines)][:most])
    small = (255 - rows[:, :64].reshape(-1, 8, 8) * 255 // 16).astype(np.uint8)
    large = [np.asarray(Image.fromarray(digit).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for digit in small]
    images = np.repeat(np.stack(large)[..., None], 3, axis=-1)
    return Question("handwritten digit", images, rows[:, 64], np.arange(len(rows)), tuple(map(str, range(10))))


def same_task(tasks: int) -> Question:
    """The first six grids of each ARC-AGI-2 evaluation task; only the sample itself is no neighbour of its own."""
    renderer, found = GridRenderer(), evaluation_tasks()
    names = list(found)[:tasks]
    grids = [[grid for part in found[name] for pair in part for grid in pair][:GRIDS_OF_A_TASK] for name in names]
    labels = np.repeat(np.arange(len(names)), [len(of) for of in grids])
    images = np.stack([renderer.render(grid) for of in grids for grid in of])
    return Question("ARC task", images, labels, labels, tuple(names), apart=False)


def _languages(name: str, texts: Texts, prefix: str, most: int) -> Question:
    """One page of each document, from a random line on: the header of a file often tells its language."""
    renderer, pages, labels = TextRenderer(), [], []
    kinds = sorted(kind for kind in texts if kind.startswith(prefix) and len(texts[kind]) > 1)
    if len(kinds) < 2:
        raise UserError(
            f"texts: expected held-out documents of two kinds or more that begin with {prefix}, got {len(kinds)}"
        )
    rng = np.random.default_rng(0)
    for label, kind in enumerate(kinds):
        for _, text in sorted(texts[kind])[:most]:
            pages.append(natural_page(renderer, text, rng))
            labels.append(label)
    names = tuple(kind.removeprefix(prefix) for kind in kinds)
    return Question(name, renderer.rasterise(pages), np.array(labels), np.arange(len(labels)), names)


def _modality(code: Question, language: Question, photographs: Sequence[Path], most: int) -> Question:
    """Code, natural text, a grid of each task, whole tasks and crops; the item is the document, task or photograph."""
    rng, renderer = np.random.default_rng(0), GridRenderer()
    part = 2 * most
    tasks = list(evaluation_tasks().values())[:part]
    grids = [renderer.render(train[0][0]) for train, _ in tasks]
    whole = [renderer.rasterise(renderer.task_pages(GridTask(tuple(a), tuple(x for x, _ in b)))[0]) for a, b in tasks]
    sources = [opened(path) for path in photographs]
    crops = [crop(sources[number % len(sources)], rng) for number in range(part)]
    chosen = [rng.permutation(len(of.images))[:part] for of in (code, language)]
    images = [code.images[chosen[0]], language.images[chosen[1]], np.stack(grids), np.stack(whole), np.stack(crops)]
    sizes = [len(of) for of in images]
    items = [np.arange(size) + 10_000 * number for number, size in enumerate(sizes)]
    items[3] = items[2]  # a grid and the page of its task
    items[4] = 40_000 + np.arange(part) % len(sources)
    names = ("source code", "natural text", "grid", "whole task", "photograph")
    return Question("modality", np.concatenate(images), np.repeat(np.arange(5), sizes), np.concatenate(items), names)


def answers(asked: Sequence[Question], codes: dict[str, Callable[[np.ndarray], np.ndarray]]) -> list[Answer]:
    """Every arm's answer to every question; `codes` as in arms.py, blocks of images at a time."""
    from trm_nb.evaluation.fidelity_study.arms import in_blocks

    return [ask(question, arm, in_blocks(code, question.images)) for question in asked for arm, code in codes.items()]
