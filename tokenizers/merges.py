"""Merges of a BPE vocabulary that has none: files that rank whole tokens merge any two neighbours
that make a token, the best-ranked token first."""

from __future__ import annotations

from collections.abc import Mapping

from edge_llm.errors import TokenizerError

MAX_LENGTH = 512  # characters of a token; the longest known ones have 128
MAX_TOTAL = 2**23  # of all tokens together; the largest known vocabularies have about 2**21


def rebuild_merges(ranks: Mapping[str, float]) -> list[tuple[str, str]]:
    """Every pair of tokens that makes a third, best first.

    The order is that of ``ranks`` (low before high) for the token that a pair makes, then of the
    left part, then of the right one, as ``transformers`` orders them.

    Raises:
        TokenizerError: tokens longer than any real vocabulary's, which would take minutes.
    """
    longest = max(map(len, ranks), default=0)
    total = sum(map(len, ranks))
    if longest > MAX_LENGTH or total > MAX_TOTAL:
        raise TokenizerError(
            f"the longest token has {longest} characters, all together {total}; "
            f"at most {MAX_LENGTH} and {MAX_TOTAL} can be"
        )
    merges: list[tuple[str, str]] = []
    for token in sorted(ranks, key=ranks.__getitem__):
        parts = [
            (left, right)
            for at in range(1, len(token))
            if (left := token[:at]) in ranks and (right := token[at:]) in ranks
        ]
        parts.sort(key=lambda part: (ranks[part[0]], ranks[part[1]]))
        merges += parts
    return merges
