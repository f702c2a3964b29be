"""From what a caller asks of one loaded program to jobs: sampling parameters by name, prompts and
chats as token ids, forms as constraints. Nothing runs here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edge_llm.api.answers import Answers
from edge_llm.api.chat import chat_call
from edge_llm.api.formats import FORMS, form_given, grammar_of
from edge_llm.api.prompts import Prompt, Prompts, is_several, prompt_jobs
from edge_llm.errors import RequestError, TemplateError
from edge_llm.program.file import Program
from edge_llm.runner.context import Context
from edge_llm.runner.engine.requests import EngineFacts
from edge_llm.runner.generation.loop import Job
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.runner.guidance.guide import Guide
from edge_llm.runner.guidance.vocabulary import Vocabulary
from edge_llm.runner.sampling import SamplingParams, canonical
from edge_llm.tokenizers.chat.messages import Message

if TYPE_CHECKING:  # the libraries behind them are imported when they are needed
    from edge_llm.tokenizers.chat.template import ChatTemplate
    from edge_llm.tokenizers.tokenizer import Tokenizer


def chat_template_of(program: Program, tokenizer: Tokenizer) -> ChatTemplate | None:
    """Return a program's chat template, None if it has none.

    Raises:
        TemplateError: it does not compile.
    """
    from edge_llm.tokenizers.chat.template import ChatTemplate

    def text(token: int | None) -> str | None:
        if token is None:
            return None
        return tokenizer.decode([token], skip_specials=False, continues=True)

    source, facts = program.documents.chat_template, program.documents.tokenizer
    if source is None:
        return None
    return ChatTemplate(source, bos=text(facts.bos_id), eos=text(facts.eos_id))


class Preparation:
    """What the calls of `LLM` have in common before anything runs."""

    def __init__(
        self, program: Program, facts: EngineFacts, tokenizer: Tokenizer, context: Context
    ) -> None:
        """Share them with the `LLM`."""
        self._context = context
        self._program = program
        self._facts = facts
        self._tokenizer = tokenizer
        self._template: ChatTemplate | None = None

    @property
    def chat_template(self) -> ChatTemplate | None:
        """The program's chat template, None if it has none.

        Raises:
            TemplateError: it does not compile.
        """
        if self._template is None:
            self._template = chat_template_of(self._program, self._tokenizer)
        return self._template

    def require_chat_template(self) -> ChatTemplate:
        """Return the chat template.

        Raises:
            TemplateError: the program has none, or it does not compile.
        """
        template = self.chat_template
        if template is None:
            raise TemplateError(
                f"{self._program.documents.model.name} has no chat template",
                hint="use generate, or `run --raw`",
            )
        return template

    @cached_property
    def guide(self) -> Guide:
        """What holds answers to grammars; it prepares the vocabulary when it is first needed."""
        template = self._program.documents.chat_template or ""
        written = {i for text, i in self._tokenizer.added_ids.items() if text in template}
        return Guide(
            lambda: Vocabulary.of(
                self._tokenizer,
                size=self._facts.vocab,
                end_ids=self._facts.stop_ids,
                controls=written,
            )
        )

    @cached_property
    def answers(self) -> Answers:
        """What makes jobs of chats.

        Raises:
            TemplateError: as `require_chat_template`.
        """
        template = self.require_chat_template()
        return Answers(self._tokenizer, template, self._context, self.guide)

    def params(self, params: SamplingParams | None, options: Mapping[str, Any]) -> SamplingParams:
        """Return ``params`` changed by options by name; what neither says is what the model's
        authors recommend, else neutral.

        Raises:
            RequestError: an unknown name, or a value of the wrong type or out of range.
        """
        if params is not None and not isinstance(params, SamplingParams):
            raise RequestError(
                f"params is of type {type(params).__name__}, expected SamplingParams",
                param="params",
            )
        named = canonical(options)
        given = SamplingParams(**named) if params is None else replace(params, **named)
        return given.filled(self._recommended)

    @cached_property
    def _recommended(self) -> Mapping[str, float]:
        """The program's own values of the parameters that its authors recommend."""
        generation = asdict(self._program.documents.generation)
        return {name: value for name, value in generation.items() if name != "stop_ids"}

    def prompts(
        self,
        prompt: Prompt | Prompts,
        params: SamplingParams | None,
        n: int | None,
        options: Mapping[str, Any],
    ) -> list[Job]:
        """Return the jobs of `LLM.generate`, and raise as it does."""
        sampling, own = _apart(options)
        forms = dict(sampling)
        for name in FORMS:
            sampling.pop(name, None)
        prompts: Iterable[Any] = prompt if is_several(prompt) else (prompt,)
        jobs = _with(self.raw(prompts, self.params(params, sampling), n), own)
        grammar = grammar_of(forms)
        return jobs if grammar is None else self.guided(jobs, grammar, form_given(forms))

    def raw(self, prompts: Iterable[Any], params: SamplingParams, n: int | None) -> list[Job]:
        """Return the jobs of `LLM.prompt_jobs`, and raise as it does."""
        return prompt_jobs(self._tokenizer, prompts, self._context, params, n)

    def guided(self, jobs: Iterable[Job], grammar: Grammar, param: str) -> list[Job]:
        """Return jobs whose answers are held to a grammar.

        Raises:
            RequestError: with ``param``: it cannot be enforced.
        """
        return [replace(job, constraint=self.guide.constraint(grammar, param)) for job in jobs]

    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None,
        n: int | None,
        options: Mapping[str, Any],
    ) -> list[Job]:
        """Return the jobs of `LLM.chat`, and raise as it does."""
        rest, own = _apart(options)
        call, sampling = chat_call(messages, rest)
        return _with(self.answers.jobs(call, self.params(params, sampling), n), own)


def _apart(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the other options, and those that a job has as they are: logits processors, and the
    adapter, which the engine looks up.

    Raises:
        RequestError: the processors are no list of functions.
    """
    rest = dict(options)
    adapter = rest.pop("adapter", None)
    given = rest.pop("logits_processors", ())
    if not isinstance(given, list | tuple) or not all(callable(item) for item in given):
        raise RequestError(
            f"logits_processors is {given!r}, expected a list of functions",
            param="logits_processors",
        )
    own: dict[str, Any] = {"processors": tuple(given)} if given else {}
    return rest, own if adapter is None else {**own, "adapter": adapter}


def _with(jobs: list[Job], own: Mapping[str, Any]) -> list[Job]:
    return [replace(job, **own) for job in jobs] if own else jobs
