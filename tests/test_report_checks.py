"""What a report promises: no request, no absolute folder, a headline for each objective, one file, PDF, axe-core."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from test_report import ALERT, Reader
from test_report import run as run

from trm_nb.errors import UserError
from trm_nb.progress.model_record import write_result
from trm_nb.progress.provenance import note_command
from trm_nb.progress.run_folder import ModelPaths, RunPaths
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.report.frame import MARK
from trm_nb.report.outline import outline_of
from trm_nb.report.printing import print_report
from trm_nb.report.relative import Relative
from trm_nb.report.report import write_both, write_report, write_single_file
from trm_nb.report.sanitise import only_what_is_shown

AXE = "axe-core@4.11.1"
_ALL, _COLOURS = {"resultTypes": ["violations"]}, {"runOnly": ["color-contrast"]}  # a dark page differs in colours only
LOOKS = {1400: {"dark": _COLOURS, "light": _ALL}, 390: {"dark": _COLOURS, "light": _ALL}}
CHARTS = {"dark": ["screen", "invert(1) hue-rotate(180deg)"], "light": ["multiply", "none"]}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OBJECTIVES = {
    "label": ("a sample's label", "labels are predicted correctly", "the nearest neighbour"),
    "grid": ("an answer grid", "answer grids are exactly right", "the answer of the nearest training sample"),
    "next": ("a page's next page", "next pages are found", "taking the most similar page"),
}


def make_model(run: Path, objective: str, name: str = "main", **changes: Any) -> None:
    """A finished model's folder, with the result that training/model_results.py writes."""
    target, correct, baseline = OBJECTIVES[objective]
    paths = ModelPaths(RunPaths(run).models / name)
    paths.root.mkdir(parents=True)
    for path in (*paths.results, paths.settings):
        path.write_text("{}")
    result = {
        "name": name, "objective": objective, "metric": "accuracy", "value": 0.732, "interval": [0.6, 0.8],
        "samples": 111, "items": 62, "balanced_accuracy": None, "baseline": {"name": baseline, "value": 0.805},
        "verdict": "worse", "p": 0.02, "steps": 200, "best_step": 150, "chosen_by": "validation",
        "baselines": [{"name": baseline, "value": 0.805, "verdict": "worse", "p": 0.02},
                      {"name": "guessing", "value": 0.1, "verdict": "better", "p": 1e-9}],
        "by_class": [], "by_modality": [], "target": target, "correct": correct, **changes,
    }  # fmt: skip
    write_result(paths, result)


@pytest.mark.parametrize(
    ("objective", "verdict", "said"),
    [
        ("label", "worse", "The model is worse than the nearest neighbour (80.5"),
        ("grid", "better", "The model is better than the answer of the nearest training sample (80.5"),
        ("next", "no difference shown", "No difference between the model and taking the most similar page (80.5"),
    ],
)
def test_the_index_begins_with_the_result_of_each_objective(run: Path, objective: str, verdict: str, said: str) -> None:
    target, correct, baseline = OBJECTIVES[objective]
    lines = [{"name": baseline, "value": 0.805, "verdict": verdict, "p": 0.02},
             {"name": "guessing", "value": 0.1, "verdict": "better", "p": 1e-9}]  # fmt: skip
    make_model(run, objective, baselines=lines)
    text = Reader(write_report(run).read_text(encoding="utf-8")).text.replace("\xa0", " ")
    before = text[: text.index("What the notebooks found")]
    for expected in [
        f"Predict {target}.", f"73.2 % of {correct}. {said} %)", "60.0 % to 80.0 %", f"{verdict} (p = 0.02)",
        "better (p < 0.001)", "guessing", "62 items are held out", "1,234 samples", "seeds", "not recorded",
    ]:  # fmt: skip
        assert expected in before, expected
    assert ("which learns nothing" in before) is (verdict != "better")


def test_what_is_missing_is_said(run: Path) -> None:
    text = Reader(write_report(run).read_text(encoding="utf-8")).text
    assert "No result yet" in text and "Progress" in text, "a run that is not done shows how far it is"
    (run / "dataset_info.json").write_text("[1, 2")
    make_model(run, "label", value=0.5, verdict="worse", baselines=None, target=f"x {ALERT}")
    make_model(run, "label", "half")
    write_result(ModelPaths(RunPaths(run).models / "half"), {"name": "half", "value": 1})
    index = write_report(run).read_text(encoding="utf-8")
    assert "Predict x &lt;script&gt;" in index and "the nearest neighbour" in index


