"""Text is rendered whole, the same everywhere, and can be read back from its pixels."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trm_nb.render.text import TextRenderer
from trm_nb.render.typesetting.glyphs import BOX, BOXED_ALONE, MARK, WIDTH, load_atlas
from trm_nb.render.typesetting.layout import BLANKS
from trm_nb.render.typesetting.right_to_left import lines_to_reorder
from trm_nb.render.typesetting.tiles import MARKED

RENDERERS = {
    "12": TextRenderer(),
    "8": TextRenderer(font_size=8),
    "tiny": TextRenderer(image_size=28),
    "by word": TextRenderer(wrap="word", margin=7),
    "coloured": TextRenderer(foreground="#f0e8d0", background="#102040", margin=60, wrap="word"),
    "highlighted": TextRenderer(highlight=True),
}
either = pytest.mark.parametrize("r", RENDERERS.values(), ids=RENDERERS.keys())
both_sizes = pytest.mark.parametrize("r", [RENDERERS["12"], RENDERERS["8"]], ids=["12", "8"])

TEXTS = {
    "empty": "",
    "one space": " ",
    "blank lines": "\n\n a\n\n\n",
    "indented": "def f(x):\n\treturn x\t# tab\n\t\tend",
    "line ends": "a\r\nb\rc\n\rd",
    "controls": "nul \x00 bell \x07 esc \x1b[31m del \x7f form \x0c c1 \x85 \x9f",
    "exactly a row": "x" * 32 + "\n" + "y" * 64,
    "spaces at a wrap": "x" * 31 + "   " + "y" * 40,
    "many pages": "".join(chr(33 + i % 90) for i in range(3000)),
    "page of blank lines": "top" + "\n" * 40 + "bottom",
    "CJK": "漢字かなカナ한국어、句読点。「括弧」" * 8,
    "wide at a wrap": "x" * 31 + "漢" + "y" * 31 + "字",
    "filler or space": "x" * 31 + " " + "漢字",
    "combining": "cafe\u0301 x\u0302 q\u0323\u0307 a\u0301\u0301\u0301\u0301 \u0301alone \n\u0301first",
    "twenty thousand marks": "e" + "\u0301" * 20_000,
    "Thai": "ภาษาไทยที่นี่ น้ำ",
    "Devanagari": "हिन्दी क्या है कि की ज्ञ",
    "Myanmar": "မြန်မာဘာသာ",
    "emoji": "😀 👨‍👩‍👧 ✈️ 🇩🇪 🏽",
    "directions": "safe \u202agpj.exe\u202c \u2066x\u2069 \u200b\u200d\ufeff",
    "words": "It is a truth universally acknowledged,  that a   single man in possession of " * 3 + "x" * 90 + " of.",
    "a blank under a mark": "word" * 7 + " \u0302 and more of it " * 4,
    "a row of blanks": "x" + " " * 100 + "y " * 40,
    "look-alikes": "AΑА ;; - ‐ \u00ad",
    "blanks": "a\u00a0b\u2003c\u3000d \u2800 \u3164 \uffa0 \u115f end\u3000\u00a0",
    "separators": "a\u2028b\u2029c\x85d\x1cd",
    "surrogate": "lone \ud800 and \udfff",
    "no glyph": "\u0378 \U0010ffff \ue000 \U000e0041 \U00030000",
    "box rendering": "┌─┬─┐\n│ │█│\n└─┴─┘ ░▒▓",
}


def assert_reads_back(r: TextRenderer, text: str) -> None:
    normalised = r.normalise(text)
    assert r.decode(r.render_pages(text)) == r.fold(normalised)
    assert r.normalise(normalised) == normalised


def left_to_right(text: str) -> str:
    """Without the characters that make a line's order another: such lines are not read back from their pixels."""
    return "".join(c for c in text if not any(True for _ in lines_to_reorder(c)))


@either
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_every_kind_of_text_reads_back(r: TextRenderer, text: str) -> None:
    assert_reads_back(r, text)


@both_sizes
def test_a_long_text_is_laid_out_in_parts_and_reads_back(r: TextRenderer) -> None:
    lines = [("x\u0302" if n % 7 == 0 else "漢") + "ab" * (n % 60) for n in range(6000)]
    text = "\n".join([*lines, "y" * 300_000, "", "end"])
    assert_reads_back(r, text)
    starts = r.layout(text).reshape(-1, 2)
    assert (starts[:, 1] - starts[:, 0]).sum() == len(r.normalise(text).replace("\n", ""))


CHARACTERS = st.one_of(
    st.characters(),
    st.characters(exclude_categories=()),  # surrogates and unassigned too
    st.sampled_from(" \t\n\r\x00ab漢\u3000\u0301\u0e34\u0e48\u093f\u094d\u200d\ufe0f"),
)


