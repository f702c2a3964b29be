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
    """

    query: str
    documents: Sequence[str]
    instruction: str | None = None


@dataclass(frozen=True, slots=True)
class JudgeJob:
    """A prompt for each document, of whose next token the logits of "yes" and "no" are wanted."""

    ids: Sequence[Sequence[int]]
    yes_id: int
    no_id: int


@dataclass(frozen=True, slots=True)
class RerankJob:
    """A `RerankCall` that can run: its texts, and what turns their results into scores."""

    job: JudgeJob | EmbedJob
    finish: Callable[[Sequence[Float64]], list[float]]


def rerank_job(program: Program, tokenizer: Tokenizer, context: int, call: RerankCall) -> RerankJob:
    """Check a `RerankCall` and encode its texts. Text never becomes control tokens.

    Raises:
        ProgramError: the program neither judges nor has a method that gives hidden states.
        ContextLengthError: a text, or the prompt around it, is longer than the context; ``param``
            says which.
        RequestError: an empty text, or an argument that cannot be honoured.
        TokenizerError: a text is not Unicode (lone surrogates).
    """
    documents = _checked(call)
    facts = program.documents.rerank
    if facts is not None:
        return _judged(tokenizer, facts, context, call, documents)
    query = embed_job(
        program,
        tokenizer,
        context,
        EmbedCall(texts=call.query, input_type="query", prompt=call.instruction or ""),
        name="query",
    )
    texts = EmbedCall(texts=documents, input_type="document")
    found = embed_job(program, tokenizer, context, texts, name="documents")
    job = replace(found, ids=[*query.ids, *found.ids])
    return RerankJob(job, lambda vectors: cosines(job.finish(vectors)))


def _judged(
    tokenizer: Tokenizer,
    facts: RerankFacts,
    context: int,
    call: RerankCall,
    documents: Sequence[str],
) -> RerankJob:
    instruction = facts.instruction if call.instruction is None else call.instruction
    fixed = {"{instruction}": instruction, "{query}": call.query}
    prompts = []
    for index, document in enumerate(documents):
        name = f"documents[{index}]"
        try:
            ids = _filled(tokenizer, facts.template, {**fixed, "{document}": document}, context)
        except ContextLengthError as exc:
            raise too_long(context, exc.prompt_tokens, name, at_least=True) from exc
        if len(ids) > context:
            raise too_long(context, len(ids), name)
        prompts.append(ids)
    return RerankJob(JudgeJob(prompts, facts.yes_id, facts.no_id), shares)


def _filled(
    tokenizer: Tokenizer, template: str, values: Mapping[str, str], context: int
) -> list[int]:
    """Return the ids of a template whose fields have ``values``. The control tokens are those that
    the template itself writes; what is between two of them is encoded as one text."""
    written, marks = tokenizer.encode_marked(template)
    ids: list[int] = []
    begin = 0

    def add(text: str) -> None:
        text = _FIELD.sub(lambda field: values[field[0]], text)
        if text:
            ids.extend(
                tokenizer.encode(text, add_bos=False, continues=begin > 0, token_limit=context)
            )

    for mark in marks:
        add(template[begin : mark.start])
        ids.append(written[mark.at])
        begin = mark.end
    add(template[begin:])
    return ids


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
