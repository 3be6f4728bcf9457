"""The self-adapting denoiser: for each image a policy chooses one of a few edits of how the denoiser is used.

Context: the noisy image alone, as a dozen numbers about it and about what the plain denoiser takes away. Edits: leave
it, take away a part, assume louder noise, denoise interleaved pixels apart (for noise whose neighbours are alike), take
a few self-supervised steps from the base weights on this image. What is chosen follows from the image alone.
`denoise/train_policy.py` trains the policy.

Source: Zweiger et al., "Self-Adapting Language Models", 2025 (2506.10943): the loop of edit, update and reward.
Deviations: the policy is a small net over a finite set of edits, not a language model that writes them. Pairs out of
one image: Huang et al., "Neighbor2Neighbor", 2021. Interleaved pixels: Zhou et al., "When AWGN-based denoiser meets
real noises", 2020.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_nb.denoise.noise2noise import Denoiser, from_pixels, padded, to_pixels
from trm_nb.errors import UserError
from trm_nb.models.checkpoints import fingerprint_of, load_checkpoint, load_weights, save_checkpoint
from trm_nb.records import DenoiseResult

KIND = "SEAL policy"
HIDDEN = 32
LEARNING_RATE = 2e-4  # of the self-supervised steps


@dataclass(frozen=True, slots=True)
class Edit:
    """One way to use the denoiser on an image.

    `strength` is the part of what the network finds that is taken away. `scale` below 1 has it assume louder noise
    than it estimates, which noise whose neighbours are alike is. `stride` 2 denoises four interleaved images. `steps`
    are self-supervised steps from the base weights.
    """

    name: str
    strength: float = 1.0
    scale: float = 1.0
    stride: int = 1
    steps: int = 0


NOOP, PLAIN = Edit("noop", strength=0.0), Edit("plain")
EDITS = (
    NOOP, PLAIN, Edit("half", strength=0.5), Edit("loud", scale=0.6), Edit("very loud", scale=0.4),
    Edit("apart", stride=2), Edit("apart, loud", scale=0.6, stride=2),
    Edit("adapt 3", steps=3), Edit("adapt 10", steps=10),
)  # fmt: skip
FEATURES = (
    "noise", "noise in the dark", "noise in the light", "grain", "along rows", "along columns", "diagonal",
    "two pixels apart", "whole rows", "whole columns", "between colours", "outliers", "left after", "flat",
)  # fmt: skip


def apply(edit: Edit, denoiser: Denoiser, x: Tensor) -> Tensor:
    """float32 (1, 3, h, w) around [0, 1], h and w multiples of 16 -> the same, restored as the edit says."""
    if edit.strength == 0:
        return x
    network = adapted(denoiser.network, x, edit.steps) if edit.steps else denoiser.network
    apart = edit.stride**2
    with torch.inference_mode():
        channels = F.pixel_unshuffle(x[0], edit.stride)  # (3 * apart, h / stride, w / stride)
        images = channels.reshape(3, apart, *channels.shape[1:]).transpose(0, 1)
        found = (images - denoiser.run(network, images, edit.scale)).transpose(0, 1).flatten(0, 1)
        restored: Tensor = x - edit.strength * F.pixel_shuffle(found, edit.stride)
    return restored


def adapted(base: nn.Module, x: Tensor, steps: int) -> nn.Module:
    """A copy of the network after self-supervised steps on one image, from pairs of its neighbouring pixels."""
    network = copy.deepcopy(base).requires_grad_(True)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    generator = torch.Generator().manual_seed(0)
    x = x.detach().clone()  # not an inference tensor
    with torch.enable_grad():
        for _ in range(steps):
            first, second = neighbours(x, generator)
            loss = F.mse_loss(network(first), second)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return network.requires_grad_(False)


def neighbours(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two images of half the size, (b, 3, h / 2, w / 2): of each 2x2 pixels two different ones, side by side."""
    b, c, h, w = x.shape
    cells = F.pixel_unshuffle(x, 2).reshape(b, c, 4, h // 2, w // 2)
    pairs = torch.tensor([(0, 1), (0, 2), (1, 3), (2, 3), (1, 0), (2, 0), (3, 1), (3, 2)])
    chosen = pairs[torch.randint(8, (b, h // 2, w // 2), generator=generator)]  # (b, h / 2, w / 2, 2)
    places = chosen.permute(3, 0, 1, 2)[:, :, None, None].expand(2, b, c, 1, h // 2, w // 2)
    return cells.gather(2, places[0]).squeeze(2), cells.gather(2, places[1]).squeeze(2)


@torch.inference_mode()
def context(x: Tensor, denoiser: Denoiser) -> Tensor:
    """float32 (1, 3, h, w) -> float32 (14,): what the policy sees, in the order of `FEATURES`."""
    restored = denoiser.restore(x)
    noise = x - restored
    spread = noise.std() + 1e-4
    luminance = restored.mean(1, keepdim=True)
    dark, light = luminance < luminance.median(), luminance > luminance.median()
    gray = noise.mean(1)
    relative = noise / spread
    values = [
        torch.log(spread),
        _part(noise, dark, spread), _part(noise, light, spread),
        torch.log((x[:, :, 1:, 1:] - x[:, :, :-1, 1:] - x[:, :, 1:, :-1] + x[:, :, :-1, :-1]).abs().median() + 1e-4),
        _alike(noise, 0, 1), _alike(noise, 1, 0), _alike(noise, 1, 1), _alike(noise, 0, 2),
        torch.log(gray.mean(-1).std() / spread * x.shape[3] ** 0.5 + 1e-3),
        torch.log(gray.mean(-2).std() / spread * x.shape[2] ** 0.5 + 1e-3),
        (relative[:, 0] * relative[:, 1] + relative[:, 1] * relative[:, 2]).mean() / 2,
        torch.log(relative.pow(4).mean() + 1e-3),
        torch.log((restored - denoiser.restore(restored)).std() + 1e-4),
        (x[:, :, :, 1:] == x[:, :, :, :-1]).float().mean(),
    ]  # fmt: skip
    return torch.stack([value.float().clamp(-12, 12) for value in values])


def _part(noise: Tensor, where: Tensor, spread: Tensor) -> Tensor:
    """How loud the noise is where `where` is true, relative to the whole, as a logarithm."""
    mask = where.expand_as(noise)
    return torch.log((noise.square() * mask).sum().div(mask.sum() + 1).sqrt() / spread + 1e-3)


def _alike(noise: Tensor, down: int, right: int) -> Tensor:
    """Correlation of the noise with itself, moved."""
    h, w = noise.shape[2:]
    one, other = noise[:, :, down:, right:], noise[:, :, : h - down, : w - right]
    return (one * other).mean() / (noise.square().mean() + 1e-8)


class Policy(nn.Module):
    """float32 (n, 14) contexts -> (n, edits) logits. `mean` and `scale` are of the contexts that it was trained on."""

    mean: Tensor
    scale: Tensor

    def __init__(self, edits: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(FEATURES)))
        self.register_buffer("scale", torch.ones(len(FEATURES)))
        self.layers = nn.Sequential(nn.Linear(len(FEATURES), HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, edits))

    def forward(self, contexts: Tensor) -> Tensor:
        logits: Tensor = self.layers((contexts - self.mean) / self.scale)
        return logits


class AdaptiveDenoiser:
    """A denoiser with a policy. Its fingerprint covers the base denoiser, the edits and the policy."""

    adapts = True

    def __init__(self, base: Denoiser, policy: Policy, edits: Sequence[Edit] = EDITS) -> None:
        self.base, self.policy, self.edits = base, policy.eval(), tuple(edits)
        settings = f"seal {base.fingerprint} {LEARNING_RATE} {[asdict(edit) for edit in edits]}"
        self.fingerprint = fingerprint_of(settings, policy)

    @torch.inference_mode()
    def choose(self, x: Tensor) -> Edit:
        """The edit for one image, float32 (1, 3, h, w)."""
        return self.edits[int(self.policy(context(x, self.base)[None]).argmax())]

    def restore(self, x: Tensor) -> Tensor:
        """Take the noise out of images, one after the other.

        Args:
            x: float32 (b, 3, h, w) around [0, 1], of any size.

        Returns:
            The same, not clipped.
        """
        h, w = x.shape[2:]
        images = torch.split(padded(x, 16), 1)
        return torch.cat([apply(self.choose(one), self.base, one) for one in images])[:, :, :h, :w]

    def restore_images(self, images: np.ndarray) -> tuple[np.ndarray, list[DenoiseResult]]:
        """Take the noise out of images, one after the other.

        Args:
            images: uint8 (n, h, w, 3) of any size.

        Returns:
            The same, and for each the edit that was chosen and how much it took away.
        """
        result, denoise_results = np.empty_like(images), []
        for i, image in enumerate(images):
            x = from_pixels(image[None], 16)
            edit = self.choose(x)
            y = apply(edit, self.base, x)
            result[i] = image if edit.strength == 0 else to_pixels(y, image.shape)[0]
            denoise_results.append(DenoiseResult(round(255 * float((x - y).std()), 2), edit.name))
        return result, denoise_results

    def save(self, path: str | Path, rewards: Sequence[dict[str, float]] = ()) -> None:
        """Write a checkpoint that `load` reads beside the base's; `rewards` is the log of the policy's training."""
        values: dict[str, Any] = {"base": self.base.weights, "edits": json.dumps([asdict(e) for e in self.edits])}
        save_checkpoint(
            path, KIND, {**values, "policy": self.policy.state_dict(), "rewards": json.dumps(list(rewards))}
        )

    @classmethod
    def load(cls, path: str | Path, base: Denoiser) -> AdaptiveDenoiser:
        """Read a checkpoint; raises UserError when the file does not fit, or is for other base weights."""
        values = load_checkpoint(path, KIND)
        if values.get("base") != base.weights:
            raise UserError(
                f"{path}: this policy is for a denoiser {values.get('base')}, the one next to it is {base.weights}; "
                "train the policy for it, or move the file away"
            )
        try:
            edits = [Edit(**given) for given in json.loads(values["edits"])]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: its edits are none of this version's ({error}); train the policy again") from None
        policy = Policy(len(edits))
        load_weights(policy, values.get("policy"), path)
        return cls(base, policy, edits)
