"""The likelihoods of continuations: what multiple choice and lm-evaluation-harness ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_llm.api.prompts import encode_prompt
from edge_llm.errors import RequestError
from edge_llm.runner.evaluation.logits import next_log_probabilities
from edge_llm.runner.sampling import INT32_MAX

if TYPE_CHECKING:
    from edge_llm.api.llm import LLM


def log_likelihoods(
    llm: LLM,
    context: Sequence[int],
    continuations: Sequence[Sequence[int]],
    *,
    adapter: str | None = None,
) -> list[tuple[float, bool]]:
    """Return of each continuation the sum of the log-probabilities of its tokens behind
    ``context``, in nats, and whether greedy decoding would have written it; with this ``adapter``.

    Those of one token are found in a single pass over the context. Where context and continuation
    are longer than the program's context, the beginning is left out.

    Raises:
        RequestError: the context is empty, or a continuation leaves no token of it, or there is no
            such adapter.
        GenerationError: logits are not finite.
        CapacityError, NativeError: as `LLM.logits`.
    """
    if not context:
        raise RequestError("the context of a continuation is empty, expected a token at least")
    single = any(len(tokens) == 1 for tokens in continuations)
    scores = None
    if single:
        scores = next_log_probabilities(llm.engine, context[-llm.context :], adapter=adapter)
    return [
        (float(scores[tokens[0]]), tokens[0] == int(scores.argmax()))
        if scores is not None and len(tokens) == 1
        else _several(llm, context, tokens, adapter)
        for tokens in continuations
    ]


def rolling_log_likelihood(llm: LLM, tokens: Sequence[int], prefix: int) -> float:
    """Return the sum of the log-probabilities of all ``tokens``, in nats: behind ``prefix``, and
    where they are more than the context, in windows that each begin with the last token before
    them; the last one is filled up with tokens that were scored already.

    Raises:
        GenerationError, CapacityError, NativeError: as `log_likelihoods`.
    """
    if not tokens:
        return 0.0
    size = llm.context - 1
    total = 0.0
    for begin in range(0, len(tokens), size):
        part = tokens[begin : begin + size]
        end = begin + len(part)
        known = max(0, end - llm.context)  # the window's first token, which is not scored
        before = [prefix] if begin == 0 else tokens[known:begin]
        total += _several(llm, before, part)[0]
    return total


def split(llm: LLM, context: str, continuation: str, *, prefix: int) -> tuple[list[int], list[int]]:
    """Return the tokens of a context and of what follows it, cut apart where the context ends when
    it is encoded alone; blanks at its end go to the continuation. An empty context becomes the
    token ``prefix``.

    Raises:
        TokenizerError: a text is not Unicode (lone surrogates).
    """
    stripped = context.rstrip()
    continuation = context[len(stripped) :] + continuation
    if not stripped:
        return [prefix], llm.tokenizer.encode(continuation, add_bos=False, specials=True)
    before = encoded(llm, stripped)
    return before, encoded(llm, stripped + continuation)[len(before) :]


def encoded(llm: LLM, text: str) -> list[int]:
    """Return the tokens of a raw prompt, as `encode_prompt`, however many there are."""
    return encode_prompt(llm.tokenizer, text, INT32_MAX)


def _several(
    llm: LLM, context: Sequence[int], continuation: Sequence[int], adapter: str | None = None
) -> tuple[float, bool]:
    count = len(continuation)
    if count == 0:
        return 0.0, True
    if count >= llm.context:
        raise RequestError(f"a continuation has {count} tokens, expected at most {llm.context - 1}")
    ids = [*context, *continuation][-llm.context :]
    scored = llm.prompt_logprobs(ids, top=1, adapter=adapter)[-count:]
    total, greedy = 0.0, True
    for token, score in zip(continuation, scored, strict=True):
        if score is None:
            raise AssertionError("a continuation begins behind its context")
        total += score.logprob
        greedy = greedy and score.top[0][0] == token
    return total, greedy
