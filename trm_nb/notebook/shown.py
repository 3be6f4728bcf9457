"""What a cell's last expression can be besides a table: a chart, images as tiles, text, and several outputs in order.

Charts are PNG and have a title of their own and a description; in a report they take the page's ground, light or dark.
Tiles are HTML with an image and a caption each, escaped, as both may come from data.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

from trm_nb.describe import printable
from trm_nb.render.colours import pack

if TYPE_CHECKING:
    from matplotlib.figure import Figure


DPI = 160
MOST_PNG = 30_000  # bytes of a tile; a larger one (a photograph) is a JPEG
Data: TypeAlias = dict[str, Any]  # by MIME type
_GRID = "display:grid;grid-template-columns:repeat(auto-fill,minmax({},1fr));gap:0.8em;margin-bottom:0.8em"


@dataclass(frozen=True, slots=True, eq=False)
class Plot:
    """A figure that shows itself as PNG, sharp on dense screens.

    Attributes:
        figure: of matplotlib.
        alt: what is seen, with its numbers: the caption of a report, and what is read to those who do not see it.
        title: stands above the figure; "" for none.
        chart: whether it is lines and text on white, whose colours may be inverted on a dark page.
    """

    figure: Figure
    alt: str
    title: str = ""
    chart: bool = True

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        data = io.BytesIO()
        if self.title and not self.figure.get_suptitle():
            self.figure.suptitle(self.title, fontsize=11, x=0.01, ha="left")
        self.figure.savefig(data, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
        data = _with_palette(data)
        described = {"alt": self.alt, "width": round(self.figure.get_figwidth() * 96), "chart": self.chart}
        described |= {"title": self.title} if self.title else {}
        return {"image/png": data.getvalue(), "text/plain": f"[plot] {self.alt}"}, {"image/png": described}


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """An image uint8 (h, w, 3) over its caption, which may have lines; `mark` is "", "same" or "query"."""

    image: np.ndarray
    caption: str
    mark: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """Rows of tiles that flow to fit the page.

    Attributes:
        rows: of tiles; each row begins on a line of its own.
        title: stands above them.
        alt: what is seen: the caption.
        large: whether tiles are as large as their images, where there is room.
    """

    rows: Sequence[Sequence[Tile]]
    title: str
    alt: str
    large: bool = False

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"text/html": self._html(), "text/plain": f"[images] {self.alt}"}, {"text/html": {"alt": self.alt}}

    def _html(self) -> str:
        grid = _GRID.format("14em" if self.large else "10em")
        kind = "trm-tiles trm-large" if self.large else "trm-tiles"
        rows = "".join(f'<div class="{kind}" style="{grid}">{"".join(map(_tile, row))}</div>' for row in self.rows)
        said = (
            f"<figcaption><strong>{escape(printable(self.title))}.</strong> {escape(printable(self.alt))}</figcaption>"
        )
        return f'<figure class="trm-gallery">{said}{rows}</figure>'


def _tile(tile: Tile) -> str:
    lines = "<br>".join(escape(printable(line)) for line in tile.caption.split("\n"))
    frame = {"same": ' class="trm-same"', "query": ' class="trm-query"'}.get(tile.mark, "")
    alt = escape(printable(tile.caption.replace("\n", ", ")), quote=True)
    image = f'<img src="{_address(tile.image)}" alt="{alt}" style="width:100%">'
    return f'<figure{frame} style="margin:0">{image}<figcaption>{lines}</figcaption></figure>'


def _with_palette(data: io.BytesIO) -> io.BytesIO:
    """A figure's PNG in 256 colours, which is a third of the bytes and looks the same."""
    small = io.BytesIO()
    with Image.open(data) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small


def _address(pixels: np.ndarray) -> str:
    """An image uint8 (h, w, 3) as a data address: PNG, or JPEG where the PNG is large and the JPEG smaller."""
    image, data = Image.fromarray(pixels), io.BytesIO()
    _fewer_bytes(image, pixels).save(data, "PNG", optimize=True)
    if data.tell() > MOST_PNG:
        jpeg = io.BytesIO()
        image.save(jpeg, "JPEG", quality=85)
        if jpeg.tell() < data.tell():
            return data_address(jpeg.getvalue(), "jpeg")
    return data_address(data.getvalue())


def _fewer_bytes(image: Image.Image, pixels: np.ndarray) -> Image.Image:
    """The same image with a palette, where it has at most 256 colours."""
    colours, index = np.unique(pack(pixels), return_inverse=True)
    if len(colours) > 256:
        return image
    small = Image.fromarray(index.reshape(pixels.shape[:2]).astype(np.uint8), "P")
    small.putpalette(np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.uint8).tobytes())
    return small


def data_address(data: bytes, kind: str = "png") -> str:
    """The bytes of an image file as the address of an <img>."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """Markdown of the notebook's own; what it holds of the data is escaped (`prose.finding`)."""

    markdown: str

    def _repr_markdown_(self) -> str | tuple[str, dict[str, bool]]:
        return self.markdown


@dataclass(frozen=True, slots=True, eq=False)
class Nothing(Text):
    """A sentence that says that there is nothing to show. Reports leave it out, and a section of nothing else too."""

    def _repr_markdown_(self) -> tuple[str, dict[str, bool]]:
        return self.markdown, {"nothing": True}


class Shown:
    """Several outputs as the value of one expression, displayed one after the other."""

    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def _ipython_display_(self) -> None:
        from IPython.display import display

        for part in self.parts:
            display(part)  # type: ignore[no-untyped-call]


def show(figure: Figure, alt: str) -> None:
    """Display a figure with its description, where it is not a cell's last expression."""
    from IPython.display import display

    display(Plot(figure, alt))  # type: ignore[no-untyped-call]
