"""The two optimisers of the official TRM: AdamATan2 for the weights, SignSGD for the puzzles' embeddings; averages.

Sources: Everett et al., "Scaling Exponents Across Parameterizations and Optimizers", 2024 (Adam with atan2, which needs
no epsilon and does not care about the gradient's scale), and the official TRM code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


class AdamATan2(Optimizer):
    """p *= 1 - lr * weight_decay; p -= lr / (1 - b1^t) * atan2(m, sqrt(v) / sqrt(1 - b2^t))."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step on every parameter that has a gradient; all of a group together, which a GPU likes."""
        if closure is not None:
            raise TypeError("AdamATan2 takes no closure")
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            states = [self._state(p) for p in weights]
            means, squares = [s["mean"] for s in states], [s["square"] for s in states]
            gradients = [p.grad for p in weights]
            lr, (b1, b2) = group["lr"], group["betas"]
            t = states[0]["step"] + 1
            for state in states:
                state["step"] = t
            torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
            torch._foreach_lerp_(means, gradients, 1 - b1)
            torch._foreach_mul_(squares, b2)
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - b2)
            spreads = torch._foreach_sqrt(squares)
            torch._foreach_div_(spreads, (1 - b2**t) ** 0.5)
            turned = [torch.atan2(mean, spread) for mean, spread in zip(means, spreads, strict=True)]
            torch._foreach_add_(weights, turned, alpha=-lr / (1 - b1**t))

    def _state(self, p: nn.Parameter) -> dict[str, Any]:
        state: dict[str, Any] = self.state[p]
        if not state:
            state.update(step=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
        return state


class SignSGD(Optimizer):
    """row = row * (1 - lr * weight_decay) - lr * sign(gradient), for the rows that the batch had and no others.

    Gradients are sparse (`F.embedding(..., sparse=True)`); rows that occur several times in a batch add up first.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float = 1e-2, weight_decay: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step on the rows that have a gradient."""
        if closure is not None:
            raise TypeError("SignSGD takes no closure")
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                gradient = p.grad.coalesce()
                rows = gradient.indices()[0]
                kept = p[rows] * (1 - group["lr"] * group["weight_decay"])
                p[rows] = kept - group["lr"] * gradient.values().sign()
