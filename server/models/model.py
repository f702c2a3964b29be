"""The part of a loaded model that the server needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from edge_llm.api.about import ModelAbout
from edge_llm.api.chat import ChatCall
from edge_llm.api.embeddings import EmbedCall, EmbedJob
from edge_llm.api.rerank import JudgeJob, RerankCall, RerankJob
from edge_llm.runner.context import ContextPolicy
from edge_llm.runner.engine.statistics import EngineStatistics
from edge_llm.runner.generation.inbox import Inbox
from edge_llm.runner.generation.loop import Job, Submit
from edge_llm.runner.generation.vectors import Vectors
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.runner.sampling import SamplingParams
from edge_llm.tokenizers.tokenizer import Tokenizer


class Model(Protocol):
    """The part of `edge_llm.api.LLM` that the server needs."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def context(self) -> int: ...

    @property
    def context_policy(self) -> ContextPolicy: ...

    @property
    def memory(self) -> int: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def about(self) -> ModelAbout: ...

    def default_params(self, **overrides: Any) -> SamplingParams: ...

    def chat_jobs(
        self, call: ChatCall, params: SamplingParams, n: int | None = None
    ) -> list[Job]: ...

    def prompt_jobs(
        self, prompts: Iterable[Any], params: SamplingParams, n: int | None = None
    ) -> list[Job]: ...

    def guided(self, jobs: Iterable[Job], grammar: Grammar, param: str) -> list[Job]: ...

    @property
    def submit(self) -> Submit: ...

    def embed_job(self, call: EmbedCall) -> EmbedJob: ...

    def rerank_job(self, call: RerankCall) -> RerankJob: ...

    def vectors(self, job: EmbedJob | JudgeJob, inbox: Inbox, client: str = "") -> Vectors: ...

    def stats(self) -> EngineStatistics: ...

    def prepare(self) -> None: ...

    def close(self) -> None: ...
