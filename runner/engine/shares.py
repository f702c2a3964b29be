"""Fair shares between clients: whose request is next, and how many prompt tokens each may have.

Pure policy, like the scheduler: no arithmetic on tensors, no I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Ids

from edge_llm.runner.engine.sequence import Sequence

_REMEMBERED = 1000  # clients whose last request has begun


class Turns:
    """Numbers the requests of each client, so that in the order of the numbers clients take turns
    and none gains from having asked for much at once."""

    def __init__(self) -> None:
        self._now = 0  # the turn of what was begun last
        self._last: dict[str, int] = {}  # client -> the turn of its last request

    def give(self, client: str) -> int:
        """Return the turn of a client's next request."""
        turn = max(self._now, self._last.get(client, -1) + 1)
        self._last[client] = turn
        return turn

    def withdraw(self, sequence: Sequence, waiting: Iterable[Sequence]) -> None:
        """Note that a request was never begun and never will be: those that its client asked for
        later, which are among ``waiting``, get their turns one earlier."""
        client, turn = sequence.client, sequence.turn
        if self._last.get(client, -1) >= turn:
            self._last[client] -= 1
        for other in waiting:
            if other.client == client and other.turn > turn:
                other.turn -= 1

    def begin(self, turn: int) -> None:
        """Note that a request is begun."""
        if turn > self._now:
            self._now = least = turn
        elif len(self._last) > _REMEMBERED:
            least = self._now + 1  # the others lose no more than that this turn counts
        else:
            return
        self._last = {client: last for client, last in self._last.items() if last >= least}


def next_of(waiting: Iterable[Sequence], running: Iterable[Sequence]) -> Sequence | None:
    """Return who is to begin: one of a client that has nothing running before others, and then by
    turn, and by arrival; None if nobody waits."""
    busy = {sequence.client for sequence in running}
    return min(
        waiting, key=lambda other: (other.client in busy, other.turn, other.arrival), default=None
    )


def who_makes_room(running: Ids[Sequence], client: str) -> Sequence | None:
    """Return who gives way to a ``client`` that has nothing running: the youngest of the one that
    has most; None if it has something, or nobody has two. ``running`` are in order of arrival."""
    counts = Counter(sequence.client for sequence in running)
    if client in counts or not counts:
        return None
    most, count = counts.most_common(1)[0]
    if count < 2:
        return None
    return next(sequence for sequence in reversed(running) if sequence.client == most)


def portions(wanted: Mapping[str, int], budget: int) -> dict[str, int]:
    """Return how many tokens each client gets of a budget: equally many, but none more than it
    wants, and what one leaves goes to the others. What cannot be shared goes to the first."""
    got = dict.fromkeys(wanted, 0)
    open_ = [client for client, tokens in wanted.items() if tokens > 0]
    while budget > 0 and open_:
        share = max(1, budget // len(open_))
        for client in open_:
            more = min(share, wanted[client] - got[client], budget)
            got[client] += more
            budget -= more
        open_ = [client for client in open_ if got[client] < wanted[client]]
    return got
