"""The denoiser beside others, on images that its training never saw: PSNR, SSIM, time, and what an OCR engine reads.

Photographs are those that scikit-image ships, pages are of the demo's prose, grids have random colours. The others are
given the noise's true standard deviation, which ours is not. Needs the extra `study` (scikit-image, bm3d), and `ocr`
for pages.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from trm_nb.denoise.noise import Noise
from trm_nb.denoise.ocr import character_errors, read_page
from trm_nb.errors import UserError
from trm_nb.render.grid import GridRenderer
from trm_nb.render.text import TextRenderer
from trm_nb.storage.files import write_file

if TYPE_CHECKING:
    from trm_nb.denoise import AnyDenoiser

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket")
PROSE = Path(__file__).parents[1] / "assets" / "demo" / "prose"
SIDE = 224
LEAST_NOISE = 1e-4  # of the range 0 to 1
Restore = Callable[[np.ndarray, float], np.ndarray]  # float32 (h, w, 3), the noise's standard deviation -> the same


@dataclass(frozen=True, slots=True)
class Row:
    """One arm on one kind of noise: mean PSNR (dB) and SSIM over the images, ms for 224x224, each image's PSNR."""

    noise: str
    arm: str
    psnr: float
    ssim: float
    ms: float
    each: tuple[float, ...]


