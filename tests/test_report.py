"""The report of a run whose notebooks hold every kind of output, many of them hostile."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from trm_nb.batch.outcome import Truth, as_bytes, resolve
from trm_nb.errors import UserError
from trm_nb.progress.planned import PlannedRow
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import Rejected
from trm_nb.report.report import write_page, write_report

LINK = re.compile(r"#|data:image/(png|jpeg);base64,|[\w-]+\.html|\.\./(notebooks/\w+\.ipynb|[\w.]+)$")
ALERT = "<script>alert(1)</script><img src=x onerror=alert(1)><svg onload=alert(1)></svg>"


def image(size: tuple[int, int] = (900, 300), kind: str = "PNG") -> str:
    data = io.BytesIO()
    Image.new("RGB", size, "teal").save(data, kind)
    return base64.b64encode(data.getvalue()).decode()


def shown(data: dict[str, Any], **metadata: Any) -> Any:
    return new_output("display_data", data=data, metadata=metadata)


OUTPUTS = [
    new_output("stream", name="stdout", text=f"stream {ALERT} \x1b[31mred\x1b[0m"),
    new_output("stream", name="stderr", text=f"warned {ALERT}"),
    shown({"text/html": f"<p style='position:fixed'>html kept {ALERT}</p></section></main><h2 id='main'>x</h2><base>"}),
    shown(
        {
            "text/html": "<a href='https://example.org/x'>abroad</a><a href='../up'>up</a><iframe src='https://example.org'></iframe>"
        }
    ),
    shown({"text/markdown": f"a **finding** of 3 {ALERT} ![p](https://example.org/p.png) [go](javascript:alert(1))"}),
    shown({"image/png": image()}, **{"image/png": {"alt": 'alt "quoted" <b>', "width": 450, "chart": True}}),
    shown({"image/jpeg": image(kind="JPEG")}),
    shown({"image/png": 'AAAA" onerror="alert(1)'}),
    shown({"text/html": f"<img src='data:image/png;base64,AAAA' alt='x>{ALERT}'><img src='//x/a' alt='>{ALERT}'>"}),
    shown({"image/svg+xml": "<svg><script>alert(1)</script></svg>"}),
    shown({"application/javascript": "alert('javascript output')"}),
    shown({"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "FloatProgress(value=0.0)"}),
    shown({"text/latex": "$x$", "text/plain": f"plain {ALERT}"}),
    new_output("execute_result", data={"text/html": "<table><tr><td>cell</td></tr></table>", "text/plain": "table"}),
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with a done, a failed and an unfinished notebook."""
    path = tmp_path / "a run <b>"
    tracker = TrainingProgressTracker(path, create=True)
    rows = [PlannedRow(n, f"s{n}", f"s{n}", "text", "f", 0, 1, None, "train", f"{n:032x}") for n in range(1234)]
    tracker.add_rows(rows, [], [Rejected("bad", f"reason {ALERT}")])
    tracker.set("plan_frozen", True)
    tracker.freeze("plan", {"limit": 7, "source_paths": [f"data/{ALERT}"]})
    tracker.begin("render")
    tracker.fail("render", f"failed {ALERT}")

    done = new_notebook(
        cells=[
            new_markdown_cell(
                f"# What is rendered?\n\nProse `code` {ALERT} [next](02_denoise.ipynb#cell-2) [web](https://example.org)"
            ),
            new_markdown_cell("## A *second* heading\n### Third & last\n#### Not listed\n## A *second* heading"),
            new_code_cell("for x in range(3):\n    print('https://example.org', x)  # said", outputs=OUTPUTS),
        ]
    )
    done.cells[2].metadata["papermill"] = {"duration": 12.5, "status": "completed"}
    done.metadata["papermill"] = {"parameters": {"limit": 7, "name": ALERT}, "duration": 13.0}
    done.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": ALERT}}
    trace = ["Traceback (most recent call last)", f"ValueError: \x1b[31mboom\x1b[0m {ALERT}"]
    failing = new_code_cell(
        "raise ValueError", outputs=[new_output("error", ename="ValueError", evalue=ALERT, traceback=trace)]
    )
    failed = new_notebook(cells=[new_markdown_cell("# Fails"), failing, new_code_cell("print('never')")])
    tracker.set("notebook:01_render", {"status": "done", "seconds": 13.0, "fingerprint": "x"})
    tracker.set("notebook:02_denoise", {"status": "failed", "seconds": 2.0, "fingerprint": "x"})
    tracker.set("notebook:03_encode", {"status": "running", "seconds": 0.0, "fingerprint": "x"})
    tracker.close()
    truths = {
        "01_render": (done, Truth("done")),
        "02_denoise": (failed, Truth("failed", 1, f"ValueError: boom {ALERT}")),
        "03_encode": (new_notebook(cells=[]), Truth("done")),
    }
    (path / "notebooks").mkdir()
    for name, (made, truth) in truths.items():
        plain: dict[str, Any] = json.loads(nbformat.writes(made))
        resolve(plain, truth, environment={"python": "3.11", "torch": "2.x"})
        (path / "notebooks" / f"{name}.ipynb").write_bytes(as_bytes(plain))
    return path


