"""A look at one sample: its images, what its capsules attend to and keep, its neighbours, and what a model predicts.

A sample of the run and new content give the same `Look`: new content takes the way of the run's own samples, read by
content, rendered, denoised and encoded with the run's settings, in memory. Nothing is written into the run.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from trm_nb.describe import printable
from trm_nb.errors import UserError
from trm_nb.notebook import sampling
from trm_nb.notebook.explorer.collection import Collection, Neighbour
from trm_nb.notebook.plots.images import attention_overlays
from trm_nb.pipeline.prediction.contents import Content, contents_of
from trm_nb.records import Item, Sample

MAX_UPLOAD = 64 * 2**20
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}")  # of an uploaded file's name, which is not used otherwise


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What there is to see of one sample. Texts are as the data has them, not escaped.

    image: uint8 (h, w, 3), as the encoder sees it. rendered: likewise, before the denoiser; None where none restored
    it, or the source is gone (`remarks` says so). capsules: float16 (12, 512). attention: uint8 (12, h, w, 3), or None
    where the encoder does not report it. decoded: uint8 (h, w, 3), or None where it has no decoder.
    """

    name: str
    facts: Mapping[str, str]
    image: np.ndarray
    capsules: np.ndarray
    neighbours: list[Neighbour]
    rendered: np.ndarray | None = None
    attention: np.ndarray | None = None
    decoded: np.ndarray | None = None
    place: int | None = None
    item: Item | None = None
    pages: int = 1
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Thought:
    """What a model predicts for a sample after each recursion step.

    steps: prediction and probability; a label's name, or a grid as nested lists. target: likewise, None where it is not
    known. remark: what to know about it, or why there is no prediction.
    """

    steps: list[tuple[Any, float]]
    target: Any = None
    remark: str = ""


def look_at(collection: Collection, place: int) -> Look:
    """A sample of the run; `place` is its index in the dataset."""
    row = collection.table.iloc[place]
    image = sampling.images_of(collection.run, collection.table.iloc[[place]])[0]
    capsules = collection.dataset.capsules([place]).numpy()[0].astype(np.float16)
    facts = {"kind": row["modality"], "label": _or_none(row["label"]), "split": row["split"]}
    if row["pages"] > 1:
        facts["page"] = f"{row['page'] + 1} of {row['pages']}"
    for name in ("noise", "edit"):
        if not pd.isna(row.get(name)):
            facts[name] = f"{row[name]:.1f} of 255" if name == "noise" else str(row[name])
    rendered, remarks = None, []
    if collection.run.cache.denoises(row["modality"]):
        rendered = _as_rendered(collection, place)
        remarks = (
            [] if rendered is not None else ["The source is gone or changed, so the image is shown denoised only."]
        )
    return Look(
        str(row["sample_id"]), facts, image, capsules, collection.nearest(capsules, place), rendered,
        *_seen_by(collection, image, capsules), place, None, int(row["pages"]), remarks,
    )  # fmt: skip


def look_at_text(collection: Collection, text: str) -> Look:
    """A text as a sample of this run, its first page if it takes several.

    Raises:
        UserError: for an empty text.
        RejectedError: where it cannot be rendered.
    """
    if not text.strip():
        raise UserError("expected a text to look at, got none; type one")
    return _look_at_new(collection, Item("your text", "text", text, "typed"))


