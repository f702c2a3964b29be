"""How many workers compute a step: fewer than there are, where others want the same cores.

The workers of a step wait for each other many times. Where another process has one of their cores,
all wait until it gives it back, and the step takes longer than with a worker less. Which number is
best can only be measured. It changes no bit of a result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

SMALL_TOKENS = 16  # larger steps wait for each other less often, and have all workers
_BLOCK_SECONDS = 0.02  # a block of steps: several turns of the system's scheduler
_BLOCK_STEPS = 4
_BETTER = 0.93  # of the seconds: what a change has to save
_HOPELESS = 2.0  # times what is usual: a trial ends early
_SLOWED = 1.25  # times the fastest that was seen: somebody else is here
_LEAST_WAIT, _MOST_WAIT = 0.2, 3.0  # seconds of steps between two trials
_MEMORY = 1 / 16  # weight of a step in what is usual
# Weights of a step in what the fastest ones take, where it was faster, and slower: contexts grow.
_FASTER, _SLOWER = 1 / 8, 1 / 1000
_ALARM = 0.06  # seconds of slow steps in a row before the first trial


class Staff(NamedTuple):
    """Who computes a step: so many ``workers`` (0: all), and whether they sleep while they wait."""

    workers: int = 0
    patient: bool = False


@dataclass(slots=True)
class _Block:
    """Steps of a trial, or between two: their seconds, and what was usual for the same."""

    steps: int = 0
    seconds: float = 0.0
    usual: float = 0.0
    fastest: float = 0.0

    @property
    def ended(self) -> bool:
        enough = self.steps >= _BLOCK_STEPS or self.seconds > _HOPELESS * self.usual
        return enough and self.seconds >= _BLOCK_SECONDS


@dataclass(slots=True)
class Crew:
    """Chooses among 1 to ``most`` workers. Ask `workers` before a step, `record` it after."""

    most: int
    _count: int = 0
    _trial: int = 0  # that are tried; 0: no trial is on
    _turn: int = 0  # of the candidates for a trial
    _wait: float = _LEAST_WAIT
    _waited: float = 0.0
    _block: _Block = field(default_factory=_Block)
    _usual: dict[int, float] = field(default_factory=dict)  # seconds of a step by its tokens
    _fastest: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._count = self.most

    def workers(self, tokens: int) -> int:
        """Return how many workers are to compute a step of so many tokens."""
        if tokens > SMALL_TOKENS:
            return self.most
        return self._trial or self._count

    def record(self, tokens: int, seconds: float) -> None:
        """Note how long a step took, with the number of workers that was told for it."""
        if self.most == 1 or tokens > SMALL_TOKENS or seconds <= 0:
            return
        usual = self._usual.get(tokens)
        if self._trial:
            if usual is None:  # nothing to compare it with
                self._trial, self._block = 0, _Block()
                return
        elif usual is None:
            self._usual[tokens] = seconds
            self._fastest.setdefault(tokens, seconds)
            return
        else:
            self._usual[tokens] = usual + (seconds - usual) * _MEMORY
        block, fastest = self._block, self._fastest[tokens]
        fastest += (seconds - fastest) * (_FASTER if seconds < fastest else _SLOWER)
        self._fastest[tokens] = fastest
        block.steps += 1
        block.seconds += seconds
        block.usual += usual
        block.fastest += fastest
        if block.ended:
            self._block = _Block()
            if self._trial:
                self._judge(block)
            else:
                self._consider(block)

    def _consider(self, block: _Block) -> None:
        """Begin a trial, if it is time for one."""
        self._waited += block.seconds
        if self._count == self.most and block.seconds < _SLOWED * block.fastest:
            self._wait, self._waited = _LEAST_WAIT, _LEAST_WAIT - _ALARM  # as fast as ever
        elif self._waited >= self._wait:
            self._begin()

    def _begin(self) -> None:
        """Begin a trial of another number: some less, some more, or one alone."""
        part = max(1, self._count // 4)
        found = (self._count - part, min(self.most, self._count + part), 1)
        candidates = sorted({count for count in found if 0 < count != self._count}, reverse=True)
        self._turn += 1
        self._trial = candidates[self._turn % len(candidates)]

    def _judge(self, block: _Block) -> None:
        """End a trial."""
        if block.seconds < _BETTER * block.usual:
            self._count = self._trial
            self._usual.clear()
            self._wait = self._waited = _LEAST_WAIT  # one more of the same may be better still
        else:
            self._wait, self._waited = min(2 * self._wait, _MOST_WAIT), 0.0
        self._trial = 0
