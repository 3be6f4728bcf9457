"""A real JupyterLab in headless Chromium: 03_encode is opened, Run All passes, and the progress view moves."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from served_lab import TOKEN, served

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
                      "--disable-component-update", "--disable-sync", "--no-first-run"]  # fmt: skip
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)"),
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project's notebooks and params, so that nothing is written into the checkout."""
    for name in ("notebooks", "params"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "trm_nb").mkdir()
    (tmp_path / "trm_nb" / "assets").symlink_to(ROOT / "trm_nb" / "assets")
    text = (tmp_path / "params" / "smoke.yaml").read_text(encoding="utf-8")
    text = re.sub(r"^encoder: .*$", "encoder: base", text, flags=re.M)  # slow enough to be watched
    text = re.sub(r"(?m)^batch_size: .*$", "batch_size: 1", text)  # so that encoding takes long enough to be watched
    (tmp_path / "params" / "demo.yaml").write_text(text, encoding="utf-8")  # 03's default, small enough for a test
    settings = tmp_path / "home/.jupyter/lab/user-settings/@jupyterlab/notebook-extension"
    settings.mkdir(parents=True)  # keep the cells that are out of view in the page, so that it can be read
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}', encoding="utf-8")
    return tmp_path


@pytest.fixture
def lab(project: Path) -> Iterator[str]:
    """The address of a JupyterLab that serves the project."""
    with served(project, project / "home") as address:
        yield address


def test_run_all_passes_and_the_progress_moves(lab: str, project: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(f"{lab}/lab/tree/notebooks/03_encode.ipynb?token={TOKEN}&reset", timeout=120_000)
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
        page.wait_for_selector("text=Python 3 (ipykernel) | Idle", timeout=120_000)
        page.click("li.lm-MenuBar-item:has-text('Run')")
        page.click("li.lm-Menu-item[data-command='runmenu:run-all']")
        seen = _watch_progress(page)
        page.screenshot(path=str(project / "lab.png"))  # for who wants to look
        errors = page.locator("[data-mime-type='application/vnd.jupyter.stderr'], .jp-mod-error").all_inner_texts()
        page.keyboard.press("Control+s")
        page.wait_for_timeout(3000)
        browser.close()
    assert len(seen) >= 3, f"the progress view showed only {seen}"
    assert [count for count, _ in seen] == sorted(count for count, _ in seen), "progress never goes back"
    assert errors == []
    saved = json.loads((project / "notebooks" / "03_encode.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in saved["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code), "a cell was not run"
    outputs = json.dumps([cell["outputs"] for cell in code])
    assert "application/vnd.jupyter.widget-view" not in outputs, "the saved notebook holds a widget"


def _watch_progress(page: object, seconds: float = 240) -> list[tuple[int, int]]:
    """The different (done, total) samples that the view showed until all cells had run."""
    seen: list[tuple[int, int]] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        text = page.inner_text(".jp-Notebook")  # type: ignore[attr-defined]
        for done, total in re.findall(r"encode\D+?(\d+) ?(?:/|of) ?(\d+)", text):
            if not seen or seen[-1] != (int(done), int(total)):
                seen.append((int(done), int(total)))
        prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()  # type: ignore[attr-defined]
        if prompts and all(re.fullmatch(r"\[\d+\]:", prompt.strip()) for prompt in prompts):
            return seen
        page.wait_for_timeout(100)  # type: ignore[attr-defined]
    pytest.fail(f"not all cells had run after {seconds:.0f} s; progress seen: {seen}")