def photographs() -> dict[str, np.ndarray]:
    """float32 (h, w, 3) in [0, 1], sides multiples of 8: scikit-image's colour photographs."""
    skimage = _needed("skimage")
    from PIL import Image

    folder = Path(skimage.__file__).parent / "data"
    found = {}
    for name in PHOTOGRAPHS:
        with Image.open(next(folder.glob(f"{name}.*"))) as image:
            pixels = np.asarray(image.convert("RGB"), np.float32) / 255
        found[name] = pixels[: pixels.shape[0] // 8 * 8, : pixels.shape[1] // 8 * 8]
    return found


def texts() -> list[str]:
    """The demo's prose, in the order of the files' names."""
    return [path.read_text(encoding="utf-8") for path in sorted(PROSE.glob("*.txt"))]


def pages(texts: Sequence[str]) -> dict[str, np.ndarray]:
    """float32 (224, 224, 3) in [0, 1]: the first page of each text, by its number."""
    return {str(i): TextRenderer().render_pages(text)[0].astype(np.float32) / 255 for i, text in enumerate(texts)}


def grids(count: int, seed: int) -> dict[str, np.ndarray]:
    """float32 (224, 224, 3) in [0, 1]: random grids, by their number; they follow from the seed."""
    rng = np.random.default_rng(seed)
    return {str(i): random_grid(rng).astype(np.float32) / 255 for i in range(count)}


def random_grid(rng: np.random.Generator) -> np.ndarray:
    """uint8 (224, 224, 3): a grid of random colours with 2 to 19 rows and columns."""
    return GridRenderer().render(rng.integers(0, 10, tuple(rng.integers(2, 20, 2))))


def arms(denoisers: Mapping[str, AnyDenoiser], others: bool = True) -> dict[str, Restore]:
    """Name -> what restores an image: the image as it is, median, NLM and BM3D, then the denoisers given by name.

    Without `others`: the image as it is, and the denoisers.
    """
    found: dict[str, Restore] = {"noisy": lambda x, sigma: x}
    if others:
        _needed("skimage"), _needed("bm3d")
        found |= {"median": _median, "NLM": _nlm, "BM3D": _bm3d}
    return found | {name: ours(denoiser) for name, denoiser in denoisers.items()}


def ours(denoiser: AnyDenoiser) -> Restore:
    """The denoiser as an arm: it is not given the noise's level."""
    return lambda x, sigma: denoiser.restore(as_tensor(x))[0].permute(1, 2, 0).numpy()


def compare(images: Mapping[str, np.ndarray], noises: Iterable[Noise], arms: Mapping[str, Restore]) -> list[Row]:
    """Each arm on each noise, the same noisy images for all; figures are of the images clipped to [0, 1]."""
    rows = []
    for noise in noises:
        given = {name: noisy(image, noise, seed) for seed, (name, image) in enumerate(images.items())}
        small = next(iter(given.values()))[:SIDE, :SIDE]
        for arm, restore in arms.items():
            scores = []
            for name, image in images.items():
                sigma = float((given[name] - image).std())
                restored = restore(given[name], sigma).clip(0, 1)
                scores.append((psnr(restored, image), _ssim(restored, image)))
            mean = np.mean(scores, axis=0)
            each = tuple(score[0] for score in scores)
            rows.append(Row(str(noise), arm, float(mean[0]), float(mean[1]), _milliseconds(restore, small), each))
    return rows


def read_errors(
    texts: Iterable[str], noises: Iterable[Noise], arms: Mapping[str, Restore], font_size: int = 12
) -> dict[tuple[str, str], float]:
    """(noise, arm) -> the part of characters that the OCR engine gets wrong on the first page of each text."""
    renderer = TextRenderer(font_size=font_size)
    pages = [renderer.render_pages(text)[0] for text in texts]
    written = [renderer.decode(page[None]) for page in pages]
    rates = {}
    for noise in noises:
        given = [noisy(page.astype(np.float32) / 255, noise, seed) for seed, page in enumerate(pages)]
        for arm, restore in arms.items():
            wrong = np.zeros(2, np.int64)
            for page, image, text in zip(pages, given, written, strict=True):
                restored = restore(image, float((image - page / 255).std())).clip(0, 1)
                read = read_page((255 * restored).round().astype(np.uint8), renderer.atlas.cell[1], renderer.top)
                wrong += character_errors(text, read)
            rates[str(noise), arm] = float(wrong[0] / wrong[1])
    return rates


def clean_psnr(
    images: Mapping[str, Mapping[str, np.ndarray]], arms: Mapping[str, Restore]
) -> dict[str, dict[str, float]]:
    """Kind of image -> arm -> the mean PSNR in dB of what it makes of images without any noise."""
    return {
        kind: {
            arm: float(np.mean([psnr(restore(x, 0.0).clip(0, 1), x) for x in some.values()]))
            for arm, restore in arms.items()
        }
        for kind, some in images.items()
    }


def panel(examples: Sequence[tuple[np.ndarray, Noise]], arms: Mapping[str, Restore]) -> tuple[np.ndarray, list[str]]:
    """A row an example: noisy, as each arm restores it, and the image. uint8 (n, h, w, 3), and a caption each."""
    images, captions = [], []
    for seed, (clean, noise) in enumerate(examples):
        given = noisy(clean, noise, seed)
        versions = {str(noise): given, **{name: restore(given, 0.0) for name, restore in arms.items()}}
        images += [*versions.values(), clean]
        captions += [f"{name}: {psnr(version.clip(0, 1), clean):.1f} dB" for name, version in versions.items()]
        captions.append("the image")
    return (255 * np.stack(images).clip(0, 1)).astype(np.uint8), captions


def record(path: Path, **figures: Any) -> None:
    """Write figures as JSON, with dataclasses as objects. Raises ValueError where one is NaN or infinite."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, (json.dumps(figures, indent=1, default=asdict, allow_nan=False) + "\n").encode())


def psnr(restored: np.ndarray, image: np.ndarray) -> float:
    """In dB, for values in [0, 1]; infinite where nothing differs."""
    error = float(np.square(restored.astype(np.float64) - image).mean())
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def _ssim(restored: np.ndarray, image: np.ndarray) -> float:
    from skimage.metrics import structural_similarity

    return float(structural_similarity(restored, image, channel_axis=2, data_range=1.0))  # type: ignore[no-untyped-call]


def _median(x: np.ndarray, sigma: float) -> np.ndarray:
    from scipy.ndimage import median_filter

    filtered: np.ndarray = median_filter(x, size=(3, 3, 1))
    return filtered


def _nlm(x: np.ndarray, sigma: float) -> np.ndarray:
    from skimage.restoration import denoise_nl_means

    settings: dict[str, Any] = {"patch_size": 5, "patch_distance": 6, "h": 0.8 * sigma, "sigma": sigma}
    return np.asarray(denoise_nl_means(x, fast_mode=True, channel_axis=2, **settings), np.float32)


def _bm3d(x: np.ndarray, sigma: float) -> np.ndarray:
    from bm3d import bm3d_rgb

    if sigma < LEAST_NOISE:  # it divides by sigma, and a clean image has a few float32 roundings
        return x
    return np.asarray(bm3d_rgb(x, sigma), np.float32)


def noisy(image: np.ndarray, noise: Noise, seed: int) -> np.ndarray:
    """float32 (h, w, 3) in [0, 1] -> the same with noise, not clipped; it follows from the seed."""
    noisy = noise.add(as_tensor(image), torch.Generator().manual_seed(seed))
    return np.ascontiguousarray(noisy[0].permute(1, 2, 0).numpy())


def as_tensor(image: np.ndarray) -> Tensor:
    """float32 (h, w, 3) -> (1, 3, h, w)."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]


def _milliseconds(restore: Restore, image: np.ndarray, times: int = 3) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        restore(image, 0.1)
        taken.append(time.perf_counter() - start)
    return 1000 * min(taken)


def _needed(module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ModuleNotFoundError:
        raise UserError(f"{module} is needed to compare denoisers: pip install 'trm-nb[study]'") from None
