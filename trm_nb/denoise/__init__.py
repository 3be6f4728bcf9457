"""The one way to a denoiser: `load_denoiser`.

None is shipped yet, so a pipeline that asks for one without naming a checkpoint runs without, and says so.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trm_nb.records import UserError

if TYPE_CHECKING:
    from trm_nb.denoise.noise2noise import Denoiser

__all__ = ["adaptive_path", "load_denoiser"]
log = logging.getLogger(__name__)


def adaptive_path(path: str | Path) -> Path:
    """Where a checkpoint's self-adapting companion lies: `n2n_denoiser_adaptive.pt` beside `n2n_denoiser.pt`."""
    plain = Path(path)
    return plain.with_name(f"{plain.stem}_adaptive{plain.suffix}")


def load_denoiser(path: str | Path | None, adaptive: Literal["auto", False] = "auto") -> Denoiser | None:
    """The denoiser of a checkpoint, or None where `path` is None or no file lies there (logged as a warning).

    A file that is there but does not fit raises UserError. So does an adaptive companion, which this version cannot
    read; `adaptive=False` takes the plain denoiser beside it.
    """
    if path is None:
        return None
    plain = Path(path)
    companion = adaptive_path(plain)
    if adaptive == "auto" and companion.is_file():
        raise UserError(
            f"{companion}: self-adapting denoisers cannot be read by this version; "
            f"move the file away to use {plain.name}"
        )
    if not plain.is_file():
        log.warning("no denoiser: %s does not exist, so pictures are cached as they are", plain)
        return None
    from trm_nb.denoise.noise2noise import Denoiser  # torch, only when it is needed

    return Denoiser.load(plain)
