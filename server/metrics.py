"""``GET /metrics``: figures for Prometheus. No label has values that a client could choose."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

from fastapi import APIRouter
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector
from starlette.responses import Response

from edge_llm.runner.engine.statistics import EngineStatistics, RequestStatistics
from edge_llm.server.documentation.operation import documented
from edge_llm.server.gate.exchange import Exchange
from edge_llm.server.service import Service

# Seconds: a token on a fast machine to one on a small one, and to a long prompt's first.
TOKEN_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
FIRST_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)
_METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH"})


class Metrics:
    """The figures of one server. Used on the event loop's thread."""

    def __init__(self, service: Service) -> None:
        self._registry = registry = CollectorRegistry()
        registry.register(_Now(service))
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "edge_llm_requests",
            "Requests that ended, by route and status (499: the client left).",
            ("method", "route", "status"),
            registry=registry,
        )
        self._tokens = {
            name: Counter(f"edge_llm_{name}_tokens", meaning, registry=registry)
            for name, meaning in (
                ("prompt", "Tokens of prompts."),
                ("cached", "Tokens of prompts that the cache had."),
                ("completion", "Tokens that were sampled."),
                ("drafted", "Tokens that were proposed and computed ahead."),
                ("accepted", "Drafted tokens that turned out to be right."),
            )
        }
        self._first_token = Histogram(
            "edge_llm_time_to_first_token_seconds",
            "From a request's arrival at the engine to its first token.",
            buckets=FIRST_BUCKETS,
            registry=registry,
        )
        self._between_tokens = Histogram(
            "edge_llm_inter_token_seconds",
            "Between two tokens of an answer: its mean, counted once an answer.",
            buckets=TOKEN_BUCKETS,
            registry=registry,
        )

    def ended(self, scope: MutableMapping[str, Any], exchange: Exchange) -> None:
        """Count a request."""
        # The path itself may be told where no part of it is the client's; routes of a router do not
        # know its prefix.
        route = getattr(scope.get("route"), "path", "none")
        if scope["path"].endswith(route):
            route = scope["path"]
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._requests.labels(method, route, str(exchange.outcome)).inc()

    def answered(self, stats: RequestStatistics) -> None:
        """Count an answer."""
        self._tokens["prompt"].inc(stats.prompt_tokens)
        self._tokens["cached"].inc(stats.cached_tokens)
        self._tokens["completion"].inc(stats.completion_tokens)
        self._tokens["drafted"].inc(stats.drafted_tokens)
        self._tokens["accepted"].inc(stats.accepted_tokens)
        if stats.completion_tokens:
            self._first_token.observe(stats.time_to_first_token)
        if stats.completion_tokens > 1:
            self._between_tokens.observe(stats.decode_seconds / (stats.completion_tokens - 1))

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self._registry)


class _Now(Collector):
    """The figures that are looked up when they are asked for."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        service = self._service
        yield _gauge("requests_active", "Requests that run or wait.", service.requests)
        yield _gauge("choices_active", "Answers that they ask for.", service.choices)
        models = GaugeMetricFamily("edge_llm_model_loaded", "1: in memory.", labels=("model",))
        for offer in service.shelf.offers:
            models.add_metric((offer.name,), offer.state == "loaded")
        yield models
        yield from _engines(
            [
                (offer.name, offer.model.stats())
                for offer in service.shelf.offers
                if offer.state == "loaded" and offer.model is not None
            ]
        )


def _engines(engines: Sequence[tuple[str, EngineStatistics]]) -> Iterator[Metric]:
    """Yield the figures of the models that are loaded."""
    of_model = ("model",)
    running = GaugeMetricFamily(
        "edge_llm_sequences_running", "Sequences that the engine computes.", labels=of_model
    )
    waiting = GaugeMetricFamily(
        "edge_llm_sequences_waiting", "Sequences that wait for their turn.", labels=of_model
    )
    steps = SummaryMetricFamily("edge_llm_step_seconds", "Steps of the engine.", labels=of_model)
    preemptions = CounterMetricFamily(
        "edge_llm_preemptions", "Sequences that had to make room.", labels=of_model
    )
    blocks = GaugeMetricFamily(
        "edge_llm_blocks",
        "Blocks of keys and values: used, free and empty, or free with content that can be found.",
        labels=("model", "group", "state"),
    )
    for name, stats in engines:
        running.add_metric((name,), stats.running)
        waiting.add_metric((name,), stats.waiting)
        steps.add_metric((name,), stats.steps, stats.step_seconds)
        preemptions.add_metric((name,), stats.preemptions)
        for number, group in enumerate(stats.groups):
            for state, count in (
                ("used", group.blocks - group.free),
                ("cached", group.cached),
                ("free", group.free - group.cached),
            ):
                blocks.add_metric((name, str(number), state), count)
    yield from (running, waiting, steps, preemptions, blocks)


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"edge_llm_{name}", meaning, value)


def metrics_router(metrics: Metrics) -> APIRouter:
    router = APIRouter()

    @router.get(
        "/metrics",
        **documented("Figures for Prometheus", "server", reply="text/plain"),
    )
    async def show() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router
