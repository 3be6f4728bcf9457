"""Cells in colour: tiles are made once, told apart, and put where they belong."""

from __future__ import annotations

import numpy as np
import pytest

from trm_nb.render.colours import pack
from trm_nb.render.typesetting.glyphs import BOX, load_atlas
from trm_nb.render.typesetting.tiles import MARKED, Tiles, shades

ATLAS = load_atlas(12)
INKS = ((0, 0, 0), (200, 0, 0))
BACKGROUND = (255, 255, 255)


def blitted(tiles: Tiles, cells: np.ndarray, foregrounds: np.ndarray | None, wrapped: list[int]) -> np.ndarray:
    out = np.zeros((1, len(cells), 14, cells.shape[1] * 21), np.uint8)
    tiles.blit(
        tiles.find(cells[None], None if foregrounds is None else foregrounds[None]), np.array([wrapped], np.uint8), out
    )
    return out.reshape(len(cells), 14, cells.shape[1], 7, 3)


def test_a_tile_is_the_cell_in_its_ink() -> None:
    cells = ATLAS.first[[[ord("A"), ord("b")], [0x6F22, 0x20]]]
    foregrounds = np.array([[0, 1], [1, 0]])
    image = blitted(Tiles(ATLAS, INKS, BACKGROUND), cells, foregrounds, [0, 0])
    for row in range(2):
        for column in range(2):
            levels = (255 - ATLAS.gray[cells[row, column]]) // 17
            assert np.array_equal(image[row, :, column], shades(INKS[foregrounds[row, column]], BACKGROUND)[levels])


def test_boxes_and_what_is_laid_over() -> None:
    tiles = Tiles(ATLAS, INKS[:1], BACKGROUND)
    box = BOX + 2 * 0x10FFFF
    image = blitted(tiles, np.array([[box, box + 1]], np.int32), None, [0])
    assert np.array_equal(image[0, :, 0, :, 0], ATLAS.pixels(box))
    assert np.array_equal(image[0, :, 1, :, 2], ATLAS.pixels(box + 1))
    base, mark = int(ATLAS.first[ord("x")]), int(ATLAS.first[0x302])
    over = tiles.composed(0, (base, mark))
    assert tiles.composed(0, (base, mark)) == over
    out = np.zeros((1, 1, 14, 21), np.uint8)
    tiles.blit(np.array([[[over]]]), np.zeros((1, 1), np.uint8), out)
    assert np.array_equal(out.reshape(14, 7, 3)[..., 0], np.minimum(ATLAS.pixels(base), ATLAS.pixels(mark)))


@pytest.mark.parametrize(
    ("kind", "marked"),
    [(0, []), (1, [0, 1, 2, 3]), (2, [10, 11, 12, 13])],
    ids=["none", "by character", "by word"],
)
def test_wrap_marks_keep_the_ink_under_them(kind: int, marked: list[int]) -> None:
    cells = ATLAS.first[[[0x2588]]]  # a full block: foreground up to the edge
    gray = ATLAS.gray[cells[0, 0], :, -1]
    edge = blitted(Tiles(ATLAS, INKS[:1], BACKGROUND), cells, None, [kind])[0, :, 0, -1, 0]
    expected = gray.copy()
    expected[marked] = MARKED + (255 - gray[marked]) // 17
    assert np.array_equal(edge, expected)


def test_more_tiles_than_there_was_room_for() -> None:
    tiles = Tiles(ATLAS, INKS[:1], BACKGROUND)
    cells = np.arange(3000, dtype=np.int32).reshape(1, 50, 60)
    found = tiles.find(cells, None)
    assert np.array_equal(np.unique(found), np.arange(3000))
    assert np.array_equal(tiles.find(cells, None), found)


def test_every_colour_tells_its_level() -> None:
    tiles = Tiles(ATLAS, INKS, BACKGROUND)
    codes, grays = tiles.levels()
    told = dict(zip(codes.tolist(), grays.tolist(), strict=True))
    for foreground in INKS:
        assert [told[code] for code in pack(shades(foreground, BACKGROUND)).tolist()] == [
            255 - 17 * n for n in range(16)
        ]


CLASHES = {
    "foreground is background": (((255, 255, 255),), BACKGROUND),
    "too near": (((250, 255, 255),), BACKGROUND),
    "one foreground is another's shade": (((0, 0, 0), (136, 136, 136)), BACKGROUND),
}


@pytest.mark.parametrize(("foregrounds", "background"), CLASHES.values(), ids=CLASHES.keys())
def test_colours_that_cannot_be_by_noise_group_are_refused(
    foregrounds: tuple[tuple[int, int, int], ...], background: tuple[int, int, int]
) -> None:
    with pytest.raises(ValueError, match="expected colours"):
        Tiles(ATLAS, foregrounds, background)
