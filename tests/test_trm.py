"""The recursive core: the official numerics, the gradient rule, and weights that follow from their seed alone."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from beartype import beartype
from jaxtyping import Float, jaxtyped
from torch import Tensor, nn

from trm_nb.models.trm import (
    NeighbourMix,
    RecursiveNet,
    SwiGLU,
    recurse,
    rms_norm,
    rotary_angles,
    rotate,
    truncated_normal,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def line(tokens: int, head_dim: int) -> Tensor:
    return rotary_angles(torch.arange(tokens)[:, None], head_dim)


@pytest.mark.parametrize(
    ("tokens", "angles"), [(None, line(6, 8)), (None, None), (6, None)], ids=["attention-rope", "attention", "mlp_t"]
)
def test_the_net_keeps_shape_and_has_unit_rms(tokens: int | None, angles: Tensor | None) -> None:
    @jaxtyped(typechecker=beartype)
    def call(h: Float[Tensor, "b p d"]) -> Float[Tensor, "b p d"]:
        return RecursiveNet(32, 4, seeded(), tokens=tokens)(h, angles)

    out = call(3 * torch.randn(2, 6, 32, generator=seeded(1)))
    axis = 1 if tokens else -1
    assert out.isfinite().all()
    assert torch.allclose(rms_norm(out), out, atol=1e-4), f"unit RMS expected over the width (mixing axis {axis})"


def test_names_and_shapes_are_the_official_ones() -> None:
    attention = {name: tuple(w.shape) for name, w in RecursiveNet(64, 4, seeded()).state_dict().items()}
    per_layer = {
        "self_attn.qkv_proj.weight": (192, 64),
        "self_attn.o_proj.weight": (64, 64),
        "mlp.gate_up_proj.weight": (512, 64),
        "mlp.down_proj.weight": (64, 256),
    }
    assert attention == {f"layers.{i}.{name}": shape for i in (0, 1) for name, shape in per_layer.items()}
    mixed = RecursiveNet(64, 4, seeded(), tokens=18).state_dict()
    assert tuple(mixed["layers.0.mlp_t.gate_up_proj.weight"].shape) == (512, 18)


@pytest.mark.parametrize(("width", "inner"), [(64, 256), (128, 512), (512, 1536)])
def test_swiglu_inner_width_is_rounded_up_to_256(width: int, inner: int) -> None:
    assert SwiGLU(width, seeded()).down_proj.weight.shape == (width, inner)


def test_one_block_agrees_with_a_plain_reading_of_the_paper() -> None:
    """Written again in float64, head by head, with complex numbers for RoPE."""
    b, p, d, heads = 2, 5, 16, 2
    net = RecursiveNet(d, heads, seeded(), layers=1)
    h = torch.randn(b, p, d, generator=seeded(1))
    weights = {name.removeprefix("layers.0."): w.double() for name, w in net.state_dict().items()}
    each = d // heads

    def turned(x: Tensor) -> Tensor:
        angle = torch.arange(p)[:, None] * 1e4 ** (-2 * torch.arange(each // 2).double() / each)
        z = torch.complex(x[..., : each // 2], x[..., each // 2 :]) * torch.polar(torch.ones_like(angle), angle)
        return torch.cat((z.real, z.imag), -1)

    def norm(x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    x = h.double()
    q, k, v = (x @ weights["self_attn.qkv_proj.weight"].T).split(d, -1)
    seen = []
    for head in range(heads):
        cut = slice(head * each, (head + 1) * each)
        attention = (turned(q[..., cut]) @ turned(k[..., cut]).transpose(1, 2) / math.sqrt(each)).softmax(-1)
        seen.append(attention @ v[..., cut])
    x = norm(x + torch.cat(seen, -1) @ weights["self_attn.o_proj.weight"].T)
    gate, up = (x @ weights["mlp.gate_up_proj.weight"].T).chunk(2, -1)
    x = norm(x + (gate * gate.sigmoid() * up) @ weights["mlp.down_proj.weight"].T)
    assert torch.allclose(net(h, line(p, each)).double(), x, atol=2e-6)


@pytest.mark.parametrize("alone", [False, True], ids=["added to another mix", "alone"])
def test_neighbours_are_mixed_channel_by_channel_and_only_alone_what_is_before_the_grid(alone: bool) -> None:
    """Written again as sums over the cells around each one."""
    before, rows, columns, d = 2, 3, 4, 5
    mix = NeighbourMix(d, (rows, columns), seeded(), alone)
    nn.init.normal_(mix.weight, generator=seeded())
    h = torch.randn(2, before + rows * columns, d, generator=seeded(1))
    wanted = torch.zeros_like(h)
    if alone:
        wanted[:, :before] = h[:, before:].mean(1, keepdim=True)
    for row, column, down, right in product(range(rows), range(columns), (-1, 0, 1), (-1, 0, 1)):
        if 0 <= row + down < rows and 0 <= column + right < columns:
            there = h[:, before + (row + down) * columns + column + right]
            wanted[:, before + row * columns + column] += mix.weight[:, 0, down + 1, right + 1] * there
    assert torch.allclose(mix(h), wanted, atol=1e-6)


@pytest.mark.parametrize("tokens", [None, 7], ids=["attention", "mlp_t"])
def test_a_net_on_a_grid_starts_as_one_without_and_learns_to_see_neighbours(tokens: int | None) -> None:
    h = torch.randn(1, 7, 32, generator=seeded(1))
    net, plain = (RecursiveNet(32, 4, seeded(), tokens=tokens, grid=grid) for grid in ((2, 3), None))
    before = net(h)
    assert torch.equal(before, plain(h))
    before.square().mul(h).sum().backward()
    weights = [layer.near.weight for layer in net.layers]
    assert all(weight.grad is not None and weight.grad.any() for weight in weights)
    with torch.no_grad():
        weights[0] -= weights[0].grad
    assert not torch.allclose(net(h), before, atol=1e-2)


def test_a_local_net_sees_as_far_as_it_has_layers_and_tells_the_prefix_of_every_cell() -> None:
    """Two layers of a 5 x 5 grid after one token: the centre sees all, a corner does not see the other ones."""
    net = RecursiveNet(32, 4, seeded(), grid=(5, 5), local=True)
    h = torch.randn(26, 32, generator=seeded(1), requires_grad=True)
    seen = {}
    for place in (0, 1, 13):  # the prefix, a corner, the centre
        (gradient,) = torch.autograd.grad(net(h[None])[0, place].square().mul(h.detach()[place]).sum(), h)
        seen[place] = gradient.any(1).nonzero()[:, 0].tolist()
    assert seen[0] == list(range(26))
    assert seen[1] == [1 + 5 * row + column for row in range(3) for column in range(3)]
    assert seen[13] == list(range(1, 26))
    assert not hasattr(net.layers[0], "self_attn") and net.layers[0].near.weight.any()


def test_a_local_net_needs_a_grid() -> None:
    with pytest.raises(ValueError, match="only the cells of a grid"):
        RecursiveNet(32, 4, seeded(), local=True)


def test_rotation_depends_on_relative_places_only() -> None:
    q, k = torch.randn(2, 1, 16, generator=seeded())
    places = torch.tensor([[0, 0], [2, 5], [7, 1], [9, 6]])
    angles = rotary_angles(places, 16)
    dots = (rotate(q.expand(4, 16), angles) @ rotate(k.expand(4, 16), angles).T).tolist()
    assert dots[0][1] == pytest.approx(dots[2][3], abs=1e-5)
    assert abs(dots[0][1] - dots[0][2]) > 1e-2, "and a plane's two axes are told apart"


def test_rotary_angles_are_where_the_positions_are() -> None:
    assert rotary_angles(torch.zeros(3, 2, device="meta"), 16).device.type == "meta"


def test_rotary_angles_refuses_a_head_that_does_not_split() -> None:
    with pytest.raises(ValueError, match="a head of 6"):
        rotary_angles(torch.zeros(3, 2), 6)


class Counted(nn.Module):
    """A linear net that remembers whether it was called with gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.with_gradient: list[bool] = []

    def forward(self, h: Tensor, angles: Tensor | None) -> Tensor:
        self.with_gradient.append(torch.is_grad_enabled())
        return self.w * h


