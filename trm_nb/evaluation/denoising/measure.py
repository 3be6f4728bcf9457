"""What can still be recognised on noisy images once they went through a denoiser, the image cache and the encoder.

Every arm gets the same noisy images, caches them as a run does, and encodes them. The images differ in their kind of
noise, which is what adapting to each image is made for. Asked are the labels (the nearest neighbour of another item, a
linear probe, a TRM that is trained on the arm's own capsules) and the characters of text pages (in the cached image,
and in the image that the decoder makes of the capsules).
Choice: one page of each item, so that items are independent. The TRM of seed s holds out fold s of five, so five seeds
ask each image once. What one arm scored with one seed is a file of its own: an interrupted study goes on there.
Cost for 100 images on one thread: 1 s without a denoiser, 6 to 13 s with `base`, 11 to 22 s with `large`, 20 to 40 s
with SEAL; 60 steps of a TRM take 3 to 5 s.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trm_nb.cache.image_cache import ImageCache
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.denoise import SHIPPED, checkpoint_of
from trm_nb.denoise.benchmark import noisy
from trm_nb.denoise.noise import Noise
from trm_nb.denoise.ocr import character_errors
from trm_nb.errors import UserError
from trm_nb.evaluation.fidelity_study.arms import encoded, stored
from trm_nb.evaluation.fidelity_study.content import Glyphs, Shown
from trm_nb.evaluation.fidelity_study.meaning import nearest, ridge
from trm_nb.evaluation.fidelity_study.reading import Reading
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel
from trm_nb.models.vision_encoder import TRMVisionEncoder
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import Item
from trm_nb.render.renderer import Renderer
from trm_nb.sources.reader import scan
from trm_nb.storage.files import write_file
from trm_nb.training.objective import BRIEF
from trm_nb.training.targets import Targets, model_of_capsules
from trm_nb.training.train_objective import HEAD_WIDTH, train_objective

FOLDS = 5
CLEAN, NONE, BASE, SEAL, LARGE = "clean", "none", "base", "SEAL", "large"
NEIGHBOUR, PROBE, TRM = "nearest neighbour", "linear probe", "TRM"
DECODE, GLYPH, CAPSULES = "TextRenderer.decode", "nearest glyph", "capsules"
LABELS, CHARACTERS = (NEIGHBOUR, PROBE, TRM), (DECODE, GLYPH, CAPSULES)
VERSION = 1  # of what a file of scores holds


@dataclass(frozen=True, eq=False)
class Content:
    """Clean images with what is asked about them.

    `images` uint8 (n, 224, 224, 3), one of each item; `labels` int64 (n,), an index into `classes`; `pages` are those
    of text by the image's place, `glyphs` uint8 (g, 14, 7) all that stand on them.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    pages: Mapping[int, Shown]
    glyphs: np.ndarray

    @property
    def folds(self) -> np.ndarray:
        """int64 (n,): which of FOLDS parts an image belongs to; each label is spread evenly over them."""
        folds, rng = np.empty(len(self.labels), np.int64), np.random.default_rng(0)
        for label in range(len(self.classes)):
            places = np.flatnonzero(self.labels == label)
            folds[rng.permutation(places)] = np.arange(len(places)) % FOLDS
        return folds


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What one arm has right by one measure: of each image int64 (m,) its number, the right answers, all answers.

    A label is one answer, a page has as many as characters. `image` holds the items.
    """

    image: np.ndarray
    right: np.ndarray
    asked: np.ndarray


def content_of(config: MultimodalDatasetConfig) -> Content:
    """The first page of each item of a config's sources (`limit` of each source) that has a label.

    Raises:
        UserError: where there are fewer than two labels.
    """
    renderer, glyphs = Renderer(), Glyphs()
    images: list[np.ndarray] = []
    labels: list[str] = []
    pages: dict[int, Shown] = {}
    for item in (entry for reading in scan(config) for entry in reading.entries):
        if not isinstance(item, Item) or item.label is None:
            continue
        if isinstance(item.payload, str):
            pages[len(images)] = glyphs.shown("text", item.item_id, glyphs.renderer.pages(item.payload)[0])
            images.append(pages[len(images)].image)
        else:
            images.append(renderer.rasterise(renderer.samples(item)[:1])[0][0])
        labels.append(item.label)
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise UserError(
            f"source_paths: expected items of two labels or more, got {len(classes)}; give a folder for each"
        )
    numbers = np.array([classes.index(label) for label in labels])
    return Content(np.stack(images), numbers, classes, pages, glyphs.table())


def noise_of(count: int, noises: Sequence[Noise], seed: int) -> list[Noise]:
    """The noise of each of `count` images: the kinds take turns, beginning with another one for another seed."""
    return [noises[(number + seed) % len(noises)] for number in range(count)]


def with_noise(images: np.ndarray, noises: Sequence[Noise], seed: int) -> np.ndarray:
    """uint8 (n, h, w, 3) with the noise of `noise_of`, as files hold them; all of it follows from the seed."""
    found = np.empty_like(images)
    for number, (image, noise) in enumerate(zip(images, noise_of(len(images), noises, seed), strict=True)):
        given = noisy(image.astype(np.float32) / 255, noise, seed * len(images) + number)
        found[number] = (255 * given.clip(0, 1)).round()
    return found


def checkpoints(work: Path) -> dict[str, Path | None]:
    """Each arm's denoiser: none, `base` without its policy (a copy in `work`), with its policy (SEAL), and `large`."""
    plain = work / BASE / SHIPPED["base"].name
    plain.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(SHIPPED["base"], plain)
    return {NONE: None, BASE: plain, SEAL: checkpoint_of(None, "base"), LARGE: checkpoint_of(None, "large")}


