"""Which samples a notebook shows, and what it computes about their capsules. NumPy only; sizes are bounded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trm_nb.errors import RejectedError, UserError
from trm_nb.evaluation.fidelity import spread
from trm_nb.records import Item, Sample
from trm_nb.training.verdicts import Accuracy, accuracy

CLEARED = 160  # gray
log = logging.getLogger(__name__)

if TYPE_CHECKING:
    import pyarrow as pa

    from trm_nb.dataset.capsule_dataset import CapsuleDataset
    from trm_nb.pipeline.run import Run


def pick(samples: pa.Table, count: int, **equals: str) -> list[int]:
    """Up to `count` row numbers, evenly spread over the rows with images whose columns have the given values."""
    import pyarrow.compute as pc

    chosen = pc.equal(samples["status"], "ok")
    for column, value in equals.items():
        chosen = pc.and_(chosen, pc.equal(samples[column], value))
    rows = np.flatnonzero(chosen.to_numpy(zero_copy_only=False))
    return [int(row) for row in rows[spread(len(rows), count)]]


def items_of(run: Run, modality: str, count: int) -> list[Item]:
    """The first items of a modality that can be laid out; reads the sources until it has them."""
    found: list[Item] = []
    for item in run.items():
        if item.modality == modality and _usable(run, item):
            found.append(item)
        if len(found) == count:
            break
    return found


def _usable(run: Run, item: Item) -> bool:
    try:
        return bool(run.cache.samples(item))
    except RejectedError:
        return False


def first_item(run: Run) -> tuple[Item, list[Sample]]:
    """The first item of the sources that can be laid out, and its samples; raises UserError where there is none."""
    for item in run.items():
        if _usable(run, item):
            return item, run.cache.samples(item)
    raise UserError(f"no item in {', '.join(run.config.source_paths)} can be used; the quarantine says why")


def items_named(run: Run, names: set[str]) -> dict[str, Item]:
    """The items with these ids; reads the sources until it has them."""
    found: dict[str, Item] = {}
    for item in run.items() if names else ():
        if item.item_id in names:
            found[item.item_id] = item
        if len(found) == len(names):
            break
    return found


def most_denoised(samples: pa.Table, count: int) -> list[int]:
    """The rows of which the denoiser took most away, first those with most; each image once."""
    noise = np.array([-1.0 if value is None else value for value in samples["noise"].to_pylist()])
    _, first = np.unique(np.asarray(samples["key"].to_pylist()), return_index=True)
    order = first[np.lexsort((first, -noise[first]))]
    return [int(row) for row in order[:count] if noise[row] >= 0]


def before_and_after(run: Run, item: Item, page: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One of an item's images as it is rendered and as the cache makes it, uint8 (h, w, 3) both."""
    samples = run.cache.samples(item)[page : page + 1]
    rendered, _ = run.cache.renderer.rasterise(samples)
    denoiser = run.cache.denoiser if run.cache.denoises(item.modality) else None
    return rendered[0], rendered[0] if denoiser is None else denoiser.restore_images(rendered)[0][0]


def median(values: np.ndarray) -> float:
    """The median, 0 of nothing."""
    return float(np.median(values)) if len(values) else 0.0


def most_repeated(samples: pa.Table, count: int) -> list[tuple[int, int]]:
    """The first rows of the images that occur most often, with how often (at least twice)."""
    _, first, times = np.unique(np.asarray(samples["key"].to_pylist()), return_index=True, return_counts=True)
    order = np.lexsort((first, -times))[:count]
    ok = samples["status"].to_pylist()
    return [(int(first[i]), int(times[i])) for i in order if times[i] > 1 and ok[first[i]] == "ok"]


def images_of(run: Run, samples: pa.Table, rows: list[int], measured: bool = False) -> np.ndarray:
    """The cached images of rows, uint8 (n, h, w, 3); a gray square for one that was cleared from the cache.

    Where they are `measured` and not only shown, a cleared one raises UserError.
    """
    keys = [samples["key"][row].as_py() for row in rows]
    here = np.flatnonzero([key in run.cache for key in keys])
    cleared = f"{len(keys) - len(here)} of {len(keys)} images were cleared from the cache {run.cache.path}"
    if measured and len(here) < len(keys):
        raise UserError(
            f"{cleared}, but are measured here; build the dataset into another output_dir to see them again"
        )
    if len(here) < len(keys):
        log.warning("%s; gray squares are shown instead", cleared)
    images = np.full((len(keys), *run.cache.layout.item), CLEARED, np.uint8)
    images[here] = run.cache.get_many([keys[i] for i in here])
    return images


def captions_of(samples: pa.Table, rows: list[int]) -> list[str]:
    """Under each image: the sample's id, and its label where it has one."""
    named = samples.select(["sample_id", "label"]).take(rows).to_pylist()
    return [row["sample_id"] + (f"\n[{row['label']}]" if row["label"] else "") for row in named]


def neighbour_captions(
    names: Sequence[str], labels: Sequence[str], groups: np.ndarray, similar: np.ndarray
) -> list[list[str]]:
    """Under each query and its neighbours: label, similarity to the query, and the name without its folder.

    `groups` int (queries, 1 + n) into `names` and `labels`, the query first; `similar` (queries, n).
    """
    likeness = [["", *(f", {value:.2f}" for value in row)] for row in similar]
    return [
        [f"{labels[p]}{like}\n{names[p].rsplit('/', 1)[-1]}" for p, like in zip(group, row, strict=True)]
        for group, row in zip(groups, likeness, strict=True)
    ]


