"""How many images a second does the cache stage denoise, beside the same network run plainly?

    python tests/bench/denoise.py [CHECKPOINT]    (default: the weights that come with the package)

96 noisy photographs of 224x224 pixels in PNG files go through an ImageCache with two workers: rendered alone, denoised
by the checkpoint's plain network and, where it has a companion, adapted to each image. Beside it the same network, as
PyTorch runs it with nothing done about it, and as ours, on one thread. bfloat16 is measured where it is fast.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from trm_nb.cache.image_cache import ImageCache
from trm_nb.denoise import SHIPPED, adaptive_path
from trm_nb.denoise.benchmark import noisy, photographs
from trm_nb.denoise.noise import Noise
from trm_nb.denoise.noise2noise import BATCH, Denoiser, Noise2NoiseUNet, from_pixels
from trm_nb.models.hardware import cpu_threads, fast_in_bfloat16
from trm_nb.records import ImageFile, Item, Precision
from trm_nb.storage.files import sha256_of

TURNS, IMAGES, WORKERS = 5, 96, 2
NOISES = (
    Noise("gaussian", 15),
    Noise("gaussian", 50),
    Noise("poisson", 30),
    Noise("correlated", 25),
    Noise("jpeg", 30),
)


def make_images(folder: Path) -> list[Item]:
    """Noisy crops of scikit-image's photographs, as PNG files."""
    crops = [photo[y : y + 224, x : x + 224] for photo in photographs().values() for y in (0, 72) for x in (0, 60, 200)]
    items = []
    for number in range(IMAGES):
        clean = crops[number % len(crops)]
        pixels = 255 * noisy(clean, NOISES[number % len(NOISES)], number).clip(0, 1)
        path = folder / f"{number}.png"
        Image.fromarray(pixels.round().astype(np.uint8)).save(path)
        items.append(Item(path.name, "image", ImageFile(path, sha256_of(path))))
    return items


def stage(
    items: list[Item], checkpoint: Path | None, folder: Path, precision: Precision = "float32"
) -> Callable[[], None]:
    """Rendering all of them into a new cache."""

    def fill() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as here:
            cache = ImageCache(
                here, checkpoint is not None, checkpoint, denoiser_precision=precision, shard_size=12, workers=WORKERS
            )
            report = cache.populate(items)
            assert report.misses == IMAGES
            cache.close()

    return fill


def alone(denoiser: Denoiser, images: np.ndarray, eager: bool) -> Callable[[], None]:
    """The network on one thread: as it comes from its constructor, or as it is used."""
    network = Noise2NoiseUNet(denoiser.network.shape).eval()
    network.load_state_dict(denoiser.network.state_dict())
    network.to(memory_format=torch.contiguous_format)

    def batches() -> Iterator[np.ndarray]:
        for start in range(0, len(images), BATCH):
            yield images[start : start + BATCH]

    def run() -> None:
        with cpu_threads(1), torch.no_grad():
            for batch in batches():
                if eager:
                    network(from_pixels(batch).contiguous())
                else:
                    denoiser.restore(from_pixels(batch))

    return run


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = Path(sys.argv[1]) if sys.argv[1:] else SHIPPED["base"]
        plain = folder / "plain.pt"
        plain.write_bytes(checkpoint.read_bytes())
        items = make_images(folder)
        images = np.stack([np.asarray(Image.open(item.payload.path)) for item in items])  # type: ignore[union-attr]
        ways = {
            "cache stage, not denoised": stage(items, None, folder),
            "the network alone, eager, one thread": alone(Denoiser.load(plain), images, eager=True),
        }
        precisions: list[Precision] = ["float32", "bfloat16"] if fast_in_bfloat16("cpu") else ["float32"]
        for precision in precisions:
            ours = alone(Denoiser.load(plain, precision), images, eager=False)
            ways[f"the network alone, ours, one thread, {precision}"] = ours
            ways[f"cache stage, denoised, {precision}"] = stage(items, plain, folder, precision)
            if adaptive_path(checkpoint).is_file():
                ways[f"cache stage, adapted, {precision}"] = stage(items, checkpoint, folder, precision)
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(TURNS + 1):
            for way, work in ways.items():
                start = time.perf_counter()
                work()
                taken[way] += [time.perf_counter() - start] * (turn > 0)
        print("\n| | images/s |\n|---|---|")
        for way, spent in taken.items():
            print(f"| {way} | {IMAGES / statistics.median(spent):.1f} |")


if __name__ == "__main__":
    main()
