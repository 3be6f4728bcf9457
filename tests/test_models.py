"""The notebooks that train models and compare them, executed small: few images, few steps, hardly anything learnt."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from trm_nb.denoise import load_denoiser

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def _execute(name: str, executed: Path, **parameters: object) -> nbformat.NotebookNode:
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in parameters.items()}
    source = ROOT / "notebooks" / f"{name}.ipynb"
    command = [sys.executable, "-m", "papermill", "--cwd", str(ROOT), "--no-progress-bar", str(source), str(executed)]
    subprocess.run([*command, "-y", yaml.safe_dump(plain)], check=True, capture_output=True, timeout=900)
    return nbformat.read(executed, as_version=4)


@pytest.mark.slow(minutes=2)
def test_a_denoiser_is_trained_then_one_that_adapts(tmp_path: Path) -> None:
    for seed in range(3):
        coarse = np.random.default_rng(seed).integers(0, 256, (60, 90, 3), np.uint8)
        (tmp_path / "photographs").mkdir(exist_ok=True)
        Image.fromarray(coarse).resize((900, 600), Image.Resampling.BICUBIC).save(tmp_path / f"photographs/{seed}.png")
    both = {"photographs": tmp_path / "photographs", "work": tmp_path / "work", "torch_threads": 1, "most": 1}
    trained = _execute("models/train_denoiser", tmp_path / "1.ipynb", **both, steps=12, crop=32, others=False)
    plain = load_denoiser(tmp_path / "work" / "run" / "n2n_denoiser.pt")
    assert plain is not None and not plain.adapts
    recorded = json.loads((tmp_path / "work" / "metrics.json").read_text(encoding="utf-8"))
    assert recorded["fingerprint"] == plain.fingerprint and len(recorded["rows"]) == 4
    _execute("models/train_seal", tmp_path / "2.ipynb", **both, contexts=2, policies=1, crops=1)
    adaptive = load_denoiser(tmp_path / "work" / "run" / "n2n_denoiser.pt")
    assert adaptive is not None and adaptive.adapts
    recorded = json.loads((tmp_path / "work" / "seal" / "metrics.json").read_text(encoding="utf-8"))
    assert recorded["fingerprint"] == adaptive.fingerprint
    assert {arm["name"].split(" (")[0] for arm in recorded["arms"]["all together"]} >= {"none", "SEAL", "oracle"}
    images = [out for cell in trained.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
    assert len(images) >= 4


def test_the_denoisers_of_the_package_are_set_beside_each_other(tmp_path: Path) -> None:
    small = {"others": False, "most": 1, "texts": 1, "torch_threads": 1, "work": tmp_path / "work"}
    _execute("studies/denoisers", tmp_path / "4.ipynb", **small)
    recorded = json.loads((tmp_path / "work" / "metrics.json").read_text(encoding="utf-8"))
    rows = {(row["noise"], row["arm"]): row["psnr"] for row in recorded["rows"]}
    for noise in ("gaussian 15", "scanner 1"):
        assert rows[noise, "noisy"] < rows[noise, "base"] < rows[noise, "large"]
    assert set(recorded["clean"]) == {"pages", "grids"} and "gaussian 0, large" in recorded["characters wrong"]


def test_what_denoising_is_worth_is_measured(tmp_path: Path) -> None:
    params, demo = tmp_path / "small.yaml", ROOT / "trm_nb/assets/demo"
    sources = [str(demo / label) for label in ("prose", "drawings")]
    params.write_text(yaml.safe_dump({"source_paths": sources, "output_dir": "unused"}), encoding="utf-8")
    small = {"seeds": 1, "limit": 2, "train_steps": 2, "train_batch_size": 2, "params": params, "work": tmp_path}
    executed = _execute("studies/denoising_value", tmp_path / "5.ipynb", **small)
    gains = pd.read_csv(tmp_path / "gains.csv")
    assert len(gains) == 6 * 3 * 6 and set(gains["outcome"]) == {"no difference shown"}  # of two items of a label
    assert set(gains["arm"]) | set(gains["other"]) == {"clean", "none", "base", "SEAL", "large"}
    assert "**no difference** between SEAL and base is shown" in json.dumps(executed.cells)


def test_a_run_of_sudokus_is_set_beside_its_controls(tmp_path: Path) -> None:
    params = tmp_path / "small.yaml"
    fields = {
        "source_paths": ["sudoku:4:120"], "output_dir": str(tmp_path / "run"), "encoder": "tiny", "image_size": 112,
        "fit_encoder": "targets", "fit_steps": 3, "fit_batch_size": 4, "objective": "grid", "train_steps": 3,
        "train_batch_size": 8, "train_width": 64, "batch_size": 40,
    }  # fmt: skip
    params.write_text(yaml.safe_dump(fields), encoding="utf-8")
    executed = _execute("studies/sudoku_controls", tmp_path / "3.ipynb", params=params, work=tmp_path / "controls")
    shown = json.dumps([cell.get("outputs", []) for cell in executed.cells])
    arms = ("this run", "untrained encoder", "capsules of another puzzle", "tokens")
    assert all(name in shown for name in arms) and "image/png" in shown


def test_the_arms_of_the_puzzles_are_set_beside_each_other(tmp_path: Path) -> None:
    params = tmp_path / "small.yaml"
    fields = {
        "source_paths": ["sudoku:4:60"], "output_dir": str(tmp_path / "run"), "encoder": "tiny", "image_size": 112,
        "objective": "grid", "train_steps": 3, "train_batch_size": 8, "train_width": 64, "batch_size": 40,
        "test_steps": 10,
    }  # fmt: skip
    params.write_text(yaml.safe_dump(fields), encoding="utf-8")
    executed = _execute("studies/puzzles", tmp_path / "6.ipynb", params=params, work=tmp_path / "arms", seeds=[0])
    shown = json.dumps([cell.get("outputs", []) for cell in executed.cells])
    arms = ("random encoder", "tokens", "prefix only", "no neighbours", "no recursion, equal weights")
    assert all(f"the arm {name}" in shown for name in arms) and shown.count("image/png") >= 2
