"""The trained encoder that comes with the package: it is the default, and its decoder reads its capsules."""

from __future__ import annotations

from difflib import SequenceMatcher

import numpy as np
import pytest
import torch

from trm_nb import GridRenderer, TextRenderer, TRMVisionEncoder
from trm_nb.errors import UserError
from trm_nb.models.decoding.capsule_decoder import SHIPPED
from trm_nb.models.vision_encoder import CHECKPOINTS

PAGE = """The quick brown fox jumps over
the lazy dog; 0123456789 times.

def mean(values: list[float]):
    return sum(values) / len(values)
"""


@pytest.fixture(scope="module")
def encoder() -> TRMVisionEncoder:
    return TRMVisionEncoder()


def capsules_of(encoder: TRMVisionEncoder, images: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return encoder(torch.from_numpy(images)).half()


def test_the_default_is_the_trained_encoder(encoder: TRMVisionEncoder) -> None:
    assert encoder.preset == "base" and encoder.trained and encoder.has_decoder
    random = TRMVisionEncoder(weights="random")
    assert not random.trained and random.fingerprint != encoder.fingerprint and not random.has_decoder
    assert not TRMVisionEncoder(image_size=112).has_decoder


def test_the_weights_are_small_enough_to_ship() -> None:
    files = [CHECKPOINTS / "encoder_base.safetensors", SHIPPED]
    assert sum(file.stat().st_size for file in files) < 20e6


def test_text_is_read_from_capsules(encoder: TRMVisionEncoder) -> None:
    image = TextRenderer().render_pages(PAGE)
    (read,) = encoder.decode(capsules_of(encoder, image), "text")
    assert SequenceMatcher(None, read, TextRenderer().decode(image), autojunk=False).ratio() > 0.97


def test_images_are_decoded_from_what_is_stored(encoder: TRMVisionEncoder) -> None:
    grid = np.arange(16).reshape(4, 4) % 10
    image = GridRenderer().render(grid)[None]
    (decoded,) = encoder.decode(capsules_of(encoder, image).numpy())
    assert decoded.shape == (224, 224, 3) and decoded.dtype == np.uint8
    error = np.square(decoded.astype(float) - image[0]).mean()
    assert error < 0.25 * np.square(image[0].astype(float) - image[0].mean((0, 1))).mean()


@pytest.mark.parametrize("changes", [{"weights": "random"}, {"preset": "tiny"}], ids=["random", "tiny"])
def test_other_encoders_have_no_decoder(changes: dict[str, str]) -> None:
    other = TRMVisionEncoder(**changes)
    with pytest.raises(UserError, match=f"expected a decoder for the encoder {other.fingerprint}"):
        other.decode(torch.zeros(1, 12, 512))


def test_a_preset_without_trained_weights_says_so() -> None:
    with pytest.raises(UserError, match="'tiny' has no trained weights; use base, or ask for random ones"):
        TRMVisionEncoder("tiny", weights="trained")


def test_what_is_no_capsules_is_refused(encoder: TRMVisionEncoder) -> None:
    with pytest.raises(ValueError, match=r"expected capsules \(b, 12, 512\), got \(12, 512\)"):
        encoder.decode(torch.zeros(12, 512))
