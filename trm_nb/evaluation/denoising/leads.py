"""By how much a denoiser is ahead of the best of the other methods, on each kind of noise.

The best is the one with the highest mean PSNR over the images of the table of `denoise.benchmark.compare`. A lead is
tested by the sign test over these images, so a few of them can show little.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from trm_nb.denoise.benchmark import Row
from trm_nb.training.verdicts import p_value, sign_flip


@dataclass(frozen=True, slots=True)
class Lead:
    """The gain of `arm` over `other` on one kind of noise: its mean in dB, and on how many images it is ahead."""

    noise: str
    arm: str
    other: str
    gain: float
    ahead: int
    images: int
    p: float

    def sentence(self) -> str:
        """The lead as one sentence of Markdown."""
        on = f"{self.ahead} of {self.images} images ({p_value(self.p)})"
        return f"{self.arm}, {self.noise}: **{self.gain:+.2f} dB** against {self.other}, ahead on {on}."


def leads_of(rows: Sequence[Row], ours: Collection[str]) -> list[Lead]:
    """The lead of each of `ours` on each noise; none on a noise that no other method was tried on."""
    found = []
    for row in rows:
        others = [r for r in rows if r.noise == row.noise and r.arm not in ("noisy", *ours)]
        if row.arm in ours and others:
            best = max(others, key=lambda other: other.psnr)
            gains = np.subtract(row.each, best.each)
            p = sign_flip(np.sign(gains).astype(int))
            found.append(Lead(row.noise, row.arm, best.arm, float(gains.mean()), int((gains > 0).sum()), len(gains), p))
    return found
