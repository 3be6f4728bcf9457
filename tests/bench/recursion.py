"""What does the encoder's recursion contribute? Pre-training with it, without it, with one call and with two cycles.

    python tests/bench/recursion.py FOLDER TEXTS PHOTOGRAPHS    (--help has the options)

TEXTS and PHOTOGRAPHS are those of `trm_nb.training.pretrain`. All arms start from the same weights, with principal
components in the stem, and see the same batches in the same order, so only what happens between stem and read-out
differs. At the end each reads the same held-out images; intervals are from a bootstrap over pages, photographs and
tasks, paired with the arm that ships. There is one training for each arm, so they do not cover the choice of the seed.
The weights that ship are read too, with each recursion in place of the one that they were trained with.

On a CPU one thread trains, and a step's time is its median in processor time, so that other work on the machine counts
little. An arm that is done is kept in FOLDER; several processes may train different arms side by side (--arms). Copy
the tables into the log.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trm_nb import TRMVisionEncoder
from trm_nb.denoise.policy_benchmark import bootstrap
from trm_nb.models import vision_encoder
from trm_nb.models.decoding.capsule_decoder import shipped_decoder
from trm_nb.models.hardware import fast_in_bfloat16
from trm_nb.models.trm import recurse
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.training.pretraining.content import Content
from trm_nb.training.pretraining.loop import pretrain
from trm_nb.training.pretraining.material import Material, load_material
from trm_nb.training.pretraining.measure import Measure
from trm_nb.training.pretraining.state import Model, Settings

POINTS = 4  # of the learning curve
Recursion = Callable[..., tuple[Tensor, Tensor]]
Results = dict[str, tuple[np.ndarray, np.ndarray]]  # see Measure.results


def no_recursion(net: Callable[..., Tensor], z_H: Tensor, z_L: Tensor, x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    """The read-out is given what the stem found and nothing else."""
    return torch.zeros_like(x), z_L


def one_call(
    net: Callable[..., Tensor], z_H: Tensor, z_L: Tensor, x: Tensor, H: int, L: int, angles: Tensor
) -> tuple[Tensor, Tensor]:
    """As many weights as the recursion has, each used once: a plain network."""
    return net(z_L + (z_H + x), angles), z_L


def twice(
    net: Callable[..., Tensor], z_H: Tensor, z_L: Tensor, x: Tensor, H: int, L: int, angles: Tensor
) -> tuple[Tensor, Tensor]:
    """Twice as many cycles; the last one carries the gradient."""
    return recurse(net, z_H, z_L, x, 2 * H, L, angles)


SHIPPED = "one cycle"
ARMS: dict[str, Recursion] = {SHIPPED: recurse, "no recursion": no_recursion, "two cycles": twice, "one call": one_call}
COLUMNS = {
    "text": "text", "random": "random characters", "grid": "ARC grids", "random_grid": "random grids", "task": "tasks",
    "photograph_psnr": "photographs", "neighbours": "same task",
}  # fmt: skip


def main() -> None:
    """Train the arms that are not done yet, and print the tables of all that are."""
    given = arguments()
    every = max(1, given.steps // POINTS // 5)
    settings = Settings(
        steps=given.steps, batch=given.batch, device=given.device, workers=given.workers, torch_threads=1,
        log_every=every, measure_every=5 * every, bfloat16=fast_in_bfloat16(given.device),
    )  # fmt: skip
    sides = load_material(given.texts, given.photographs)
    folders = {arm: given.folder / arm.replace(" ", "-") for arm in ARMS}
    for arm in given.arms:
        train(folders[arm], arm, sides, settings)
    torch.set_num_threads(1)
    measure = Measure(Content(sides[1]), given.measured)
    trained = {arm: path for arm, path in folders.items() if (path / "seconds.txt").is_file()}
    print(f"{given.steps} steps of {len(Content(sides[0]).batch(0, 0, given.batch).images)} images")
    for arm, path in trained.items():
        print(f"\n{arm}: {1000 * float((path / 'seconds.txt').read_text()):.0f} ms a step\n")
        with closing(TrainingProgressTracker(path)) as tracker:
            curve = [row for row in tracker.training_curve() if "text" in row]
        print(table({f"{row['global_step']:,}": {name: row[name] for name in COLUMNS} for row in curve}))
    print("\nat the end\n")
    print(compared({arm: results_of(path, arm, settings, measure) for arm, path in trained.items()}))
    print("\nthe weights that ship\n")
    print(compared({arm: results_of(None, arm, settings, measure) for arm in ARMS}))


def arguments() -> argparse.Namespace:
    """Those of the command line."""
    parser = argparse.ArgumentParser(description="What does the encoder's recursion contribute?")
    parser.add_argument("folder", type=Path, help="of the trainings; what is done is kept")
    parser.add_argument("texts", type=Path, help="of tools/collect_texts.py")
    parser.add_argument("photographs", type=Path, help="of tools/collect_photographs.py")
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS), help="that are trained here")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=24, help="about how many images a step")
    parser.add_argument("--measured", type=int, default=100, help="held-out images of each kind")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare batches, for a GPU about 12")
    return parser.parse_args()


def train(folder: Path, arm: str, sides: tuple[Material, Material], settings: Settings) -> None:
    """Train an arm; `seconds.txt` says how much processor time a step took, and that it is done."""
    if (folder / "seconds.txt").is_file():
        return
    clock = time.process_time if settings.device == "cpu" else time.perf_counter
    times = [clock()]
    with recursion(arm):
        pretrain(folder, *sides, settings, lambda: times.append(clock()))
    (folder / "seconds.txt").write_text(str(statistics.median(np.diff(times))))


@contextmanager
def recursion(arm: str) -> Iterator[None]:
    """Encoders do what the arm does instead of the recursion, in this process."""
    vision_encoder.recurse = ARMS[arm]  # type: ignore[assignment]
    try:
        yield
    finally:
        vision_encoder.recurse = recurse


def results_of(folder: Path | None, arm: str, settings: Settings, measure: Measure) -> Results:
    """What is held out, as the weights of a training read it by the arm's recursion; of None, the weights that ship."""
    with recursion(arm):
        model = Model(settings.preset, settings.seed)
        if folder is None:
            encoder: TRMVisionEncoder = TRMVisionEncoder(settings.preset)
            decoder = shipped_decoder(encoder.fingerprint)
        else:
            encoder = TRMVisionEncoder.load(folder / "encoder.safetensors")
            decoder = type(model.decoder).load(folder / "decoder.safetensors", encoder.fingerprint)
        models = (part.to(settings.device).eval() for part in (encoder, decoder, model.matching))
        return measure.results(*models)[0]


