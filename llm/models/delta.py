"""The operators of the gated delta rule. As in `ops.py`, their bodies define their meaning and are
never traced."""

from __future__ import annotations

import torch


@torch.library.custom_op("edge::decay", mutates_args=())
def decay(x: torch.Tensor, rate: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """exp(-exp(rate) * softplus(x + bias)): what is left of a fold's state after each token, in
    (0, 1].

    Args:
        x: (T, H).
        rate: (H,), the logarithm of how fast a head forgets.
        bias: (H,).

    Returns:
        (T, H) in the dtype of x.
    """
    return torch.exp(-rate.exp() * torch.nn.functional.softplus(x + bias))


@decay.register_fake
def _(x: torch.Tensor, rate: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("edge::gated_delta", mutates_args=("state",))
def gated_delta(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    decay: torch.Tensor,
    strength: torch.Tensor,
    state: torch.Tensor,
    positions: torch.Tensor,
    sequences: torch.Tensor,
    eps: float,
    scale: float,
) -> torch.Tensor:
    """The gated delta rule: each token decays the matrix S of its sequence and value head, corrects
    what S gives for its key towards its value, and reads S by its query.

    Queries and keys are divided by sqrt(sum of squares + eps); queries are then multiplied by
    ``scale``. S is zero before position 0.

    Args:
        q: (T, Hk, Dk).
        k: (T, Hk, Dk); Hk divides H, and value head h has key head h * Hk // H.
        v: (T, H, Dv).
        decay: (T, H), the factor of S, from 0 to 1.
        strength: (T, H), the part of the difference that is corrected.
        state: (slots, H, Dk, Dv); mutated.
        positions: (T,) int64; the one before each has been written last of its sequence, by this
            step or an earlier one.
        sequences: (T,) int64, the slot of each token.
        eps: above 0.
        scale: factor of the queries.

    Returns:
        (T, H, Dv) in the dtype of v.
    """
    group = v.shape[1] // k.shape[1]
    q, k = (
        (x * torch.rsqrt(x.square().sum(-1, keepdim=True) + eps)).repeat_interleave(group, dim=1)
        for x in (q, k)
    )
    out = torch.empty_like(v, memory_format=torch.contiguous_format)
    for t, (position, slot) in enumerate(zip(positions.tolist(), sequences.tolist(), strict=True)):
        before = state[slot] if position else torch.zeros_like(state[slot])
        kept = before * decay[t, :, None, None]
        difference = v[t] - torch.einsum("hkv,hk->hv", kept, k[t])
        state[slot] = kept + torch.einsum("hk,hv->hkv", k[t], strength[t, :, None] * difference)
        out[t] = torch.einsum("hkv,hk->hv", state[slot], q[t] * scale)
    return out


@gated_delta.register_fake
def _(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    decay: torch.Tensor,
    strength: torch.Tensor,
    state: torch.Tensor,
    positions: torch.Tensor,
    sequences: torch.Tensor,
    eps: float,
    scale: float,
) -> torch.Tensor:
    return torch.empty_like(v, memory_format=torch.contiguous_format)
