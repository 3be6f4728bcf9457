"""The encoding task: a batch's images to capsules, to a staged file. It runs in the run's process, or on a cluster.

A cluster's worker gets the places of the images in the cache's shards, never their keys, so that it opens no
database over the network, and reads the encoder from a file in the run's folder, once.
Determinism: always the same micro-batches, each on one thread, and a quarantined row leaves its place in the
micro-batch black, so that neighbours change no bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.pipeline.check import DENOISED_IN
from trm_nb.records import CAPSULES, FEATURES, Precision
from trm_nb.storage.arrays import Layout
from trm_nb.storage.files import Staged
from trm_nb.storage.shards import read_places, stage_batch
from trm_nb.workers.worker import Task, working_on

if TYPE_CHECKING:
    from trm_nb.models.encoder import Encoder

ENCODER = "encoder_fingerprint"  # of the weights that a run is frozen to
COMPUTED_IN = "encoder_computed_in"  # the precision that "auto" stood for, fixed with the first batch
Place = tuple[int, int]  # shard and slot of an image


@dataclass(frozen=True, slots=True)
class EncodeRecipe:
    """How and where to: `weights` is the encoder's checkpoint, `images` the cache's array, `folder` where to stage."""

    weights: str
    fingerprint: str
    micro_batch: int
    torch_threads: int
    device: str
    precision: str
    images: str
    layout: Layout
    folder: str
    batch: Layout

    @property
    def encoding(self) -> str:
        """What a capsule follows from besides its image, see `encoding_of`."""
        return encoding_of(self.fingerprint, self.precision)


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch to encode: the place of each row's image, None for a quarantined row."""

    number: int
    places: tuple[Place | None, ...]
    made_from: str
    recipe: EncodeRecipe

    def __str__(self) -> str:
        return f"batch {self.number}"


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """What an encoding task returns."""

    staged: Staged
    seconds: float


def encode_batch(task: Task[Batch]) -> EncodedBatch:
    """Encode a task of one batch, in a worker of a cluster."""
    (batch,) = task
    return encode_with(_encoder(batch.recipe), batch, lambda: working_on(None))


@lru_cache(maxsize=1)
def _encoder(recipe: EncodeRecipe) -> Encoder:
    from trm_nb.models.encoders import load_encoder

    encoder = load_encoder(recipe.weights, recipe.device, image_size=recipe.layout.item[0])
    if encoder.fingerprint != recipe.fingerprint:
        raise RuntimeError(f"{recipe.weights}: weights {encoder.fingerprint}, expected {recipe.fingerprint}")
    return encoder


def encode_with(encoder: Encoder, batch: Batch, on_progress: Callable[[], None]) -> EncodedBatch:
    """Encode one batch and stage its file: float16 (batch_size, 12, 512), NaN for quarantined rows."""
    started, recipe, places = time.monotonic(), batch.recipe, batch.places
    capsules = np.full((len(places), CAPSULES, FEATURES), np.nan, np.float16)
    at_once = recipe.micro_batch * recipe.torch_threads
    for start in range(0, len(places), at_once):
        part = places[start : start + at_once]
        usable = [i for i, place in enumerate(part) if place is not None]
        if usable:
            images = np.zeros((len(part), *recipe.layout.item), np.uint8)
            found = [place for place in part if place is not None]
            images[usable] = read_places(Path(recipe.images), recipe.layout, np.array(found))
            encoded = encode_images(encoder, images, recipe, recipe.precision)
            capsules[start + np.asarray(usable)] = encoded[usable]
        on_progress()
    return EncodedBatch(stage_batch(Path(recipe.folder), capsules, recipe.batch), time.monotonic() - started)


def encoding_of(fingerprint: str, precision: str) -> str:
    """Identify an encoder and the precision it computes in; batches of another one are not reused."""
    return fingerprint if precision == "float32" else f"{fingerprint} {precision}"


def precision_for(wanted: Literal["auto"] | Precision, device: str) -> Precision:
    """The precision that `encoder_precision` or `denoiser_precision` means on a device.

    "auto" goes by what the device can do and not by a timing, as two builds on one machine must give equal bytes.
    """
    from trm_nb.models.hardware import fast_in_bfloat16

    if wanted != "auto":
        return wanted
    return "bfloat16" if fast_in_bfloat16(device) else "float32"


def precision_of(frozen: Mapping[str, Any], config: MultimodalDatasetConfig) -> Precision:
    """The encoder's precision in a run: that of its first batch, or else what its config means here."""
    return frozen.get(COMPUTED_IN) or precision_for(config.encoder_precision, config.device)


def denoiser_precision_of(frozen: Mapping[str, Any], config: MultimodalDatasetConfig) -> Precision:
    """The denoiser's precision in a run: that of its plan, float32 in runs that were planned before there was a
    choice, or else what its config means here."""
    if "renderers" in frozen or not config.use_denoiser:
        return cast(Precision, frozen.get(DENOISED_IN, "float32"))
    return precision_for(config.denoiser_precision, "cpu")


def encode_images(
    encoder: Encoder, images: np.ndarray, how: EncodeRecipe | MultimodalDatasetConfig, precision: str
) -> np.ndarray:
    """Capsules as they are stored: each micro-batch on one thread, as many of them at a time as there are threads.

    That is faster than all threads on one micro-batch, and the number of threads changes no bit.

    Args:
        encoder: on the device.
        images: uint8 (n, h, w, 3).
        how: has the micro-batch, the number of threads and the device; a GPU is given one micro-batch at a time.
        precision: "float32" or "bfloat16".

    Returns:
        float16 (n, 12, 512).
    """
    import torch

    from trm_nb.models.hardware import cpu_threads

    kind = torch.device(how.device).type

    def encode(start: int) -> np.ndarray:
        low = torch.autocast(kind, torch.bfloat16, enabled=precision == "bfloat16")
        with torch.inference_mode(), low:
            part = torch.from_numpy(images[start : start + how.micro_batch]).to(how.device)
            capsules: np.ndarray = encoder(part).float().cpu().numpy()
        return capsules.astype(np.float16)

    workers = how.torch_threads if kind == "cpu" else 1
    with cpu_threads(1), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return np.concatenate(list(pool.map(encode, range(0, max(1, len(images)), how.micro_batch))))
