"""LLM: generate, stream, chat, evaluate. Thin over the engine."""

from __future__ import annotations

import queue
import weakref
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

from edge_llm.api.pieces import Completion, Piece, collect
from edge_llm.errors import TemplateError
from edge_llm.program.file import Program
from edge_llm.runner.engine import Engine
from edge_llm.runner.events import (
    ErrorEvent,
    Event,
    EventCallback,
    FinishEvent,
    PromptEvent,
    TokenEvent,
)
from edge_llm.runner.executor import Float32, TokenLogprobs
from edge_llm.runner.logits import collect_logits
from edge_llm.runner.requests import Request
from edge_llm.runner.sampling import SamplingParams, canonical
from edge_llm.runner.statistics import EngineStatistics

if TYPE_CHECKING:  # the libraries behind them are imported when they are needed
    from edge_llm.tokenizers.chat.template import ChatTemplate
    from edge_llm.tokenizers.stream import TextStream
    from edge_llm.tokenizers.tokenizer import Tokenizer

Message = Mapping[str, Any]
Prompt = str | Iterable[int]
Stop = str | Sequence[str]


class LLM:
    """A loaded program; see `load`. Close it, or use it as a context manager: requests that still
    run then end with a GenerationError."""

    def __init__(self, program: Program, engine: Engine, tokenizer: Tokenizer) -> None:
        """Takes over program and engine, and starts the engine."""
        self.program = program
        self.engine = engine
        self.tokenizer = tokenizer
        self._template: ChatTemplate | None = None
        engine.start()
        self._stop_engine = weakref.finalize(self, engine.stop)  # also at exit of the process

    def close(self) -> None:
        """Stops the engine and closes the file; more than one call is fine."""
        self._stop_engine()
        self.program.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The model's name, from the program."""
        return self.program.documents.model.name

    @property
    def context(self) -> int:
        """The program's context in tokens: prompt and answer together."""
        return self.program.plan.context

    @property
    def chat_template(self) -> ChatTemplate | None:
        """The program's chat template, None if it has none.

        Raises:
            TemplateError: it does not compile.
        """
        from edge_llm.tokenizers.chat.template import ChatTemplate

        source = self.program.documents.chat_template
        if self._template is None and source is not None:
            facts = self.program.documents.tokenizer
            self._template = ChatTemplate(
                source, bos=self._token_text(facts.bos_id), eos=self._token_text(facts.eos_id)
            )
        return self._template

    def require_chat_template(self) -> ChatTemplate:
        """The chat template.

        Raises:
            TemplateError: the program has none, or it does not compile.
        """
        template = self.chat_template
        if template is None:
            raise TemplateError(
                f"{self.name} has no chat template", hint="use generate, or `run --raw`"
            )
        return template

    def default_params(self, **overrides: Any) -> SamplingParams:
        """Return what the model's authors recommend, with ``overrides``: fields of
        `SamplingParams`, by their names or aliases.

        Raises:
            RequestError: an unknown name, or a value of the wrong type or out of range.
        """
        generation = asdict(self.program.documents.generation)
        del generation["stop_ids"]  # the engine knows them
        return SamplingParams(**(generation | canonical(overrides)))

    def encode_chat(
        self,
        messages: Sequence[Message],
        /,
        *,
        tools: Sequence[Message] | None = None,
        **kwargs: Any,
    ) -> list[int]:
        """The token ids of a conversation that waits for an answer. ``kwargs`` go to the template.

        Raises:
            TemplateError: there is no template, or it rejects the messages.
            TokenizerError: a text is not Unicode (lone surrogates).
        """
        from edge_llm.tokenizers.chat.encode import encode_chat

        return encode_chat(
            self.tokenizer, self.require_chat_template(), messages, tools=tools, **kwargs
        )

    def submit(
        self, prompt_ids: Iterable[int], params: SamplingParams | None, on_event: EventCallback
    ) -> Request:
        """Queues a prompt without waiting; see `Engine.submit`."""
        return self.engine.submit(prompt_ids, params or self.default_params(), on_event)

    def generate(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        stop: Stop = (),
    ) -> Completion:
        """The continuation of a text or of token ids, whole. Arguments and errors as `stream`."""
        return collect(self.stream(prompt, params, stop=stop))

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        stop: Stop = (),
    ) -> Generator[Piece]:
        """The continuation of a text (with BOS where the tokenizer wants one) or of token ids,
        piece by piece. ``params`` None: `default_params`. The text ends before any of the ``stop``
        strings. The request is queued at once; closing the generator cancels it.

        Raises:
            ContextLengthError: the prompt leaves no room in the context.
            RequestError: the prompt or a parameter cannot be honoured.
            TokenizerError: the text is not Unicode (lone surrogates).
            CapacityError: the KV budget can never hold the request.
            GenerationError, NativeError: the request failed while it ran.
        """
        if isinstance(prompt, str):
            ids = self.tokenizer.encode(prompt)
        else:
            ids = [int(token) for token in prompt]
        return self._begin(ids, params, stop, after=ids)

    @overload
    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        stop: Stop = (),
        stream: Literal[False] = False,
        **kwargs: Any,
    ) -> Completion: ...

    @overload
    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        stop: Stop = (),
        stream: Literal[True],
        **kwargs: Any,
    ) -> Generator[Piece]: ...

    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        stop: Stop = (),
        stream: bool = False,
        **kwargs: Any,
    ) -> Completion | Generator[Piece]:
        """The answer to a conversation: messages with ``role`` and ``content``. ``kwargs`` go to
        the chat template. Errors as `encode_chat` and `stream`."""
        pieces = self._begin(self.encode_chat(messages, **kwargs), params, stop)
        return pieces if stream else collect(pieces)

    def logits(self, token_ids: Iterable[int], chunk: int | None = None) -> Float32:
        """Raw logits of every position, [n, vocab] float32; row i is about the token after
        ``token_ids[i]``. ``chunk`` bounds the tokens computed at once, which changes no bit. Other
        requests go on meanwhile.

        Raises:
            ContextLengthError: more tokens than the context.
            RequestError, CapacityError, GenerationError: as `Engine.submit_logits`.
        """
        return collect_logits(self.engine, token_ids, chunk)

    def prompt_logprobs(
        self, token_ids: Iterable[int], top: int = 0
    ) -> tuple[TokenLogprobs | None, ...]:
        """Log-probabilities of each token given those before it, None for the first, with the
        ``top`` likeliest at its place (0 to 20). They are the numbers, bit by bit, that sampling
        the same tokens gives; the logits stay in the core, a step's worth at a time. Other requests
        go on meanwhile.

        Raises:
            ContextLengthError: more tokens than the context.
            RequestError, CapacityError, GenerationError, NativeError: as `stream`.
        """
        params = SamplingParams(temperature=0.0, max_tokens=0, prompt_logprobs=top)
        logprobs = self.generate(token_ids, params).prompt_logprobs
        if logprobs is None:
            raise AssertionError("the engine ended a request without what it asked for")
        return logprobs

    def stats(self) -> EngineStatistics:
        """What the engine is doing now."""
        return self.engine.stats()

    def _token_text(self, token: int | None) -> str | None:
        return (
            None
            if token is None
            else self.tokenizer.decode([token], skip_specials=False, continues=True)
        )

    def _begin(
        self,
        ids: list[int],
        params: SamplingParams | None,
        stop: Stop,
        *,
        after: Sequence[int] = (),
    ) -> Generator[Piece]:
        from edge_llm.tokenizers.stream import TextStream

        params = params or self.default_params()
        params = replace(params, **canonical({"stop": stop})) if stop else params
        text = TextStream(self.tokenizer, params.stop, after=after)
        pieces = self._pieces(ids, params, text)
        # Up to the submission now: errors come from this call, and a generator that has begun
        # cancels its request even if nobody reads it.
        next(pieces)
        return pieces

    def _pieces(self, ids: list[int], params: SamplingParams, text: TextStream) -> Generator[Piece]:
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        request = self.submit(ids, params, events.put)
        count = 0
        try:
            yield Piece("")  # for `stream`, which takes it
            while True:
                match events.get():
                    case TokenEvent(token, logprobs) if not text.stopped:
                        count += 1
                        delta = text.push(token)
                        if text.stopped:
                            request.cancel()
                        yield Piece(delta, (token,), None if logprobs is None else (logprobs,))
                    case PromptEvent(scores):
                        yield Piece("", prompt_logprobs=scores)
                    case FinishEvent(reason, stats):
                        yield Piece(
                            text.finish(),
                            finish_reason="stop" if text.stopped else reason,
                            stats=replace(stats, completion_tokens=count),
                        )
                        return
                    case ErrorEvent(error):
                        raise error
        finally:
            request.cancel()  # if the caller went away; no effect on what has ended
