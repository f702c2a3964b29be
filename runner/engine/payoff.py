"""Drafts are checked where it pays: a step with more rows takes longer, for all who are in it."""

from __future__ import annotations

_RISE = 0.04  # of a step's time a row, until it is measured
_LEARNED = 1 / 8  # weight of a step in what is known of its size
_FORGOTTEN = 1 / 1000  # by which what is known of others goes back to that rise, a step of one
_OUTLIER = 3.0  # times what is known: the rest is somebody else's doing
_GAIN = 1.05  # what is expected must be better than without by so much
_BEYOND = 2  # lengths that are looked at behind the best: costs rise in stairs
_MOST_ROWS = 64  # of steps that are looked at


class Payoff:
    """Knows what steps of so many tokens take, measured, relative to one token's. Call `begin`
    before drafts of a step are asked for, `length` for each, and `record` after it."""

    def __init__(self) -> None:
        self._one = 0.0  # seconds of a step of one token, or what it would take
        self._cost: dict[int, float] = {}  # tokens -> times that
        self._tokens = 0
        self._expected = 0.0
        self._drawn = 0.0  # what making the drafts costs, in steps of one token

    @property
    def seconds(self) -> float:
        """What a step of one token takes; 0: none was measured."""
        return self._one

    def begin(self, tokens: int) -> None:
        """Begin with a step of so many tokens, without drafts."""
        self._tokens = tokens
        self._expected = float(tokens)
        self._drawn = 0.0

    def length(self, chance: float, most: int, each: float = 0.0) -> int:
        """Return how many of ``most`` proposed tokens, each of which is right with a ``chance``
        where those before it are, pay in the step that has begun; they are counted in. To make
        one takes ``each`` steps of one token, for all sequences at once."""
        base = self.cost(self._tokens) + self._drawn
        best, count, extra = self._expected / base * _GAIN, 0, 0.0
        right, gain = 1.0, 0.0
        for length in range(1, min(most, _MOST_ROWS - self._tokens) + 1):
            right *= chance
            gain += right
            cost = self.cost(self._tokens + length) + max(self._drawn, each * length)
            rate = (self._expected + gain) / cost
            if rate > best:
                best, count, extra = rate, length, gain
            elif length - count > _BEYOND:
                break
        self._tokens += count
        self._expected += extra
        self._drawn = max(self._drawn, each * count)
        return count

    def record(self, tokens: int, seconds: float) -> None:
        """Note how long a step of so many tokens took that had no prompt in it."""
        if not 0 < tokens <= _MOST_ROWS or seconds <= 0:
            return
        if not self._one:
            self._one = seconds / self.cost(tokens)
        known = self.cost(tokens)
        # Never more than so many steps of one: dearer is as useless.
        cost = min(seconds / self._one, _OUTLIER * known, max(tokens, _OUTLIER))
        if tokens > 1:
            self._cost[tokens] = known + (cost - known) * _LEARNED if tokens in self._cost else cost
            return
        self._one *= 1 + (cost - 1) * _LEARNED
        for other, value in self._cost.items():
            self._cost[other] = value + (self._prior(other) - value) * _FORGOTTEN

    def cost(self, tokens: int) -> float:
        """Return what a step of so many tokens takes, in steps of one token."""
        if tokens <= 1:
            return 1.0
        if tokens in self._cost:
            return self._cost[tokens]
        below = max((size for size in self._cost if size < tokens), default=1)
        lower = self._cost.get(below, 1.0)
        above = min((size for size in self._cost if size > tokens), default=0)
        if above:
            share = (tokens - below) / (above - below)
            return lower + (self._cost[above] - lower) * share
        return lower + _RISE * (tokens - below)

    @staticmethod
    def _prior(tokens: int) -> float:
        return 1.0 + _RISE * (tokens - 1)
