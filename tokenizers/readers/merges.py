"""Merges of a BPE vocabulary that has none: files that rank whole tokens merge any two neighbours
that make a token, the best-ranked token first."""

from __future__ import annotations

from collections.abc import Mapping

from edge_llm.errors import TokenizerError

# What the largest known vocabularies have, and room: 128, 2**21 and 2**20. Beyond it, time and
# memory grow with the product of count and length.
MAX_LENGTH = 256  # characters of a token
MAX_TOTAL = 2**22  # characters of all tokens together
MAX_MERGES = 2**21


def rebuild_merges(ranks: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return every pair of tokens that makes a third, best first.

    The order is that of ``ranks`` (low before high) for the token that a pair makes, then of the
    left part, then of the right one, as ``transformers`` orders them.

    Raises:
        TokenizerError: tokens that are longer, or split in more ways, than any real vocabulary's.
    """
    longest = max(map(len, ranks), default=0)
    total = sum(map(len, ranks))
    if longest > MAX_LENGTH or total > MAX_TOTAL:
        raise TokenizerError(
            f"the longest token has {longest} characters, all together {total}; "
            f"at most {MAX_LENGTH} and {MAX_TOTAL} can be"
        )
    same = {token: token for token in ranks}  # one object for all its mentions
    merges: list[tuple[str, str]] = []
    for token in sorted(ranks, key=ranks.__getitem__):
        parts = [
            (left, right)
            for at in range(1, len(token))
            if (left := same.get(token[:at])) is not None
            and (right := same.get(token[at:])) is not None
        ]
        parts.sort(key=lambda part: (ranks[part[0]], ranks[part[1]]))
        merges += parts
        if len(merges) > MAX_MERGES:
            raise TokenizerError(f"more than {MAX_MERGES} pairs of tokens make another token")
    return merges
