"""stats_text.py: curves, durations and rates as characters; states in words are in test_tracker."""

from __future__ import annotations

import pytest

from trm_nb.progress.stats_text import curve, duration, rate


@pytest.mark.parametrize(
    ("values", "rendered"),
    [([1.0], "▁"), ([0.0, 7.0], "▁█"), ([3.0, 3.0], "▁▁"), ([float("nan"), 1.0, 8.0], "?▁█"), ([float("inf")], "?"),
     ([float(n // 50) for n in range(400)], "".join(c * 5 for c in "▁▂▃▄▅▆▇█"))],
)  # fmt: skip
def test_a_curve_of_characters(values: list[float], rendered: str) -> None:
    assert curve(values) == rendered


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (59, "59 s"), (60, "1 min"), (125, "2 min 5 s"), (12_000, "3 h 20 min"), (190_000, "2 d 4 h")],
)
def test_duration(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("a_second", "said"),
    [(1234.4, "1,234 images/s"), (2.5, "2.5 images/s"), (0.5, "30 images/min"), (1.7, "1.7 images/s")],
)
def test_a_rate_is_a_second_or_a_minute(a_second: float, said: str) -> None:
    assert rate(a_second, "images") == said
