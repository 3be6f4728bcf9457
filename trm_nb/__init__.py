"""trm-nb: text, images and grids to 224x224 pictures, to capsules, to a Tiny Recursive Model.

Names are imported when they are first used, so that `import trm_nb` (and with it `trm-nb --help`) costs nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

# Drawing processes and the encoder's threads share the cores. Threads that spin while they wait for each other then
# stand still: 183 ms instead of 10 ms a picture beside one busy process (LOG.md). Set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from trm_nb.capsule_dataset import CapsuleDataset
    from trm_nb.capsule_stream import CapsuleStream
    from trm_nb.config import MultimodalDatasetConfig
    from trm_nb.image_cache import ImageCache
    from trm_nb.pipeline import build, open_run
    from trm_nb.records import Item
    from trm_nb.render.grid import GridRenderer
    from trm_nb.render.text import TextRenderer
    from trm_nb.streaming_builder import StreamingEncoderBuilder
    from trm_nb.training_progress import TrainingProgressTracker
    from trm_nb.vision_encoder import TRMVisionEncoder

__version__ = "0.1.0"

_HOME = {
    "build": "trm_nb.pipeline",
    "open_run": "trm_nb.pipeline",
    "CapsuleDataset": "trm_nb.capsule_dataset",
    "CapsuleStream": "trm_nb.capsule_stream",
    "GridRenderer": "trm_nb.render.grid",
    "ImageCache": "trm_nb.image_cache",
    "Item": "trm_nb.records",
    "MultimodalDatasetConfig": "trm_nb.config",
    "StreamingEncoderBuilder": "trm_nb.streaming_builder",
    "TRMVisionEncoder": "trm_nb.vision_encoder",
    "TextRenderer": "trm_nb.render.text",
    "TrainingProgressTracker": "trm_nb.training_progress",
}
__all__ = [
    "CapsuleDataset",
    "CapsuleStream",
    "GridRenderer",
    "ImageCache",
    "Item",
    "MultimodalDatasetConfig",
    "StreamingEncoderBuilder",
    "TRMVisionEncoder",
    "TextRenderer",
    "TrainingProgressTracker",
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
