"""How many workers compute a step: fewer than there are, where others want the same cores.

The workers of a step wait for each other many times. Where another process has one of their cores,
all wait until it gives it back, and the step takes longer than with a worker less. Which number is
best can only be measured, for prompts and for answers apart. It changes no bit of a result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

SMALL_TOKENS = 16  # steps of answers have no more; larger ones have a part of a prompt
_BLOCK_SECONDS = 0.02  # a block of steps: several turns of the system's scheduler
_BLOCK_STEPS = 4
_TRIAL_SECONDS = 0.1  # after which a trial is judged
# Fewer workers, which others are glad of, are better where they take no longer; more have to gain
# this part of what so many could gain.
_GAIN_MORE = 0.6
_WORSE = 1.2  # times what is usual: a trial of a block ends
_HOPELESS = 2.0  # times what is usual: a trial ends even before
_ALONE = 0.75  # of a step that the engine's thread computes, which else waits: nobody else is here
_LEAST_WAIT, _MOST_WAIT = 0.2, 3.0  # seconds of steps between two trials
_MEMORY = 1.0  # seconds of steps that what is usual goes back to
_ALARM = 0.06  # seconds of slow steps in a row before the first trial
_WEIGHTS = 16  # tokens' worth of time that a step of any size takes to read the weights


class Staff(NamedTuple):
    """Who computes a step: so many ``workers`` (0: all), and whether they sleep while they wait."""

    workers: int = 0
    patient: bool = False


@dataclass(slots=True)
class _Block:
    """Steps of a trial, or between two: their seconds, those in which the engine's thread computed,
    and what was usual for the same."""

    steps: int = 0
    seconds: float = 0.0
    computed: float = 0.0
    usual: float = 0.0

    @property
    def ended(self) -> bool:
        if self.steps >= _BLOCK_STEPS or self.seconds >= _TRIAL_SECONDS:
            return self.seconds >= _BLOCK_SECONDS
        return self._is_hopeless

    @property
    def tried(self) -> bool:
        """True where a trial that took so long is over: what is good has to be so for longer."""
        if self.seconds >= _TRIAL_SECONDS:
            return True
        return self._is_hopeless or (self.ended and self.seconds > _WORSE * self.usual)

    @property
    def _is_hopeless(self) -> bool:
        return self.seconds > max(_BLOCK_SECONDS, _HOPELESS * self.usual)


@dataclass(slots=True)
class _Usual:
    """The mean of the seconds of a unit, over the last steps that were alike."""

    mean: float
    seen: float = 0.0  # seconds of steps that the mean is of, up to _MEMORY

    def add(self, unit: float, seconds: float) -> None:
        self.seen += seconds
        self.mean += (unit - self.mean) * seconds / self.seen
        self.seen = min(self.seen, _MEMORY)


class Crew:
    """Chooses among 1 to ``most`` workers. Ask `workers` before a step, `record` it after."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._answers, self._prompts = _Choice(most), _Choice(most, halves=True)

    def workers(self, tokens: int) -> int:
        """Return how many workers are to compute a step of so many tokens."""
        return self._choice(tokens).workers(tokens)

    def record(self, tokens: int, seconds: float, computed: float) -> None:
        """Note how long a step took with the number of workers that was told for it, and how long
        the thread that ran it had a core (the CPU time of that thread, in seconds)."""
        if self.most > 1 and seconds > 0:
            self._choice(tokens).record(tokens, seconds, computed)

    def _choice(self, tokens: int) -> _Choice:
        return self._answers if tokens <= SMALL_TOKENS else self._prompts


@dataclass(slots=True)
class _Choice:
    """The number of workers for steps of one kind. Steps that are long with all workers are tried
    with ``halves`` of a number, and not with one: somebody waits for their end."""

    most: int
    halves: bool = False
    _count: int = field(init=False)
    _trial: int = 0  # that are tried; 0: no trial is on
    _turn: int = 0  # of the candidates for a trial
    _alone: bool = True
    _wait: float = _LEAST_WAIT
    _waited: float = 0.0
    _block: _Block = field(default_factory=_Block)
    _usual: dict[int, _Usual] = field(default_factory=dict)  # by what like steps have in common

    def __post_init__(self) -> None:
        self._count = self.most

    def workers(self, tokens: int) -> int:
        like, _ = _likeness(tokens)
        return self._trial if self._tries(like) else self._count

    def record(self, tokens: int, seconds: float, computed: float) -> None:
        like, units = _likeness(tokens)
        tried = self._tries(like)
        usual = self._usual.setdefault(like, _Usual(seconds / units))
        if not tried:
            usual.add(seconds / units, seconds)
            if self._trial:  # which goes on behind it
                return
        block = self._block
        block.steps += 1
        block.seconds += seconds
        block.computed += computed
        block.usual += usual.mean * units
        if tried and block.tried:
            self._judge(block)
        elif not tried and block.ended:
            self._consider(block)
        else:
            return
        self._block = _Block()

    def _tries(self, like: int) -> bool:
        """Return True where such a step is a part of a trial: there is one, and something to
        compare the step with."""
        return self._trial > 0 and like in self._usual

    def _consider(self, block: _Block) -> None:
        """Begin a trial, if it is time for one."""
        self._waited += block.seconds
        if self._count == self.most and block.computed > _ALONE * block.seconds:
            self._alone = True
            self._wait, self._waited = _LEAST_WAIT, _LEAST_WAIT - _ALARM
        elif self._alone:  # until now
            self._alone = False
            self._usual.clear()
        elif self._waited >= self._wait:
            self._begin()

    def _begin(self) -> None:
        """Begin a trial of another number: some less, some more, far fewer, or all."""
        part = -(-self._count // 4)
        least = max(1, self._count // 2) if self.halves else 1
        found = {self._count - part, min(self.most, self._count + part), least, self.most}
        candidates = sorted(found - {0, self._count}, reverse=True)
        self._turn += 1
        self._trial = candidates[self._turn % len(candidates)]

    def _judge(self, block: _Block) -> None:
        """End a trial."""
        gain = 1 - self._count / self._trial  # that so many would have, were nobody else here
        better = 1 - _GAIN_MORE * max(0.0, gain)
        alone = self._trial == self.most and block.computed > _ALONE * block.seconds
        if alone or block.seconds < better * block.usual:
            self._count = self._trial
            self._usual.clear()
            self._wait = self._waited = _LEAST_WAIT  # one more of the same may be better still
        else:
            self._wait, self._waited = min(2 * self._wait, _MOST_WAIT), 0.0
        self._trial = 0


def _likeness(tokens: int) -> tuple[int, float]:
    """Return what steps of like sizes have in common, and the units of time that one takes: each
    small size stands for itself, and large ones go together by powers of two."""
    if tokens <= SMALL_TOKENS:
        return tokens, 1.0
    return SMALL_TOKENS + tokens.bit_length(), float(tokens + _WEIGHTS)
