"""image_cache.py: rendered once, found again, right or an error."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PHOTO
from PIL import Image

from trm_nb.cache.image_cache import ImageCache
from trm_nb.denoise import SHIPPED, adaptive_path, load_denoiser
from trm_nb.denoise.noise2noise import Denoiser, Noise2NoiseUNet, Shape
from trm_nb.errors import UserError
from trm_nb.records import DenoiserSize, Item, Precision, Puzzle, Sample
from trm_nb.render.grid import GridRenderer
from trm_nb.render.puzzle import PuzzleRenderer
from trm_nb.render.renderer import RenderSettings
from trm_nb.render.text import TextRenderer
from trm_nb.sources.memory import as_items

GRID = [[0, 1, 2], [3, 4, 5]]
TEXTS = [f"page {i}\n" + "x = 1\n" * i for i in range(60)]


def _mixture() -> list[object]:
    with Image.open(PHOTO) as photo:
        return ["hello\tworld", photo.convert("L"), GRID, np.array(GRID) + 1, Item("a/b", "text", "other text")]


def test_any_mixture_goes_in_and_the_right_pixels_come_out(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "cache")
    report = cache.populate(_mixture())
    assert (len(report.keys), report.hits, report.misses, report.failed) == (5, 0, 5, {})
    assert np.array_equal(cache.get(report.keys[0]), TextRenderer().render_pages("hello\tworld")[0])
    assert np.array_equal(cache.get(report.keys[2]), GridRenderer().render(np.array(GRID)))
    assert cache.get_many(report.keys[::-1]).shape == (5, 224, 224, 3)
    assert cache.keys_for("hello\tworld") == report.keys[:1]


def test_puzzles_and_grids_of_any_size_go_in(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "cache")
    large = np.arange(31 * 62).reshape(31, 62) ** 2 // 7 % 10
    puzzle = Puzzle("sudoku", np.arange(16).reshape(4, 4) % 5)
    report = cache.populate([large, puzzle, large.astype(np.uint8), large[:2].tolist()])
    assert (len(report.keys), report.misses, report.failed) == (6 + 1 + 6 + 3, 6 + 1 + 3, {})
    assert report.keys[:6] == report.keys[7:13]
    grids = [GridRenderer().decode(image) for image in cache.get_many(report.keys[:6])]
    assert np.array_equal(np.block([grids[:3], grids[3:]]), large)
    assert np.array_equal(PuzzleRenderer().decode(cache.get(report.keys[6])), puzzle.puzzle)


def test_the_second_time_all_are_hits_also_in_another_object_and_on_a_lost_index(tmp_path: Path) -> None:
    first = ImageCache(tmp_path / "cache").populate(_mixture())
    assert ImageCache(tmp_path / "cache").populate(_mixture()).hits == 5
    (tmp_path / "cache" / "images" / "receipts" / "index.sqlite").write_bytes(
        b"not a database, though long enough to be read as one"
    )
    again = ImageCache(tmp_path / "cache")
    assert all(key in again for key in first.keys)
    assert again.populate([*_mixture(), "new", "new"]).misses == 1


def test_copies_are_drawn_once_and_long_text_has_a_key_a_page(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "cache")
    long_text = "\n".join(f"line {i}" for i in range(100))
    report = cache.populate([long_text, GRID, long_text, GRID])
    assert len(report.keys) == 2 * (len(cache.keys_for(long_text)) + 1)
    assert report.misses == len(set(report.keys)) == len(cache)


def test_settings_that_shape_pixels_shape_keys(tmp_path: Path) -> None:
    small, large = (ImageCache(tmp_path / str(size), render=RenderSettings(font_size=size)) for size in (8, 12))
    assert small.keys_for("text") != large.keys_for("text")
    assert small.keys_for(GRID) == large.keys_for(GRID), "the text size does not touch grids"
    assert ImageCache(tmp_path / "w", render=RenderSettings(image_size=448)).keys_for(GRID) != large.keys_for(GRID)


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_and_shards_change_no_pixel(tmp_path: Path, workers: int) -> None:
    cache = ImageCache(tmp_path / "cache", shard_size=7, workers=workers)
    report = cache.populate(TEXTS)
    expected = np.concatenate([TextRenderer().render_pages(text) for text in TEXTS])
    assert np.array_equal(cache.get_many(report.keys), expected)
    assert cache.stats()["shards"] == -(-len(set(report.keys)) // 7)


def test_an_image_that_cannot_be_decoded_fails_alone_and_is_remembered(tmp_path: Path) -> None:
    data = PHOTO.read_bytes()
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(data[: len(data) // 2])
    item = Item("broken.jpg", "image", _file(broken))
    for _ in range(2):
        report = ImageCache(tmp_path / "cache").populate([GRID, item])
        assert list(report.failed) == report.keys[1:]
        assert "truncated" in report.failed[report.keys[1]]
    with pytest.raises(KeyError, match="is not in"):
        ImageCache(tmp_path / "cache").get(report.keys[1])


def _file(path: Path) -> object:
    from trm_nb.records import ImageFile
    from trm_nb.storage.files import sha256_of

    return ImageFile(path, sha256_of(path))


def test_a_file_that_changed_after_it_was_planned_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    shutil.copy(PHOTO, path)
    item = Item("photo.jpg", "image", _file(path))
    cache = ImageCache(tmp_path / "cache")
    samples = cache.samples(item)
    Image.new("RGB", (30, 20)).save(path)
    failures: dict[str, str] = {}
    cache.fill(iter(samples), lambda keys, failed: failures.update(failed))
    assert list(failures) == [samples[0].key]
    assert "changed" in failures[samples[0].key]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3.5, "sample 1: expected text, .* got float"),
        ([[1, 2], [3]], "sample 1: a grid's rows must have one length"),
        (np.zeros((4, 4)), r"sample 1: .* got float64 array \(4, 4\)"),
        (None, "sample 1: .* got NoneType"),
    ],
    ids=["number", "ragged grid", "float array", "nothing"],
)
def test_what_is_no_sample_is_named(tmp_path: Path, value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(as_items(["text", value]))


RAMP = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
ODD_MODES = {
    "32-bit": (Image.fromarray(RAMP.astype(np.int32)), 100, 155),
    "float": (Image.fromarray((RAMP / 65535).astype(np.float32)), 100, 155),
    "palette with alpha": (Image.new("PA", (8, 8), (0, 0)), 250, 255),
}


@pytest.mark.parametrize(("image", "low", "high"), ODD_MODES.values(), ids=ODD_MODES.keys())
def test_images_from_memory_keep_their_values(tmp_path: Path, image: Image.Image, low: int, high: int) -> None:
    cache = ImageCache(tmp_path / "cache")
    assert low < cache.get(cache.populate([image]).keys[0])[40:-40].mean() <= high


def test_an_image_from_memory_is_turned_upright(tmp_path: Path) -> None:
    upright = Image.open(PHOTO)
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    cache = ImageCache(tmp_path / "cache")
    one, other = cache.get_many(cache.populate([upright, turned]).keys).astype(int)
    assert np.abs(one - other).mean() < 2


def test_frames_of_an_animation_are_not_dropped_in_silence() -> None:
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "GIF", save_all=True, append_images=[Image.new("L", (4, 4), 255)])
    with pytest.raises(UserError, match="an image of 2 frames; give its frames one by one"):
        list(as_items([Image.open(buffer)]))


def _seeded_denoiser(path: Path) -> Denoiser:
    torch.manual_seed(3)
    denoiser = Denoiser(Noise2NoiseUNet(Shape((8, 8, 8))))
    denoiser.save(path)
    return denoiser


def test_with_a_denoiser_photographs_pass_through_it_and_text_does_not(tmp_path: Path) -> None:
    denoiser = _seeded_denoiser(tmp_path / "n2n.pt")
    plain = ImageCache(tmp_path / "plain")
    denoising = ImageCache(tmp_path / "denoising", use_denoiser=True, denoiser_path=tmp_path / "n2n.pt")
    with Image.open(PHOTO) as photo:
        samples = [photo.copy(), "text"]
    before, after = plain.populate(samples), denoising.populate(samples)
    assert before.keys[0] != after.keys[0]
    assert before.keys[1] == after.keys[1]
    expected, denoise_results = denoiser.restore_images(plain.get_many(before.keys[:1]))
    assert denoising.denoise_results(after.keys) == {after.keys[0]: denoise_results[0]}
    assert np.array_equal(denoising.get_many(after.keys[:1]), expected)
    assert not np.array_equal(expected, plain.get_many(before.keys[:1]))


def test_no_denoiser_means_none_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = ImageCache(tmp_path / "cache", use_denoiser=True, denoiser_path=tmp_path / "absent.pt")
    assert cache.denoiser is None
    assert cache.keys_for(GRID) == ImageCache(tmp_path / "plain").keys_for(GRID)
    assert "absent.pt does not exist" in caplog.text


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("size", "precision"), [("base", "float32"), ("large", "float32"), ("base", "bfloat16"), ("large", "bfloat16")]
)
def test_without_a_path_it_is_a_denoiser_that_comes_with_the_package(
    tmp_path: Path, size: DenoiserSize, precision: Precision, workers: int
) -> None:
    shipped = load_denoiser(SHIPPED[size], precision=precision)
    assert shipped is not None
    plain = ImageCache(tmp_path / "a")
    denoising = ImageCache(
        tmp_path / "b", use_denoiser=True, denoiser=size, denoiser_precision=precision, workers=workers
    )
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8))
    before, after = plain.populate([image]).keys, denoising.populate([image]).keys
    expected, denoise_results = shipped.restore_images(plain.get_many(before))
    assert np.array_equal(denoising.get_many(after), expected)
    assert denoising.denoise_results(after) == {after[0]: denoise_results[0]}


def test_an_unknown_denoiser_is_refused_and_a_path_goes_before_a_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="denoiser: expected one of base, large, got 'huge'"):
        ImageCache(tmp_path / "a", use_denoiser=True, denoiser="huge")  # type: ignore[arg-type]
    own = _seeded_denoiser(tmp_path / "n2n.pt")
    given = ImageCache(tmp_path / "b", use_denoiser=True, denoiser_path=tmp_path / "n2n.pt", denoiser="large")
    assert given.denoiser is not None and given.denoiser.fingerprint == own.fingerprint


def test_a_denoiser_file_that_does_not_fit_is_an_error_never_a_fallback(tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"bad\.pt"):
        load_denoiser(tmp_path / "bad.pt")
    _seeded_denoiser(tmp_path / "n2n.pt")
    adaptive_path(tmp_path / "n2n.pt").write_bytes(b"anything")
    with pytest.raises(UserError, match=r"n2n_adaptive\.pt: expected a checkpoint of the SEAL policy"):
        load_denoiser(tmp_path / "n2n.pt")
    assert load_denoiser(tmp_path / "n2n.pt", adaptive=False) is not None


def test_fill_settles_every_sample_exactly_once_in_whole_shards(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "cache", shard_size=4, workers=0)
    cache.populate(TEXTS[:3])
    samples: list[Sample] = [s for item in as_items(TEXTS[:10]) for s in cache.samples(item)]
    resolved: list[Sequence[str]] = []
    rendered = cache.fill(iter(samples), lambda keys, failed: resolved.append(keys))
    assert rendered == len({s.key for s in samples}) - len(ImageCache(tmp_path / "x").populate(TEXTS[:3]).keys)
    assert sorted(key for keys in resolved for key in keys) == sorted({s.key for s in samples})


def _image(folder: Path) -> object:
    path = folder / "gone.jpg"
    shutil.copy(PHOTO, path)
    with Image.open(path) as photo:
        content = ImageCache(folder / "c").samples(Item("gone", "image", _file(path)))[0].content
        assert photo.size
    path.unlink()
    return content


def test_copies_of_an_image_that_fails_in_passing_are_settled_too(tmp_path: Path) -> None:
    gone = Sample("0" * 32, "gone", "image", "gone", 0, 1, None, _image(tmp_path))
    others = [sample for text in TEXTS[:6] for sample in ImageCache(tmp_path / "c").samples(next(as_items([text])))]
    resolved: list[str] = []
    stream = [gone, *others[:3], gone, *others[3:], gone]
    ImageCache(tmp_path / "c", shard_size=2, workers=0).fill(
        stream, lambda keys, failed: resolved.extend([*keys, *failed])
    )
    assert resolved.count(gone.key) == 3
    assert len(resolved) == 9
