"""What torch computes with: CPU threads, and whether bfloat16 is fast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trm_nb.errors import UserError


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """torch on so many CPU threads, as more or fewer can change the last bits of a sum; then the caller's number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fast_in_bfloat16(device: str) -> bool:
    """Whether `device` multiplies in bfloat16, which is then about twice as fast as float32; where PyTorch imitates it,
    a step was 12 times slower (AVX2). Older versions of PyTorch do not tell what a processor has: that counts as no."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has = getattr(torch.cpu, "get_capabilities", dict[str, bool])()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def check_device(device: str) -> None:
    """Raise UserError for a GPU where there is none."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device: expected one that torch can use, got {device!r} without a GPU; use cpu")
