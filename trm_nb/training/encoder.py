"""Fits the vision encoder to a run: with a TinyRecursiveModel on top it learns to answer from the cached images.

What an encoder keeps is not all that the answers ask for. The pair learns by the one loop of reasoning.py: the
images stand in the carry, each outer step encodes them anew and passes the gradient of the answer on through the
capsules. Only the encoder is kept, as the run's encoder; the model that reads its capsules is trained again on what was
stored.
Cost: a step is some three times the encoding of its batch, forwards; the images of a batch are read from the cache.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from trm_nb.cache.image_cache import ImageCache
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.models.encoder import Encoder
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel, TRMConfig
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.training.predictions import evaluate
from trm_nb.training.reasoning import train
from trm_nb.training.state import Settings
from trm_nb.training.targets import Targets

# One look teaches the encoder more than a model that thinks; mixing places as suits the board starts in time (LOG.md).
READER = {"hidden_size": 128, "num_heads": 4, "H_cycles": 1, "L_cycles": 2, "halt_max_steps": 1}
_COLUMNS = ("status", "target", "split", "key", "pages")


class ImageTRM(TinyRecursiveModel):
    """A TinyRecursiveModel whose capsules come from an encoder of its own: a batch has `images` uint8 (b, h, w, 3)."""

    def __init__(self, config: TRMConfig, encoder: Encoder, generator: torch.Generator) -> None:
        super().__init__(config, generator)
        self.encoder = encoder

    def embedded(self, data: Mapping[str, Tensor]) -> Tensor:
        return super().embedded({**data, "capsules": self.encoder(data["images"])})


class ImageTargets(Targets):
    """The cached images that hold a whole question with one answer grid; `table` is as samples.parquet."""

    def __init__(self, table: pa.Table, cache: ImageCache, encoder: Encoder, where: Path) -> None:
        usable = [
            (row, *values)
            for row, values in enumerate(zip(*(table[name].to_pylist() for name in _COLUMNS), strict=True))
            if values[0] == "ok" and len(values[1] or ()) == 1 and values[4] == 1
        ]
        self.cache, self.encoder = cache, encoder
        self.keys = [key for *_, key, _ in usable]
        super().__init__(
            [np.array(target[0], np.int8) for _, _, target, *_ in usable],
            [split for _, _, _, split, *_ in usable],
            np.array([row for row, *_ in usable], np.int64),
            "".join([encoder.fingerprint, *self.keys]),
            where,
            **READER,
        )

    def new_model(self, generator: torch.Generator) -> ImageTRM:
        """With a copy of the encoder that the training starts from."""
        return ImageTRM(self.model, copy.deepcopy(self.encoder), generator)

    def _inputs(self, chosen: np.ndarray) -> dict[str, Tensor]:
        return {"images": torch.from_numpy(self.cache.get_many([self.keys[i] for i in chosen]))}


def fit_encoder(
    path: Path,
    examples: ImageTargets,
    config: MultimodalDatasetConfig,
    tracker: TrainingProgressTracker,
    on_step: Callable[[], None] | None = None,
) -> None:
    """Train the pair for `fit_steps` steps in the folder of `path`, where the averaged encoder is saved at the end.

    It is the encoder of the best step by validation. The test samples are not used.
    Goes on where a killed training stopped, and ends with the same weights.
    """
    settings = Settings(
        config.fit_steps, batch=config.fit_batch_size, learning_rate=5e-4,
        weight_decay=0.0, average=0.99, seed=config.seed,
        torch_threads=config.torch_threads, device=config.device,
    )  # fmt: skip
    trained = train(path.parent, examples, settings, tracker, stage="fit", on_step=on_step)
    assert isinstance(trained.model, ImageTRM)
    facts: dict[str, float] = {"steps": trained.steps, "best_step": trained.best_step}
    if trained.validated:
        facts["val_accuracy"] = evaluate(trained.model, examples, settings, part="val").accuracy
    trained.model.encoder.trained = True
    trained.model.encoder.save(path, examples=examples.name, **facts)