class Reader(HTMLParser):
    """Gathers elements with their attributes, ids, and what is shown as text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def pages(run: Path) -> dict[str, Reader]:
    index = write_report(run)
    assert index == run / "report" / "index.html"
    return {path.stem: Reader(path.read_text(encoding="utf-8")) for path in (run / "report").glob("*.html")}


def test_nothing_hostile_and_nothing_foreign_is_left(pages: dict[str, Reader]) -> None:
    assert set(pages) == {"index", "01_render", "02_denoise", "03_encode"}
    for name, page in pages.items():
        tags = {tag for tag, _ in page.elements}
        assert not tags & {"script", "iframe", "svg", "object", "embed", "form", "link", "base"}, name
        assert len(page.all("style")) == 1 and "url(" not in page.text and "@import" not in page.text
        for tag, attributes in page.elements:
            assert not [a for a in attributes if a.startswith("on") or a == "style"], (name, tag, attributes)
            for address in (attributes.get("src"), attributes.get("href")):
                assert address is None or LINK.match(address), address
        (policy,) = [m for m in page.all("meta") if m.get("http-equiv")]
        assert policy["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_a_page_is_readable_and_accessible(pages: dict[str, Reader]) -> None:
    page = pages["01_render"]
    assert page.all("html") == [{"lang": "en"}]
    assert "What is rendered? - a run <b>" in page.text
    assert len(page.all("main")) == 1 and page.all("a")[0] == {"class": "skip", "href": "#main"}
    ids = [str(a["id"]) for _, a in page.elements if a.get("id")]
    assert len(ids) == len(set(ids))
    inner = [str(a["href"])[1:] for a in page.all("a") if str(a.get("href")).startswith("#")]
    assert set(inner) <= set(ids), set(inner) - set(ids)
    levels = [a["class"] for a in page.all("li") if str(a.get("class")).startswith("level")]
    assert levels == ["level1", "level2", "level3", "level2", "level2 about"]
    assert {"href": "02_denoise.html#cell-2"} in page.all("a")
    for image in page.all("img"):
        assert image["alt"]
    assert 'alt "quoted" <b>' in [i["alt"] for i in page.all("img")]
    assert [i["width"] for i in page.all("img") if "width" in i] == ["450"]


def test_a_page_shows_outputs_parameters_timings_and_environment(pages: dict[str, Reader]) -> None:
    text = pages["01_render"].text
    for expected in ["stream <script>alert(1)", "warned", "html kept", "finding", "plain <script>", "cell", "abroad"]:
        assert expected in text
    for dropped in ["FloatProgress", "javascript output", "\x1b"]:
        assert dropped not in text
    for expected in ["limit", "12 s", "13 s", "cell 3: for x in range(3):", "torch", "2.x", "Code of cell 3"]:
        assert expected in text
    code, *others = pages["01_render"].all("details")
    assert code == {"class": "code"} and all("open" not in other for other in others)
    assert len([i for i in pages["01_render"].all("img") if i.get("src")]) == 4


def test_a_failed_notebook_shows_the_failing_cell(pages: dict[str, Reader]) -> None:
    page = pages["02_denoise"]
    assert "Stopped at cell 2." in page.text and "ValueError: boom <script>" in page.text
    assert {"class": "cell failed", "id": "cell-2"} in page.all("section")
    assert {"class": "cell pending", "id": "cell-3"} in page.all("section")
    assert "did not run" in page.text
    assert [d for d in page.all("details") if "open" in d] == [{"class": "code", "open": ""}]


def test_the_index_says_what_the_tracker_holds(pages: dict[str, Reader]) -> None:
    page = pages["index"]
    for expected in [
        "a run <b>",
        "failed",
        "1,234",
        "limit",
        "reason <script>",
        "What is rendered?",
        "finding of 3",
    ]:
        assert expected in page.text
    assert {"href": "02_denoise.html#cell-2"} in page.all("a")
    (thumbnail,) = page.all("img")
    with Image.open(io.BytesIO(base64.b64decode(str(thumbnail["src"]).partition(",")[2]))) as small:
        assert small.size == (560, 187)
    assert page.text.count("interrupted") >= 1  # 03 was running, and nobody holds the lock any more


def test_stale_pages_go_and_a_run_without_notebooks_has_an_index(run: Path) -> None:
    write_report(run)
    for path in (run / "notebooks").glob("*.ipynb"):
        path.unlink()
    (run / "notebooks" / "07_half.ipynb").write_text('{"cells": [', encoding="utf-8")
    text = Reader(write_report(run).read_text(encoding="utf-8")).text
    assert "No notebook has been executed" in text
    assert [path.name for path in (run / "report").glob("*.html")] == ["index.html"]


def test_no_run_no_report(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run here"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_notebook_beside_a_model_has_a_page_of_its_own(run: Path) -> None:
    beside = run / "models" / "m" / "06_train.ipynb"
    beside.parent.mkdir(parents=True)
    beside.write_bytes((run / "notebooks" / "01_render.ipynb").read_bytes())
    alone = Reader(write_page(beside).read_text(encoding="utf-8"))
    assert "What is rendered?" in alone.text and "next" in alone.text
    assert [link["href"] for link in alone.all("a") if ".html" in str(link.get("href"))] == ["06_train.html"]
    write_report(run)
    linked = Reader(write_page(beside).read_text(encoding="utf-8"))
    there = [str(link["href"]) for link in linked.all("a") if ".html" in str(link.get("href"))]
    assert there == ["../../report/index.html", "06_train.html", "../../report/02_denoise.html#cell-2"]
    assert all((beside.parent / link.partition("#")[0]).is_file() for link in there)
    assert "<script" not in (beside.parent / "06_train.html").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="expected an executed notebook"):
        write_page(run / "nothing.ipynb")
