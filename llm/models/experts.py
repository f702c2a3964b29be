"""Experts: the operators that route tokens and compute them, and the modules that call those.

As in `ops.py`, the bodies of operators define their meaning and are never traced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import nn
from torch.nn import functional

from edge_llm.llm.models.layers import GatedMLP
from edge_llm.program.ops import ACTIVATIONS, SCORINGS


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
    factors: torch.Tensor | None = None,
    threshold: float = 0.0,
) -> torch.Tensor:
    """Choose the experts of each token, and the share that each of them has in the sum.

    Chosen are those with the largest logits, or with a bias those with the largest sum of score and
    bias; of equal ones the first. Their scores, divided by their sum plus ``eps`` where
    ``normalize`` asks for it, times ``scale`` and the expert's own factor, are the shares.

    Args:
        logits: (T, E) float32.
        bias: (E,), for the choice alone.
        chosen: how many of the E.
        scoring: one of SCORINGS, of all logits, of those of the chosen alone, or for each of these
            of those near its own: not of those chosen before it, nor of an x where
            (own - x) / max(|x|, own) is more than ``threshold``.
        normalize: divide the shares by their sum.
        eps: added to that sum.
        scale: factor of the shares.
        factors: (E,), one more of each expert, or None.
        threshold: of the last scoring.

    Returns:
        (T, E), 0 for experts that are not chosen.
    """
    scores = logits.sigmoid() if scoring == "sigmoid" else logits.softmax(dim=-1)
    keys = logits if bias is None else scores + bias
    index = keys.sort(dim=-1, descending=True, stable=True).indices[:, :chosen]
    forced = _FORCED.get()
    if forced is not None:
        index = forced.choose(index)  # the largest of them first, as without
        order = keys.gather(1, index).sort(dim=-1, descending=True, stable=True).indices
        index = index.gather(1, order)
    if scoring == "softmax of the chosen":
        taken = logits.gather(1, index).softmax(dim=-1)
    elif scoring == "softmax of those near":
        taken = _near_shares(logits, index, threshold)
    else:
        taken = scores.gather(1, index)
    if normalize:
        taken = taken / (taken.sum(dim=-1, keepdim=True) + eps)
    taken = taken * scale
    if factors is not None:
        taken = taken * factors[index]
    return torch.zeros_like(logits).scatter(1, index, taken)


@route.register_fake
def _(
    logits: torch.Tensor,
    bias: torch.Tensor | None,
    chosen: int,
    scoring: str,
    normalize: bool,
    eps: float,
    scale: float,
    factors: torch.Tensor | None = None,
    threshold: float = 0.0,
) -> torch.Tensor:
    if scoring not in SCORINGS:
        raise ValueError(f"scoring: got {scoring!r}, expected one of {SCORINGS}")
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _near_shares(logits: torch.Tensor, index: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return the scores by "softmax of those near" of the chosen at ``index``, in its order."""
    left, shares = logits, []
    for chosen in torch.split(index, 1, dim=-1):  # (T, 1)
        own = logits.gather(1, chosen)
        far = (own - left) / left.abs().maximum(own) > threshold
        near = left.masked_fill(far, -torch.inf)
        shares.append(near.softmax(dim=-1).gather(1, chosen))
        left = left.scatter(1, chosen, -torch.inf)
    return torch.cat(shares, dim=-1)


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
def experts_of(
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


@experts_of.register_fake
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


class Experts(nn.Module):
    """Many gated MLPs, stacked; each token goes through those that have a share in it. ``alpha``
    and ``limit`` are those of the activation "clamped"; ``names`` are those of the gates, of what
    they let through, and of what follows."""

    def __init__(
        self,
        dim: int,
        ffn: int,
        *,
        experts: int,
        chosen: int,
        bias: bool = False,
        activation: str = "silu",
        alpha: float = 0.0,
        limit: float = 0.0,
        names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
    ) -> None:
        super().__init__()
        self.chosen, self.activation, self.names = chosen, activation, names
        self.alpha, self.limit = alpha, limit
        for name, (n, k) in zip(names, ((ffn, dim), (ffn, dim), (dim, ffn)), strict=True):
            self.register_parameter(name, nn.Parameter(torch.empty(experts, n, k)))
            biases = nn.Parameter(torch.empty(experts, n)) if bias else None
            self.register_parameter(f"{name}_bias", biases)

    def forward(self, x: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """x: (T, D), shares: (T, E). Returns (T, D)."""
        out: torch.Tensor = experts_of(
            x,
            shares,
            *(getattr(self, name) for name in self.names),
            *(getattr(self, f"{name}_bias") for name in self.names),
            chosen=self.chosen,
            activation=self.activation,
            alpha=self.alpha,
            limit=self.limit,
        )
        return out


class SparseMLP(nn.Module):
    """A router, called ``gate`` as in checkpoints, and its experts. The scores of the chosen are
    those of a softmax over all, with ``normalize`` divided by their sum. With ``shared_ffn`` there
    is an expert more, for every token, whose share is a sigmoid."""

    def __init__(
        self,
        dim: int,
        ffn: int,
        *,
        experts: int,
        chosen: int,
        normalize: bool,
        shared_ffn: int = 0,
    ) -> None:
        super().__init__()
        self.chosen, self.normalize = chosen, normalize
        self.gate = nn.Linear(dim, experts, bias=False)
        self.experts = Experts(dim, ffn, experts=experts, chosen=chosen)
        self.shared_expert = GatedMLP(dim, shared_ffn) if shared_ffn else None
        self.shared_expert_gate = nn.Linear(dim, 1, bias=False) if shared_ffn else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shares = route(
            self.gate(x),
            None,
            chosen=self.chosen,
            scoring="softmax",
            normalize=self.normalize,
            eps=0.0,
            scale=1.0,
        )
        out: torch.Tensor = self.experts(x, shares)
        if self.shared_expert is not None and self.shared_expert_gate is not None:
            share = torch.sigmoid(self.shared_expert_gate(x))  # (T, 1)
            out = out + share * self.shared_expert(x)
        return out
