"""How fast images become capsules, compared with version 1, plain vision transformers and the machine's peak.

    python tests/bench/encode.py [THREADS] [DEVICE]    (default: 2 cpu)

All arms encode the demo's images in the same run, in rounds that alternate between them; a figure is the median of the
rounds. The floating-point operations (two for a multiply-add) are those of matrix products, counted by torch; their
rate divided by that of one large product of the same precision says how well an arm uses the machine. bfloat16 is
measured where it is fast; a GPU gets larger batches. `make peers` has timm. Copy the table into the log, with the
processor.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import trm_nb
from trm_nb import MultimodalDatasetConfig, TRMVisionEncoder
from trm_nb.models.encoder import Encoder
from trm_nb.models.hardware import fast_in_bfloat16
from trm_nb.models.patches import patches, positions
from trm_nb.models.trm import RecursiveNet, affine, recurse, rms_norm, rotary_angles
from trm_nb.pipeline.encode_task import encode_images
from trm_nb.records import Item
from trm_nb.render.renderer import Renderer
from trm_nb.sources.reader import scan

ROUNDS = 5
SIZES = {"cpu": (1, 64, 2048), "cuda": (8, 512, 8192)}  # how often each image, batch, side of the peak's matrices
FIRST = "base of version 1"
IN_A_RUN = ", as in a run"
VISION_TRANSFORMERS = {"vit_tiny_patch16_224": "timm's ViT-Ti/16", "vit_small_patch16_224": "timm's ViT-S/16"}
TORCHVISION = ("", ".ops", ".ops.misc", ".datasets", ".transforms", ".transforms.functional")
Encode = Callable[[Tensor], object]
Arm = tuple[str, torch.dtype]


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
        angles = rotary_angles(positions(8).to(x.device), 64)
        z_H, _ = recurse(self.net, torch.zeros_like(x), torch.zeros_like(x), x, 2, 3, angles)
        key, value = (layer(z_H + x).view(b, 64, 8, 64).transpose(1, 2) for layer in (self.key, self.value))
        read = nn.functional.scaled_dot_product_attention(self.query.expand(b, -1, -1, -1), key, value)
        return rms_norm(read.transpose(1, 2).reshape(b, 12, 512))


def main() -> None:
    """Measure and print a table."""
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    device = sys.argv[2] if len(sys.argv) > 2 else "cpu"
    torch.set_num_threads(threads)
    copies, batch, side = SIZES[torch.device(device).type]
    images = demo_images()
    white = (patches(images) == 255).flatten(2).all(-1).float().mean()
    print(f"{len(images)} images of the demo, {white:.0%} of their patches white; {threads} threads, {device}")
    dtypes = [torch.float32, *([torch.bfloat16] if fast_in_bfloat16(device) else [])]
    arms = {(name, dtype): encode for dtype in dtypes for name, encode in encoders(device, dtype, threads)}
    parts = images.repeat(copies, 1, 1, 1).to(device).split(batch * threads)
    speeds, operations = measured(arms, parts), {arm: counted(encode, parts) for arm, encode in arms.items()}
    peaks = {dtype: peak(dtype, device, side) for dtype in dtypes}
    print("| encoder | precision | images/s | relative to version 1 | GFLOP an image | of the peak |")
    print("|---|---|---|---|---|---|")
    for arm, speed in sorted(speeds.items(), key=lambda pair: pair[1]):
        name, dtype = arm
        needed = operations[name.removesuffix(IN_A_RUN), dtype]  # its threads' operations are not counted
        share = speed * needed / peaks[dtype]
        times = speed / speeds[FIRST, torch.float32]
        print(f"| {name} | {named(dtype)} | {speed:.0f} | {times:.1f} | {needed / 1e9:.2f} | {share:.0%} |")
    for dtype, rate in peaks.items():
        print(f"peak of {side}x{side} matrices, {named(dtype)}: {rate / 1e9:,.0f} GFLOP/s")


def demo_images() -> Tensor:
    """Every second image of the demo data, uint8 (n, 224, 224, 3)."""
    demo = Path(trm_nb.__file__).parent / "assets" / "demo"
    renderer, config = Renderer(), MultimodalDatasetConfig(source_paths=[str(demo)], output_dir="unused")
    items = [entry for reading in scan(config) for entry in reading.entries if isinstance(entry, Item)]
    samples = [sample for item in items for sample in renderer.samples(item)]
    return torch.from_numpy(renderer.rasterise(samples[::2])[0])


def encoders(device: str, dtype: torch.dtype, threads: int) -> Iterator[tuple[str, Encode]]:
    """Ours, plain and as a run encodes, that of version 1 (float32 alone), and timm's where timm is installed."""
    if dtype == torch.float32:
        yield FIRST, FirstBase().eval().to(device)
    for preset in ("base", "tiny"):
        yield preset, TRMVisionEncoder(preset).eval().to(device, dtype)
        yield f"{preset}{IN_A_RUN}", as_in_a_run(TRMVisionEncoder(preset).eval().to(device), device, dtype, threads)
    if not importlib.util.find_spec("timm"):
        print("without timm's vision transformers; use `make peers`, or pip install timm")
        return
    for key, name in VISION_TRANSFORMERS.items():
        yield name, transformer(timm_package().create_model(key).eval().to(device, dtype), dtype)


