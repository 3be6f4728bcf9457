"""A photograph of the explorer of a run, in a real JupyterLab in headless Chromium; what make_figures.py calls."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from served_lab import TOKEN, WEBGL, served

WINDOW = {"width": 1400, "height": 1250}
SECONDS = 120.0


def photograph(run: Path, target: Path, sample: str) -> None:
    """Open the explorer of a finished run at a sample whose name has `sample` in it, and photograph it.

    Args:
        run: the run's folder.
        target: of the PNG.
        sample: a part of a sample's name.
    """
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        cell = f"from trm_nb.notebook import explore\n\nexplore({str(run.resolve())!r})"
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)], metadata=kernel)
        nbformat.write(notebook, Path(folder) / "explore.ipynb")
        for name in ("notebooks", "params"):  # which make it a project
            (Path(folder) / name).mkdir()
        settings = Path(folder) / ".jupyter/lab/user-settings/@jupyterlab/apputils-extension"
        settings.mkdir(parents=True)  # no question about news in front of it
        (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}', encoding="utf-8")
        with served(Path(folder), Path(folder)) as address:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=WEBGL)
            page = browser.new_page(viewport=WINDOW)
            page.set_default_timeout(1000 * SECONDS)
            page.goto(f"{address}/lab/tree/explore.ipynb?token={TOKEN}&reset")
            page.wait_for_selector("text=| Idle")
            page.click("li.lm-MenuBar-item:has-text('Run')")
            page.click("li.lm-Menu-item[data-command='runmenu:run-all']")
            explorer = page.locator(".trm-explorer-live")
            explorer.locator("canvas").first.wait_for()
            explorer.locator("input[placeholder='part of it']").fill(sample)
            explorer.locator("input[placeholder='part of it']").press("Enter")
            page.wait_for_timeout(5000)
            explorer.screenshot(path=str(target))
            browser.close()
