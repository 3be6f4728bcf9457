"""What the numbers of capsules show before anything is trained on them: what they share, what varies, the main plane.

Everything is computed in memory; callers bound the number of samples.
"""

from __future__ import annotations

import numpy as np

MUCH, SOME = 0.5, 0.1  # of the variance of two capsules, in common


def shared_variance(capsules: np.ndarray) -> tuple[float, float, float]:
    """Of one image's capsules (k, d): mean and maximum correlation of two, and the mean part of variance they share."""
    pairs = np.corrcoef(capsules)[np.triu_indices(len(capsules), 1)]
    return float(pairs.mean()), float(pairs.max()), float((pairs**2).mean())


def shared_sentence(capsules: np.ndarray) -> str:
    """What one image's capsules (k, d) have in common, as Markdown."""
    mean, most, share = shared_variance(capsules)
    amount = "much" if share > MUCH else "some" if share > SOME else "little"
    return (
        f"The mean correlation of two capsules of this image is **{mean:.2f}**, the largest is {most:.2f}. "
        f"On average they have **{100 * share:.0f} %** of their variance in common: they share **{amount}**."
    )


def varying_share(capsules: np.ndarray) -> np.ndarray:
    """Of the capsules of n samples (n, k, d): the part of each one's energy that differs between samples, (k,)."""
    share: np.ndarray = capsules.var(axis=0).sum(axis=-1) / (capsules**2).mean(axis=0).sum(axis=-1)
    return share


def principal_plane(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal components by SVD: float (n, 2) coordinates, and the part of the variance each axis explains (2,)."""
    centred = (vectors - vectors.mean(axis=0)).astype(np.float64)
    if len(centred) < 2 or not centred.any():
        return np.zeros((len(centred), 2)), np.zeros(2)
    values, axes = np.linalg.eigh(centred @ centred.T)  # n x n, as n is far below the number of features
    top = np.argsort(-values)[:2]
    coordinates = axes[:, top] * np.sqrt(np.maximum(values[top], 0))
    signs = np.sign(coordinates[np.abs(coordinates).argmax(axis=0), range(coordinates.shape[1])])  # not up to chance
    return coordinates * np.where(signs == 0, 1, signs), values[top] / values.sum()
