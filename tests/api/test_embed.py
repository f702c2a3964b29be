"""Texts to vectors in Python, beside transformers."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bits import assert_same_bits
from fixtures_checkpoints import reference_model
from fixtures_programs import TinyProgram

import edge_llm
from edge_llm.errors import ContextLengthError, ProgramError, RequestError
from edge_llm.program.documents import EmbeddingFacts

TEXTS = ["the cat and the hat", "another text", "x", "a" * 70 + " and a longer one" * 6]


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "olmo2", "gemma2", "gemma3_text"])
def test_vectors_are_those_of_transformers(
    family: str, pooling: str, tiny_checkpoint: Callable[..., Path], tiny_program: TinyProgram
) -> None:
    import torch

    reference = reference_model(tiny_checkpoint(family), context=256)
    with edge_llm.load(tiny_program(family=family), threads=2) as llm:
        got = llm.embed(TEXTS, pooling=pooling)
        ids = [llm.tokenizer.encode(text) for text in TEXTS]
    assert got.shape == (4, 64)
    assert got.dtype == np.float32
    for vector, tokens in zip(got, ids, strict=True):
        with torch.no_grad():
            states = reference.model(torch.tensor([tokens])).last_hidden_state[0].double()
        expected = states[-1] if pooling == "last" else states.mean(dim=0)
        expected = (expected / expected.norm()).numpy()
        np.testing.assert_allclose(vector, expected, atol=1e-4)


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2"])  # the others have windows
def test_vector_depends_on_its_text_alone(
    family: str, pooling: str, tiny_program: TinyProgram
) -> None:
    path = tiny_program(scheme="8da4w", family=family)
    with edge_llm.load(path, threads=1) as llm:
        alone = [llm.embed(text, pooling=pooling) for text in TEXTS]
    for options in ({"threads": 3}, {"step_tokens": 8}, {"max_sequences": 2}):
        with edge_llm.load(path, **{"threads": 2, **options}) as llm:
            with llm.stream("go on", max_tokens=100, ignore_eos=True) as chat:
                next(chat)
                got = llm.embed([*TEXTS, *TEXTS], pooling=pooling)  # the second half may be cached
            assert_same_bits(got, np.concatenate([*alone, *alone]))


def test_one_text_or_its_ids(tiny_program: TinyProgram) -> None:
    with edge_llm.load(tiny_program()) as llm:
        text = llm.embed(TEXTS[0])
        assert text.shape == (1, 64)
        ids = llm.tokenizer.encode(TEXTS[0])
        assert_same_bits(llm.embed(ids), text)
        assert_same_bits(llm.embed([ids, ids]), np.concatenate([text, text]))
        assert_same_bits(asyncio.run(llm.aembed(TEXTS[0])), text)
        assert_same_bits(llm.embed("hat", prompt="the cat and the "), text)
        assert llm.embed([f"text {i}" for i in range(40)]).shape == (40, 64)


def test_dimensions_are_cut_before_they_are_normalized(tiny_program: TinyProgram) -> None:
    with edge_llm.load(tiny_program()) as llm:
        whole = llm.embed(TEXTS, normalize=False)
        np.testing.assert_allclose(np.linalg.norm(llm.embed(TEXTS), axis=1), 1.0, rtol=1e-6)
        assert_same_bits(llm.embed(TEXTS, normalize=False, dimensions=5), whole[:, :5].copy())
        cut = llm.embed(TEXTS, dimensions=5)
        np.testing.assert_allclose(
            cut, whole[:, :5] / np.linalg.norm(whole[:, :5], axis=1, keepdims=True), rtol=1e-5
        )


def test_what_the_program_recommends(tiny_program: TinyProgram) -> None:
    with edge_llm.load(tiny_program()) as llm:
        ids = llm.tokenizer.encode("Query: the cat")
        expected = llm.embed([*ids, 257], pooling="last")
        llm.program.documents = dataclasses.replace(
            llm.program.documents,
            embedding=EmbeddingFacts(pooling="last", end_id=257, query="Query: "),
        )
        assert_same_bits(llm.embed("the cat", input_type="query"), expected)
        assert_same_bits(llm.embed("Query: the cat", input_type="document"), expected)


@pytest.mark.parametrize(
    ("texts", "options", "error", "message"),
    [
        ("", {}, RequestError, "input is empty"),
        (["a", ""], {}, RequestError, r"input\[1\] is empty"),
        ([[1], []], {}, RequestError, r"input\[1\] is empty"),
        (["a", "b" * 300], {}, ContextLengthError, r"your input\[1\] resulted in .*300 tokens"),
        ([[*list(range(256)), 1]], {}, ContextLengthError, r"input\[0\] resulted in 257 tokens"),
        ("a", {"dimensions": 65}, RequestError, "dimensions is 65, expected 1 to 64"),
        ("a", {"dimensions": True}, RequestError, "dimensions is True"),
        ("a", {"pooling": "cls"}, RequestError, "expected one of: last, mean"),
        ("a", {"input_type": "x"}, RequestError, "expected one of: query, document"),
        ("a", {"prompt": 3}, RequestError, "prompt is of type int"),
        ([1, 2], {"prompt": "x"}, RequestError, "take no prompt"),
        (3, {}, RequestError, "expected text or token ids"),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    texts: object,
    options: dict[str, object],
    error: type[Exception],
    message: str,
    tiny_program: TinyProgram,
) -> None:
    with (
        edge_llm.load(tiny_program(), threads=1) as llm,
        pytest.raises(error, match=message),
    ):
        llm.embed(texts, **options)  # type: ignore[arg-type]


def test_program_without_the_method_says_how_to_make_one(tiny_program: TinyProgram) -> None:
    with edge_llm.load(tiny_program()) as llm:
        methods = {"causal_lm": llm.program.plan.language_model}
        llm.program.plan = dataclasses.replace(llm.program.plan, methods=methods)
        with pytest.raises(ProgramError, match="without the method `embed`") as caught:
            llm.embed("a")
        assert "edge-llm export --model" in str(caught.value.hint)
