"""A photograph of the explorer of a run, in a real JupyterLab in headless Chromium; what make_figures.py calls."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
TOKEN = "for-this-photograph-only"
# The map is WebGL, which Chromium computes on the CPU where there is no graphics card.
CHROMIUM = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
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
        settings = Path(folder) / ".jupyter/lab/user-settings/@jupyterlab/apputils-extension"
        settings.mkdir(parents=True)  # no question about news in front of it
        (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}', encoding="utf-8")
        server = _lab(Path(folder))
        try:
            address = _address(Path(folder) / f"jpserver-{server.pid}.json")
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
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
        finally:
            server.terminate()
            server.wait(30)


def _lab(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0",
               f"--IdentityProvider.token={TOKEN}", "--LabApp.news_url=None"]  # fmt: skip
    environment = {**os.environ, "HOME": str(folder), "JUPYTER_RUNTIME_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _address(described: Path) -> str:
    """The address that the server took and wrote down, once it answers there."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        try:
            address = f"http://127.0.0.1:{json.loads(described.read_text(encoding='utf-8'))['port']}"
            with urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=5):
                return address
        except (OSError, ValueError):
            time.sleep(0.5)
    raise TimeoutError("JupyterLab did not answer")
