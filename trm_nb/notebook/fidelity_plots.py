"""Plots of the fidelity study: arms side by side, exactness by size, stored bits, meaning, the published points.

Each takes the records of trm_nb/evaluation and returns a matplotlib Figure, as those of plots.py do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from trm_nb.evaluation.fidelity_study.content import PHOTOGRAPHS, StudyContent
from trm_nb.evaluation.fidelity_study.meaning import Answer
from trm_nb.evaluation.fidelity_study.published import CHARACTERS_OF_A_TOKEN, DEEPSEEK_OCR, Ratio
from trm_nb.evaluation.fidelity_study.reading import Summary, measures_of
from trm_nb.notebook.plots import COLOURS, clean, gallery
from trm_nb.notebook.prose import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_reading(summaries: Sequence[Summary], bits: int = 16) -> Figure:
    """Characters or cells read right with their 95 % intervals: a row for each kind, a colour for each arm."""
    shown = [summary for summary in summaries if summary.bits == bits and summary.kind != PHOTOGRAPHS]
    return _dots({arm: {s.kind: measures_of(s) for s in shown if s.arm == arm} for arm in _arms(shown)}, "read right")


def plot_photographs(summaries: Sequence[Summary], bits: int = 16) -> Figure:
    """PSNR of photographs with its interval, a row for each arm."""
    shown = [summary for summary in summaries if summary.bits == bits and summary.kind == PHOTOGRAPHS]
    figure = Figure(figsize=(6.6, 0.8 + 0.32 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for place, summary in enumerate(shown):
        _interval(axes, place, measures_of(summary), COLOURS[place % len(COLOURS)])
    axes.set_yticks(range(len(shown)), [summary.arm for summary in shown])
    axes.set(xlabel="PSNR of held-out photographs, dB")
    axes.invert_yaxis()
    clean(axes)
    return figure


def plot_sizes(sizes: Mapping[str, Mapping[str, Summary]], kind: str) -> Figure:
    """Grids read without a mistake by the longer side, a line for each arm; the number of images is below the bin."""
    figure = Figure(figsize=(6.6, 3.1), layout="constrained")
    axes = figure.subplots()
    bins = list(dict.fromkeys(name for of in sizes.values() for name in of))
    counts = {name: of[name].images for of in sizes.values() for name in of}
    for (arm, of), colour in zip(sizes.items(), COLOURS, strict=False):
        at = [place for place, name in enumerate(bins) if name in of]
        found = [of[bins[place]].whole for place in at]
        share = np.array([accuracy.share for accuracy in found])
        reach = [share - [a.low for a in found], [a.high for a in found] - share]
        axes.errorbar(at, share, yerr=np.maximum(0, reach), fmt="o-", color=colour, lw=1.4, ms=4, capsize=2, label=arm)
    axes.set_xticks(range(len(bins)), [f"{name}\n{counts[name]:,}" for name in bins])
    axes.set(xlabel="longer side in cells, and readings", ylabel=f"{kind}, exactly right", ylim=(-0.03, 1.03))
    _share_axis(axes)
    axes.legend(frameon=False, fontsize=8)
    clean(axes)
    return figure


def plot_bits(summaries: Sequence[Summary], arms: Sequence[str]) -> Figure:
    """What 16, 8 and 4 bits a number leave of characters and cells: the mean over the kinds, a line for each arm."""
    figure = Figure(figsize=(6.6, 2.9), layout="constrained")
    axes = figure.subplots()
    for arm, colour in zip(arms, COLOURS, strict=False):
        mine = [summary for summary in summaries if summary.arm == arm and summary.kind != PHOTOGRAPHS]
        bits = sorted({summary.bits for summary in mine})
        means = [np.mean([summary.parts.share for summary in mine if summary.bits == one]) for one in bits]
        axes.plot(range(len(bits)), means, "o-", color=colour, lw=1.6, ms=4, label=arm)
        axes.set_xticks(range(len(bits)), [str(one) for one in bits])
    axes.set(xlabel="bits a number", ylabel="read right, mean of the kinds", ylim=(-0.03, 1.03))
    _share_axis(axes)
    axes.legend(frameon=False, fontsize=8)
    clean(axes)
    return figure


def plot_meaning(answers: Sequence[Answer], what: str) -> Figure:
    """Predictions of the `neighbour` or the `probe`, with intervals: a row for each question, a colour for each arm."""
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for answer in answers:
        measured = answer.neighbour if what == "neighbour" else answer.probe
        found.setdefault(answer.arm, {})[answer.question] = (measured.share, measured.low, measured.high)
    return _dots(found, "nearest neighbour right" if what == "neighbour" else "linear probe right")


def plot_published(ratios: Iterable[Ratio], shares: Mapping[str, float]) -> Figure:
    """Our text beside DeepSeek-OCR's points, by text tokens for each vision token or capsule (4 characters a token)."""
    figure = Figure(figsize=(6.6, 3.1), layout="constrained")
    axes = figure.subplots()
    for (tokens, points), colour in zip(DEEPSEEK_OCR.items(), COLOURS[1:], strict=False):
        axes.plot(*zip(*points, strict=True), "o-", color=colour, lw=1.2, ms=4, label=f"DeepSeek-OCR, {tokens} tokens")
    ours = [
        (ratio.per_capsule / CHARACTERS_OF_A_TOKEN, shares[ratio.kind], ratio.kind)
        for ratio in ratios
        if ratio.kind in shares
    ]
    for number, (ratio, share, kind) in enumerate(ours):
        axes.plot(ratio, share, "s", color=COLOURS[0], ms=5, label=None if number else "12 capsules, by kind of text")
        axes.annotate(kind, (ratio, share), (4, -9), textcoords="offset points", fontsize=6.5, color=COLOURS[0])
    axes.set(xlabel="text tokens for each vision token (not for each byte)", ylabel="characters right", ylim=(0, 1.05))
    _share_axis(axes)
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    clean(axes)
    return figure


