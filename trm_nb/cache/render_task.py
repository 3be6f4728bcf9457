"""The rendering task: a shard of samples to a staged file of pixels, in a worker or, for few samples, in the run.

Choice: a decoder that crashes or hangs takes its process along, so a worker records each sample of an untrusted
modality before it decodes it (workers/worker.py), and where the run renders itself, it leaves a marker file in the
cache: a run that finds the marker of a run that died uses a worker, however few the samples are.
Cost: two system calls for each of these samples; no array leaves the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from trm_nb.denoise import checkpoint_of, load_denoiser
from trm_nb.errors import Failure, UserError
from trm_nb.records import DenoiseResult, DenoiserSize, Modality, Precision, Sample
from trm_nb.render.modalities import is_untrusted
from trm_nb.render.renderer import Renderer, RenderSettings
from trm_nb.storage.arrays import Layout
from trm_nb.storage.files import Staged
from trm_nb.storage.shards import stage_shard
from trm_nb.workers.worker import Task, in_worker, working_on

if TYPE_CHECKING:
    from trm_nb.denoise import AnyDenoiser

DENOISED_PIXELS = 8 * 224 * 224  # at once, before the next sign of life


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that turns a sample into pixels; a worker builds its renderer and denoiser from it, once.

    `denoiser_path` None is the shipped one of `denoiser_size`, wherever the package lies on the worker's machine.
    """

    render: RenderSettings
    denoiser_path: str | None
    denoiser_size: DenoiserSize
    denoiser_precision: Precision
    denoiser: str  # its fingerprint, "" for none
    denoised: tuple[Modality, ...]


@dataclass(frozen=True, slots=True)
class RenderedShard:
    """What a rendering task returns: its staged file, the keys in slot order ("" where one failed) and the failures.

    Failures that are retryable are not kept in the cache.
    `denoised` says what the denoiser made of those that passed through it.
    """

    staged: Staged
    keys: tuple[str, ...]
    failed: dict[str, Failure]
    denoised: dict[str, DenoiseResult]


@lru_cache(maxsize=2)
def _tools(recipe: Recipe) -> tuple[Renderer, AnyDenoiser | None]:
    """One renderer and one denoiser a process."""
    checkpoint = checkpoint_of(recipe.denoiser_path, recipe.denoiser_size)
    denoiser = load_denoiser(checkpoint, precision=recipe.denoiser_precision) if recipe.denoiser else None
    found = denoiser.fingerprint if denoiser else ""
    if found != recipe.denoiser:  # else images would be kept under keys that say something else
        raise UserError(
            f"{checkpoint}: this worker's denoiser is {found or 'missing'}, expected "
            f"{recipe.denoiser}; it was replaced meanwhile, or is another file here: run again"
        )
    return Renderer(recipe.render), denoiser


def render_shard(samples: Task[Sample], recipe: Recipe, layout: Layout, folder: str) -> RenderedShard:
    """Render, denoise and stage one whole shard in `folder`."""
    renderer, denoiser = _tools(recipe)
    with _marked(Path(folder), samples):
        images, failures = renderer.rasterise(samples, working_on)
        working_on(None)
    denoised: dict[str, DenoiseResult] = {}
    if denoiser is not None:
        from trm_nb.models.hardware import cpu_threads

        noisy = [i for i, sample in enumerate(samples) if sample.modality in recipe.denoised and i not in failures]
        at_once = max(1, DENOISED_PIXELS // (images.shape[1] * images.shape[2]))
        for first in range(0, len(noisy), at_once):
            block = noisy[first : first + at_once]
            with cpu_threads(1):  # the workers fill the cores; and more threads can change last bits
                images[block], denoise_results = denoiser.restore_images(images[block])
            denoised |= {
                samples[i].key: denoise_result for i, denoise_result in zip(block, denoise_results, strict=True)
            }
            working_on(None)  # a sign of life
    staged = stage_shard(Path(folder), images, layout)
    keys = tuple("" if i in failures else sample.key for i, sample in enumerate(samples))
    failed = {samples[i].key: failure for i, failure in failures.items()}
    return RenderedShard(staged, keys, failed, denoised)


def marker(folder: Path) -> Path:
    """The file in a cache's receipts folder that is there while the run's own process renders untrusted content."""
    return folder / "rendering-in-the-run"


@contextmanager
def _marked(folder: Path, samples: Task[Sample]) -> Iterator[None]:
    if in_worker() or not any(is_untrusted(sample.content) for sample in samples):
        yield
        return
    marker(folder).touch()
    try:
        yield
    finally:
        marker(folder).unlink(missing_ok=True)
