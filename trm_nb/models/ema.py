"""Exponential moving averages (EMA) of weights."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, keep: float, step: int) -> None:
    """Move the moving average of the weights on, after step `step`; the untrained weights are soon forgotten."""
    keep = min(keep, step / (step + 9))
    for mean, now in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(now, 1 - keep)
