"""How many prompt tokens a step may take, so that nobody waits long for it to end: a running
sequence for its next token, a cancelled one for its blocks."""

from __future__ import annotations

STEP_SECONDS = 0.1
LEAST_TOKENS = 32  # below, weights are read again too often; such steps tell nothing about the rate


class Pace:
    """Adapts to how fast this machine computes prompts. Where a prompt is cut changes no bit of the
    result, so that it may depend on the clock."""

    def __init__(self, least: int, most: int) -> None:
        """``most``: tokens of a step at any rate; ``least``: what a step must be able to take."""
        self._least = min(most, max(LEAST_TOKENS, least))
        self._most = most
        self.tokens = min(most, max(2 * LEAST_TOKENS, least))

    def record(self, tokens: int, seconds: float) -> None:
        """Note that a step of ``tokens`` took ``seconds``. Half of the next budget is what was
        known before: one slow step is often somebody else's doing."""
        if tokens < LEAST_TOKENS or seconds <= 0:
            return
        fitting = min(tokens * STEP_SECONDS / seconds, float(self._most))
        self.tokens = max(self._least, round((self.tokens + fitting) / 2))
