"""A real JupyterLab for tests, and for the photograph of the explorer in the documentation (docs/)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOKEN = "for-this-test-only"
# The explorer's map is WebGL, which Chromium computes on the CPU where there is no graphics card.
WEBGL = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
         "--disable-quic", "--disable-background-networking", "--disable-sync", "--no-first-run"]  # fmt: skip


CHECKOUT = (sys.executable, "-m", "trm_nb.cli")


@contextmanager
def served(
    folder: Path, home: Path, program: Sequence[str] = CHECKOUT, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Serve a project's folder by `trm-nb lab`, whose settings and log are in `home`; yields the address.

    `program` is a trm-nb and `environment` its environment variables, by default those of this checkout.
    """
    command = [*program, "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0",
               f"--IdentityProvider.token={TOKEN}", "--LabApp.news_url=None"]  # fmt: skip
    homes = {"HOME": str(home), "JUPYTER_RUNTIME_DIR": str(home / "runtime")}
    variables = {**(environment or {**os.environ, "PYTHONPATH": str(ROOT)}), **homes}
    with (home / "lab.log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=variables, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield _address(home / "runtime" / f"jpserver-{server.pid}.json", server)
        finally:
            server.terminate()
            server.wait(30)


def _address(described: Path, server: subprocess.Popen[bytes]) -> str:
    """The address that the server took and wrote down, once it answers there."""
    for _ in range(240):
        if server.poll() is not None:
            raise RuntimeError("JupyterLab ended")
        try:
            address = f"http://127.0.0.1:{json.loads(described.read_text(encoding='utf-8'))['port']}"
            with urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=5):
                return address
        except (OSError, ValueError):
            time.sleep(0.5)
    raise TimeoutError("JupyterLab did not answer within two minutes")
