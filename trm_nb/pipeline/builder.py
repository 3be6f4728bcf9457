"""StreamingEncoderBuilder: samples in memory to capsules, by the stages of a `Run`."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trm_nb.cache.image_cache import ImageCache
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError
from trm_nb.models.encoders import on_device
from trm_nb.pipeline.run import Run
from trm_nb.records import IN_MEMORY, Progress
from trm_nb.render.renderer import Renderer

if TYPE_CHECKING:
    from trm_nb.models.encoder import Encoder

START_THRESHOLD = 50_000


@dataclass(frozen=True, slots=True)
class StreamReport:
    """What a streaming build did: rows of the whole dataset, images rendered and batches encoded in this call."""

    rows: int
    images_rendered: int
    batches_encoded: int
    batches_total: int
    chunks_total: int


class StreamingEncoderBuilder:
    """Builds the capsules of samples that a program hands over; made again after an interruption, it continues.

    Args:
        checkpoint_dir: the run's folder.
        batch_size: samples in a batch file.
        batches_per_chunk: batches that are consolidated into one chunk.
        cache: None: `<checkpoint_dir>/images.zarr`.
        encoder: None: the trained encoder of the preset `base`.
        micro_batch, torch_threads, device, precision: how it encodes; fixed for a run. See the config fields
            `micro_batch`, `torch_threads`, `device` and `encoder_precision`.
        seed: decides the split.
        workers: rendering processes; None: one a core.
        cluster: a Dask scheduler whose workers render and encode (workers/dask_cluster.py).
        max_errors: more quarantined items and samples than that (below 1: that part of all) end a build.
    """

    def __init__(
        self,
        checkpoint_dir: str | Path,
        batch_size: int = 1000,
        *,
        batches_per_chunk: int = 100,
        cache: ImageCache | None = None,
        encoder: Encoder | None = None,
        micro_batch: int = 64,
        torch_threads: int = 2,
        device: str = "cpu",
        precision: str = "auto",
        seed: int = 0,
        workers: int | None = None,
        cluster: str | None = None,
        max_errors: int | float | None = None,
    ) -> None:
        self.cache, self.encoder = cache, encoder
        settings = {
            "source_paths": [IN_MEMORY], "output_dir": str(checkpoint_dir), "batch_size": batch_size,
            "batches_per_chunk": batches_per_chunk, "micro_batch": micro_batch, "torch_threads": torch_threads,
            "device": device, "encoder_precision": precision, "seed": seed, "workers": workers, "cluster": cluster,
            "max_errors": max_errors,
        }  # fmt: skip
        self.config = MultimodalDatasetConfig.parse(settings, "StreamingEncoderBuilder")

    def stream_build(
        self,
        samples: Iterable[Any],
        renderer: Renderer | None = None,
        start_threshold: int = START_THRESHOLD,
        on_progress: Progress | None = None,
    ) -> StreamReport:
        """Render, cache, encode and consolidate samples.

        Args:
            samples: text, PIL images, integer grids and Items in any mixture. They are walked in order, and again
                after an interruption; they must be the same then.
            renderer: replaces the default one (other text size or image size).
            start_threshold: encoding starts once so many samples are cached, or all of them.
            on_progress: called often.

        Returns:
            What the whole dataset holds, and what this call added.

        Raises:
            UserError: for a mistake in the settings, and when another process writes to the folder.
            DamagedError: for data that is missing or altered; calling it again repairs it.
        """
        if renderer is not None and self.cache is not None:
            raise UserError(
                "a cache was given, and it has its own renderer: give the renderer's settings to ImageCache"
            )
        encoder = self.encoder and on_device(self.encoder, self.config.device)
        used = renderer or (self.cache.renderer if self.cache else Renderer())
        config = self.config.with_changes(start_threshold=start_threshold, **asdict(used.settings))
        with closing(Run(config, samples=samples, cache=self.cache, encoder=encoder)) as run:
            rendered, encoded = run.build(on_progress)
            total = run.consolidator.batches_total() or 0
            chunks = -(-total // config.batches_per_chunk)
            return StreamReport(run.tracker.rows_planned(), rendered, encoded, total, chunks)
