"""Every figure renders, also on hostile and on degenerate data; warnings are errors here."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from trm_nb.notebook import board_plots, comparison_plots, plots
from trm_nb.notebook.shown import MOST_PNG, Gallery, Tile, show
from trm_nb.records import GridTask, Item
from trm_nb.render.renderer import Renderer

HOSTILE = "$\\frac{a$ <b>\n日本 \x00 \U0001f600 " + "long " * 50
IMAGES = np.random.default_rng(0).integers(0, 255, (5, 56, 56, 3), np.uint8)
CURVE = [{"global_step": 1, "loss": 2.0}, {"global_step": 2, "loss": 1.0, "accuracy": 0.5}]


RANDOM = np.random.default_rng(0).normal(size=(30, 9))
NAMES = [str(i) for i in range(30)]
BOARDS = np.random.default_rng(1).integers(0, 5, (2, 3, 4, 4))
FIGURES: dict[str, Callable[[], Figure]] = {
    "gallery": lambda: plots.gallery(IMAGES, [HOSTILE] * 5),
    "gallery-of-one": lambda: plots.gallery(IMAGES[:1], ["x"]),
    "bars": lambda: plots.bars({HOSTILE: 3, 2: 1}, "x", "y"),
    "bars-of-nothing": lambda: plots.bars({}, "x", "y"),
    "histogram": lambda: plots.histogram(np.array([1.0, 2.0, np.nan, 2.0]), "x"),
    "histogram-of-nothing": lambda: plots.histogram(np.zeros(0), "x"),
    "capsule-rows": lambda: plots.capsule_rows(np.zeros((12, 512))),
    "capsule-map": lambda: plots.capsule_map(RANDOM, [HOSTILE, "b", "c"] * 10, ["b", "c"]),
    "capsule-map-many": lambda: plots.capsule_map(np.eye(30), NAMES, NAMES),
    "capsule-map-of-one": lambda: plots.capsule_map(np.ones((1, 9)), ["a"], ["a"]),
    "curves": lambda: plots.curves(CURVE, ["loss", "accuracy", "absent"], "value"),
    "curves-of-nothing": lambda: plots.curves([], ["loss"], "value"),
    "confusion": lambda: plots.confusion(np.array([[5, 1], [0, 0]]), [HOSTILE, "b"]),
    "confusion-many": lambda: plots.confusion(np.eye(40, dtype=np.int64), [str(i) for i in range(40)]),
    "by-recursion-step": lambda: plots.by_recursion_step({"exact": [0.1, 0.5, 0.6]}, {"a": 0.4, "b": 0.7}),
    "by-recursion-step-of-one": lambda: plots.by_recursion_step({"exact": [0.1], "cells": [0.5]}, {}),
    "compared": lambda: plots.compared({"model": 0.5, "nearest": 1.0, "commonest": 0.0}, (0.3, 0.6)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_it_draws(name: str) -> None:
    data = io.BytesIO()
    FIGURES[name]().savefig(data, dpi=40)
    with Image.open(data) as image:
        assert min(image.size) > 50


@pytest.mark.parametrize(("points", "marked"), [(1, True), (plots.FEW_POINTS, True), (100, False)])
def test_few_points_are_marked(points: int, marked: bool) -> None:
    """A line through one point alone would show nothing."""
    rendered = plots.curves([{"global_step": i, "loss": 1.0} for i in range(points)], ["loss"], "loss")
    assert (rendered.axes[0].lines[0].get_marker() == "o") is marked


def layout_of(payload: object, modality: str) -> Gallery:
    samples = Renderer().samples(Item("x", modality, payload))  # type: ignore[arg-type]
    return plots.page_layout(Renderer().rasterise(samples)[0][0], samples[0].content, HOSTILE, HOSTILE)


GRID = np.arange(9).reshape(3, 3)
GALLERIES: dict[str, Callable[[], Gallery]] = {
    "layout-text": lambda: layout_of("a long line that wraps around " * 9, "text"),
    "layout-task": lambda: layout_of(GridTask(((GRID, GRID),), (GRID,)), "grid"),
    "layout-photograph": lambda: plots.page_layout(IMAGES[0], object(), HOSTILE, HOSTILE),
    "layout-blank": lambda: plots.page_layout(np.zeros((56, 56, 3), np.uint8), object(), HOSTILE, HOSTILE),
    "before-after": lambda: plots.before_after(IMAGES[0], IMAGES[1], HOSTILE, HOSTILE),
    "attention": lambda: plots.attention(IMAGES[0], np.random.default_rng(0).random((12, 2, 2)), HOSTILE, HOSTILE),
    "nearest": lambda: plots.nearest(IMAGES[None, :3], [[HOSTILE] * 3], np.array([[True, False]]), HOSTILE, HOSTILE),
    "boards": lambda: board_plots.boards(IMAGES[:2], BOARDS, BOARDS[:, 2], [HOSTILE] * 3, HOSTILE, HOSTILE, box=2),
    "boards-wide": lambda: board_plots.boards(
        IMAGES[:1], np.full((1, 1, 2, 30), -1), np.full((1, 2, 30), -1), ["step 1"], HOSTILE, HOSTILE
    ),
    "nearest-of-one": lambda: plots.nearest(IMAGES[None, :1], [["x"]], np.zeros((1, 0), bool), HOSTILE, HOSTILE),
}


@pytest.mark.parametrize("name", GALLERIES)
def test_tiles_hold_no_markup_of_the_data(name: str) -> None:
    data, metadata = GALLERIES[name]()._repr_mimebundle_()
    html = data["text/html"]
    assert "<b>" not in html and "\x00" not in html and html.startswith('<figure class="trm-gallery">')
    assert html.count("<img ") >= 1 and metadata["text/html"]["alt"] == HOSTILE


@pytest.mark.parametrize("chosen", [["b", "c"], ["c"], ["c", "b", "a"]])
def test_a_class_has_its_colour_whatever_is_shown(chosen: list[str]) -> None:
    vectors = np.random.default_rng(0).normal(size=(len(chosen), 9))
    drawn = plots.capsule_map(vectors, chosen, ["a", "b", "c"])
    colours = {str(one.get_label()): to_hex(one.get_facecolor()[0]) for one in drawn.axes[0].collections}
    assert colours == {name: plots.COLOURS["abc".index(name)] for name in chosen}


def test_a_class_has_the_same_colour_in_the_confusion_matrix() -> None:
    figure = plots.confusion(np.diag([1, 0, 3]), ["a", "b", "c"], at_most=2)
    marks = [(to_hex(line.get_color()), line.get_marker()) for line in figure.axes[0].lines]
    styles = plots.class_style(["a", "b", "c"])
    assert marks == [styles[name] for name in "aacc"], "at both axes"


def test_a_method_has_its_colour_in_both_plots() -> None:
    curves = comparison_plots.learning_curves({"b": [[(1, 2.0), (2, 1.0)]]}, "loss", ["a", "b"])  # "a" logged nothing
    shares = comparison_plots.methods_compared({"a": [0.5], "b": [0.6]})
    assert curves.axes[0].lines[0].get_color() == shares.axes[0].lines[1].get_color() == plots.COLOURS[1]


@pytest.mark.parametrize(("wrong", "framed"), [(0, False), (1, True)])
def test_a_wrong_cell_has_a_red_frame(wrong: int, framed: bool) -> None:
    answer = np.zeros((1, 2, 2), int)
    given = answer[:, None].copy()
    given[0, 0, 0, 0] = wrong
    (row,) = board_plots.boards(IMAGES[:1], given, answer, ["step 1"], "boards", "boards").rows
    assert [tile.caption for tile in row] == ["asked", f"step 1: {wrong} wrong", "right"]
    red = (row[1].image == (192, 57, 43)).all(axis=-1)
    assert bool(red.any()) is framed and not red[red.shape[0] // 2 :].any()


FOUR = np.array([(0, 0, 0), (255, 255, 255), (200, 60, 0), (0, 114, 178)], np.uint8)
FLAT = FOUR[np.random.default_rng(2).integers(0, 4, (224, 224))]  # four colours, without any order


@pytest.mark.parametrize(
    ("pixels", "kind", "exact"),
    [
        pytest.param(FLAT, "png", True, id="few colours"),
        pytest.param(np.full((9, 9, 3), (1, 2, 255), np.uint8), "png", True, id="one colour"),
        pytest.param(IMAGES[0], "png", True, id="small"),
        pytest.param(np.random.default_rng(3).integers(0, 256, (224, 224, 3), np.uint8), "jpeg", False, id="noise"),
    ],
)
def test_a_tile_takes_few_bytes(pixels: np.ndarray, kind: str, exact: bool) -> None:
    html = Gallery([[Tile(pixels, "x")]], "x", "x")._repr_mimebundle_()[0]["text/html"]
    found = re.search(r"data:image/(\w+);base64,([^\"]+)", html)
    assert found and found[1] == kind and len(found[2]) < 1.4 * (MOST_PNG if exact else pixels.nbytes / 2)
    with Image.open(io.BytesIO(base64.b64decode(found[2]))) as image:
        assert (np.asarray(image.convert("RGB")) == pixels).all() == exact


def test_colours_can_be_by_noise_group_without_red_or_green() -> None:
    """Simulated deuteranopia (Machado et al. 2009): no two of the first eight colours fall together."""
    sees = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    seen = np.array([to_rgb(colour) for colour in plots.COLOURS[:8]]) @ sees.T
    apart = np.linalg.norm(seen[:, None] - seen, axis=-1)
    assert apart[~np.eye(8, dtype=bool)].min() > 0.1


def test_show_carries_the_description(capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[tuple[dict[str, object], dict[str, object]]] = []
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shell.display_pub.publish = lambda data, metadata=None, **rest: shown.append((data, metadata))
    try:
        show(plots.bars({"a": 1}, "x", "y"), alt="one <bar>")
    finally:
        InteractiveShell.clear_instance()
    (data, metadata) = shown[0]
    assert metadata == {"image/png": {"alt": "one <bar>", "width": 538, "chart": True}}
    assert set(data) == {"image/png", "text/plain"}
