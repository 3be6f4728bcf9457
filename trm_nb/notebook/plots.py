"""The notebooks' figures: each function takes arrays and returns a matplotlib Figure.

Figures are made without pyplot, so nothing is shown twice and no state is left. They have a light ground, in reports
too. Text of the data is escaped from mathtext, and characters the font lacks show as backslash escapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trm_nb.evaluation.capsule_stats import principal_plane
from trm_nb.notebook.prose import percent, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trm_nb.render.grid import GridPage
    from trm_nb.render.text import TextPage

COLOURS = ("#0b6a6a", "#c8553d", "#5b5ea6", "#b8860b", "#3d8b4f", "#a23b72", "#4f7cac", "#7a6a53", "#d08c60", "#2f4858")
FEW_POINTS = 30
_GRAY, _LINE = "#5b666b", "#dde0dd"


def gallery(images: np.ndarray, captions: Sequence[str], columns: int = 4) -> Figure:
    """Images uint8 (n, h, w, 3) in rows, each over its caption."""
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    side = 9.2 / max(columns, 3)
    figure = Figure(figsize=(side * columns, (side + 0.45) * rows), layout="constrained")
    for place in range(len(images)):
        axes = figure.add_subplot(rows, columns, place + 1)
        show_image(axes, images[place])
        axes.set_xlabel(plain(captions[place]), fontsize=7.5, color=_GRAY)
    return figure


def decibels(originals: np.ndarray, decoded: np.ndarray) -> list[str]:
    """A caption for each decoded image uint8 (n, h, w, 3): its PSNR against the original."""
    errors = np.square(originals.astype(np.float64) - decoded).mean((1, 2, 3))
    return ["equal" if not error else f"decoded, {10 * np.log10(255**2 / error):.1f} dB" for error in errors]


def show_image(axes: Axes, image: np.ndarray) -> None:
    """An image (h, w, 3) without ticks, in a thin frame."""
    axes.imshow(image, interpolation="nearest" if image.shape[0] < 150 else "antialiased")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_color(_LINE)


def clean(axes: Axes) -> None:
    """Give axes the look of all plots here: no frame, gray ticks, small labels."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_GRAY)
    axes.tick_params(colors=_GRAY, labelsize=8)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)