def compared(arms: dict[str, Results]) -> str:
    """A table of all arms, and the differences of the others from the one that ships, with their intervals."""
    rows = {arm: {name: values.mean() for name, (values, _) in results.items()} for arm, results in arms.items()}
    lines = [table(rows), ""]
    for arm in (arm for arm in arms if arm != SHIPPED and SHIPPED in arms):
        cells = [shown(name, *difference(arms[arm][name], arms[SHIPPED][name])) for name in COLUMNS]
        lines.append(f"| {arm} less {SHIPPED} | {' | '.join(cells)} |")
    return "\n".join(lines)


def difference(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> tuple[float, float, float]:
    """The mean difference of the same results of two arms, and its interval (95 %) over items."""
    differences = one[0].astype(float) - other[0]
    return float(differences.mean()), *bootstrap(differences[None], one[1])


def table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown."""
    head = f"| | {' | '.join(COLUMNS.values())} |\n|---|{'---|' * len(COLUMNS)}"
    return "\n".join(
        [head, *(f"| {name} | {' | '.join(shown(n, row[n]) for n in COLUMNS)} |" for name, row in rows.items())]
    )


def shown(name: str, value: float, *interval: float) -> str:
    """In dB or percent, a difference with its sign and interval."""
    sign, scale, unit = "+" if interval else "", *((1, "dB") if name == "photograph_psnr" else (100, "%"))
    digits = f"{sign}.{2 if unit == 'dB' else 1}f"
    between = f" ({' to '.join(f'{scale * end:{digits}}' for end in interval)})" if interval else f" {unit}"
    return f"{scale * value:{digits}}{between}"


if __name__ == "__main__":
    main()
