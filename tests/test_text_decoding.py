"""Bytes to text: every encoding of the wild with real sentences, damage, streams, and what is no text at all."""

from __future__ import annotations

import codecs
import random
import sysconfig
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trm_nb.sources.text.decoding import (
    MAX_LINE,
    Encoding,
    NotTextError,
    decode,
    decode_stream,
    find_encoding,
    text_parts,
)
from trm_nb.sources.text.legacy_encodings import likely_encoding

CJK = Path(sysconfig.get_path("stdlib")) / "test/cjkencodings"  # pairs in legacy and UTF-8; not everywhere
REAL = {  # sentences of everyday length, and a word or two where readers guess wrong
    "cp1252": ["café", "étés", "L'été dernier, nous étions allés à la plage.", "Räksmörgås på ön", "Rødgrød med fløde",
               "Não há coração que não sinta saudações", "¿Qué pasó mañana?", "“Fine” – he said…", "Copyright © Müller",
               "Price: 5 €", "champ %s du paquet %s\xa0: ", "Uso: [OPÇÃO]... ARQUIVO...", "Größe"],
    "cp1250": ["Zażółć gęślą jaźń, ciężko jest żyć w Łodzi", "Příliš žluťoučký kůň úpěl ďábelské ódy"],
    "iso8859_2": ["Zażółć gęślą jaźń, ciężko jest żyć w Łodzi"],
    "cp1251": ["Привет, мир", "Съешь же ещё этих мягких французских булок, да выпей чаю."],
    "koi8_r": ["Привет", "Съешь же ещё этих мягких французских булок, да выпей чаю."],
    "cp866": ["Съешь же ещё этих мягких французских булок, да выпей чаю."],
    "cp1253": ["Καλημέρα κόσμε, τι κάνεις σήμερα;"],
    "cp1254": ["Pijamalı hasta yağız şoföre çabucak güvendi"],
    "cp1255": ["דג סקרן שט בים מאוכזב ולפתע מצא לו חברה"],
    "cp1256": ["نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر"],
    "cp874": ["เป็นมนุษย์สุดประเสริฐเลิศคุณค่า"],
    "shift_jis": ["日本語", "これは日本語の文章です。漢字とかな、カタカナが混ざっています。"],
    "euc_jp": ["これは日本語の文章です。漢字とかな、カタカナが混ざっています。"],
    "euc_kr": ["안녕하세요 세계. 이것은 한국어 문장입니다."],
    "gb18030": ["中文", "这是一个中文句子，用于测试编码检测。"],
    "big5": ["這是一個中文句子，用於測試編碼檢測。"],
}  # fmt: skip
SENTENCES = [pytest.param(codec, text, id=f"{codec} {text[:12]}") for codec, texts in REAL.items() for text in texts]


@pytest.mark.parametrize(("codec", "text"), SENTENCES)
def test_legacy_text_comes_out_right_and_carries_its_encoding(codec: str, text: str) -> None:
    found, encoding = decode(text.encode(codec))
    assert found == text
    assert encoding is not None
    assert "escapes" not in encoding


@pytest.mark.parametrize(("codec", "text"), SENTENCES)
def test_the_same_in_utf8_is_plain(codec: str, text: str) -> None:
    assert decode(text.encode()) == (text, None)
    assert decode(codecs.BOM_UTF8 + text.encode()) == (text, None)


@pytest.mark.parametrize("name", ["big5", "cp949", "euc_jp", "euc_kr", "gb18030", "gb2312", "gbk", "shift_jis",
                                  "euc_jisx0213", "shift_jisx0213"])  # fmt: skip
def test_the_standard_librarys_pairs(name: str) -> None:
    if not CJK.is_dir():
        pytest.skip("this Python comes without its own tests")
    text, encoding = decode((CJK / f"{name}.txt").read_bytes())
    assert text == (CJK / f"{name}-utf8.txt").read_bytes().decode()
    assert encoding is not None


@pytest.mark.parametrize(
    ("data", "text", "encoding"),
    [
        pytest.param(b"", "", None, id="empty"),
        pytest.param(b"plain\r\n", "plain\r\n", None, id="ascii"),
        pytest.param("ab\n".encode("utf-16"), "ab\n", "utf-16-le", id="utf-16 little"),
        pytest.param(codecs.BOM_UTF16_BE + "žluť".encode("utf-16-be"), "žluť", "utf-16-be", id="utf-16 big"),
        pytest.param("a\U0001f600".encode("utf-32"), "a\U0001f600", "utf-32-le", id="utf-32 little"),
        pytest.param(codecs.BOM_UTF32_BE + "ab".encode("utf-32-be"), "ab", "utf-32-be", id="utf-32 big"),
        pytest.param("abc".encode("utf-16")[:-1], "ab\\x63", "utf-16-le with escapes", id="utf-16 torn"),
        pytest.param(codecs.BOM_UTF8 + b"ab\xff", "ab\\xff", "utf-8 with escapes", id="marked utf-8 with a bad byte"),
        pytest.param("žluť".encode()[:-1], "žlu\\xc5", "utf-8 with escapes", id="utf-8 torn"),
        pytest.param("žluťoučký kůň\n".encode() + b"\x9f!", "žluťoučký kůň\n\\x9f!", "utf-8 with escapes",
                     id="utf-8 with a bad byte"),
        pytest.param(b"\xed\xa0\xbd\xed\xb8\x80", "\\xed\\xa0\\xbd\\xed\\xb8\\x80", "utf-8 with escapes",
                     id="surrogates in utf-8"),
        pytest.param(b"# coding: koi8-r\n" + "Да".encode("koi8-r"), "# coding: koi8-r\nДа", "koi8_r", id="declared"),
        pytest.param(b"# coding: rot13\ncaf\xe9", "# coding: rot13\ncafé", "cp1252", id="declared nonsense"),
        pytest.param(b"# coding: ascii\ncaf\xe9", "# coding: ascii\ncafé", "cp1252", id="declared wrongly"),
    ],
)  # fmt: skip
def test_marks_damage_and_declarations(data: bytes, text: str, encoding: str | None) -> None:
    assert decode(data) == (text, encoding)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"ab\0", "NUL at byte 2", id="nul"),
        pytest.param("text".encode("utf-16-le"), "NUL at byte 1", id="utf-16 without a mark"),
        pytest.param(b"\xff\xfe" + b"\x00\xd8a" * 99, "begins like utf-16-le text and is none", id="marked noise"),
    ],
)
def test_binary_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(NotTextError, match=reason):
        decode(data)


