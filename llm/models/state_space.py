"""The state-space dual of Mamba-2: its operators, and the module that calls them. As in `ops.py`,
the bodies of operators define their meaning and are never traced."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edge_llm.llm.decoder import StateSpaceShape
from edge_llm.llm.models.layers import CacheShape, CausalConv, RMSNorm


@torch.library.custom_op("edge::time_step", mutates_args=())
def time_step(x: torch.Tensor, bias: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """softplus(x + bias), at least ``low`` and at most ``high``: the time that a token takes.

    Args:
        x: (T, H).
        bias: (H,).
        low: 0 or above.
        high: finite.

    Returns:
        (T, H) in the dtype of x.
    """
    return functional.softplus(x + bias).clamp(low, high)


@time_step.register_fake
def _(x: torch.Tensor, bias: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("edge::grouped_norm", mutates_args=())
def grouped_norm(x: torch.Tensor, weight: torch.Tensor, size: int, eps: float) -> torch.Tensor:
    """RMS norm of each run of ``size`` columns, and a weight of all of them.

    Args:
        x: (T, D).
        weight: (D,).
        size: divides D.
        eps: above 0.

    Returns:
        (T, D) in the dtype of x.
    """
    runs = x.reshape(len(x), -1, size)
    return functional.rms_norm(runs, (size,), None, eps).reshape(x.shape) * weight


@grouped_norm.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, size: int, eps: float) -> torch.Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("edge::state_space", mutates_args=("state",))
def state_space(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    step: torch.Tensor,
    rate: torch.Tensor,
    skip: torch.Tensor,
    state: torch.Tensor,
    positions: torch.Tensor,
    sequences: torch.Tensor,
) -> torch.Tensor:
    """The state-space dual (arXiv 2405.21060): each token decays the matrix S of its sequence and
    value head, adds its key times its value and step, and reads S by its query.

    S is zero before position 0.

    Args:
        q: (T, Hk, Dk), Mamba's C.
        k: (T, Hk, Dk), Mamba's B; Hk divides H, and value head h has key head h * Hk // H.
        v: (T, H, Dv).
        step: (T, H); S is multiplied by exp(-exp(rate) * step).
        rate: (H,), the logarithm of how fast a head forgets.
        skip: (H,), how much of its value an output has more.
        state: (slots, H, Dk, Dv); mutated.
        positions: (T,) int64; the one before each has been written last of its sequence, by this
            step or an earlier one.
        sequences: (T,) int64, the slot of each token.

    Returns:
        (T, H, Dv) in the dtype of v.
    """
    group = v.shape[1] // k.shape[1]
    q, k = (x.repeat_interleave(group, dim=1) for x in (q, k))
    decay = torch.exp(-rate.exp() * step)
    update = step[:, :, None] * v
    out = torch.empty_like(v, memory_format=torch.contiguous_format)
    for t, (position, slot) in enumerate(zip(positions.tolist(), sequences.tolist(), strict=True)):
        before = state[slot] if position else torch.zeros_like(state[slot])
        added = torch.einsum("hk,hv->hkv", k[t], update[t])
        state[slot] = before * decay[t, :, None, None] + added
        out[t] = torch.einsum("hkv,hk->hv", state[slot], q[t]) + skip[:, None] * v[t]
    return out


@state_space.register_fake
def _(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    step: torch.Tensor,
    rate: torch.Tensor,
    skip: torch.Tensor,
    state: torch.Tensor,
    positions: torch.Tensor,
    sequences: torch.Tensor,
) -> torch.Tensor:
    return torch.empty_like(v, memory_format=torch.contiguous_format)


class GroupedNorm(nn.Module):
    """RMS norm of each of several groups of columns; ``weight`` is as wide as all together."""

    def __init__(self, dim: int, groups: int, eps: float) -> None:
        super().__init__()
        self.size, self.eps = dim // groups, eps
        self.weight = nn.Parameter(torch.empty(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = grouped_norm(x, self.weight, self.size, self.eps)
        return y


class Mamba2(nn.Module):
    """A state space over values, keys and queries behind a convolution and SiLU; its outputs are
    gated, then normalized, those of each key head apart. One product of the stream gives gate,
    these, and the steps."""

    state: torch.Tensor

    def __init__(
        self,
        dim: int,
        shape: StateSpaceShape,
        cache: CacheShape,
        *,
        bias: bool,
        conv_bias: bool,
        eps: float,
    ) -> None:
        super().__init__()
        self.shape = shape
        values, keys = shape.heads * shape.v_dim, shape.key_heads * shape.k_dim
        convolved = values + 2 * keys
        self.sizes, self.parts = [values, convolved, shape.heads], [values, keys, keys]
        self.in_proj = nn.Linear(dim, sum(self.sizes), bias=bias)
        self.conv1d = CausalConv(convolved, shape.taps, cache, bias=conv_bias)
        self.dt_bias = nn.Parameter(torch.empty(shape.heads))
        self.A_log = nn.Parameter(torch.empty(shape.heads))
        self.D = nn.Parameter(torch.empty(shape.heads))
        groups = shape.key_heads
        self.norm = RMSNorm(values, eps) if groups == 1 else GroupedNorm(values, groups, eps)
        self.out_proj = nn.Linear(values, dim, bias=bias)
        state = torch.zeros(cache.slots, shape.heads, shape.k_dim, shape.v_dim)
        self.register_buffer("state", state, persistent=False)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor | None,
        sin: torch.Tensor | None,
    ) -> torch.Tensor:
        shape = self.shape
        gate, mixed, step = torch.split(self.in_proj(x), self.sizes, dim=-1)
        mixed = functional.silu(self.conv1d(mixed, positions, sequences))
        v, k, q = torch.split(mixed, self.parts, dim=-1)
        out = state_space(
            q.view(-1, shape.key_heads, shape.k_dim),
            k.view(-1, shape.key_heads, shape.k_dim),
            v.view(-1, shape.heads, shape.v_dim),
            time_step(step, self.dt_bias, shape.least_step, shape.most_step),
            self.A_log,
            self.D,
            self.state,
            positions,
            sequences,
        )
        y: torch.Tensor = self.out_proj(self.norm(functional.silu(gate) * out.flatten(1)))
        return y
