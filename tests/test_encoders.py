"""The table of encoders: names, checkpoints, and a new encoder that a run uses without a change of the package."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError
from trm_nb.models.encoders import ENCODERS, encoder_for, load_encoder
from trm_nb.models.vision_encoder import TRMVisionEncoder
from trm_nb.pipeline.run import Run


def config(folder: Path, **fields: object) -> MultimodalDatasetConfig:
    return MultimodalDatasetConfig(source_paths=[str(folder)], output_dir=str(folder / "out"), **fields)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("huge", "encoder: expected one of base, tiny, got 'huge'", id="unknown"),
        pytest.param("tny", r"got 'tny'; did you mean 'tiny'\?", id="misspelt"),
    ],
)
def test_an_unknown_encoder_is_refused_when_the_run_is_made(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Run(config(tmp_path, encoder=name))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("name", ENCODERS)
def test_a_checkpoint_says_which_encoder_it_is_of(tmp_path: Path, name: str, suffix: str) -> None:
    encoder = TRMVisionEncoder(name, seed=3, weights="random")
    encoder.save(tmp_path / f"encoder{suffix}")
    loaded = load_encoder(tmp_path / f"encoder{suffix}")
    assert (loaded.preset, loaded.fingerprint, loaded.trained) == (name, encoder.fingerprint, True)


def test_a_checkpoint_of_an_encoder_that_is_not_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    TRMVisionEncoder("tiny", weights="random").save(tmp_path / "encoder.pt")
    monkeypatch.delitem(ENCODERS, "tiny")
    with pytest.raises(UserError, match=r"encoder\.pt: preset: expected one of base, got 'tiny'"):
        load_encoder(tmp_path / "encoder.pt")


def test_a_device_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    if torch.backends.mps.is_available():
        pytest.skip("there is an mps device")
    with pytest.raises(UserError, match="device 'mps' cannot be used here"):
        encoder_for(config(tmp_path, encoder="tiny", device="mps"), tmp_path / "none")
