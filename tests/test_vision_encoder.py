"""TRMVisionEncoder: shapes, determinism, independence of an image from its batch, checkpoints, what it attends to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, UInt8, jaxtyped
from torch import Tensor

from trm_nb.errors import UserError
from trm_nb.models.patches import patches, scaled, unpatch
from trm_nb.models.read_out import BANDS, DETAIL, LIMIT, WHOLE, WHOLE_RMS
from trm_nb.models.vision_encoder import GROUP_TOKENS, TRMVisionEncoder


def images_of(n: int, size: int = 224, seed: int = 0) -> Tensor:
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
    capsules = encode(TRMVisionEncoder(preset, image_size=size, weights="random"), images_of(b, size))
    assert capsules.dtype == torch.float32 and capsules.isfinite().all()
    assert torch.allclose(capsules[:, WHOLE].square().mean((1, 2)).sqrt(), torch.full((b,), WHOLE_RMS), atol=1e-3)
    assert not b or capsules[:, :10].abs().max().item() <= LIMIT
    assert not b or (capsules.half().float() - capsules).abs().max().item() < 2e-2


@pytest.mark.parametrize("shade", [0, 127, 128, 255])
def test_a_flat_image_is_encoded_too(tiny: TRMVisionEncoder, shade: int) -> None:
    capsules = encode(tiny, torch.full((1, 224, 224, 3), shade, dtype=torch.uint8))
    assert capsules.isfinite().all() and capsules.abs().max() < 512**0.5 * 2 * WHOLE_RMS


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 224, 224, 3), images_of(1, 196), images_of(1)[0], images_of(1).permute(0, 3, 1, 2)],
    ids=["float", "other size", "no batch axis", "channels first"],
)
def test_other_images_are_refused_with_what_was_expected(tiny: TRMVisionEncoder, images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 images of shape \(b, 224, 224, 3\), got torch"):
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
    images = images_of(2)
    assert encode(again, images).numpy().tobytes() == encode(tiny, images).numpy().tobytes()


def test_one_changed_weight_changes_the_fingerprint() -> None:
    encoder = TRMVisionEncoder("tiny")
    before = encoder.fingerprint
    with torch.no_grad():
        encoder.stem.merge.weight[3, 4] += 1e-3
    assert encoder.fingerprint != before


def pages() -> Tensor:
    """Images of which 0 to 64 patches are white, so that every length of a group occurs, more than a group of each."""
    images = images_of(24)
    for i in range(24):
        images[i].view(8, 28, 224, 3)[: i // 3] = 255
    images[23] = 255
    return images


@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("preset", ["tiny", "base"])
def test_capsules_do_not_depend_on_the_rest_of_the_batch(preset: str, bfloat16: bool) -> None:
    """Bit for bit, as rows of a batch are encoded in other batches after an interruption."""
    encoder, images = TRMVisionEncoder(preset), pages()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        together = encode(encoder, images)
        order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
        assert torch.equal(encode(encoder, images[order]), together[order])
        assert torch.equal(torch.cat([encode(encoder, image[None]) for image in images]), together)
    assert torch.equal(encode(encoder, images), together) != bfloat16
    assert len(images) > 4 * GROUP_TOKENS["cpu"] // 64


def test_white_patches_are_left_out_without_a_trace(tiny: TRMVisionEncoder) -> None:
    """The same as attention that masks them: computed with all patches in place."""
    images = pages()
    cut = patches(images)
    kept = (cut != 255).flatten(2).any(-1)
    kept[:, 0] = True
    with torch.inference_mode():
        x, z_H = tiny._recursed(cut, kept, 64)
        want = tiny.read_out(x, z_H, 8)
    assert kept.sum(1).unique().numel() > 8
    assert torch.allclose(encode(tiny, images), want, atol=1e-4)


def test_every_part_of_the_image_reaches_the_capsules(tiny: TRMVisionEncoder) -> None:
    """An untrained encoder already tells apart pages that differ in one 7x14 cell, wherever it is."""
    page = torch.full((1, 224, 224, 3), 255, dtype=torch.uint8)
    marked = page.repeat(65, 1, 1, 1)
    for i in range(64):
        top, left = divmod(i, 8)
        marked[i, 28 * top : 28 * top + 14, 28 * left : 28 * left + 7] = 0
    capsules = encode(tiny, marked).half().float()[:, :10]
    distance = torch.cdist(capsules.flatten(1), capsules.flatten(1)) + 1e9 * torch.eye(65)
    assert distance.min().item() > 1.0
    changed = (capsules[:64, BANDS] - capsules[64, BANDS]).norm(dim=-1)
    assert changed.argmax(1).tolist() == [i // 8 for i in range(64)], "a band is the capsule of its number"


def test_pixels_are_cut_into_patches_and_cells_in_reading_order() -> None:
    image = torch.zeros(1, 224, 224, 3, dtype=torch.uint8)
    image[0, 28:56, 56:84] = 255
    assert (patches(image) == 255).all(-1).all(-1)[0].nonzero().flatten().tolist() == [8 + 2]
    image = images_of(2)
    cut = patches(image)
    assert cut.shape == (2, 64, 8, 294)
    assert torch.equal(cut[1, 10, 6].view(14, 7, 3), image[1, 28 + 14 : 56, 56 + 14 : 56 + 21])
    assert torch.equal(unpatch(cut, 8), image)
    assert scaled(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


def test_attention_maps_are_those_of_the_read_out(tiny: TRMVisionEncoder) -> None:
    images = pages()[::5]
    maps = tiny.attention_maps(images)
    assert maps.shape == (5, 12, 8, 8) and maps.dtype == torch.float32
    assert torch.allclose(maps.sum((-2, -1)), torch.ones(5, 12), atol=1e-5)
    for band, capsule in enumerate(maps[0, BANDS]):
        assert capsule[band].sum() > 0.9, "each band attends to its row of patches"
    rows = maps[0, DETAIL].sum(-1)
    assert rows[0, :4].sum() > 0.9 and rows[1, 4:].sum() > 0.9
    assert (maps[0, WHOLE] > 0.3 / 64).all(), "the whole is attended to everywhere"


def test_gradient_reaches_every_weight() -> None:
    encoder = TRMVisionEncoder("tiny", image_size=56)
    capsules = encoder(images_of(2, 56))
    (capsules * torch.randn(capsules.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    for name, weight in encoder.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize("name", ["encoder.pt", "encoder.safetensors"])
def test_a_saved_encoder_is_the_same_encoder(tmp_path: Path, name: str) -> None:
    encoder = TRMVisionEncoder("tiny", seed=5)
    assert not encoder.trained
    encoder.trained = True
    path = tmp_path / name
    encoder.save(path, steps=3, source="grids")
    loaded = TRMVisionEncoder.load(path)
    assert loaded.trained and loaded.fingerprint == encoder.fingerprint
    images = images_of(1)
    assert torch.equal(encode(loaded, images), encode(encoder, images))
    assert TRMVisionEncoder.load(path, image_size=56).fingerprint == encoder.fingerprint


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
        (lambda path: _saved(path, width=256), "width: expected 64, got 256"),
        (lambda path: _saved(path, weights=3), "expected a table of weights"),
        (lambda path: _saved(path, weights={}), "expected .*, got nothing"),
        (lambda path: _saved(path, weights={"stem.cell.weight": torch.zeros(2)}), "expected"),
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
