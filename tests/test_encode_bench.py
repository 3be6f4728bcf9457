"""The benchmark of encoders counts the operations that it divides by."""

from __future__ import annotations

import pytest
import torch
from bench import encode
from torch import nn

WIDTH, TOKENS = 8, 5
ATTENTION = 2 * 2 * TOKENS**2 * WIDTH  # queries by keys, and weights by values


@pytest.mark.parametrize(
    ("model", "operations"),
    [
        (nn.Linear(WIDTH, 3), 2 * TOKENS * WIDTH * 3),
        (lambda x: nn.functional.scaled_dot_product_attention(x, x, x), ATTENTION),
    ],
    ids=["a matrix product", "attention"],
)
def test_operations_are_those_of_an_image(model: encode.Encode, operations: int) -> None:
    parts = torch.zeros(7, TOKENS, WIDTH).split(4)
    assert encode.counted(model, parts) == operations
