"""The operators that ATen cannot say well, registered as ``torch.ops.edge``.

The bodies here are the definition of their meaning, written for clarity. They run in eager mode
and are never traced: ``torch.export`` keeps each call as one node, with the cache a buffer that the
node mutates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

import torch
from torch.nn import functional

from edge_llm.program.ops import ACTIVATIONS, SCORINGS

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


class ForcedRoutes:
    """The experts that each `route` in turn has to choose, whatever its logits are; two models can
    only be compared where they send tokens to the same ones.

    Attributes:
        rows: tokens that were routed, each counted once a route.
        flipped: those of them that would have gone to others.
    """

    def __init__(self, shares: Sequence[torch.Tensor]) -> None:
        """Take the experts with a share in each of ``shares`` [T, E], one a route."""
        self._shares = iter(shares)
        self.rows = self.flipped = 0

    def choose(self, own: torch.Tensor) -> torch.Tensor:
        """Return the next choice, indices (T, chosen), given the one that the route would make."""
        taken = next(self._shares) != 0.0
        index = taken.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices
        mine = torch.zeros_like(taken).scatter(1, own, True)
        self.rows += len(own)
        self.flipped += int((mine != taken).any(dim=-1).sum())
        return index[:, : own.shape[1]]


_FORCED: ContextVar[ForcedRoutes | None] = ContextVar("forced", default=None)


@contextmanager
def forced_routes(shares: Sequence[torch.Tensor]) -> Iterator[ForcedRoutes]:
    """Let the routes of a model that runs meanwhile choose the experts that have ``shares``."""
    forced = ForcedRoutes(shares)
    token = _FORCED.set(forced)
    try:
        yield forced
    finally:
        _FORCED.reset(token)


@torch.library.custom_op("edge::route", mutates_args=())
def route(
    logits: torch.Tensor,
    bias: torch.Tensor | None,
    chosen: int,
    scoring: str,
    normalize: bool,
    eps: float,
    scale: float,
) -> torch.Tensor:
    """Choose the experts of each token, and the share that each of them has in the sum.

    Chosen are those with the largest logits, or with a bias those with the largest sum of score and
    bias; of equal ones the first. Their scores, divided by their sum plus ``eps`` where
    ``normalize`` asks for it, times ``scale``, are the shares.

    Args:
        logits: (T, E) float32.
        bias: (E,), for the choice alone.
        chosen: how many of the E.
        scoring: one of SCORINGS, of all logits or of those of the chosen alone.
        normalize: divide the shares by their sum.
        eps: added to that sum.
        scale: factor of the shares.

    Returns:
        (T, E), 0 for experts that are not chosen.
    """
    scores = logits.sigmoid() if scoring == "sigmoid" else logits.softmax(dim=-1)
    keys = logits if bias is None else scores + bias
    index = keys.sort(dim=-1, descending=True, stable=True).indices[:, :chosen]
    forced = _FORCED.get()
    if forced is not None:
        index = forced.choose(index)
    taken = (logits if scoring == "softmax of the chosen" else scores).gather(1, index)
    if scoring == "softmax of the chosen":
        taken = taken.softmax(dim=-1)
    if normalize:
        taken = taken / (taken.sum(dim=-1, keepdim=True) + eps)
    return torch.zeros_like(logits).scatter(1, index, taken * scale)


@route.register_fake
def _(
    logits: torch.Tensor,
    bias: torch.Tensor | None,
    chosen: int,
    scoring: str,
    normalize: bool,
    eps: float,
    scale: float,
) -> torch.Tensor:
    if scoring not in SCORINGS:
        raise ValueError(f"scoring: got {scoring!r}, expected one of {SCORINGS}")
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def gated(
    gate: torch.Tensor, up: torch.Tensor, activation: str, alpha: float, limit: float
) -> torch.Tensor:
    """Return ``up`` times the activated ``gate``, by one of ACTIVATIONS; gelu is the tanh
    approximation. "clamped" (arXiv 2508.10925): the gate is at most ``limit`` and has the sigmoid
    of ``alpha`` times itself, ``up`` is kept from -limit to limit, and is 1 more."""
    if activation == "clamped":
        gate = gate.clamp(max=limit)
        return gate * torch.sigmoid(alpha * gate) * (up.clamp(-limit, limit) + 1.0)
    if activation == "silu":
        return functional.silu(gate) * up
    return functional.gelu(gate, approximate="tanh") * up


@torch.library.custom_op("edge::experts", mutates_args=())
def experts(
    x: torch.Tensor,
    shares: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    gate_bias: torch.Tensor | None,
    up_bias: torch.Tensor | None,
    down_bias: torch.Tensor | None,
    chosen: int,
    activation: str,
    alpha: float,
    limit: float,
) -> torch.Tensor:
    """Return the sum of what the experts of each token make of it, each times its share, in their
    order: down(gated(gate(x), up(x))).

    Args:
        x: (T, D).
        shares: (T, E); an expert computes the tokens in which its share is not 0, of which a
            token has at most ``chosen``.
        gate: (E, F, D).
        up: (E, F, D).
        down: (E, D, F).
        gate_bias: (E, F), added to the products with ``gate``, or None.
        up_bias: (E, F) or None.
        down_bias: (E, D) or None.
        chosen: the most experts of a token.
        activation: as in `gated`, with ``alpha`` and ``limit``.

    Returns:
        (T, D).
    """
    out = torch.zeros_like(x)
    for expert in range(len(gate)):
        tokens = shares[:, expert].nonzero().squeeze(1)
        if len(tokens):
            inner = gated(
                functional.linear(x[tokens], gate[expert], _row(gate_bias, expert)),
                functional.linear(x[tokens], up[expert], _row(up_bias, expert)),
                activation,
                alpha,
                limit,
            )
            made = functional.linear(inner, down[expert], _row(down_bias, expert))
            out[tokens] += shares[tokens, expert, None] * made
    return out


def _row(biases: torch.Tensor | None, expert: int) -> torch.Tensor | None:
    return None if biases is None else biases[expert]


@experts.register_fake
def _(
    x: torch.Tensor,
    shares: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    gate_bias: torch.Tensor | None,
    up_bias: torch.Tensor | None,
    down_bias: torch.Tensor | None,
    chosen: int,
    activation: str,
    alpha: float,
    limit: float,
) -> torch.Tensor:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: got {activation!r}, expected one of {ACTIVATIONS}")
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
) -> torch.Tensor:
    """Writes k and v at (sequence, position), then attends causally within each sequence.

    Keys and values are read back from the cache, those of this step included, so that a cache of
    lower precision acts on every token alike. The token at position i sees positions j <= i, and
    with a window only those with i - j < window.

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

    Returns:
        (T, Hq, D) in the dtype of q.
    """
    k_cache[sequences, positions] = to_cache(k, k_cache.dtype)
    v_cache[sequences, positions] = to_cache(v, v_cache.dtype)
    group = q.shape[1] // k.shape[1]
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
        visible = j <= i
        if window > 0:
            visible &= i - j < window
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
) -> torch.Tensor:
    return torch.empty_like(q, memory_format=torch.contiguous_format)


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
