"""What a cell's last expression can be besides a table: a plot with its description, and several outputs in order."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from matplotlib.figure import Figure


DPI = 160
Data: TypeAlias = dict[str, Any]  # by MIME type


@dataclass(frozen=True, slots=True, eq=False)
class Plot:
    """A figure that shows itself as PNG, sharp on dense screens, with `alt` for readers who do not see it."""

    figure: Figure
    alt: str

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        data = io.BytesIO()
        self.figure.savefig(data, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
        described = {"image/png": {"alt": self.alt, "width": round(self.figure.get_figwidth() * 96)}}
        return {"image/png": data.getvalue(), "text/plain": f"[plot] {self.alt}"}, described


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """Markdown of the notebook's own; what it holds of the data is escaped (`prose.finding`)."""

    markdown: str

    def _repr_markdown_(self) -> str:
        return self.markdown


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
