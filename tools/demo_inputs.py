"""Make the demo's noisy images and Sudokus, the same bytes every time; tools/collect_demo.py calls this.

A page of prose gets the noise of a scanner, and a small photograph that of a camera in poor light (denoise/noise.py),
so that the denoiser has something to restore. They have the size of the model's images, so that nothing averages their
noise away. There are as many Sudokus of each difficulty, from a seed that no training used: the shipped solver has not
met them.
"""

from __future__ import annotations

import csv
import io
from typing import get_args

import numpy as np
import torch
from PIL import Image

from trm_nb.denoise.noise import Noise, as_file
from trm_nb.render.text import TextRenderer
from trm_nb.sources.puzzles.sudoku import Difficulty, difficulty, sudokus

SIDE = 224
SCANS = {"ps23": Noise("scanner", 1.5), "1co13": Noise("scanner", 1), "re21": Noise("scanner", 2)}  # chapters
CAMERA = {"solar3": Noise("gaussian", 35), "fish3": Noise("gaussian", 50), "bucket": Noise("poisson", 12)}
QUALITY = 90
EACH, SEED = 20, 2027  # Sudokus of a difficulty, and their seed; the shipped solver was trained on those of seed 7


def scan(text: str, noise: Noise, seed: int) -> bytes:
    """The first page of a text as if scanned: JPEG."""
    return _noisy(TextRenderer().render_pages(text)[0], noise, seed)


def poor_light(photograph: Image.Image, noise: Noise, seed: int) -> bytes:
    """A photograph with a longer side of SIDE pixels and noise: JPEG."""
    scale = SIDE / max(photograph.size)
    width, height = (max(1, round(length * scale)) for length in photograph.size)
    return _noisy(np.asarray(photograph.resize((width, height), Image.Resampling.LANCZOS)), noise, seed)


def _noisy(image: np.ndarray, noise: Noise, seed: int) -> bytes:
    clean = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    pixels = 255 * as_file(noise.add(clean, torch.Generator().manual_seed(seed)))
    data = io.BytesIO()
    made = Image.fromarray(pixels[0].permute(1, 2, 0).byte().numpy())
    made.save(data, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return data.getvalue()


def boards() -> str:
    """A table of Sudokus: puzzle, solution, difficulty."""
    found: dict[Difficulty, list[tuple[str, str]]] = {level: [] for level in get_args(Difficulty)}
    for made in sudokus(9, SEED):
        level = difficulty(made.puzzle)
        if len(found[level]) < EACH and made.solution is not None:
            found[level].append((_digits(made.puzzle), _digits(made.solution)))
        if all(len(some) == EACH for some in found.values()):
            break
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["puzzle", "solution", "difficulty"])
    for number in range(EACH):  # the difficulties in turn
        table.writerows([*found[level][number], level] for level in found)
    return text.getvalue()


def _digits(board: np.ndarray) -> str:
    return "".join(map(str, board.ravel().tolist()))
