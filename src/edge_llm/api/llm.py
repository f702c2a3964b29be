"""LLM: generate, stream, chat, evaluate. Thin over the engine."""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from edge_llm.api.about import ModelAbout, about_of
from edge_llm.api.answering import apieces, awhole, whole
from edge_llm.api.chat import ChatCall
from edge_llm.api.embeddings import EmbedCall, EmbedJob, InputType
from edge_llm.api.preparing import Preparation
from edge_llm.api.prompts import (
    ChatOptions,
    Options,
    Prompt,
    Prompts,
    is_several,
    token_ids_of,
)
from edge_llm.api.rerank import JudgeJob, RerankCall, RerankJob
from edge_llm.api.retrieval import Retrieval
from edge_llm.program.documents import PoolingKind
from edge_llm.program.file import Program
from edge_llm.runner.context import ContextPolicy
from edge_llm.runner.engine.constraints import Constraint
from edge_llm.runner.engine.engine import Engine
from edge_llm.runner.engine.events import EventCallback
from edge_llm.runner.engine.processors import LogitsProcessor
from edge_llm.runner.engine.requests import Request
from edge_llm.runner.engine.statistics import EngineStatistics
from edge_llm.runner.evaluation.logits import collect_logits
from edge_llm.runner.executor import Float32, TokenLogprobs
from edge_llm.runner.generation.answer import Completion, Piece
from edge_llm.runner.generation.inbox import Inbox
from edge_llm.runner.generation.loop import Job, Stream
from edge_llm.runner.generation.vectors import Vectors
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.runner.guidance.guide import Guide
from edge_llm.runner.sampling import SamplingParams
from edge_llm.tokenizers.chat.messages import Message

if TYPE_CHECKING:  # the libraries behind them are imported when they are needed
    from edge_llm.tokenizers.chat.template import ChatTemplate
    from edge_llm.tokenizers.tokenizer import Tokenizer

Params = SamplingParams | None
Count = int | None


