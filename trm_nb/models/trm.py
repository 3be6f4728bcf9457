"""The recursive core of the Tiny Recursive Model (TRM).

"Less is More: Recursive Reasoning with Tiny Networks" (Jolicoeur-Martineau, arXiv 2510.04871): one small net of two
layers refines an answer z_H with the help of a scratch pad z_L; depth comes from calling it again, not from more
weights. Names of the weights and numerics follow the official code (SamsungSAILMontreal/TinyRecursiveModels), so that
its weights of the recursive net load here. The vision encoder and the
reasoning model share this file.

Deviations: attention heads are not grouped, weights are stored and used in one dtype (float32 here), and the cells of a
grid may also be mixed with their neighbours.
Cost: one call of the net is about 24 D^2 multiply-adds a token (SwiGLU rounded up to 256) and the attention; a
recursion makes H_cycles * (L_cycles + 1) calls, of which the last L_cycles + 1 keep their activations for backward.

Axes: b batch, p tokens (patches, capsules), d width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def truncated_normal(*shape: int, std: float, generator: torch.Generator) -> Tensor:
    """float32 normal numbers cut at two standard deviations, whose standard deviation is `std` after the cut.

    Sampled in float64 and rounded once, so that the last bits do not depend on the machine's erfinv.
    """
    after_cut = 0.8796256610342398  # the standard deviation of a unit normal cut at +-2
    scale = std / after_cut
    wide = torch.empty(shape, dtype=torch.float64)
    nn.init.trunc_normal_(wide, std=scale, a=-2 * scale, b=2 * scale, generator=generator)
    return wide.float()


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def rms_norm(x: Tensor) -> Tensor:
    """Divide by the root mean square of the last axis, in float32 at least, eps 1e-5, no weights."""
    wide = _wide(x)
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5)).to(x.dtype)


def rotary_angles(positions: Tensor, head_dim: int, theta: float = 1e4) -> Tensor:
    """RoPE angles of every token: positions (p, axes) -> float32 (p, head_dim / 2).

    One axis is the official 1-D RoPE. With two (row, column) each axis turns half of the pairs, which gives the net
    relative places on a plane. head_dim must be a multiple of twice the number of axes.
    """
    axes = positions.shape[1]
    if head_dim % (2 * axes):
        raise ValueError(f"a head of {head_dim} does not split into pairs over {axes} axes")
    pairs = head_dim // (2 * axes)
    frequencies = theta ** -(torch.arange(pairs, dtype=torch.float32, device=positions.device) / pairs)
    return (positions.float()[:, :, None] * frequencies).flatten(1)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn feature i and feature i + head_dim/2 of x (..., p, head_dim) by angles (p, head_dim / 2)."""
    cos, sin = angles.cos(), angles.sin()
    first, second = _wide(x).chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


