"""A request while it runs."""

from __future__ import annotations

from array import array
from collections.abc import Sequence as Ids
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_llm.runner.context import Context, ContextReport
from edge_llm.runner.engine.statistics import CacheUse, RequestClock
from edge_llm.runner.sampling import SamplingParams

if TYPE_CHECKING:
    from edge_llm.runner.engine.constraints import Constraint, Mask
    from edge_llm.runner.engine.drafters import Drafter
    from edge_llm.runner.engine.events import EventCallback
    from edge_llm.runner.engine.pooling import Pooling
    from edge_llm.runner.engine.processors import LogitsProcessor
    from edge_llm.runner.executor import TokenLogprobs


@dataclass(slots=True, eq=False)
class Sequence:
    """The state of one request.

    ``tokens`` are the prompt, then what was sampled and accepted; the states of the first
    ``computed`` of them are in the blocks of ``tables``, one table a state group. ``limit`` bounds
    ``length``. ``chain``: digests of the full blocks. ``draft`` are tokens that may follow,
    proposed for the next step. With ``want_logits`` nothing is sampled: the logits of every token
    (of the last one, with ``last_only``) are the result, and ``chunk`` bounds the tokens of a step.
    With ``scorer`` the prompt's own tokens are scored, as it says: ``scores`` are those of the
    tokens from the second on. With ``pooling`` nothing is sampled either: the result is a vector of
    the hidden states; ``at_once``: of all tokens in one step, since they see those behind them, and
    what is kept of them is no other sequence's. ``unended`` is the mask of the ids that do not end
    the answer, where it has to go on for some tokens; ``breakers`` that of the ids across which no
    repetition counts. ``processors`` change the logits before the next token is sampled. With
    ``window`` no more than its tokens are held: of those behind the first that it keeps a stride is
    left out, whenever it is full; ``report`` tells how many. ``adapter`` is the number
    of its adapter, -1 for none, and ``root`` what its chain begins with: the adapter's digest.
    ``client`` is who asks, and ``turn`` the number of the request in the order in which clients
    take turns."""

    tokens: array[int]
    prompt_length: int
    limit: int
    params: SamplingParams
    seed: int
    stop_ids: frozenset[int]
    on_event: EventCallback
    clock: RequestClock
    want_logits: bool = False
    last_only: bool = False
    chunk: int | None = None
    scorer: SamplingParams | None = None
    pooling: Pooling | None = None
    at_once: bool = False
    unended: Mask | None = None
    breakers: Mask | None = None
    constraint: Constraint | None = None
    drafter: Drafter | None = None
    processors: tuple[LogitsProcessor, ...] = ()
    window: Context | None = None
    report: ContextReport | None = None
    prompt_dropped: int = 0  # tokens of the prompt that the window has moved past
    adapter: int = -1
    root: bytes = b""
    client: str = ""
    arrival: int = -1  # the engine numbers requests
    turn: int = 0  # the scheduler does
    tables: list[list[int]] = field(default_factory=list)
    chain: list[bytes] = field(default_factory=list)
    computed: int = 0
    decoding: bool = False  # all tokens but the last, which was sampled, are computed
    draft: Ids[int] = ()
    cached_tokens: int | None = None  # of the prompt, when it was first admitted
    cache: CacheUse = "not used"  # likewise
    scores: list[TokenLogprobs] = field(default_factory=list)
    cancelled: bool = False  # set from any thread

    def accept(self, token: int) -> None:
        """Append a sampled token."""
        self.tokens.append(token)
        self.decoding = True

    def move_window(self) -> None:
        """Leave out a stride of the tokens; the next ones are sampled after what is left."""
        assert self.window is not None
        kept = self.window.kept
        dropped = min(self.window.stride, len(self.tokens) - kept - 1)
        self.prompt_dropped += min(max(0, self.prompt_held - kept), dropped)
        del self.tokens[kept : kept + dropped]
        moved = ContextReport(self.window.policy, window_moves=1, window_dropped_tokens=dropped)
        self.report = moved if self.report is None else self.report + moved

    def forget(self) -> None:
        """Begin again: nothing is computed."""
        self.computed = 0
        self.decoding = False
        self.draft = ()
        if self.pooling is not None:
            self.pooling.forget()

    @property
    def remaining(self) -> int:
        """Tokens that are known but not computed."""
        return len(self.tokens) - self.computed

    @property
    def completion_length(self) -> int:
        """Tokens that were sampled."""
        return self.length - self.prompt_length

    @property
    def length(self) -> int:
        """Tokens of the prompt and those that were sampled, held or not."""
        return len(self.tokens) + self._dropped

    @property
    def prompt_held(self) -> int:
        """Tokens of the prompt that are held: the first of ``tokens``."""
        return self.prompt_length - self.prompt_dropped

    @property
    def room(self) -> int:
        """Tokens that may follow before the end, or before the window moves on."""
        room = self.limit - self.length
        return room if self.window is None else min(room, self.window.tokens - len(self.tokens))

    @property
    def filled(self) -> bool:
        """True if the window has to move on before anything follows."""
        return self.window is not None and len(self.tokens) >= self.window.tokens

    @property
    def _dropped(self) -> int:
        return 0 if self.report is None else self.report.window_dropped_tokens

    @property
    def positions(self) -> int:
        """Positions that are computed before the end, or before the window moves on: the last
        sampled token needs none."""
        return len(self.tokens) + self.room - self.samples

    @property
    def samples(self) -> bool:
        """True if tokens follow the prompt."""
        return self.limit > self.prompt_length

    @property
    def every_row(self) -> bool:
        """True if each token computed now has a row that is wanted, not the last one alone."""
        if self.want_logits:
            return not self.last_only
        return self.scorer is not None and not self.completion_length

    @property
    def whole(self) -> bool:
        """True if every token must be computed: none may come from the prefix cache."""
        return (
            self.at_once
            or self.every_row
            or (self.pooling is not None and self.pooling.kind == "mean")
        )

    def hidden_rows(self, count: int) -> int:
        """Return of how many of the next ``count`` known tokens, the last so many, the hidden
        states are wanted."""
        return 0 if self.pooling is None else self.pooling.rows(count, self.remaining)

    def rows(self, count: int) -> int:
        """Return how many rows are wanted of the next ``count`` known tokens: the last so many."""
        if self.every_row:
            return count
        return int((self.samples or self.last_only) and count == self.remaining)
