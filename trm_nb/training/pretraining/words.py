"""Bags of words: what the two capsules of the whole image are asked to equal, up to their length.

An image's words are simple facts of its content: the characters and pairs of neighbouring characters of a page; the
colours, sizes, contacts and shapes of its grids; the colours and edges of a photograph. The histogram of each kind of
word is rooted and scaled to unit length (the Hellinger kernel), so that the inner product of two bags measures how
similar two images are. Each family of images has its own numbers in a bag, and in the target that is made of it: the
mean bag is subtracted, directions in which related images differ are shrunk, and a random matrix with orthonormal
columns distributes the result over all 1024 numbers. A target hardly depends on which images the shrinking is fitted
to, so that a training may go on with other texts.

Sources: Gidaris et al., "Learning Representations by Predicting Bags of Visual Words", CVPR 2020, arXiv 2002.12247
(BoWNet); the shrinking is the first half of linear discriminant analysis (Hastie et al., "The Elements of Statistical
Learning", 4.3). Deviations from BoWNet: the words come from what was rendered instead of another network's features,
and the loss is the cosine instead of a cross-entropy. On the first six grids of 120 held-out tasks, the nearest
neighbour belongs to the same task for 77.8 % of the bags without the shapes by colour and the shrinking, and for 82.8 %
with both.
Cost: about 0.2 ms an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

SIZE = 1024  # numbers of a target: those of two capsules
FAMILIES = (slice(0, 512), slice(512, 1080), slice(1080, 1184))  # where pages, grids and other images stand in a bag
KEPT = (480, 440, 104)  # directions of each family in a target
BAG = FAMILIES[-1].stop
SHRINKAGE = 0.01  # added to the variances within pairs, as a part of the largest
BUCKETS = 256  # of the hashes of characters, and of pairs of them
BLANK_WEIGHT = 0.1  # of blank cells among the characters
# Weights of the parts of a grid's bag: 3x3 shapes, palette, size, shares and contacts of colours, crosses by colour.
GRID_WEIGHTS = (0.526, 0.106, 0.157, 0.123, 0.088, 0.2)
_KNUTH = 2654435761  # of multiplicative hashing
_rng = np.random.default_rng(5)
_FREQUENCIES, _PHASES = _rng.normal(size=(32, 2)) / 2.2, _rng.uniform(0, 2 * np.pi, 32)  # random Fourier features


def page_words(cells: np.ndarray, blank: int) -> np.ndarray:
    """The bag of a page of text, float64 (512,), from its cells, int (rows, columns); `blank` is the blank's cell."""
    rows = cells.astype(np.int64)
    one = np.bincount((rows.ravel() * _KNUTH >> 7) % BUCKETS, minlength=BUCKETS).astype(float)
    one[(blank * _KNUTH >> 7) % BUCKETS] *= BLANK_WEIGHT
    first, second = rows[:, :-1], rows[:, 1:]
    pairs = ((first * 31 + second) * _KNUTH >> 9)[(first != blank) | (second != blank)]
    two = np.bincount(pairs % BUCKETS, minlength=BUCKETS)
    return 0.7 * np.concatenate([_unit(np.sqrt(one)), _unit(np.sqrt(two))])


def grid_words(grids: Sequence[np.ndarray]) -> np.ndarray:
    """The bag of a page of grids, float64 (568,), from its grids, int (rows, columns) of 0..9 each."""
    colours = np.sum([np.bincount(grid.ravel(), minlength=10) for grid in grids], axis=0)
    parts = (
        np.sum([_shapes(grid) for grid in grids], axis=0),
        (colours > 0).astype(float),
        np.cos(_FREQUENCIES @ np.mean([grid.shape for grid in grids], 0) + _PHASES),
        np.sqrt(colours),
        np.sqrt(np.sum([_contacts(grid) for grid in grids], axis=0)),
        np.sqrt(np.sum([_crosses(grid) for grid in grids], axis=0)),
    )
    weights = np.sqrt(np.array(GRID_WEIGHTS) / sum(GRID_WEIGHTS))
    return np.concatenate([weight * _unit(part) for weight, part in zip(weights, parts, strict=True)])


