"""Which samples and items a notebook shows, and their images. Sizes are bounded by the number that is asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from trm_nb.errors import RejectedError, UserError
from trm_nb.evaluation.fidelity import spread
from trm_nb.records import Item, Sample

CLEARED = 160  # gray
log = logging.getLogger(__name__)

if TYPE_CHECKING:
    import pandas as pd

    from trm_nb.pipeline.run import Run


def evenly(samples: pd.DataFrame, count: int) -> pd.DataFrame:
    """Up to `count` rows, evenly spread over all of them, the first and the last among them."""
    return samples.iloc[spread(len(samples), count)]


def head_and_tail(samples: pd.DataFrame, count: int) -> pd.DataFrame:
    """The first and the last `count` rows, none twice."""
    return samples.iloc[sorted({*range(len(samples))[:count], *range(len(samples))[-count:]})]


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


def items_named(run: Run, names: Iterable[str]) -> dict[str, Item]:
    """The items with these ids; reads the sources until it has them."""
    wanted, found = set(names), dict[str, Item]()
    for item in run.items() if wanted else ():
        if item.item_id in wanted:
            found[item.item_id] = item
        if len(found) == len(wanted):
            break
    return found


def before_and_after(run: Run, item: Item, page: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One of an item's images as it is rendered and as the cache makes it, uint8 (h, w, 3) both."""
    samples = run.cache.samples(item)[page : page + 1]
    rendered, _ = run.cache.renderer.rasterise(samples)
    denoiser = run.cache.denoiser if run.cache.denoises(item.modality) else None
    return rendered[0], rendered[0] if denoiser is None else denoiser.restore_images(rendered)[0][0]


def images_of(run: Run, samples: pd.DataFrame, measured: bool = False) -> np.ndarray:
    """The cached images of samples, uint8 (n, h, w, 3); a gray square for one that was cleared from the cache.

    Where they are `measured` and not only shown, a cleared one raises UserError.
    """
    keys = samples["key"].tolist()
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


def coverage(images: np.ndarray) -> np.ndarray:
    """The part of each page (n, h, w, 3) that is not of its background, paper white: float (n,).

    A photograph has no background but the border that makes it square, so for one this says nothing.
    """
    part: np.ndarray = (images != 255).any(axis=-1).mean(axis=(1, 2))
    return part
