"""The method of hidden states: the file's, in both backends, beside transformers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bits import assert_same_bits
from fixtures_checkpoints import reference_model
from fixtures_programs import TinyProgram

from edge_llm.errors import NativeError
from edge_llm.program.file import Program
from edge_llm.runner.backends.registry import block_tables, blocks_of, open_executor
from edge_llm.runner.executor import Batch, Float32, Limits, Segment

TEXT = [84, 104, 101, 32, 99, 97, 116, 264, 259, 46, 10, 261, 7, 200, 33, 65, 66, 67, 68, 69, 70]


def hidden_states(
    program: Program,
    tokens: list[int],
    *,
    backend: str = "native",
    chunks: tuple[int, ...] = (),
    threads: int = 1,
) -> Float32:
    """The hidden states of ``tokens``, computed in steps of ``chunks`` tokens and of the rest."""
    blocks = blocks_of(program.plan, len(tokens), name=backend)
    limits = Limits(
        max_tokens=64, max_rows=4, max_sequences=1, blocks=blocks, kv_dtype="f32", threads=threads
    )
    executor = open_executor(program, limits, name=backend)
    try:
        parts, first = [], 0
        for count in (*chunks, len(tokens) - sum(chunks)):
            part = tokens[first : first + count]
            segment = Segment(part, first=first, hidden=count)
            result = executor.step(Batch.of(segment, block_tables=block_tables(blocks)))
            assert result.hidden is not None
            assert result.logits is None
            parts.append(result.hidden)
            first += count
        return np.concatenate(parts)
    finally:
        executor.close()


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "olmo2", "gemma2", "gemma3_text"])
def test_hidden_states_are_those_of_transformers(
    family: str, backend: str, tiny_checkpoint: Callable[..., Path], tiny_program: TinyProgram
) -> None:
    import torch

    with Program.open(tiny_program(family=family)) as program:
        got = hidden_states(program, TEXT, backend=backend)
    reference = reference_model(tiny_checkpoint(family), context=256)
    with torch.no_grad():
        expected = reference.model(torch.tensor([TEXT])).last_hidden_state[0].numpy()
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scheme", ["8da4w", "fp32"])
def test_hidden_states_depend_on_no_chunk_and_no_thread(
    scheme: str, tiny_program: TinyProgram
) -> None:
    with Program.open(tiny_program(scheme=scheme)) as program:
        expected = hidden_states(program, TEXT)
        for chunks, threads in (((1,) * 20, 1), ((5, 1, 9), 2), ((), 3), ((20,), 4)):
            got = hidden_states(program, TEXT, chunks=chunks, threads=threads)
            assert_same_bits(got, expected)


def test_method_is_the_language_model_without_its_head(tiny_program: TinyProgram) -> None:
    with Program.open(tiny_program()) as program:
        plan = program.plan
    method = plan.methods["embed"]
    assert method is plan.embed
    assert method.instructions == plan.instructions[:-1]
    assert method.values[method.outputs[0]].dims == ("R", 64)


def test_rows_that_are_no_tokens_are_refused(tiny_program: TinyProgram) -> None:
    with Program.open(tiny_program()) as program:
        blocks = blocks_of(program.plan, 8)
        limits = Limits(max_tokens=8, max_rows=4, max_sequences=1, blocks=blocks, kv_dtype="f32")
        executor = open_executor(program, limits)
        batch = Batch.of(Segment(TEXT[:8], hidden=2), block_tables=block_tables(blocks))
        try:
            for rows, message in (([8], "hidden row 0 is token 8"), ([0, -1], "is token -1")):
                hostile = dataclasses.replace(batch, hidden_rows=np.array(rows, np.int32))
                with pytest.raises(NativeError, match=message):
                    executor.step(hostile)
            many = dataclasses.replace(batch, hidden_rows=np.zeros(9, np.int32))
            with pytest.raises(NativeError, match="9 hidden rows"):
                executor.step(many)
        finally:
            executor.close()


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_program_without_the_method_says_so(backend: str, tiny_program: TinyProgram) -> None:
    with Program.open(tiny_program()) as program:
        methods = {"causal_lm": program.plan.language_model}
        program.plan = dataclasses.replace(program.plan, methods=methods)
        with pytest.raises(NativeError, match="which the program does not give"):
            hidden_states(program, TEXT, backend=backend)


def test_logits_and_hidden_states_of_one_step(tiny_program: TinyProgram) -> None:
    """Each is what it is alone."""
    with Program.open(tiny_program(scheme="8da4w")) as program:
        blocks = blocks_of(program.plan, 2 * 64)
        limits = Limits(max_tokens=64, max_rows=4, max_sequences=2, blocks=blocks, kv_dtype="f32")
        executor = open_executor(program, limits)
        tables = block_tables(blocks, 2)
        try:
            alone = executor.step(
                Batch.of(Segment(TEXT, [None]), block_tables=tables, want_logits=True)
            )
            both = executor.step(
                Batch.of(
                    Segment(TEXT[::-1], hidden=len(TEXT), sequence=1),
                    Segment(TEXT, [None]),
                    block_tables=tables,
                    want_logits=True,
                )
            )
        finally:
            executor.close()
        assert alone.logits is not None
        assert both.logits is not None
        assert both.hidden is not None
        assert_same_bits(both.logits, alone.logits)
        assert_same_bits(both.hidden, hidden_states(program, TEXT[::-1]))