def test_the_command_and_the_commit_are_kept(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    for name in ("notebooks", "params"):
        (project / name).mkdir(parents=True)
    (project / "params" / "a.yaml").write_text("seed: 1\n")
    monkeypatch.chdir(project)
    with closing(TrainingProgressTracker(run)) as tracker:
        note_command(tracker, "run", Path("params/a.yaml"), {"limit": 3, "output_dir": str(tmp_path / "elsewhere")})
    before = Reader(write_report(run).read_text(encoding="utf-8")).text
    assert "trm-nb run params/a.yaml -p limit=3 -p output_dir=elsewhere" in before and "git commit" not in before
    git = ["git", "-C", str(project), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    (project / "params" / "a.yaml").write_text("seed: 2\n")
    with closing(TrainingProgressTracker(run)) as tracker:
        note_command(tracker, "build", project / "params" / "a.yaml", {})
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    after = Reader(write_report(run).read_text(encoding="utf-8")).text
    assert "trm-nb build params/a.yaml" in after and f"{head[:12]}, with changes" in after


def with_folders(run: Path) -> None:
    """Absolute folders wherever a notebook can hold some."""
    path = run / "notebooks" / "01_render.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["metadata"]["papermill"]["parameters"] = {"output_dir": str(run), "params": "/home/me/a project/p.yaml"}
    code = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    code["source"] = f'open("{run}/samples.parquet")\nopen("/home/me/data/x.txt")'
    html = f"<table><tr><td>{str(run).replace('<', '&lt;')}</td><td>/mnt/data/cats/1.jpg</td></tr></table>"
    code["outputs"] += [
        {"output_type": "display_data", "data": {"text/html": html}, "metadata": {}},
        {"output_type": "stream", "name": "stdout", "text": f"wrote {run}/x and /var/lib/y/z.bin and C:\\Users\\me\\q"},
        {"output_type": "error", "ename": "E", "evalue": "", "traceback": [f"File {run.parent}/code.py:3 in f"]},
    ]
    notebook["metadata"]["trm_nb"].update(status="failed", cell=2, message=f"{run}/a.npy is damaged")
    path.write_text(json.dumps(notebook), encoding="utf-8")


def test_no_folder_is_absolute(run: Path) -> None:
    with_folders(run)
    write_report(run)
    pages = [*(run / "report").glob("*.html"), write_single_file(run)]
    for page in pages:
        html = page.read_text(encoding="utf-8")
        for folder in (str(run.parent), "/home", "/mnt", "/var", "C:\\Users", str(Path(__file__).parents[1])):
            assert folder not in html, (page.name, folder)
    text = Reader((run / "report" / "01_render.html").read_text(encoding="utf-8")).text
    for kept in ["…/1.jpg", "…/x.txt", "…/z.bin", "…/q", "samples.parquet", "a.npy is damaged"]:
        assert kept in text, kept


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see /home/me/x/y.txt.", "see …/y.txt."),
        ("https://example.org/a/b/c", "https://example.org/a/b/c"),
        ("and/or, 3 / 4, 1/2/3, </td></tr>", "and/or, 3 / 4, 1/2/3, </td></tr>"),
        ("src='data:image/png;base64,iVBOR/abc/def+/gh/ij='", "src='data:image/png;base64,iVBOR/abc/def+/gh/ij='"),
        ("file:///home/me/x", "…/x"),
        ("/home/me/", "…"),
        ("D:\\data\\cats and /x", "…/cats and /x"),
    ],
)  # fmt: skip
def test_texts_are_made_relative(tmp_path: Path, text: str, expected: str) -> None:
    assert Relative(tmp_path).text(text) == expected


