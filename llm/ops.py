"""The two operators that ATen cannot say well, registered as ``torch.ops.edge``.

The bodies here are the definition of their meaning, written for clarity. They run in eager mode
and are never traced: ``torch.export`` keeps each call as one node, with the cache a buffer that the
node mutates.
"""

from __future__ import annotations

import torch


@torch.library.custom_op("edge::rope", mutates_args=())
def rope(
    x: torch.Tensor, positions: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> torch.Tensor:
    """Rotates pairs (i, i + d) of each head by the angle of its position (half-split convention).

    Args:
        x: (T, H, D) queries or keys.
        positions: (T,) int64, each below P.
        cos: (P, d) float32 with 2d <= D; columns of x from 2d on pass through.
        sin: (P, d) float32.

    Returns:
        (T, H, D) in the dtype of x.
    """
    d = cos.shape[1]
    c, s = cos[positions].unsqueeze(1), sin[positions].unsqueeze(1)  # (T, 1, d)
    first, second, rest = x[..., :d], x[..., d : 2 * d], x[..., 2 * d :]
    return torch.cat((first * c - second * s, second * c + first * s, rest), dim=-1).to(x.dtype)


@rope.register_fake
def _(
    x: torch.Tensor, positions: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> torch.Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("edge::attention", mutates_args=("k_cache", "v_cache"))
def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    positions: torch.Tensor,
    sequences: torch.Tensor,
    scale: float,
    window: int,
    softcap: float,
) -> torch.Tensor:
    """Writes k and v at (sequence, position), then attends causally within each sequence.

    Keys and values are read back from the cache, those of this step included, so that a cache of
    lower precision acts on every token alike. The token at position i sees positions j <= i, and
    with a window only those with i - j < window.

    Args:
        q: (T, Hq, D).
        k: (T, Hkv, D); Hkv divides Hq, and query head h reads key head h * Hkv // Hq.
        v: (T, Hkv, D).
        k_cache: (slots, context, Hkv, D), any float dtype; mutated.
        v_cache: (slots, context, Hkv, D); mutated.
        positions: (T,) int64; every position of a sequence below these has been written before,
            by this step or an earlier one.
        sequences: (T,) int64, the slot of each token.
        scale: factor of the dot products.
        window: 0 for none.
        softcap: 0 for none; else scores become softcap * tanh(scores / softcap).

    Returns:
        (T, Hq, D) in the dtype of q.
    """
    k_cache[sequences, positions] = k.to(k_cache.dtype)
    v_cache[sequences, positions] = v.to(v_cache.dtype)
    group = q.shape[1] // k.shape[1]
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    for slot in torch.unique(sequences).tolist():
        tokens = (sequences == slot).nonzero().squeeze(1)  # (t,)
        i = positions[tokens].unsqueeze(1)  # (t, 1)
        n = int(i.max()) + 1
        keys = k_cache[slot, :n].to(q.dtype).repeat_interleave(group, dim=1)  # (n, Hq, D)
        values = v_cache[slot, :n].to(q.dtype).repeat_interleave(group, dim=1)
        scores = torch.einsum("thd,nhd->htn", q[tokens], keys) * scale
        if softcap > 0.0:
            scores = softcap * torch.tanh(scores / softcap)
        j = torch.arange(n, device=q.device).unsqueeze(0)  # (1, n)
        visible = j <= i
        if window > 0:
            visible &= i - j < window
        weights = scores.masked_fill(~visible, float("-inf")).softmax(dim=-1)
        out[tokens] = torch.einsum("htn,nhd->thd", weights, values)
    return out


@attention.register_fake
def _(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    positions: torch.Tensor,
    sequences: torch.Tensor,
    scale: float,
    window: int,
    softcap: float,
) -> torch.Tensor:
    return torch.empty_like(q, memory_format=torch.contiguous_format)
