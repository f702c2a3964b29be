"""From what a caller asks to a sequence that the engine can run, or a typed refusal."""

from __future__ import annotations

import operator
import secrets
import time
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from edge_llm.errors import CapacityError, ContextLengthError, ProgramError, RequestError
from edge_llm.program.documents import POOLING_KINDS, PoolingKind
from edge_llm.runner.context import MOST_CONTEXTS, Context, ContextPolicy
from edge_llm.runner.engine.constraints import Mask, mask_of
from edge_llm.runner.engine.events import EventCallback
from edge_llm.runner.engine.pooling import Pooling
from edge_llm.runner.engine.sequence import Sequence
from edge_llm.runner.engine.statistics import RequestClock
from edge_llm.runner.sampling import SamplingParams

_GREEDY = SamplingParams(temperature=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """The engine's facts about a program: sizes in tokens, the program's ``stop_ids``,
    ``read_bytes(depths)``: the bytes that a step of one token at each of ``depths`` reads, and from
    which id on the vocabulary is padding that is never sampled (``sampleable``; None: none is).
    ``windows``: of each group of states (0: none; empty: no group has one). ``hidden_states``:
    the program gives them, for embeddings; ``drafts``: its draft method is loaded;
    ``bidirectional``: tokens see those behind them; ``context_policy``: what becomes of an answer
    that comes to the end of the context.
    ``adapters``: the digests of those that are loaded, by name, in the order of their numbers.
    ``breakers(texts)``: the mask of the ids that have one of the texts, None: none has."""

    context: int
    vocab: int
    block_size: int
    stop_ids: frozenset[int] = frozenset()
    read_bytes: Callable[[list[int]], int] = lambda depths: 0
    sampleable: int | None = None
    windows: tuple[int, ...] = ()
    hidden_states: bool = False
    drafts: bool = False
    bidirectional: bool = False
    context_policy: ContextPolicy = "error"
    adapters: Mapping[str, bytes] = field(default_factory=dict)
    breakers: Callable[[tuple[str, ...]], Mask | None] = lambda texts: None

    def room(self, positions: int | None) -> Context:
        """Return the context of a sequence in a pool that holds so many ``positions`` of one (None:
        any number)."""
        # The last token is never computed.
        most = self.context if positions is None else min(self.context, positions + 1)
        return Context(most, self.context_policy)


class Request:
    """A handle to a submitted request."""

    def __init__(self, sequence: Sequence, wake: Callable[[], None]) -> None:
        self._sequence = sequence
        self._wake = wake

    @property
    def prompt_tokens(self) -> int:
        return self._sequence.prompt_length

    def cancel(self) -> None:
        """End the request after the step that is running, if any; a FinishEvent follows unless it
        has ended already. From any thread, any number of times."""
        self._sequence.cancelled = True
        self._wake()


def generation(
    prompt: Iterable[int],
    params: SamplingParams,
    on_event: EventCallback,
    facts: EngineFacts,
    positions: int | None,
) -> Sequence:
    """Return a sequence that samples after ``prompt``, in a pool that holds so many ``positions``
    of one sequence (None: any number). The answer has ``params.max_tokens`` at most, and what there
    is room for: in a window that slides `MOST_CONTEXTS`, or one where it asks for no number. Raises
    as Engine.submit."""
    check_predicts(bidirectional=facts.bidirectional)
    tokens = _checked(prompt, facts.vocab)
    for name in ("logit_bias", "stop_token_ids"):
        if any(not 0 <= token < facts.vocab for token in getattr(params, name)):
            raise RequestError(
                f"{name} has an id outside the vocabulary of {facts.vocab}", param=name
            )
    length = len(tokens)
    if params.prompt_logprobs is not None and facts.sampleable is not None:
        _check_scored(tokens, facts.sampleable)
    needed = length + (params.max_tokens != 0)
    if needed > facts.context:
        raise ContextLengthError(facts.context, length, param="prompt")
    context = facts.room(positions)
    _check_capacity(needed, context.tokens)
    room = context.tokens - length
    window = context if context.policy == "sliding-window" and params.max_tokens != 0 else None
    if window is not None:
        room = context.tokens * (1 if params.max_tokens is None else MOST_CONTEXTS)
    most = room if params.max_tokens is None else min(room, params.max_tokens)
    stop_ids = facts.stop_ids if params.stop_ids is None else frozenset(params.stop_ids)
    stop_ids = (frozenset() if params.ignore_eos else stop_ids) | set(params.stop_token_ids)
    return Sequence(
        tokens=tokens,
        prompt_length=length,
        limit=length + most,
        params=params,
        seed=(secrets.randbits(64) if params.seed is None else params.seed) % 2**64,
        stop_ids=stop_ids,
        unended=~mask_of((i for i in stop_ids if i < facts.vocab), facts.vocab)
        if params.min_tokens and stop_ids
        else None,
        breakers=facts.breakers(params.dry_sequence_breakers) if params.dry_multiplier else None,
        on_event=on_event,
        clock=RequestClock(
            time.perf_counter(),
            max_tokens_clipped=most if most < (params.max_tokens or 0) else None,
        ),
        window=window,
        scorer=None
        if params.prompt_logprobs is None
        else SamplingParams(temperature=0.0, top_logprobs=params.prompt_logprobs),
    )


def evaluation(
    token_ids: Iterable[int],
    chunk: int | None,
    on_event: EventCallback,
    facts: EngineFacts,
    positions: int | None,
    max_rows: int,
    *,
    last_only: bool = False,
) -> Sequence:
    """Return a sequence whose result is the logits of every token, or of the last one, in a pool as
    for `generation`. Raises as Engine.submit_logits."""
    check_predicts(bidirectional=facts.bidirectional)
    tokens = _checked(token_ids, facts.vocab)
    if len(tokens) > facts.context:
        raise ContextLengthError(facts.context, len(tokens), param="token_ids")
    _check_capacity(len(tokens), facts.context if positions is None else positions)
    if chunk is not None and not (type(chunk) is int and 1 <= chunk <= max_rows):
        raise RequestError(f"chunk is {chunk!r}, expected 1 to {max_rows}", param="chunk")
    return Sequence(
        tokens=tokens,
        prompt_length=len(tokens),
        limit=len(tokens),
        params=_GREEDY,
        seed=0,
        stop_ids=frozenset(),
        on_event=on_event,
        clock=RequestClock(time.perf_counter()),
        want_logits=True,
        last_only=last_only,
        chunk=chunk,
    )


def embedding(
    token_ids: Iterable[int],
    pooling: PoolingKind,
    on_event: EventCallback,
    facts: EngineFacts,
    positions: int | None,
) -> Sequence:
    """Return a sequence whose result is one vector, in a pool as for `generation`. Raises as
    Engine.submit_embedding."""
    if not facts.hidden_states:
        raise ProgramError("the program has no method that gives hidden states")
    if pooling not in POOLING_KINDS:
        raise RequestError(
            f"pooling is {pooling!r}, expected one of: {', '.join(POOLING_KINDS)}", param="pooling"
        )
    tokens = _checked(token_ids, facts.vocab)
    if len(tokens) > facts.context:
        raise ContextLengthError(facts.context, len(tokens), param="input")
    _check_capacity(len(tokens), facts.context if positions is None else positions)
    return Sequence(
        tokens=tokens,
        prompt_length=len(tokens),
        limit=len(tokens),
        params=_GREEDY,
        seed=0,
        stop_ids=frozenset(),
        on_event=on_event,
        clock=RequestClock(time.perf_counter()),
        pooling=Pooling(pooling),
        at_once=facts.bidirectional,
    )


def with_adapter(sequence: Sequence, name: str | None, facts: EngineFacts) -> Sequence:
    """Return ``sequence``, which from now on is one of the adapter of this name (None: of none).

    Raises:
        RequestError: no adapter of that name is loaded.
    """
    if name is not None:
        if not isinstance(name, str) or name not in facts.adapters:
            there = ", ".join(facts.adapters) or "none is loaded"
            raise RequestError(
                f"adapter is {name!r:.80}, expected one that is loaded: {there}", param="adapter"
            )
        sequence.adapter = list(facts.adapters).index(name)
        sequence.root = facts.adapters[name]
    return sequence


def check_predicts(
    *, bidirectional: bool, hint: str = "LLM.embed and /v1/embeddings give vectors"
) -> None:
    """Check that a program's logits are predictions.

    Raises:
        RequestError: its tokens see those behind them.
    """
    if bidirectional:
        raise RequestError(
            "the model is for vectors alone: its tokens see those behind them, so that it predicts "
            "none",
            param="model",
            hint=hint,
        )


def _shown(number: int) -> str:
    return str(number) if abs(number) < 2**64 else "a number of more than 64 bits"


def _checked(token_ids: Iterable[int], vocab: int) -> array[int]:
    if not isinstance(token_ids, Iterable):
        raise RequestError(
            f"a prompt is of type {type(token_ids).__name__}, expected token ids", param="prompt"
        )
    known = isinstance(token_ids, array) and token_ids.typecode == "i" and len(token_ids)
    if known and min(token_ids) >= 0 and max(token_ids) < vocab:
        return array("i", token_ids)  # fast: each choice of a request has the same
    tokens = array("i")
    for index, token in enumerate(token_ids):  # ids that are some stay out of messages
        try:
            number = operator.index(token)
        except TypeError:
            number = None
        if number is None or isinstance(token, bool):
            raise RequestError(
                f"the token at position {index} of the prompt is a {type(token).__name__}, "
                "expected a whole number",
                param="prompt",
            )
        if not 0 <= number < vocab:
            raise RequestError(
                f"the token at position {index} of the prompt is {_shown(number)}, outside the "
                f"vocabulary of {vocab}",
                param="prompt",
            )
        tokens.append(number)
    if not tokens:
        raise RequestError("the prompt has no tokens", param="prompt")
    return tokens


def _check_scored(tokens: array[int], sampleable: int) -> None:
    for index, token in enumerate(tokens):
        if token >= sampleable:
            raise RequestError(
                f"the token at position {index} of the prompt is padding of the vocabulary and "
                f"has no log-probability; the tokenizer has {sampleable} tokens",
                param="prompt",
            )


def _check_capacity(needed: int, capacity: int) -> None:
    if needed > capacity:
        raise CapacityError(
            f"the request takes up to {needed} tokens, the KV blocks hold {capacity}",
            hint="shorten the prompt or raise the KV budget",
        )
