"""Text and grids have the same pixels whatever Pillow is installed: the golden hashes hold under another major version.

The pixels are made in a process of their own whose Pillow is the other one, as it was published.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import PIL
import pytest

TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden" / "render.json"
VERSIONS = ("12.3.0", "13.0.0")  # the oldest that is allowed, and a major version later

HASHES = """
import json, PIL
from PIL import Image
from test_renderer import pixel_hashes
assert Image.core.PILLOW_VERSION == PIL.__version__
print(json.dumps([PIL.__version__, pixel_hashes()]))
"""


def pixels_under(folder: Path | None) -> tuple[str, dict[str, str]]:
    """The version of Pillow in a fresh process, the one in `folder` if any, and the hashes that it gives."""
    paths = [*([str(folder)] if folder else []), str(TESTS)]
    done = subprocess.run(
        [sys.executable, "-c", HASHES],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    version, hashes = json.loads(done.stdout)
    return version, hashes


@pytest.mark.study
def test_golden_pixels_hold_under_two_major_versions_of_pillow(tmp_path: Path) -> None:
    installed = PIL.__version__.split(".")[0]
    other = next(version for version in VERSIONS if version.split(".")[0] != installed)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path)]
    subprocess.run([*command, f"pillow=={other}"], check=True, timeout=300)
    seen = {}
    for folder in (None, tmp_path):
        version, hashes = pixels_under(folder)
        seen[version] = hashes
        assert hashes == json.loads(GOLDEN.read_text()), f"under Pillow {version}"
    assert set(seen) == {PIL.__version__, other}
    print(f"the golden pixels hold under Pillow {' and '.join(sorted(seen))}")
