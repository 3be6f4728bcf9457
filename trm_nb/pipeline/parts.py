"""The parts of a run, each made when it is first asked for: tracker, image cache, consolidator and encoder.

And what the run holds, for people.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trm_nb.cache.image_cache import ImageCache
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.describe import Described, Facts, attempted, counted, named
from trm_nb.models.encoders import encoder_for
from trm_nb.pipeline.check import check_names
from trm_nb.pipeline.consolidate import Consolidator
from trm_nb.pipeline.dataset_files import samples_frame
from trm_nb.pipeline.encode_task import denoiser_precision_of, encode_images, precision_of
from trm_nb.pipeline.plan import as_noted
from trm_nb.progress.run_folder import RunPaths, is_run, refuse_foreign
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import Item, Rejected
from trm_nb.render.renderer import RenderSettings
from trm_nb.sources.reader import scan

if TYPE_CHECKING:
    import pandas as pd

    from trm_nb.models.encoder import Encoder


class RunParts(Described):
    """One output folder, its config, and what works on it.

    Args:
        config: what to do, with absolute paths.
        samples: what to plan instead of the config's sources: text, PIL images, integer grids and Items, which are
            walked in order, and again after an interruption.
        cache: the run's image cache; None: `images.zarr` in its folder, as the config says.
        encoder: None: as the config says.
        sources_needed: whether a finished run's sources must be there and be those that were planned.
    """

    def __init__(
        self,
        config: MultimodalDatasetConfig,
        *,
        samples: Iterable[Any] | None = None,
        cache: ImageCache | None = None,
        encoder: Encoder | None = None,
        sources_needed: bool = True,
    ) -> None:
        check_names(config)
        self.config = config
        self.sources_needed = sources_needed
        self.paths = RunPaths(Path(config.output_dir))
        self.path = self.paths.root
        refuse_foreign(self.path)
        self._samples = samples
        self._tracker: TrainingProgressTracker | None = None
        self._consolidator: Consolidator | None = None
        self._cache, self._encoder = cache, encoder
        self._owns_cache = cache is None

    # -- its parts --------------------------------------------------------------------------------------------------

    @property
    def tracker(self) -> TrainingProgressTracker:
        """The run's one record of progress."""
        if self._tracker is None:
            self._tracker = TrainingProgressTracker(self.path, create=True)
        return self._tracker

    @property
    def cache(self) -> ImageCache:
        """The run's images."""
        if self._cache is None:
            c = self.config
            self._cache = ImageCache(
                self.paths.images, c.use_denoiser, c.denoiser_path, denoiser=c.denoiser,
                denoiser_precision=denoiser_precision_of(self.tracker.frozen(), c),
                render=RenderSettings.of(c), shard_size=c.batch_size, workers=c.workers, cluster=c.cluster,
            )  # fmt: skip
        return self._cache

    @property
    def consolidator(self) -> Consolidator:
        """What makes chunks of batches."""
        if self._consolidator is None:
            c = self.config
            self._consolidator = Consolidator(self.tracker, c.batch_size, c.batches_per_chunk)
        return self._consolidator

    @property
    def encoder(self) -> Encoder:
        """The encoder: fitted to this run, or read from `encoder_path`, or with the weights of `encoder_weights`."""
        if self._encoder is None:
            self._encoder = encoder_for(self.config, self.paths.fitted_encoder)
        return self._encoder

    def encode_images(self, images: np.ndarray) -> np.ndarray:
        """Capsules of images uint8 (n, h, w, 3), as this run computes its own: float16 (n, 12, 512)."""
        return encode_images(self.encoder, images, self.config, precision_of(self.tracker.frozen(), self.config))

    def close(self) -> None:
        """Close the run's databases; nothing is lost without it, but the files stay open until then."""
        if self._tracker is not None:
            self._tracker.close()
            self._tracker = self._consolidator = None
        if self._cache is not None and self._owns_cache:
            self._cache.close()
            self._cache = None

    # -- looking ----------------------------------------------------------------------------------------------------

    def items(self) -> Iterator[Item]:
        """The items of the sources, read again; what cannot be used is left out (see `rejected`)."""
        for reading in scan(self.config):
            yield from (as_noted(entry, self.tracker) for entry in reading.entries if isinstance(entry, Item))

    def samples(self) -> pd.DataFrame:
        """The plan as a DataFrame: a row a sample, in row order, with the columns of samples.parquet but for `target`.

        A missing value is NaN. The targets of a finished dataset are in `CapsuleDataset.target`.
        """
        return samples_frame(self.tracker, self.cache.denoise_results)

    def rejected(self) -> list[Rejected]:
        """What is quarantined, with the reasons."""
        return self.tracker.rejected()

    def _facts(self) -> Facts:
        return {"folder": self.path, **attempted("tracker", self._progress), **attempted("dataset", self._dataset)}

    def _progress(self) -> Facts:
        if self._tracker is not None:
            return self._tracker.facts()
        if not self.paths.tracker.is_file() and not is_run(self.path):
            return {"state": "new"}
        tracker = TrainingProgressTracker(self.path)
        try:
            return tracker.facts()
        finally:
            tracker.close()

    def _dataset(self) -> Facts:
        if not self.paths.info.is_file():
            return {"dataset": "not finished"}
        info = self.info()
        counts, encoder = info["counts"], info["encoder"]
        return {
            "by split": counted(counts["splits"]),
            "by modality": counted(counts["modalities"]),
            "classes": named(info["classes"]),
            "encoder": f"{encoder['preset']}, {'trained' if encoder['trained'] else 'untrained'}",
            "content digest": info["content_digest"],
        }

    def info(self) -> dict[str, Any]:
        """dataset_info.json of a finished dataset."""
        info: dict[str, Any] = json.loads(self.paths.info.read_text(encoding="utf-8"))
        return info
