"""What adapting is worth: a policy's choices beside no denoiser, the plain one, fixed edits, chance and an oracle.

On images, and on kinds or levels of noise, that neither the network nor the policy was trained on. The true image
is used here, to measure, and nowhere else. A unit is one image with one noise, clipped and rounded as files are;
intervals are from a paired bootstrap over names of images (pieces of one photograph share its name), each with all
its noises, and over policies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trm_nb.denoise.benchmark import SIDE, as_tensor, noisy, photographs, random_grid
from trm_nb.denoise.benchmark import psnr as psnr_of
from trm_nb.denoise.noise import Noise, as_file
from trm_nb.denoise.noise2noise import Denoiser
from trm_nb.denoise.seal import EDITS, NOOP, PLAIN, Edit, Policy, apply, context
from trm_nb.denoise.train_policy import Tried, best_fixed
from trm_nb.render.grid import GridRenderer
from trm_nb.render.text import TextRenderer

RESAMPLES = 10_000
MOST_PSNR = 70.0  # nobody sees more, and an image left as it was has infinitely much
UNSEEN_NOISES = (
    Noise("speckle", 0.15), Noise("speckle", 0.3), Noise("impulse", 0.03), Noise("impulse", 0.1), Noise("rows", 75),
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Of each unit: PSNR in dB of every edit (units, edits), context (units, 14), its image's name as a number.

    `seconds` (edits,) is the mean time of an edit, `looking` that of a context, both for one unit.
    """

    psnr: np.ndarray
    contexts: Tensor
    image: np.ndarray
    seconds: np.ndarray
    looking: float


@dataclass(frozen=True, slots=True)
class Arm:
    """Mean PSNR in dB, seconds a unit, and the gain over the best fixed edit with its interval (95 %)."""

    name: str
    psnr: float
    seconds: float
    gain: float
    low: float
    high: float


