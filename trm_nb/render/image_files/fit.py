"""How an image comes into square images: at what size, and in how many squares.

Choice: "letterbox" shows all of it at its own proportions, and borders fill the square; "crop" shows the largest square
in its middle; "stretch" shows all of it, distorted; "tiles" cuts it into squares at its own resolution, reduced only as
far as MAX_TILES asks. It follows from the header's size alone, as planning decodes no pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Fit: TypeAlias = Literal["letterbox", "crop", "stretch", "tiles"]
MAX_TILES = 64  # of one page or frame


@dataclass(frozen=True, slots=True)
class Fitted:
    """The pixels that what is shown of an image becomes, and the side of the squares it is cut into."""

    width: int
    height: int
    side: int

    @property
    def squares(self) -> int:
        """How many squares it fills; the same for the image turned."""
        return -(-self.width // self.side) * -(-self.height // self.side)


def fitted(fit: Fit, width: int, height: int, side: int) -> Fitted:
    """How an image of `width` x `height` pixels (1 or more) comes into squares of `side`."""
    if fit in ("crop", "stretch"):
        return Fitted(side, side, side)
    longest = max(width, height)
    if fit == "tiles" and longest > side:
        return _tiled(width, height, side)
    return Fitted(max(1, round(width * side / longest)), max(1, round(height * side / longest)), side)


def _tiled(width: int, height: int, side: int) -> Fitted:
    """The image's own size, or the largest below it that fills at most MAX_TILES squares: there one of its sides is
    a whole number of squares."""
    own = Fitted(width, height, side)
    if own.squares <= MAX_TILES:
        return own
    lengths = [n * side for n in range(1, MAX_TILES + 1)]
    sizes = [Fitted(length, _part(height, length, width), side) for length in lengths]
    sizes += [Fitted(_part(width, length, height), length, side) for length in lengths]
    return max((size for size in sizes if size.squares <= MAX_TILES), key=lambda size: size.width * size.height)


def _part(length: int, numerator: int, denominator: int) -> int:
    """length * numerator / denominator, rounded, at least 1."""
    return max(1, (2 * length * numerator + denominator) // (2 * denominator))
