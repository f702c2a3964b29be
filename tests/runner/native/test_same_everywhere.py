"""One table of bits for every processor: what small plans give, as sha256, is part of this file.

Other tests compare instruction sets that run on one machine; this table is how machines that never
meet are compared (tests/aarch64 runs this folder on an emulated one). Inputs are made of integers
and powers of two, or rounded from float64, so that every C library makes the same. A row that has
to change says that the arithmetic of the core has changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from bits import isas
from numpy.typing import NDArray
from toy_transformer import TOKENS, VOCAB, Toy

from edge_llm.program import pack
from edge_llm.program.formats import LEVELS, SUPER, WEIGHT_FORMATS
from edge_llm.program.integers import CODE_RANGES, Integers
from edge_llm.program.ops import SCORINGS
from edge_llm.runner.executor import RowSampler, StepResult
from edge_llm.runner.sampling import SamplingParams

Float32 = NDArray[np.float32]
Outputs = Iterable[NDArray[Any]]
Case = Callable[[Any, Any], Outputs]

TABLE = {
    "linear f32": "2e54bec4fdaeba30",
    "linear f16": "f81e606efa1a4d5a",
    "linear bf16": "e51043f980730ddf",
    "linear i8": "89f9e65d8a091179",
    "linear i4g32": "fcf4a0d26e4b89d8",
    "linear i4g64": "b40de36f10e5666b",
    "linear i4g128": "0048ac711fda56da",
    "linear u4g32m": "5118a6efcb67da7a",
    "linear u4g32k": "66df89e8f34a17a1",
    "linear u4g32z": "46ba606487587ae0",
    "linear u4g64z": "1b06a9c44a132611",
    "linear u4g128z": "3dae7c467b75346e",
    "linear i8g32": "190407f47e08e1c0",
    "linear e2m1g32": "085dc64130733d88",
    "linear nl4g32": "14dee27872ae3d23",
    "linear nl4g32k": "82355e646132aa04",
    "linear i5g32": "15f570f5c00330cc",
    "linear u5g32m": "160390837915ee8b",
    "linear u5g32k": "923fe0899f7c8c6b",
    "linear i6g32": "06616c0655a68537",
    "linear i6g16k": "b68b0042a02a34d0",
    "attention f16, bidirectional": "a878eb7f4785ec08",
    "embedding f16": "e89546e2a5dcd598",
    "embedding i8": "9d9abfcb3512b4bc",
    "embedding i4g32": "ba725d0dafe2dfa0",
    "embedding i4g64": "9f68120c7233285d",
    "embedding i4g128": "1ac6548bb0ce3bd8",
    "embedding u4g32m": "97a51e23794de1f9",
    "embedding u4g32k": "fd92bad3d149daf6",
    "embedding u4g32z": "d7de1d5306ddeb37",
    "embedding u4g64z": "507d0eda16b213bf",
    "embedding u4g128z": "264d2e0e9aacf053",
    "embedding i8g32": "ca2e181c6a6525dc",
    "embedding e2m1g32": "32fa88667cf531ae",
    "embedding nl4g32": "3e24b6f06821a894",
    "embedding nl4g32k": "7af5537fef457f56",
    "embedding i5g32": "662f33abb53e2537",
    "embedding u5g32m": "cd58cfe00b2270b8",
    "embedding u5g32k": "7839e5e1ae0baec5",
    "embedding i6g32": "869ff11c8533ccad",
    "embedding i6g16k": "ce56536c057e1787",
    "elementwise": "0493400d6c28f811",
    "rope": "1433c99e2d032f2e",
    "attention f32": "726dd15c766b96b5",
    "attention f16": "503fcbbb0b19a1bd",
    "attention i8": "23f4db93a5521ec5",
    "attention f16, window": "6d77d1a882199b35",
    "attention i8, softcap": "b1d35cdd5b9f8c38",
    "causal_conv": "5cefbd00a3a87c1d",
    "gated_delta": "12691c9cfe658439",
    "state_space": "51249365bea8eb64",
    "layer_norm": "9b9bfcf74a195905",
    "hadamard": "6a30faa9eebb43a4",
    "route": "26a553d7dd73c8be",
    "sampler": "9bcaf06ac76244cf",
    "sampler, rare steps": "fd918b997e06a7cb",
    "transformer": "51537e997a88a9d5",
}


def numbers(*shape: int, seed: int = 0, spread: float = 4.0) -> Float32:
    """Uniform in [-spread, spread), of 16 significant bits."""
    integers = np.random.default_rng(seed).integers(-(2**15), 2**15, shape)
    return (integers * (spread / 2**15)).astype(np.float32)


def linear(fmt: str) -> Callable[[Any, Any], Outputs]:
    """All tile heights, one row of every kind, padding in n and k."""
    rows, n = 21, 55
    form = WEIGHT_FORMATS[fmt]
    k = 353 if not form.group else 768 if form.has_factors else 384

    def run(builder: Any, start: Any) -> Outputs:
        x = numbers(rows, k)
        x[1::5] = np.abs(x[1::5])
        x[2::5, k // 2] = 2.0**14
        x[3] = 0
        weight = _pack(fmt, n, k)
        y = builder.linear(
            builder.activations(x),
            builder.packed(weight, fmt, n, k),
            builder.raw(numbers(n, seed=1)),
        )
        runner = start(builder, y)
        for first, last in ((0, 1), (1, 3), (3, 6), (6, 10), (10, 21)):
            yield runner.logits(range(first, last))

    return run


def embedding(fmt: str) -> Callable[[Any, Any], Outputs]:
    n, k = 40, 256

    def run(builder: Any, start: Any) -> Outputs:
        table = builder.packed(_pack(fmt, n, k), fmt, n, k)
        yield start(builder, builder.embedding(table)).logits([39, 0, 17, 8, 39])

    return run


def _pack(fmt: str, n: int, k: int) -> NDArray[np.uint8]:
    form = WEIGHT_FORMATS[fmt]
    rng = np.random.default_rng(2)
    if form.is_float:
        return pack.pack_float(numbers(n, k, seed=2), form)
    if fmt == "i8":
        codes = rng.integers(-127, 128, (n, k), dtype=np.int8)
        scale = np.abs(numbers(n, 1, seed=3, spread=0.01)) + np.float32(2**-20)
        return pack.pack_integers(Integers(form, codes, scale))
    dtype, low, high = CODE_RANGES[form.code]
    if form.code in LEVELS:
        codes = np.array(LEVELS[form.code], np.int8)[rng.integers(0, 16, (n, k))]
    else:
        codes = rng.integers(low, high + 1, (n, k), dtype=np.int8).view(dtype)

    def halves(columns: int, seed: int) -> NDArray[np.float16]:
        return numbers(n, columns, seed=seed, spread=0.25).astype(np.float16)

    groups = k // form.group
    if form.scale == "e8m0":
        exponents = rng.integers(112, 128, (n, groups), dtype=np.uint8)
        return pack.pack_integers(Integers(form, codes, exponents))
    if form.scale == "s8":
        signed = rng.integers(-128, 128, (n, groups), dtype=np.int8)
        return pack.pack_integers(Integers(form, codes, signed, None, halves(k // SUPER, 3)))
    if form.scale == "q8":
        small = (rng.integers(0, 256, (n, groups), dtype=np.uint8) for _ in range(2))
        factors = (halves(k // SUPER, seed) for seed in (3, 4))
        return pack.pack_integers(Integers(form, codes, *small, *factors))
    minimum: NDArray[Any] | None = None
    if form.minimum == "f16":
        minimum = halves(groups, 4)
    elif form.minimum == "zero":
        minimum = rng.integers(0, 17, (n, groups), dtype=np.uint8)
    return pack.pack_integers(Integers(form, codes, halves(groups, 3), minimum))


def elementwise(builder: Any, start: Any) -> Outputs:
    """The range of e^x and tanh, and beyond."""
    x = np.concatenate([numbers(8, 37), numbers(8, 37, seed=1, spread=110.0)])
    weights = builder.raw(np.abs(numbers(37, seed=2)))
    value = builder.activations(x)
    outputs = [builder.op(name, value) for name in ("silu", "gelu")]
    outputs += [builder.op("softcap", value, cap=30.0), builder.op("scale", value, factor=0.3)]
    outputs.append(builder.op("rms_norm", value, weights=(weights,), size=37, eps=1e-6))
    total = value
    for output in outputs:
        total = builder.op("add", builder.op("mul", total, outputs[0]), output)
    runner = start(builder, total, trace=True)
    yield runner.logits(range(16))
    for output in outputs:
        yield runner.value(output)


def rope(builder: Any, start: Any) -> Outputs:
    """Partial: 40 of 56 columns, tables of 16 bits."""
    angles = np.arange(256)[:, None] * 100.0 ** (-np.arange(20) / 20)
    cos, sin = (builder.raw(f(angles).astype(np.float16)) for f in (np.cos, np.sin))
    x = builder.activations(numbers(64, 3 * 56))
    yield start(builder, builder.rope(x, cos, sin, heads=3, head_dim=56)).logits(range(64))


def attention(dtype: str, **options: Any) -> Callable[[Any, Any], Outputs]:
    """Three blocks in chunks; six query heads on two of keys and values, 24 columns each."""
    widths = [6 * 24, 2 * 24, 2 * 24]

    def run(builder: Any, start: Any) -> Outputs:
        q = builder.op("split", builder.activations(numbers(150, sum(widths))), width=widths)
        state = builder.state(2, 24, dtype)
        y = builder.attention(q, q + 1, q + 2, state, heads=6, scale=0.2, **options)
        runner = start(builder, y)
        for first, last in ((0, 70), (70, 71), (71, 72), (72, 79), (79, 150)):
            yield runner.logits(range(first, last))

    return run


def bidirectional(builder: Any, start: Any) -> Outputs:
    """Two texts in one step, one of three blocks, with a window of each direction."""
    widths = [6 * 24, 2 * 24, 2 * 24]
    q = builder.op("split", builder.activations(numbers(150, sum(widths))), width=widths)
    options = {"heads": 6, "scale": 0.2, "window": 40, "bidirectional": True}
    y = builder.attention(q, q + 1, q + 2, builder.state(2, 24, "f16"), **options)
    yield start(builder, y).step({1: range(30, 60), 0: range(150)}).logits


def causal_conv(builder: Any, start: Any) -> Outputs:
    """Three blocks in chunks, four taps and a bias, padding in the width."""
    x = builder.activations(numbers(150, 37))
    runner = start(builder, builder.causal_conv(x, numbers(37, 4, seed=1), numbers(37, seed=2)))
    for first, last in ((0, 70), (70, 71), (71, 72), (72, 79), (79, 150)):
        yield runner.logits(range(first, last))


def gated_delta(builder: Any, start: Any) -> Outputs:
    """Three pages in chunks, decays of slow and of fast heads, padding in keys and values."""
    tokens, key_heads, heads, k_dim, v_dim = 150, 2, 6, 24, 20
    x = builder.activations(numbers(tokens, 2 * key_heads * k_dim + heads * v_dim + 2 * heads))
    widths = [key_heads * k_dim] * 2 + [heads * v_dim, 2 * heads]
    q = builder.op("split", x, width=widths)
    gates = builder.op("split", q + 3, width=[heads, heads])
    rates = builder.raw(numbers(heads, seed=1, spread=8.0)), builder.raw(numbers(heads, seed=2))
    decay = builder.op("decay", gates, weights=rates)
    strength = builder.op("sigmoid", gates + 1)
    sizes = {"key_heads": key_heads, "heads": heads, "k_dim": k_dim, "v_dim": v_dim}
    y = builder.gated_delta(q, q + 1, q + 2, decay, strength, **sizes)
    runner = start(builder, y, trace=True)
    for first, last in ((0, 70), (70, 71), (71, 72), (72, 79), (79, 150)):
        yield runner.logits(range(first, last))
        yield runner.value(decay)


def state_space(builder: Any, start: Any) -> Outputs:
    """Three pages in chunks, heads of three parts, padding in keys and values."""
    tokens, key_heads, heads, k_dim, v_dim = 150, 1, 10, 24, 20
    x = builder.activations(numbers(tokens, 2 * key_heads * k_dim + heads * v_dim + heads))
    q = builder.op("split", x, width=[key_heads * k_dim] * 2 + [heads * v_dim, heads])
    bias = builder.raw(numbers(heads, seed=2))
    step = builder.op("time_step", q + 3, weights=(bias,), low=0.01, high=5.0)
    rate, skip = numbers(heads, seed=1), numbers(heads, seed=3)
    sizes = {"key_heads": key_heads, "heads": heads, "k_dim": k_dim, "v_dim": v_dim}
    y = builder.state_space(q, q + 1, q + 2, step, rate=rate, skip=skip, **sizes)
    runner = start(builder, y, trace=True)
    for first, last in ((0, 70), (70, 71), (71, 72), (72, 79), (79, 150)):
        yield runner.logits(range(first, last))
        yield runner.value(step)


SAMPLERS = (
    {"temperature": 0.0, "top_logprobs": 5},
    {"temperature": 1.0, "top_logprobs": 20},
    {"temperature": 0.7, "top_k": 40},
    {"temperature": 1.3, "top_p": 0.9},
    {"temperature": 1.0, "min_p": 0.05, "top_k": 200, "top_p": 0.99},
    {"temperature": 0.9, "repetition_penalty": 1.2, "presence_penalty": 0.3},
    {"temperature": 0.9, "frequency_penalty": -0.2, "logit_bias": {3: 2.5, 700: -1.0}},
)


RARE_STEPS: tuple[dict[str, Any], ...] = (
    {"typical_p": 0.7},
    {"temperature": 1.5, "top_k": 60, "typical_p": 0.9, "min_p": 0.02},
    {"xtc_probability": 0.5, "xtc_threshold": 0.01},
    {"top_p": 0.9, "xtc_probability": 1.0, "xtc_threshold": 0.05},
    {"temperature": 0.0, "dry_multiplier": 3.0, "dry_allowed_length": 1},
    {"dry_multiplier": 0.7, "dry_base": 1.3, "dry_penalty_last_n": 40, "typical_p": 0.8},
)


def layer_norm(builder: Any, start: Any) -> Outputs:
    """One run of lanes and a part, with a bias and without."""
    x = builder.activations(numbers(9, 37))
    weight, bias = (builder.raw(numbers(37, seed=seed)) for seed in (1, 2))
    plain = builder.op("layer_norm", x, weights=(weight, -1), eps=1e-5)
    y = builder.op("layer_norm", plain, weights=(weight, bias), eps=1e-5)
    yield start(builder, y).logits(range(9))


def hadamard(builder: Any, start: Any) -> Outputs:
    """Rows of 2^k columns and of 28 * 2^k are transformed."""
    for size in (256, 896):
        value = builder.op("hadamard", builder.activations(numbers(9, size)))
        yield start(builder, value).logits(range(9))
        builder = type(builder)()


def route(builder: Any, start: Any) -> Outputs:
    """Each way of scoring, the last with experts that are near and some that are not."""
    logits = builder.activations(numbers(9, 37))
    attributes = {"chosen": 4, "normalize": 0, "eps": 0.0, "scale": 1.0, "threshold": 0.25}
    shares = [
        builder.op("route", logits, weights=(-1,), scoring=scoring, **attributes)
        for scoring in range(len(SCORINGS))
    ]
    runner = start(builder, shares[-1], trace=True)
    yield runner.logits(range(9))
    for value in shares:
        yield runner.value(value)


def sampler(steps: tuple[dict[str, Any], ...], ids: int = 2000) -> Case:
    """Two thousand logits, each kind of filter, twenty draws of each, after a history of so many
    different ids."""

    def run(builder: Any, start: Any) -> Outputs:
        rows, vocab = 20, 2000
        logits = builder.activations(numbers(rows, vocab, spread=12.0))
        history = np.random.default_rng(1).integers(0, ids, 60).astype(np.int32)
        runner = start(builder, logits)
        for options in steps:
            params = SamplingParams(**options)
            yield from _flat(
                runner.step(
                    {0: range(rows)},
                    samplers=[RowSampler(params, 7, row, history, 50) for row in range(rows)],
                )
            )
            runner.lengths.clear()

    return run


def _flat(result: StepResult) -> Outputs:
    yield result.ids
    for found in result.logprobs:
        if found is not None:
            yield np.array([found.logprob], np.float32)
            yield np.array(found.top, np.float64)


INTEGERS = [name for name, form in WEIGHT_FORMATS.items() if not form.is_float]
CASES: dict[str, Case] = {
    **{f"linear {fmt}": linear(fmt) for fmt in ("f32", "f16", "bf16", *INTEGERS)},
    **{f"embedding {fmt}": embedding(fmt) for fmt in ("f16", *INTEGERS)},
    "elementwise": elementwise,
    "rope": rope,
    **{f"attention {dtype}": attention(dtype) for dtype in ("f32", "f16", "i8")},
    "attention f16, window": attention("f16", window=40),
    "attention i8, softcap": attention("i8", softcap=5.0),
    "attention f16, bidirectional": bidirectional,
    "causal_conv": causal_conv,
    "gated_delta": gated_delta,
    "state_space": state_space,
    "layer_norm": layer_norm,
    "hadamard": hadamard,
    "route": route,
    "sampler": sampler(SAMPLERS),
    "sampler, rare steps": sampler(RARE_STEPS, ids=3),
}


def digest(outputs: Outputs) -> str:
    """The first 16 digits: enough to tell tables apart."""
    total = hashlib.sha256()
    for array in outputs:
        assert not np.isnan(array).any(), "the bits of a NaN are the processor's"
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:16]


@pytest.mark.parametrize("name", CASES)
def test_operators(name: str, plan_builder: Any, run_plan: Any) -> None:
    for isa in isas():
        outputs = CASES[name](
            plan_builder(), lambda *args, isa=isa, **options: run_plan(*args, isa=isa, **options)
        )
        assert digest(outputs) == TABLE.get(name), isa


def test_prefill_decode_and_sampling(toy: Toy, start: Any) -> None:
    for isa in isas():
        assert digest(_generate(start(isa=isa, threads=2))) == TABLE.get("transformer"), isa


def _generate(runner: Any) -> Outputs:
    """A prompt in two chunks, then twenty sampled tokens, over a block's end."""
    ids = TOKENS[:50]
    yield runner.logits(ids[:33])
    step = ids[33:]
    params = SamplingParams(temperature=1.5, top_p=0.95)
    for counter in range(20):
        row = RowSampler(params, 11, counter, np.array(ids, np.int32), 50)
        result = runner.step({0: step}, rows=[len(step) - 1], samplers=[row])
        yield result.logits
        step = [int(result.ids[0])]
        assert 0 <= step[0] < VOCAB
        ids = ids + step
    yield np.array(ids)
