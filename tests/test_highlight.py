"""Source code in colour, read back from its pixels."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

import trm_nb
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.pipeline.plan import Planner
from trm_nb.pipeline.run import build
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import Item
from trm_nb.render.renderer import Renderer, RenderSettings
from trm_nb.render.text import TextRenderer
from trm_nb.render.typesetting import lexing
from trm_nb.render.typesetting.highlight import foreground_of_characters, foregrounds

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


# Each takes its lexer exponential or quadratic time: minutes to ages.
HOSTILE = {
    "an escape in Scala": ("banner.scala", 'val s = "' + 70 * "\\"),
    "an escape in TADS": ("escape.t", "my $x = $y // " + 60 * "\\" + ";"),
    "words in C#": ("words.cs", 30_000 * "word\n"),
    "words in Java": ("Words.java", 30_000 * "word\n"),
}


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that the hostile texts pass at once."""
    monkeypatch.setattr(lexing, "SECONDS", 0.2)
    monkeypatch.setattr(lexing, "SECONDS_A_CHARACTER", 0)


def ink_in(text: str, name: str) -> np.ndarray:
    """The colours of a text that has no note."""
    found, note = foreground_of_characters(text, name)
    assert not note
    return found


@pytest.mark.parametrize(("token", "foreground"), TOKENS.values(), ids=TOKENS.keys())
def test_tokens_have_their_ink(token: str, foreground: int) -> None:
    found = ink_in(CODE, "x.py")
    start = CODE.index(token, CODE.index("def") + 3 if token == "f" else 0)
    assert set(found[start : start + len(token)].tolist()) == {foreground}


@pytest.mark.parametrize("name", ["notes.unknown", "x.zzz", "x.txt"])
def test_what_is_no_code_is_plain(name: str) -> None:
    assert not ink_in(CODE, name).any()


UNUSUAL = {
    "a long line": ("int x; // " + "a" * 1001, "line of more than 1,000 characters"),
    "many blanks": ("int x;" + "\n" * 300 + "int y;", "more than 200 blanks"),
    "a long text": ("int x;\n" * 80_000, "more than 500,000 characters"),
}


@pytest.mark.parametrize(("text", "reason"), UNUSUAL.values(), ids=UNUSUAL.keys())
def test_what_no_person_writes_stays_plain_and_says_so(text: str, reason: str) -> None:
    found, note = foreground_of_characters(text, "x.c")
    assert not found.any() and note.startswith("not highlighted: ") and reason in note
    for name in ("x.txt", "x.zzz", "rows.jsonl", ""):  # nothing was to be highlighted
        assert foreground_of_characters(text, name)[1] == ""
    assert ink_in(text[:6], "x.c").any()


