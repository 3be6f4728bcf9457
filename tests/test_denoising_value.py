"""What denoising is worth: equal noise for all arms, images that pass the cache, answers counted by item, verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.denoise.noise import Noise
from trm_nb.denoise.noise2noise import Denoiser, Noise2NoiseUNet, Shape
from trm_nb.errors import UserError
from trm_nb.evaluation.denoising import measure, worth
from trm_nb.evaluation.denoising.measure import Content, Scores
from trm_nb.models.vision_encoder import TRMVisionEncoder
from trm_nb.training.verdicts import BETTER, NOT_SHOWN, WORSE

DEMO = Path(__file__).parents[1] / "trm_nb/assets/demo"
KINDS = [Noise("speckle", 0.5), Noise("impulse", 0.2)]


def config_of(*labels: str) -> MultimodalDatasetConfig:
    sources = [str(DEMO / label) for label in labels]
    training = {"train_steps": 2, "train_batch_size": 4, "train_width": 64, "torch_threads": 1}
    return MultimodalDatasetConfig(source_paths=sources, output_dir="unused", limit=5, **training)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def content() -> Content:
    return measure.content_of(config_of("python", "drawings"))


@pytest.fixture(scope="module")
def encoder() -> TRMVisionEncoder:
    return TRMVisionEncoder("base")


def test_the_first_page_of_each_item_is_asked(content: Content) -> None:
    assert content.images.shape == (10, 224, 224, 3) and content.classes == ("drawings", "python")
    assert np.bincount(content.labels).tolist() == [5, 5]
    assert [content.labels[place] for place in content.pages] == [1] * 5
    assert all((content.images[place] == page.image).all() for place, page in content.pages.items())
    assert sorted(content.folds[content.labels == 0]) == sorted(content.folds[content.labels == 1]) == [0, 1, 2, 3, 4]


def test_one_label_is_nothing_to_recognise() -> None:
    with pytest.raises(UserError, match="expected items of two labels or more, got 1"):
        measure.content_of(config_of("python"))


def test_kinds_take_turns_and_noise_follows_from_the_seed(content: Content) -> None:
    first, again, other = (measure.with_noise(content.images[:2], KINDS, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    gray = np.full((2, 32, 32, 3), 128, np.uint8)
    drawn = [page.tobytes() for seed in (0, 1, 2) for page in measure.with_noise(gray, KINDS[:1], seed)]
    assert len(set(drawn)) == 6  # each image of each seed has noise of its own
    pages = measure.with_noise(gray, KINDS, 1)
    extreme = [float(np.isin(page, (0, 255)).mean()) for page in pages]  # lost pixels are black or white
    assert extreme[0] == pytest.approx(0.2, abs=0.05) and extreme[1] < 0.1


def test_images_pass_the_cache_unchanged_or_denoised(content: Content, tmp_path: Path) -> None:
    noisy = measure.with_noise(content.images[:2], KINDS, 0)
    assert np.array_equal(measure.cached(noisy, None, tmp_path / "images.zarr"), noisy)
    torch.manual_seed(0)
    denoiser = Denoiser(Noise2NoiseUNet(Shape((8, 8, 8))))
    denoiser.save(tmp_path / "small.pt")
    denoised = measure.cached(noisy, tmp_path / "small.pt", tmp_path / "images.zarr")
    assert np.array_equal(denoised, denoiser.restore_images(noisy)[0]) and not np.array_equal(denoised, noisy)


def test_what_an_arm_scored_is_kept(content: Content, encoder: TRMVisionEncoder, tmp_path: Path) -> None:
    asked = content, encoder, config_of("python", "drawings"), measure.CLEAN, KINDS
    found = measure.kept_scores(tmp_path, *asked, 3)
    assert list(found) == [*measure.LABELS, *measure.CHARACTERS]
    assert found[measure.TRM].image.tolist() == np.flatnonzero(content.folds == 3).tolist()
    for name in measure.CHARACTERS:  # clean pages are read without a mistake
        assert found[name].right.tolist() == found[name].asked.tolist() and found[name].asked.min() > 100
    assert found[measure.PROBE].right.sum() >= 9 and len(found[measure.NEIGHBOUR].image) == 10
    (file,) = (tmp_path / "scores").iterdir()
    file.write_bytes(file.read_bytes().replace(b'"asked": [1', b'"asked": [7', 1))  # it is read, not measured again
    assert measure.kept_scores(tmp_path, *asked, 3)[measure.NEIGHBOUR].asked[0] == 7
    assert not np.array_equal(measure.kept_scores(tmp_path, *asked, 4)[measure.TRM].image, found[measure.TRM].image)


@pytest.mark.slow
def test_denoised_pages_are_read_better(encoder: TRMVisionEncoder, tmp_path: Path) -> None:
    config = config_of("python", "prose").with_changes(limit=2)
    content, kinds = measure.content_of(config), [Noise("gaussian", 75)]
    arms = {
        arm: measure.kept_scores(tmp_path, content, encoder, config, arm, kinds, 0)[measure.CAPSULES]
        for arm in (measure.NONE, measure.BASE)
    }
    assert arms[measure.BASE].right.sum() > arms[measure.NONE].right.sum()


def scores(right: np.ndarray, each: int = 1) -> list[dict[str, Scores]]:
    """Of each seed, a row of `right`, the right ones of `each` answers of image 0, 1, 2 ..."""
    seeds, n = right.shape
    image, asked = np.arange(n), np.full(n, each)
    return [{"probe": Scores(image, right[seed], asked)} for seed in range(seeds)]


@pytest.mark.parametrize(
    ("arm", "other", "outcome", "gain"),
    [
        ("many", "few", BETTER, 50), ("few", "many", WORSE, -50), ("many", "same", NOT_SHOWN, 0),
        ("one more", "few", NOT_SHOWN, 2.5),
    ],
    ids=["better", "worse", "equal", "too little"],
)  # fmt: skip
def test_verdicts_follow_from_items(arm: str, other: str, outcome: str, gain: float) -> None:
    few, many = np.zeros((2, 20), int), np.zeros((2, 20), int)
    many[:, ::2] = 1
    more = few.copy()
    more[0, 0] = 1
    right = {"few": few, "many": many, "same": many.copy(), "one more": more}
    by = {("noise", name): scores(values) for name, values in right.items()}
    (found,) = worth.gains(by, "probe", [(arm, other)])
    assert found.outcome == outcome and 100 * found.gain == pytest.approx(gain) and found.items == 20
    assert found.low <= found.gain <= found.high and (outcome == NOT_SHOWN or found.low * found.high > 0)
    assert worth.shares(by, "probe")["noise", "many"] == 0.5
    assert ("no difference" in found.sentence()) == (outcome == NOT_SHOWN)


def test_seeds_of_one_item_are_no_evidence_of_their_own() -> None:
    right = np.zeros((50, 5), int)
    right[:, :5] = 1  # five items, all better with each of 50 seeds: p = 2 / 2**5
    by = {("noise", "arm"): scores(right), ("noise", "other"): scores(np.zeros_like(right))}
    (found,) = worth.gains(by, "probe", [("arm", "other")])
    assert found.p == pytest.approx(2 / 2**5) and found.outcome == NOT_SHOWN


def test_many_comparisons_are_adjusted_and_characters_are_counted() -> None:
    right = np.full((1, 8), 30)
    by = {(noise, "other"): scores(np.full((1, 8), 20), 100) for noise in ("one", "two")}
    by |= {(noise, "arm"): scores(right, 100) for noise in ("one", "two")}
    found = worth.gains(by, "probe", [("arm", "other")])
    assert [gain.gain for gain in found] == pytest.approx([0.1, 0.1]) and found[0].low == pytest.approx(0.1)
    assert [gain.adjusted for gain in found] == pytest.approx([2 * found[0].p] * 2)


def test_a_long_page_counts_as_much_as_a_short_one() -> None:
    image, asked = np.arange(8), np.array([400, 20] * 4)
    arms = {"all": asked, "none": 0 * asked}
    by = {("noise", name): [{"glyph": Scores(image, right, asked)}] for name, right in arms.items()}
    (found,) = worth.gains(by, "glyph", [("all", "none")])
    assert found.gain == found.low == found.high == 1 and found.p == pytest.approx(2 / 2**8)


def test_answers_are_by_noise_group_by_the_noise_of_their_image() -> None:
    turns = [Noise("scanner", 2), Noise("speckle", 0.5)]  # image 0 gets the first with seed 0, the second with seed 1
    by = worth.by_noise_group({"arm": scores(np.arange(6).reshape(2, 3))}, turns, 3)
    found = {group: [of["probe"].right.tolist() for of in by[group, "arm"]] for group in worth.GROUPS}
    assert found == {"all": [[0, 1, 2], [3, 4, 5]], "trained": [[0, 2], [4]], "unseen": [[1], [3, 5]]}


def test_nothing_asked_is_no_verdict() -> None:
    by = {("noise", name): scores(np.zeros((2, 0), int)) for name in ("arm", "other")}
    (found,) = worth.gains(by, "probe", [("arm", "other")])
    assert found.outcome == NOT_SHOWN and np.isnan(found.gain) and (found.low, found.high) == (-1, 1)
    assert found.sentence() == "noise, probe: arm and other were asked nothing."
    assert np.isnan(worth.shares(by, "probe")["noise", "arm"])


def test_other_images_are_no_pair() -> None:
    by = {("noise", "arm"): scores(np.ones((1, 8), int)), ("noise", "other"): scores(np.ones((1, 7), int))}
    with pytest.raises(ValueError, match="expected the same images of arm and other"):
        worth.gains(by, "probe", [("arm", "other")])
