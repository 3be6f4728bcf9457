"""An existing run is opened by its folder alone: its own settings, whatever the params file of the notebook says."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from trm_nb import CapsuleDataset, StreamingEncoderBuilder, TrainingProgressTracker, build
from trm_nb import open_run as open_run_of
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError
from trm_nb.notebook import open_run
from trm_nb.notebook.sampling import CLEARED, images_of
from trm_nb.pipeline.verify import verify
from trm_nb.records import IN_MEMORY

ROOT = Path(__file__).parents[1]
TINY = {"encoder": "tiny", "batch_size": 6, "batches_per_chunk": 2, "workers": 0, "torch_threads": 1, "font_size": 8}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose demo.yaml suits none of its runs, and a finished run of own.yaml; its sources are gone."""
    root = tmp_path_factory.mktemp("a project")
    for name in ("notebooks", "params", "data/a", "data/b"):
        (root / name).mkdir(parents=True)
    for number in range(8):
        (root / "data" / "ab"[number % 2] / f"{number}.txt").write_text(f"text {number}\n" * (1 + number))
    own = {"source_paths": ["data"], "output_dir": "outputs/own", "train_steps": 2, "train_width": 64, **TINY}
    (root / "params" / "own.yaml").write_text(json.dumps(own))
    (root / "params" / "demo.yaml").write_text(json.dumps({"source_paths": ["other"], "output_dir": "outputs/demo"}))
    values = {**own, "source_paths": [str(root / "data")], "output_dir": str(root / "outputs/own")}
    build(MultimodalDatasetConfig(**values))  # type: ignore[arg-type]
    (root / "data").rename(root / "put away")
    return root