def vectors_of(dataset: CapsuleDataset, limit: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Up to `limit` samples spread over a dataset: their places in it (n,), and capsules as float32 (n, 12 * 512)."""
    places = spread(len(dataset), limit)
    return places, dataset.capsules(places).numpy().reshape(len(places), -1)


def directions(vectors: np.ndarray) -> np.ndarray:
    """What tells samples apart: vectors less their mean, at length 1; a vector equal to the mean stays 0."""
    centred = vectors - vectors.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    divided: np.ndarray = centred / np.where(lengths > 1e-6, lengths, 1)
    return divided


def neighbours(vectors: np.ndarray, count: int = 5, apart: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The `count` nearest others of each sample by cosine after centring: places and similarities, both (n, count).

    With `apart` (n,), samples of the same value are no neighbours (similarity -inf, so they come last).
    """
    unit = directions(vectors)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -np.inf)
    if apart is not None:
        similar[apart[:, None] == apart[None]] = -np.inf
    near = np.argsort(-similar, axis=1, kind="stable")[:, : min(count, len(vectors) - 1)]
    return near, np.take_along_axis(similar, near, axis=1)


def agreement(near: np.ndarray, labels: np.ndarray, apart: np.ndarray | None = None) -> dict[str, float]:
    """How often a sample's nearest neighbour has its label, and how often a random other sample has it.

    `labels` int (n,), -1 for none: such samples are not counted, but may be neighbours. `apart` as given to
    `neighbours`. Keys: nearest, chance, counted (nan, nan, 0 when nothing can be counted).
    """
    group, others, counted = _counted(labels, apart)
    if not counted.any() or not near.size:
        return {"nearest": float("nan"), "chance": float("nan"), "counted": 0}
    alike = labels[:, None] == labels[None]
    alike &= group[:, None] != group[None]
    return {
        "nearest": float((labels[near[:, 0]] == labels)[counted].mean()),
        "chance": float((alike.sum(axis=1)[counted] / others[counted]).mean()),
        "counted": int(counted.sum()),
    }


def agreeing(near: np.ndarray, labels: np.ndarray, items: np.ndarray, apart: np.ndarray | None = None) -> Accuracy:
    """`nearest` of `agreement` as an accuracy with its interval; `items` (n,), equal for samples of one item."""
    counted = _counted(labels, apart)[2] & (near.shape[1] > 0)
    return accuracy(labels[near[counted, 0]] == labels[counted] if counted.any() else np.zeros(0), items[counted])


def _counted(labels: np.ndarray, apart: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The group of each sample, how many samples are in other groups, and whether it has a label and any such."""
    group = np.arange(len(labels)) if apart is None else np.unique(apart, return_inverse=True)[1]
    others = len(labels) - np.bincount(group)[group]
    return group, others, (labels >= 0) & (others > 0)


def principal_plane(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal components by SVD: float (n, 2) coordinates, and the part of the variance each axis explains (2,)."""
    centred = (vectors - vectors.mean(axis=0)).astype(np.float64)
    if len(centred) < 2 or not centred.any():
        return np.zeros((len(centred), 2)), np.zeros(2)
    values, axes = np.linalg.eigh(centred @ centred.T)  # n x n, as n is far below the number of features
    top = np.argsort(-values)[:2]
    coordinates = axes[:, top] * np.sqrt(np.maximum(values[top], 0))
    signs = np.sign(coordinates[np.abs(coordinates).argmax(axis=0), range(coordinates.shape[1])])  # not up to chance
    return coordinates * np.where(signs == 0, 1, signs), values[top] / values.sum()


def coverage(images: np.ndarray) -> np.ndarray:
    """The part of each page (n, h, w, 3) that is not of its background, paper white: float (n,).

    A photograph has no background but the border that makes it square, so for one this says nothing.
    """
    part: np.ndarray = (images != 255).any(axis=-1).mean(axis=(1, 2))
    return part


def coverage_of(run: Run, samples: pa.Table, modality: str, count: int) -> tuple[list[int], np.ndarray]:
    """Up to `count` rows of a modality, emptiest first, and their coverage: float (n,)."""
    rows = pick(samples, count, modality=modality)
    inked = coverage(images_of(run, samples, rows, measured=True)) if rows else np.zeros(0)
    order = inked.argsort(kind="stable")
    return [rows[place] for place in order], inked[order]


def ends(total: int, count: int) -> list[int]:
    """The first and the last `count` places of `total`, none twice."""
    return sorted({*range(min(count, total)), *range(max(0, total - count), total)})


def lengths_of(samples: pa.Table) -> dict[int, int]:
    """How many items have how many pages, by number of pages."""
    first = [
        pages
        for page, pages in zip(samples["page"].to_pylist(), samples["pages"].to_pylist(), strict=True)
        if page == 0
    ]
    numbers, counts = np.unique(np.asarray(first, np.int64), return_counts=True)
    return {int(n): int(c) for n, c in zip(numbers, counts, strict=True)}


def overview(samples: pa.Table) -> list[dict[str, Any]]:
    """One record a modality: samples, items, labels, held out, quarantined."""
    found = []
    for modality in sorted(set(samples["modality"].to_pylist())):
        rows = [
            row
            for row in samples.select(["modality", "item_id", "label", "split", "status"]).to_pylist()
            if row["modality"] == modality
        ]
        found.append({
            "modality": modality, "samples": len(rows), "items": len({row["item_id"] for row in rows}),
            "labels": len({row["label"] for row in rows if row["label"]}),
            "held out": sum(row["split"] == "test" for row in rows),
            "quarantined": sum(row["status"] == "quarantined" for row in rows),
        })  # fmt: skip
    return found