class Ids(HTMLParser):
    """The ids of a document, and where its links lead."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [str(found["id"])] if found.get("id") else []
        self.links += [str(found["href"])] if found.get("href") else []


def test_a_single_file_is_whole(run: Path) -> None:
    make_model(run, "label")
    written = write_single_file(run)
    html = written.read_text(encoding="utf-8")
    held = Ids(html)
    assert written == run / "report.html" and written.stat().st_size < 5_000_000
    assert len(held.ids) == len(set(held.ids)) and {"index", "01_render", "02_denoise", "03_encode"} <= set(held.ids)
    assert all(link.startswith("#") for link in held.links), "it is mailed alone, so it links to nothing beside it"
    assert {link[1:] for link in held.links} <= set(held.ids)
    assert "#02_denoise--cell-2" in held.links and "<script" not in html
    reader = Reader(html)
    assert all(str(image["src"]).startswith("data:image/") for image in reader.all("img"))
    assert "finding of 3" in reader.text and "ValueError: boom <script>" in reader.text


def test_pages_and_single_file_are_the_same_when_both_are_written(run: Path) -> None:
    def lasting(path: Path) -> str:
        """A page without the moment and the size on the disk."""
        return re.sub(r"Written by trm-nb [^<]+|on disk</dt><dd>[^<]+", "", path.read_text(encoding="utf-8"))

    def written() -> dict[str, str]:
        return {path.name: lasting(path) for path in (*(run / "report").glob("*.html"), run / "report.html")}

    assert (write_report(run), write_single_file(run)) == (run / "report" / "index.html", run / "report.html")
    alone = written()
    assert write_both(run) == (run / "report" / "index.html", run / "report.html")
    assert written() == alone and 'id="cell-3"' in alone["01_render.html"]
    assert 'id="01_render--cell-3"' in alone["report.html"] and not [p for p in alone.values() if MARK in p]


def test_folded_and_shown_sections() -> None:
    def code(source: str, *outputs: dict[str, Any], **metadata: Any) -> dict[str, Any]:
        return {"cell_type": "code", "source": source, "outputs": list(outputs), "metadata": metadata}

    def shown(kind: str, text: str, **metadata: Any) -> dict[str, Any]:
        return {"output_type": "display_data", "data": {kind: text}, "metadata": metadata}

    nothing = shown("text/markdown", "Nothing.", **{"text/markdown": {"nothing": True}})
    progress = shown("text/html", '<div class="trm-progress">…</div>')
    empty = shown("text/html", '<table class="trm-table trm-empty"></table>')
    prose = "# Title\n\nIntroduction\n```\n## no heading\n```\n## Parameters\nthese"
    notebook = {
        "metadata": {},
        "cells": [
            {"cell_type": "markdown", "source": prose, "metadata": {}, "outputs": []},
            code("a = 1", shown("text/plain", "a table"), tags=["parameters"]),
            {"cell_type": "markdown", "source": "## Without a result", "metadata": {}, "outputs": []},
            code("b", progress, nothing, empty),
            {"cell_type": "markdown", "source": "tail\n## With a result", "metadata": {}, "outputs": []},
            code("c", progress, shown("text/markdown", "Found.")),
            {"cell_type": "markdown", "source": "A step without a result", "metadata": {}, "outputs": []},
            code("c2", nothing),
            {"cell_type": "markdown", "source": "## Checks", "metadata": {}, "outputs": []},
            code("d", shown("text/plain", "recorded"), tags=["plumbing"]),
            {"cell_type": "markdown", "source": "## Checks that fail", "metadata": {}, "outputs": []},
            code("e", tags=["plumbing"], papermill={"status": "failed"}),
        ],
    }
    only_what_is_shown(notebook)
    outline = outline_of(notebook)
    assert [cell["source"] for cell in outline.lead] == ["# Title\n\nIntroduction\n```\n## no heading\n```"]
    assert [cell["source"] for cell in outline.shown] == ["## With a result", "c", "## Checks that fail", "e"]
    assert [cell["source"].splitlines()[0] for cell in outline.folded] == [
        "## Parameters", "a = 1", "## Without a result", "b", "tail", "A step without a result", "c2", "## Checks", "d"
    ]  # fmt: skip
    assert [len(cell["outputs"]) for cell in outline.shown] == [0, 1, 0, 0]
    assert outline.shown[1]["metadata"]["trm_number"] == 6, "the number of the cell in the notebook"


def test_without_chromium_it_is_said_what_to_do(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"needs Chromium.*apt-get install chromium.*--single-file"):
        print_report(run)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)")
def test_it_is_printed(run: Path) -> None:
    write_single_file(run)
    printed = print_report(run)
    assert printed == run / "report.pdf" and printed.read_bytes().startswith(b"%PDF")
    assert 10_000 < printed.stat().st_size < 5_000_000


@pytest.fixture
def axe(tmp_path: Path) -> Iterator[str]:
    """The source of axe-core, from npm or its cache."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm, which fetches axe-core (Debian: apt-get install npm)")
    try:
        done = subprocess.run(
            [npm, "pack", "--silent", "--prefer-offline", AXE], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not fetch {AXE} within a minute")
    if done.returncode:
        pytest.skip(f"npm could not fetch {AXE}: {done.stderr.strip()[-200:]}")
    with tarfile.open(next(tmp_path.glob("axe-core-*.tgz"))) as packed:
        member = packed.extractfile("package/axe.min.js")
        assert member is not None
        yield member.read().decode()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)")
def test_everybody_can_read_it(run: Path, axe: str) -> None:
    """axe-core finds no violation, wide and narrow, light and dark, all unfolded; and no page asks for anything."""
    from playwright.sync_api import sync_playwright
    from test_lab import CHROMIUM_ARGUMENTS

    make_model(run, "label")
    make_model(run, "label", "other")
    write_report(run)
    pages = [*sorted((run / "report").glob("*.html")), write_single_file(run)]
    asked: list[str] = []
    found: list[str] = []
    charts = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        for path in pages:
            page.goto(path.as_uri())
            page.evaluate("document.querySelectorAll('details').forEach(one => one.open = one.className != 'zoom')")
            page.evaluate(axe)
            for width, schemes in LOOKS.items():
                page.set_viewport_size({"width": width, "height": 900})
                assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{path.name} is too wide"
                for scheme, rules in schemes.items():
                    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                    styles = page.evaluate(
                        "[...document.querySelectorAll('.chart img')].map(one => getComputedStyle(one))"
                        ".map(style => [style.mixBlendMode, style.filter])"
                    )
                    assert all(style == CHARTS[scheme] for style in styles), f"{path.name}: charts in {scheme}"
                    charts += len(styles)
                    for one in page.evaluate("rules => axe.run(document, rules)", rules)["violations"]:
                        found.append(f"{path.name}, {width}, {scheme}: {one['id']}: {one['nodes'][0]['html'][:200]}")
        browser.close()
    assert found == [] and charts
    assert sorted(address for address in asked if not address.startswith("data:")) == sorted(
        path.as_uri() for path in pages
    )