@cache
def timm_package() -> Any:
    """timm without torchvision, which its data loaders alone need, and whose wheel may be for another torch."""
    stand_ins = {f"torchvision{part}": MagicMock() for part in TORCHVISION}
    sys.modules |= stand_ins
    import timm

    for name in stand_ins:
        del sys.modules[name]
    return timm


def as_in_a_run(encoder: Encoder, device: str, dtype: torch.dtype, threads: int) -> Encode:
    """Micro-batches on a thread each; the capsules come back as float16 in main memory."""
    how = MultimodalDatasetConfig(source_paths=["unused"], output_dir="unused", device=device, torch_threads=threads)
    return lambda images: encode_images(encoder, images.cpu().numpy(), how, named(dtype))


def transformer(model: nn.Module, dtype: torch.dtype) -> Encode:
    """A model of float images (b, 3, h, w) as one of uint8 images (b, h, w, 3)."""
    return lambda images: model(images.permute(0, 3, 1, 2).to(dtype) / 127.5 - 1)


def measured(arms: dict[Arm, Encode], parts: tuple[Tensor, ...]) -> dict[Arm, float]:
    """Images a second of each arm, the median of ROUNDS."""
    seconds: dict[Arm, list[float]] = {arm: [] for arm in arms}
    with torch.inference_mode():
        for number in range(ROUNDS + 1):  # the first warms up
            for arm, encode in arms.items():
                started = time.perf_counter()
                for images in parts:
                    encode(images)
                synchronise(parts[0])
                seconds[arm] += [time.perf_counter() - started] if number else []
    return {arm: sum(map(len, parts)) / statistics.median(taken) for arm, taken in seconds.items()}


def counted(encode: Encode, parts: tuple[Tensor, ...]) -> float:
    """Floating-point operations an image; attention is written out, as not all of its kernels are counted."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        for images in parts:
            encode(images)
    return counter.get_total_flops() / sum(map(len, parts))


def peak(dtype: torch.dtype, device: str, side: int) -> float:
    """Floating-point operations a second of a large matrix product, the fastest of ten."""
    a = torch.randn(side, side, device=device, dtype=dtype)
    seconds = []
    for _ in range(11):
        synchronise(a)
        started = time.perf_counter()
        a @ a
        synchronise(a)
        seconds.append(time.perf_counter() - started)
    return float(2 * side**3 / min(seconds))


def named(dtype: torch.dtype) -> str:
    """As one writes it."""
    return str(dtype).removeprefix("torch.")


def synchronise(on: Tensor) -> None:
    """Wait for a GPU."""
    if on.is_cuda:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
