"""dask_cluster.py: Dask workers render and encode the same bytes, whatever dies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import config_for, make_sources
from test_pool import _dies_at_13

from trm_nb.errors import UserError
from trm_nb.pipeline.run import build
from trm_nb.pipeline.verify import verify
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.workers import dask_cluster
from trm_nb.workers.dask_cluster import Cluster, connect
from trm_nb.workers.pool import WorkerDied, run_tasks

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")  # distributed's own


@dataclass
class ByHand:
    """A scheduler and workers, started with the commands that docs/how-to/cluster.md names."""

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]


@pytest.fixture
def by_hand(tmp_path: Path) -> Iterator[ByHand]:
    """`dask scheduler` and three `dask worker`, each a process of one thread that nobody restarts."""
    found, elsewhere = tmp_path / "scheduler.json", tmp_path / "elsewhere"
    elsewhere.mkdir()

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *arguments, "--scheduler-file", str(found), "--no-dashboard"]
        return subprocess.Popen(command, cwd=elsewhere, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0")
    workers = [start("worker", "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1") for _ in range(3)]
    try:
        while not found.is_file():
            assert scheduler.poll() is None
            time.sleep(0.05)
        yield ByHand(json.loads(found.read_text())["address"], scheduler, workers)
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()


def _batches(output: Path) -> int:
    if not (output / "progress.sqlite").is_file():
        return 0
    tracker = TrainingProgressTracker(output)
    try:
        return int(tracker.get_stats()["batches_built"])
    finally:
        tracker.close()


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "scheduler"])
def test_three_workers_one_killed_in_the_middle_give_the_same_digest(
    tmp_path: Path, by_hand: ByHand, victim: str
) -> None:
    sources = make_sources(tmp_path)
    digest = build(config_for(sources, tmp_path / "alone")).content_digest
    killed: list[int] = []

    def kill_one() -> None:
        if not killed and _batches(tmp_path / "run") >= 2:
            process = by_hand.workers[0] if victim == "worker" else by_hand.scheduler
            process.send_signal(signal.SIGKILL)
            killed.append(process.pid)

    config = config_for(sources, tmp_path / "run", cluster=by_hand.address)
    if victim == "worker":
        assert build(config, on_progress=kill_one).content_digest == digest
    else:
        with pytest.raises(UserError, match=r"the scheduler is gone; start it and run again"):
            build(config, on_progress=kill_one)
        assert build(config.with_changes(cluster=None)).content_digest == digest
    assert killed
    assert verify(tmp_path / "run", deep=True) == []


@pytest.mark.slow
def test_the_sample_that_kills_its_workers_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # the workers import this module
    tasks = [list(range(first, first + 4)) for first in range(0, 60, 4)]
    results = list(run_tasks(_dies_at_13, tasks, cluster="local:2", notes=tmp_path))
    assert [list(task) for task, result in results if isinstance(result, WorkerDied)] == [[13]]
    done = sorted(value for _, result in results if isinstance(result, list) for value in result)
    assert done == [v * v for v in range(60) if v != 13]
    connect("local:2").close()


def _hangs(task: Sequence[int]) -> None:
    time.sleep(600)


@pytest.mark.slow
def test_a_task_that_hangs_ends_the_build_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    tasks = run_tasks(
        _hangs, [list(range(60))], cluster="local:1", notes=tmp_path, task_seconds=2, name=lambda value: f"page {value}"
    )
    with pytest.raises(UserError, match=r"the task of page 0 and 59 more has shown no sign of life for 2 s"):
        list(tasks)
    connect("local:1").close()


PROGRAM = """
from trm_nb.workers.pool import run_tasks
print(sorted(sum(values) for _, values in run_tasks(list, [[1, 2]] * 30, cluster="local:2")))
"""


@pytest.mark.slow
def test_a_plain_script_needs_no_main_guard_and_leaves_no_process() -> None:
    done = subprocess.run(
        [sys.executable, "-"], input=PROGRAM, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout.strip() == str([3] * 30), done.stderr
    assert done.stderr == ""


def test_workers_that_would_give_other_bytes_or_see_no_folder_are_refused(
    by_hand: ByHand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(by_hand.address)
    assert connect(by_hand.address) is client
    client.refuse_blind_workers([tmp_path])
    with pytest.raises(UserError, match=r"does not see .*/nowhere; workers need the run's folder"):
        client.refuse_blind_workers([tmp_path, tmp_path / "nowhere"])
    client.close()
    ours = {**dask_cluster._versions(), "torch": "1.0"}
    monkeypatch.setattr(dask_cluster, "SAME", tuple(ours))
    monkeypatch.setattr(dask_cluster, "_versions", _Ours(ours))
    with pytest.raises(UserError, match=r"has torch .* and this process has 1\.0, .*install the same versions"):
        Cluster(by_hand.address)


class _Ours:
    """Other versions here; a worker that is sent this tells its own."""

    def __init__(self, versions: dict[str, str]) -> None:
        self.versions = versions

    def __call__(self) -> dict[str, str]:
        return self.versions

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return getattr, (dask_cluster, "_versions")


def test_nothing_that_answers_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "CONNECT_SECONDS", 1.0)
    with pytest.raises(
        UserError, match=r"cluster 'tcp://127\.0\.0\.1:9': no scheduler with a worker answered"
    ) as error:
        connect("tcp://127.0.0.1:9")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"cluster 'tls://127\.0\.0\.1:9': .*ssl_context"):
        connect("tls://127.0.0.1:9")


def test_without_the_package_its_install_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"needs the package distributed: pip install 'trm-nb\[cluster\]'"):
        connect("local:3")