@settings(max_examples=200)
@given(text=st.text(CHARACTERS, max_size=300), name=st.sampled_from(sorted(RENDERERS)))
def test_any_unicode_reads_back(text: str, name: str) -> None:
    assert_reads_back(RENDERERS[name], left_to_right(text))


@settings(max_examples=100)
@given(text=st.text(CHARACTERS, max_size=200), name=st.sampled_from(sorted(RENDERERS)))
def test_layout_covers_each_character_once(text: str, name: str) -> None:
    r = RENDERERS[name]
    normalised = r.normalise(text)
    spans = r.layout(text).reshape(-1, 2)
    covered = [i for start, stop in spans for i in range(start, stop)]
    characters = [i for i, c in enumerate(normalised) if c != "\n"]
    assert sorted(covered) == characters
    assert covered == characters or any(True for _ in lines_to_reorder(normalised))


@both_sizes
def test_every_drawn_character_reads_back(r: TextRenderer) -> None:
    codes = r.atlas.codes
    alone = codes[(r.atlas.props[codes] & MARK) == 0]
    assert_reads_back(r, left_to_right("".join(map(chr, alone.tolist()))))


@both_sizes
def test_every_mark_reads_back_after_a_base(r: TextRenderer) -> None:
    marks = r.atlas.codes[(r.atlas.props[r.atlas.codes] & MARK) != 0][::5]
    lines = "\n".join(f"x{chr(m)} क{chr(m)}" for m in marks.tolist())
    assert_reads_back(r, left_to_right(lines))


@both_sizes
def test_folding_joins_only_equal_pixels(r: TextRenderer) -> None:
    atlas = r.atlas
    names = {chr(c): r.fold(chr(c)) for c in atlas.codes.tolist() if chr(c) != "\u3000"}
    changed = {c: f for c, f in names.items() if c != f}
    assert len(changed) < 1300  # of 69,000: what the fonts themselves render alike
    for one, other in changed.items():
        width = int(atlas.props[ord(one)] & WIDTH)
        assert not atlas.props[ord(one)] & BOXED_ALONE
        for half in range(width):
            first, second = (atlas.pixels(int(atlas.first[ord(c)]) + half) for c in (one, other))
            assert np.array_equal(first, second)
    assert not [c for c in changed if c.isascii()]


