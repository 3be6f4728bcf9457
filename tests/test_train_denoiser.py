"""Training the denoiser: it learns from noisy pairs alone, goes on as if never stopped, and mixes no settings."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from runs import stop_at

from trm_nb.denoise import load_denoiser, training_images
from trm_nb.denoise import train as command
from trm_nb.denoise import training_loop as training
from trm_nb.denoise.noise import TRAINED, Noise, as_file
from trm_nb.denoise.noise2noise import SHAPES, Shape
from trm_nb.denoise.training_batches import NOISES, Batches, example_crops, example_noises, sample_noises
from trm_nb.denoise.training_images import TILE, Images, load_images
from trm_nb.denoise.training_loop import Settings, held_out_psnr, rate, train_denoiser
from trm_nb.errors import UserError
from trm_nb.models.hardware import fast_in_bfloat16
from trm_nb.progress.tracker import TrainingProgressTracker

CPU_INFO = Path("/proc/cpuinfo")
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
TINY = Settings(
    steps=400, batch=8, crop=32, shape=Shape((8, 8, 8), (1, 1, 1)), learning_rate=3e-3, torch_threads=1
)  # fmt: skip


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clouds of colour, and a file that is no image."""
    folder = tmp_path_factory.mktemp("photographs")
    for seed in range(3):
        coarse = np.random.default_rng(seed).integers(0, 256, (60, 90, 3), np.uint8)
        Image.fromarray(coarse).resize((450, 300), Image.Resampling.BICUBIC).save(folder / f"{seed}.png")
    (folder / "3.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def images(photographs: Path) -> Images:
    with pytest.MonkeyPatch.context() as patch:
        _fewer_pages(patch)
        return load_images(photographs)


def _fewer_pages(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(training_images, "PAGES", 32)
    patch.setattr(training_images, "GRIDS", 8)


def test_tiles_are_the_same_each_time_and_flat_ones_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fewer_pages(monkeypatch)
    Image.new("RGB", (450, 300), "blue").save(tmp_path / "flat.png")
    with pytest.raises(UserError, match="texture"):
        load_images(tmp_path)
    for name in "ac":
        Image.effect_noise((450, 300), 90).save(tmp_path / f"{name}.png")
    (tmp_path / "b.jpg").write_bytes(b"no image")
    made, again = load_images(tmp_path), load_images(tmp_path)
    assert made.held_out.shape[1:] == (TILE, TILE, 3) and made.odds.sum() == pytest.approx(1)
    assert "b.jpg is left out" in caplog.text
    assert np.array_equal(made.tiles, again.tiles) and np.array_equal(made.pages, again.pages)


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected photographs"):
        load_images(tmp_path)


def test_pairs_share_the_image_and_not_the_noise(images: Images) -> None:
    batches = Batches(images, "cpu")
    first, second = batches.pair(32, 32, seed=0, step=5)
    again, _ = batches.pair(32, 32, seed=0, step=5)
    other, _ = batches.pair(32, 32, seed=0, step=6)
    assert first.shape == second.shape == (32, 3, 32, 32)
    assert torch.equal(first, again) and not torch.equal(first, other)
    equal = [torch.equal(one, two) or torch.equal(one, as_file(two)) for one, two in zip(first, second, strict=True)]
    assert sum(equal) < 4  # of an image with hardly any noise both files may be the same
    assert (first.mean((1, 2, 3)) - second.mean((1, 2, 3))).abs().max() < 0.1


def test_crops_are_turned_all_eight_ways(images: Images) -> None:
    corner = np.zeros((1, 32, 32, 3), np.uint8)
    corner[0, :8, :4] = 255
    alone = replace(images, tiles=corner, odds=np.ones(1))
    crops = Batches(alone, "cpu").crops("photograph", 400, 32, np.random.default_rng(0))
    plain = {(255 * crop).byte().numpy().tobytes() for crop in crops if float(crop.sum()) == 8 * 4 * 3}
    ways = [np.rot90(side, k) for side in (corner[0], corner[0, :, ::-1]) for k in range(4)]
    assert plain == {np.ascontiguousarray(way.transpose(2, 0, 1)).tobytes() for way in ways}
    assert 0.2 < np.mean([float(crop.sum()) != 8 * 4 * 3 for crop in crops]) < 0.4  # the enlarged ones


def test_pages_are_not_turned(images: Images) -> None:
    crop = Batches(images, "cpu").crops("page", 1, 224, np.random.default_rng(0))[0]
    assert any(np.array_equal((255 * crop).round().permute(1, 2, 0).numpy(), page) for page in images.pages)


def test_examples_of_what_is_trained_on_are_images(images: Images) -> None:
    crops = example_crops(images, {"photograph": 2, "page": 1}, 64, seed=0)
    assert (crops.shape, crops.dtype) == ((3, 64, 64, 3), np.uint8)
    kinds = [Noise("gaussian", 0), Noise("gaussian", 50)]
    noisy = example_noises(images, kinds, 128, seed=0)
    assert (noisy.shape, noisy.dtype) == ((4, 128, 128, 3), np.uint8)
    assert np.array_equal(noisy[2], images.pages[0, :128, :128]) and not np.array_equal(noisy[3], noisy[2])


@pytest.mark.parametrize("photograph", [True, False], ids=["photographs", "others"])
def test_every_kind_that_is_trained_on_is_drawn(photograph: bool) -> None:
    sampled = sample_noises(np.full(4000, photograph), np.random.default_rng(0))
    shares = np.bincount(sampled.noise, minlength=len(NOISES)) / 4000
    assert {NOISES[number].kind for number in sampled.noise} == set(TRAINED)
    assert shares == pytest.approx([noise.odds[not photograph] for noise in NOISES], abs=0.03)
    for number, noise in enumerate(NOISES):
        levels = sampled.level[sampled.noise == number]
        assert noise.low <= levels.min() < levels.max() <= noise.high
        assert levels.max() - levels.min() > 0.8 * (noise.high - noise.low)


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    rates = [rate(step, 1000) for step in range(1000)]
    assert rates[0] < 1 / 2 and rates[100] == rates[390] == 1
    assert rates[-1] == pytest.approx(1 / 600) and rate(1000, 1000) == 0


@pytest.mark.skipif(not CPU_INFO.is_file(), reason="only Linux tells what its processor has")
def test_bfloat16_is_for_processors_that_multiply_in_it() -> None:
    flags = CPU_INFO.read_text(encoding="utf-8").split()
    assert fast_in_bfloat16("cpu") == ("avx512_bf16" in flags or "amx_bf16" in flags)


@pytest.mark.slow
def test_it_learns_from_noisy_pairs_and_the_checkpoint_can_be_loaded(images: Images, tmp_path: Path) -> None:
    trained = train_denoiser(tmp_path / "run", images, TINY)
    noisy = -20 * np.log10(25 / 255)
    assert held_out_psnr(trained.network, images, "cpu") > noisy + 2
    loaded = load_denoiser(tmp_path / "run" / "n2n_denoiser.pt")
    assert loaded is not None and loaded.fingerprint == trained.fingerprint
    tracker = TrainingProgressTracker(tmp_path / "run")
    curve, stats = tracker.training_curve(), tracker.get_stats()
    tracker.close()
    assert [step["global_step"] for step in curve] == [100, 200, 300, 400]
    assert curve[-1]["psnr"] > noisy + 2
    assert (stats["state"], stats["stages"]["train"]["done"]) == ("done", 400)


def test_stopped_and_gone_on_it_ends_with_the_same_weights(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(training, "LOG_EVERY", 5)
    settings = replace(TINY, steps=40)
    whole = train_denoiser(tmp_path / "whole", images, settings)
    with pytest.raises(KeyboardInterrupt):
        train_denoiser(tmp_path / "stopped", images, settings, stop_at(28))
    assert train_denoiser(tmp_path / "stopped", images, settings).fingerprint == whole.fingerprint
    assert train_denoiser(tmp_path / "stopped", images, settings).fingerprint == whole.fingerprint  # nothing to do


@pytest.mark.parametrize("change", [{"seed": 1}, {"crop": 64}, {"learning_rate": 1e-4}, {"steps": 30}], ids=str)
def test_a_training_of_other_settings_is_refused(change: dict[str, float], images: Images, tmp_path: Path) -> None:
    settings = replace(TINY, steps=20)
    train_denoiser(tmp_path, images, settings)
    with pytest.raises(UserError, match=next(iter(change))):
        train_denoiser(tmp_path, images, replace(settings, **change))  # type: ignore[arg-type]


def test_a_training_may_begin_with_weights_that_are_there(images: Images, tmp_path: Path) -> None:
    begun = train_denoiser(tmp_path / "begun", images, replace(TINY, steps=100))
    brief = replace(TINY, steps=2, learning_rate=1e-6)
    on = train_denoiser(tmp_path / "on", images, brief, start=begun)
    assert on.fingerprint != begun.fingerprint
    for ours, theirs in zip(on.network.parameters(), begun.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    with pytest.raises(UserError, match=f"start='{begun.fingerprint}', not None"):
        train_denoiser(tmp_path / "on", images, brief)
    with pytest.raises(UserError, match="widths"):
        train_denoiser(tmp_path / "other", images, replace(brief, shape=Shape((8, 8, 16))), start=begun)


def test_minutes_become_steps_which_are_corrected_on_the_way(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(training, "LOG_EVERY", 2)
    monkeypatch.setattr(training, "REHEARSED_SECONDS", 0.0)
    settings = replace(TINY, steps=None, minutes=0.05)
    with pytest.raises(KeyboardInterrupt):
        train_denoiser(tmp_path, images, settings, stop_at(5))
    stopped = torch.load(tmp_path / "training.pt", weights_only=True)
    assert stopped["step"] == 4 < stopped["steps"] and stopped["seconds"] > 0
    torch.save({**stopped, "steps": 1_000_000}, tmp_path / "training.pt")  # as on a machine that was much faster
    with suppress(KeyboardInterrupt):  # of a training that is not corrected
        train_denoiser(tmp_path, images, settings, stop_at(1_000))
    done = torch.load(tmp_path / "training.pt", weights_only=True)
    assert 4 < done["step"] == done["steps"] < 1_000


def test_from_the_command_line(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _fewer_pages(monkeypatch)
    given = [str(tmp_path), "--photographs", str(photographs), "--batch", "2", "--crop", "16", "--size", "large"]
    assert command.main([*given, "--steps", "1"]) == 0
    loaded = load_denoiser(tmp_path / "n2n_denoiser.pt")
    assert loaded is not None and not loaded.adapts and loaded.network.shape == SHAPES["large"]
    assert command.main([*given, "--steps", "0"]) == 2
    assert "steps: expected a number above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": None}, "steps or minutes"), ({"minutes": 1.0}, "steps or minutes"), ({"steps": 0}, "above 0"),
        ({"crop": 20}, "multiple of 8"),
        pytest.param({"device": "cuda"}, "without a GPU", marks=NO_GPU),
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(change: dict[str, Any], said: str, images: Images, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        train_denoiser(tmp_path, images, replace(TINY, **change))
