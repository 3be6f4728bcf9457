"""trm-nb: text, images and grids to 224x224 images, to capsules, to a Tiny Recursive Model.

Names are imported when they are first used, so that `import trm_nb` (and with it `trm-nb --help`) costs nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from trm_nb._version import __version__

# Rendering processes and the encoder's threads share the cores. Threads that spin while they wait for each other then
# stand still: 183 ms instead of 10 ms an image beside one busy process (LOG.md). Set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from trm_nb.cache.image_cache import ImageCache
    from trm_nb.config import MultimodalDatasetConfig
    from trm_nb.dataset.capsule_dataset import CapsuleDataset
    from trm_nb.dataset.capsule_stream import CapsuleStream
    from trm_nb.models.vision_encoder import TRMVisionEncoder
    from trm_nb.pipeline.builder import StreamingEncoderBuilder
    from trm_nb.pipeline.prediction.model import Model
    from trm_nb.pipeline.run import build, open_run
    from trm_nb.progress.tracker import TrainingProgressTracker
    from trm_nb.records import Item
    from trm_nb.render.grid import GridRenderer
    from trm_nb.render.text import TextRenderer

_HOME = {
    "build": "trm_nb.pipeline.run",
    "open_run": "trm_nb.pipeline.run",
    "CapsuleDataset": "trm_nb.dataset.capsule_dataset",
    "CapsuleStream": "trm_nb.dataset.capsule_stream",
    "GridRenderer": "trm_nb.render.grid",
    "ImageCache": "trm_nb.cache.image_cache",
    "Item": "trm_nb.records",
    "Model": "trm_nb.pipeline.prediction.model",
    "MultimodalDatasetConfig": "trm_nb.config",
    "StreamingEncoderBuilder": "trm_nb.pipeline.builder",
    "TRMVisionEncoder": "trm_nb.models.vision_encoder",
    "TextRenderer": "trm_nb.render.text",
    "TrainingProgressTracker": "trm_nb.progress.tracker",
}
__all__ = [
    "CapsuleDataset",
    "CapsuleStream",
    "GridRenderer",
    "ImageCache",
    "Item",
    "Model",
    "MultimodalDatasetConfig",
    "StreamingEncoderBuilder",
    "TRMVisionEncoder",
    "TextRenderer",
    "TrainingProgressTracker",
    "__version__",
    "build",
    "open_run",
]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'trm_nb' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
