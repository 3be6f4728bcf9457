"""The one way to a denoiser: `load_denoiser`: the self-adapting one, else the plain one, else none."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from trm_nb.errors import UserError
from trm_nb.records import DenoiserSize, Precision

if TYPE_CHECKING:
    from trm_nb.denoise.noise2noise import Denoiser
    from trm_nb.denoise.seal import AdaptiveDenoiser

    AnyDenoiser: TypeAlias = Denoiser | AdaptiveDenoiser

__all__ = ["SHIPPED", "adaptive_path", "checkpoint_of", "load_denoiser"]
_CHECKPOINTS = Path(__file__).parents[1] / "assets" / "checkpoints"  # with a card that describes them
SHIPPED: dict[DenoiserSize, Path] = {
    "base": _CHECKPOINTS / "n2n_denoiser.pt",
    "large": _CHECKPOINTS / "n2n_denoiser_large.pt",
}
log = logging.getLogger(__name__)


def checkpoint_of(path: str | Path | None, size: DenoiserSize) -> Path:
    """`path`, or where it is None the checkpoint of that size that comes with the package.

    Raises UserError for an unknown size.
    """
    if path is not None:
        return Path(path)
    if size not in SHIPPED:
        raise UserError(f"denoiser: expected one of {', '.join(SHIPPED)}, got {size!r}; or give a denoiser_path")
    return SHIPPED[size]


def adaptive_path(path: str | Path) -> Path:
    """Where a checkpoint's self-adapting companion lies: `n2n_denoiser_adaptive.pt` beside `n2n_denoiser.pt`."""
    plain = Path(path)
    return plain.with_name(f"{plain.stem}_adaptive{plain.suffix}")


def load_denoiser(
    path: str | Path | None, adaptive: Literal["auto", False] = "auto", precision: Precision = "float32"
) -> AnyDenoiser | None:
    """Read the denoiser of a checkpoint; the log says which one was taken.

    Args:
        path: of the plain denoiser's checkpoint.
        adaptive: "auto": adapt to each image where the companion is there that `adaptive_path` names; False: never.
        precision: that of the convolutions; bfloat16 is about twice as fast where the processor has it.

    Returns:
        The denoiser, whose `restore` takes float32 (b, 3, h, w) around [0, 1] and returns the same; None where `path`
        is None or no file is there, which is logged as a warning.

    Raises:
        UserError: for a file that is there but does not fit.
    """
    if path is None:
        return None
    plain = Path(path)
    if not plain.is_file():
        log.warning("no denoiser: %s does not exist, so images are cached as they are", plain)
        return None
    from trm_nb.denoise.noise2noise import Denoiser  # torch, only when it is needed

    denoiser = Denoiser.load(plain, precision)
    companion = adaptive_path(plain)
    if adaptive == "auto" and companion.is_file():
        from trm_nb.denoise.seal import AdaptiveDenoiser

        log.info("denoiser: %s, adapted to each image by %s", plain, companion.name)
        return AdaptiveDenoiser.load(companion, denoiser)
    log.info("denoiser: %s, not adapted to the image (there is no %s)", plain, companion.name)
    return denoiser
