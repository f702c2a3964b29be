"""From a query and documents to how relevant each is: by a language model that was trained to
judge, or by the angle between vectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edge_llm.api.embeddings import EmbedCall, EmbedJob, embed_job, too_long
from edge_llm.errors import ContextLengthError, RequestError
from edge_llm.program.documents import RERANK_FIELDS, RerankFacts
from edge_llm.program.file import Program
from edge_llm.runner.generation.vectors import Float64, cosines, shares

if TYPE_CHECKING:  # the library behind it is imported when it is needed
    from edge_llm.tokenizers.tokenizer import Tokenizer

_FIELD = re.compile("|".join(map(re.escape, RERANK_FIELDS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankCall:
    """A query, and the documents that may answer it.

    Attributes:
        query: a text.
        documents: texts.
        instruction: what makes a document relevant, in words; None takes what the program
            recommends.
        adapter: the name of an adapter that is loaded; None: the model itself.
    """

    query: str
    documents: Sequence[str]
    instruction: str | None = None
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class JudgeJob:
    """A prompt for each document, of whose next token the logits of "yes" and "no" are wanted."""

    ids: Sequence[Sequence[int]]
    yes_id: int
    no_id: int
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class RerankJob:
    """A `RerankCall` that can run: its texts, and what turns their results into scores."""

    job: JudgeJob | EmbedJob
    finish: Callable[[Sequence[Float64]], list[float]]


class Judge:
    """The prompt of a program that judges, prepared once.

    Control tokens are those that the template itself writes, also where the tokenizer's file does
    not flag them as such; what is between two of them is encoded as one text.
    """

    def __init__(self, tokenizer: Tokenizer, facts: RerankFacts) -> None:
        self.facts = facts
        written = frozenset(text for text in tokenizer.added_texts if text in facts.template)
        others = written - tokenizer.special_texts.keys()
        self._tokenizer = tokenizer.with_specials(others) if others else tokenizer
        ids, marks = self._tokenizer.encode_marked(facts.template)
        # Each text, and the control token behind it; the last has none.
        self._parts: list[tuple[str, list[int]]] = []
        begin = 0
        for mark in marks:
            self._parts.append((facts.template[begin : mark.start], [ids[mark.at]]))
            begin = mark.end
        self._parts.append((facts.template[begin:], []))

    def prompt(self, values: Mapping[str, str], context: int) -> list[int]:
        """Return the ids of the template with ``values`` in the place of its fields.

        Raises:
            ContextLengthError: they cannot fit the context.
            TokenizerError: a value is not Unicode (lone surrogates).
        """
        ids: list[int] = []
        for index, (part, control) in enumerate(self._parts):
            text = _FIELD.sub(lambda field: values[field[0]], part)
            if text:
                ids += self._tokenizer.encode(
                    text, add_bos=False, continues=index > 0, token_limit=context
                )
            ids += control
        return ids


def rerank_job(
    program: Program, tokenizer: Tokenizer, context: int, call: RerankCall, judge: Judge | None
) -> RerankJob:
    """Check a `RerankCall` and encode its texts. Text never becomes control tokens. Without a
    ``judge`` vectors are compared.

    Raises:
        ProgramError: the program neither judges nor has a method that gives hidden states.
        ContextLengthError: a text, or the prompt around it, is longer than the context; ``param``
            says which.
        RequestError: an empty text, or an argument that cannot be honoured.
        TokenizerError: a text is not Unicode (lone surrogates).
    """
    documents = _checked(call)
    if judge is not None:
        return _judged(judge, context, call, documents)
    query = embed_job(
        program,
        tokenizer,
        context,
        EmbedCall(texts=call.query, input_type="query", prompt=call.instruction or ""),
        name="query",
    )
    texts = EmbedCall(texts=documents, input_type="document")
    found = embed_job(program, tokenizer, context, texts, name="documents")
    job = replace(found, ids=[*query.ids, *found.ids], adapter=call.adapter)
    return RerankJob(job, lambda vectors: cosines(job.finish(vectors)))


def _judged(judge: Judge, context: int, call: RerankCall, documents: Sequence[str]) -> RerankJob:
    facts = judge.facts
    instruction = facts.instruction if call.instruction is None else call.instruction
    fixed = {"{instruction}": instruction, "{query}": call.query}
    prompts = []
    for index, document in enumerate(documents):
        name = f"documents[{index}]"
        try:
            ids = judge.prompt({**fixed, "{document}": document}, context)
        except ContextLengthError as exc:
            raise too_long(context, exc.prompt_tokens, name, at_least=True) from exc
        if len(ids) > context:
            raise too_long(context, len(ids), name)
        prompts.append(ids)
    return RerankJob(JudgeJob(prompts, facts.yes_id, facts.no_id, call.adapter), shares)


def _checked(call: RerankCall) -> list[str]:
    for name, text in (("query", call.query), ("instruction", call.instruction or "-")):
        _check_text(name, text)
    if isinstance(call.documents, str) or not isinstance(call.documents, Iterable):
        kind = type(call.documents).__name__
        raise RequestError(f"documents are of type {kind}, expected a list", param="documents")
    documents = list(call.documents)
    if not documents:
        raise RequestError("documents: there are none, expected texts", param="documents")
    for index, text in enumerate(documents):
        _check_text(f"documents[{index}]", text)
    return documents


def _check_text(name: str, text: Any) -> None:
    if not isinstance(text, str):
        raise RequestError(f"{name} is of type {type(text).__name__}, expected text", param=name)
    if not text:
        raise RequestError(f"{name} is empty, expected a text", param=name)
