"""Ways to damage a file: cut it short, or flip some of its bits."""

from __future__ import annotations

import random
from collections.abc import Iterator

Named = Iterator[tuple[str, bytes]]  # a file's name and its bytes


def truncated(name: str, data: bytes, parts: tuple[float, ...] = (0.02, 0.1, 0.3, 0.6, 0.95)) -> Named:
    """The first bytes alone, down to none."""
    stem, dot, suffix = name.partition(".")
    for size in [0, 1, 9, *(int(part * len(data)) for part in parts), len(data) - 1]:
        yield f"{stem}-cut{size:06d}{dot}{suffix}", data[:size]


def flipped(name: str, data: bytes, rng: random.Random, copies: int = 5) -> Named:
    """Copies with 1 to 64 wrong bits, half of them in the first 200 bytes, where headers are."""
    stem, dot, suffix = name.partition(".")
    for copy in range(copies):
        broken = bytearray(data)
        for _ in range(4 ** rng.randrange(4)):
            at = rng.randrange(min(200, len(data)) if rng.random() < 0.5 else len(data))
            broken[at] ^= 1 << rng.randrange(8)
        yield f"{stem}-bits{copy}{dot}{suffix}", bytes(broken)
