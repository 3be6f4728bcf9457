"""Source code in colour, read back from its pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import trm_nb
from trm_nb.render.highlight import ink_of_characters, inks
from trm_nb.render.text import TextRenderer

CODE = """@wraps
def f(x):  # why
    return "a" + 1 or None
"""
PLAIN, KEYWORD, STRING, COMMENT, NUMBER, NAME = range(6)
TOKENS = {
    "decorator": ("@wraps", NAME),
    "keyword": ("def", KEYWORD),
    "function": ("f", NAME),
    "plain": ("(x)", PLAIN),
    "comment": ("# why", COMMENT),
    "string": ('"a"', STRING),
    "number": ("1", NUMBER),
    "constant": ("None", NUMBER),
}


@pytest.mark.parametrize(("token", "ink"), TOKENS.values(), ids=TOKENS.keys())
def test_tokens_have_their_ink(token: str, ink: int) -> None:
    found = ink_of_characters(CODE, "x.py")
    start = CODE.index(token, CODE.index("def") + 3 if token == "f" else 0)
    assert set(found[start : start + len(token)].tolist()) == {ink}


@pytest.mark.parametrize("name", ["notes.unknown", "x.zzz", "x.txt"])
def test_what_is_no_code_is_plain(name: str) -> None:
    assert not ink_of_characters(CODE, name).any()


@pytest.mark.parametrize(
    "text",
    ["int x; // " + "a" * 1001, "int x;" + "\n" * 300 + "int y;", "int x;\n" * 80_000],
    ids=["a long line", "many blanks", "a long text"],
)
def test_what_could_take_for_ever_stays_plain(text: str) -> None:
    assert not ink_of_characters(text, "x.c").any()
    assert ink_of_characters(text[:6], "x.c").any()


def test_the_last_line_needs_no_end() -> None:
    found = ink_of_characters("int x;\n// comment", "a.c")
    assert len(found) == 17 and set(found[7:].tolist()) == {COMMENT}


@pytest.mark.parametrize("name", ["", "text-00000000", "rows.jsonl", "rows.parquet"])
def test_without_a_telling_name_the_language_is_guessed(name: str) -> None:
    assert ink_of_characters("#!/usr/bin/env python3\nimport os\n" + CODE, name).any()


@pytest.mark.parametrize("paper", ["#ffffff", "#1e1e1e"])
def test_pages_have_the_colours_and_read_back(paper: str) -> None:
    r = TextRenderer(highlight=True, paper=paper, ink="#808080")
    for text in (CODE, Path(trm_nb.__file__).with_name("config.py").read_text(encoding="utf-8")):
        pages = r.render_pages(text, "config.py")
        assert r.decode(pages) == r.fold(r.normalise(text))
    colours = np.unique(r.render_pages(CODE, "x.py").reshape(-1, 3), axis=0).tolist()
    behind = tuple(bytes.fromhex(paper[1:]))
    wanted = inks((0x80, 0x80, 0x80), behind)  # type: ignore[arg-type]
    assert [list(ink) in colours for ink in wanted[:4]] == [True] * 4


def test_colour_is_part_of_the_content() -> None:
    r = TextRenderer(highlight=True)
    assert r.pages(CODE, "x.py")[0].content_bytes() != r.pages(CODE, "x.txt")[0].content_bytes()
    assert TextRenderer().pages(CODE, "x.py")[0].content_bytes() == TextRenderer().pages(CODE)[0].content_bytes()
