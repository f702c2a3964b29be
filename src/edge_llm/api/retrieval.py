"""Vectors of texts and scores of documents, by one loaded program: what is asked for becomes a job,
the engine computes its texts, and the job makes the result of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_llm.api.answering import prepared
from edge_llm.api.embeddings import EmbedCall, EmbedJob, embed_job
from edge_llm.api.rerank import Judge, JudgeJob, RerankCall, RerankJob, rerank_job
from edge_llm.program.file import Program
from edge_llm.runner.engine.engine import Engine
from edge_llm.runner.executor import Float32
from edge_llm.runner.generation.inbox import Inbox
from edge_llm.runner.generation.vectors import Float64, Vectors, blocking, logits_of

if TYPE_CHECKING:  # the library behind it is imported when it is needed
    from edge_llm.tokenizers.tokenizer import Tokenizer

Job = EmbedJob | JudgeJob


class Retrieval:
    """What `LLM.embed` and `LLM.rerank` do, each waited for by a thread or by an event loop."""

    def __init__(self, program: Program, engine: Engine, tokenizer: Tokenizer) -> None:
        """Share them with the `LLM`, which closes them."""
        self._program = program
        self._engine = engine
        self._tokenizer = tokenizer
        self._judge: Judge | None = None

    def embed(self, call: EmbedCall) -> Float32:
        """Return the vectors. Raises as `LLM.embed`."""
        job = self.embed_job(call)
        return job.finish(self._computed(job))

    async def aembed(self, call: EmbedCall) -> Float32:
        """Return the vectors. Raises as `LLM.embed`."""
        job = await prepared(lambda: self.embed_job(call))
        return job.finish(await self._acomputed(job))

    def rerank(self, call: RerankCall) -> list[float]:
        """Return the scores. Raises as `LLM.rerank`."""
        reranking = self.rerank_job(call)
        return reranking.finish(self._computed(reranking.job))

    async def arerank(self, call: RerankCall) -> list[float]:
        """Return the scores. Raises as `LLM.rerank`."""
        reranking = await prepared(lambda: self.rerank_job(call))
        return reranking.finish(await self._acomputed(reranking.job))

    def embed_job(self, call: EmbedCall) -> EmbedJob:
        """Check and encode what `embed` is asked."""
        return embed_job(self._program, self._tokenizer, self._engine.facts.context, call)

    def rerank_job(self, call: RerankCall) -> RerankJob:
        """Check and encode what `rerank` is asked."""
        facts = self._program.documents.rerank
        judge = self._judge
        if facts is not None and (judge is None or judge.facts is not facts):
            self._judge = judge = Judge(self._tokenizer, facts)
        context = self._engine.facts.context
        return rerank_job(self._program, self._tokenizer, context, call, judge)

    def vectors(self, job: Job, inbox: Inbox, client: str = "") -> Vectors:
        """Submit the texts of a job. Raises as `Engine.submit_embedding` and `submit_logits`."""
        engine, most = self._engine, 2 * self._engine.max_sequences
        adapter = job.adapter
        if isinstance(job, EmbedJob):
            pooling = job.pooling
            return Vectors(
                lambda ids, on_event: engine.submit_embedding(
                    ids, pooling, on_event, adapter=adapter, client=client
                ),
                job.ids,
                inbox,
                most=most,
            )
        return Vectors(
            lambda ids, on_event: engine.submit_logits(
                ids, on_event, last_only=True, adapter=adapter, client=client
            ),
            job.ids,
            inbox,
            most=most,
            take=logits_of(job.yes_id, job.no_id),
        )

    def _computed(self, job: Job) -> list[Float64]:
        return blocking(lambda inbox: self.vectors(job, inbox))

    async def _acomputed(self, job: Job) -> list[Float64]:
        from edge_llm.runner.generation.async_inbox import AsyncInbox  # here: it needs asyncio

        vectors = self.vectors(job, AsyncInbox())
        try:
            return await vectors.collect()
        finally:
            vectors.close()
