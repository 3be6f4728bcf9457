"""Colours as arrays: from hex digits, and as one number, by which colours are compared and looked up."""

from __future__ import annotations

import numpy as np


def colours(*codes: str) -> np.ndarray:
    """uint8 (n, 3) of n colours as six hex digits."""
    return np.array([tuple(bytes.fromhex(code)) for code in codes], np.uint8)


def pack(of: np.ndarray) -> np.ndarray:
    """int32 (...) of uint8 (..., 3): a colour as one number."""
    wide = of.astype(np.int32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])
