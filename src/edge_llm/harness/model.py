"""A program as a model of lm-evaluation-harness: the three questions that its tasks ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from edge_llm.api.likelihood import encoded, log_likelihoods, rolling_log_likelihood, split
from edge_llm.api.loading import load
from edge_llm.errors import ConfigError, RequestError
from edge_llm.runner.sampling import SamplingParams, canonical

_MAX_TOKENS = 256  # of an answer, where a task says nothing

T = TypeVar("T")


@register_model("edge-llm")
class EdgeLLM(LM):  # type: ignore[misc]
    """Answers the requests of tasks with a program.

    Log-likelihoods are those of the program's own arithmetic, in nats. A context that is too long
    loses its beginning, as in the harness's other models.
    """

    def __init__(
        self,
        program: str,
        *,
        threads: int = 0,
        context: int | None = None,
        kv_dtype: str | None = None,
        backend: str = "native",
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        """Load ``program``: a file, a name, or whatever `edge_llm.load` takes. Of the others
        ``threads``, ``context``, ``kv_dtype`` and ``backend`` are its arguments too; ``batch_size``
        is how many requests run at once (None and "auto": 8), which changes no result.

        Raises:
            ConfigError: an argument that cannot be honoured.
            EdgeLLMError: as `edge_llm.load`.
        """
        super().__init__()
        if device not in (None, "cpu"):
            raise ConfigError(f"device is {device!r}, expected cpu")
        at_once = 8 if batch_size is None or str(batch_size).startswith("auto") else batch_size
        if max_batch_size is not None and isinstance(batch_size, str | None):
            at_once = max_batch_size
        if isinstance(at_once, str) and at_once.isdecimal():
            at_once = int(at_once)
        if not isinstance(at_once, int) or at_once < 1:
            raise ConfigError(f"batch_size is {batch_size!r}, expected a number from 1, or auto")
        self._at_once = at_once
        self.llm = load(
            program,
            threads=threads,
            context=context,
            kv_dtype=kv_dtype,
            backend=backend,
            max_sequences=at_once,
        )
        facts = self.llm.tokenizer.facts
        stops = self.llm.program.documents.generation.stop_ids
        known = [each for each in (facts.bos_id, facts.eos_id, *stops) if each is not None]
        if not known:
            raise ConfigError(f"{program} has no token that begins or ends a text")
        self._prefix = known[0]

    @property
    def tokenizer_name(self) -> str:
        """The name under which the harness caches requests: the program's, with its digest."""
        return f"{self.llm.name}-{self.llm.digest}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the source of the chat template, for the harness's record.

        Raises:
            RequestError: another template is asked for by its name.
        """
        if isinstance(chat_template, str):
            raise RequestError(f"there is no chat template {chat_template!r}, expected its own")
        return self.llm.require_chat_template().source if chat_template else None

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return the prompt of a conversation.

        Raises:
            TemplateError: the program has no chat template, or it rejects the messages.
        """
        template = self.llm.require_chat_template()
        return template.render(chat_history, add_generation_prompt=add_generation_prompt)

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Return for each request (its ``args`` a context and a continuation) the log-likelihood of
        the continuation, and whether greedy decoding would write it. Requests with the same context
        and continuations of one token share a pass."""
        groups: dict[tuple[int, ...], list[tuple[int, list[int]]]] = {}
        for index, request in enumerate(requests):
            context, continuation = split(self.llm, *request.args, prefix=self._prefix)
            groups.setdefault(tuple(context), []).append((index, continuation))
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)

        def score(group: tuple[tuple[int, ...], list[tuple[int, list[int]]]]) -> None:
            context, members = group
            scores = log_likelihoods(self.llm, context, [each for _, each in members])
            for (index, _), one in zip(members, scores, strict=True):
                found[index] = one
                self.cache_hook.add_partial("loglikelihood", requests[index].args, one)

        self._all(score, groups.items(), disable_tqdm)
        return found

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Return the log-likelihood of each request's text, whole, in windows where it is longer
        than the context."""

        def score(request: Any) -> float:
            tokens = self.llm.tokenizer.encode(request.args[0], add_bos=False)
            found = rolling_log_likelihood(self.llm, tokens, self._prefix)
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, found)
            return found

        return self._all(score, requests, disable_tqdm)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the answer to each request: its ``args`` a prompt, and how to generate (``until``,
        ``max_gen_toks``, ``do_sample``, and fields of `SamplingParams`).

        Raises:
            RequestError: something else is asked for.
        """

        def answer(request: Any) -> str:
            prompt, options = request.args
            params = sampling_of(options)
            limit = params.max_tokens or 1
            room = self.llm.context - limit
            if room < 1:
                raise RequestError(
                    f"max_gen_toks is {limit}, expected less than the context {self.llm.context}"
                )
            text = self.llm.generate(encoded(self.llm, prompt)[-room:], params).text
            self.cache_hook.add_partial("generate_until", request.args, text)
            return text

        return self._all(answer, requests, disable_tqdm)

    def _all(self, work: Callable[[Any], T], items: Iterable[Any], silent: bool) -> list[T]:
        from tqdm import tqdm

        every = list(items)
        pool = ThreadPoolExecutor(self._at_once)
        try:
            return list(tqdm(pool.map(work, every), total=len(every), disable=silent))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            self.llm.close()  # ends what still runs, and so the threads
            raise
        finally:
            pool.shutdown()


def sampling_of(options: Mapping[str, Any]) -> SamplingParams:
    """Return how to generate what a task asks for: greedily, unless ``do_sample`` is set.

    Raises:
        RequestError: an option that is not known, or a value that cannot be.
    """
    given = dict(options)
    until = given.pop("until", None) or ()
    stop = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
    max_tokens = given.pop("max_gen_toks", given.pop("max_tokens", _MAX_TOKENS))
    sampled = given.pop("do_sample", None)
    if sampled is False:
        given.pop("temperature", None)  # which tasks give all the same
    temperature = given.pop("temperature", 1.0 if sampled else 0.0)
    given |= {"stop": stop, "max_tokens": max_tokens, "temperature": temperature}
    return SamplingParams(**canonical(given))
