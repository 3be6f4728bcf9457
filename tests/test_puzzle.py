"""Sudokus and mazes keep every cell, and never show the answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trm_nb.errors import RejectedError
from trm_nb.records import Puzzle
from trm_nb.render.grid import GridRenderer
from trm_nb.render.puzzle import MAZE, MAZE_LINE, PATCH, PuzzleRenderer

R = PuzzleRenderer()

SUDOKUS = {  # 0 is blank
    4: "1004023004103002",
    6: "003010560320054203206450012045040100",
    9: "530070000600195000098000060800060003400803001700020006060000280000419005000080079",
}


def sudoku(side: int) -> Puzzle:
    return Puzzle("sudoku", np.array([int(digit) for digit in SUDOKUS[side]], np.int8).reshape(side, side))


def maze(rows: int, columns: int, seed: int = 0) -> Puzzle:
    cells = (np.random.default_rng(seed).random((rows, columns)) < 0.35).astype(np.int8)
    cells.flat[0], cells.flat[-1] = 2, 3
    return Puzzle("maze", cells)


@pytest.mark.parametrize("side", SUDOKUS)
def test_sudokus_read_back(side: int) -> None:
    image = R.render(sudoku(side))
    assert image.shape == (224, 224, 3) and image.dtype == np.uint8
    assert np.array_equal(R.decode(image), sudoku(side).puzzle)


@pytest.mark.parametrize("side", SUDOKUS)
def test_every_digit_reads_back_in_every_cell(side: int) -> None:
    cells = np.arange(side * side).reshape(side, side)
    for shift in range(side + 1):
        puzzle = Puzzle("sudoku", (cells + shift) % (side + 1))
        assert np.array_equal(R.decode(R.render(puzzle)), puzzle.puzzle)


@pytest.mark.slow
def test_mazes_of_every_size_read_back() -> None:
    for rows in range(1, 31):
        for columns in range(1, 31):
            puzzle = maze(rows, columns, seed=rows)
            assert np.array_equal(R.decode(R.render(puzzle)), puzzle.puzzle), (rows, columns)


@settings(max_examples=60)
@given(hnp.arrays(np.int8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30), elements=st.integers(0, 3)))
def test_any_maze_reads_back(cells: np.ndarray) -> None:
    assert np.array_equal(R.decode(R.render(Puzzle("maze", cells))), cells)


@pytest.mark.parametrize("size", [56, 112, 224, 252, 448])
def test_image_sizes(size: int) -> None:
    renderer = PuzzleRenderer(size)
    for puzzle in (sudoku(4), maze(14, 18), *([sudoku(9), sudoku(6), maze(30, 28)] if size > 112 else [])):
        image = renderer.render(puzzle)
        assert image.shape == (size, size, 3)
        assert np.array_equal(renderer.decode(image), puzzle.puzzle)


@pytest.mark.parametrize(
    ("puzzle", "pitch"),
    [(sudoku(4), 56), (sudoku(6), 28), (maze(8, 5), 28), (maze(9, 9), 14), (maze(16, 3), 14), (maze(30, 30), 7)],
    ids=["sudoku 4", "sudoku 6", "maze 8x5", "maze 9x9", "maze 16x3", "maze 30x30"],
)
def test_cells_lie_on_the_encoder_s_patches(puzzle: Puzzle, pitch: int) -> None:
    page = R.page(puzzle)
    assert page.pitch == pitch
    assert page.top % min(pitch, PATCH) == 0 and page.left % min(pitch, PATCH) == 0


def test_a_sudoku_of_9_is_as_large_as_fits() -> None:
    assert (R.page(sudoku(9)).pitch, PuzzleRenderer(252).page(sudoku(9)).pitch) == (24, 28)


def test_box_lines_are_thick_and_where_the_boxes_end() -> None:
    for side, (high, wide) in {4: (2, 2), 6: (2, 3), 9: (3, 3)}.items():
        page = R.page(Puzzle("sudoku", np.zeros((side, side), int)))
        black = (R.rasterise(page) == 0).all(axis=-1)[page.top :, page.left :][: side * page.pitch, : side * page.pitch]
        for lines, step in ((black.all(axis=1), high), (black.all(axis=0), wide)):
            thick = np.flatnonzero(lines)
            assert len(thick) == 3 * (side // step + 1)
            assert {round(at / page.pitch) % step for at in thick.tolist()} == {0}


def test_free_wall_start_and_goal_are_by_noise_group_by_colour() -> None:
    seen = {tuple(colour) for colour in R.render(Puzzle("maze", np.array([[0, 1], [2, 3]]))).reshape(-1, 3).tolist()}
    assert seen == {tuple(colour) for colour in MAZE.tolist()} | {tuple(MAZE_LINE.tolist())}
    assert len({tuple(colour) for colour in MAZE.tolist()}) == 4


def test_the_solution_is_not_drawn() -> None:
    asked = sudoku(4)
    answered = Puzzle("sudoku", asked.puzzle, np.ones((4, 4), np.int8))
    assert np.array_equal(R.render(asked), R.render(answered))
    assert R.page(asked).content_bytes() == R.page(answered).content_bytes()


def test_content_bytes_differ_where_images_do() -> None:
    same = np.zeros((6, 6), np.int8)  # on the same pixels as a Sudoku and as a maze
    pages = [
        R.page(Puzzle("sudoku", same)),
        R.page(Puzzle("maze", same)),
        R.page(Puzzle("maze", same.reshape(3, 12))),
        R.page(sudoku(6)),
        PuzzleRenderer(448).page(Puzzle("sudoku", same)),
        GridRenderer().grid_page(same),
    ]
    assert len({page.content_bytes() for page in pages}) == len(pages)
    firsts = [int.from_bytes(page.content_bytes()[:4], "little", signed=True) for page in pages]
    assert max(firsts[:-1]) < 0 < firsts[-1], "a puzzle's bytes could be a grid's"


BAD = {
    "sudoku of 5": (Puzzle("sudoku", np.zeros((5, 5), int)), "Sudoku of 4x4, 6x6 or 9x9, got 5x5"),
    "sudoku not square": (Puzzle("sudoku", np.zeros((4, 6), int)), "got 4x6"),
    "digit too large": (Puzzle("sudoku", np.full((4, 4), 5)), "values 0 to 4 in this sudoku, got 5 to 5"),
    "negative": (Puzzle("sudoku", np.full((9, 9), -1)), "values 0 to 9 in this sudoku, got -1"),
    "a path in the question": (Puzzle("maze", np.array([[2, 4, 3]])), "values 0 to 3 in this maze, got 2 to 4"),
    "maze of 31": (Puzzle("maze", np.zeros((2, 31), int)), "maze of 1 to 30 rows and columns, got 2x31"),
    "empty": (Puzzle("maze", np.zeros((0, 3), int)), "got 0x3"),
    "one row": (Puzzle("maze", np.zeros(3, int)), "got int64 of 1 dimension"),
    "floats": (Puzzle("maze", np.zeros((2, 2))), "got float64"),
    "another kind": (Puzzle("chess", np.zeros((8, 8), int)), "sudoku or a maze, got 'chess'"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("puzzle", "message"), BAD.values(), ids=BAD.keys())
def test_what_is_no_puzzle_is_rejected(puzzle: Puzzle, message: str) -> None:
    with pytest.raises(RejectedError, match=message):
        R.render(puzzle)


def test_an_image_too_small_for_the_digits_is_refused() -> None:
    with pytest.raises(RejectedError, match="a sudoku of 9x9 needs 117 pixels, got 112"):
        PuzzleRenderer(112).render(sudoku(9))
    with pytest.raises(RejectedError, match="a maze of 30x30 needs 90 pixels, got 56"):
        PuzzleRenderer(56).render(maze(30, 30))


def test_other_images_are_not_read() -> None:
    for image in (
        np.full((224, 224, 3), 255, np.uint8),
        GridRenderer().render([[1, 2]]),
        np.zeros((224, 224, 3), np.uint8),
    ):
        with pytest.raises(ValueError, match="expected a Sudoku or a maze"):
            R.decode(image)
    damaged = R.render(sudoku(9))
    damaged[40, 40] = 7
    with pytest.raises(ValueError, match="expected a Sudoku or a maze"):
        R.decode(damaged)
    with pytest.raises(ValueError, match=r"got shape \(2, 2, 3\)"):
        R.decode(np.zeros((2, 2, 3), np.uint8))
