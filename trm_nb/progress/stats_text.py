"""What `get_stats()` says, as text: a run's state in a sentence; its stages as bars, counts and durations.

A terminal, the report and the notebooks all take their words from here. Bars and curves are characters, which survive
every sanitiser and every log.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

_LEVELS = "▁▂▃▄▅▆▇█"
_IN_ASCII = str.maketrans(_LEVELS + "░", "_.-~=+*#.")  # of bars and curves
_BAR_CELLS, _CURVE_CELLS = 24, 40


def state_text(stats: dict[str, Any]) -> str:
    """The state of `get_stats()` in words: of a run that is not done, what is there, what is pending, who is gone."""
    notebooks, stages = stats["notebooks"], stats["stages"]
    failed = [name for name, status in notebooks.items() if status == "failed"]
    if stats["state"] == "failed" and failed and all(stage["status"] != "failed" for stage in stages.values()):
        return f"failed in {failed[0]}"
    if stats["state"] != "stopped":
        return str(stats["state"])
    if stats["gone"]:
        return f"stopped: {stats['gone']} is gone"
    if "interrupted" in notebooks.values() or any(stage["status"] == "stopped" for stage in stages.values()):
        return "stopped: interrupted"
    words = ["dataset complete"] if stages["consolidate"]["status"] == "done" else []
    executed = [name for name, status in notebooks.items() if status == "done"]
    words += [f"stopped after {executed[-1]}"] if executed and len(executed) < len(notebooks) else []
    words += ["training pending"] if "train" in stats["pending"] else []
    return "; ".join(words) or "at rest"


def headline(stats: dict[str, Any]) -> str:
    """The state, with the number of samples planned, the last sign of life, and what to do next."""
    silent = stats["seconds_since_heartbeat"]
    if stats["state"] == "stalled":
        since = datetime.fromtimestamp(stats["heartbeat"]).astimezone()
        when = f"{since:%Y-%m-%d %H:%M:%S %Z} (no sign of life for {duration(silent)})"
        return f"stalled since {when}; run again, it continues"
    beat = f", last sign of life {duration(silent)} ago" if stats["state"].startswith("running") and silent else ""
    state = state_text(stats)
    if state.startswith("stopped:"):
        beat = "; run again, it continues"
    if list(shown_stages(stats)) == ["train"]:
        return f"{state}{beat}"
    colon = "," if ":" in state else ":"
    return f"{state}{colon} {stats['rows_planned']:,} samples planned{'' if stats['plan_frozen'] else ' so far'}{beat}"


def shown_stages(stats: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The stages, or `train` alone where a model is trained on something else than a dataset."""
    begun = [name for name, stage in stats["stages"].items() if stage["status"] != "waiting"]
    alone = begun == ["train"] and not stats["rows_planned"]
    return {"train": stats["stages"]["train"]} if alone else stats["stages"]


def bar(stage: dict[str, Any]) -> str:
    """A stage of `get_stats()` as a bar of characters."""
    filled = int(_BAR_CELLS * part_done(stage))
    return "█" * filled + "░" * (_BAR_CELLS - filled)


def curve(values: Sequence[float]) -> str:
    """Numbers in their order as a line of characters, from ▁ at the lowest to █ at the highest; many are averaged."""
    cells = min(len(values), _CURVE_CELLS)
    ends = [len(values) * i // cells for i in range(cells + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(ends)]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, spread = min(finite, default=0.0), max(finite, default=0.0) - min(finite, default=0.0)
    top = len(_LEVELS) - 1
    return "".join(
        _LEVELS[round(top * (mean - low) / (spread or 1.0))] if math.isfinite(mean) else "?" for mean in means
    )


def part_done(stage: dict[str, Any]) -> float:
    """The part of a stage that is done, 0 to 1; 0 where its total is not known yet."""
    if stage["status"] == "waiting" or not stage["total"]:
        return 1.0 if stage["status"] == "done" else 0.0
    return float(min(1.0, stage["done"] / stage["total"]))


def count(stage: dict[str, Any]) -> str:
    """How much of a stage is done, of how much."""
    total = "?" if stage["total"] is None else f"{stage['total']:,}"
    return f"{stage['done']:,} / {total} {stage['unit']}" if stage["status"] != "waiting" else ""


def said(stage: dict[str, Any]) -> str:
    """A stage's status, time and message."""
    took = "" if stage["seconds"] is None or stage["status"] == "failed" else f" {duration(stage['seconds'])}"
    message = f": {' '.join(stage['message'].split())}" if stage["message"] else ""
    return f"{stage['status']}{took}{message}"


def notes_of(stats: dict[str, Any]) -> list[str]:
    """Lines on the model, other trainings, the modalities, the quarantine, and what was not done as asked."""
    modalities = ", ".join(f"{number:,} {name}" for name, number in stats["modalities"].items())
    reasons = stats["quarantine_by_reason"]
    notes = [f"model: {' '.join(stats['model'].split())}"] if stats["model"] else []
    notes += [
        f"in training, too: {name}, {one['done']:,} of {one['total'] or '?'} steps"
        for name, one in stats["trainings"].items()
        if one["status"] == "running" and name != stats["model"]
    ]
    notes += [modalities] if modalities else []
    if reasons:
        notes.append(
            "quarantined: "
            + "; ".join(f"{number:,} x {' '.join(reason.split())}" for reason, number in reasons.items())
        )
    return notes + [f"{' '.join(item_id.split())}: {note}" for item_id, note in stats["notes"].items()]


def duration(seconds: float) -> str:
    """Seconds as people say them: 7 s, 2 min 5 s, 3 h 20 min, 2 d 4 h."""
    whole = round(seconds)
    units = [(86400, "d"), (3600, "h"), (60, "min"), (1, "s")]
    for (size, unit), (smaller, sub) in itertools.pairwise(units):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {sub}" if rest else "")
    return f"{whole} s"


def rate(a_second: float, unit: str) -> str:
    """A rate with three digits, a second or a minute."""
    many, span = (a_second, "s") if a_second >= 1 else (60 * a_second, "min")
    return f"{many:,.0f} {unit}/{span}" if many >= 99.5 else f"{many:.3g} {unit}/{span}"


def for_output(text: str) -> str:
    """The text, with bars and curves of ASCII where standard output cannot take it as it is."""
    output = getattr(sys.stdout, "rich_proxied_file", sys.stdout)  # behind what rich puts in its place
    encoding = getattr(output, "encoding", None) or "utf-8"
    try:
        text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        return text.translate(_IN_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    return text