def test_noise_becomes_escapes_not_letters() -> None:
    noise = bytes(byte or 1 for byte in random.Random(0).randbytes(500))
    text, encoding = decode(noise)
    assert encoding == "utf-8 with escapes"
    assert text == noise.decode("utf-8", "backslashreplace")
    assert likely_encoding(noise) is None


def test_letters_late_in_a_long_file_decide() -> None:
    data = b"plain ASCII words\n" * 200_000 + "Съешь же ещё этих мягких булок\n".encode("koi8-r")
    assert decode(data)[1] == "koi8_u"
    assert decode(data)[0].endswith("булок\n")


def test_an_encoding_that_fits_the_sample_and_not_the_rest_has_escapes() -> None:
    data = "Съешь же ещё этих мягких булок\n".encode("cp1251") * 5000 + b"\x98\n"  # 0x98 is nothing in cp1251
    text, encoding = decode(data)
    assert encoding == "cp1251 with escapes"
    assert text.endswith("булок\n\\x98\n")


@given(st.binary())
def test_any_bytes_keep_their_ascii_and_always_come_out_the_same(data: bytes) -> None:
    try:
        text, encoding = decode(data)
    except NotTextError:
        assert b"\0" in data or data.startswith((b"\xff\xfe", b"\xfe\xff"))
        return
    assert decode(data) == (text, encoding)
    if encoding is None:
        assert text == data.decode("utf-8-sig")
    if encoding == "utf-8 with escapes" and not data.startswith(codecs.BOM_UTF8):
        assert text == data.decode("utf-8", "backslashreplace")


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), st.integers(1, 9),
       st.sampled_from(["utf-8", "utf-16", "utf-32"]))  # fmt: skip
def test_a_stream_is_its_whole(text: str, step: int, codec: str) -> None:
    data = text.encode(codec)
    chunks = [data[:4], *(data[i : i + step] for i in range(4, len(data), step))]
    encoding = find_encoding(chunks)
    whole = "".join(part for part, _ in decode_stream(chunks, encoding))
    assert whole == text.removeprefix("\ufeff") if codec == "utf-8" else whole == text


@pytest.mark.parametrize("codec", ["utf-8", "gb18030", "shift_jis", "utf-16-le", "cp1251"])
def test_damage_behind_a_character_that_two_chunks_share(codec: str) -> None:
    good = "日" if codec != "cp1251" else "я"
    data = good.encode(codec) + b"\x98\xff" * 3
    whole = "".join(part for part, _ in decode_stream([data], Encoding(codec)))
    assert whole.startswith(good)
    for cut in range(1, len(data)):
        parts = list(decode_stream([data[:cut], data[cut:]], Encoding(codec)))
        assert "".join(part for part, _ in parts) == whole


@given(st.text(st.sampled_from("ab \n\r")), st.integers(2, 6), st.integers(1, 9))
def test_parts_are_whole_lines_and_join_to_the_text(text: str, size: int, step: int) -> None:
    data = text.encode()
    chunks = [data[i : i + step] for i in range(0, len(data), step)]
    parts = [part for part, _ in text_parts(chunks, find_encoding(chunks), size)]
    assert "".join(parts) == text
    assert parts == [part for part, _ in text_parts([data], find_encoding([data]), size)]
    for part, following in pairwise(parts):
        assert part.endswith(("\n", "\r"))
        assert not (part.endswith("\r") and following.startswith("\n"))
        assert len(part) <= size or "\n" not in part[:-1]


def test_a_line_beyond_all_bounds_is_cut_behind_a_blank(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_LINE > 2**20
    monkeypatch.setattr("trm_nb.sources.text.decoding.MAX_LINE", 12)
    parts = [
        part for part, _ in text_parts([b"one two three four", b"fivesixseveneightnine\nten"], find_encoding([]), 4)
    ]
    assert parts == ["one two ", "three ", "fourfivesixs", "eveneightnin", "e\n", "ten"]


def test_parts_carry_the_encoding() -> None:
    data = "Räksmörgås\n".encode("cp1252") * 3
    parts = list(text_parts([data], find_encoding([data]), 11))
    assert parts == [("Räksmörgås\n", "cp1252")] * 3
