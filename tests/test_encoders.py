"""The table of encoders: names, checkpoints, and a new encoder that a run uses without a change of the package."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import walk_through

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError
from trm_nb.models.encoder import Encoder
from trm_nb.models.encoders import ENCODERS, encoder_class, encoder_for, load_encoder
from trm_nb.models.vision_encoder import TRMVisionEncoder
from trm_nb.notebook import views
from trm_nb.notebook.shown import Text
from trm_nb.pipeline.run import Run, build
from trm_nb.pipeline.verify import verify


def config(folder: Path, **fields: object) -> MultimodalDatasetConfig:
    return MultimodalDatasetConfig(source_paths=[str(folder)], output_dir=str(folder / "out"), **fields)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("huge", rf"encoder: expected one of {', '.join(ENCODERS)}, got 'huge'", id="unknown"),
        pytest.param("tny", r"got 'tny', did you mean 'tiny'\?", id="misspelt"),
    ],
)
def test_an_unknown_encoder_is_refused_when_the_run_is_made(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Run(config(tmp_path, encoder=name))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("name", ENCODERS)
def test_a_checkpoint_says_which_encoder_it_is_of(tmp_path: Path, name: str, suffix: str) -> None:
    encoder = encoder_class(name)(name, seed=3, weights="random")
    for trained in (False, True):
        encoder.trained = trained
        encoder.save(tmp_path / f"encoder{suffix}")
        loaded = load_encoder(tmp_path / f"encoder{suffix}")
        assert (loaded.preset, loaded.fingerprint) == (name, encoder.fingerprint)
        assert loaded.trained == (trained and encoder.weight_count > 0)


@pytest.mark.parametrize("name", ENCODERS)
def test_what_capsules_hold_can_be_looked_at(name: str) -> None:
    encoder = encoder_class(name)(name)
    capsules = np.random.default_rng(0).normal(size=(2, 12, 512)).astype(np.float16)
    if not encoder.has_decoder:
        with pytest.raises(UserError, match="decoder"):
            encoder.decode(capsules)
        return
    for given in (capsules, torch.from_numpy(capsules).float()):
        images = encoder.decode(given)
        assert [(image.dtype, image.shape) for image in images] == [(np.uint8, (224, 224, 3))] * 2


def test_a_checkpoint_of_an_encoder_that_is_not_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    TRMVisionEncoder("tiny", weights="random").save(tmp_path / "encoder.pt")
    monkeypatch.delitem(ENCODERS, "tiny")
    with pytest.raises(UserError, match=rf"encoder\.pt: preset: expected one of {', '.join(ENCODERS)}, got 'tiny'"):
        load_encoder(tmp_path / "encoder.pt")


def test_a_device_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    if torch.backends.mps.is_available():
        pytest.skip("there is an mps device")
    with pytest.raises(UserError, match="device 'mps' cannot be used here"):
        encoder_for(config(tmp_path, encoder="tiny", device="mps"), tmp_path / "none")


@pytest.mark.parametrize("name", ENCODERS)
def test_capsules_do_not_depend_on_the_rest_of_the_batch(name: str) -> None:
    _alone_or_together(encoder_class(name)(name))


def _alone_or_together(encoder: Encoder) -> None:
    """Bit for bit, in both precisions."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 224, 224, 3), np.uint8))
    for bfloat16 in (False, True):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            together = encoder(images)
            assert together.shape == (5, 12, 512) and together.dtype == torch.float32 and together.isfinite().all()
            assert torch.equal(torch.cat([encoder(image[None]) for image in images]), together)


@pytest.fixture
def linear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The encoder of the walk-through in CONTRIBUTING.md, in the table."""
    (tmp_path / "linear_encoder.py").write_text(walk_through("Add an encoder"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(ENCODERS, "linear", "linear_encoder:LinearEncoder")
    monkeypatch.delitem(sys.modules, "linear_encoder", raising=False)
    return "linear"


def test_a_new_encoder_takes_one_module_and_one_line(linear: str, tmp_path: Path) -> None:
    for kind in ("apples", "pears"):
        (tmp_path / "texts" / kind).mkdir(parents=True)
        for n in range(12):
            (tmp_path / "texts" / kind / f"{n}.txt").write_text(f"{kind} {n}\n" * (n + 1))
    fields = {"source_paths": [str(tmp_path / "texts")], "output_dir": str(tmp_path / "run"), "encoder": linear}
    asked = MultimodalDatasetConfig(**fields, workers=0, batch_size=8, train_steps=4, test_fraction=0.4)
    report = build(asked)
    assert report.training is not None and report.training.accuracy.items
    assert verify(report.output_dir, deep=True) == []
    run = Run(asked)
    assert run.info()["encoder"]["preset"] == linear and not run.info()["encoder"]["trained"]
    weights = tmp_path / "linear.safetensors"
    run.encoder.save(weights)
    run.close()
    again = build(asked.with_changes(output_dir=str(tmp_path / "again"), encoder="base", encoder_path=str(weights)))
    assert again.content_digest == report.content_digest, "the checkpoint says which encoder it is of"
    facts = views.encoder_facts(run_encoder := load_encoder(weights)).markdown
    assert "has no weights;" in facts and run_encoder.about in facts
    assert isinstance(views.plot_attention(run_encoder, np.zeros((224, 224, 3), np.uint8)), Text)
    assert not run_encoder.trained and "is a fixed transform." in (report.output_dir / "README.md").read_text()
    with pytest.raises(UserError, match="fit_encoder: the encoder 'linear' is a fixed transform"):
        build(asked.with_changes(output_dir=str(tmp_path / "fitted"), fit_encoder="targets"))
    _alone_or_together(load_encoder(weights))
