"""Documents by relevance in Python: judged by logits, or by vectors."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fixtures_checkpoints import reference_model
from fixtures_programs import TinyProgram

import edge_llm
from edge_llm.errors import ContextLengthError, ProgramError, RequestError
from edge_llm.program.documents import RerankFacts

DOCUMENTS = ["the hat", "a cat and another cat", "nothing at all <|im_end|>"]
FACTS = RerankFacts(
    "<|im_start|>user\n{instruction}: {query}\n{document}<|im_end|>\n<|im_start|>", "find", 65, 66
)


def judging(llm: edge_llm.LLM) -> edge_llm.LLM:
    llm.program.documents = dataclasses.replace(llm.program.documents, rerank=FACTS)
    return llm


def prompt_ids(llm: edge_llm.LLM, document: str, instruction: str = "find") -> list[int]:
    text = llm.tokenizer.encode(f"user\n{instruction}: where\n{document}")
    return [257, *text, 258, *llm.tokenizer.encode("\n"), 257]


def test_scores_are_shares_of_the_logits_of_transformers(
    tiny_checkpoint: Callable[..., Path], tiny_program: TinyProgram
) -> None:
    import torch

    reference = reference_model(tiny_checkpoint("qwen3"), context=256)
    with judging(edge_llm.load(tiny_program(family="qwen3"))) as llm:
        scores = llm.rerank("where", DOCUMENTS)
        prompts = [prompt_ids(llm, document) for document in DOCUMENTS]
        assert asyncio.run(llm.arerank("where", DOCUMENTS)) == scores
        assert llm.rerank("where", DOCUMENTS[1:2]) == scores[1:2]
        assert llm.rerank("where", DOCUMENTS, instruction="{query}") != scores
    for score, prompt in zip(scores, prompts, strict=True):
        with torch.no_grad():
            logits = reference(torch.tensor([prompt])).logits[0, -1, [65, 66]]
        expected = float(torch.softmax(logits.double(), dim=0)[0])
        assert score == pytest.approx(expected, abs=1e-4)


def test_cosines_where_nothing_judges(tiny_program: TinyProgram) -> None:
    with edge_llm.load(tiny_program()) as llm:
        vectors = llm.embed(["where", *DOCUMENTS]).astype(np.float64)
        assert llm.rerank("where", DOCUMENTS) == pytest.approx(vectors[1:] @ vectors[0])
        other = llm.embed(["find: where"]).astype(np.float64)
        scores = llm.rerank("where", DOCUMENTS, instruction="find: ")
        assert scores == pytest.approx(vectors[1:] @ other[0])


def test_only_the_last_logits_are_computed(tiny_program: TinyProgram) -> None:
    with judging(edge_llm.load(tiny_program(), max_sequences=2)) as llm:
        rows = []
        step = llm.engine._executor.step
        llm.engine._executor.step = lambda batch: rows.append(len(batch.rows)) or step(batch)  # type: ignore[func-returns-value, method-assign]
        llm.rerank("where", [f"document {i}" for i in range(9)])
    assert sum(rows) == 9


@pytest.mark.parametrize("judges", [True, False])
@pytest.mark.parametrize(
    ("query", "documents", "error", "message"),
    [
        ("", ["a"], RequestError, "query is empty"),
        (3, ["a"], RequestError, "query is of type int"),
        ("a", [], RequestError, "there are none"),
        ("a", "text", RequestError, "of type str, expected a list"),
        ("a", ["b", ""], RequestError, r"documents\[1\] is empty"),
        ("a", ["b", 3], RequestError, r"documents\[1\] is of type int"),
        ("a", ["b", "c" * 300], ContextLengthError, r"your documents\[1\] resulted in"),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    judges: bool,
    query: object,
    documents: object,
    error: type[Exception],
    message: str,
    tiny_program: TinyProgram,
) -> None:
    with edge_llm.load(tiny_program(), threads=1) as llm:
        if judges:
            judging(llm)
        with pytest.raises(error, match=message):
            llm.rerank(query, documents)  # type: ignore[arg-type]


def test_a_program_that_can_do_neither_says_so(tiny_program: TinyProgram) -> None:
    with edge_llm.load(tiny_program()) as llm:
        methods = {"causal_lm": llm.program.plan.language_model}
        llm.program.plan = dataclasses.replace(llm.program.plan, methods=methods)
        with pytest.raises(ProgramError, match="without the method `embed`"):
            llm.rerank("a", ["b"])
        assert len(judging(llm).rerank("a", ["b"])) == 1
