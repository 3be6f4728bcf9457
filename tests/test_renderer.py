"""Items to samples to images: keys, order, failures, and pixels that never change unnoticed.

`python tests/test_renderer.py` writes the golden hashes anew, after a change of pixels that is meant.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from loky import get_reusable_executor
from matplotlib import get_data_path
from PIL import Image

from trm_nb.records import GridTask, ImageBytes, ImageFile, Item, Puzzle, Sample
from trm_nb.render.image import render_image
from trm_nb.render.renderer import RejectedError, Renderer, RenderSettings
from trm_nb.render.text import TextRenderer

GOLDEN = Path(__file__).parent / "golden" / "render.json"
PHOTO = Path(get_data_path()) / "sample_data" / "grace_hopper.jpg"
R = Renderer()

GRID = np.arange(12).reshape(3, 4) % 10
SUDOKU = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"
SUDOKUS = {side: np.resize([int(digit) % (side + 1) for digit in SUDOKU], (side, side)) for side in (4, 6, 9)}
MAZE = np.array([[int(cell) for cell in row] for row in ("2010001", "0010100", "0000103")])
TASK = GridTask(((GRID, GRID.T), (GRID[:2], GRID[:1])), (GRID[:, :2],), (np.full((2, 2), 9),))


def item(modality: str, payload: object, item_id: str = "a/b") -> Item:
    return Item(item_id, modality, payload, source="a", label="x")  # type: ignore[arg-type]


def photo_item(sha256: str | None = None) -> Item:
    return item("image", ImageFile(PHOTO, sha256 or hashlib.sha256(PHOTO.read_bytes()).hexdigest()))


ITEMS = {
    "text": item("text", "Hello, world!\n\tréf x̂ 漢字 😀 \x00 \U0010ffff" + "wrap " * 20),
    "grid": item("grid", GRID),
    "task": item("grid", TASK),
    "photo": photo_item(),
    "photo bytes": item("image", ImageBytes(PHOTO.read_bytes())),
    "three pages": item("text", "line\n" * 40),
    "large grid": item("grid", (np.arange(35 * 62) ** 2 // 7 % 10).reshape(35, 62)),
    **{f"sudoku {side}": item("grid", Puzzle("sudoku", cells)) for side, cells in SUDOKUS.items()},
    "maze": item("grid", Puzzle("maze", MAZE, np.where(MAZE == 0, 4, MAZE))),
}
GOLDEN_ITEMS = ("text", "grid", "task", "three pages", "large grid", "sudoku 4", "sudoku 6", "sudoku 9", "maze")


def pixel_hashes() -> dict[str, str]:
    """Text and grids only: the pixels of photographs depend on the version of Pillow."""
    hashes = {}
    for settings in (RenderSettings(), RenderSettings(font_size=8), RenderSettings(image_size=112)):
        renderer = Renderer(settings)
        for name in GOLDEN_ITEMS:
            if name == "sudoku 9" and settings.image_size < 117:
                continue
            images, failed = renderer.rasterise(renderer.samples(ITEMS[name]))
            assert not failed
            label = f"{name}, {settings.image_size} px, font {settings.font_size}"
            hashes[label] = hashlib.sha256(images.tobytes()).hexdigest()
    return hashes


def test_pixels_are_the_golden_ones() -> None:
    assert pixel_hashes() == json.loads(GOLDEN.read_text())


def test_samples_tell_the_item_and_the_page() -> None:
    samples = R.samples(ITEMS["three pages"])
    assert [(s.page, s.pages, s.sample_id) for s in samples] == [(0, 3, "a/b#0"), (1, 3, "a/b#1"), (2, 3, "a/b#2")]
    first = samples[0]
    assert (first.item_id, first.modality, first.source, first.label) == ("a/b", "text", "a", "x")
    assert len(first.key) == 32 and int(first.key, 16)


def laid_out_and_drawn(renderer: Renderer, one: Item, laid_out: list[Sample]) -> tuple[list[Sample], np.ndarray]:
    """In a worker: the item's samples there, and the images of the samples that came along."""
    return renderer.samples(one), renderer.rasterise(laid_out)[0]


