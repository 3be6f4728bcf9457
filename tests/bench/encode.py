"""How fast images become capsules, beside the encoder of version 1, plain vision transformers and the machine's peak.

    python tests/bench/encode.py [THREADS] [DEVICE]    (default: 2 cpu)

All arms encode the demo's images in the same run, in rounds that alternate between them; a figure is the median of the
rounds. Copy the table into LOG.md, with the processor.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

import trm_nb
from trm_nb import MultimodalDatasetConfig, TRMVisionEncoder
from trm_nb.models.patches import patches, positions
from trm_nb.models.trm import RecursiveNet, affine, recurse, rms_norm, rotary_angles
from trm_nb.records import Item
from trm_nb.render.renderer import Renderer
from trm_nb.sources.reader import scan

ROUNDS, BATCH = 5, 64
SIZE = 2048  # of the matrices whose product is the peak


class FirstBase(nn.Module):
    """The preset `base` of version 1: patches of 28x28 embedded by one matrix, width 512, eight calls of the net."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embed = affine(28 * 28 * 3, 512, generator, bias=False)
        self.net = RecursiveNet(512, 8, generator)
        self.key, self.value = (affine(512, 512, generator, bias=False) for _ in range(2))
        self.query = nn.Parameter(torch.randn(8, 12, 64, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        b = len(images)
        x = self.embed(patches(images).view(b, 64, 8, 14, 7, 3).flatten(2).float() / 127.5 - 1)
        z_H, _ = recurse(self.net, torch.zeros_like(x), torch.zeros_like(x), x, 2, 3, rotary_angles(positions(8), 64))
        key, value = (layer(z_H + x).view(b, 64, 8, 64).transpose(1, 2) for layer in (self.key, self.value))
        read = nn.functional.scaled_dot_product_attention(self.query.expand(b, -1, -1, -1), key, value)
        return rms_norm(read.transpose(1, 2).reshape(b, 12, 512))


def main() -> None:
    """Measure and print a table."""
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    device = sys.argv[2] if len(sys.argv) > 2 else "cpu"
    torch.set_num_threads(threads)
    images = demo_images().to(device)
    white = (patches(images) == 255).flatten(2).all(-1).float().mean()
    print(f"{len(images)} images of the demo, {white:.0%} of their patches white; {threads} threads, {device}")
    half = TRMVisionEncoder("base").eval().to(device, torch.bfloat16)
    arms: dict[str, Callable[[Tensor], object]] = {
        "base of version 1, float32": FirstBase().eval().to(device),
        "base, float32": TRMVisionEncoder("base").eval().to(device),
        "base, bfloat16": half,
        "tiny, float32": TRMVisionEncoder("tiny").eval().to(device),
        **dict(transformers(device)),
    }
    speeds = measured(arms, images)
    first = speeds["base of version 1, float32"]
    print("| encoder | images/s | beside version 1 |\n|---|---|---|")
    for name, speed in speeds.items():
        print(f"| {name} | {speed:.0f} | {speed / first:.1f} |")
    for dtype in (torch.float32, torch.bfloat16):
        print(f"peak of {SIZE}x{SIZE} matrices, {dtype}: {peak(dtype, device) / 1e9:.0f} GFLOP/s")


def demo_images() -> Tensor:
    """Every second image of the demo data, uint8 (n, 224, 224, 3)."""
    demo = Path(trm_nb.__file__).parent / "assets" / "demo"
    renderer, config = Renderer(), MultimodalDatasetConfig(source_paths=[str(demo)], output_dir="unused")
    items = [entry for reading in scan(config) for entry in reading.entries if isinstance(entry, Item)]
    samples = [sample for item in items for sample in renderer.samples(item)]
    return torch.from_numpy(renderer.rasterise(samples[::2])[0])


def transformers(device: str) -> Iterator[tuple[str, Callable[[Tensor], object]]]:
    """timm's ViT-Ti/16 and ViT-S/16, where timm is installed."""
    try:
        import timm
    except ImportError:
        print("without timm's vision transformers: pip install timm")
        return
    for name in ("vit_tiny_patch16_224", "vit_small_patch16_224"):
        model = timm.create_model(name).eval().to(device)
        yield f"timm {name}, float32", lambda x, m=model: m(x.permute(0, 3, 1, 2).float() / 127.5 - 1)


def measured(arms: dict[str, Callable[[Tensor], object]], images: Tensor) -> dict[str, float]:
    """Images a second of each arm, the median of ROUNDS."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    with torch.inference_mode():
        for number in range(ROUNDS + 1):  # the first warms up
            for name, encode in arms.items():
                started = time.perf_counter()
                for batch in images.split(BATCH):
                    encode(batch)
                synchronise(images)
                seconds[name] += [time.perf_counter() - started] if number else []
    return {name: len(images) / statistics.median(taken) for name, taken in seconds.items()}


def peak(dtype: torch.dtype, device: str) -> float:
    """Floating-point operations a second of a large matrix product."""
    a = torch.randn(SIZE, SIZE, device=device, dtype=dtype)
    a @ a
    started = time.perf_counter()
    for _ in range(10):
        a @ a
    synchronise(a)
    return 10 * 2 * SIZE**3 / (time.perf_counter() - started)


def synchronise(on: Tensor) -> None:
    """Wait for a GPU."""
    if on.is_cuda:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
