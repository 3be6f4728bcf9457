"""What of a run's arrays is missing or not what its receipts say: `verify` prints it, `repair` removes it.

The quick inspection compares existence and size; the deep one hashes every file, at the disk's speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trm_nb.cache.image_cache import ImageCache
from trm_nb.pipeline.consolidate import Consolidator


@dataclass(frozen=True, slots=True)
class Damage:
    """One file that is missing, altered or unknown.

    `what` says of what: a "shard" of images, a "chunk" or a "batch" of capsules, which have a `number`, or a "stray"
    file of capsules at `path`, which neither a receipt nor the tracker knows.
    """

    what: Literal["shard", "chunk", "batch", "stray"]
    message: str
    number: int = -1
    path: Path = Path()


def inspect(cache: ImageCache | None, consolidator: Consolidator | None, deep: bool) -> list[Damage]:
    """Inspect what there is of a run's arrays.

    Args:
        cache: the run's images; None where there are none.
        consolidator: of the run's batches and chunks; None where nothing was encoded.
        deep: read everything and compare the hashes.

    Returns:
        The damages: of images first, then of chunks and batches, then stray files.
    """
    found: list[Damage] = []
    if cache is not None:
        found += [Damage("shard", message, shard) for shard, message in cache.damaged(deep).items()]
    if consolidator is not None:
        found += [Damage("chunk", message, chunk) for chunk, message in consolidator.damaged_chunks(deep).items()]
        found += [Damage("batch", message, batch) for batch, message in consolidator.damaged_batches(deep).items()]
        unknown = "its receipt is missing, so its content cannot be verified"
        found += [Damage("stray", f"{path}: {unknown}", path=path) for path in consolidator.unknown_files()]
    return found
