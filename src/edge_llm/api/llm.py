"""LLM: generate, stream, chat, evaluate. Thin over the engine."""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from edge_llm.api.about import ModelAbout, about_of
from edge_llm.api.answers import Answers
from edge_llm.api.chat import ChatCall, chat_call
from edge_llm.api.embeddings import EmbedCall, EmbedJob, InputType, embed_job
from edge_llm.api.formats import FORMS, form_given, grammar_of
from edge_llm.api.prompts import (
    ChatOptions,
    Message,
    Options,
    Prompt,
    Prompts,
    encode_prompt,
    is_several,
    jobs_of,
    token_ids_of,
)
from edge_llm.api.rerank import Judge, JudgeJob, RerankCall, RerankJob, rerank_job
from edge_llm.errors import RequestError, TemplateError
from edge_llm.program.documents import PoolingKind
from edge_llm.program.file import Program
from edge_llm.runner.engine.constraints import Constraint
from edge_llm.runner.engine.engine import Engine
from edge_llm.runner.engine.events import EventCallback
from edge_llm.runner.engine.requests import Request
from edge_llm.runner.engine.statistics import EngineStatistics
from edge_llm.runner.evaluation.logits import collect_logits
from edge_llm.runner.executor import Float32, TokenLogprobs
from edge_llm.runner.generation.answer import Completion, Piece
from edge_llm.runner.generation.loop import AsyncInbox, Generation, Inbox, Job, Stream
from edge_llm.runner.generation.vectors import Vectors, blocking, logits_of
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.runner.guidance.guide import Guide
from edge_llm.runner.guidance.vocabulary import Vocabulary
from edge_llm.runner.sampling import SamplingParams, canonical

if TYPE_CHECKING:  # the libraries behind them are imported when they are needed
    from edge_llm.tokenizers.chat.template import ChatTemplate
    from edge_llm.tokenizers.tokenizer import Tokenizer

Params = SamplingParams | None
Count = int | None


