"""Findings: numbers are formatted, everything else shows as itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbconvert.filters.markdown_mistune import markdown2html_mistune

from trm_nb.describe import escaped
from trm_nb.notebook.prose import finding, percent, plain, size
from trm_nb.report.cells import _plain


@pytest.mark.parametrize(
    ("template", "values", "expected"),
    [
        pytest.param("**{n:,}** rows", {"n": 1234}, "**1,234** rows", id="count"),
        pytest.param("{part:.0%}", {"part": 0.123}, "12\u00a0%", id="part"),
        pytest.param("95 % of {part:+.1%}", {"part": -0.5}, "95\u00a0% of -50.0\u00a0%", id="percentages"),
        pytest.param("{name}", {"name": "5 %"}, "5 %", id="a percentage of the data"),
        pytest.param("{size}", {"size": size(12_400)}, "12.4\u00a0KB", id="quantity"),
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


@pytest.mark.parametrize(
    ("nbytes", "expected"),
    [
        (0, "0 bytes"), (999, "999 bytes"), (1000, "1.00 KB"), (12_400, "12.4 KB"), (150_528, "151 KB"),
        (999_499, "999 KB"), (999_500, "1.00 MB"), (6_819_840, "6.82 MB"), (9_996_000, "10.0 MB"), (2e12, "2,000 GB"),
    ],
)  # fmt: skip
def test_size(nbytes: float, expected: str) -> None:
    assert size(nbytes).replace("\u00a0", " ") == expected


def test_small_words() -> None:
    assert percent(0.0829, 1) == "8.3\u00a0%" and percent(float("nan")) == "-"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a$b", r"a\$b"),
        ("日", r"\u65e5"),
        ("a\nb", "a\nb"),
        ("x" * 50, "x" * 11 + "…" + "x" * 22),
        ("a\x00b", r"a\x00b"),
        ("日" * 9, r"\u65e5…" + r"\u65e5" * 3),
        ("\udc80", r"\udc80"),
    ],
)
def test_plain(text: str, expected: str) -> None:
    assert plain(text) == expected


def test_long_text_loses_its_middle() -> None:
    assert len(escaped("x" * 10_000)) < 250
