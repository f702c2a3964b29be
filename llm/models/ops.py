"""The operators that ATen cannot say well and most families need, registered as ``torch.ops.edge``.
Those of experts and of the delta rule are beside their modules, in `experts.py` and `delta.py`.

The bodies here are the definition of their meaning, written for clarity. They run in eager mode
and are never traced: ``torch.export`` keeps each call as one node, with the cache a buffer that the
node mutates.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch

# The dtype of a cache buffer, by its name in a plan (a key of KV_DTYPES).
CACHE_DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"f32": torch.float32, "f16": torch.float16, "i8": torch.int8}
)
_SCALE_BYTES = 4
_SMALLEST_NORMAL = torch.finfo(torch.float32).tiny


def cache_width(head_dim: int, dtype: torch.dtype) -> int:
    """Elements of a cache row: ``head_dim``, and for int8 the four bytes of its float32 scale."""
    return head_dim + _SCALE_BYTES if dtype == torch.int8 else head_dim


def to_cache(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Rows (..., D) as a cache of ``dtype`` holds them: (..., ``cache_width(D, dtype)``).

    int8 is symmetric per row: s = max|x| / 127, at least the smallest normal float32, and
    q = clamp(round_half_even(x * (1 / s)), -127, 127). A row that is not finite has scale NaN.
    """
    if dtype != torch.int8:
        return x.to(dtype)
    x = x.float()
    scale = (x.abs().amax(dim=-1, keepdim=True) / 127).clamp(min=_SMALLEST_NORMAL)
    scale = scale.where(x.isfinite().all(dim=-1, keepdim=True), torch.nan)
    q = (x * (1 / scale)).round().clamp(-127, 127).nan_to_num(0).to(torch.int8)
    return torch.cat((q, scale.contiguous().view(torch.int8)), dim=-1)