def page_layout(image: np.ndarray, page: TextPage | GridPage | object) -> Figure:
    """One sample's image, and beside it the same with its layout: cells and soft wraps, or the panels of a task."""
    from trm_nb.render.grid import GridPage
    from trm_nb.render.text import TextPage

    figure = Figure(figsize=(9.2, 4.7), layout="constrained")
    left, right = figure.subplots(1, 2)
    show_image(left, image)
    left.set_xlabel("what the model sees", fontsize=9)
    show_image(right, 255 - (255 - image) // 2)
    if isinstance(page, TextPage):
        _mark_cells(right, page, image.shape[0])
        right.set_xlabel(
            f"{page.cells.shape[0]} rows of {page.cells.shape[1]} cells; red: the line goes on", fontsize=9
        )
    elif isinstance(page, GridPage):
        _mark_panels(right, page)
        right.set_xlabel(f"{len(page.panels)} panels, a cell is {page.pitch} pixels", fontsize=9)
    else:
        _mark_content(right, image)
        right.set_xlabel("inside: the content, outside: the border that makes it square", fontsize=9)
    return figure


def _mark_cells(axes: Axes, page: TextPage, size: int) -> None:
    rows, columns = page.cells.shape
    height, width = size // rows, size // columns
    top, left = (size - rows * height) / 2 - 0.5, (size - columns * width) / 2 - 0.5
    axes.hlines(top + height * np.arange(rows + 1), left, left + columns * width, color=COLOURS[0], lw=0.3)
    axes.vlines(left + width * np.arange(columns + 1), top, top + rows * height, color=COLOURS[0], lw=0.3)
    for row in np.flatnonzero(page.wrapped):
        axes.vlines(left + columns * width, top + height * row, top + height * (row + 1), color=COLOURS[1], lw=3)


def _mark_panels(axes: Axes, page: GridPage) -> None:
    from matplotlib.patches import Rectangle

    for number, panel in enumerate(page.panels, 1):
        frame = (panel.left - 2, panel.top - 2)
        colour = COLOURS[1] if panel.kind == "test" else COLOURS[0]
        axes.add_patch(Rectangle(frame, panel.width + 3, panel.height + 3, fill=False, ec=colour, lw=1.5))
        axes.annotate(f"{panel.kind} {number}", frame, color=colour, fontsize=7, va="bottom")


def _mark_content(axes: Axes, image: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    corner = image[0, 0]
    inked = (image != corner).any(axis=-1)
    if not inked.any():
        return
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    size = columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
    axes.add_patch(Rectangle((columns[0] - 0.5, rows[0] - 0.5), *size, fill=False, ec=COLOURS[1], lw=1.5))


def bars(counts: Mapping[Any, int], xlabel: str, ylabel: str) -> Figure:
    """How many of each: a bar a key, in the order given."""
    figure = Figure(figsize=(6.6, 2.9), layout="constrained")
    axes = figure.subplots()
    bars = axes.bar([plain(name, 18) for name in counts], list(counts.values()), color=COLOURS[0], width=0.7)
    if len(counts) <= 12:
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=8, color=_GRAY)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    clean(axes)
    return figure


def histogram(values: np.ndarray, xlabel: str, ylabel: str = "samples") -> Figure:
    """A distribution, with its median marked."""
    figure = Figure(figsize=(6.6, 2.9), layout="constrained")
    axes = figure.subplots()
    finite = values[np.isfinite(values)]
    if len(finite):
        axes.hist(finite, bins=min(40, max(5, len(finite) // 4)), color=COLOURS[0], alpha=0.85)
        axes.axvline(float(np.median(finite)), color=COLOURS[1], lw=1.5, label=f"median {np.median(finite):.3g}")
        axes.legend(frameon=False, fontsize=8)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    clean(axes)
    return figure


def before_after(before: np.ndarray, after: np.ndarray) -> Figure:
    """An image as rendered, as cached, and ten times their difference; all uint8 (h, w, 3)."""
    difference = np.clip(128 + 10 * (after.astype(np.int16) - before.astype(np.int16)), 0, 255).astype(np.uint8)
    return gallery(np.stack([before, after, difference]), ["as rendered", "as cached", "difference x 10"], columns=3)


def attention(image: np.ndarray, maps: np.ndarray) -> Figure:
    """What each of 12 capsules attends to: `maps` float (12, rows, columns)."""
    figure = Figure(figsize=(9.2, 5.2), layout="constrained")
    grid = figure.add_gridspec(3, 6)
    show_image(axes := figure.add_subplot(grid[:, :2]), image)
    axes.set_xlabel("the image", fontsize=9)
    for capsule, overlay in enumerate(attention_overlays(image, maps)):
        show_image(axes := figure.add_subplot(grid[capsule // 4, 2 + capsule % 4]), overlay)
        axes.set_xlabel(f"capsule {capsule}", fontsize=8, color=_GRAY)
    return figure


def attention_overlays(image: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """A faint image under each map float (k, rows, columns), red where it attends most: uint8 (k, h, w, 3)."""
    height, width = image.shape[:2]
    strength = 0.85 * maps / maps.max(axis=(1, 2), keepdims=True)
    strength = strength[:, np.arange(height) * maps.shape[1] // height][:, :, np.arange(width) * maps.shape[2] // width]
    faint, colour = 255.0 - (255 - image) // 2, 255 * np.array(to_rgb(COLOURS[1]))
    blended: np.ndarray = faint + strength[..., None] * (colour - faint)
    return blended.astype(np.uint8)


def capsule_rows(capsules: np.ndarray) -> Figure:
    """One sample's 12 capsules (12, 512) as rows of colour."""
    figure = Figure(figsize=(9.2, 2.6), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(capsules, cmap="RdBu", vmin=-6, vmax=6, aspect="auto", interpolation="nearest")
    figure.colorbar(shown, ax=axes, label="value", shrink=0.9)
    axes.set(xlabel="feature", ylabel="capsule", yticks=range(0, len(capsules), 3))
    clean(axes)
    return figure


def capsule_map(vectors: np.ndarray, names: Sequence[str]) -> Figure:
    """Samples on the plane that explains most of their variance, coloured by `names` (the ten most frequent)."""
    coordinates, explained = principal_plane(vectors)
    figure = Figure(figsize=(7.4, 5.2), layout="constrained")
    axes = figure.subplots()
    named = np.asarray(names, dtype=object)
    shown = sorted(set(names), key=lambda name: (-int((named == name).sum()), name))
    for place, name in enumerate(shown):
        chosen = coordinates[named == name]
        colour = COLOURS[place] if place < len(COLOURS) else "#b9bfbc"
        label = plain(name, 26) if place < len(COLOURS) else ("others" if place == len(COLOURS) else None)
        axes.scatter(chosen[:, 0], chosen[:, 1], s=14, color=colour, alpha=0.75, linewidths=0, label=label)
    axes.set(
        xlabel=f"first component ({percent(explained[0])} of the variance)",
        ylabel=f"second component ({percent(explained[1])})",
    )
    axes.legend(frameon=False, fontsize=8, markerscale=1.6, loc="center left", bbox_to_anchor=(1, 0.5))
    clean(axes)
    return figure


def nearest(images: np.ndarray, captions: Sequence[Sequence[str]], same: np.ndarray) -> Figure:
    """Rows of a query and its neighbours: `images` (queries, 1 + n, h, w, 3), a caption each.

    `same` bool (queries, n): neighbours with the query's label have a tick and a frame.
    """
    queries, columns = images.shape[:2]
    side = 9.2 / columns
    figure = Figure(figsize=(9.2, (side + 0.5) * queries), layout="constrained")
    for query in range(queries):
        for column in range(columns):
            axes = figure.add_subplot(queries, columns, query * columns + column + 1)
            show_image(axes, images[query, column])
            alike = column > 0 and bool(same[query, column - 1])
            for spine in axes.spines.values() if column == 0 or alike else ():
                spine.set(color=COLOURS[4] if alike else COLOURS[1], linewidth=2.5)
            said = plain(captions[query][column], round(14 * side))
            axes.set_xlabel(f"✓ {said}" if alike else said, fontsize=8, color=COLOURS[4] if alike else _GRAY)
    return figure


def curves(
    steps: Sequence[Mapping[str, float]],
    names: Sequence[str],
    ylabel: str,
    xlabel: str = "optimiser step",
    best: int | None = None,
) -> Figure:
    """Logged metrics against the step; steps that did not log one are left out of its line. `best` marks a step."""
    figure = Figure(figsize=(6.6, 3.1), layout="constrained")
    axes = figure.subplots()
    for name, colour in zip(names, COLOURS, strict=False):
        logged = [(step["global_step"], step[name]) for step in steps if name in step]
        if logged:
            marker = "o" if len(logged) <= FEW_POINTS else None  # one point alone makes no line
            axes.plot(
                *zip(*logged, strict=True), color=colour, lw=1.6, marker=marker, ms=4, label=name.replace("_", " ")
            )
    if best is not None:
        axes.axvline(best, color="0.5", lw=1, ls="--", zorder=0, label=f"best step: {best:,}")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.locator_params(axis="x", integer=True)
    if axes.lines:
        axes.legend(frameon=False, fontsize=8)
    clean(axes)
    return figure


def confusion(matrix: np.ndarray, classes: Sequence[str], at_most: int = 20) -> Figure:
    """Counts (true, predicted) of the classes with most samples; numbers where they fit."""
    kept = np.sort(np.argsort(-matrix.sum(axis=1), kind="stable")[:at_most])
    shown, names = matrix[np.ix_(kept, kept)], [plain(classes[i], 18) for i in kept]
    side = 2.2 + 0.34 * len(kept)
    figure = Figure(figsize=(side + 1.2, side), layout="constrained")
    axes = figure.subplots()
    parts = shown / np.maximum(shown.sum(axis=1, keepdims=True), 1)
    axes.imshow(parts, cmap="GnBu", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", xticks=range(len(kept)), yticks=range(len(kept)), yticklabels=names)
    axes.set_xticklabels(names, rotation=60, ha="right", rotation_mode="anchor")
    clean(axes)
    for row, column in np.argwhere(shown > 0):
        colour = "white" if parts[row, column] > 0.6 else "#1d2326"
        axes.text(column, row, f"{shown[row, column]:,}", ha="center", va="center", fontsize=7, color=colour)
    return figure


def compared(figures: Mapping[str, float], interval: tuple[float, float]) -> Figure:
    """Accuracies side by side, a bar each; the first one's interval is shown on it, and shaded across the others."""
    figure = Figure(figsize=(6.6, 0.9 + 0.45 * len(figures)), layout="constrained")
    axes = figure.subplots()
    values = list(figures.values())
    axes.axvspan(*interval, color=COLOURS[0], alpha=0.12, lw=0)
    axes.barh(list(figures), values, color=[COLOURS[0], *["#b9bfbc"] * (len(values) - 1)], height=0.6)
    reach = [[max(0.0, values[0] - interval[0])], [max(0.0, interval[1] - values[0])]]
    axes.errorbar(values[0], 0, xerr=reach, color="#1d2326", capsize=4, lw=1.4)
    for place, value in enumerate(values):
        beside = max(value, interval[1]) if place == 0 else value
        axes.annotate(percent(value, 1), (beside, place), (5, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set(xlabel="accuracy, held out (shaded: the model's interval)", xlim=(0, 1.12))
    axes.set_xticks(np.linspace(0, 1, 6), [percent(tick) for tick in np.linspace(0, 1, 6)])
    axes.invert_yaxis()
    clean(axes)
    return figure


def by_recursion_step(lines: Mapping[str, Sequence[float]], baselines: Mapping[str, float]) -> Figure:
    """Accuracies after each recursion step, a line for each measure, with baselines that have no steps."""
    figure = Figure(figsize=(6.6, 3.1), layout="constrained")
    axes = figure.subplots()
    steps = range(1, max(len(line) for line in lines.values()) + 1)
    for (name, line), colour in zip(lines.items(), (COLOURS[0], *COLOURS[2:]), strict=False):
        axes.plot(range(1, len(line) + 1), line, "o-", color=colour, lw=1.6, label=name)
    for (name, value), style in zip(baselines.items(), cycle(("-.", "--", ":"))):
        axes.axhline(value, color=COLOURS[1], lw=1.2, ls=style, label=f"{name}, {percent(value)}")
    axes.set(xlabel="recursion step", ylabel="accuracy, held out", xticks=steps, ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize=8)
    clean(axes)
    return figure
