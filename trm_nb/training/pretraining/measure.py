"""How well encoder and decoder do on what is held out, in small samples: a curve to watch, not a result to report.

Reads the decoded images back: the nearest glyph of each cell of text, the nearest of the ten colours at the middle of
each cell of a grid, PSNR of photographs. It also finds the nearest neighbour of each of the first six grids of the ARC
evaluation tasks, which should be another grid of its task. Capsules are rounded to float16 first, as they are stored.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_nb.models.patches import scaled, unpatch
from trm_nb.models.read_out import GRID, WHOLE
from trm_nb.render.colours import pack
from trm_nb.render.grid import LINE, PALETTE
from trm_nb.training.pretraining.batch import Example
from trm_nb.training.pretraining.content import Content
from trm_nb.training.pretraining.losses import Matching, closeness, effective_rank, gray_cells
from trm_nb.training.pretraining.material import grids_of

GRIDS_OF_A_TASK = 6
AT_ONCE = 64  # images
SEED = 123


class Measure:
    """Held-out images, made once; call it with a model for its metrics.

    `count` images of each kind are read back; all tasks of the material give grids for the neighbours.
    """

    def __init__(self, content: Content, count: int = 40) -> None:
        rng = np.random.default_rng(SEED)
        self.photographs = len(content.material.photographs)
        self.pages = {
            "text": [content.text_pair(rng)[0] for _ in range(count)],
            "random": [content.random_page(rng) for _ in range(count)],
        }
        self.grids = {
            "grid": [content.grid_pair(rng, augment=False)[0] for _ in range(count)],
            "random_grid": [content.random_grid(rng) for _ in range(count)],
            "task": [content.task(rng, augment=False) for _ in range(count)],
        }
        self.crops = _images([content.crop(i % self.photographs, rng, flip=False) for i in range(count)])
        tasks = [grids[:GRIDS_OF_A_TASK] for grids in map(grids_of, content.material.tasks)]
        self.neighbours = _images([content.grid(grid) for grids in tasks for grid in grids])
        self.labels = np.array([number for number, grids in enumerate(tasks) for _ in grids])

    @torch.inference_mode()
    def __call__(self, encoder: nn.Module, decoder: nn.Module, matching: Matching) -> dict[str, float]:
        """Metrics on the device of the models.

        `text`, `random`: part of the cells that hold a character of the atlas and are read right. `grid`,
        `random_grid`, `task`: part of the cells; `grid_whole`: part of the grids without an error. `photograph_psnr` in
        dB. `neighbours`: part of the grids whose nearest neighbour, by all capsules, is of the same task;
        `neighbours_whole`, by capsules 10 and 11. `rank_whole`: effective rank of these.
        """
        results, capsules = self.results(encoder, decoder, matching)
        metrics = {name: values.mean() for name, (values, _) in results.items()}
        values, pages = results["grid"]
        metrics["grid_whole"] = (np.bincount(pages, ~values) == 0).mean()
        metrics["neighbours_whole"] = neighbours_right(capsules[:, WHOLE], self.labels).mean()
        metrics["rank_whole"] = effective_rank(capsules[:, WHOLE].flatten(1))
        return {name: float(value) for name, value in metrics.items()}

    @torch.inference_mode()
    def results(
        self, encoder: nn.Module, decoder: nn.Module, matching: Matching
    ) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], Tensor]:
        """What the metrics are means of, and the capsules of the grids whose neighbours are looked for.

        Returns:
            Metric -> values (n,) and items int (n,): whether each cell is right, with the number of its page; the PSNR
            of each crop, with the number of its photograph; whether the neighbour of each grid is right, with the
            number of its task. Capsules are float32 (grids, 12, 512), on the CPU.
        """
        device = str(matching.log_beta.device)
        encoded = _by_parts(lambda images: encoder(images).half().float(), device)
        decoded = _by_parts(lambda images: decoder(encoder(images).half().float()).float(), device)
        right = {name: text_right(decoded(_images(pages)), pages, matching) for name, pages in self.pages.items()}
        right |= {name: grids_right(decoded(_images(pages)), pages) for name, pages in self.grids.items()}
        results = {
            name: (np.concatenate(pages), np.repeat(np.arange(len(pages)), [len(page) for page in pages]))
            for name, pages in right.items()
        }
        error = (unpatch(decoded(self.crops), GRID) - scaled(self.crops)).square().mean((1, 2, 3)) / 4
        results["photograph_psnr"] = (-10 * error.log10()).numpy(), np.arange(len(error)) % self.photographs
        capsules = encoded(self.neighbours)
        results["neighbours"] = neighbours_right(capsules, self.labels), self.labels
        return results, capsules


def text_right(pixels: Tensor, pages: list[Example], matching: Matching) -> list[np.ndarray]:
    """For each page, bool (characters,): whether the nearest glyph, of those on these pages, has the same pixels."""
    cells = torch.from_numpy(np.stack([page.cells for page in pages if page.cells is not None]))
    counts = (cells >= 0) & (cells != matching.blank)
    present = torch.cat([torch.unique(cells[counts]), torch.tensor([matching.blank])])
    glyphs = matching.glyphs.cpu()
    candidates = glyphs[present]
    parts = torch.split(gray_cells(pixels)[counts], 4096)
    read = torch.cat([present[closeness(part, candidates).argmax(-1)] for part in parts])
    right = (glyphs[read] == glyphs[cells[counts]]).all(-1).numpy()
    return np.split(right, counts.sum(1).cumsum(0)[:-1].numpy())


def grids_right(pixels: Tensor, pages: list[Example]) -> list[np.ndarray]:
    """For each page, bool (cells,): whether the middle of the cell is nearest to the right one of the ten colours."""
    palette = scaled(torch.from_numpy(PALETTE))
    right = []
    for page, image in zip(pages, unpatch(pixels, GRID), strict=True):
        middle = cell_middles(page.image)
        wanted = (pack(page.image)[middle][:, None] == pack(PALETTE)).argmax(-1)
        right.append(closeness(image[torch.from_numpy(middle)], palette).argmax(-1).numpy() == wanted)
    return right


def cell_middles(image: np.ndarray) -> np.ndarray:
    """bool (h, w): a pixel in the middle of each cell of all grids of a page, uint8 (h, w, 3)."""
    line = pack(image) == pack(LINE)
    padded = np.pad(line, 1)
    corners = np.argwhere(line & ~padded[:-2, 1:-1] & ~padded[1:-1, :-2] & padded[2:, 1:-1] & padded[1:-1, 2:])
    middles = np.zeros(line.shape, bool)
    for y, x in corners.tolist():
        pitch = int(np.argmax(line[y + 1, x + 1 :])) + 1
        bottom, right = y + _run(line[y:, x]), x + _run(line[y, x:])
        first = 1 + (pitch - 2) // 2
        middles[y + first : bottom : pitch, x + first : right : pitch] = True
    return middles


def neighbours_right(capsules: Tensor, labels: np.ndarray) -> np.ndarray:
    """bool (n,): whether the nearest other row of (n, ...), by the cosine of what differs, has the same label."""
    flat = capsules.flatten(1)
    unit = F.normalize(flat - flat.mean(0), dim=1)
    alike = unit @ unit.T
    alike.fill_diagonal_(-2)
    return np.asarray(labels[alike.argmax(1).numpy()] == labels)


def _run(mask: np.ndarray) -> int:
    return len(mask) if mask.all() else int(np.argmin(mask))


def _images(examples: list[Example]) -> Tensor:
    return torch.from_numpy(np.stack([example.image for example in examples]))


def _by_parts(function: Callable[[Tensor], Tensor], device: str) -> Callable[[Tensor], Tensor]:
    """Apply a function to a few images at once, on the device; the result is on the CPU."""
    return lambda images: torch.cat([function(part.to(device)).cpu() for part in torch.split(images, AT_ONCE)])
