"""The table of sampling parameters: what it accepts, and that everything else follows it."""

from __future__ import annotations

import ctypes
import itertools
import math
from dataclasses import fields, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from edge_llm import abi
from edge_llm.errors import ProgramError, RequestError
from edge_llm.llm.checkpoints.generation import generation_defaults
from edge_llm.program.check import check_documents
from edge_llm.program.documents import GenerationDefaults
from edge_llm.program.file import Program
from edge_llm.runner.backends.native_batch import SCALARS, StepBuffers
from edge_llm.runner.executor import Batch, Limits, RowSampler
from edge_llm.runner.sampling import (
    MAX_STOP_CHARACTERS,
    PARAMETERS,
    SamplingOptions,
    SamplingParams,
    canonical,
    choices_of,
)

REFUSED: list[tuple[str, Any]] = [
    ("temperature", -0.1),
    ("temperature", 2.1),
    ("temperature", math.nan),
    ("temperature", math.inf),
    ("temperature", "hot"),
    ("temperature", True),
    ("temperature", None),
    ("top_k", -2),
    ("top_k", 1.5),
    ("top_k", 10**5000),
    ("top_p", [1]),
    ("temperature", Fraction(10**400)),
    ("top_k", Fraction(-(10**400))),
    ("speculation", np.zeros(2)),
    ("speculation", ["off"]),
    ("min_p", 1.1),
    ("repetition_penalty", 0),
    ("repetition_penalty", 10.1),
    ("presence_penalty", 2.5),
    ("frequency_penalty", -2.5),
    ("logit_bias", {"7": 1.0}),
    ("logit_bias", {1.5: 1.0}),
    ("logit_bias", {True: 1.0}),
    ("logit_bias", {-1: 1.0}),
    ("logit_bias", {7: "x"}),
    ("logit_bias", {7: 101}),
    ("logit_bias", [7]),
    ("seed", 2**64),
    ("seed", -(2**63) - 1),
    ("seed", "7"),
    ("max_tokens", -2),
    ("max_tokens", "3"),
    ("stop", b"end"),
    ("stop", 7),
    ("stop", ["a", 7]),
    ("stop", ["a", b"b"]),
    ("stop", ""),
    ("stop", ["a", ""]),
    ("stop", {"a": 1}),
    ("stop", ["x" * 100] * 1000),
    ("stop", [str(i) for i in range(100_000)]),
    ("stop_ids", [1.5]),
    ("stop_ids", "12"),
    ("stop_ids", 3),
    ("stop_ids", [-1]),
    ("ignore_eos", 1),
    ("top_logprobs", 21),
    ("min_tokens", -1),
    ("stop_token_ids", [-1]),
    ("stop_token_ids", None),
    ("typical_p", 1.5),
    ("dry_multiplier", -0.1),
    ("dry_base", 0.9),
    ("dry_allowed_length", 0),
    ("dry_penalty_last_n", -2),
    ("dry_sequence_breakers", [""]),
    ("dry_sequence_breakers", ["x" * 5000]),
    ("xtc_probability", 1.1),
    ("xtc_threshold", -0.1),
    ("prompt_logprobs", -1),
]


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_meant_is_a_typed_error(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=name) as info:
        SamplingParams(**{name: value})
    assert info.value.param == name
    assert len(str(info.value)) < 200


def test_what_is_meant_is_accepted() -> None:
    params = SamplingParams(
        temperature=1,
        top_k=-1,
        seed=-1,
        max_tokens=3.0,  # type: ignore[arg-type]
        stop="end",  # type: ignore[arg-type]
        stop_ids=[1, 2],  # type: ignore[arg-type]
        logit_bias={np.int64(7): np.float32(0.5)},  # type: ignore[dict-item]
    )
    assert (params.temperature, params.top_k, params.max_tokens) == (1.0, 0, 3)
    assert type(params.temperature) is float
    assert type(params.max_tokens) is int
    assert (params.stop, params.stop_ids) == (("end",), (1, 2))
    assert params.logit_bias == {7: 0.5}
    assert SamplingParams(stop=()).stop == ()
    assert SamplingParams(stop=("x" * MAX_STOP_CHARACTERS,))


def test_an_answer_cannot_be_longer_than_it_may_be() -> None:
    assert SamplingParams(min_tokens=3, max_tokens=3).min_tokens == 3
    with pytest.raises(RequestError, match="min_tokens is 4, expected at most max_tokens") as info:
        SamplingParams(min_tokens=4, max_tokens=3)
    assert info.value.param == "min_tokens"


def test_its_mapping_is_its_own() -> None:
    biases = {3: 1.0}
    params = SamplingParams(logit_bias=biases)
    biases[4] = 2.0
    assert params.logit_bias == {3: 1.0}
    assert (list(params.bias_ids), list(params.bias_values)) == ([3], [1.0])
    assert params == SamplingParams(logit_bias={3: 1.0})
    changed = replace(params, logit_bias={5: -1.0})
    assert list(changed.bias_ids) == [5]


