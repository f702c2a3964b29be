"""The oracle against the native core, on whole tiny models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge_llm
from edge_llm.errors import ConfigError, RequestError
from edge_llm.program.file import Program
from edge_llm.runner.backends import torch as torch_backend
from edge_llm.runner.evaluation.trace import TraceRow, trace
from edge_llm.runner.executor import Limits
from edge_llm.runner.sampling import SamplingParams

IDS = np.random.default_rng(0).integers(0, 256, 100).tolist()


@pytest.mark.parametrize(
    ("family", "kv_dtype"),
    [("llama", None), ("qwen2", None), ("qwen3", None), ("gemma4_text", None), ("llama", "i8")],
)
def test_logits_are_those_of_the_native_core(
    tiny_program: Callable[..., Path], family: str, kv_dtype: str | None
) -> None:
    path = tiny_program("fp32", family, kv_dtype)
    # One last bit of a key can change its integer, so int8 caches are a step apart here and there.
    tolerance, chunk_tolerance = (1e-4, 1e-5) if kv_dtype is None else (1e-2, 1e-2)
    with edge_llm.load(path) as llm, edge_llm.load(path, backend="torch") as oracle:
        expected = oracle.logits(IDS)
        got = llm.logits(IDS)
        np.testing.assert_allclose(got, expected, atol=tolerance * float(expected.std()))
        np.testing.assert_allclose(
            oracle.logits(IDS, chunk=7), expected, atol=chunk_tolerance * float(expected.std())
        )


@pytest.mark.parametrize(
    ("scheme", "choices"),
    [
        ("fp32", {}),
        ("fp16", {}),
        ("bf16", {}),
        ("8da8w", {}),
        ("8da4w", {}),
        ("8da4w", {"kv_dtype": "i8"}),
        ("8da4w", {"activations": "group"}),
        ("8da8w", {"activations": "group", "hidden_size": 80}),  # no multiple of the group
    ],
)
def test_every_instruction_is_that_of_the_oracle(
    tiny_program: Callable[..., Path], scheme: str, choices: dict[str, Any]
) -> None:
    with Program.open(tiny_program(scheme, **choices)) as program:
        rows = trace(program, IDS)
    assert [row.index for row in rows] == sorted(row.index for row in rows)
    assert {row.op for row in rows} >= {"embedding", "linear", "attention", "rope", "rms_norm"}
    for row in rows:
        assert row.relative_error < 1e-5, row
        assert not row.failed


def test_layers_that_read_what_others_wrote_are_those_of_the_oracle(
    tiny_program: Callable[..., Path],
) -> None:
    with Program.open(tiny_program("8da4w", "gemma4_text")) as program:
        rows = trace(program, IDS)
    assert {row.op for row in rows} >= {"attend", "slice", "rescale", "attention"}
    for row in rows:
        assert row.relative_error < 1e-5, row
        assert not row.failed


def test_a_trace_takes_a_prompt_that_fits(tiny_program: Callable[..., Path]) -> None:
    with Program.open(tiny_program()) as program:
        for ids in ([], [1] * 257):
            with pytest.raises(RequestError, match="1 to 256"):
                trace(program, ids)


def test_what_rounding_does_not_explain_fails() -> None:
    assert not TraceRow(0, "add", "", 0.1, 1e-4).failed
    assert TraceRow(0, "add", "", 0.1, 1e-2).failed
    assert TraceRow(0, "add", "", 0.1, float("nan")).failed


def test_a_wrong_instruction_is_seen(
    tiny_program: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    double = dict(torch_backend.OPERATORS)
    double["mul"] = lambda plan, op, inputs, weights: [2 * inputs[0] * inputs[1]]
    monkeypatch.setattr(torch_backend, "OPERATORS", double)
    with Program.open(tiny_program()) as program:
        rows = trace(program)
    assert {row.op for row in rows if row.failed} == {"mul"}


def test_the_engine_runs_on_it(tiny_program: Callable[..., Path]) -> None:
    path = tiny_program("fp32")
    greedy = SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True, top_logprobs=2)
    sampled = SamplingParams(temperature=0.8, top_p=0.9, seed=3, max_tokens=20, ignore_eos=True)
    with edge_llm.load(path) as llm, edge_llm.load(path, backend="torch") as oracle:
        for params in (greedy, sampled):
            expected = llm.generate(IDS, params)
            first = oracle.generate(IDS, params)
            again = oracle.generate(IDS, params)  # from the cache, with a copied page
            assert first.token_ids == again.token_ids == expected.token_ids
            assert again.stats.cached_tokens == 99
        assert expected.logprobs is None
        with_logprobs = oracle.generate(IDS, greedy).logprobs
        assert with_logprobs is not None
        assert len(with_logprobs[0].top) == 2


def test_a_device_that_is_not_there_is_refused(tiny_program: Callable[..., Path]) -> None:
    limits = Limits(max_tokens=1, max_rows=1, max_sequences=1, blocks=(1,), kv_dtype="f16")
    with Program.open(tiny_program()) as program, pytest.raises(ConfigError, match="abacus"):
        torch_backend.load(program.plan, {}, sampleable=1, limits=limits, device="abacus")


@pytest.mark.parametrize(("kv_dtype", "row_bytes"), [("f16", 32), ("i8", 20)])
def test_blocks_are_as_large_as_said(
    tiny_program: Callable[..., Path], kv_dtype: str, row_bytes: int
) -> None:
    with Program.open(tiny_program("8da4w", kv_dtype=kv_dtype)) as program:
        # two layers, keys and values, two heads of 16
        (group,) = torch_backend.groups(program.plan, kv_dtype)
        assert group.block_bytes == 2 * 2 * 64 * 2 * row_bytes
