"""Trains the policy that chooses how the denoiser is used on an image; no clean image is looked at.

A context is a noisy image. Every edit of it is rewarded on other, independently noisy versions that no edit has used:
E|f(y1) - y2|^2 = E|f(y1) - x|^2 + Var(y2), so this ranks edits as the true error would. (Two contexts in nine have no
noise, so there the other version is the image itself.) The policy then learns by
ReST-EM: sample a few edits a context, keep the best where it helped, imitate what was kept, again.

Source: Zweiger et al., "Self-Adapting Language Models", 2025 (ReST-EM, section 3). Deviations: the edits are few, so
each is tried once a context and the samples look their reward up; a kept edit counts by how much it helped.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trm_nb.denoise.noise import Noise, as_file
from trm_nb.denoise.noise2noise import Denoiser
from trm_nb.denoise.seal import EDITS, NOOP, Edit, Policy, apply, context
from trm_nb.denoise.seal import LEARNING_RATE as ADAPTING
from trm_nb.denoise.training_batches import AS_FILE, Batches
from trm_nb.denoise.training_images import PARTS, Images
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.storage.files import write_file

SIDE = 128
ODDS = (0.5, 0.3, 0.2)  # of a context to be of photographs, pages and grids
ROUNDS, SAMPLES, EPOCHS = 8, 4, 150
OTHERS = 8  # versions of an image that an edit is rewarded on
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-3
MOST = 2.0  # a kept edit counts at most so much: the logarithm of the error's ratio
# The squared error below which none is better: 68 dB, so that leaving a clean image alone is worth it.
FLOOR = (0.1 / 255) ** 2
LOG_EVERY = 10  # contexts
EXPLORE = 0.1  # of the samples, chosen without the policy


@dataclass(frozen=True, slots=True, eq=False)
class Tried:
    """Contexts float32 (n, 14), and the estimated squared error of each edit on each, float32 (n, edits)."""

    contexts: Tensor
    errors: Tensor


def sample_noise(rng: np.random.Generator) -> Noise:
    """A kind and level of noise as the policy's training meets them: those of the network's, louder ones, and more."""
    kind = str(
        rng.choice(
            ["none", "none", "gaussian", "loud", "poisson", "jpeg", "scanner", "correlated", "demosaiced", "rows"]
        )
    )
    if kind == "none":
        return Noise("gaussian", 0)
    if kind in ("gaussian", "loud"):
        return Noise("gaussian", rng.uniform(2, 50) if kind == "gaussian" else rng.uniform(50, 110))
    if kind == "poisson":
        return Noise("poisson", math.exp(rng.uniform(math.log(4), math.log(200))))
    if kind == "jpeg":
        return Noise("jpeg", rng.uniform(10, 95))
    if kind == "scanner":
        return Noise("scanner", rng.uniform(0.1, 2))
    if kind == "rows":
        return Noise("rows", rng.uniform(3, 40))
    return Noise("correlated" if kind == "correlated" else "demosaiced", rng.uniform(3, 60))


def try_edits(
    denoiser: Denoiser,
    images: Images,
    count: int,
    seed: int,
    edits: Sequence[Edit] = EDITS,
    on_step: Callable[[], None] | None = None,
) -> Tried:
    """Try each edit on `count` noisy crops of 128x128 pixels; they follow from the seed."""
    contexts, errors, batches = [], [], Batches(images, "cpu")
    for number in range(count):
        rng = np.random.default_rng([seed, 1, number])
        x = batches.crops(PARTS[rng.choice(3, p=ODDS)], 1, SIDE, rng)
        noise, generator = sample_noise(rng), torch.Generator().manual_seed(int(rng.integers(2**62)))
        given = noise.add(x, generator)
        given = as_file(given) if rng.random() < AS_FILE else given
        others = noise.add(x.expand(OTHERS, -1, -1, -1), generator)
        mean, unpredictable = others.mean(0), float(others.var(0).mean()) / OTHERS
        contexts.append(context(given, denoiser))
        errors.append(torch.tensor([float((apply(e, denoiser, given) - mean).square().mean()) for e in edits]))
        errors[-1] -= unpredictable
        if on_step is not None:
            on_step()
    return Tried(torch.stack(contexts), torch.stack(errors).clamp_min(FLOOR))


def kept_lesson(
    folder: Path,
    denoiser: Denoiser,
    images: Images,
    count: int,
    seed: int,
    on_step: Callable[[], None] | None = None,
) -> Tried:
    """`try_edits`, kept in a file of the folder, as it takes a second a context."""
    made_by = hashlib.sha256(f"{EDITS} {ADAPTING} {SIDE} {ODDS} {OTHERS} {AS_FILE} {FLOOR}".encode()).hexdigest()[:8]
    path = folder / f"lesson-{denoiser.fingerprint}-{images.name}-{made_by}-{count}-{seed}.npz"
    if not path.is_file():
        tried = try_edits(denoiser, images, count, seed, on_step=on_step)
        buffer = io.BytesIO()
        np.savez(buffer, contexts=tried.contexts.numpy(), errors=tried.errors.numpy())
        write_file(path, buffer.getvalue())
    with np.load(path, allow_pickle=False) as held:
        return Tried(torch.from_numpy(held["contexts"]), torch.from_numpy(held["errors"]))


def kept_lessons(
    folder: Path,
    denoiser: Denoiser,
    images: Images,
    count: int,
    lessons: int,
    on_step: Callable[[], None] | None = None,
) -> list[Tried]:
    """So many lessons of `count` contexts each, seeds from 0 on; the folder's tracker says how many are tried."""
    found = []
    with closing(TrainingProgressTracker(folder, create=True)) as tracker, tracker.stage("train", lessons * count):
        beat = tracker.beating(on_step)

        def step() -> None:
            number = next(numbers)
            if number % LOG_EVERY == 0:
                tracker.log_step(number)
            beat()

        for seed in range(lessons):
            numbers = itertools.count(seed * count + 1)
            found.append(kept_lesson(folder, denoiser, images, count, seed, step))
        tracker.log_step(lessons * count)
    return found


