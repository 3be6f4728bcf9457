"""TRMVisionEncoder: shapes, determinism, independence of a picture from its batch, checkpoints, what it looks at."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, UInt8, jaxtyped
from torch import Tensor

from trm_nb.records import UserError
from trm_nb.vision_encoder import TRMVisionEncoder


def pictures(n: int, size: int = 224, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def tiny() -> TRMVisionEncoder:
    return TRMVisionEncoder("tiny")


@jaxtyped(typechecker=beartype)
def encode(encoder: TRMVisionEncoder, images: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 12 512"]:
    with torch.inference_mode():
        return encoder(images)


@pytest.mark.parametrize(
    ("preset", "size", "b"), [("tiny", 224, 3), ("tiny", 28, 2), ("tiny", 448, 1), ("tiny", 224, 0), ("base", 56, 1)]
)
def test_capsules_have_their_shape_and_fit_float16(preset: str, size: int, b: int) -> None:
    capsules = encode(TRMVisionEncoder(preset, image_size=size), pictures(b, size))
    assert capsules.dtype == torch.float32
    assert torch.allclose(capsules.square().mean(-1), torch.ones(b, 12), atol=1e-3)
    assert (capsules.half().float() - capsules).abs().amax().item() < 5e-3 if b else True


@pytest.mark.parametrize("shade", [0, 127, 128, 255])
def test_a_flat_picture_is_encoded_too(tiny: TRMVisionEncoder, shade: int) -> None:
    capsules = encode(tiny, torch.full((1, 224, 224, 3), shade, dtype=torch.uint8))
    assert capsules.isfinite().all() and capsules.abs().max() < 23


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 224, 224, 3), pictures(1, 196), pictures(1)[0], pictures(1).permute(0, 3, 1, 2)],
    ids=["float", "other size", "no batch axis", "channels first"],
)
def test_other_pictures_are_refused_with_what_was_expected(tiny: TRMVisionEncoder, images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 pictures of shape \(b, 224, 224, 3\), got torch"):
        tiny(images)


@pytest.mark.parametrize(("preset", "size"), [("huge", 224), ("tiny", 100), ("tiny", 0)])
def test_an_unknown_preset_or_size_is_refused(preset: str, size: int) -> None:
    with pytest.raises(UserError, match="expected"):
        TRMVisionEncoder(preset, image_size=size)


def test_the_seed_fixes_the_weights_and_nothing_else_is_drawn(tiny: TRMVisionEncoder) -> None:
    before = torch.get_rng_state()
    again, other = TRMVisionEncoder("tiny"), TRMVisionEncoder("tiny", seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert again.fingerprint == tiny.fingerprint != other.fingerprint
    assert len(tiny.fingerprint) == 16
    images = pictures(2)
    assert encode(again, images).numpy().tobytes() == encode(tiny, images).numpy().tobytes()


def test_one_changed_weight_changes_the_fingerprint() -> None:
    encoder = TRMVisionEncoder("tiny")
    before = encoder.fingerprint
    with torch.no_grad():
        encoder.embed.weight[3, 4] += 1e-3
    assert encoder.fingerprint != before


def test_capsules_do_not_depend_on_the_rest_of_the_batch(tiny: TRMVisionEncoder) -> None:
    images = pictures(5)
    together, beside_others = encode(tiny, images), encode(tiny, torch.cat((images[:1], pictures(7, seed=1))))
    alone = torch.cat([encode(tiny, image[None]) for image in images])
    assert torch.allclose(together, alone, atol=1e-4)
    assert torch.allclose(beside_others[0], alone[0], atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_every_part_of_the_picture_reaches_the_capsules(tiny: TRMVisionEncoder) -> None:
    """An untrained encoder already tells apart pages that differ in one 7x14 cell, wherever it is."""
    page = torch.full((1, 224, 224, 3), 255, dtype=torch.uint8)
    marked = page.repeat(65, 1, 1, 1)
    for i in range(64):
        top, left = divmod(i, 8)
        marked[i, 28 * top : 28 * top + 14, 28 * left : 28 * left + 7] = 0
    capsules = encode(tiny, marked).half().float()
    distance = torch.cdist(capsules.flatten(1), capsules.flatten(1)) + 1e9 * torch.eye(65)
    assert distance.min().item() > 1.5  # of pages whose 6144 values have unit RMS; 0.9 without the skip


def test_pixels_are_laid_out_as_patches_in_reading_order(tiny: TRMVisionEncoder) -> None:
    image = torch.zeros(1, 224, 224, 3, dtype=torch.uint8)
    image[0, 28:56, 56:84] = 255
    patches = tiny._patches(image)
    assert patches.shape == (1, 64, 28 * 28 * 3)
    bright = (patches == 1).all(-1)[0].nonzero().flatten().tolist()
    assert bright == [8 + 2] and patches.min() == -1
    image = pictures(1)
    got = (tiny._patches(image)[0, 10].view(28, 28, 3) * 0.5 + 0.5) * 255
    assert torch.equal(got.round().byte(), image[0, 28:56, 56:84])


def test_attention_maps_are_what_the_read_out_uses(tiny: TRMVisionEncoder) -> None:
    images = pictures(2)
    maps = tiny.attention_maps(images)
    assert maps.shape == (2, 12, 8, 8, 8) and maps.dtype == torch.float32
    assert torch.allclose(maps.sum((-2, -1)), torch.ones(2, 12, 8), atol=1e-5)
    with torch.inference_mode():
        tokens, _ = tiny._tokens(images)
        values = tiny.read_out.value_proj(tokens).view(2, 64, 8, 64)
        looks = torch.einsum("bkhp,bphe->bkhe", maps.flatten(-2), values).flatten(2)
    want = looks / looks.square().mean(-1, keepdim=True).sqrt()
    assert torch.allclose(encode(tiny, images), want, atol=1e-3)


def test_untrained_looks_are_spread_over_the_picture(tiny: TRMVisionEncoder) -> None:
    seen = tiny.attention_maps(pictures(2)).mean(0)
    assert seen.sum((0, 1)).min().item() > 0.3, "of 96 looks, every one of the 64 patches gets its part"
    for capsule in seen:
        quarters = capsule.sum(0).view(2, 4, 2, 4).sum((1, 3))
        assert quarters.min().item() > 0.9, "and each capsule looks at every quarter of the picture"


def test_gradient_reaches_every_weight() -> None:
    encoder = TRMVisionEncoder("tiny", image_size=56)
    encoder(pictures(2, 56))[..., :100].square().sum().backward()
    for name, weight in encoder.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_a_saved_encoder_is_the_same_encoder(tmp_path: Path) -> None:
    encoder = TRMVisionEncoder("tiny", seed=5)
    assert not encoder.trained
    encoder.save(tmp_path / "encoder.pt", steps=3, source="grids")
    loaded = TRMVisionEncoder.load(tmp_path / "encoder.pt")
    assert loaded.trained and loaded.fingerprint == encoder.fingerprint
    images = pictures(1)
    assert torch.equal(encode(loaded, images), encode(encoder, images))
    assert TRMVisionEncoder.load(tmp_path / "encoder.pt", image_size=56).fingerprint == encoder.fingerprint


def _saved(path: Path, **changes: object) -> None:
    TRMVisionEncoder("tiny").save(path)
    torch.save({**torch.load(path, weights_only=True), **changes}, path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: None, "found no file"),
        (lambda path: path.write_bytes(b""), "cannot read"),
        (lambda path: path.write_bytes(b"not a checkpoint" * 99), "cannot read"),
        (lambda path: torch.save([1, 2], path), "got one of 'list'"),
        (lambda path: torch.save({"kind": "denoiser"}, path), "got one of 'denoiser'"),
        (lambda path: torch.save(torch.nn.Linear(2, 2), path), "cannot read"),
        (lambda path: _saved(path, preset="giant"), "got 'giant'"),
        (lambda path: _saved(path, width=256), "width: expected 128, got 256"),
        (lambda path: _saved(path, weights=3), "expected a table of weights"),
        (lambda path: _saved(path, weights={}), "expected .*, got nothing"),
        (lambda path: _saved(path, weights={"embed.weight": torch.zeros(2)}), "expected"),
    ],
    ids=[
        "absent",
        "empty",
        "garbage",
        "list",
        "other kind",
        "pickled module",
        "preset",
        "width",
        "not weights",
        "no weights",
        "shape",
    ],
)
def test_a_checkpoint_that_does_not_fit_is_an_error_of_one_sentence(tmp_path: Path, spoil, message: str) -> None:
    path = tmp_path / "encoder.pt"
    spoil(path)
    with pytest.raises(UserError, match=message) as caught:
        TRMVisionEncoder.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
