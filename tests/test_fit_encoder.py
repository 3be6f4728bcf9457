"""An encoder fitted to a run's own images: it learns, it is what encodes, and a kill changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from trm_nb import CapsuleDataset, build
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError
from trm_nb.models.vision_encoder import TRMVisionEncoder
from trm_nb.pipeline.dataset_files import samples_table
from trm_nb.pipeline.run import Run
from trm_nb.training.encoder import ImageTargets, ImageTRM


def config(folder: Path, **changes: object) -> MultimodalDatasetConfig:
    fields = {
        "encoder": "tiny",
        "encoder_precision": "float32",
        "workers": 0,
        "batch_size": 16,
        "image_size": 112,
        "torch_threads": 1,
    }
    fields |= {"fit_encoder": "targets", "fit_steps": 12, "fit_batch_size": 4, "source_paths": ["sudoku:4:40"]}
    return MultimodalDatasetConfig.parse({**fields, "output_dir": str(folder), **changes}, "the test")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted") / "a run"
    build(config(folder))
    return folder


def test_the_fitted_encoder_is_what_the_capsules_come_from(fitted: Path) -> None:
    run = Run(config(fitted))
    encoder, untrained = run.encoder, TRMVisionEncoder("tiny", image_size=112)
    dataset, keys = CapsuleDataset(fitted), run.samples()["key"].tolist()
    assert encoder.trained and encoder.fingerprint != untrained.fingerprint
    assert dataset.info["encoder"]["fingerprint"] == encoder.fingerprint and dataset.info["encoder"]["trained"]
    with torch.inference_mode():
        capsules = encoder(torch.from_numpy(run.cache.get_many(keys[:16])))
    assert np.allclose(dataset.capsules(range(16)), capsules, atol=2e-2)
    stage, curve = run.tracker.get_stats()["stages"]["fit"], run.tracker.training_curve("fit")
    run.close()
    assert (stage["status"], stage["done"], stage["total"]) == ("done", 12, 12)
    assert curve[-1]["global_step"] == 12 and np.isfinite(curve[-1]["loss"])


def test_run_again_it_is_not_fitted_again(fitted: Path) -> None:
    path = fitted / "encoder" / "encoder.pt"
    before = path.stat().st_mtime_ns
    run = Run(config(fitted))
    assert run.up_to("fit") == 0 and run.up_to("export") == 0
    run.close()
    assert path.stat().st_mtime_ns == before
    with pytest.raises(UserError, match="fit_steps"):
        build(config(fitted, fit_steps=13))


@pytest.mark.parametrize("lost", ["encoder.pt", "encoder.pt and training.pt"])
def test_a_lost_encoder_is_made_again_and_is_the_same(fitted: Path, lost: str) -> None:
    digest, folder = CapsuleDataset(fitted).info["content_digest"], fitted / "encoder"
    weights = (folder / "encoder.pt").read_bytes()
    for name in lost.split(" and "):
        (folder / name).unlink()
    (fitted / "capsules.zarr" / "capsules" / "c" / "0" / "0" / "0").unlink()
    assert build(config(fitted)).content_digest == digest
    assert (folder / "encoder.pt").read_bytes() == weights


@pytest.mark.slow
def test_killed_while_it_learns_the_dataset_is_the_same(fitted: Path, tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nfrom test_fit_encoder import config\nfrom trm_nb import build\n"
        "build(config(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    killed = subprocess.run(command, env=os.environ | {"TRM_NB_FAULT": "train-step:7"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    subprocess.run(command, check=True, capture_output=True)
    expected = CapsuleDataset(fitted).info["content_digest"]
    assert CapsuleDataset(tmp_path / "run").info["content_digest"] == expected


def test_the_gradient_of_an_answer_reaches_every_weight_of_the_encoder(fitted: Path) -> None:
    run = Run(config(fitted))
    examples = ImageTargets(
        samples_table(run.tracker, run.cache.denoise_results),
        run.cache,
        TRMVisionEncoder("tiny", image_size=112),
        run.path,
    )
    pair = examples.new_model(torch.Generator().manual_seed(0))
    batch = examples.train_batch(0, 4, 0)
    run.close()
    assert isinstance(pair, ImageTRM) and batch["images"].dtype == torch.uint8
    _, outputs = pair(pair.initial_carry(batch), batch)
    outputs["logits"].square().sum().backward()
    assert [name for name, weight in pair.encoder.named_parameters() if weight.grad is None] == []


def test_without_answers_there_is_nothing_to_fit_to(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("nothing to solve")
    with pytest.raises(UserError, match="has 0 samples to learn from and 0 to measure on"):
        build(config(tmp_path / "run", source_paths=[str(tmp_path / "text")]))
