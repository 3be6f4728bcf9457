"""Right-to-left lines stand in Unicode's visual order, Arabic letters join, and every character has its place."""

from __future__ import annotations

import bidi
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trm_nb.render.text import TextRenderer
from trm_nb.render.typesetting.right_to_left import LINE, levels_of, levels_of_lines, lines_to_reorder, shaped

WIDE = TextRenderer(image_size=448)  # 64 columns
NARROW = TextRenderer(image_size=70, wrap="word")  # 10 columns
SMALL = [TextRenderer(size, 77, wrap=wrap) for size in (12, 8) for wrap in ("character", "word")]


def shown(r: TextRenderer, text: str) -> list[str]:
    """The rows of a text's pages, as the characters that stand in the cells from left to right."""
    normalised = r.normalise(text)
    rows = r.layout(text).reshape(-1, r.columns, 2).tolist()
    return ["".join(normalised[start:stop] or " " for start, stop in row) for row in rows]


VISUAL = {
    "Hebrew": ("אבג", "גבא"),
    "a Hebrew paragraph ends at the left": ("אבג abc!", "!abc גבא"),
    "an English paragraph with Hebrew": ("abc אבג!", "abc גבא!"),
    "numbers keep their order": ("אבג 123 דה", "הד 123 גבא"),
    "Arabic numbers": ("٣ ٤", "٤ ٣"),
    "brackets": ("אב (abc) ג", "ג )abc( בא"),
    "an override is seen, and obeyed": ("a\u202ebcd\u202ce", "a\u202e \u202c dcbe"),
    "an isolate": ("a \u2067אב!\u2069 c", "a \u2067 !בא\u2069  c"),
    "a mark stays with its letter": ("a שָ b", "a שָ b"),
}


@pytest.mark.parametrize(("text", "expected"), VISUAL.values(), ids=VISUAL.keys())
def test_rows_stand_in_visual_order(text: str, expected: str) -> None:
    row = shown(WIDE, text)[0]
    assert row.strip() == expected  # controls are boxes of two cells
    assert sorted(row.replace(" ", "")) == sorted(text.replace(" ", ""))
    assert row.startswith(" ") == (levels_of(text)[0] == 1)


LETTERS = st.text(st.sampled_from("abc 12,.!()[]אבגדش٣٤-+$%/"), min_size=1, max_size=60).map(str.strip).filter(bool)


@settings(max_examples=400)
@given(LETTERS)
def test_the_order_is_the_one_that_the_reference_gives(text: str) -> None:
    """python-bidi's own reordering of the whole line, brackets mirrored, against our levels, rows and columns."""
    row = shown(WIDE, text)[0].strip()
    mirrored = bidi.get_display(text)
    swap = str.maketrans("()[]", ")(][")
    assert len(row) == len(mirrored)
    assert all(ours in (theirs, theirs.translate(swap)) for ours, theirs in zip(row, mirrored, strict=True))


ANY = st.one_of(st.characters(), st.sampled_from("אבشلاَّ٣ \n\u200f\u202e\u2067\u2069\u202c\u0301漢\x85\u2029\ud800"))


@settings(max_examples=200)
@given(st.text(ANY, max_size=200), st.sampled_from([WIDE, NARROW]))
@example("<\u0e31$\u064b\u0652\u20dd\u0e31\u3099\u0627", NARROW)  # marks of both widths over one character
@example("\u05da\u07da\U00035b47\u0645\u0867\u116c\u0732\u1b02\u1b1f", NARROW)
def test_every_character_has_one_place(text: str, r: TextRenderer) -> None:
    covered = sorted(i for start, stop in r.layout(text).reshape(-1, 2).tolist() for i in range(start, stop))
    assert covered == [i for i, c in enumerate(r.normalise(text)) if c != "\n"]
    assert r.render_pages(text).shape[1:] == (r.image_size, r.image_size, 3)


# From right-to-left blocks, but neutral or weak: punctuation, signs, marks, single numbers.
NEUTRAL = "\u060c\u060e\u06de\u06e9\u0609\u066a\u07f7\ufd3e\ufdfd\u0610\u064b\u06ed\u05b0\u0300\u3099"
PLAIN = st.text(st.sampled_from(NEUTRAL + "ab .()漢字\u3000、\t\n\u200b\u200d\u0e31\x00"), max_size=80)


@settings(max_examples=200)
@given(PLAIN, st.sampled_from([WIDE, NARROW, *SMALL]))
def test_lines_that_keep_their_order_read_back(text: str, r: TextRenderer) -> None:
    assert r.decode(r.render_pages(text)) == r.fold(r.normalise(text))


@pytest.mark.parametrize("sign", NEUTRAL + "\u0661\u0604")
def test_a_wide_character_at_the_end_of_a_row_reads_back(sign: str) -> None:
    for r in SMALL:
        for text in (sign + "a" * (r.columns - 2) + "漢 b", "a" * (r.columns - 1) + "漢" + sign):
            assert r.decode(r.render_pages(text)) == r.fold(r.normalise(text))


def test_arabic_inside_an_override_is_joined_all_the_same() -> None:
    assert list(levels_of_lines("\u202dسلام\u202c")) == [(0, 6)]
    assert not levels_of_lines("one \u060c\ntwo ٣")


JOINED = {
    "initial, ligature, isolated": ("سلام", "ﺳﻼﻡ"),
    "medial": ("محمد", "ﻣﺤﻤﺪ"),
    "letters that do not reach on": ("دار", "ﺩﺍﺭ"),
    "marks do not part": ("مُحَمَّد", "ﻣُﺤَﻤَّﺪ"),
    "a ligature alone": ("لا", "ﻻ"),
    "Persian with a non-joiner": ("می\u200cخواهم", "ﻣﯽ\u200cﺧﻮﺍﻫﻢ"),
    "a stretched joint": ("بـب", "ﺑـﺐ"),
    "Latin between": ("بaب", "ﺏaﺏ"),
}


@pytest.mark.parametrize(("text", "expected"), JOINED.values(), ids=JOINED.keys())
def test_letters_join(text: str, expected: str) -> None:
    forms, taken = shaped(text)
    rendered = "".join(chr(forms.get(i, ord(c))) for i, c in enumerate(text) if i not in taken)
    assert rendered == expected


def test_joined_letters_are_what_is_drawn() -> None:
    forms = WIDE.pages("ﻡﻼﺳ")[0].cells[0]  # presentation forms, in logical order, as the renderer reverses them too
    joined = WIDE.pages("سلام")[0].cells[0]
    assert np.array_equal(joined[-3:], forms[-3:][::-1])
    assert (joined[:-3] == WIDE.atlas.blank).all()


def test_brackets_are_mirrored() -> None:
    cells = WIDE.pages("אב (גד)")[0].cells[0]
    at = {c: int(WIDE.atlas.first[ord(c)]) for c in "()"}
    row = [c for c in cells.tolist() if c in at.values()]
    assert row == [at["("], at[")"]]


def test_only_lines_with_such_characters_are_touched() -> None:
    text = "one\nשתיים\n\nfour ٤\nfive"
    assert [text[start:end] for start, end in lines_to_reorder(text)] == ["שתיים", "four ٤"]
    rows = shown(WIDE, text)
    assert rows[0].rstrip() == "one" and rows[1].strip() == "םייתש" and rows[4].rstrip() == "five"


def test_a_very_long_line_is_resolved_in_parts() -> None:
    line = "אבג abc " * (LINE // 4)
    base, levels = levels_of(line)
    assert base == 1 and len(levels) == len(line)
    assert set(levels[:8].tolist()) == set(levels[-16:-8].tolist()) == {1, 2}
