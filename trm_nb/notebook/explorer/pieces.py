"""The explorer's HTML: images, facts, neighbours and predictions as strings, in which all text of the data is escaped.

The same pieces serve the live widgets, with the classes in STYLE, and saved notebooks and reports, which keep no style.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from trm_nb.describe import printable
from trm_nb.notebook.explorer.look import Look, Thought
from trm_nb.notebook.plots.images import difference, fidelity
from trm_nb.notebook.prose import percent
from trm_nb.notebook.shown import data_address

THUMB = 100  # pixels
LONGEST = 120  # characters of a text of the data
LIVE = "trm-explorer-live"  # class of the live explorer, in whose presence the static one is hidden
STYLE = """<style>
.jp-OutputArea:has(.trm-explorer-live) .trm-explorer-static {display: none}
.trm-explorer-live {max-width: 1180px}
.trm-explorer-live .widget-html-content {line-height: 1.4}
.trm-explorer-live .trm-row {display: flex; flex-wrap: wrap; gap: 5px; align-items: flex-start}
.trm-explorer-live figure {margin: 0; line-height: 1.3}
.trm-explorer-live figcaption {font-size: 12px; color: var(--jp-ui-font-color1, #333); overflow-wrap: anywhere}
.trm-explorer-live figure img {display: block; border: 1px solid var(--jp-border-color2, #ccc)}
.trm-explorer-live .trm-thumb figcaption {height: 47px; overflow: hidden}
.trm-explorer-live .trm-name {white-space: nowrap}
.trm-explorer-live h4 {margin: 10px 0 4px; font-size: 14px}
.trm-explorer-live td, .trm-explorer-live th {padding: 1px 8px 1px 0; text-align: left; line-height: 1.4}
.trm-explorer-live tr.trm-now td {font-weight: bold; background: var(--jp-layout-color2, #eee)}
.trm-explorer-live .trm-board td {width: 20px; height: 20px; padding: 0; text-align: center; font-size: 12px;
  line-height: 20px; border: 1px solid var(--jp-border-color2, #ccc); color: #222}
.trm-explorer-live .trm-board td.trm-wrong {outline: 3px solid #c0392b; outline-offset: -3px; font-weight: bold}
.trm-explorer-live .trm-dot {display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin: 0 4px 0 10px}
.trm-explorer-live .trm-says {color: var(--jp-error-color0, #b00020)}
.trm-explorer-live .trm-map {position: relative; max-width: 400px}
.trm-explorer-live .trm-map img {width: 100%; display: block}
.trm-explorer-live .trm-map span {position: absolute; width: 14px; height: 14px; margin: -8px 0 0 -8px;
  border: 2px solid #000; border-radius: 9px; background: #fff8}
.trm-explorer-live :focus-visible {outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: 1px}
</style>"""
_SHADES = ("#fbb4ae", "#b3cde3", "#ccebc5", "#decbe4", "#fed9a6", "#ffffcc", "#e5d8bd", "#fddaec", "#f2f2f2", "#cfe8e8")


def short(text: object, most: int = LONGEST) -> str:
    """Text of the data on one line, escaped; its middle is left out where it is long."""
    line = " ".join(printable(text).split())
    return escape(line if len(line) <= most else f"{line[: most * 2 // 3]} … {line[-most // 3 :]}")


def png(image: np.ndarray) -> str:
    """An image uint8 (h, w, 3) as the address of an <img>."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return data_address(buffer.getvalue())


def figure(image: np.ndarray, caption: str, side: int, alt: str = "") -> str:
    """An image over its caption; `caption` and `alt` are HTML already."""
    shown = f'<img src="{png(image)}" alt="{alt or caption}" width="{side}" height="{side}">'
    return f'<figure style="width:{side}px">{shown}<figcaption>{caption}</figcaption></figure>'


def images(look: Look, side: int = 190) -> str:
    """What the encoder sees; before the denoiser and the difference; what the capsules decode to."""
    name = short(look.name)
    denoised = look.rendered is not None and bool((look.rendered != look.image).any())
    caption = "denoised: what the encoder sees" if denoised else "what the encoder sees"
    caption += "; the denoiser changed nothing" if look.rendered is not None and not denoised else ""
    shown = [figure(look.image, caption, side, name)]
    if denoised and look.rendered is not None:
        shown.insert(0, figure(look.rendered, "as rendered, before the denoiser", side))
        shown.append(figure(difference(look.rendered, look.image), "difference × 10", side))
    if look.decoded is not None:
        shown.append(figure(look.decoded, f"decoded from the capsules, {fidelity(look.image, look.decoded)}", side))
    else:
        shown.append("<p>This encoder has no decoder, so nothing is reconstructed.</p>")
    return f'<div class="trm-row">{"".join(shown)}</div>'


def facts(look: Look) -> str:
    """The sample's name, and what is known of it."""
    known = " · ".join(f"{escape(name)}: <b>{short(value, 40)}</b>" for name, value in look.facts.items())
    remarks = "".join(f"<div>{escape(remark)}</div>" for remark in look.remarks)
    return f"<h4>{short(look.name)}</h4><div>{known}</div>{remarks}"


def attention(look: Look) -> str:
    """What each capsule attends to."""
    if look.attention is None:
        return "<p>This encoder does not report what its capsules attend to.</p>"
    step = max(1, look.attention.shape[1] // THUMB)
    tiles = [figure(one[::step, ::step], f"capsule {n}", 74) for n, one in enumerate(look.attention)]
    return f'<div class="trm-row">{"".join(tiles)}</div>'


def thumbnail(image: np.ndarray, name: object, label: object, distance: float) -> str:
    """A neighbour."""
    step = max(1, image.shape[0] // THUMB)
    caption = f"<b>{distance:.2f}</b> {short(label, 24)}<br>{short(str(name).rsplit('/', 1)[-1], 32)}"
    return f'<div class="trm-thumb">{figure(image[::step, ::step], caption, THUMB, short(name))}</div>'


def prediction(thought: Thought, step: int) -> str:
    """What a model predicts after a recursion step, counted from 1, and what is right."""
    if not thought.steps:
        return f"<p>{escape(thought.remark)}</p>"
    value, probability = thought.steps[step - 1]
    said = f"<p>{escape(thought.remark)}</p>" if thought.remark else ""
    sure = "" if probability is None else f", probability {percent(probability, 1)}"
    if isinstance(value, list):
        return f"<p>After step {step} of {len(thought.steps)}{sure}: {_wrong(value, thought.target)}</p>{said}" + (
            f'<div class="trm-row">{board(value, thought.target)}{_right(thought.target)}</div>'
        )
    rows = "".join(_step_row(n, one, thought.target, n == step) for n, one in enumerate(thought.steps, 1))
    head = "<tr><th>step</th><th>prediction</th><th>probability</th><th></th></tr>"
    right = "" if thought.target is None else f"; right is <b>{short(thought.target, 40)}</b>"
    return f"<p>After step {step}: <b>{short(value, 40)}</b>{sure}{right}.</p>{said}<table>{head}{rows}</table>"


def _step_row(number: int, step: tuple[Any, float], target: Any, now: bool) -> str:
    value, probability = step
    mark = "" if target is None else "right" if value == target else "wrong"
    sure = "" if probability is None else f"{percent(probability, 1)}"
    row = f"<td>{number}</td><td>{short(value, 40)}</td><td>{sure}</td><td>{mark}</td>"
    return f'<tr class="trm-now">{row}</tr>' if now else f"<tr>{row}</tr>"


def _wrong(predicted: Sequence[Sequence[int]], target: Any) -> str:
    if target is None:
        return "what is right is not known"
    wrong = sum(_differs(n, m, cell, target) for n, row in enumerate(predicted) for m, cell in enumerate(row))
    return "every cell is right" if not wrong else f"wrong cells, framed in red: <b>{wrong:,}</b>"


def _differs(n: int, m: int, cell: int, target: Sequence[Sequence[int]]) -> bool:
    """Whether a cell differs from the target; one outside of the target, or not asked for (-1), does not."""
    inside = n < len(target) and m < len(target[n])
    return inside and target[n][m] >= 0 and target[n][m] != cell


def _right(target: Any) -> str:
    return "" if target is None else f"<figure>{board(target, None)}<figcaption>right</figcaption></figure>"


def board(cells: Sequence[Sequence[int]], target: Any) -> str:
    """A grid as a table with the numbers in it; cells that differ from the target are framed."""
    rows = (
        "".join(_cell(cell, target is not None and _differs(n, m, cell, target)) for m, cell in enumerate(row))
        for n, row in enumerate(cells)
        if any(cell >= 0 for cell in row)
    )
    return f'<table class="trm-board">{"".join(f"<tr>{row}</tr>" for row in rows)}</table>'


def _cell(value: int, wrong: bool) -> str:
    shade = _SHADES[value % len(_SHADES)] if value >= 0 else "transparent"
    return f'<td{" class=trm-wrong" if wrong else ""} style="background:{shade}">{value if value >= 0 else ""}</td>'


def table(rows: Iterable[Mapping[str, str]]) -> str:
    """Rows of cells that are HTML already, as a table that reports keep."""
    held = list(rows)
    head = "".join(f'<th scope="col">{name}</th>' for name in held[0])
    body = "".join(f"<tr>{''.join(f'<td>{value}</td>' for value in row.values())}</tr>" for row in held)
    return f'<table class="trm-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def static(look: Look, thought: Thought | None, neighbours: Sequence[Mapping[str, str]], about: str) -> str:
    """One sample for a saved notebook or a report: images, facts, neighbours and prediction without anything live."""
    shown = [f'<img src="{png(look.image)}" alt="{short(look.name)}" width="224">']
    shown += (
        [f'<img src="{png(look.decoded)}" alt="decoded from the capsules" width="224">']
        if look.decoded is not None
        else []
    )
    if look.attention is not None:
        strip = np.concatenate([np.concatenate(list(half[:, ::2, ::2]), 1) for half in np.split(look.attention, 2)], 0)
        alt = "What each of the 12 capsules attends to, 0 to 5 above 6 to 11"
        shown.append(f'<img src="{png(strip)}" alt="{alt}" width="672">')
    known = {"sample": short(look.name), **{escape(name): short(value, 40) for name, value in look.facts.items()}}
    if thought is not None and thought.steps and not isinstance(thought.steps[-1][0], list):
        known |= {"prediction": short(thought.steps[-1][0], 40), "step": str(len(thought.steps))}
    near = table(neighbours) if neighbours else ""
    body = f"<p>{escape(about)}</p><p>{' '.join(shown)}</p>{table([known])}<p>Nearest neighbours:</p>{near}"
    return f'<div class="trm-explorer-static">{body}</div>'