def look_at_file(collection: Collection, name: str, data: bytes) -> Look:
    """An uploaded file as a sample of this run: what it is, its content decides, as for the sources.

    Args:
        collection: the run.
        name: of the file; only its suffix counts, and it is shown.
        data: its bytes, of which the source's own limits hold.

    Raises:
        UserError: for a file that is too large, and one that holds nothing to look at, with the reason.
        RejectedError: where it cannot be rendered.
    """
    if len(data) > MAX_UPLOAD:
        raise UserError(f"{printable(name)}: expected at most {MAX_UPLOAD // 2**20} MiB, got {len(data) / 2**20:.0f}")
    suffix = Path(name).suffix
    with tempfile.TemporaryDirectory(prefix="trm-nb-") as folder:
        path = Path(folder) / f"upload{suffix if _SUFFIX.fullmatch(suffix) else ''}"
        path.write_bytes(data)
        content = next(iter(contents_of(path, collection.run.config)), Content(name, None, "nothing is in it"))
        if content.item is None:
            raise UserError(f"{printable(name)}: {printable(content.error or '').replace(str(path), path.name)}")
        return _look_at_new(collection, content.item, name)


def think(collection: Collection, look: Look, model: str) -> Thought:
    """What a model predicts for a sample that is looked at, and what is right where that is known.

    A prediction for a held-out sample is the recorded one; others are computed from the capsules.
    """
    loaded = collection.model(model)
    objective, place = loaded.objective, look.place
    if place is None:
        assert look.item is not None
        reason = objective.why_not(look.item.payload, look.pages)
        target = None
    else:
        asked = bool(np.isin(collection.dataset.rows[place], objective.rows))
        is_label = objective.class_names() is not None
        reason = None if asked or is_label else f"This sample has no target: the model predicts {objective.target}."
        target = _target(collection, place, is_label)
        if asked and (recorded := collection.recorded(model, place)):
            return Thought(recorded, target)
    if reason is None and objective.among_samples:
        reason = f"The model predicts {objective.target}, so a sample is not asked about alone."
    if reason is not None:
        return Thought([], None, reason)
    trained_on = place is not None and collection.dataset.splits[place] == "train"
    remark = "The model was trained on this sample." if trained_on else ""
    return Thought(loaded.predict_capsules(look.capsules[None])[0], target, remark)


def _target(collection: Collection, place: int, is_label: bool) -> Any:
    if is_label:
        number = collection.dataset.labels[place]
        return collection.dataset.classes[number] if number >= 0 else None
    grids = collection.dataset.target(place)
    return grids[0].tolist() if len(grids) == 1 else None


def _look_at_new(collection: Collection, item: Item, name: str | None = None) -> Look:
    run = collection.run
    pages = len(run.cache.samples(item))
    before, image = sampling.before_and_after(run, item)
    rendered = before if run.cache.denoises(item.modality) and run.cache.denoiser else None
    capsules = run.encode_images(image[None])[0]
    facts = {"kind": item.modality, "label": "new, so it has none", "split": "none"}
    if pages > 1:
        facts["page"] = f"1 of {pages:,}"
    return Look(
        name or item.item_id, facts, image, capsules, collection.nearest(capsules), rendered,
        *_seen_by(collection, image, capsules), None, item, pages,
    )  # fmt: skip


def _seen_by(
    collection: Collection, image: np.ndarray, capsules: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The attention of each capsule over an image, and what the capsules decode to; None where the encoder has none."""
    encoder = collection.run.encoder
    weights = [*encoder.parameters(), *encoder.buffers()]
    maps = encoder.attention_maps(torch.from_numpy(image[None]).to(weights[0].device if weights else "cpu"))
    shown = None if maps is None else attention_overlays(image, maps[0].cpu().numpy())
    return shown, encoder.decode(capsules[None])[0] if encoder.has_decoder else None


def _as_rendered(collection: Collection, place: int) -> np.ndarray | None:
    """A sample's image before the denoiser; None where the source no longer gives the sample that was planned."""
    item, row = collection.item(place), collection.table.iloc[place]
    samples: list[Sample] = [] if item is None else collection.run.cache.samples(item)
    if not row["page"] < len(samples) or samples[row["page"]].key != row["key"]:
        return None
    images, failed = collection.run.cache.renderer.rasterise([samples[row["page"]]])
    return None if failed else images[0]


def _or_none(value: Any) -> str:
    return "none" if pd.isna(value) else str(value)
