"""How long is an optimiser step beside the same model written plainly in eager PyTorch, and what part of it is data?

    python tests/bench/training.py [TURNS] [DEVICE]    (default: 5 cpu; a turn is 10 steps)

6x6 Sudokus as tokens, batch 64, width 128, with attention and with mlp_t, on two threads; on a GPU 9x9 ones, batch 768,
in the published size, ours compiled and in bfloat16 as it trains there. The plain model has the same shapes, recursion,
loss and optimiser, one operation after the other as one writes them down first. Data is timed on its own, of tokens
(augmented) and of capsules, as a part of such a step.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_nb import CapsuleDataset, MultimodalDatasetConfig, build
from trm_nb.evaluation.puzzle_tokens import PuzzleTokens
from trm_nb.models.hardware import cpu_threads
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.sources.puzzles.sudoku import sudokus
from trm_nb.training.objectives.grid import Grids
from trm_nb.training.reasoning import dtype_on, train
from trm_nb.training.state import Examples, Settings

DEVICE = sys.argv[2] if sys.argv[2:] else "cpu"
if DEVICE == "cpu":
    SIDE, BATCH = 6, 64
    SIZE = {"hidden_size": 128, "num_heads": 4, "H_cycles": 2, "L_cycles": 3, "halt_max_steps": 8}
else:
    SIDE, BATCH = 9, 768
    SIZE = {"hidden_size": 512, "num_heads": 8, "H_cycles": 3, "L_cycles": 6, "halt_max_steps": 16}
STEPS, THREADS, PLACES = 10, 2, SIDE * SIDE
SETTINGS = Settings(0, batch=BATCH, device=DEVICE, torch_threads=THREADS, checkpoint_every=10**9)


class PlainBlock(nn.Module):
    """Attention (or a SwiGLU over places) and a SwiGLU, each added and divided by the root mean square."""

    def __init__(self, d: int, heads: int, mlp_t: bool) -> None:
        super().__init__()
        inner = math.ceil(round(d * 8 / 3) / 256) * 256
        self.heads, self.mlp_t = heads, mlp_t
        if mlp_t:
            self.across, self.back = nn.Linear(PLACES, 512, bias=False), nn.Linear(256, PLACES, bias=False)
        else:
            self.qkv, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.up, self.down = nn.Linear(d, 2 * inner, bias=False), nn.Linear(inner, d, bias=False)

    def forward(self, h: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        if self.mlp_t:
            turned = h.transpose(1, 2)
            gate, up = self.across(turned).chunk(2, -1)
            h = self.norm(turned + self.back(F.silu(gate) * up)).transpose(1, 2)
        else:
            q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in self.qkv(h).chunk(3, -1))
            q, k = (x * cos + torch.cat((-x.chunk(2, -1)[1], x.chunk(2, -1)[0]), -1) * sin for x in (q, k))
            looked = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v
            h = self.norm(h + self.out(looked.transpose(1, 2).flatten(2)))
        gate, up = self.up(h).chunk(2, -1)
        return self.norm(h + self.down(F.silu(gate) * up))

    def norm(self, x: Tensor) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()


class Plain(nn.Module):
    """The model, its loss and its optimiser; `step` takes inputs and labels int64 (b, s)."""

    def __init__(self, mlp_t: bool) -> None:
        super().__init__()
        d, heads = SIZE["hidden_size"], SIZE["num_heads"]
        self.embed, self.head, self.q = nn.Embedding(SIDE + 1, d), nn.Linear(d, SIDE + 1, bias=False), nn.Linear(d, 2)
        self.layers = nn.ModuleList(PlainBlock(d, heads, mlp_t) for _ in range(2))
        angle = torch.arange(PLACES)[:, None] * 1e4 ** (-torch.arange(d // heads // 2) / (d // heads // 2))
        self.to(DEVICE)
        self.cos, self.sin = (turn(torch.cat((angle, angle), -1)).to(DEVICE) for turn in (torch.cos, torch.sin))
        self.z_H, self.z_L = (torch.randn(BATCH, PLACES, d, device=DEVICE) for _ in range(2))
        self.moments = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters()}
        self.average = [p.detach().clone() for p in self.parameters()]
        self.t = 0

    def net(self, h: Tensor) -> Tensor:
        for layer in self.layers:
            h = layer(h, self.cos, self.sin)
        return h

    def step(self, inputs: Tensor, labels: Tensor) -> float:
        x, z_H, z_L = self.embed(inputs) * SIZE["hidden_size"] ** 0.5, self.z_H, self.z_L
        for cycle in range(SIZE["H_cycles"]):
            with torch.set_grad_enabled(cycle == SIZE["H_cycles"] - 1):
                for _ in range(SIZE["L_cycles"]):
                    z_L = self.net(z_L + z_H + x)
                z_H = self.net(z_H + z_L)
        self.z_H, self.z_L = z_H.detach(), z_L.detach()
        logits, q = self.head(z_H).double(), self.q(z_H[:, 0])[:, 0]
        s = torch.where(logits < 0, 1 / (1 - logits), logits + 1)
        chosen = (s / s.sum(-1, keepdim=True)).log().gather(-1, labels[..., None])
        right = (logits.argmax(-1) == labels).all(-1).float()
        loss = -chosen.mean() + 0.5 * F.binary_cross_entropy_with_logits(q, right)
        self.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        self._update(1e-3)
        return loss.item()

    @torch.no_grad()
    def _update(self, lr: float) -> None:
        self.t += 1
        for p, mean in zip(self.parameters(), self.average, strict=True):
            m, v = self.moments[p]
            assert p.grad is not None
            m.mul_(0.9).add_(p.grad, alpha=0.1)
            v.mul_(0.95).addcmul_(p.grad, p.grad, value=0.05)
            p.mul_(1 - lr * 0.1).sub_(torch.atan2(m, (v / (1 - 0.95**self.t)).sqrt()) * (lr / (1 - 0.9**self.t)))
            mean.mul_(0.999).add_(p, alpha=0.001)


def timed(calls: Callable[[int], object]) -> float:
    """Seconds a call, of STEPS in a row."""
    started = time.perf_counter()
    for number in range(STEPS):
        calls(number)
    return (time.perf_counter() - started) / STEPS


def ours(examples: Examples, folder: Path, turn: int) -> float:
    """Seconds a step, between the ends of steps of one call; opening and saving are outside."""
    ends: list[float] = []
    with closing(TrainingProgressTracker(folder, create=True)) as tracker:
        settings = replace(SETTINGS, steps=(turn + 1) * (STEPS + 1))
        train(folder, examples, settings, tracker, on_step=lambda: ends.append(time.perf_counter()))
    return (ends[-2] - ends[0]) / (len(ends) - 2)


def main() -> None:
    """Print ratios of medians over turns that alternate."""
    turns = int(sys.argv[1]) if sys.argv[1:] else 5
    puzzles = list(islice(sudokus(SIDE, 0), 1100))
    with tempfile.TemporaryDirectory() as name, cpu_threads(THREADS):
        folder = Path(name)
        fields = {"encoder": "tiny", "image_size": 112, "workers": 0}
        build(MultimodalDatasetConfig(source_paths=["sudoku:6:400"], output_dir=str(folder / "run"), **fields))  # type: ignore[arg-type]
        capsules = Grids(CapsuleDataset(folder / "run"), **SIZE)
        print("| places mixed by | ours, ms | plainly, ms | ratio | data of tokens | data of capsules |")
        print("|---|---|---|---|---|---|")
        for mlp_t in (False, True):
            examples = PuzzleTokens(puzzles[:1000], puzzles[1000:], **SIZE, mlp_t=mlp_t, forward_dtype=dtype_on(DEVICE))
            plain, times = Plain(mlp_t), np.zeros((turns, 4))
            for turn in range(turns):
                batches = [examples.train_batch(number, BATCH, 0) for number in range(STEPS)]
                times[turn] = (
                    ours(examples, folder / str(mlp_t), turn),
                    timed(lambda i: plain.step(batches[i]["inputs"].to(DEVICE), batches[i]["labels"].to(DEVICE))),  # noqa: B023
                    timed(lambda i: examples.train_batch(i, BATCH, 0)),  # noqa: B023
                    timed(lambda i: capsules.train_batch(i, BATCH, 0)),
                )
            step, beside, tokens, stored = (statistics.median(column) for column in times.T.tolist())
            by = "mlp_t" if mlp_t else "attention"
            print(f"| {by} | {1e3 * step:.0f} | {1e3 * beside:.0f} | {beside / step:.2f} |", end="")
            print(f" {tokens / step:.1%} | {stored / step:.1%} |", flush=True)


if __name__ == "__main__":
    main()