class LLM:
    """A loaded program; see `load`. Close it, or use it as a context manager: requests that still
    run then end with a GenerationError."""

    def __init__(self, program: Program, engine: Engine, tokenizer: Tokenizer) -> None:
        """Take over program and engine, and start the engine."""
        self.program = program
        self.engine = engine
        self.tokenizer = tokenizer
        self._template: ChatTemplate | None = None
        self._judge: Judge | None = None
        engine.start()
        self._stop_engine = weakref.finalize(self, engine.stop)  # also at exit of the process

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
        """The model's name, from the program."""
        return self.program.documents.model.name

    @property
    def digest(self) -> str:
        """The SHA-256 digest (hex) of everything in the program's file."""
        return self.program.digest

    @property
    def context(self) -> int:
        """The context in tokens, prompt and answer together: the program's, or what `load` took."""
        return self.engine.facts.context

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
        """Return the chat template.

        Raises:
            TemplateError: the program has none, or it does not compile.
        """
        template = self.chat_template
        if template is None:
            raise TemplateError(
                f"{self.name} has no chat template", hint="use generate, or `run --raw`"
            )
        return template

    @cached_property
    def about(self) -> ModelAbout:
        """The facts of the model that clients ask for.

        Raises:
            TemplateError: its chat template does not compile.
        """
        chats = self.chat_template is not None
        return about_of(self.program, self._answers.syntax if chats else None)

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
        """Return the token ids of a conversation that waits for an answer. ``kwargs`` are variables
        of the template.

        Raises:
            RequestError: the messages are not a list.
            TemplateError: there is no template, or it rejects the messages.
            ContextLengthError: the conversation cannot fit the context, however it is cut into
                tokens; one that is not refused here may still be too long.
            TokenizerError: a text is not Unicode (lone surrogates).
        """
        return self._answers.encode(messages, tools=tools, **kwargs)

    @cached_property
    def guide(self) -> Guide:
        """What holds answers to grammars; it prepares the vocabulary when it is first needed."""
        template = self.program.documents.chat_template or ""
        written = {i for text, i in self.tokenizer.added_ids.items() if text in template}
        return Guide(
            lambda: Vocabulary.of(
                self.tokenizer,
                size=self.engine.facts.vocab,
                end_ids=self.engine.facts.stop_ids,
                controls=written,
            )
        )

    @cached_property
    def _answers(self) -> Answers:
        return Answers(self.tokenizer, self.require_chat_template(), self.context, self.guide)

    def chat_jobs(self, call: ChatCall, params: SamplingParams, n: int | None = None) -> list[Job]:
        """Return the jobs of ``n`` answers (None: one) to a chat.

        Raises:
            RequestError: an option that this model cannot honour, or ``n`` is not 1 to 128.
            TemplateError, ContextLengthError, TokenizerError: as `encode_chat`.
        """
        return self._answers.jobs(call, params, n)

    def submit(
        self,
        prompt_ids: Iterable[int],
        params: Params,
        on_event: EventCallback,
        *,
        constraint: Constraint | None = None,
    ) -> Request:
        """Queue a prompt without waiting; see `Engine.submit`."""
        params = self._params(params, {})
        return self.engine.submit(prompt_ids, params, on_event, constraint=constraint)

    @overload
    def generate(
        self, prompt: Prompt, params: Params = None, *, n: None = None, **options: Unpack[Options]
    ) -> Completion: ...

    @overload
    def generate(
        self, prompt: Prompt, params: Params = None, *, n: int, **options: Unpack[Options]
    ) -> list[Completion]: ...

    @overload
    def generate(
        self, prompt: Prompts, params: Params = None, *, n: Count = None, **options: Unpack[Options]
    ) -> list[Completion]: ...

    def generate(
        self, prompt: Prompt | Prompts, params: Params = None, *, n: Count = None, **options: Any
    ) -> Completion | list[Completion]:
        """Return the whole continuation of a text or of token ids; of several prompts, or with
        ``n``, a list of them: ``n`` for each prompt, one prompt after the other. Arguments and
        errors as `stream`."""
        answers = self._whole(self._continue(prompt, params, n, options))
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
            options: fields of `SamplingParams` by name, which change ``params``.

        Raises:
            ContextLengthError: a prompt leaves no room in the context.
            RequestError: a prompt or a parameter cannot be honoured.
            TokenizerError: a text is not Unicode (lone surrogates).
            CapacityError: the KV budget can never hold a prompt and a token more.
            GenerationError, NativeError: the request failed while it ran.
        """
        return Stream(self.submit, self._continue(prompt, params, n, options))

    @overload
    def agenerate(
        self, prompt: Prompt, params: Params = None, *, n: None = None, **options: Unpack[Options]
    ) -> Coroutine[Any, Any, Completion]: ...

    @overload
    def agenerate(
        self, prompt: Prompt, params: Params = None, *, n: int, **options: Unpack[Options]
    ) -> Coroutine[Any, Any, list[Completion]]: ...

    @overload
    def agenerate(
        self, prompt: Prompts, params: Params = None, *, n: Count = None, **options: Unpack[Options]
    ) -> Coroutine[Any, Any, list[Completion]]: ...

    async def agenerate(
        self, prompt: Prompt | Prompts, params: Params = None, *, n: Count = None, **options: Any
    ) -> Completion | list[Completion]:
        """Return what `generate` returns, from an event loop. Cancelling the task cancels the
        request."""
        answers = await self._awhole(lambda: self._continue(prompt, params, n, options))
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
        return self._apieces(lambda: self._continue(prompt, params, n, options))

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

        Options beside those of `stream`: ``tools`` (functions, or objects as in OpenAI's API) with
        ``tool_choice`` ("auto", "none", "required", or a tool's name) and ``parallel_tool_calls``;
        ``enable_thinking``, ``reasoning_effort`` and ``thinking_budget`` (tokens);
        ``continue_final_message``; ``chat_template_kwargs``, variables of the chat template. The
        answer's ``tool_calls`` and ``reasoning`` are beside its ``text``.

        Raises:
            RequestError: also an option that this model cannot honour.
            TemplateError: there is no chat template, or it rejects the messages.
            Others: as `stream`.
        """
        jobs = self._answer(messages, params, n, options)
        if stream:
            return Stream(self.submit, jobs)
        answers = self._whole(jobs)
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
            return self._answer(messages, params, n, options)

        async def answer() -> Completion | list[Completion]:
            answers = await self._awhole(jobs)
            return answers[0] if n is None else answers

        return self._apieces(jobs) if stream else answer()

    def logits(self, token_ids: Iterable[int], chunk: int | None = None) -> Float32:
        """Return the raw logits of every position, [n, vocab] float32; row i is about the token
        after ``token_ids[i]``. ``chunk`` bounds the tokens computed at once, which changes no bit.
        Other requests go on meanwhile.

        Raises:
            ContextLengthError: more tokens than the context.
            RequestError, CapacityError, GenerationError: as `Engine.submit_logits`.
        """
        return collect_logits(self.engine, token_ids_of(token_ids, self.context), chunk)

    def prompt_logprobs(
        self, token_ids: Iterable[int], top: int = 0
    ) -> tuple[TokenLogprobs | None, ...]:
        """Return the log-probabilities of each token given those before it, None for the first,
        with the ``top`` likeliest at its place (0 to 20). They are the numbers, bit by bit, that
        sampling the same tokens gives; the logits stay in the core, a step's worth at a time.
        Other requests go on meanwhile.

        Raises:
            ContextLengthError: more tokens than the context.
            RequestError, CapacityError, GenerationError, NativeError: as `stream`.
        """
        params = SamplingParams(temperature=0.0, max_tokens=0, prompt_logprobs=top)
        logprobs = self.generate(token_ids, params).prompt_logprobs
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
        )
        job = self.embed_job(call)
        return job.finish(blocking(lambda inbox: self.vectors(job, inbox)))

    async def aembed(
        self,
        texts: Prompt | Prompts,
        *,
        pooling: PoolingKind | None = None,
        normalize: bool = True,
        dimensions: int | None = None,
        input_type: InputType | None = None,
        prompt: str = "",
    ) -> Float32:
        """Return what `embed` returns, from an event loop. Cancelling the task cancels the
        request."""
        import asyncio

        call = EmbedCall(
            texts=texts,
            pooling=pooling,
            normalize=normalize,
            dimensions=dimensions,
            input_type=input_type,
            prompt=prompt,
        )
        job = await asyncio.to_thread(self.embed_job, call)
        vectors = self.vectors(job, AsyncInbox())
        try:
            return job.finish(await vectors.collect())
        finally:
            vectors.close()

    def embed_job(self, call: EmbedCall) -> EmbedJob:
        """Check and encode what `embed` is asked. Raises as it does, but for what fails while it
        runs."""
        return embed_job(self.program, self.tokenizer, self.context, call)

    def rerank(
        self, query: str, documents: Sequence[str], *, instruction: str | None = None
    ) -> list[float]:
        """Return how relevant each document is to a query, higher is better. A program that was
        trained to judge gives the probability, 0 to 1, of its "yes" against its "no"; others the
        cosine of the vectors of `embed`, -1 to 1.

        Args:
            query: a text.
            documents: texts.
            instruction: what makes a document relevant; None takes what the program recommends. It
                goes in front of the query where the program does not judge.

        Raises:
            ProgramError: the program can do neither.
            ContextLengthError: a text is longer than the context; ``param`` says which.
            RequestError: an empty text, or what is none.
            TokenizerError, CapacityError, GenerationError, NativeError: as `embed`.
        """
        call = RerankCall(query=query, documents=documents, instruction=instruction)
        reranking = self.rerank_job(call)
        return reranking.finish(blocking(lambda inbox: self.vectors(reranking.job, inbox)))

    async def arerank(
        self, query: str, documents: Sequence[str], *, instruction: str | None = None
    ) -> list[float]:
        """Return what `rerank` returns, from an event loop. Cancelling the task cancels the
        request."""
        import asyncio

        call = RerankCall(query=query, documents=documents, instruction=instruction)
        reranking = await asyncio.to_thread(self.rerank_job, call)
        vectors = self.vectors(reranking.job, AsyncInbox())
        try:
            return reranking.finish(await vectors.collect())
        finally:
            vectors.close()

    def rerank_job(self, call: RerankCall) -> RerankJob:
        """Check and encode what `rerank` is asked. Raises as it does, but for what fails while it
        runs."""
        facts = self.program.documents.rerank
        judge = self._judge
        if facts is not None and (judge is None or judge.facts is not facts):
            self._judge = judge = Judge(self.tokenizer, facts)
        return rerank_job(self.program, self.tokenizer, self.context, call, judge)

    def vectors(self, job: EmbedJob | JudgeJob, inbox: Inbox) -> Vectors:
        """Submit the texts of a job. Raises as `Engine.submit_embedding` and `submit_logits`."""
        engine, most = self.engine, 2 * self.engine.max_sequences
        if isinstance(job, EmbedJob):
            pooling = job.pooling
            return Vectors(
                lambda ids, on_event: engine.submit_embedding(ids, pooling, on_event),
                job.ids,
                inbox,
                most=most,
            )
        return Vectors(
            lambda ids, on_event: engine.submit_logits(ids, on_event, last_only=True),
            job.ids,
            inbox,
            most=most,
            take=logits_of(job.yes_id, job.no_id),
        )

    def stats(self) -> EngineStatistics:
        """Return what the engine is doing now."""
        return self.engine.stats()

    def _token_text(self, token: int | None) -> str | None:
        return (
            None
            if token is None
            else self.tokenizer.decode([token], skip_specials=False, continues=True)
        )

    def _continue(
        self, prompt: Prompt | Prompts, params: Params, n: int | None, options: Mapping[str, Any]
    ) -> list[Job]:
        sampling, forms = dict(options), dict(options)
        for name in FORMS:
            sampling.pop(name, None)
        prompts: Iterable[Any] = prompt if is_several(prompt) else (prompt,)
        ids = [encode_prompt(self.tokenizer, item, self.context) for item in prompts]
        jobs = jobs_of(self.tokenizer, ids, self._params(params, sampling), n)
        grammar = grammar_of(forms)
        return jobs if grammar is None else self.guided(jobs, grammar, form_given(forms))

    def guided(self, jobs: Iterable[Job], grammar: Grammar, param: str) -> list[Job]:
        """Return jobs whose answers are held to a grammar.

        Raises:
            RequestError: with ``param``: it cannot be enforced.
        """
        return [replace(job, constraint=self.guide.constraint(grammar, param)) for job in jobs]

    def _answer(
        self, messages: Sequence[Message], params: Params, n: Count, options: Mapping[str, Any]
    ) -> list[Job]:
        call, sampling = chat_call(messages, options)
        return self.chat_jobs(call, self._params(params, sampling), n)

    def _params(self, params: Params, options: Mapping[str, Any]) -> SamplingParams:
        if params is None:
            return self.default_params(**options)
        if not isinstance(params, SamplingParams):
            raise RequestError(
                f"params is of type {type(params).__name__}, expected SamplingParams",
                param="params",
            )
        return replace(params, **canonical(options)) if options else params

    def _whole(self, jobs: list[Job]) -> list[Completion]:
        with Stream(self.submit, jobs) as stream:
            return stream.completions()

    async def _awhole(self, jobs: Callable[[], list[Job]]) -> list[Completion]:
        generation = await self._begin(jobs)
        try:
            return await generation.completions()
        finally:
            generation.close()

    async def _apieces(self, jobs: Callable[[], list[Job]]) -> AsyncGenerator[Piece]:
        generation = await self._begin(jobs)
        try:
            while (piece := await generation.next()) is not None:
                yield piece
        finally:
            generation.close()

    async def _begin(self, jobs: Callable[[], list[Job]]) -> Generation:
        import asyncio  # here: a program that only blocks starts faster without

        # Texts are encoded in a thread: a long one would hold up the loop.
        return Generation(self.submit, await asyncio.to_thread(jobs), AsyncInbox())