def examples(content: StudyContent, kinds: int = 8) -> Figure:
    """One held-out image of each kind."""
    first = {shown.kind: shown for shown in reversed(content.test)}
    chosen = list(reversed(first.values()))[:kinds]
    return gallery(np.stack([shown.image for shown in chosen]), [shown.kind for shown in chosen])


def _dots(found: Mapping[str, Mapping[str, tuple[float, float, float]]], xlabel: str) -> Figure:
    rows = list(dict.fromkeys(name for of in found.values() for name in of))
    figure = Figure(figsize=(7.4, 1.0 + 0.1 * len(rows) * max(2, len(found))), layout="constrained")
    axes = figure.subplots()
    for number, (arm, of) in enumerate(found.items()):
        offset = (number - (len(found) - 1) / 2) * 0.8 / max(1, len(found))
        for place, row in enumerate(rows):
            if row in of:
                _interval(axes, place + offset, of[row], COLOURS[number % len(COLOURS)], None if place else arm)
    for place in range(1, len(rows)):
        axes.axhline(place - 0.5, color="#dde0dd", lw=0.6)
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlabel=xlabel, xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks(np.linspace(0, 1, 6), [percent(tick) for tick in np.linspace(0, 1, 6)])
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    clean(axes)
    return figure


def _interval(
    axes: Axes, place: float, measured: tuple[float, float, float], colour: str, label: str | None = None
) -> None:
    value, low, high = measured
    if np.isfinite(low) and np.isfinite(high):
        axes.plot([low, high], [place, place], color=colour, lw=1.2)
    axes.plot(value, place, "o", color=colour, ms=4, label=label)


def _share_axis(axes: Axes) -> None:
    axes.set_yticks(np.linspace(0, 1, 6), [percent(tick) for tick in np.linspace(0, 1, 6)])


def _arms(summaries: Iterable[Summary]) -> list[str]:
    return list(dict.fromkeys(summary.arm for summary in summaries))
