"""Findings and tables: numbers are formatted, everything else shows as itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbconvert.filters.markdown_mistune import markdown2html_mistune

from trm_nb.notebook.prose import escaped, finding, table
from trm_nb.notebook.report_cells import _plain


@pytest.mark.parametrize(
    ("template", "values", "expected"),
    [
        pytest.param("**{n:,}** rows", {"n": 1234}, "**1,234** rows", id="count"),
        pytest.param("{part:.0%}", {"part": 0.123}, "12%", id="part"),
        pytest.param("{name}", {"name": "<b>"}, "&lt;b&gt;", id="markup"),
        pytest.param("{name}", {"name": "a_b*c"}, "a\\_b\\*c", id="markdown"),
        pytest.param("{name}", {"name": "one\n\n# two"}, "one \\# two", id="lines"),
        pytest.param("{name}", {"name": None}, "None", id="none"),
    ],
)
def test_finding(template: str, values: dict[str, object], expected: str) -> None:
    assert finding(template, **values) == expected


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>", "[x](javascript:alert(1))", "![x](https://example.org/x.png)", "`code` **b** _e_",
        "https://example.org", "a | b", "$x$ $$y$$ \\(z\\)", "&lt;b&gt; &amp;", "1. one", "# h", "> q", "---", "\\<b>",
    ],
)  # fmt: skip
def test_escaped_text_shows_as_itself(hostile: str) -> None:
    html = markdown2html_mistune(f"so: {escaped(hostile)}").strip()
    assert html == f"<p>{html[3:-4]}</p>" and "<" not in html[3:-4]
    assert _plain(html) == f"so: {hostile}"


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=60))
def test_any_text_shows_as_itself(text: str) -> None:
    html = markdown2html_mistune(f"so: {escaped(text)}.").strip()
    assert _plain(html) == f"so: {' '.join(text.split())}."


def test_long_text_loses_its_middle() -> None:
    assert len(escaped("x" * 10_000)) < 250


def test_table() -> None:
    made = table([{"name": "<b>", "count": 1234, "part": 0.5}, {"name": None, "count": 5, "part": 12345.678}])
    html = made._repr_mimebundle_()["text/html"]
    assert "&lt;b&gt;" in html and "<b>" not in html and '<td class="number">1,234</td>' in html
    assert str(made).splitlines() == ["name  count  part", "<b>   1,234  0.5", "-     5      1.235e+04"]
    pairs = table({"limit": 3, "yes": True, "name": "x\ny"}, columns=("setting", "value"))
    assert str(pairs).splitlines() == ["setting  value", "limit    3", "yes      yes", "name     x y"]
    assert "number" not in pairs._repr_mimebundle_()["text/html"]
    assert "<tbody></tbody>" in table([], columns=("a", "b"))._repr_mimebundle_()["text/html"]
