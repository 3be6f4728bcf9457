"""A decoder that dies or never ends takes one worker with it, also when a run is so small that it renders by itself."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PHOTO
from PIL import Image

from trm_nb.cache.image_cache import ImageCache
from trm_nb.cache.render_task import marker
from trm_nb.storage.files import sha256_of

POPULATE = """
import sys
from pathlib import Path
from trm_nb.storage.files import sha256_of
from trm_nb.cache.image_cache import ImageCache
from trm_nb.records import ImageFile, Item
folder, texts, workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
photos = [Item(path.name, "image", ImageFile(path, sha256_of(path))) for path in sorted(folder.glob("*.jpg"))]
cache = ImageCache(folder / "cache", workers=workers)
report = cache.populate([*photos, *(f"text {i}" for i in range(texts))])
print(report.misses, *(f"{photos[report.keys.index(key)].item_id}: {why}" for key, why in report.failed.items()))
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with three photographs."""
    with Image.open(PHOTO) as photo:
        for number in range(3):
            photo.resize((200 + number, 200)).save(tmp_path / f"{number}.jpg")
    return tmp_path


def deadly(path: Path) -> str:
    """The fault that kills whoever decodes this file."""
    return f"decode-{sha256_of(path)}"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_small_run_that_died_while_drawing_uses_a_worker_the_next_time(
    photos: Path, run_python: Callable[..., subprocess.CompletedProcess[str]], workers: int
) -> None:
    fault, receipts = deadly(photos / "1.jpg"), photos / "cache" / "images" / "receipts"
    args = (POPULATE, str(photos), "4", str(workers))
    first = run_python(*args, fault=fault)
    assert first.returncode == -signal.SIGKILL
    assert marker(receipts).exists()
    for rendered in (6, 0):
        again = run_python(*args, fault=fault)
        assert again.stdout == f"{rendered} 1.jpg: its worker died or hung each time it was rendered\n", again.stderr
    assert run_python(*args).stdout == "1\n"  # it says nothing about the image, so that is tried again
    assert not marker(receipts).exists()


@pytest.mark.slow
def test_in_a_large_run_it_takes_one_worker_with_it(
    photos: Path, run_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    result = run_python(POPULATE, str(photos), "60", "2", fault=deadly(photos / "2.jpg"))
    assert result.stdout == "62 2.jpg: its worker died or hung each time it was rendered\n", result.stderr
    assert not list((photos / "cache").rglob("*.tmp"))


def test_no_marker_is_left_by_text_by_whole_images_or_by_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ImageCache(tmp_path / "cache")
    with Image.open(PHOTO) as photo:
        assert cache.populate([photo, "text"]).misses == 2
        assert not marker(tmp_path / "cache" / "images" / "receipts").exists()

        def stopped(*_: object) -> None:
            assert marker(tmp_path / "cache" / "images" / "receipts").exists()
            raise KeyboardInterrupt

        monkeypatch.setattr("trm_nb.render.renderer.Renderer.rasterise", stopped)
        with pytest.raises(KeyboardInterrupt):
            cache.populate([photo.convert("L")])
    assert not marker(tmp_path / "cache" / "images" / "receipts").exists()