class Linear(nn.Module):
    """x @ weight.T without bias, the weight truncated normal with std 1/sqrt(fan_in).

    nn.Linear would sample from the global generator, which belongs to the user.
    """

    def __init__(self, fan_in: int, fan_out: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(truncated_normal(fan_out, fan_in, std=fan_in**-0.5, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


def affine(
    fan_in: int, fan_out: int, generator: torch.Generator, *, scale: float = 1.0, bias: bool = True
) -> nn.Linear:
    """nn.Linear with a weight that is truncated normal with std scale/sqrt(fan_in), and a bias of zeros."""
    layer = nn.Linear(fan_in, fan_out, bias=bias, device="meta")  # takes nothing from the user's generator
    layer.weight = nn.Parameter(truncated_normal(fan_out, fan_in, std=scale * fan_in**-0.5, generator=generator))
    if bias:
        layer.bias = nn.Parameter(torch.zeros(fan_out))
    return layer


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), gate and up fused; the inner width is 4 * width * 2/3, rounded up to 256."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        inner = math.ceil(round(4 * width * 2 / 3) / 256) * 256
        self.gate_up_proj = Linear(width, 2 * inner, generator)
        self.down_proj = Linear(inner, width, generator)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        out: Tensor = self.down_proj(F.silu(gate) * up)
        return out


class Attention(nn.Module):
    """Every token attends to every token, or to those where `mask` (bool, broadcast to (b, heads, p, p)) is true.

    Fused qkv, heads of width / heads, RoPE where angles are given.
    """

    def __init__(self, width: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} does not split into {heads} heads")
        self.heads = heads
        self.qkv_proj = Linear(width, 3 * width, generator)
        self.o_proj = Linear(width, width, generator)

    def forward(self, x: Tensor, angles: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        b, p, d = x.shape
        q, k, v = self.qkv_proj(x).view(b, p, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
        out: Tensor = self.o_proj(mixed.reshape(b, p, d))
        return out


class NeighbourMix(nn.Module):
    """A depthwise 3x3 convolution over the last rows x columns tokens, the cells of a grid: (b, p, d) -> (b, p, d).

    It takes 0 for cells outside of the grid. Recurrent convolutions solve mazes by spreading from cell to cell
    (Schwarzschild et al., arXiv 2106.04537). Added to another mix it is 0 for the tokens before the cells, and the
    weights start at 0: otherwise a few Sudokus, where neighbours mean little, are learnt worse (LOG.md, 2026-11-28).
    With `alone` it is all that mixes tokens: those before the cells are given the mean of all cells, and the weights
    start as others do.
    """

    def __init__(self, width: int, grid: tuple[int, int], generator: torch.Generator, alone: bool = False) -> None:
        super().__init__()
        self.grid, self.alone = grid, alone
        shape = (width, 1, 3, 3)
        self.weight = nn.Parameter(
            truncated_normal(*shape, std=1 / 3, generator=generator) if alone else torch.zeros(shape)
        )

    def forward(self, h: Tensor) -> Tensor:
        b, p, d = h.shape
        before = p - math.prod(self.grid)
        cells = h[:, before:].transpose(1, 2).reshape(b, d, *self.grid)
        mixed = F.conv2d(cells, self.weight.to(h.dtype), padding=1, groups=d).flatten(2).transpose(1, 2)
        if self.alone:
            return torch.cat((h[:, before:].mean(1, keepdim=True).expand(b, before, d), mixed), dim=1)
        return F.pad(mixed, (0, 0, before, 0))


class Block(nn.Module):
    """Post-norm: h = rms(h + mix(h)), then h = rms(h + mlp(h)).

    `mix` is attention, or, for a fixed number of `tokens`, a SwiGLU over the tokens (the paper's mlp_t: better on
    small boards, and blind to RoPE). Where the last tokens are the cells of a `grid`, NeighbourMix is added to it, or
    with `local` takes its place.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        generator: torch.Generator,
        tokens: int | None = None,
        grid: tuple[int, int] | None = None,
        local: bool = False,
    ) -> None:
        super().__init__()
        if local and grid is None:
            raise ValueError("local: only the cells of a grid have neighbours")
        if tokens is not None and not local:
            self.mlp_t = SwiGLU(tokens, generator)
        elif not local:
            self.self_attn = Attention(width, heads, generator)
        self.mlp = SwiGLU(width, generator)
        self.mixes_by_mlp, self.local = tokens is not None and not local, local
        self.near = None if grid is None else NeighbourMix(width, grid, generator, local)

    def forward(self, h: Tensor, angles: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        kept = h if self.near is None else h + self.near(h)
        if self.mixes_by_mlp:
            mixed = self.mlp_t(h.transpose(1, 2))
            h = rms_norm(kept.transpose(1, 2) + mixed).transpose(1, 2)  # the official norm is over tokens here
        elif self.local:
            h = rms_norm(kept)
        else:
            h = rms_norm(kept + self.self_attn(h, angles, mask))
        return rms_norm(h + self.mlp(h))


class RecursiveNet(nn.Module):
    """The small net that is called again and again: float (b, p, d) -> the same shape, unit RMS.

    `tokens` switches to mlp_t blocks for exactly so many tokens; the last of them may be the cells of a `grid` of
    (rows, columns), which `local` mixes with their neighbours alone. `angles` is a table of `rotary_angles`, or None.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        generator: torch.Generator,
        *,
        layers: int = 2,
        tokens: int | None = None,
        grid: tuple[int, int] | None = None,
        local: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(width, heads, generator, tokens, grid, local) for _ in range(layers))

    def forward(self, h: Tensor, angles: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            h = layer(h, angles, mask)
        return h


def recurse(
    net: Callable[..., Tensor],
    z_H: Tensor,
    z_L: Tensor,
    x: Tensor,
    H_cycles: int,
    L_cycles: int,
    angles: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One outer step: refine (z_H, z_L) on the input x, all (b, p, d); returns the new pair.

    L_cycles times z_L = net(z_L + z_H + x), then z_H = net(z_H + z_L); H_cycles of these. Only the last carries
    gradient, as in the official code: memory stays that of one round.
    """

    def cycle(z_H: Tensor, z_L: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(L_cycles):
            z_L = net(z_L + (z_H + x), angles)
        return net(z_H + z_L, angles), z_L

    with torch.no_grad():
        for _ in range(H_cycles - 1):
            z_H, z_L = cycle(z_H, z_L)
    return cycle(z_H, z_L)
