"""The table of arms: an oracle is never below anything, intervals hold what they should, and costs are counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trm_nb.denoise.noise import ADAPTED, TRAINED, Noise
from trm_nb.denoise.noise2noise import Denoiser, Noise2NoiseUNet, Shape
from trm_nb.denoise.policy_benchmark import UNSEEN_NOISES, Measured, bootstrap, measure, table
from trm_nb.denoise.seal import EDITS, FEATURES, Policy
from trm_nb.denoise.train_policy import Tried


def test_measuring_tries_each_edit_on_each_image_with_each_noise() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(Noise2NoiseUNet(Shape((8, 8, 8))))
    gray, black = np.full((32, 48, 3), 0.5, np.float32), np.zeros((32, 32, 3), np.float32)
    images = [("gray", gray), ("black", black), ("gray", gray[:, 16:])]
    noises = [Noise("gaussian", 25), Noise("impulse", 0.05)]
    found = measure(denoiser, images, noises)
    assert found.psnr.shape == (6, len(EDITS)) and found.contexts.shape == (6, len(FEATURES))
    assert found.image.tolist() == [0, 0, 1, 1, 0, 0]
    assert found.psnr[0, 0] == pytest.approx(20.17, abs=0.3)
    again = measure(denoiser, images, noises)
    assert np.array_equal(found.psnr, again.psnr) and torch.equal(found.contexts, again.contexts)


def test_what_it_is_judged_by_was_never_trained_on() -> None:
    kinds = {noise.kind for noise in UNSEEN_NOISES}
    assert not kinds & set(TRAINED)
    assert all(noise.kind not in ADAPTED or noise.level > 60 for noise in UNSEEN_NOISES)  # or of a level beyond


def _case() -> tuple[Measured, Policy, Tried]:
    """Eight images; noop is right for half of the units and "apart" for the others, as the context's sign says."""
    rng = np.random.default_rng(0)
    psnr = rng.normal(25, 0.5, (64, len(EDITS)))
    contexts = torch.from_numpy(rng.normal(size=(64, len(FEATURES)))).float()
    psnr[contexts[:, 0] < 0, 0] += 6
    psnr[contexts[:, 0] >= 0, 5] += 6
    policy = Policy(len(EDITS))
    with torch.no_grad():
        for weight in policy.parameters():
            weight.zero_()
        policy.layers[0].weight[0, 0] = 1
        policy.layers[2].weight[0, 0], policy.layers[2].weight[5, 0] = -1, 1
    measured = Measured(psnr, contexts, np.repeat(np.arange(8), 8), np.arange(len(EDITS)) / 100, looking=0.005)
    return measured, policy, Tried(contexts, torch.from_numpy(10 ** (-psnr / 10)).float())


def test_arms_stand_as_they_must() -> None:
    measured, policy, tried = _case()
    arms = {arm.name.split(" (")[0]: arm for arm in table(measured, [policy, policy], [tried, tried])}
    assert arms["oracle"].psnr >= arms["SEAL"].psnr > arms["best fixed edit"].psnr + 2 > arms["none"].psnr
    assert arms["best fixed edit"].gain == arms["best fixed edit"].low == arms["best fixed edit"].high == 0
    assert 1 < arms["SEAL"].low < arms["SEAL"].gain < arms["SEAL"].high
    assert arms["an edit by chance"].psnr == pytest.approx(measured.psnr.mean())
    assert arms["best fixed, equal time"].seconds <= arms["SEAL"].seconds
    assert arms["SEAL"].seconds == pytest.approx(
        0.005 + np.mean(np.where(measured.contexts[:, 0] < 0, 0, 0.05)), rel=0.1
    )


def test_an_interval_is_wider_where_images_differ_than_where_units_do() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(10), 20)
    by_unit, by_image = rng.normal(1, 1, 200), 1 + np.repeat(rng.normal(0, 1, 10), 20)
    narrow, wide = bootstrap(by_unit[None], groups), bootstrap(by_image[None], groups)
    assert narrow[0] < 1 < narrow[1] and narrow[1] - narrow[0] < 0.4
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])
    assert bootstrap(np.zeros((3, 20)), np.arange(20)) == (0, 0)
    apart = bootstrap(by_unit + np.array([[-1.0], [0.0], [1.0]]), groups)  # policies that differ
    assert apart[1] - apart[0] > 2 * (narrow[1] - narrow[0])
