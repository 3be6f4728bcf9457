"""The self-adapting denoiser: what each edit does, what the policy sees and learns, and what a checkpoint holds."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from trm_nb import ImageCache
from trm_nb.denoise import adaptive_path, load_denoiser
from trm_nb.denoise.noise import ADAPTED, UNSEEN, Noise
from trm_nb.denoise.noise2noise import Denoiser, Noise2NoiseUNet, Shape
from trm_nb.denoise.seal import (
    EDITS,
    FEATURES,
    KIND,
    NOOP,
    PLAIN,
    AdaptiveDenoiser,
    Edit,
    Policy,
    apply,
    context,
    neighbours,
)
from trm_nb.denoise.train_policy import Tried, best_fixed, judged, kept_lessons, sample_noise, train_policy, try_edits
from trm_nb.denoise.training_images import Images
from trm_nb.errors import UserError
from trm_nb.models.checkpoints import load_checkpoint, save_checkpoint
from trm_nb.progress.tracker import TrainingProgressTracker


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    """Weights that do something: a network that finds part of what is there."""
    torch.manual_seed(0)
    return Denoiser(Noise2NoiseUNet(Shape((8, 8, 8))))


@pytest.fixture(scope="module")
def images() -> Images:
    rng = np.random.default_rng(0)
    some = np.repeat(np.repeat(rng.integers(0, 256, (3, 32, 32, 3), np.uint8), 4, 1), 4, 2)
    return Images(some, np.full(3, 1 / 3), some, some, some, "three")


def _noisy(seed: int = 0, noise: Noise | None = None) -> torch.Tensor:
    x = torch.linspace(0, 1, 64).expand(1, 3, 48, 64)
    return (noise or Noise("gaussian", 25)).add(x, torch.Generator().manual_seed(seed))


def _policy(favourite: int, edits: int = len(EDITS)) -> Policy:
    policy = Policy(edits)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.zero_()
        policy.layers[2].bias[favourite] = 1.0
    return policy


# -- edits -----------------------------------------------------------------------------------------------------------


def test_noop_changes_nothing_and_plain_is_the_plain_denoiser(denoiser: Denoiser) -> None:
    x = _noisy()
    assert torch.equal(apply(NOOP, denoiser, x), x)
    assert torch.allclose(apply(PLAIN, denoiser, x), denoiser.restore(x), atol=1e-6)


def test_half_takes_half_of_it_away(denoiser: Denoiser) -> None:
    x = _noisy()
    whole, half = (apply(Edit("", strength=s), denoiser, x) for s in (1.0, 0.5))
    assert torch.allclose(x - half, (x - whole) / 2, atol=1e-6)


def test_a_scale_has_the_network_assume_louder_noise(denoiser: Denoiser) -> None:
    x = _noisy()
    louder = apply(Edit("", scale=0.5), denoiser, x)
    assert torch.allclose(louder, denoiser.network(x, scale=0.5), atol=1e-6)
    assert not torch.allclose(louder, denoiser.restore(x), atol=1e-4)


def test_a_stride_denoises_interleaved_images_each_for_itself(denoiser: Denoiser) -> None:
    x = _noisy()
    expected = x.clone()
    for top in (0, 1):
        for left in (0, 1):
            expected[:, :, top::2, left::2] = denoiser.restore(x[:, :, top::2, left::2])
    assert torch.allclose(apply(Edit("", stride=2), denoiser, x), expected, atol=1e-5)


def test_steps_adapt_a_copy_and_leave_the_base_as_it_was(denoiser: Denoiser) -> None:
    before = denoiser.network.state_dict()
    kept = {name: weight.clone() for name, weight in before.items()}
    x = _noisy()
    first, again = (apply(Edit("", steps=3), denoiser, x) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, denoiser.restore(x), atol=1e-5)
    assert all(torch.equal(weight, kept[name]) for name, weight in denoiser.network.state_dict().items())


def test_neighbours_are_two_different_pixels_of_each_cell_side_by_side() -> None:
    places = torch.arange(48.0).reshape(1, 1, 6, 8).expand(1, 3, 6, 8)
    first, second = neighbours(places, torch.Generator().manual_seed(0))
    assert first.shape == second.shape == (1, 3, 3, 4)
    assert set((first - second).abs().flatten().tolist()) == {1.0, 8.0}
    cells = (first[0, 0] // 16 == torch.arange(3.0)[:, None]) & (first[0, 0] % 8 // 2 == torch.arange(4.0))
    assert bool(cells.all())


# -- context and policy ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "noise", [Noise("gaussian", 0), Noise("gaussian", 80), Noise("rows", 30), Noise("impulse", 0.3)], ids=str
)
def test_a_context_is_finite_whatever_the_noise(noise: Noise, denoiser: Denoiser) -> None:
    for x in (_noisy(noise=noise), torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 224, 224)):
        seen = context(x, denoiser)
        assert seen.shape == (len(FEATURES),) and bool(seen.isfinite().all())


def test_what_a_policy_chooses_does_not_depend_on_its_neighbours_in_a_batch(denoiser: Denoiser) -> None:
    torch.manual_seed(5)
    adaptive = AdaptiveDenoiser(denoiser, Policy(len(EDITS)))
    x = torch.cat([_noisy(seed) for seed in range(3)])
    together, alone = adaptive.restore(x), torch.cat([adaptive.restore(x[i : i + 1]) for i in range(3)])
    assert torch.equal(together, alone)
    images = np.random.default_rng(0).integers(0, 256, (2, 56, 84, 3), np.uint8)  # sides that are no multiples of 8
    restored, denoise_results = adaptive.restore_images(images)
    assert restored.shape == images.shape
    assert np.array_equal(restored[1:], adaptive.restore_images(images[1:])[0])
    assert [given.edit for given in denoise_results] == [adaptive.choose(one).name for one in _padded(images)]


def _padded(images: np.ndarray) -> list[torch.Tensor]:
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return list(torch.nn.functional.pad(x, (0, 12, 0, 8), mode="replicate").split(1))


def test_noop_keeps_every_byte_and_says_so(denoiser: Denoiser) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    restored, denoise_results = AdaptiveDenoiser(denoiser, _policy(0)).restore_images(images)
    assert np.array_equal(restored, images)
    assert [(given.edit, given.noise) for given in denoise_results] == [("noop", 0.0)] * 2


# -- training --------------------------------------------------------------------------------------------------------


def test_rewards_follow_the_true_error_though_no_clean_image_is_looked_at(denoiser: Denoiser, images: Images) -> None:
    tried = try_edits(denoiser, images, 4, seed=1)
    assert tried.contexts.shape == (4, len(FEATURES)) and tried.errors.shape == (4, len(EDITS))
    again = try_edits(denoiser, images, 4, seed=1)
    assert torch.equal(tried.errors, again.errors) and torch.equal(tried.contexts, again.contexts)
    assert not torch.equal(tried.errors, try_edits(denoiser, images, 4, seed=2).errors)
    noop = tried.errors[:, EDITS.index(NOOP)]
    half = tried.errors[:, EDITS.index(Edit("half", strength=0.5))]
    assert not torch.equal(noop, half)


def test_lessons_are_kept_and_the_tracker_counts_their_contexts(
    denoiser: Denoiser, images: Images, tmp_path: Path
) -> None:
    lessons = kept_lessons(tmp_path, denoiser, images, 5, 2)
    assert torch.equal(lessons[1].errors, try_edits(denoiser, images, 5, seed=1).errors)
    ticks: list[int] = []
    again = kept_lessons(tmp_path, denoiser, images, 5, 2, lambda: ticks.append(1))
    assert not ticks and all(torch.equal(one.errors, two.errors) for one, two in zip(lessons, again, strict=True))
    with closing(TrainingProgressTracker(tmp_path)) as tracker:
        train = tracker.get_stats()["stages"]["train"]
    assert (train["status"], train["done"], train["total"]) == ("done", 10, 10)


def test_the_policy_is_trained_on_what_it_is_not_judged_by() -> None:
    rng = np.random.default_rng(0)
    rendered = {sample_noise(rng).kind for _ in range(300)}
    assert rendered == set(ADAPTED) and not rendered & set(UNSEEN)


def _lesson(count: int = 400) -> Tried:
    """Contexts whose first number says which edit is right: noop below 0, the last one above."""
    generator = torch.Generator().manual_seed(0)
    contexts = torch.randn(count, len(FEATURES), generator=generator)
    errors = torch.full((count, len(EDITS)), 0.01)
    errors[contexts[:, 0] < 0, 0] = 0.0001
    errors[contexts[:, 0] >= 0, -1] = 0.001
    return Tried(contexts, errors)


@pytest.mark.parametrize("seed", [0, 1])
def test_rest_em_learns_which_edit_is_right_and_follows_from_the_seed(seed: int) -> None:
    tried = _lesson()
    policy, rewards = train_policy(tried, seed)
    chosen = policy(tried.contexts).argmax(1)
    right = torch.where(tried.contexts[:, 0] < 0, 0, len(EDITS) - 1)
    assert float((chosen == right).float().mean()) > 0.95
    assert rewards[-1]["over the best fixed edit"] > 4 and rewards[-1]["clean left alone"] > 0.95
    again, _ = train_policy(tried, seed)
    assert all(torch.equal(one, other) for one, other in zip(policy.parameters(), again.parameters(), strict=True))
    assert best_fixed(tried) == NOOP
    assert judged(policy, tried) == pytest.approx({k: v for k, v in rewards[-1].items() if k in judged(policy, tried)})


# -- the checkpoint --------------------------------------------------------------------------------------------------


def _saved(folder: Path, denoiser: Denoiser) -> Path:
    path = folder / "n2n_denoiser.pt"
    denoiser.save(path)
    AdaptiveDenoiser(denoiser, _policy(2)).save(adaptive_path(path), [{"round": 0.0}])
    return path


def test_the_adaptive_one_is_taken_where_it_lies_beside_the_plain_one(
    denoiser: Denoiser, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = _saved(tmp_path, denoiser)
    loaded = load_denoiser(path)
    assert isinstance(loaded, AdaptiveDenoiser)
    assert "adapted to each image by n2n_denoiser_adaptive.pt" in caplog.text
    assert loaded.fingerprint == AdaptiveDenoiser(denoiser, _policy(2)).fingerprint != denoiser.fingerprint
    assert loaded.fingerprint != AdaptiveDenoiser(denoiser, _policy(3)).fingerprint
    plain = load_denoiser(path, adaptive=False)
    assert isinstance(plain, Denoiser) and plain.fingerprint == denoiser.fingerprint
    assert "not adapted" in caplog.text


def _other_base(path: Path) -> None:
    torch.manual_seed(9)
    Denoiser(Noise2NoiseUNet(Shape((8, 8, 8)))).save(path)


def _other_edits(path: Path) -> None:
    values = load_checkpoint(adaptive_path(path), KIND)
    save_checkpoint(adaptive_path(path), KIND, {**values, "edits": '[{"name": "x", "angle": 3}]'})


def _fewer_edits(path: Path) -> None:
    values = load_checkpoint(adaptive_path(path), KIND)
    save_checkpoint(adaptive_path(path), KIND, {**values, "edits": '[{"name": "plain"}]'})


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_other_base, "this policy is for a denoiser"),
        (_other_edits, "its edits are none of this version's"),
        (_fewer_edits, "for the weight 'layers.2.bias' expected"),
        (lambda path: adaptive_path(path).write_bytes(b""), "expected a checkpoint of the SEAL policy"),
        (lambda path: path.write_bytes(path.read_bytes()[:3000]), "expected a checkpoint of the Noise2Noise denoiser"),
        (lambda path: adaptive_path(path).write_bytes(path.read_bytes()), "got one of 'Noise2Noise denoiser'"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_an_error(harm: object, said: str, denoiser: Denoiser, tmp_path: Path) -> None:
    path = _saved(tmp_path, denoiser)
    harm(path)  # type: ignore[operator]
    with pytest.raises(UserError, match=said):
        load_denoiser(path)


def test_the_cache_notes_the_edit_of_each_image_and_keys_hold_the_policy(denoiser: Denoiser, tmp_path: Path) -> None:
    path = _saved(tmp_path, denoiser)
    cache = ImageCache(tmp_path / "cache", use_denoiser=["text", "grid"], denoiser_path=path, workers=0)
    keys = cache.populate(["a page", [[1, 2], [3, 4]]]).keys
    assert {given.edit for given in cache.denoise_results(keys).values()} == {"half"}
    assert set(cache.denoise_results(keys)) == set(keys)
    AdaptiveDenoiser(denoiser, replace_bias(_policy(0))).save(adaptive_path(path))
    other = ImageCache(tmp_path / "cache", use_denoiser=["text", "grid"], denoiser_path=path, workers=0)
    assert other.keys_for("a page") != keys[:1]


def replace_bias(policy: Policy) -> Policy:
    """The same choices by other weights."""
    with torch.no_grad():
        policy.layers[0].bias += 0.1
    return policy


def test_edits_have_names_of_their_own() -> None:
    assert len({edit.name for edit in EDITS}) == len(EDITS)
    assert EDITS[0] == NOOP and replace(PLAIN, strength=0.0, name="noop") == NOOP
