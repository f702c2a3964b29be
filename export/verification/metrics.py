"""How far apart the logits of two models are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edge_llm.export.verification.threads import Each, in_turn

NEAR = 0.1
_POSITIONS = 4  # compared at a time: in float64 a large vocabulary takes a megabyte each

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison of the program's logits with eager ones, over ``positions``. ``kl`` (nats) and
    ``cosine`` are means, ``max_kl`` and ``min_cosine`` the worst position. ``top1`` is the share of
    positions with the same likeliest id; ``top1_near`` counts those too where eager's choice leads
    the program's by at most NEAR; ``top1_margin`` is the largest such lead, ``max_error`` the
    largest difference of a logit: all three in standard deviations of the position's logits."""

    positions: int
    kl: float
    max_kl: float
    cosine: float
    min_cosine: float
    top1: float
    top1_near: float
    top1_margin: float
    max_error: float


def compare_logits(program: Float32, eager: Float32) -> Comparison:
    """Compare logits [n, vocab] with others of the same shape."""
    return compare_all(((program, eager),), in_turn)[0]


def compare_all(pairs: Sequence[tuple[Float32, Float32]], each: Each) -> list[Comparison]:
    """Return `compare_logits` of each pair; all arrays have one shape, [n, vocab]."""
    positions = len(pairs[0][0])
    figures = torch.empty(len(pairs), 4, positions, dtype=torch.float64)

    def compare(rows: slice) -> None:
        for index, (ours, theirs) in enumerate(pairs):
            figures[index, :, rows] = _per_position(
                torch.from_numpy(ours[rows]).double(), torch.from_numpy(theirs[rows]).double()
            )

    each(compare, (slice(i, i + _POSITIONS) for i in range(0, positions, _POSITIONS)))
    return [_comparison(*columns) for columns in figures]


def _comparison(
    kl: torch.Tensor, cosine: torch.Tensor, lead: torch.Tensor, error: torch.Tensor
) -> Comparison:
    return Comparison(
        positions=len(kl),
        kl=float(kl.mean()),
        max_kl=float(kl.max()),
        cosine=float(cosine.mean()),
        min_cosine=float(cosine.min()),
        top1=float((lead == 0.0).double().mean()),
        top1_near=float((lead <= NEAR).double().mean()),
        top1_margin=float(lead.max()),
        max_error=float(error.max()),
    )


def _per_position(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """KL, cosine, lead of their choice over ours, largest error: [4, n]."""
    log_ours, log_theirs = ours.log_softmax(dim=1), theirs.log_softmax(dim=1)
    kl = (log_theirs.exp() * (log_theirs - log_ours)).sum(dim=1)
    cosine = torch.nn.functional.cosine_similarity(ours, theirs, dim=1)
    spread = theirs.std(dim=1)
    chosen = ours.argmax(dim=1, keepdim=True)
    lead = (theirs.amax(dim=1) - theirs.gather(1, chosen).squeeze(1)) / spread
    error = (ours - theirs).abs().amax(dim=1) / spread
    return torch.stack((kl, cosine, lead, error))
