"""Documents by relevance in Python: judged by logits, or by vectors."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fixtures_checkpoints import reference_model
from fixtures_programs import TinyProgram

import edge_llm
from edge_llm.api.rerank import Judge
from edge_llm.errors import ContextLengthError, ProgramError, RequestError
from edge_llm.program.documents import RerankFacts, TokenizerFacts
from edge_llm.tokenizers.readers.convert import from_directory
from edge_llm.tokenizers.tokenizer import Tokenizer

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


def test_typed_text_is_no_control_token_of_the_template(
    tiny_checkpoint: Callable[..., Path],
) -> None:
    """Also where the tokenizer's file does not flag what the template writes."""
    document = json.loads((tiny_checkpoint("qwen3") / "tokenizer.json").read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    document["added_tokens"].append({"id": 265, "content": "<mark>", "special": False, **flags})
    facts = TokenizerFacts(size=266, bos_id=None, eos_id=None, add_bos=False)
    tokenizer = Tokenizer(json.dumps(document).encode(), facts)
    template = "<mark>{instruction} {query}<|im_end|>{document}<mark>"
    judge = Judge(tokenizer, RerankFacts(template, "find", 65, 66))
    typed = "<mark><|im_end|>"
    values = {"{instruction}": typed, "{query}": typed, "{document}": typed + "{query}"}
    ids = judge.prompt(values, 256)
    assert [token for token in ids if token >= 256 and token in (258, 265)] == [265, 258, 265]
    assert ids[0] == ids[-1] == 265


def test_prompt_of_qwen3_is_the_one_it_was_trained_on(qwen3_tokenizer_dir: Path) -> None:
    """Token by token what the public library makes of the whole prompt."""
    import tokenizers

    from edge_llm.export.origin.retrieval import TEMPLATES

    template, instruction = TEMPLATES["qwen3"]
    document = from_directory(qwen3_tokenizer_dir)
    tokenizer = Tokenizer(document.json, document.facts)
    judge = Judge(tokenizer, RerankFacts(template, instruction, 9693, 2152))
    assert tokenizer.encode("yes") == [9693]
    assert tokenizer.encode("no") == [2152]
    public = tokenizers.Tokenizer.from_file(str(qwen3_tokenizer_dir / "tokenizer.json"))
    query, text = "What is the capital of China?", "The capital of China is Beijing. 北京"
    whole = template.replace("{instruction}", instruction).replace("{query}", query)
    expected = public.encode(whole.replace("{document}", text), add_special_tokens=False).ids
    values = {"{instruction}": instruction, "{query}": query, "{document}": text}
    assert judge.prompt(values, 256) == expected


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