@pytest.fixture
def here(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that project at another place; the kernel starts in its notebooks."""
    root = Path(shutil.copytree(project, tmp_path / "moved"))
    monkeypatch.chdir(root / "notebooks")
    return root


def demo(**fields: Any) -> Any:
    """What a notebook calls with its default params file."""
    return open_run(params="params/demo.yaml", **fields)


def test_a_moved_run_without_its_sources_needs_its_folder_alone(here: Path) -> None:
    run = demo(output_dir="outputs/own")
    assert run.path == here / "outputs/own"
    for name, value in {**TINY, "train_steps": 2, "train_width": 64}.items():
        assert getattr(run.config, name) == value
    run.complete()
    assert (run.up_to("render"), run.up_to("encode"), run.up_to("consolidate")) == (0, 0, 0)
    assert run.train().predictions.labels.shape[1:] == (1,)
    assert verify(run.path, deep=True) == []
    run.close()
    again = open_run_of(output_dir=here / "outputs/own")  # in a program
    again.complete()
    again.close()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"batch_size": 7}, "made with batch_size=6, not batch_size=7"),
        ({"seed": 1}, "made with seed=0, not seed=1"),
        ({"batch_size": 6, "train_steps": 4}, ""),
    ],
)
def test_what_the_user_sets_is_compared(here: Path, fields: dict[str, Any], said: str) -> None:
    run = demo(output_dir="outputs/own", **fields)
    try:
        if not said:
            run.complete()
            assert run.config.train_steps == 4
            return
        with pytest.raises(UserError, match=said):
            run.complete()
    finally:
        run.close()


def test_named_sources_must_be_there(here: Path) -> None:
    run = demo(output_dir="outputs/own", source_paths=[str(here.parent / "data")])
    with pytest.raises(UserError, match="made with source_paths"):
        run.complete()
    run.close()


def test_the_params_file_of_a_run_serves_for_what_is_not_fixed(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = here / "params" / "own.yaml"
    path.write_text(json.dumps({**json.loads(path.read_text()), "train_steps": 9, "seed": 3, "learning_rate": 0.5}))
    with caplog.at_level(logging.WARNING):
        run = open_run(params="params/own.yaml", output_dir="outputs/own")
    assert (run.config.train_steps, run.config.seed, run.config.learning_rate) == (9, 0, 0.001)
    assert "was made with seed=0, source_paths=" in caplog.text and "learning_rate=0.001, and not" in caplog.text
    run.complete()  # a finished dataset needs no sources
    with pytest.raises(UserError, match=r"source path .* does not exist"):
        run.up_to("encode")  # but the stages of a run that is not opened by its folder do
    run.close()
    shutil.rmtree(run.paths.model("main").root)  # train again, in another way
    assert open_run(params="params/own.yaml").config.learning_rate == 0.5
    assert open_run(params="params/own.yaml").config.encoder == "tiny"


def test_an_unfinished_run_goes_on_with_its_own_settings(here: Path) -> None:
    (here / "put away").rename(here / "data")
    begun = open_run(params="params/own.yaml", output_dir="outputs/begun")
    begun.up_to("render")
    begun.close()
    run = demo(output_dir="outputs/begun")
    run.complete()
    assert (run.config.batch_size, run.config.encoder, len(CapsuleDataset(run.path))) == (6, "tiny", 8)
    (here / "data" / "a" / "new.txt").write_text("new")
    run.complete()  # a finished dataset does not follow its sources
    run.tracker.drop(chunks=[0])
    with pytest.raises(UserError, match=r"the sources changed .*new\.txt added"):
        run.complete()
    run.close()


def test_without_a_run_the_params_file_serves(here: Path) -> None:
    assert demo(output_dir="outputs/new").config.batch_size == 1000
    with pytest.raises(UserError, match="params file not found"):
        open_run(params="params/none.yaml", output_dir="outputs/new")
    assert open_run(params="params/none.yaml", output_dir="outputs/own").config.batch_size == 6


def test_an_older_run_is_known_by_its_dataset_info(here: Path) -> None:
    with TrainingProgressTracker(here / "outputs/own").transaction() as db:
        db.execute("DELETE FROM meta WHERE name = 'settings'")
    assert demo(output_dir="outputs/own").config.train_steps == 2


def test_a_run_of_samples_in_memory(tmp_path: Path) -> None:
    from trm_nb.models.vision_encoder import TRMVisionEncoder

    builder = StreamingEncoderBuilder(tmp_path / "run", 6, seed=3, workers=0, encoder=TRMVisionEncoder("tiny"))
    builder.stream_build([f"text {n}" for n in range(8)])
    run = open_run_of(output_dir=tmp_path / "run")
    run.complete()
    assert (run.config.source_paths, run.config.seed, run.config.batch_size) == ([IN_MEMORY], 3, 6)
    assert run.up_to("encode") == 0
    with pytest.raises(UserError, match="made of samples in memory"):
        list(run.items())
    run.close()


def test_cleared_images_are_gray_and_never_measured(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = demo(output_dir="outputs/own")
    samples = run.samples().head(2)
    assert (images_of(run, samples) != CLEARED).any()
    run.cache.clear()
    run.complete()
    with caplog.at_level(logging.WARNING):
        assert (images_of(run, samples) == CLEARED).all()
    assert "2 of 2 images were cleared" in caplog.text
    with pytest.raises(UserError, match="measured here"):
        images_of(run, samples, measured=True)
    run.close()


@pytest.mark.slow  # kernels
def test_notebooks_open_a_finished_run_through_papermill(here: Path, tmp_path: Path) -> None:
    for name in ("05_inspect", "06_train"):
        command = ["papermill", str(ROOT / "notebooks" / f"{name}.ipynb"), f"{name}.ipynb", "--no-progress-bar"]
        command += ["-p", "output_dir", "outputs/own", "--cwd", str(here)]
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=here, capture_output=True, text=True, timeout=600, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        cells = nbformat.read(here / f"{name}.ipynb", as_version=4).cells
        assert not [o for cell in cells for o in cell.get("outputs", []) if o.get("name") == "stderr"], "no complaints"