@pytest.mark.parametrize("name", ITEMS)
def test_keys_are_stable_and_samples_cross_processes(name: str) -> None:
    once = R.samples(ITEMS[name])
    worker = get_reusable_executor(max_workers=1)
    again, rendered = worker.submit(laid_out_and_drawn, Renderer(), ITEMS[name], once).result()
    assert [s.key for s in once] == [s.key for s in again]
    assert np.array_equal(R.rasterise(once)[0], rendered)
    assert np.array_equal(R.rasterise(once)[0], R.rasterise(again)[0])
    if name != "photo bytes":
        assert len(pickle.dumps(once)) < 4000 * len(once)


def test_equal_content_has_equal_keys_whatever_the_item() -> None:
    one, other = R.samples(item("text", "same \n")), R.samples(item("text", "same", "elsewhere"))
    assert one[0].key == other[0].key
    assert R.samples(ITEMS["photo"])[0].key == R.samples(ITEMS["photo bytes"])[0].key


def test_keys_differ_where_pixels_may() -> None:
    variants = [
        R.samples(ITEMS["text"])[0],
        R.samples(ITEMS["text"], salt="denoiser")[0],
        R.samples(item("text", "x" * 33))[0],
        R.samples(item("text", "x" * 32 + "\nx"))[0],
        Renderer(RenderSettings(font_size=8)).samples(ITEMS["text"])[0],
        Renderer(RenderSettings(image_size=448)).samples(ITEMS["text"])[0],
        R.samples(ITEMS["grid"])[0],
        R.samples(item("grid", GRID.T))[0],
        R.samples(ITEMS["task"])[0],
        R.samples(item("grid", GridTask(TASK.train, ())))[0],
        *R.samples(ITEMS["large grid"]),
        *(R.samples(ITEMS[name])[0] for name in ("sudoku 4", "sudoku 6", "sudoku 9", "maze")),
        *(R.samples(item("grid", payload))[0] for payload in (Puzzle("maze", MAZE % 2), MAZE)),
        R.samples(ITEMS["photo"])[0],
        R.samples(ITEMS["photo"], salt="denoiser")[0],
        *(Renderer(RenderSettings(fit=fit)).samples(ITEMS["photo"])[0] for fit in ("crop", "stretch")),
        *Renderer(RenderSettings(fit="tiles")).samples(ITEMS["photo"]),
    ]
    assert len({s.key for s in variants}) == len(variants)


def test_answers_of_a_task_do_not_shape_it() -> None:
    other = GridTask(TASK.train, TASK.test_inputs, ())
    assert R.samples(ITEMS["task"])[0].key == R.samples(item("grid", other))[0].key


def test_the_solution_of_a_puzzle_does_not_shape_it() -> None:
    assert R.samples(ITEMS["maze"])[0].key == R.samples(item("grid", Puzzle("maze", MAZE)))[0].key


def test_tiles_and_frames_are_pages_in_order_each_drawn_as_it_would_be_alone() -> None:
    renderer = Renderer(RenderSettings(fit="tiles"))
    with Image.open(PHOTO) as photo:
        scan = io.BytesIO()
        photo.save(scan, "TIFF", save_all=True, append_images=[photo.resize((300, 100)), photo.resize((100, 100))])
    whole, again = (renderer.samples(item("image", ImageBytes(scan.getvalue()))) for _ in range(2))
    assert [(s.content.frame, s.content.tile) for s in whole] == [  # type: ignore[attr-defined]
        *((0, tile) for tile in range(9)), (1, 0), (1, 1), (2, 0),
    ]  # fmt: skip
    assert [s.key for s in whole] == [s.key for s in again] and len({s.key for s in whole}) == 12
    assert [(s.page, s.pages) for s in whole] == [(page, 12) for page in range(12)]
    asked: list[int] = []
    images, failed = renderer.rasterise([*whole, *whole[::-1]], asked.append)
    assert not failed and asked == list(range(24))
    assert np.array_equal(images[:12], images[:11:-1])
    for sample, image in zip(whole, images[:12], strict=True):
        page = sample.content
        alone = render_image(page.data, 224, page.frame, page.tile, "tiles")  # type: ignore[attr-defined]
        assert np.array_equal(image, alone)
    first = Renderer(RenderSettings(fit="tiles", frames="first")).samples(item("image", ImageBytes(scan.getvalue())))
    assert [s.key for s in first] == [s.key for s in whole[:9]]