def image_words(image: np.ndarray) -> np.ndarray:
    """The bag of any other image, float64 (104,), from its pixels, uint8 (h, w, 3)."""
    small = image[::4, ::4].astype(int) // 64
    colours = np.bincount((small @ np.array([16, 4, 1])).ravel(), minlength=64)
    down, right = (slope.ravel()[::3] for slope in np.gradient(image.astype(float).mean(-1)))
    direction = ((np.arctan2(down, right) / np.pi + 1) * 4).astype(int) % 8
    edges = direction * 5 + np.digitize(np.hypot(down, right), [2, 6, 16, 40])
    shares = np.bincount(edges, minlength=40)
    return 0.7 * np.concatenate([_unit(np.sqrt(colours)), _unit(np.sqrt(shares))])


def in_place(words: np.ndarray, family: slice) -> np.ndarray:
    """A family's words in a whole bag, float32 (1184,)."""
    bag = np.zeros(BAG, np.float32)
    bag[family] = words
    return bag


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Makes targets of bags: `average` float32 (3, 1184) is taken off, by family; `projection` float32 (1184, 1024)."""

    average: Tensor
    projection: Tensor

    @classmethod
    def of(cls, bags: np.ndarray) -> Targets:
        """From bags (3, n, 2, 1184) of n pairs of related images of each family."""
        projection = np.zeros((BAG, BAG), np.float32)
        for pairs, family, kept in zip(bags, FAMILIES, KEPT, strict=True):
            projection[family, family] = _discriminants(pairs[..., family].astype(np.float64), kept)
        return cls(torch.from_numpy(bags.mean((1, 2))), torch.from_numpy(projection) @ _turn())

    def to(self, device: str) -> Targets:
        """On another device."""
        return Targets(self.average.to(device), self.projection.to(device))

    def __call__(self, bags: Tensor, families: Tensor) -> Tensor:
        """float32 (b, 1024): the direction that the capsules should have; only the direction counts."""
        return (bags - self.average[families]) @ self.projection


def _discriminants(pairs: np.ndarray, kept: int) -> np.ndarray:
    """(d, d), symmetric: whitens what differs within pairs (n, 2, d), and keeps the directions that then vary most."""
    differences = (pairs[:, 0] - pairs[:, 1]) / np.sqrt(2)
    values, vectors = np.linalg.eigh(differences.T @ differences / len(pairs))
    white = vectors / np.sqrt(values.clip(0) + SHRINKAGE * values[-1] + np.finfo(float).eps) @ vectors.T
    means = pairs.mean(1) - pairs.mean((0, 1))
    turned = np.linalg.eigh(white @ means.T @ means @ white / len(pairs))[1][:, -kept:]
    return np.asarray(white @ turned @ turned.T)


@lru_cache(maxsize=1)
def _turn() -> Tensor:
    """A random matrix, float32 (1184, 1024), with orthonormal columns."""
    return torch.from_numpy(np.linalg.qr(np.random.default_rng(11).normal(size=(BAG, SIZE)))[0].astype(np.float32))


def _unit(x: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(x)
    return x / length if length else x


def _shapes(grid: np.ndarray) -> np.ndarray:
    """Rooted shares, float64 (256,): which of a cell's eight neighbours have its colour."""
    rows, columns = grid.shape
    padded = np.pad(grid.astype(int), 1, constant_values=-1)
    around = [(dy, dx) for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)]
    code = sum(
        (padded[dy : dy + rows, dx : dx + columns] == grid).astype(int) << bit for bit, (dy, dx) in enumerate(around)
    )
    counts = np.bincount(np.ravel(code), minlength=256)
    return np.asarray(np.sqrt(counts / counts.sum()))


def _contacts(grid: np.ndarray) -> np.ndarray:
    """int (100,): how often a colour is left of or above another."""
    cells = grid.astype(int)
    touching = [(cells[:, :-1] * 10 + cells[:, 1:]).ravel(), (cells[:-1] * 10 + cells[1:]).ravel()]
    return np.bincount(np.concatenate(touching), minlength=100)


def _crosses(grid: np.ndarray) -> np.ndarray:
    """int (160,) by pattern * 10 + colour: which neighbours, from the right clockwise, have the colour of a cell."""
    rows, columns = grid.shape
    padded = np.pad(grid.astype(int), 1, constant_values=-1)
    places = ((1, 2), (2, 1), (1, 0), (0, 1))
    code = sum((padded[y : y + rows, x : x + columns] == grid).astype(int) << bit for bit, (y, x) in enumerate(places))
    return np.bincount(np.ravel(code * 10 + grid), minlength=160)
