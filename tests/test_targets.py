"""Target grids of a run's samples: what is asked where, what is held out, and a training on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from runs import train_in as train

from trm_nb import CapsuleDataset, build
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.pipeline.dataset_files import samples_table
from trm_nb.pipeline.run import open_run
from trm_nb.training.encoder import ImageTargets
from trm_nb.training.objectives.grid import Grids
from trm_nb.training.predictions import evaluate
from trm_nb.training.state import ROW, Settings
from trm_nb.training.targets import _canvases

SMALL = {"hidden_size": 32, "num_heads": 2, "H_cycles": 1, "L_cycles": 2, "mlp_t": True, "halt_max_steps": 3}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty Sudokus, encoded by the trained encoder."""
    folder = tmp_path_factory.mktemp("sudoku") / "run"
    fields = {"encoder": "base", "workers": 0, "batch_size": 40, "image_size": 112}
    build(MultimodalDatasetConfig(source_paths=["sudoku:4:60"], output_dir=str(folder), **fields))  # type: ignore[arg-type]
    return folder


def test_each_sample_has_its_own_capsules_and_answer(run: Path) -> None:
    dataset = CapsuleDataset(run)
    examples = Grids(dataset, **SMALL)  # type: ignore[arg-type]
    assert examples.shape == (4, 4) and (examples.model.vocab_size, examples.model.seq_len) == (5, 16)
    seen = []
    for batch in (examples.train_batch(0, 8, 0), *examples.test_batches(8)):
        for row, capsules, labels in zip(batch[ROW].tolist(), batch["capsules"], batch["labels"], strict=True):
            place = int(dataset.rows.searchsorted(row))
            sample = dataset[place]
            assert torch.equal(capsules, sample["capsules"])
            assert torch.equal(labels, dataset.target(place)[0].flatten())
            seen.append(sample["row"])
    held_out = [int(row) for row, split in zip(dataset.rows, dataset.splits, strict=True) if split == "test"]
    assert seen[8:] == held_out and not set(seen[:8]) & set(held_out)


def test_a_model_learns_from_them_and_knows_their_scale(run: Path, tmp_path: Path) -> None:
    examples = Grids(CapsuleDataset(run), **SMALL)  # type: ignore[arg-type]
    settings = Settings(steps=150, batch=8, torch_threads=1, learning_rate=3e-3, warm_up=10, log_every=20)
    model = train(tmp_path, examples, settings).model
    scaled = (torch.from_numpy(examples.capsules[examples.train]).double() - model.mean) / model.scale
    assert scaled.mean().abs() < 1e-3 and 0.5 < float(scaled.std()) < 1
    answers = evaluate(model, examples, settings)
    chance = 1 / 4
    assert answers.cells[-1].mean() > chance + 0.1
    assert answers.predictions.shape == (len(examples.test), 16)


def test_a_task_on_several_pages_is_not_asked_on_one_of_them(tmp_path: Path) -> None:
    arc = Path(__file__).parents[1] / "trm_nb" / "assets" / "demo" / "arc"
    for path in sorted(arc.glob("?[0-9a-f]*.json"))[:20]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    fields = {"encoder": "tiny", "workers": 0, "test_fraction": 0.5}
    config = MultimodalDatasetConfig(source_paths=[str(tmp_path)], output_dir=str(tmp_path.parent / "arc"), **fields)  # type: ignore[arg-type]
    build(config)
    dataset = CapsuleDataset(config.output_dir)
    pages = pq.read_table(Path(config.output_dir) / "samples.parquet")["pages"].to_numpy()[dataset.rows]
    assert pages.max() > 1 and (dataset.target_count[pages > 1] == 1).any(), "there is such a task among them"
    asked = set(Grids(dataset, **SMALL).rows.tolist())  # type: ignore[arg-type]
    assert asked == set(dataset.rows[(pages == 1) & (dataset.target_count == 1)].tolist())
    run = open_run(output_dir=config.output_dir)
    table = samples_table(run.tracker, run.cache.denoise_results)
    assert set(ImageTargets(table, run.cache, run.encoder, run.path).rows.tolist()) == asked


def test_answers_of_several_sizes_are_laid_on_one_canvas() -> None:
    labels, shape = _canvases([np.array([[1, 2]]), np.array([[3], [0]])])
    assert shape == (2, 2)
    assert labels.tolist() == [[1, 2, 4, 4], [3, 4, 0, 4]]