def test_one_file_is_read_once_for_its_tiles(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(PHOTO.read_bytes())
    renderer = Renderer(RenderSettings(fit="tiles"))
    samples = renderer.samples(item("image", ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest())))

    def take_away(number: int) -> None:
        if number:
            path.unlink(missing_ok=True)

    images, failed = renderer.rasterise(samples, take_away)
    assert len(samples) == 9 and not failed
    assert np.array_equal(images[4], render_image(PHOTO.read_bytes(), 224, 0, 4, "tiles"))
    assert "cannot be read" in renderer.rasterise(samples)[1][8].reason


def test_fingerprints_hold_what_matters_to_the_modality() -> None:
    small = Renderer(RenderSettings(font_size=8))
    assert small.fingerprint("grid") == R.fingerprint("grid")
    assert small.fingerprint("text") != R.fingerprint("text")
    assert Renderer(RenderSettings(fit="crop")).fingerprint("grid") == R.fingerprint("grid")
    assert Renderer(RenderSettings(fit="crop")).fingerprint("image") != R.fingerprint("image")
    assert Renderer(RenderSettings(frames="first")).fingerprint("image") == R.fingerprint("image")
    assert len({R.fingerprint("text"), R.fingerprint("grid"), R.fingerprint("image")}) == 3


def test_a_mixture_is_drawn_in_order_and_failures_are_named(tmp_path: Path) -> None:
    changed = tmp_path / "changed.jpg"
    changed.write_bytes(PHOTO.read_bytes())
    planned = item("image", ImageFile(changed, hashlib.sha256(PHOTO.read_bytes()).hexdigest()))
    truncated = item("image", ImageBytes(PHOTO.read_bytes()[:9000]))
    order = [ITEMS["grid"], ITEMS["text"], planned, ITEMS["photo"], truncated, ITEMS["text"], ITEMS["task"]]
    samples = [R.samples(one)[0] for one in order]
    gone = R.samples(item("image", ImageFile(changed, planned.payload.sha256)))  # type: ignore[union-attr]
    changed.write_bytes(b"something else")
    images, failed = R.rasterise([*samples, *gone])
    assert images.shape == (8, 224, 224, 3) and images.dtype == np.uint8
    assert set(failed) == {2, 4, 7}
    assert "changed after it was planned" in failed[2].reason and "cannot be decoded" in failed[4].reason
    assert not images[[2, 4, 7]].any()
    assert np.array_equal(images[1], TextRenderer().render_pages(ITEMS["text"].payload)[0])  # type: ignore[arg-type]
    for number in (0, 1, 3, 5, 6):
        assert np.array_equal(R.rasterise([samples[number]])[0][0], images[number])
    changed.unlink()
    assert "cannot be read: No such file" in R.rasterise(gone)[1][0].reason


def test_nothing_to_draw() -> None:
    images, failed = R.rasterise([])
    assert images.shape == (0, 224, 224, 3) and failed == {}


BAD = {
    "values": (item("grid", np.array([[10]])), RejectedError, "values 0 to 9, got 10 to 10"),
    "sides": (item("grid", np.zeros((901, 991), int)), RejectedError, "at most 1000 pages of 30x30, got 901x991"),
    "puzzle": (item("grid", Puzzle("sudoku", np.zeros((5, 5), int))), RejectedError, "9x9, got 5x5"),
    "puzzle as text": (item("text", Puzzle("maze", MAZE)), TypeError, "of Puzzle does not go with 'text'"),
    "no image": (item("image", ImageBytes(b"hello")), RejectedError, "got something else"),
    "no file": (item("image", ImageFile(Path("/nowhere/x.png"), "00")), RejectedError, "No such file"),
    "wrong payload": (item("grid", "text"), TypeError, "a/b: a payload of str does not go with 'grid'"),
}


@pytest.mark.parametrize(("bad", "error", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_used_is_refused_when_planned(bad: Item, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        R.samples(bad)


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(pixel_hashes(), indent=2) + "\n")