def train_policy(tried: Tried, seed: int, edits: Sequence[Edit] = EDITS) -> tuple[Policy, list[dict[str, float]]]:
    """A policy by ReST-EM, and a line of figures a round (see `judged`); it follows from the seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = Policy(len(edits))
    policy.mean.copy_(tried.contexts.mean(0))
    policy.scale.copy_(tried.contexts.std(0) + 1e-3)
    logs = tried.errors.log()
    rewards = []
    for number in range(ROUNDS):
        sampled = _sample(policy, tried.contexts, len(edits), generator)
        best = logs.gather(1, sampled).min(1)
        kept, usual = sampled.gather(1, best.indices[:, None])[:, 0], logs.gather(1, sampled).mean(1)
        gain = (usual - best.values).clamp(0, MOST)
        _imitate(policy, tried.contexts, kept, gain)
        rewards.append(
            {"round": float(number), "kept": float((gain > 0).float().mean()), **judged(policy, tried, edits)}
        )
    return policy.eval(), rewards


def _sample(policy: Policy, contexts: Tensor, edits: int, generator: torch.Generator) -> Tensor:
    """(n, SAMPLES) edits a context: the policy's, some of them any."""
    with torch.no_grad():
        odds = (1 - EXPLORE) * policy(contexts).softmax(1) + EXPLORE / edits
    return torch.multinomial(odds, SAMPLES, replacement=True, generator=generator)


def _imitate(policy: Policy, contexts: Tensor, kept: Tensor, weight: Tensor) -> None:
    optimiser = torch.optim.AdamW(policy.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for _ in range(EPOCHS):
        loss = (weight * F.cross_entropy(policy(contexts), kept, reduction="none")).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


@torch.no_grad()
def judged(policy: Policy, tried: Tried, edits: Sequence[Edit] = EDITS) -> dict[str, float]:
    """Gains of the policy's choices in dB, and of the clean contexts how many it leaves alone (nan without any)."""
    chosen = policy(tried.contexts).argmax(1)
    decibels = -10 * tried.errors.log10()
    policys = decibels.gather(1, chosen[:, None]).mean()
    noop = list(edits).index(NOOP)
    clean = tried.errors[:, noop] <= tried.errors.min()
    return {
        "over noop": float(policys - decibels[:, noop].mean()),
        "over the best fixed edit": float(policys - decibels.mean(0).max()),
        "clean left alone": float((chosen[clean] == noop).float().mean()),
    }


def best_fixed(tried: Tried, edits: Sequence[Edit] = EDITS, among: Sequence[Edit] | None = None) -> Edit:
    """The one edit, of all or `among` some, that is best for all contexts together, in mean dB."""
    errors = dict(zip(edits, tried.errors.log().mean(0).tolist(), strict=True))
    return min(edits if among is None else among, key=lambda edit: errors[edit])
