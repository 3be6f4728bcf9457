"""DataFrames in a notebook: text of the data shows as itself, numbers are aligned right, and the size is bounded."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

from trm_nb.notebook.frames import MOST, MOST_COLUMNS, MOST_ROWS, as_html, as_text, install
from trm_nb.notebook.prose import percent, size
from trm_nb.report.sanitise import clean_piece

HOSTILE = {
    "markup": ("<script>alert(1)</script>", "<script>alert(1)</script>"),
    "attribute": ("\" onmouseover='x'", "\" onmouseover='x'"),
    "entity": ("&lt;b&gt;", "&lt;b&gt;"),
    "control": ("a\x00b\x1b[31mc", r"a\x00b\x1b[31mc"),
    "right-to-left": ("a\u202egnp.exe", r"a\u202egnp.exe"),
    "lines": ("one\n\ttwo", "one two"),
    "surrogate": ("\udc80", r"\udc80"),
}


class Cells(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        self.texts[-1] += data


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("where", ["value", "column", "index", "name"])
def test_hostile_text_shows_as_itself(name: str, where: str) -> None:
    text, shown = HOSTILE[name]
    frame = {
        "value": lambda: pd.DataFrame({"a": pd.Series([text], dtype=object)}),
        "column": lambda: pd.DataFrame([[1]], columns=pd.Index([text], dtype=object)),
        "index": lambda: pd.Series([1], index=pd.Index([text], dtype=object)),
        "name": lambda: pd.Series([1], name=text),
    }[where]()
    cells = Cells(as_html(frame))
    assert shown in cells.texts and set(cells.tags) <= {"table", "thead", "tbody", "tr", "th", "td"}
    assert Cells(clean_piece(as_html(frame))).texts == cells.texts, "a report shows the same"
    assert shown in as_text(frame) and all(line.isprintable() for line in as_text(frame).splitlines())


def test_values() -> None:
    frame = pd.DataFrame({
        "name": ["a", None], "count": [1234, 5], "part": [0.5, 12345.678],
        "small": np.array([0.25, np.nan], np.float32), "yes": [True, False], "size": [size(12_400), percent(0.5)],
        "missing": pd.array([1, None], "Int64"),
    })  # fmt: skip
    assert as_text(frame).replace("\u00a0", " ").splitlines() == [
        "name  count  part    small  yes  size     missing",
        "a     1,234  0.5     0.25   yes  12.4 KB  1",
        "-     5      12,346  -      no   50 %     -",
    ]
    assert clean_piece(as_html(frame)).count('class="number">') == 3 * 5, "of two rows and the heading"


def test_an_index_that_has_a_name_is_shown() -> None:
    assert as_text(pd.DataFrame({"a": [7]})).split() == ["a", "7"]
    assert as_text(pd.DataFrame({"a": [7]}).rename_axis("row")).split() == ["row", "a", "0", "7"]
    counts = pd.Series(["x", "y", "x"], name="kind").to_frame().groupby("kind").size()
    assert as_text(counts).split() == ["kind", "x", "2", "y", "1"]


def test_sizes_are_bounded() -> None:
    frame = pd.DataFrame({f"{n}": ["x" * 10_000] * 1000 for n in range(100)})
    cells = Cells(as_html(frame))
    assert cells.tags.count("tr") == MOST_ROWS + 2 and cells.tags.count("th") == MOST_COLUMNS + 1
    assert max(map(len, cells.texts)) <= MOST and "… 960 more" in cells.texts and "… 80 more" in cells.texts
    assert as_text(pd.DataFrame(columns=["a", "b"])).splitlines() == ["a        b", "no rows"]


def test_a_kernel_shows_frames_so() -> None:
    shell = InteractiveShell.instance()
    try:
        install(shell)
        shown, _ = shell.display_formatter.format(pd.DataFrame({"a": ["<b>\x00"]}))
    finally:
        InteractiveShell.clear_instance()
    assert shown["text/html"].endswith(r"<td>&lt;b&gt;\x00</td></tr></tbody></table>")
    assert shown["text/plain"].splitlines() == ["a", r"<b>\x00"]
    install(None)
