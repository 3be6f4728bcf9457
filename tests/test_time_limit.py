"""A time limit ends its block, in any thread, and nothing else."""

from __future__ import annotations

import threading
import time

import pytest

from trm_nb.render.image_files import time_limit as module
from trm_nb.render.image_files.time_limit import TimeLimitError, time_limit


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.01)


def spin(seconds: float) -> None:
    """Python code at work; a block that is not ended in time fails the test instead of hanging it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def ended_early(limit: float) -> bool:
    try:
        with time_limit(limit):
            spin(60)
    except TimeLimitError:
        return True
    return False


def in_a_thread(function: object, *args: object) -> list[object]:
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(function(*args)))  # type: ignore[operator]
    thread.start()
    thread.join()
    return results


def test_a_long_block_is_ended_in_this_thread() -> None:
    assert ended_early(0.1)


def test_a_long_block_is_ended_in_another_thread() -> None:
    assert in_a_thread(ended_early, 0.1) == [True]


def test_a_short_block_is_left_alone_and_so_is_what_follows() -> None:
    for _ in range(3):
        with time_limit(0.5):
            pass
    spin(1.0)


def test_no_except_exception_swallows_it() -> None:
    swallowed = []
    with pytest.raises(TimeLimitError), time_limit(0.1):
        try:
            spin(60)
        except Exception as error:
            swallowed.append(error)
    assert not swallowed


def test_an_error_of_the_block_passes() -> None:
    with pytest.raises(KeyError), time_limit(5):
        raise KeyError


def test_only_the_slow_thread_is_ended() -> None:
    results: dict[str, bool] = {}

    def work(name: str, limit: float, seconds: float) -> None:
        try:
            with time_limit(limit):
                spin(seconds)
            results[name] = True
        except TimeLimitError:
            results[name] = False

    threads = [
        threading.Thread(target=work, args=args)
        for args in (("slow", 0.2, 60.0), ("quick", 60.0, 0.4), ("late", 60.0, 0.6))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {"slow": False, "quick": True, "late": True}


@pytest.mark.parametrize(("outer", "inner"), [(60.0, 0.1), (0.1, 60.0), (0.1, 0.1)], ids=["inner", "outer", "both"])
def test_limits_may_be_nested(outer: float, inner: float) -> None:
    caught = []
    try:
        with time_limit(outer):
            try:
                with time_limit(inner):
                    spin(60)
            except TimeLimitError:
                caught.append("inner")
                if outer < inner:
                    raise
            spin(0.2)
    except TimeLimitError:
        caught.append("outer")
    assert caught == {60.0: ["inner"], 0.1: ["inner", "outer"]}[outer]
    spin(0.2)  # nothing is left


def test_an_error_that_is_on_its_way_when_the_block_ends_comes_up_there_and_not_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_its_way, raise_in = threading.Event(), module._raise_in

    def slowly(thread: int, error: type[BaseException] | None) -> None:
        if error:
            on_its_way.set()
            time.sleep(0.1)
        raise_in(thread, error)

    monkeypatch.setattr(module, "_raise_in", slowly)
    with pytest.raises(TimeLimitError), time_limit(0.05):
        on_its_way.wait(60)
    spin(0.3)