def test_only_the_last_cycle_has_gradient() -> None:
    net = Counted()
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    x = one.clone().requires_grad_()
    z_H, z_L = recurse(net, one, one, x, H_cycles=3, L_cycles=2)
    assert net.with_gradient == [False] * 6 + [True] * 3

    def by_hand(w: Tensor, start_H: Tensor, start_L: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        L = w * (w * (start_L + start_H + x) + start_H + x)
        return w * (start_H + L), L

    with torch.no_grad():
        half = net.w.clone()
        before = by_hand(half, *by_hand(half, one, one, one), one)
    w = half.clone().requires_grad_()
    want_H, want_L = by_hand(w, *before, one)
    z_H.sum().backward()
    want_H.sum().backward()
    assert z_H.item() == pytest.approx(want_H.item()) and z_L.item() == pytest.approx(want_L.item())
    assert net.w.grad is not None and w.grad is not None
    assert net.w.grad.item() == pytest.approx(w.grad.item())
    assert x.grad is not None and x.grad.item() == pytest.approx(0.5 * (0.25 + 0.5))


@pytest.mark.parametrize("shape", [(400, 256)])
def test_truncated_normal_has_the_asked_spread_and_is_cut(shape: tuple[int, int]) -> None:
    rendered = truncated_normal(*shape, std=0.1, generator=seeded())
    assert rendered.std().item() == pytest.approx(0.1, rel=0.01)
    assert abs(rendered.mean().item()) < 1e-3
    assert rendered.abs().max().item() <= 0.2 / 0.8796 + 1e-6


def test_weights_follow_from_the_seed_and_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (RecursiveNet(32, 2, seeded(s)).state_dict() for s in (7, 7, 8))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_rms_norm_computes_in_float32() -> None:
    x = torch.full((1, 4), 300.0, dtype=torch.float16)  # its square overflows float16
    assert torch.allclose(rms_norm(x), torch.ones(1, 4, dtype=torch.float16), atol=1e-3)
    assert F.mse_loss(rms_norm(torch.zeros(1, 4)), torch.zeros(1, 4)) == 0
