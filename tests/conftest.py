"""What several test files need: a small folder of real sources, a config for it, and a way to run code in a process."""

from __future__ import annotations

import bisect
import heapq
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# Read by torch when it is imported: two test processes, and what they start, share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import matplotlib
import pytest
from hypothesis import HealthCheck, settings

from trm_nb.config import MultimodalDatasetConfig

# The same examples each time, kept nowhere, and other work on the machine fails no test. What is random has the mark
# soak, and a seed of its own that it prints (test_state_machine.py).
settings.register_profile(
    "trm-nb", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("trm-nb")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun with a script's &: children would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)

PHOTO = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
TASK = {
    "train": [
        {"input": [[0, 1], [2, 3]], "output": [[3, 2], [1, 0]]},
        {"input": [[4, 4, 4]], "output": [[5], [5], [5]]},
    ],
    "test": [{"input": [[6, 7], [8, 9]], "output": [[9, 8], [7, 6]]}],
}


def make_sources(folder: Path) -> Path:
    """A folder with all three modalities: 2 modules of the standard library, a photograph and 12 tasks."""
    root = folder / "my sources"
    for name in ("code", "photos", "tasks"):
        (root / name).mkdir(parents=True)
    for module in (bisect, heapq):
        shutil.copy(str(module.__file__), root / "code")
    shutil.copy(PHOTO, root / "photos")
    for i in range(12):
        train = [*TASK["train"], {"input": [[i % 10] * (i + 1)], "output": [[0]]}]
        (root / "tasks" / f"task{i:02d}.json").write_text(json.dumps({**TASK, "train": train}))
    return root


def config_for(sources: Path, output: Path, **changes: object) -> MultimodalDatasetConfig:
    """A config with the tiny encoder, small batches and several chunks."""
    values = {
        "source_paths": [str(sources)], "output_dir": str(output), "encoder": "tiny", "batch_size": 10,
        "batches_per_chunk": 3, "start_threshold": 10, "workers": 0, "torch_threads": 1, **changes,
    }  # fmt: skip
    return MultimodalDatasetConfig.parse(values, "the test")


# The slow tests of each share a run, a wheel or a training that takes long to make, so one process takes them all.
TOGETHER = {"test_damage", "test_distributed", "test_docs", "test_experiments", "test_many_models", "test_pretraining",
            "test_project", "test_run", "test_side_by_side"}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests that say how many minutes they take come first, so that none of them is the last to end."""

    def length(item: pytest.Item) -> tuple[float, bool]:
        mark = item.get_closest_marker("slow")
        return (mark.kwargs.get("minutes", 0.0) if mark else 0.0, item.path.stem in TOGETHER)

    items.sort(key=length, reverse=True)
    for item in items:
        if item.path.stem in TOGETHER:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A small folder of real sources."""
    return make_sources(tmp_path)


@pytest.fixture
def make_config(sources: Path, tmp_path: Path) -> Callable[..., MultimodalDatasetConfig]:
    """A config for `sources`; keyword arguments change it."""
    return lambda output="run", **changes: config_for(sources, tmp_path / output, **changes)


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in a fresh interpreter; `fault` kills it by SIGKILL at that point of the write path."""

    def run(code: str, *args: str, fault: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **({"TRM_NB_FAULT": fault} if fault else {}), **env}
        return subprocess.run(
            [sys.executable, "-c", code, *args],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run
