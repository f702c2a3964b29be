"""A loaded model with one of its adapters, as a model of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

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
from edge_llm.server.models.model import Model
from edge_llm.server.models.offer import with_adapter
from edge_llm.tokenizers.tokenizer import Tokenizer


class AdaptedModel:
    """Does what ``base`` does, and has the engine compute it with ``adapter``."""

    def __init__(self, base: Model, adapter: str) -> None:
        self.base = base
        self._adapter = adapter

    @property
    def name(self) -> str:
        return with_adapter(self.base.name, self._adapter)

    @property
    def digest(self) -> str:
        return self.base.digest

    @property
    def context(self) -> int:
        return self.base.context

    @property
    def context_policy(self) -> ContextPolicy:
        return self.base.context_policy

    @property
    def memory(self) -> int:
        return self.base.memory

    @property
    def tokenizer(self) -> Tokenizer:
        return self.base.tokenizer

    @property
    def about(self) -> ModelAbout:
        return self.base.about

    def default_params(self, **overrides: Any) -> SamplingParams:
        return self.base.default_params(**overrides)

    def chat_jobs(self, call: ChatCall, params: SamplingParams, n: int | None = None) -> list[Job]:
        return self.base.chat_jobs(call, params, n)

    def prompt_jobs(
        self, prompts: Iterable[Any], params: SamplingParams, n: int | None = None
    ) -> list[Job]:
        return self.base.prompt_jobs(prompts, params, n)

    def guided(self, jobs: Iterable[Job], grammar: Grammar, param: str) -> list[Job]:
        return self.base.guided(jobs, grammar, param)

    @property
    def submit(self) -> Submit:
        return partial(self.base.submit, adapter=self._adapter)

    def embed_job(self, call: EmbedCall) -> EmbedJob:
        return self.base.embed_job(replace(call, adapter=self._adapter))

    def rerank_job(self, call: RerankCall) -> RerankJob:
        return self.base.rerank_job(replace(call, adapter=self._adapter))

    def vectors(self, job: EmbedJob | JudgeJob, inbox: Inbox, client: str = "") -> Vectors:
        return self.base.vectors(job, inbox, client)

    def stats(self) -> EngineStatistics:
        return self.base.stats()

    def prepare(self) -> None:
        self.base.prepare()

    def close(self) -> None:
        self.base.close()
