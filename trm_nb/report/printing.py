"""The report as PDF, printed by whichever Chromium is there: no other program lays the pages out as browsers do.

The browser reads one local file that holds no script and whose content security policy allows no request. It has a
profile of its own, which is deleted afterwards. A report of six notebooks takes some five seconds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from trm_nb.errors import UserError
from trm_nb.progress.run_folder import RunPaths
from trm_nb.storage.files import write_file

BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome", "msedge")
_SECONDS = 180
_ARGUMENTS = (
    "--headless", "--disable-gpu", "--disable-extensions", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--no-first-run", "--no-pdf-header-footer",
)  # fmt: skip


def print_report(output_dir: str | Path) -> Path:
    """Print a run's single-file report, which is there, to `<output_dir>/report.pdf`; returns it.

    Raises:
        UserError: where there is no Chromium, or it does not print.
    """
    paths = RunPaths(Path(output_dir))
    browser = _browser()
    with tempfile.TemporaryDirectory(prefix="trm-nb-") as scratch:
        printed = Path(scratch) / "report.pdf"
        command = [browser, *_ARGUMENTS, f"--user-data-dir={scratch}/profile", f"--print-to-pdf={printed}"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append("--no-sandbox")  # Chromium refuses to be root's otherwise
        command.append(paths.single_report.resolve().as_uri())
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, errors="replace")
            said = done.stderr
        except subprocess.TimeoutExpired:
            said = f"it did not end within {_SECONDS} seconds"
        except OSError as error:
            said = str(error)
        if not printed.is_file():
            last = next((line for line in reversed(said.splitlines()) if line.strip()), "it said nothing")
            raise UserError(
                f"{browser}: expected it to print {paths.single_report}, but: {last.strip()[:200]}; "
                "open that file in a browser and print it there"
            )
        write_file(paths.printed_report, printed.read_bytes())
    return paths.printed_report


def _browser() -> str:
    """Where a Chromium is; raises UserError where there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise UserError(
            "a PDF needs Chromium: expected one of chromium, google-chrome or msedge on the PATH, found none; install "
            "it (Debian: apt-get install chromium), or write --single-file and print that file from any browser"
        )
    return found
