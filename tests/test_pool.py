"""pool.py: every task is done once, whatever dies; memory is bounded by the window."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from trm_nb.workers.pool import MIN_POOL, WorkerDied, run_tasks
from trm_nb.workers.worker import in_worker, noted, working_on


def _squares(task: Sequence[int]) -> list[int]:
    return [value * value for value in task]


def _dies_at_13(task: Sequence[int]) -> list[int]:
    if 13 in task:
        os.kill(os.getpid(), signal.SIGKILL)
    return _squares(task)


def _hangs_at_13(task: Sequence[int]) -> list[int]:
    while 13 in task:
        time.sleep(0.1)
    return _squares(task)


def _log(task: Sequence[int], folder: Path, index: int) -> None:
    """Note where it is, as rendering does, and write down that it is tried."""
    working_on(index, seconds=0.8)
    with (folder / "tried").open("a") as file:
        file.write(f"{task[index]}\n")


def _dies_at_some(task: Sequence[int], folder: Path, at: tuple[int, ...]) -> list[int]:
    for index, value in enumerate(task):
        _log(task, folder, index)
        if value in at:
            os.kill(os.getpid(), signal.SIGKILL)
    return _squares(task)


def _hangs_in_c_at_some(task: Sequence[int], folder: Path, at: tuple[int, ...]) -> list[int]:
    for index, value in enumerate(task):
        _log(task, folder, index)
        if value in at:
            re.match("(a+)+$", "a" * 64 + "b")  # ages, with the interpreter's lock held: no Python runs meanwhile
    return _squares(task)


def _dies_later(task: Sequence[int], folder: Path, at: tuple[int, ...]) -> list[int]:
    for index in range(len(task)):
        _log(task, folder, index)
    working_on(None)
    if set(at) & set(task):
        os.kill(os.getpid(), signal.SIGKILL)
    return _squares(task)


def _pid(task: Sequence[int]) -> int:
    return os.getpid()


def _fails(task: Sequence[int]) -> int:
    raise ValueError(f"task {task[0]}")


def _tasks(count: int, size: int = 10) -> Iterator[list[int]]:
    for first in range(0, count, size):
        yield list(range(first, min(first + size, count)))


@pytest.mark.parametrize(("count", "workers"), [(0, 2), (7, 2), (120, 0), (120, 1), (120, 2)])
def test_every_task_is_done_once(count: int, workers: int) -> None:
    results = list(run_tasks(_squares, _tasks(count), workers=workers))
    assert sorted(value for _, result in results for value in result) == [v * v for v in range(count)]  # type: ignore[union-attr]


def test_few_samples_need_no_processes_and_many_share_one_pool() -> None:
    few = {pid for _, pid in run_tasks(_pid, _tasks(49), workers=2)}
    assert few == {os.getpid()}
    many = [{pid for _, pid in run_tasks(_pid, _tasks(120), workers=2)} for _ in range(2)]
    assert os.getpid() not in many[0]
    assert many[1] <= many[0] or many[0] <= many[1], "the second call started other processes"


@pytest.mark.parametrize("function", [_dies_at_13, pytest.param(_hangs_at_13, marks=pytest.mark.slow)])
def test_the_sample_that_kills_its_worker_is_found_and_the_others_are_done(function: object) -> None:
    results = list(run_tasks(function, _tasks(60), workers=2, task_seconds=0.7))  # type: ignore[arg-type]
    killed = [list(task) for task, result in results if isinstance(result, WorkerDied)]
    done = sorted(value for _, result in results if isinstance(result, list) for value in result)
    assert killed == [[13]]
    assert done == [v * v for v in range(60) if v != 13]


@pytest.mark.parametrize("function", [_dies_at_some, _hangs_in_c_at_some], ids=["dies", "hangs in C"])
@pytest.mark.parametrize("at", [(13,), pytest.param((77, 140), marks=pytest.mark.slow)], ids=str)
def test_where_workers_say_where_they_are_a_killer_is_tried_three_times(
    tmp_path: Path, function: Callable[..., list[int]], at: tuple[int, ...]
) -> None:
    killer = partial(function, folder=tmp_path, at=at)
    results = list(run_tasks(killer, _tasks(200, 100), workers=2, notes=tmp_path))
    assert sorted(task[0] for task, result in results if isinstance(result, WorkerDied)) == list(at)
    done = sorted(value for _, result in results if isinstance(result, list) for value in result)
    assert done == [v * v for v in range(200) if v not in at]
    tried = Counter((tmp_path / "tried").read_text().split())
    for value in at:
        assert 2 <= tried[str(value)] <= 3
    assert not list(tmp_path.glob("*.tmp")), "a note was left"


def test_a_task_that_was_given_up_before_a_worker_took_it_is_not_done_and_leaves_no_note(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        noted(_squares, [1, 2], str(tmp_path / "taken away.tmp"))
    assert not list(tmp_path.iterdir())


def test_a_worker_that_dies_at_none_of_its_samples_has_its_task_halved(tmp_path: Path) -> None:
    killer = partial(_dies_later, folder=tmp_path, at=(13,))
    results = list(run_tasks(killer, _tasks(60, 30), workers=1, notes=tmp_path))
    assert [list(task) for task, result in results if isinstance(result, WorkerDied)] == [[13]]
    assert sorted(v for _, r in results if isinstance(r, list) for v in r) == [v * v for v in range(60) if v != 13]
    tries = Counter((tmp_path / "tried").read_text().split())["13"]
    assert tries <= 9, "it was looked for one by one"


def _slow_but_at_work(task: Sequence[int]) -> list[int]:
    for index in range(len(task)):
        working_on(index)
        time.sleep(0.05)
    return _squares(task)


def test_a_long_task_that_goes_on_is_not_taken_for_one_that_hangs() -> None:
    results = list(run_tasks(_slow_but_at_work, _tasks(60, 60), workers=1, task_seconds=1.5))  # it takes three seconds
    assert [result for _, result in results] == [_squares(range(60))]


def _watched(task: Sequence[int]) -> bool:
    working_on(0, seconds=0.5)
    working_on(None)
    time.sleep(1.5)
    return in_worker()


def test_the_watchdog_is_called_off_and_works_in_workers_only() -> None:
    working_on(0, seconds=0.1)
    time.sleep(0.5)  # this process would be gone
    assert not in_worker()
    assert [result for _, result in run_tasks(_watched, [[0]], workers=1, min_pool=0)] == [True]
    assert [result for _, result in run_tasks(_watched, [[0]], workers=1)] == [False]


def test_an_exception_in_a_task_is_raised_here() -> None:
    with pytest.raises(ValueError, match="task 0"):
        list(run_tasks(_fails, _tasks(60, 60), workers=1))


def test_no_more_tasks_are_taken_than_the_window_holds() -> None:
    taken = 0

    def counted() -> Iterator[list[int]]:
        nonlocal taken
        for task in _tasks(1000):
            taken += 1
            yield task

    ahead = 0
    for done, _ in enumerate(run_tasks(_squares, counted(), workers=2)):
        ahead = max(ahead, taken - done)
    assert taken == 100
    assert ahead <= 5 + 2 * 2, f"{ahead} tasks were taken before their results were wanted"


ORPHANS = """
import os, signal, sys
from trm_nb.workers.pool import run_tasks
def pid(task):
    import os
    return os.getpid()
print(*{worker for _, worker in run_tasks(pid, [[0] * 30] * 8, workers=2)}, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_when_their_run_is_killed(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    workers = [int(pid) for pid in run_python(ORPHANS).stdout.split()]
    assert workers
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in workers):
            return
        time.sleep(0.1)
    pytest.fail(f"workers {workers} outlived their run by ten seconds")


def _sleep(task: Sequence[str]) -> int:
    Path(task[0]).touch()
    time.sleep(600)
    return 0


def test_workers_end_with_whoever_does_not_want_the_rest(tmp_path: Path) -> None:
    begun = [[str(tmp_path / name)] * MIN_POOL for name in "ab"]

    def stop() -> None:
        if any(tmp_path.iterdir()):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_tasks(_sleep, begun, workers=1, on_wait=stop))
    started = time.monotonic()
    assert [result for _, result in run_tasks(len, begun, workers=1)] == [MIN_POOL] * 2  # not after ten minutes
    assert time.monotonic() - started < 60
