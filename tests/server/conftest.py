"""A model that answers what it is told to, and servers around it: in memory, and on a socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from fixtures_contract import Contract
from fixtures_server import offered, serving
from starlette.testclient import TestClient

from edge_llm.api.about import ModelAbout
from edge_llm.api.chat import ChatCall
from edge_llm.api.prompts import jobs_of, prompt_jobs
from edge_llm.errors import (
    ContextLengthError,
    EdgeLLMError,
    RequestError,
    TemplateError,
    TokenizerError,
)
from edge_llm.parsed import Parser
from edge_llm.program.documents import TokenizerFacts
from edge_llm.runner.context import Context, ContextPolicy
from edge_llm.runner.engine.constraints import Constraint
from edge_llm.runner.engine.events import ErrorEvent, Event, FinishEvent, PromptEvent, TokenEvent
from edge_llm.runner.engine.statistics import (
    EngineStatistics,
    GroupStatistics,
    RequestStatistics,
)
from edge_llm.runner.executor import TokenLogprobs
from edge_llm.runner.generation.loop import Job
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.runner.sampling import SamplingParams
from edge_llm.server.app import create_app
from edge_llm.server.models.offer import Offer
from edge_llm.server.models.shelf import Shelf
from edge_llm.server.options import ServerOptions
from edge_llm.server.run import Stop, address, bind, run
from edge_llm.server.service import Service

SPECIAL = 256
END = 257  # the engine stops here; such ids give no event


class ByteTokenizer:
    """One id per byte, and one special token."""

    facts = TokenizerFacts(size=258, bos_id=None, eos_id=END, add_bos=False)

    def encode(
        self,
        text: str,
        *,
        add_bos: bool | None = None,
        specials: bool = False,
        token_limit: int | None = None,
    ) -> list[int]:
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise TokenizerError("text is not valid Unicode")
        parts = text.split("<special>") if specials else [text]
        ids = list(parts[0].encode())
        for part in parts[1:]:
            ids += [SPECIAL, *part.encode()]
        return ids

    @property
    def breakers(self) -> ByteTokenizer:
        return self

    def ids(self, texts: Iterable[str]) -> list[int]:
        return []

    def decode(self, ids: Iterable[int], skip_specials: bool = True) -> str:
        shown = (self.token_bytes(i) for i in ids if i < 256 or not skip_specials)
        return b"".join(shown).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < 256 else b"<special>"

    def first_bytes(self, token_id: int) -> bytes:
        return self.token_bytes(token_id).removeprefix(b" ")

    def is_special(self, token_id: int) -> bool:
        return token_id == SPECIAL


@dataclass
class FakeRequest:
    """A submitted request: what was asked, and whether it was cancelled."""

    prompt: list[int]
    params: SamplingParams
    client: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        self.cancelled.set()


class FakeModel:
    """Answers every prompt with ``answer`` (text or ids), one byte a token, from a thread of its
    own; with ``gate`` cleared it waits before each token."""

    name = "fake-model"
    digest = "ab" * 32
    context = 512
    memory = 77
    context_policy: ContextPolicy = "error"

    def __init__(self) -> None:
        self.tokenizer = ByteTokenizer()
        self.answer: str | list[int] = "Hello, world"
        self.error: EdgeLLMError | None = None  # comes after the answer
        self.gate = threading.Event()
        self.gate.set()
        self.requests: list[FakeRequest] = []
        self.calls: list[ChatCall] = []
        self.about = ModelAbout(
            family="llama",
            parameters=135_000_000,
            layers=30,
            width=576,
            vocab=258,
            trained_context=2048,
            quantization="8da4w",
            file_bytes=90_000_000,
            modified=1_700_000_000.5,
            chat_template="{{ messages }}",
            recommended={"temperature": 0.5, "top_k": 7},
        )
        self.grammars: list[Grammar] = []  # of raw prompts
        self.parser: Callable[[], Parser] | None = None  # of chats
        self.clipped: int | None = None  # what answers say of their max_tokens
        self.prepared = threading.Event()
        self.closed = False

    def default_params(self, **overrides: Any) -> SamplingParams:
        return SamplingParams(**{"temperature": 0.5, "top_k": 7, **overrides})

    def chat_jobs(self, call: ChatCall, params: SamplingParams, n: int | None = None) -> list[Job]:
        self.calls.append(call)
        first = call.messages[0]["content"]
        if first == "reject me":
            raise TemplateError("the template rejects the messages")
        if first == "break":
            raise ZeroDivisionError("a bug")
        text = "".join(f"{m['role']}:{m['content']}\n" for m in call.messages)
        jobs = jobs_of(self.tokenizer, [self.tokenizer.encode(text)], params, n, answers=True)  # type: ignore[arg-type]
        return [replace(job, parser=self.parser() if self.parser else None) for job in jobs]

    def prompt_jobs(
        self, prompts: Iterable[Any], params: SamplingParams, n: int | None = None
    ) -> list[Job]:
        context = Context(self.context, self.context_policy)
        return prompt_jobs(self.tokenizer, prompts, context, params, n)  # type: ignore[arg-type]

    def guided(self, jobs: Iterable[Job], grammar: Grammar, param: str) -> list[Job]:
        self.grammars.append(grammar)
        if "refused" in grammar.text:
            raise RequestError("there is no such thing", param=param)
        return list(jobs)

    def submit(
        self,
        prompt_ids: Iterable[int],
        params: SamplingParams | None,
        on_event: Callable[[Event], None],
        *,
        constraint: Constraint | None = None,
        client: str = "",
    ) -> FakeRequest:
        assert params is not None
        assert constraint is None
        request = FakeRequest(list(prompt_ids), params, client)
        if len(request.prompt) + (params.max_tokens != 0) > self.context:
            raise ContextLengthError(self.context, len(request.prompt), param="prompt")
        if not request.prompt or max(request.prompt) > END:
            raise RequestError("the prompt is not right", param="prompt")
        if any(token > END for token in params.logit_bias):
            raise RequestError("an id is outside the vocabulary", param="logit_bias")
        self.requests.append(request)
        threading.Thread(target=self._generate, args=(request, on_event), daemon=True).start()
        return request

    def stats(self) -> EngineStatistics:
        return EngineStatistics(1, 2, 30, 20, 5, 7, 0, 0.5, (GroupStatistics(30, 20, 5),))

    def prepare(self) -> None:
        self.prepared.set()

    def close(self) -> None:
        self.closed = True

    def _generate(self, request: FakeRequest, on_event: Callable[[Event], None]) -> None:
        ids = list(self.answer.encode() if isinstance(self.answer, str) else self.answer)
        reason, count = "stop", 0
        if (top := request.params.prompt_logprobs) is not None and self._wait(request):
            scores = [self._logprobs(token, top) for token in request.prompt[1:]]
            on_event(PromptEvent((None, *scores)))
        if request.params.max_tokens == 0:
            reason, ids = "cancelled" if request.cancelled.is_set() else "length", []
        for token in ids:
            if not self._wait(request):
                reason = "cancelled"
                break
            count += 1
            on_event(TokenEvent(token, self._logprobs(token, request.params.top_logprobs)))
            if count == request.params.max_tokens:
                reason = "length"
                break
        if self.error is not None and reason == "stop":
            on_event(ErrorEvent(self.error))
        else:
            stats = RequestStatistics(
                prompt_tokens=len(request.prompt),
                cached_tokens=3,
                cache="partial" if len(request.prompt) > 1 else "not used",
                completion_tokens=count,
                queue_seconds=0.001,
                prefill_seconds=0.01,
                time_to_first_token=0.011,
                decode_seconds=0.1,
                prefill_tokens_per_second=100.0,
                decode_tokens_per_second=50.0,
                decode_gb_per_second=5.0,
                drafted_tokens=5,
                accepted_tokens=3,
                max_tokens_clipped=self.clipped,
            )
            on_event(FinishEvent(reason, stats))  # type: ignore[arg-type]
        request.ended.set()

    def _wait(self, request: FakeRequest) -> bool:
        """For the gate; False if the request is cancelled."""
        while not (self.gate.wait(0.002) or request.cancelled.is_set()):
            pass
        return not request.cancelled.is_set()

    @staticmethod
    def _logprobs(token: int, top: int | None) -> TokenLogprobs | None:
        if top is None:
            return None
        others = tuple((65 + i, -0.25 * (i + 1)) for i in range(top - 1))
        first = ((token, float("-inf")),) if top else ()
        return TokenLogprobs(-0.125, (*others, *first))


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def service(model: FakeModel) -> Service:
    return serving(model, aliases=("fake-file",))


ClientFactory = Callable[..., TestClient]


@pytest.fixture(scope="session")
def contract() -> Contract:
    """The OpenAPI document, to hold replies to."""
    with TestClient(
        create_app(Service(Shelf([]), max_choices=1), ServerOptions()),
        base_url="http://127.0.0.1:8017",
    ) as client:
        return Contract(client.get("/openapi.json").json())


@pytest.fixture
def make_client(contract: Contract, service: Service) -> ClientFactory:
    """Clients of an application with the given options, in memory."""

    def make(**options: Any) -> TestClient:
        host = options.pop("base_url", "http://127.0.0.1:8017")
        client = TestClient(create_app(service, ServerOptions(**options)), base_url=host)
        # Whatever a test sends and gets holds to the document, or the document is not true.
        client.event_hooks = {"response": [contract.check]}
        return client

    return make


@pytest.fixture
def client(make_client: ClientFactory) -> TestClient:
    return make_client()


@dataclass
class LiveServer:
    url: str
    stop: Callable[[], None]
    thread: threading.Thread


@pytest.fixture
def serve_live(model: FakeModel) -> Callable[..., AbstractContextManager[LiveServer]]:
    """Runs the real server on a free port of this machine, in a thread, until the block ends."""

    @contextmanager
    def live(
        load: Callable[[], Any] | None = None,
        *,
        of: Any = model,
        wait: bool = True,
        others: Sequence[Offer] = (),
        **changes: Any,
    ) -> Iterator[LiveServer]:
        offers = [offered(of, load=load, aliases=("fake-file",)), *others]
        options = replace(ServerOptions(port=0, drain_seconds=0.2), **changes)
        ready, failures = threading.Event(), []
        with bind(options) as listener:
            url = address(options.host, listener)
            loop = asyncio.new_event_loop()
            stop = Stop()

            def announce(offers: Any) -> None:
                ready.set()

            def target() -> None:
                try:
                    loop.run_until_complete(run(offers, options, listener, announce, stop))
                    loop.run_until_complete(loop.shutdown_default_executor())
                except Exception as exc:
                    failures.append(exc)
                finally:
                    ready.set()
                    loop.close()

            thread = threading.Thread(target=target)
            thread.start()

            def stop_it() -> None:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(stop)

            try:
                if wait:
                    assert ready.wait(60)
                yield LiveServer(url, stop_it, thread)
            finally:
                stop_it()
                thread.join(60)
            assert not thread.is_alive()
            if failures:
                raise failures[0]

    return live