def cached(images: np.ndarray, denoiser: Path | None, folder: Path) -> np.ndarray:
    """Images as they come out of the image cache: uint8 (n, 224, 224, 3)."""
    with closing(ImageCache(folder, use_denoiser=denoiser is not None, denoiser_path=denoiser, workers=0)) as cache:
        report = cache.populate(images)
        if report.failed:
            raise UserError(f"{folder}: {len(report.failed)} images failed: {next(iter(report.failed.values()))}")
        return cache.get_many(report.keys)


class _Labels(Targets):
    """The labels of capsules in memory; fold `seed` is held out, and nothing is chosen by validation."""

    def __init__(self, capsules: np.ndarray, content: Content, seed: int, width: int) -> None:
        self.capsules = capsules
        splits = np.where(content.folds == seed % FOLDS, "test", "train")
        name = hashlib.sha256(capsules.tobytes()).hexdigest()
        sizes = {"hidden_size": width, "num_heads": width // HEAD_WIDTH, **BRIEF}
        rows, grids = np.arange(len(capsules)), list(content.labels[:, None, None])
        super().__init__(grids, splits.tolist(), rows, name, Path("the study"), **sizes)

    def new_model(self, generator: torch.Generator) -> TinyRecursiveModel:
        return model_of_capsules(self.model, self.capsules, self.train, generator)

    def _inputs(self, chosen: np.ndarray) -> dict[str, Tensor]:
        return {"capsules": torch.from_numpy(self.capsules[chosen])}


def scores_of(
    images: np.ndarray, content: Content, encoder: TRMVisionEncoder, config: MultimodalDatasetConfig, seed: int
) -> dict[str, Scores]:
    """What an arm's cached images are worth, by measure; `config` says how a TRM is trained.

    `capsules` is only among the measures where the encoder has a decoder.
    """
    capsules, everything = stored(encoded(encoder, images), 16), np.arange(len(images))
    vectors = capsules.reshape(len(capsules), -1)
    found = {
        NEIGHBOUR: _labels(everything, nearest(vectors, content.labels, everything) == content.labels),
        PROBE: _labels(everything, ridge(vectors, content.labels, everything) == content.labels),
    }
    examples = _Labels(capsules, content, seed, config.train_width)
    with tempfile.TemporaryDirectory() as name, closing(TrainingProgressTracker(name, create=True)) as tracker:
        predictions = train_objective(Path(name), examples, config.with_changes(train_seed=seed), tracker)
    found[TRM] = _labels(predictions.rows, predictions.exact[-1])
    if not content.pages:
        return found
    found |= {DECODE: _decoded(images, content), GLYPH: _read(images, content)}
    if encoder.has_decoder:
        shown = {place: encoder.decode(capsules[place : place + 1])[0] for place in content.pages}
        found[CAPSULES] = _read(shown, content)
    return found


def _labels(image: np.ndarray, right: np.ndarray) -> Scores:
    return Scores(image, right.astype(np.int64), np.ones(len(image), np.int64))


def _read(images: np.ndarray | Mapping[int, np.ndarray], content: Content) -> Scores:
    """The characters of each page whose nearest glyph, of all that the pages have, is their own."""
    reading = Reading(content.glyphs)
    found = [reading.right(images[place].astype(np.float32) / 127.5 - 1, page) for place, page in content.pages.items()]
    right, asked = ([int(count(one)) for one in found] for count in (np.sum, len))
    return Scores(np.array(list(content.pages)), np.array(right), np.array(asked))


def _decoded(images: np.ndarray, content: Content) -> Scores:
    """The characters of each page that `TextRenderer.decode` reads, which knows exact pixels only."""
    renderer, counts = Glyphs().renderer, []
    for place, page in content.pages.items():
        wrong, asked = character_errors(renderer.decode(page.image), renderer.decode(images[place]))
        counts.append((max(0, asked - wrong), asked))
    right, asked_ = np.array(counts).T
    return Scores(np.array(list(content.pages)), right, asked_)


def kept_scores(
    work: Path,
    content: Content,
    encoder: TRMVisionEncoder,
    config: MultimodalDatasetConfig,
    arm: str,
    noises: Sequence[Noise],
    seed: int,
) -> dict[str, Scores]:
    """`scores_of` an arm with a seed, kept in a file of `work`; the images are kept in its `images.zarr`.

    Args:
        arm: one of `checkpoints`, or CLEAN: the images without noise and without a denoiser.
        noises: the kinds that take turns; not used by CLEAN.
        seed: of the noise, and of the TRM's training.
    """
    denoiser = None if arm == CLEAN else checkpoints(work)[arm]
    asked = [VERSION, arm, seed, [] if arm == CLEAN else [asdict(noise) for noise in noises], encoder.fingerprint]
    asked += [config.training_fields(), config.train_steps]
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode() + content.images.tobytes())
    digest.update(content.labels.tobytes() + (denoiser.read_bytes() if denoiser else b""))
    path = work / "scores" / f"{arm}-{seed}-{digest.hexdigest()[:16]}.json"
    if not path.is_file():
        given = content.images if arm == CLEAN else with_noise(content.images, noises, seed)
        found = scores_of(cached(given, denoiser, work / "images.zarr"), content, encoder, config, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = {name: {part: values.tolist() for part, values in _parts(of)} for name, of in found.items()}
        write_file(path, json.dumps(plain).encode())
    held = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: Scores(**{part: np.array(values, np.int64) for part, values in of.items()}) for name, of in held.items()
    }


def _parts(scores: Scores) -> list[tuple[str, np.ndarray]]:
    return [("image", scores.image), ("right", scores.right), ("asked", scores.asked)]
