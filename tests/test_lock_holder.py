"""Who holds a folder's lock, or was killed with it, told by real processes."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from trm_nb.storage.files import locked
from trm_nb.storage.lock_holder import LOCK, OWNER, Holder, holder_of

HOLD = (
    "import sys, time; from pathlib import Path; from trm_nb.storage.files import locked\n"
    "with locked(Path(sys.argv[1]), 'building'):\n    print('held', flush=True)\n    time.sleep(60)"
)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which has the lock of tmp_path."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_that_nobody_has_has_no_holder(tmp_path: Path) -> None:
    assert holder_of(tmp_path) is None and holder_of(tmp_path / "nowhere") is None
    with locked(tmp_path, "mine"):
        held = holder_of(tmp_path)
        assert held is not None and held.alive and held.name.endswith("(mine)")
    assert holder_of(tmp_path) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock"]


def test_a_holder_that_was_killed_is_known_to_be_gone_on_its_own_machine_only(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    name = f"process {holder.pid} (building)"
    assert holder_of(tmp_path) == Holder(name, True)
    holder.kill()
    holder.wait()
    assert holder_of(tmp_path) == Holder(name, False)
    (tmp_path / OWNER).write_text(f"{name}\nthe boot id of another machine", encoding="utf-8")
    assert holder_of(tmp_path) == Holder(name, None)
    (tmp_path / OWNER).write_text(name, encoding="utf-8")  # as version 0.1.0 wrote it
    assert holder_of(tmp_path) == Holder(name, None)
    with locked(tmp_path, "mine"):
        pass
    assert holder_of(tmp_path) is None


def test_looking_disturbs_nobody_who_takes_the_lock(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    with (tmp_path / LOCK).open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)  # as `holder_of` does, for much longer
        over = threading.Timer(0.2, lambda: fcntl.flock(looking, fcntl.LOCK_UN))
        over.start()
        with locked(tmp_path, "mine"):
            assert holder_of(tmp_path) is not None
        over.join()