def from_cache(rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what ``to_cache`` kept: (..., D) in ``dtype``."""
    if rows.dtype != torch.int8:
        return rows.to(dtype)
    scale = rows[..., -_SCALE_BYTES:].contiguous().view(torch.float32)
    return (rows[..., :-_SCALE_BYTES] * scale).to(dtype)


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


@torch.library.custom_op("edge::softcap", mutates_args=())
def softcap(x: torch.Tensor, cap: float) -> torch.Tensor:
    """cap * tanh(x / cap), with a cap above 0."""
    return cap * torch.tanh(x / cap)


@softcap.register_fake
def _(x: torch.Tensor, cap: float) -> torch.Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("edge::causal_conv", mutates_args=("cache",))
def causal_conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    cache: torch.Tensor,
    positions: torch.Tensor,
    sequences: torch.Tensor,
) -> torch.Tensor:
    """Writes x at (sequence, position), then convolves each column over the rows of its sequence,
    which are read back from the cache; those before position 0 count as zeros.

    Args:
        x: (T, W).
        weight: (W, L), the tap of the token's own row last.
        bias: (W,) or None.
        cache: (slots, context, W) float32; mutated.
        positions: (T,) int64, as in `attention`.
        sequences: (T,) int64, the slot of each token.

    Returns:
        (T, W) in the dtype of x.
    """
    cache[sequences, positions] = x.to(cache.dtype)
    out = x.new_zeros(x.shape) if bias is None else bias.expand_as(x).clone()
    taps = weight.shape[1]
    for tap in range(taps):
        seen = positions - (taps - 1 - tap)
        rows = cache[sequences, seen.clamp(min=0)].to(x.dtype)
        out += weight[:, tap] * rows.where((seen >= 0).unsqueeze(1), 0.0)
    return out


@causal_conv.register_fake
def _(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    cache: torch.Tensor,
    positions: torch.Tensor,
    sequences: torch.Tensor,
) -> torch.Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("edge::previous", mutates_args=("cache",))
def previous(
    x: torch.Tensor, cache: torch.Tensor, positions: torch.Tensor, sequences: torch.Tensor
) -> torch.Tensor:
    """Writes x at (sequence, position), then gives the row of the position before in the same
    sequence; zeros before position 0.

    Args:
        x: (T, W).
        cache: (slots, context, W) float32; mutated.
        positions: (T,) int64, as in `attention`.
        sequences: (T,) int64, the slot of each token.

    Returns:
        (T, W) in the dtype of x.
    """
    cache[sequences, positions] = x.to(cache.dtype)
    rows = cache[sequences, (positions - 1).clamp(min=0)].to(x.dtype)
    return rows.where((positions > 0).unsqueeze(1), 0.0)


@previous.register_fake
def _(
    x: torch.Tensor, cache: torch.Tensor, positions: torch.Tensor, sequences: torch.Tensor
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
    sinks: torch.Tensor | None,
    scale: float,
    window: int,
    softcap: float,
    bidirectional: bool,
) -> torch.Tensor:
    """Writes k and v at (sequence, position), then attends within each sequence.

    Keys and values are read back from the cache, those of this step included, so that a cache of
    lower precision acts on every token alike. The token at position i sees positions j <= i, and
    with a window only those with i - j < window. Bidirectional, it sees those behind it too, with
    j - i < window: all of them are to be of this step.

    Args:
        q: (T, Hq, D).
        k: (T, Hkv, D); Hkv divides Hq, and query head h reads key head h * Hkv // Hq.
        v: (T, Hkv, D).
        k_cache: (slots, context, Hkv, ``cache_width``), a float dtype or int8; mutated.
        v_cache: like k_cache; mutated.
        positions: (T,) int64; every position of a sequence below these has been written before,
            by this step or an earlier one.
        sequences: (T,) int64, the slot of each token.
        sinks: (Hq,) or None: a score more of each head, which takes its part of the softmax and
            adds nothing.
        scale: factor of the dot products.
        window: 0 for none.
        softcap: 0 for none; else scores become softcap * tanh(scores / softcap).
        bidirectional: whether a token sees those behind it.

    Returns:
        (T, Hq, D) in the dtype of q.
    """
    k_cache[sequences, positions] = to_cache(k, k_cache.dtype)
    v_cache[sequences, positions] = to_cache(v, v_cache.dtype)
    return _attended(
        q, k_cache, v_cache, positions, sequences, sinks, scale, window, softcap, bidirectional
    )


def _attended(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    positions: torch.Tensor,
    sequences: torch.Tensor,
    sinks: torch.Tensor | None,
    scale: float,
    window: int,
    softcap: float,
    bidirectional: bool,
) -> torch.Tensor:
    """The second half of `attention`: what each token makes of the keys and values it sees."""
    group = q.shape[1] // k_cache.shape[2]
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    for slot in torch.unique(sequences).tolist():
        tokens = (sequences == slot).nonzero().squeeze(1)  # (t,)
        i = positions[tokens].unsqueeze(1)  # (t, 1)
        n = int(i.max()) + 1
        keys = from_cache(k_cache[slot, :n], q.dtype).repeat_interleave(group, dim=1)  # (n, Hq, D)
        values = from_cache(v_cache[slot, :n], q.dtype).repeat_interleave(group, dim=1)
        scores = torch.einsum("thd,nhd->htn", q[tokens], keys) * scale
        if softcap > 0.0:
            scores = softcap * torch.tanh(scores / softcap)
        j = torch.arange(n, device=q.device).unsqueeze(0)  # (1, n)
        visible = (j <= i) | bidirectional
        if window > 0:
            visible &= (i - j).abs() < window
        scores = scores.masked_fill(~visible, float("-inf"))
        if sinks is not None:
            extra = sinks[:, None, None].to(scores.dtype).expand(-1, len(tokens), 1)
            scores = torch.cat((scores, extra), dim=-1)
        weights = scores.softmax(dim=-1)[..., :n]
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
    sinks: torch.Tensor | None,
    scale: float,
    window: int,
    softcap: float,
    bidirectional: bool,
) -> torch.Tensor:
    return torch.empty_like(q, memory_format=torch.contiguous_format)


@torch.library.custom_op("edge::attend", mutates_args=())
def attend(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    positions: torch.Tensor,
    sequences: torch.Tensor,
    scale: float,
    window: int,
    softcap: float,
) -> torch.Tensor:
    """`attention` over the keys and values of another layer, which has written those of this step
    before.

    Args:
        q: (R, Hq, D), of some of the step's tokens.
        k_cache: the other layer's; Hkv divides Hq.
        v_cache: like k_cache.
        positions: (R,) int64, of these tokens.
        sequences: (R,) int64, likewise.
        scale: as in `attention`, like all that follows.
        window: that of the other layer.
        softcap: 0 for none.

    Returns:
        (R, Hq, D) in the dtype of q.
    """
    return _attended(q, k_cache, v_cache, positions, sequences, None, scale, window, softcap, False)


@attend.register_fake
def _(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    positions: torch.Tensor,
    sequences: torch.Tensor,
    scale: float,
    window: int,
    softcap: float,
) -> torch.Tensor:
    return torch.empty_like(q, memory_format=torch.contiguous_format)