class LLM:
    """A loaded program; see `load`. Close it, or use it as a context manager: requests that still
    run then end with a GenerationError. ``memory`` are the bytes that its weights and states take,
    at most: states are touched as they are used."""

    def __init__(
        self,
        program: Program,
        engine: Engine,
        tokenizer: Tokenizer,
        *,
        name: str | None = None,
        memory: int = 0,
    ) -> None:
        """Take over program and engine, and start the engine."""
        self.memory = memory
        self._name = name or program.documents.model.name
        self.program = program
        self.engine = engine
        self.tokenizer = tokenizer
        self._preparation = Preparation(program, engine.facts, tokenizer, engine.prompt_context)
        self._retrieval = Retrieval(program, engine, tokenizer)
        engine.start()
        # also at exit of the process
        self._stop_engine = weakref.finalize(self, engine.stop, "this LLM is closed")

    def __repr__(self) -> str:
        scheme = self.program.documents.recipe.get("scheme", "unknown scheme")
        return f"<LLM {self.name}, {scheme}, context {self.context}>"

    def close(self) -> None:
        """Stop the engine and close the file; more than one call is fine."""
        self._stop_engine()
        self.program.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The model's name: from the program, unless it was given another."""
        return self._name

    @property
    def digest(self) -> str:
        """The SHA-256 digest (hex) of everything in the program's file."""
        return self.program.digest

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the adapters that were loaded beside the program."""
        return tuple(self.engine.facts.adapters)

    @property
    def context(self) -> int:
        """The context in tokens, prompt and answer together: the program's, or what `load` took."""
        return self.engine.facts.context

    @property
    def context_policy(self) -> ContextPolicy:
        """What becomes of what does not fit the context."""
        return self.engine.facts.context_policy

    @property
    def chat_template(self) -> ChatTemplate | None:
        """The program's chat template, None if it has none.

        Raises:
            TemplateError: it does not compile.
        """
        return self._preparation.chat_template

    def require_chat_template(self) -> ChatTemplate:
        """Return the chat template.

        Raises:
            TemplateError: the program has none, or it does not compile.
        """
        return self._preparation.require_chat_template()

    @cached_property
    def about(self) -> ModelAbout:
        """The facts of the model that clients ask for.

        Raises:
            TemplateError: its chat template does not compile.
        """
        chats = self.chat_template is not None
        return about_of(self.program, self._preparation.answers.syntax if chats else None)

    def default_params(self, **overrides: Any) -> SamplingParams:
        """Return what the model's authors recommend, with ``overrides``: fields of
        `SamplingParams`, by their names or aliases.

        Raises:
            RequestError: an unknown name, or a value of the wrong type or out of range.
        """
        return self._preparation.params(None, overrides)

    def encode_chat(
        self,
        messages: Sequence[Message],
        /,
        *,
        tools: Sequence[Message] | None = None,
        **kwargs: Any,
    ) -> list[int]:
        """Return the token ids of a conversation that waits for an answer. ``kwargs`` are variables
        of the template.

        Raises:
            RequestError: the messages are not a list of objects with a role and content.
            TemplateError: there is no template, or it rejects the messages.
            ContextLengthError: the conversation cannot fit the context, however it is cut into
                tokens; one that is not refused here may still be too long.
            TokenizerError: a text is not Unicode (lone surrogates).
        """
        return self._preparation.answers.encode(messages, tools=tools, **kwargs)

    @property
    def guide(self) -> Guide:
        """What holds answers to grammars; it prepares the vocabulary when it is first needed."""
        return self._preparation.guide

    def prepare(self) -> None:
        """Make what the first answer in a form would wait for: a vocabulary takes up to half a
        second, for much of which nothing else of the process runs, and 60 MB."""
        _ = self.guide.vocabulary

    def chat_jobs(self, call: ChatCall, params: SamplingParams, n: int | None = None) -> list[Job]:
        """Return the jobs of ``n`` answers (None: one) to a chat.

        Raises:
            RequestError: an option that this model cannot honour, or ``n`` is not 1 to 128.
            TemplateError, ContextLengthError, TokenizerError: as `encode_chat`.
        """
        return self._preparation.answers.jobs(call, params, n)

    def prompt_jobs(
        self, prompts: Iterable[Any], params: SamplingParams, n: int | None = None
    ) -> list[Job]:
        """Return the jobs of ``n`` answers (None: one) to each text or list of ids, prompt by
        prompt.

        Raises:
            RequestError: a prompt is neither, or ``n`` is not 1 to 128.
            ContextLengthError: a prompt cannot fit the context, however it is cut into tokens, and
                the context policy is "error".
            TokenizerError: a text is not Unicode (lone surrogates).
        """
        return self._preparation.raw(prompts, params, n)

    def guided(self, jobs: Iterable[Job], grammar: Grammar, param: str) -> list[Job]:
        """Return jobs whose answers are held to a grammar.

        Raises:
            RequestError: with ``param``: it cannot be enforced.
        """
        return self._preparation.guided(jobs, grammar, param)

    def submit(
        self,
        prompt_ids: Iterable[int],
        params: Params,
        on_event: EventCallback,
        *,
        constraint: Constraint | None = None,
        processors: Iterable[LogitsProcessor] = (),
        adapter: str | None = None,
        client: str = "",
    ) -> Request:
        """Queue a prompt without waiting; see `Engine.submit`."""
        params = self._preparation.params(params, {})
        return self.engine.submit(
            prompt_ids,
            params,
            on_event,
            constraint=constraint,
            processors=processors,
            adapter=adapter,
            client=client,
        )

    @overload
    def generate(
        self,
        prompt: Prompt,
        params: Params = None,
        *,
        n: None = None,
        progress: bool = False,
        **options: Unpack[Options],
    ) -> Completion: ...

    @overload
    def generate(
        self,
        prompt: Prompt,
        params: Params = None,
        *,
        n: int,
        progress: bool = False,
        **options: Unpack[Options],
    ) -> list[Completion]: ...

    @overload
    def generate(
        self,
        prompt: Prompts,
        params: Params = None,
        *,
        n: Count = None,
        progress: bool = False,
        **options: Unpack[Options],
    ) -> list[Completion]: ...

    def generate(
        self,
        prompt: Prompt | Prompts,
        params: Params = None,
        *,
        n: Count = None,
        progress: bool = False,
        **options: Any,
    ) -> Completion | list[Completion]:
        """Return the whole continuation of a text or of token ids; of several prompts, or with
        ``n``, a list of them: ``n`` for each prompt, one prompt after the other. ``progress`` shows
        a bar of the answers that have ended, in a terminal or a notebook. Other arguments and
        errors as `stream`."""
        jobs = self._preparation.prompts(prompt, params, n, options)
        answers = whole(self.submit, jobs, progress=progress)
        return answers if is_several(prompt) or n is not None else answers[0]

    def stream(
        self,
        prompt: Prompt | Prompts,
        params: Params = None,
        *,
        n: Count = None,
        **options: Unpack[Options],
    ) -> Stream:
        """Return the continuation of a text (with BOS where the tokenizer wants one) or of token
        ids, as an iterator of pieces. The request is queued at once; closing the iterator, or
        letting go of it, cancels it.

        Args:
            prompt: a text, an iterable of token ids, or a list of either: then the pieces of all
                answers come as they are made, and `Piece.choice` tells them apart.
            params: how to sample; None takes `default_params`.
            n: answers to each prompt, 1 to 128; the i-th samples with ``seed + i``.
            options: fields of `SamplingParams` by name, which change ``params``, and a form for
                the answer (``response_format``, ``json_schema``, ``regex``, ``choice``,
                ``grammar``), one at a time; and ``logits_processors``: functions of the ids so far
                and the next token's raw logits (a copy, [vocab] float32) that return logits,
                called on the engine's thread for each token, before penalties and the form; and
                ``adapter``: the name of one that was loaded; None: the model itself.

        Raises:
            ContextLengthError: a prompt leaves no room in the context.
            RequestError: a prompt or a parameter cannot be honoured.
            TokenizerError: a text is not Unicode (lone surrogates).
            CapacityError: the KV budget can never hold a prompt and a token more.
            GenerationError, NativeError: the request failed while it ran.
        """
        return Stream(self.submit, self._preparation.prompts(prompt, params, n, options))

    @overload
    def agenerate(
        self,
        prompt: Prompt,
        params: Params = None,
        *,
        n: None = None,
        progress: bool = False,
        **options: Unpack[Options],
    ) -> Coroutine[Any, Any, Completion]: ...

    @overload
    def agenerate(
        self,
        prompt: Prompt,
        params: Params = None,
        *,
        n: int,
        progress: bool = False,
        **options: Unpack[Options],
    ) -> Coroutine[Any, Any, list[Completion]]: ...

    @overload
    def agenerate(
        self,
        prompt: Prompts,
        params: Params = None,
        *,
        n: Count = None,
        progress: bool = False,
        **options: Unpack[Options],
    ) -> Coroutine[Any, Any, list[Completion]]: ...

    async def agenerate(
        self,
        prompt: Prompt | Prompts,
        params: Params = None,
        *,
        n: Count = None,
        progress: bool = False,
        **options: Any,
    ) -> Completion | list[Completion]:
        """Return what `generate` returns, from an event loop. Cancelling the task cancels the
        request."""
        answers = await awhole(
            self.submit,
            lambda: self._preparation.prompts(prompt, params, n, options),
            progress=progress,
        )
        return answers if is_several(prompt) or n is not None else answers[0]

    def astream(
        self,
        prompt: Prompt | Prompts,
        params: Params = None,
        *,
        n: Count = None,
        **options: Unpack[Options],
    ) -> AsyncGenerator[Piece]:
        """Return the pieces of `stream` for ``async for``. The request is queued when the first
        piece is asked for, and errors come from there; cancelling the task, or closing the
        iterator, cancels it."""
        return apieces(self.submit, lambda: self._preparation.prompts(prompt, params, n, options))

    @overload
    def chat(
        self,
        messages: Sequence[Message],
        params: Params = None,
        *,
        stream: Literal[False] = False,
        n: None = None,
        **options: Unpack[ChatOptions],
    ) -> Completion: ...

    @overload
    def chat(
        self,
        messages: Sequence[Message],
        params: Params = None,
        *,
        stream: Literal[False] = False,
        n: int,
        **options: Unpack[ChatOptions],
    ) -> list[Completion]: ...

    @overload
    def chat(
        self,
        messages: Sequence[Message],
        params: Params = None,
        *,
        stream: Literal[True],
        n: Count = None,
        **options: Unpack[ChatOptions],
    ) -> Stream: ...

    def chat(
        self,
        messages: Sequence[Message],
        params: Params = None,
        *,
        stream: bool = False,
        n: Count = None,
        **options: Unpack[ChatOptions],
    ) -> Completion | list[Completion] | Stream:
        """Return the answer to a conversation: messages with ``role`` and ``content``.

        The answer's ``tool_calls`` and ``reasoning`` are beside its ``text``.

        Args:
            messages: objects in the form of OpenAI's API, with ``role`` and ``content``.
            params: how to sample; None takes `default_params`.
            stream: return the pieces as they are made.
            n: answers, 1 to 128, which are then a list; the i-th samples with ``seed + i``.
            options: fields of `SamplingParams` by name, which change ``params``; and

                - ``response_format``, ``json_schema``, ``regex``, ``choice``, ``grammar``: a form
                  for the content, one at a time;
                - ``tools``: functions, `Tool` objects, or objects as in OpenAI's API, with
                  ``tool_choice`` ("auto", "none", "required", or a tool's name) and
                  ``parallel_tool_calls``;
                - ``enable_thinking``, ``reasoning_effort``, ``thinking_budget`` (tokens);
                - ``continue_final_message``: go on with a last message of the assistant;
                - ``chat_template_kwargs``: variables of the chat template;
                - ``adapter``: the name of one that was loaded; None: the model itself.

        Raises:
            RequestError: also an option that this model cannot honour.
            TemplateError: there is no chat template, or it rejects the messages.
            Others: as `stream`.
        """
        jobs = self._preparation.chat(messages, params, n, options)
        if stream:
            return Stream(self.submit, jobs)
        answers = whole(self.submit, jobs)
        return answers[0] if n is None else answers

    @overload
    def achat(
        self,
        messages: Sequence[Message],
        params: Params = None,
        *,
        stream: Literal[False] = False,
        n: None = None,
        **options: Unpack[ChatOptions],
    ) -> Coroutine[Any, Any, Completion]: ...

    @overload
    def achat(
        self,
        messages: Sequence[Message],
        params: Params = None,
        *,
        stream: Literal[False] = False,
        n: int,
        **options: Unpack[ChatOptions],
    ) -> Coroutine[Any, Any, list[Completion]]: ...

    @overload
    def achat(
        self,
        messages: Sequence[Message],
        params: Params = None,
        *,
        stream: Literal[True],
        n: Count = None,
        **options: Unpack[ChatOptions],
    ) -> AsyncGenerator[Piece]: ...

    def achat(
        self,
        messages: Sequence[Message],
        params: Params = None,
        *,
        stream: bool = False,
        n: Count = None,
        **options: Unpack[ChatOptions],
    ) -> Coroutine[Any, Any, Completion | list[Completion]] | AsyncGenerator[Piece]:
        """Return what `chat` returns, for ``await``; with ``stream`` for ``async for``, as
        `astream`."""

        def jobs() -> list[Job]:
            return self._preparation.chat(messages, params, n, options)

        async def answer() -> Completion | list[Completion]:
            answers = await awhole(self.submit, jobs)
            return answers[0] if n is None else answers

        return apieces(self.submit, jobs) if stream else answer()

    def logits(
        self, token_ids: Iterable[int], chunk: int | None = None, *, adapter: str | None = None
    ) -> Float32:
        """Return the raw logits of every position, [n, vocab] float32; row i is about the token
        after ``token_ids[i]``. ``chunk`` bounds the tokens computed at once, which changes no bit;
        ``adapter`` is the name of one that was loaded, None: the model itself. Other requests go on
        meanwhile.

        Raises:
            ContextLengthError: more tokens than the context.
            RequestError, CapacityError, GenerationError: as `Engine.submit_logits`.
        """
        return collect_logits(
            self.engine, token_ids_of(token_ids, self.context), chunk, adapter=adapter
        )

    def prompt_logprobs(
        self, token_ids: Iterable[int], top: int = 0, *, adapter: str | None = None
    ) -> tuple[TokenLogprobs | None, ...]:
        """Return the log-probabilities of each token given those before it, None for the first,
        with the ``top`` likeliest at its place (0 to 20), by the model with this ``adapter``. They
        are the numbers, bit by bit, that sampling the same tokens gives; the logits stay in the
        core, a step's worth at a time. Other requests go on meanwhile.

        Raises:
            ContextLengthError: more tokens than the context.
            RequestError, CapacityError, GenerationError, NativeError: as `stream`.
        """
        params = SamplingParams(temperature=0.0, max_tokens=0, prompt_logprobs=top)
        logprobs = self.generate(token_ids, params, adapter=adapter).prompt_logprobs
        if logprobs is None:
            raise AssertionError("the engine ended a request without what it asked for")
        return logprobs

    def embed(
        self,
        texts: Prompt | Prompts,
        *,
        pooling: PoolingKind | None = None,
        normalize: bool = True,
        dimensions: int | None = None,
        input_type: InputType | None = None,
        prompt: str = "",
        adapter: str | None = None,
    ) -> Float32:
        """Return a vector for a text or its token ids, or for each of a list: [n, width] float32. A
        vector depends on its text alone, whatever else runs.

        Args:
            pooling: "last" (the hidden state of the last token) or "mean" (of all); None takes what
                the program recommends, "mean" where it says nothing.
            normalize: give every vector the length 1.
            dimensions: keep so many numbers of each, 1 to the width.
            input_type: "query" or "document" puts in front what the program recommends for it.
            prompt: text in front of every text, such as an instruction.
            adapter: the name of one that was loaded; None: the model itself.

        Raises:
            ProgramError: the program was exported without the method; the hint has the command.
            ContextLengthError: a text is longer than the context; ``param`` says which.
            RequestError: an empty text, or an argument that cannot be honoured.
            TokenizerError: a text is not Unicode (lone surrogates).
            CapacityError: the KV budget can never hold a text.
            GenerationError, NativeError: a text failed while it ran.
        """
        call = EmbedCall(
            texts=texts,
            pooling=pooling,
            normalize=normalize,
            dimensions=dimensions,
            input_type=input_type,
            prompt=prompt,
            adapter=adapter,
        )
        return self._retrieval.embed(call)

    async def aembed(
        self,
        texts: Prompt | Prompts,
        *,
        pooling: PoolingKind | None = None,
        normalize: bool = True,
        dimensions: int | None = None,
        input_type: InputType | None = None,
        prompt: str = "",
        adapter: str | None = None,
    ) -> Float32:
        """Return what `embed` returns, from an event loop. Cancelling the task cancels the
        request."""
        call = EmbedCall(
            texts=texts,
            pooling=pooling,
            normalize=normalize,
            dimensions=dimensions,
            input_type=input_type,
            prompt=prompt,
            adapter=adapter,
        )
        return await self._retrieval.aembed(call)

    def embed_job(self, call: EmbedCall) -> EmbedJob:
        """Check and encode what `embed` is asked. Raises as it does, but for what fails while it
        runs."""
        return self._retrieval.embed_job(call)

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        instruction: str | None = None,
        adapter: str | None = None,
    ) -> list[float]:
        """Return how relevant each document is to a query, higher is better. A program that was
        trained to judge gives the probability, 0 to 1, of its "yes" against its "no"; others the
        cosine of the vectors of `embed`, -1 to 1.

        Args:
            query: a text.
            documents: texts.
            instruction: what makes a document relevant; None takes what the program recommends. It
                goes in front of the query where the program does not judge.
            adapter: the name of one that was loaded; None: the model itself.

        Raises:
            ProgramError: the program can do neither.
            ContextLengthError: a text is longer than the context; ``param`` says which.
            RequestError: an empty text, or what is none.
            TokenizerError, CapacityError, GenerationError, NativeError: as `embed`.
        """
        call = RerankCall(
            query=query, documents=documents, instruction=instruction, adapter=adapter
        )
        return self._retrieval.rerank(call)

    async def arerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        instruction: str | None = None,
        adapter: str | None = None,
    ) -> list[float]:
        """Return what `rerank` returns, from an event loop. Cancelling the task cancels the
        request."""
        call = RerankCall(
            query=query, documents=documents, instruction=instruction, adapter=adapter
        )
        return await self._retrieval.arerank(call)

    def rerank_job(self, call: RerankCall) -> RerankJob:
        """Check and encode what `rerank` is asked. Raises as it does, but for what fails while it
        runs."""
        return self._retrieval.rerank_job(call)

    def vectors(self, job: EmbedJob | JudgeJob, inbox: Inbox, client: str = "") -> Vectors:
        """Submit the texts of a job. Raises as `Engine.submit_embedding` and `submit_logits`."""
        return self._retrieval.vectors(job, inbox, client)

    def stats(self) -> EngineStatistics:
        """Return what the engine is doing now."""
        return self.engine.stats()