def unseen_images(
    texts: Sequence[str], count: int, rng: np.random.Generator
) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Named images float32 (224, 224, 3) by kind: pieces of scikit-image's photographs, half as many pages and grids.

    Pages are the first ones of `texts`; `count` pieces are spread over all photographs.
    """
    pieces = [
        (name, photo[y : y + SIDE, x : x + SIDE])
        for name, photo in photographs().items()
        for y in range(0, photo.shape[0] - SIDE + 1, SIDE)
        for x in range(0, photo.shape[1] - SIDE + 1, SIDE)
    ]
    half = max(1, count // 2)
    pages = [TextRenderer().render_pages(text)[0] for text in texts[:half]]
    grids = [GridRenderer().render(rng.integers(0, 10, (7, 9))) for _ in range(half)]
    return {
        "photographs": [pieces[i] for i in np.linspace(0, len(pieces) - 1, min(count, len(pieces))).astype(int)],
        "pages": [(f"page {i}", page.astype(np.float32) / 255) for i, page in enumerate(pages)],
        "grids": [(f"grid {i}", grid.astype(np.float32) / 255) for i, grid in enumerate(grids)],
    }


def clean_images(
    texts: Sequence[str], unseen: Mapping[str, Sequence[tuple[str, np.ndarray]]], count: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """uint8 (224, 224, 3) each: the unseen pages and grids, more pages of `count` texts, and 2 `count` more grids."""
    clean = [(255 * x).astype(np.uint8) for kind in ("pages", "grids") for _, x in unseen[kind]]
    clean += [page for text in texts[:count] for page in TextRenderer().render_pages(text)[1:4]]
    return clean + [random_grid(rng) for _ in range(2 * count)]


def measure(
    denoiser: Denoiser,
    images: Sequence[tuple[str, np.ndarray]],
    noises: Sequence[Noise] = UNSEEN_NOISES,
    edits: Sequence[Edit] = EDITS,
    on_step: Callable[[], None] | None = None,
) -> Measured:
    """Every edit on every named image, float32 (h, w, 3) in [0, 1], sides multiples of 16, with every noise."""
    psnr, contexts, image, seconds, looking = [], [], [], [], []
    names = list(dict.fromkeys(name for name, _ in images))
    for number, (name, clean) in enumerate(images):
        for noise in noises:
            x = as_file(as_tensor(noisy(clean, noise, number)))
            start = time.perf_counter()
            contexts.append(context(x, denoiser))
            looking.append(time.perf_counter() - start)
            took, found = [], []
            for edit in edits:
                start = time.perf_counter()
                restored = apply(edit, denoiser, x)[0].permute(1, 2, 0).numpy()
                took.append(time.perf_counter() - start)
                found.append(min(psnr_of(restored.clip(0, 1), clean), MOST_PSNR))
            psnr.append(found)
            seconds.append(took)
            image.append(names.index(name))
            if on_step is not None:
                on_step()
    return Measured(
        np.array(psnr), torch.stack(contexts), np.array(image), np.mean(seconds, 0), float(np.mean(looking))
    )


def chosen_by(policy: Policy, measured: Measured) -> np.ndarray:
    """The number of the edit that a policy chooses for each unit."""
    with torch.no_grad():
        chosen: np.ndarray = policy(measured.contexts).argmax(1).numpy()
    return chosen


def table(
    measured: Measured, policies: Sequence[Policy], lessons: Sequence[Tried], edits: Sequence[Edit] = EDITS
) -> list[Arm]:
    """The arms. Each policy has the lesson that it learnt from; the best fixed edit is the best of that lesson.

    A second one is the best of those that take no longer than the policies do, choosing included.
    """
    rows = np.arange(len(measured.psnr))
    choices = [chosen_by(policy, measured) for policy in policies]
    cost = measured.looking + np.mean([measured.seconds[chosen].mean() for chosen in choices])
    cheap = [edit for edit, seconds in zip(edits, measured.seconds, strict=True) if seconds <= cost]
    fixed = [best_fixed(tried, edits) for tried in lessons]
    equal = [best_fixed(tried, edits, cheap) for tried in lessons]

    def constant(chosen: Sequence[Edit]) -> tuple[np.ndarray, float]:
        numbers = [list(edits).index(edit) for edit in chosen]
        return measured.psnr[:, numbers].T, float(np.mean(measured.seconds[numbers]))

    best, best_seconds = constant(fixed)
    seal = np.stack([measured.psnr[rows, chosen] for chosen in choices])
    arms = {
        "none": constant([NOOP]),
        "Noise2Noise": constant([PLAIN]),
        "an edit by chance": (measured.psnr.mean(1)[None], float(measured.seconds.mean())),
        f"best fixed edit ({_names(fixed)})": (best, best_seconds),
        f"best fixed, equal time ({_names(equal)})": constant(equal),
        "SEAL": (seal, float(cost)),
        "oracle": (measured.psnr.max(1)[None], float(measured.seconds.sum())),
    }
    found = []
    for name, (psnr, seconds) in arms.items():
        low, high = bootstrap(psnr - best, measured.image)
        found.append(Arm(name, float(psnr.mean()), seconds, float((psnr - best).mean()), low, high))
    return found


def _names(edits: Sequence[Edit]) -> str:
    return " or ".join(dict.fromkeys(edit.name for edit in edits))


def bootstrap(differences: np.ndarray, groups: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The interval (95 %) of a mean of paired differences (policies, n), resampling policies and whole groups (n,)."""
    sums = np.stack([np.bincount(groups, row) for row in differences])  # (policies, groups)
    counts = np.bincount(groups)
    rng = np.random.default_rng(seed)
    policies, chosen = (rng.multinomial(size, np.full(size, 1 / size), RESAMPLES) for size in sums.shape)
    means = ((policies @ sums) * chosen).sum(1) / (len(sums) * (chosen @ counts))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def joined(parts: Sequence[Measured]) -> Measured:
    """Several measurements as one; their images are different ones."""
    sizes = [int(part.image.max()) + 1 for part in parts]
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    weights = [len(part.psnr) for part in parts]
    return Measured(
        np.concatenate([part.psnr for part in parts]),
        torch.cat([part.contexts for part in parts]),
        np.concatenate([part.image + start for part, start in zip(parts, first, strict=True)]),
        np.average([part.seconds for part in parts], axis=0, weights=weights),
        float(np.average([part.looking for part in parts], weights=weights)),
    )
