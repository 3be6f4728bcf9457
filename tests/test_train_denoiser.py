"""Training the denoiser: it learns from noisy pairs alone, goes on as if never stopped, and mixes no settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import stop_at

from trm_nb.denoise import load_denoiser
from trm_nb.denoise import train_denoiser as training
from trm_nb.denoise.noise import TRAINED
from trm_nb.denoise.train_denoiser import (
    Settings,
    held_out_psnr,
    noisy_pair,
    rate,
    sample_noise,
    train_denoiser,
)
from trm_nb.denoise.training_images import PARTS, TILE, Images, Part, load_images
from trm_nb.errors import UserError
from trm_nb.models.hardware import fast_in_bfloat16
from trm_nb.progress.tracker import TrainingProgressTracker

CPU_INFO = Path("/proc/cpuinfo")
TINY = Settings(steps=400, batch=8, crop=32, widths=(8, 8, 8), learning_rate=3e-3, torch_threads=1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Three clouds of colour, as photographs."""
    folder = tmp_path_factory.mktemp("photographs")
    for seed in range(3):
        coarse = np.random.default_rng(seed).integers(0, 256, (60, 90, 3), np.uint8)
        Image.fromarray(coarse).resize((900, 600), Image.Resampling.BICUBIC).save(folder / f"{seed}.png")
    (folder / "3.jpg").write_bytes(b"no image")
    return load_images(folder, folder / "work")


@pytest.mark.slow
def test_tiles_are_made_once_and_flat_ones_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("RGB", (900, 600), "blue").save(tmp_path / "flat.png")
    with pytest.raises(UserError, match="texture"):
        load_images(tmp_path, tmp_path / "work")
    for name in "ac":
        Image.effect_noise((900, 600), 90).save(tmp_path / f"{name}.png")
    (tmp_path / "b.jpg").write_bytes(b"no image")
    made = load_images(tmp_path, tmp_path / "work")
    assert made.held_out.shape[1:] == (TILE, TILE, 3) and made.odds.sum() == pytest.approx(1)
    assert "b.jpg is left out" in caplog.text
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()}
    again = load_images(tmp_path, tmp_path / "work")
    assert np.array_equal(made.tiles, again.tiles) and np.array_equal(made.pages, again.pages)
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()}


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected photographs"):
        load_images(tmp_path, tmp_path)


def test_pairs_share_the_image_and_not_the_noise(images: Images) -> None:
    first, second = noisy_pair(images, TINY, step=5)
    again, _ = noisy_pair(images, TINY, step=5)
    other, _ = noisy_pair(images, TINY, step=6)
    assert first.shape == second.shape == (8, 3, 32, 32)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("part", PARTS)
def test_every_kind_that_is_trained_on_is_drawn(part: Part) -> None:
    rng = np.random.default_rng(0)
    rendered = [sample_noise(part, rng) for _ in range(400)]
    assert {noise.kind for noise in rendered} == set(TRAINED)
    sigmas = [noise.level for noise in rendered if noise.kind == "gaussian"]
    assert min(sigmas) < 1 and max(sigmas) > 50


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    rates = [rate(step, replace(TINY, steps=1000)) for step in range(1000)]
    assert rates[0] < TINY.learning_rate / 2 and rates[100] == rates[390] == TINY.learning_rate
    assert rates[-1] < TINY.learning_rate / 200


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
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 10)
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
        train_denoiser(tmp_path / "other", images, replace(brief, widths=(8, 8, 16)), start=begun)


def test_more_steps_may_be_asked_for_before_the_rate_falls(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 10)
    monkeypatch.setattr(training, "LOG_EVERY", 10)
    with pytest.raises(KeyboardInterrupt):
        train_denoiser(tmp_path, images, replace(TINY, steps=40), stop_at(16))
    train_denoiser(tmp_path, images, replace(TINY, steps=44))
