"""A program as a model of lm-evaluation-harness, by the requests that tasks make; against its own
logits and answers. The harness itself runs in `tests/clients`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_lm_eval import Registry, Request

from edge_llm.errors import ConfigError, RequestError
from edge_llm.runner.sampling import SamplingParams


def expected(model: Any, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    logits = model.llm.logits([*context, *continuation]).astype(np.float64)
    rows = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))[len(context) - 1 : -1]
    score = sum(row[token] for row, token in zip(rows, continuation, strict=True))
    return float(score), [int(row.argmax()) for row in rows] == continuation


def test_loglikelihood(model: Any) -> None:
    pairs = [("one two", " three"), ("one two", " 3"), ("other ", "x"), ("one two", " more words")]
    found = model.loglikelihood([Request(pair) for pair in pairs], disable_tqdm=True)
    encode = model.llm.tokenizer.encode
    for (context, continuation), (score, greedy) in zip(pairs, found, strict=True):
        before = encode(context.rstrip())
        after = encode(context + continuation)[len(before) :]
        right, likeliest = expected(model, before, after)
        assert score == pytest.approx(right, rel=1e-5)
        assert greedy == likeliest
    kept = {(name, arguments): value for name, arguments, value in model.cache_hook.kept}
    assert kept == {("loglikelihood", pair): one for pair, one in zip(pairs, found, strict=True)}


def test_an_empty_context(model: Any) -> None:
    [(score, _)] = model.loglikelihood([Request(("", "text"))], disable_tqdm=True)
    tokens = model.llm.tokenizer.encode("text", add_bos=False)
    assert score == pytest.approx(expected(model, [model._prefix], tokens)[0], rel=1e-5)


def test_rolling(model: Any) -> None:
    [score] = model.loglikelihood_rolling([Request(("some text",))], disable_tqdm=True)
    tokens = model.llm.tokenizer.encode("some text", add_bos=False)
    assert score == pytest.approx(expected(model, [model._prefix], tokens)[0], rel=1e-5)


def test_generate(model: Any) -> None:
    greedy = SamplingParams(temperature=0.0, max_tokens=12)
    whole = model.llm.generate("Once upon", greedy).text
    options = {"until": [], "max_gen_toks": 12, "do_sample": False, "temperature": 0.7}
    request = Request(("Once upon", options))
    assert model.generate_until([request], disable_tqdm=True) == [whole]
    stop = whole[3:5]
    request = Request(("Once upon", {"until": [stop, ""], "max_gen_toks": 12}))
    assert model.generate_until([request], disable_tqdm=True) == [whole[: whole.index(stop)]]
    long = Request(("word " * 300, {"until": "\n\n", "max_gen_toks": 4}))
    ids = model.llm.tokenizer.encode("word " * 300)[-124:]
    params = SamplingParams(temperature=0.0, max_tokens=4, stop="\n\n")
    assert model.generate_until([long], disable_tqdm=True) == [model.llm.generate(ids, params).text]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_gen_toks": 128}, "less than the context 128"), ({"beams": 4}, "beams")],
)
def test_what_cannot_be_generated(model: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        model.generate_until([Request(("x", options))], disable_tqdm=True)


def test_a_chat(model: Any) -> None:
    history = [{"role": "user", "content": "hi"}]
    text = model.apply_chat_template(history)
    assert model.llm.tokenizer.encode(text, specials=True) == model.llm.encode_chat(history)
    assert model.chat_template(True) == model.llm.require_chat_template().source
    assert model.chat_template() is None
    with pytest.raises(RequestError, match="no chat template 'tools'"):
        model.chat_template("tools")
    assert model.llm.digest in model.tokenizer_name


@pytest.mark.parametrize("batch_size", [1, "3", "auto", "auto:4", None])
def test_batch_sizes(registry: Registry, program: str, batch_size: Any) -> None:
    made: Any = registry.models["edge-llm"](program, threads=1, batch_size=batch_size, device="cpu")
    with made.llm:
        requests = [Request(("a b c", f" {n}")) for n in range(5)]
        found = made.loglikelihood(requests, disable_tqdm=True)
    assert len(set(found)) == 5


@pytest.mark.parametrize("wrong", [{"device": "cuda"}, {"batch_size": 0}, {"batch_size": "many"}])
def test_arguments_that_cannot_be_honoured(
    registry: Registry, program: str, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        registry.models["edge-llm"](program, **wrong)
