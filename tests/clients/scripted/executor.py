"""An executor without arithmetic: the next token is what a script has the model say.

Everything else is the product: the engine with its blocks and constraints, the tokenizer, the
template, the parsers and the server. Where a constraint forbids what the script says, a token that
it allows is taken.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_llm.errors import NativeError
from edge_llm.runner.executor import Batch, Float32, Limits, RowSampler, StepResult, TokenLogprobs
from edge_llm.tokenizers.tokenizer import Tokenizer

LONGEST = 32  # bytes of a token that are looked at


class ScriptedExecutor:
    """``answer(prompt)`` is what the model says after a prompt, both as text with control tokens
    written out; then comes ``end``, the id that ends an answer."""

    def __init__(
        self, limits: Limits, tokenizer: Tokenizer, end: int, answer: Callable[[str], str]
    ) -> None:
        self.limits = limits
        self._tokenizer = tokenizer
        self._end = end
        self._answer = answer
        self._answers: dict[bytes, bytes] = {}  # by prompt ids
        self._bytes = [tokenizer.token_bytes(i) for i in range(tokenizer.facts.size)]
        self._ids = {data: i for i, data in enumerate(self._bytes) if data}
        self._closing = [self._ids[data] for data in (b'"}', b'"', b"}", b"]", b"0")]

    def step(self, batch: Batch) -> StepResult:
        ids, logprobs = [], []
        for sampler in batch.samplers:
            token = -1 if sampler is None else self._next(sampler)
            ids.append(token)
            scored = sampler is not None and (
                sampler.target >= 0 or sampler.params.top_logprobs is not None
            )
            logprobs.append(TokenLogprobs(-0.5, ((token, -0.5),)) if scored else None)
        size = self._tokenizer.facts.size
        logits = np.zeros((len(ids), size), np.float32) if batch.want_logits else None
        return StepResult(np.array(ids, np.int32), logprobs, [None] * len(ids), logits)

    def copy_block(self, group: int, source: int, target: int) -> None:
        pass

    def read_value(self, value: int) -> Float32:
        raise NativeError("a script has no values")

    def close(self) -> None:
        pass

    def _next(self, sampler: RowSampler) -> int:
        if sampler.target >= 0:
            return sampler.target
        prompt = sampler.history[: sampler.prompt_length]
        key = prompt.tobytes()
        if key not in self._answers:
            text = self._tokenizer.decode(prompt.tolist(), skip_specials=False)
            self._answers[key] = self._answer(text).encode()
        said = b"".join(self._bytes[i] for i in sampler.history[sampler.prompt_length :].tolist())
        wanted = self._answers[key]
        allowed = sampler.allowed

        def may(token: int) -> bool:
            return allowed is None or bool(allowed[token >> 5] >> (token & 31) & 1)

        if wanted.startswith(said):
            rest = wanted[len(said) :]
            for length in range(min(LONGEST, len(rest)), 0, -1):
                token = self._ids.get(rest[:length])
                if token is not None and may(token):
                    return token
        if may(self._end):
            return self._end
        assert allowed is not None
        for token in self._closing:  # so that what is forced comes to an end
            if may(token):
                return token
        words = np.flatnonzero(allowed)
        bits = int(allowed[words[0]])
        return int(words[0]) * 32 + (bits & -bits).bit_length() - 1
