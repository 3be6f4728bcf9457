"""Notebook 00 in a real JupyterLab in headless Chromium: explore, start and stop; and a notebook that watches."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from served_lab import TOKEN, WEBGL
from test_lab import CHROMIUM, lab, project  # noqa: F401 - fixtures
from test_watching import held

from trm_nb import build
from trm_nb.params import load_params
from trm_nb.progress.run_folder import RunPaths
from trm_nb.storage.lock_holder import holder_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)"),
]
SECONDS = 1000.0 * 180  # until something is seen, on a machine that has other work
RECIPE = """# Few samples, for a test.
source_paths: [trm_nb/assets/demo/python, trm_nb/assets/demo/photographs, trm_nb/assets/demo/arc]
output_dir: outputs/ready
limit: 4
batch_size: 10
train_steps: 4
train_width: 64
train_batch_size: 16
"""


@pytest.fixture
def ready(project: Path) -> Path:  # noqa: F811
    """The folder of a finished run of the project, which notebooks open by default."""
    params = project / "params" / "demo.yaml"
    params.write_text(RECIPE, encoding="utf-8")
    return build(load_params(params)).output_dir


@pytest.fixture
def page(ready: Path, lab: str, request: pytest.FixtureRequest):  # type: ignore[no-untyped-def] # noqa: F811
    """A page of Chromium that fetches nothing but what JupyterLab serves."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=WEBGL)
        page = browser.new_page(viewport={"width": 1400, "height": 1600})
        page.set_default_timeout(SECONDS)
        page.on("dialog", lambda one: one.accept())  # leave a notebook that is not saved
        asked: list[str] = []
        page.on("request", lambda one: asked.append(one.url))
        yield page
        page.screenshot(path=str(ready.parent / "last.png"))  # for who wants to look
        browser.close()
    own = (lab, lab.replace("http", "ws"), "data:", "blob:")
    assert [url for url in asked if not url.startswith(own)] == [], "the map or the page is not offline"


def run_all(page, lab: str, name: str) -> None:  # type: ignore[no-untyped-def] # noqa: F811
    """Open a notebook and execute all of its cells."""
    page.goto(f"{lab}/lab/tree/notebooks/{name}?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.wait_for_selector("text=Python 3 (ipykernel) | Idle")
    page.click("li.lm-MenuBar-item:has-text('Run')")
    page.click("li.lm-Menu-item[data-command='runmenu:run-all']")


def test_explore_start_stop_and_watch(page, lab: str, ready: Path) -> None:  # type: ignore[no-untyped-def] # noqa: F811
    pytest.importorskip("jscatter")
    run_all(page, lab, "00_start.ipynb")
    start, explorer = (page.locator(".trm-explorer-live").nth(n) for n in (0, 1))
    errors = page.locator("[data-mime-type='application/vnd.jupyter.stderr'], .jp-mod-error")
    _explores(page, explorer)
    _stops(start, ready.parent / "other")
    assert errors.count() == 0
    _watches(page, lab, ready)
    assert errors.count() == 0


def _explores(page, explorer) -> None:  # type: ignore[no-untyped-def]
    """A sample is chosen, by keys too, the slider moved, a text typed and a point clicked: what is shown changes."""
    from playwright.sync_api import expect

    explorer.locator("canvas").first.wait_for()
    name, step = explorer.locator("h4").first, explorer.locator("table tr.trm-now")

    def until_other(before: str) -> str:
        expect(name).not_to_have_text(before, timeout=SECONDS)
        return str(name.inner_text())

    first = name.inner_text()
    explorer.locator("button:text-is('next')").press("Enter")  # by keys
    second = until_other(first)
    assert explorer.locator("figure img").count() >= 2 + 12 + 6
    assert page.locator(".trm-explorer-static").is_hidden()

    explorer.locator("select").first.select_option("grid")
    third = until_other(second)
    assert "kind: grid" in explorer.inner_text()

    assert step.inner_text().startswith("2")
    explorer.locator(".widget-slider .noUi-handle, .widget-slider [role=slider]").last.press("ArrowLeft")
    expect(step).to_have_text(re.compile("^1"), timeout=SECONDS)

    explorer.locator("textarea").fill("Typed <b>here</b>")
    explorer.locator("button:text-is('show the text')").click()
    assert until_other(third) == "your text"

    assert _clicks_a_point(page, explorer.locator("canvas").first, name) != "your text"


def _clicks_a_point(page, canvas, name) -> str:  # type: ignore[no-untyped-def]
    """Click through the map until a point is hit; returns the name of its sample."""
    before, box = str(name.inner_text()), canvas.bounding_box()
    for x in range(50, int(box["width"]), 12):
        for y in range(8, int(box["height"]), 12):
            page.mouse.click(box["x"] + x, box["y"] + y)
        page.wait_for_timeout(200)
        if name.inner_text() != before:
            return str(name.inner_text())
    return before


def _stops(start, folder: Path) -> None:  # type: ignore[no-untyped-def]
    """A run that is started shows its bars and curves, and ends when it is stopped."""
    start.locator("input[type=text]").first.fill("outputs/other")
    start.locator("input[type=text]").nth(2).fill("1000000")
    start.locator("select").last.select_option("dataset and model")
    start.locator("button:text-is('start')").click()
    start.locator(".trm-progress strong:has-text('running train')").wait_for()
    start.locator("img[alt*='optimiser step']").first.wait_for()
    start.locator("button:text-is('stop')").click()
    start.locator("[role=status]:has-text('stopped; what was done is kept')").wait_for()
    assert (
        RunPaths(folder).info.is_file() and holder_of(folder) is holder_of(RunPaths(folder).model("main").root) is None
    )


def _watches(page, lab: str, ready: Path) -> None:  # type: ignore[no-untyped-def] # noqa: F811
    """A notebook whose run another process writes goes on when that is done."""
    with held(ready) as other:
        run_all(page, lab, "04_consolidate.ipynb")
        page.wait_for_selector(f"text=process {other.pid} (at work) works on")
        prompts = page.locator(".jp-CodeCell .jp-InputPrompt")
        assert "[*]:" in [prompt.strip() for prompt in prompts.all_inner_texts()]
    numbered = "es => es.every(e => /^\\[\\d+\\]:$/.test(e.innerText.trim()))"
    page.wait_for_function(f"() => ({numbered})([...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')])")
