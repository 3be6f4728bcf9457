"""How long a training takes, in steps or minutes: what is asked for, how it is measured, and how its command ends."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

from trm_nb.errors import UserError


def check_length(steps: int | None, minutes: float | None) -> None:
    """Raise UserError unless one of them is given, and is a number above 0."""
    if (steps is None) == (minutes is None):
        raise UserError(f"expected either steps or minutes, got {steps} and {minutes}; give one of them")
    check_positive(steps=steps, minutes=minutes)


def check_positive(**values: float | None) -> None:
    """Raise UserError for the first of the settings that is neither None nor a finite number above 0."""
    for name, value in values.items():
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise UserError(f"{name}: expected a number above 0, got {value}")


def seconds_of(step: Callable[[], object], warm_up: int, least: int, seconds: float) -> float:
    """How long a step takes: the mean of at least `least` steps and at least so many seconds, after those of warm-up.

    `step` returns when the device is done with it.
    """
    for _ in range(warm_up):
        step()
    began, done = time.perf_counter(), 0
    while done < least or time.perf_counter() - began < seconds:
        step()
        done += 1
    return (time.perf_counter() - began) / done


def exit_code_of(training: Callable[[], object], folder: Path) -> int:
    """Run a training from the command line: 0 when it is done, 2 for a mistake of the user, 130 interrupted."""
    try:
        training()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted; run again, it continues in {folder}", file=sys.stderr)
        return 130
    return 0