@pytest.mark.usefixtures("short_limit")
@pytest.mark.parametrize(("name", "text"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_takes_for_ever_stays_plain_and_says_so(
    name: str, text: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    r = TextRenderer(highlight=True)
    pages = r.pages(text, name)
    assert pages[0].note.startswith("not highlighted: its Pygments lexer takes more than")
    assert all(page.foregrounds is not None and not page.foregrounds.any() for page in pages)
    assert r.fold(text).startswith(r.decode(r.rasterise(pages[:1])))
    assert f"{name}: not highlighted" in caplog.text
    monkeypatch.setattr(lexing, "SECONDS", 60)
    assert ink_in(CODE, "x.py").any()  # the next text does not suffer


LEXERS = """
import os
from pygments.lexer import Lexer

class Failing(Lexer):
    name, filenames = "Failing", ["*.failing"]
    def get_tokens_unprocessed(self, text):
        raise IndexError

class Ending(Lexer):
    name, filenames = "Ending", ["*.ending"]
    def get_tokens_unprocessed(self, text):
        os._exit(3)
"""


@pytest.mark.parametrize(
    ("name", "reason"),
    [("x.failing", "fails with IndexError"), ("x.ending", "ends its process")],
    ids=["fails", "ends"],
)
def test_a_lexer_with_a_bug_leaves_the_text_plain(
    name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lexers_with_bugs.py").write_text(LEXERS)
    installed = tmp_path / "lexers_with_bugs-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: lexers-with-bugs\nVersion: 1\n")
    plugins = "\n".join(f"{cls} = lexers_with_bugs:{cls}" for cls in ("Failing", "Ending"))
    (installed / "entry_points.txt").write_text(f"[pygments.lexers]\n{plugins}\n")
    monkeypatch.syspath_prepend(tmp_path)
    lexing._process.end()  # the next one has the new path
    found, note = foreground_of_characters(CODE, name)
    assert not found.any() and note == f"not highlighted: its Pygments lexer {reason}"
    lexing._process.end()


def test_a_kill_from_outside_says_nothing_about_the_text() -> None:
    assert ink_in(CODE, "x.py").any()
    child = lexing._process._child
    assert child is not None
    child.kill()
    assert ink_in(CODE, "x.py").any()


def test_lexing_can_be_stopped_from_another_thread() -> None:
    raised: list[BaseException] = []

    def lex() -> None:
        try:
            foreground_of_characters(HOSTILE["an escape in Scala"][1] + " // 2", "stopped.scala")
        except KeyboardInterrupt as error:
            raised.append(error)

    thread = threading.Thread(target=lex)
    thread.start()
    while thread.is_alive():
        lexing.stop()
        thread.join(0.05)
    assert len(raised) == 1
    assert ink_in(CODE, "x.py").any()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # newer Pythons warn of forks
def test_a_forked_process_has_its_own() -> None:
    assert ink_in(CODE, "x.py").any()
    pid = os.fork()
    if not pid:
        os._exit(0 if foreground_of_characters(CODE + "# forked\n", "x.py")[0].any() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert ink_in(CODE, "x.py").any()


def test_a_run_keeps_what_time_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that was too slow once stays plain in that run, though it would be fast enough the next time."""
    lay_out = Renderer(RenderSettings(highlight=True)).samples
    item = Item("slow.py", "text", CODE * 2000)
    tracker = TrainingProgressTracker(tmp_path / "run", create=True)

    def planned() -> list[str]:
        return [sample.key for sample in Planner(tracker, lay_out).from_items([item])]

    with monkeypatch.context() as limited:
        limited.setattr(lexing, "SECONDS", 0.001)
        limited.setattr(lexing, "SECONDS_A_CHARACTER", 0)
        first = planned()
    assert list(tracker.notes()) == ["slow.py"] == list(tracker.get_stats()["notes"])
    assert [sample.key for sample in lay_out(item)] != first
    assert planned() == first
    tracker.close()


@pytest.mark.slow
def test_a_build_can_be_interrupted_and_names_the_texts(
    make_config: Callable[..., MultimodalDatasetConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    for number in range(20):
        (hostile / f"{number:02d}.scala").write_text(f"// {number}\n" + HOSTILE["an escape in Scala"][1])
    config = make_config(source_paths=[str(hostile)], highlight=True)
    params = tmp_path / "params.yaml"
    params.write_text(f"source_paths: [{hostile}]\noutput_dir: {tmp_path / 'first'}\nhighlight: true\nencoder: tiny\n")
    command = [sys.executable, "-m", "trm_nb.cli", "build", str(params)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while not any(child.cpu_times().user > 0.5 for child in psutil.Process(process.pid).children()):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=50)  # all of them would take 100 s
    assert process.returncode == 130 and "interrupted" in said
    monkeypatch.setattr(lexing, "SECONDS", 0.2)
    report = build(config)
    assert report.rows == 20 and report.quarantined == 0
    assert list(report.notes) == [f"hostile/{number:02d}.scala" for number in range(20)]


def test_the_last_line_needs_no_end() -> None:
    found = ink_in("int x;\n// comment", "a.c")
    assert len(found) == 17 and set(found[7:].tolist()) == {COMMENT}


@pytest.mark.parametrize("name", ["", "text-00000000", "rows.jsonl", "rows.parquet"])
def test_without_a_telling_name_the_language_is_guessed(name: str) -> None:
    assert ink_in("#!/usr/bin/env python3\nimport os\n" + CODE, name).any()


@pytest.mark.parametrize("background", ["#ffffff", "#1e1e1e"])
def test_pages_have_the_colours_and_read_back(background: str) -> None:
    r = TextRenderer(highlight=True, background=background, foreground="#808080")
    for text in (CODE, Path(trm_nb.__file__).with_name("config.py").read_text(encoding="utf-8")):
        pages = r.render_pages(text, "config.py")
        assert r.decode(pages) == r.fold(r.normalise(text))
    colours = np.unique(r.render_pages(CODE, "x.py").reshape(-1, 3), axis=0).tolist()
    behind = tuple(bytes.fromhex(background[1:]))
    wanted = foregrounds((0x80, 0x80, 0x80), behind)  # type: ignore[arg-type]
    assert [list(foreground) in colours for foreground in wanted[:4]] == [True] * 4


def test_colour_is_part_of_the_content() -> None:
    r = TextRenderer(highlight=True)
    assert r.pages(CODE, "x.py")[0].content_bytes() != r.pages(CODE, "x.txt")[0].content_bytes()
    assert TextRenderer().pages(CODE, "x.py")[0].content_bytes() == TextRenderer().pages(CODE)[0].content_bytes()
