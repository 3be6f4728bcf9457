"""Other programs read what a run leaves: Hugging Face's `datasets`, and `safetensors` without this package."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import make_run

from trm_nb import CapsuleDataset, MultimodalDatasetConfig
from trm_nb.dataset.hugging_face import to_hugging_face
from trm_nb.errors import UserError
from trm_nb.models.checkpoints import read_weights
from trm_nb.progress.run_folder import RunPaths
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.training.state import KIND
from trm_nb.training.train_objective import examples_of, train_model

DOCUMENTED = (Path(__file__).parents[1] / "docs/how-to/share.md").read_text(encoding="utf-8")


def example(beginning: str) -> str:
    """The documented program with this line in it."""
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", DOCUMENTED, re.DOTALL) if beginning in block)
    return str(code)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """31 samples in batches of 8, one quarantined, some without a label."""
    folder = tmp_path / "run"
    labels: list[str | None] = [None if row % 5 == 0 else "ab"[row % 2] for row in range(31)]
    splits = ["test" if row % 4 == 0 else "train" for row in range(31)]
    make_run(folder, labels, splits, status=["quarantined" if row == 7 else "ok" for row in range(31)])
    return folder


@pytest.mark.parametrize("split", [None, "train"])
def test_hugging_face_reads_the_capsules_of_a_run(run: Path, tmp_path: Path, split: str | None) -> None:
    pytest.importorskip("datasets")
    dataset = CapsuleDataset(run, split)
    copy = to_hugging_face(dataset, tmp_path / "cache")
    capsules, labels = dataset.all()
    assert torch.equal(copy.with_format("torch")[:]["capsules"], capsules)
    assert copy["row"][:] == dataset.rows.tolist() and copy["sample_id"][:] == list(dataset.sample_ids)
    assert copy["label"][:] == labels.tolist() and copy.features["label"].names == list(dataset.classes)
    assert copy["split"][:] == list(dataset.splits) and copy["modality"][:] == list(dataset.modalities)


def test_the_copy_is_made_once_for_equal_content(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("datasets")

    def written() -> dict[str, int]:
        files = [path for path in (tmp_path / "cache").rglob("*.arrow") if path.is_file()]
        return {str(path): path.stat().st_mtime_ns for path in files}

    first = to_hugging_face(CapsuleDataset(run), tmp_path / "cache")
    before = written()
    assert len(before) == 1 and first.cache_files[0]["filename"] in before
    assert to_hugging_face(CapsuleDataset(run), tmp_path / "cache").cache_files == first.cache_files
    assert written() == before
    info = json.loads((run / "dataset_info.json").read_text())
    (run / "dataset_info.json").write_text(json.dumps(info | {"content_digest": "of another content"}))
    assert to_hugging_face(CapsuleDataset(run), tmp_path / "cache").cache_files != first.cache_files


def test_without_datasets_the_command_that_installs_it_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # Python's own way to make a package absent
    with pytest.raises(UserError, match=r"datasets is not installed; `pip install 'trm-nb\[datasets\]'`"):
        to_hugging_face(CapsuleDataset(run))


def test_the_documented_example_of_datasets_runs(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    found: dict[str, Any] = {}
    code, cache = example("to_hugging_face("), f", cache_dir={str(tmp_path / 'cache')!r})"
    code = code.replace('demo"))', f'demo"){cache}').replace('samples.parquet")', f'samples.parquet"{cache}')
    assert code.count(cache) == 2  # else it would fill this user's cache
    exec(code.replace("outputs/demo", str(run)), found)
    assert found["capsules"].num_rows == 30 and found["samples"].num_rows == 31


@pytest.mark.parametrize(
    "alone", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["here", "without the package"]
)
def test_the_documented_example_reads_the_weights_with_safetensors_alone(run: Path, alone: bool) -> None:
    settings = {"model": "main", "train_steps": 2, "train_width": 64, "train_batch_size": 8}
    config = MultimodalDatasetConfig.parse({"source_paths": ["x"], "output_dir": str(run), **settings}, "the test")
    objective = examples_of(run, config)
    with closing(TrainingProgressTracker(run, create=True)) as tracker:
        train_model(RunPaths(run).model("main"), objective, config, tracker)
    code = example("safe_open(").replace("outputs/demo", str(run))
    if alone:
        blocked = "import sys\nsys.modules['trm_nb'] = None\n"
        subprocess.run([sys.executable, "-c", blocked + code], check=True)
        return
    found: dict[str, Any] = {}
    exec(code, found)
    weights, values = read_weights(RunPaths(run).model("main").weights, KIND)
    assert found["weights"].keys() == weights.keys()
    assert all(torch.equal(found["weights"][name], weight) for name, weight in weights.items())
    assert found["values"] == {**values, "kind": KIND} and values["architecture"] == asdict(objective.model)