def test_nearly_all_of_the_basic_plane_is_drawn() -> None:
    assigned = [c for c in range(0x20, 0x10000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co", "Cc")]
    atlas = load_atlas(12)
    boxed = [c for c in assigned if atlas.first[c] >= BOX]
    assert len(boxed) < 10, [f"{c:04X}" for c in boxed]
    assert not any(atlas.gray[atlas.first[c]].min() == 255 and atlas.props[c] & WIDTH == 1 and chr(c) not in BLANKS
                   for c in assigned if c not in boxed)  # fmt: skip


NORMAL = {
    "NFC": ("e\u0301", "é"),
    "line ends": ("a\r\nb\rc", "a\nb\nc"),
    "tab to the next multiple of 4": ("\ta\n123\tb\n1234\tc", "    a\n123 b\n1234    c"),
    "tab after wide": ("漢\tb", "漢  b"),
    "white space before a line end": ("a  \n b \t\n", "a\n b"),
    "blank lines at the end": ("a\n\n \n\n", "a"),
    "blank lines before": ("\n\na", "\n\na"),
    "controls": ("\x00\x1b\x7f", "␀␛␡"),
    "inner spaces stay": ("a   b", "a   b"),
    "nothing else": ("ﬁ ｘ A\u00a0B ①", "ﬁ ｘ A\u00a0B ①"),
}


@pytest.mark.parametrize(("text", "expected"), NORMAL.values(), ids=NORMAL.keys())
def test_normalise(text: str, expected: str) -> None:
    assert RENDERERS["12"].normalise(text) == expected


@pytest.mark.parametrize(
    ("size", "cells", "text"), [("12", (16, 32), "x" * 512), ("8", (22, 44), "x" * 968)], ids=["12", "8"]
)
def test_page_sizes(size: str, cells: tuple[int, int], text: str) -> None:
    r = RENDERERS[size]
    assert (r.rows, r.columns) == cells
    assert len(r.pages(text)) == 1
    assert len(r.pages(text + "x")) == 2
    assert r.render_pages(text).shape == (1, 224, 224, 3)
    assert r.decode(r.render_pages(text + "x")) == text + "x"


WORDS = {
    "between words": ("one three", ["one", "three"]),
    "as many as fit": ("a bb cccc dd", ["a bb", "cccc dd"]),
    "a word that fills its row": ("12345678 x", ["12345678 ", "x"]),
    "and two blanks": ("12345678  x", ["12345678 ", " x"]),
    "a longer word": ("a 1234567890", ["a", "12345678", "90"]),
    "more blanks open the next row": ("abcde   fghij", ["abcde", "  fghij"]),
    "blanks before": ("      abcdef", ["      ab", "cdef"]),
    "no break at U+00A0": ("abcd\u00a0efghi", ["abcd\u00a0efg", "hi"]),
    "wide": ("漢字 漢字漢", ["漢字", "漢字漢"]),
    "a wide character that does not fit": ("x漢字漢字", ["x漢字漢", "字"]),
}


@pytest.mark.parametrize(("text", "rows"), WORDS.values(), ids=WORDS.keys())
def test_words_stay_whole(text: str, rows: list[str]) -> None:
    r = TextRenderer(image_size=56, wrap="word")
    assert r.columns == 8
    spans = r.layout(text)[0].tolist()
    shown = ["".join(text[start:stop] for start, stop in row) for row in spans]
    assert [row.rstrip() for row in shown if row] == [row.rstrip() for row in rows]
    assert "".join(shown) == text
    assert_reads_back(r, text)


def test_a_margin_is_paper() -> None:
    r = TextRenderer(margin=20, background="#ffeedd")
    page = r.render_pages("x" * 1000)[0]
    inside = page[20:-20, 20:-20]
    assert (page == [0xFF, 0xEE, 0xDD]).all(axis=-1).sum() >= 224 * 224 - inside.shape[0] * inside.shape[1]
    assert (r.columns, r.rows) == (26, 13)


def test_empty_text_is_one_white_page() -> None:
    assert (RENDERERS["12"].render_pages("") == 255).all()
    assert RENDERERS["12"].render_pages("").shape == (1, 224, 224, 3)


def test_a_wrap_is_seen_and_a_line_end_is_not() -> None:
    r = RENDERERS["12"]
    wrapped, ended = (r.render_pages(text)[..., 0] for text in ("x" * 33, "x" * 32 + "\nx"))
    assert (wrapped[0, :4, -1] >= MARKED).all() and (wrapped[0, :4, -1] <= MARKED + 15).all()
    assert np.array_equal(wrapped[0, :, :-1], ended[0, :, :-1])
    assert r.pages("x" * 33)[0].content_bytes() != r.pages("x" * 32 + "\nx")[0].content_bytes()


def test_pixels_are_the_font_s() -> None:
    """An independent reference: FreeType through Pillow renders the same line of ASCII."""
    from matplotlib import get_data_path
    from PIL import Image, ImageDraw, ImageFont

    line = "Hamburgefonstiv 0123 {x}[y]~@#"
    font = ImageFont.truetype(
        Path(get_data_path()) / "fonts/ttf/DejaVuSansMono.ttf", 12, layout_engine=ImageFont.Layout.BASIC
    )
    image = Image.new("L", (224, 14))
    ImageDraw.Draw(image).text((0, -1), line, fill=255, font=font)
    ours = RENDERERS["12"].render_pages(line)[0, :14, :, 0].astype(int)
    difference = np.abs(255 - np.asarray(image).astype(int) - ours)
    # 16 levels of foreground differ by 8 at most; where a glyph bleeds into its neighbour's cell, a little more
    assert (difference > 9).mean() < 0.01 and difference.max() < 64


IMPOSSIBLE = [
    {"font_size": 11}, {"image_size": 13}, {"margin": 106}, {"foreground": "#ffffff"}, {"foreground": "#f8f8f8"},
    {"foreground": "red"},
    {"foreground": "#12"}, {"margin": -10}, {"margin": 2.5}, {"wrap": "words"},
]  # fmt: skip


@pytest.mark.parametrize("arguments", IMPOSSIBLE, ids=str)
def test_impossible_settings_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        TextRenderer(**arguments)


def test_pages_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="expected \\(16, 32\\) cells"):
        RENDERERS["12"].rasterise(RENDERERS["8"].pages("x"))


def test_decode_takes_a_page_alone_and_refuses_other_sizes() -> None:
    r = RENDERERS["12"]
    assert r.decode(r.render_pages("one page")[0]) == "one page"
    assert r.decode(np.full((1, 224, 224, 3), 100, np.uint8)).startswith("\ufffd")
    with pytest.raises(ValueError, match="expected uint8 images"):
        r.decode(r.render_pages("x").astype(np.float32))
    with pytest.raises(ValueError, match="expected highlight=True"):
        RENDERERS["highlighted"].rasterise(r.pages("x"))
    with pytest.raises(ValueError, match=r"images of shape \(224, 224, 3\), got uint8 \(1, 112, 112, 3\)"):
        r.decode(np.zeros((1, 112, 112, 3), np.uint8))