def test_names_are_known_or_refused_with_the_nearest() -> None:
    assert canonical({"max_completion_tokens": 3, "repeat_penalty": 2}) == {
        "max_tokens": 3,
        "repetition_penalty": 2,
    }
    with pytest.raises(RequestError, match="'temprature'") as info:
        canonical({"temprature": 1})
    assert info.value.hint == "did you mean temperature?"
    with pytest.raises(RequestError, match="'temp'") as info:
        canonical({"temp": 1})
    assert info.value.hint == "did you mean temperature?"
    with pytest.raises(RequestError, match="there is no sampling parameter") as info:
        canonical({"x" * 1000: 1})
    assert "temperature" in str(info.value.hint)
    with pytest.raises(RequestError, match="max_tokens and n_predict are one parameter"):
        canonical({"max_tokens": 1, "n_predict": 2})


def test_choices_count_on_from_the_seed() -> None:
    assert [p.seed for p in choices_of(SamplingParams(seed=2**64 - 1), 3)] == [2**64 - 1, 0, 1]
    assert [p.seed for p in choices_of(SamplingParams(), 2)] == [None, None]
    for n in (0, 129, 10**9, "2", None, 1.5):
        with pytest.raises(RequestError, match="n"):
            choices_of(SamplingParams(), n)


# ---- what follows the table ----


def test_keyword_arguments_are_the_table() -> None:
    hints = {name: hint.__forward_arg__ for name, hint in SamplingOptions.__annotations__.items()}
    assert list(hints) == list(PARAMETERS)
    params = {item.name: item.type for item in fields(SamplingParams)}
    wider = {"stop", "stop_ids", "stop_token_ids", "dry_sequence_breakers"}  # any sequence will do
    assert {name: hints[name] for name in hints if name not in wider} == {
        name: params[name] for name in hints if name not in wider
    }


def test_names_and_aliases_are_unique() -> None:
    names = [*PARAMETERS, *itertools.chain(*(item.aliases for item in PARAMETERS.values()))]
    assert len(names) == len(set(names))
    for name, item in PARAMETERS.items():
        assert item.check(item.default) == getattr(SamplingParams(), name)


def test_the_struct_of_the_core_has_these_parameters() -> None:
    run_time = {"sample", "seed", "counter", "history", "history_length", "prompt_length"}
    run_time |= {"bias_ids", "bias_values", "bias_count", "allowed", "target", "breakers"}
    assert PARAMETERS["top_logprobs"].high == abi.MAX_LOGPROBS
    kinds = {"integer": ctypes.c_int32, "number": ctypes.c_float}
    assert {name: kind for name, kind, *_ in abi.Sampler._fields_ if name not in run_time} == {
        name: kinds[PARAMETERS[name].kind] for name in SCALARS
    }


def test_the_core_reads_biases_where_the_request_keeps_them() -> None:
    """Many of them are prepared once a request, not copied at every token."""
    params = SamplingParams(logit_bias=dict.fromkeys(range(49_000), 1.0))
    limits = Limits(
        max_tokens=1, max_rows=1, max_sequences=1, blocks=(1,), kv_dtype="f32", context=64
    )
    buffers = StepBuffers(limits, vocab=50_000, block_size=64)
    one = np.zeros(1, np.int32)
    sampler = RowSampler(params, seed=0, counter=0, history=one, prompt_length=1)
    buffers.fill(Batch(one, one, one, one, (np.zeros((1, 1), np.int32),), [sampler]))
    batch = abi.Batch.from_address(buffers.address)
    filled = abi.Sampler.from_address(batch.samplers)
    assert (filled.bias_ids, filled.bias_count) == params.bias_ids.buffer_info()
    assert filled.bias_values == params.bias_values.buffer_info()[0]


def test_a_program_recommends_parameters_within_their_ranges(tiny_program: Any) -> None:
    names = [item.name for item in fields(GenerationDefaults) if item.name != "stop_ids"]
    with Program.open(tiny_program()) as program:
        plan, documents = program.plan, program.documents
    for name in names:
        parameter = PARAMETERS[name]
        default = next(item.default for item in fields(GenerationDefaults) if item.name == name)
        assert default == parameter.default
        assert name in canonical({name: default})
        if parameter.kind == "number":
            least = 1e-6 if parameter.above else parameter.low
            for value in (least, parameter.high):
                taken, notes = generation_defaults({name: value}, (), "here")
                assert (getattr(taken, name), notes) == (value, ())
            for value in (parameter.low - 1e-3, parameter.high + 1e-3):
                left, notes = generation_defaults({name: value}, (), "here")
                assert (getattr(left, name), len(notes)) == (default, 1)
                hostile = replace(documents.generation, **{name: value})
                with pytest.raises(ProgramError, match=name):
                    check_documents(replace(documents, generation=hostile), plan)
