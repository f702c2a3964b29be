"""Rounding column after column, against GPTQ as it is usually written."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_llm.export.pipeline import export
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.export.weights import inputs as inputs_module
from edge_llm.export.weights.inputs import WholeInputs
from edge_llm.export.weights.quantize import quantize
from edge_llm.export.weights.reading import reading
from edge_llm.export.weights.successive import DAMPING, dependence, round_successively
from edge_llm.export.weights.triangular import factorize
from edge_llm.program.file import Program
from edge_llm.program.formats import WEIGHT_FORMATS
from edge_llm.program.integers import CODE_RANGES, Integers
from edge_llm.tokenizers.tokenizer import tokenizer_of

Float64 = np.ndarray
TEXT = "The little boat went out to sea at dawn, and nobody saw it come home again. " * 12


def related(rows: int, columns: int) -> np.ndarray:
    """Inputs whose columns go together, and are of different sizes."""
    random = np.random.default_rng(1)
    mixed = random.normal(size=(rows, columns // 4)) @ random.normal(size=(columns // 4, columns))
    sizes = np.exp2(random.uniform(-2.0, 2.0, columns))
    made = (mixed + random.normal(size=(rows, columns))) * sizes
    return np.asarray(made, np.float32)


def usual_gptq(weights: Float64, inputs: Float64, start: Integers) -> Float64:
    """Frantar et al. 2022 with the Cholesky factor of the inverse, column after column, in order of
    the diagonal, with the groups and scales of ``start``, in float64."""
    square = inputs.T @ inputs
    order = np.argsort(-np.diag(square), kind="stable")
    square = square[np.ix_(order, order)]
    square += DAMPING * np.diag(square).mean() * np.eye(len(square))
    upper = np.linalg.cholesky(np.linalg.inv(square)).T
    low, high = CODE_RANGES[start.format.code][1:]
    left, codes = weights[:, order].copy(), np.empty(weights.shape)
    for j, column in enumerate(order):
        scale = start.scale[:, column // start.format.group].astype(np.float64)
        codes[:, column] = np.clip(np.rint(left[:, j] / scale), low, high)
        off = (left[:, j] - codes[:, column] * scale) / upper[j, j]
        left[:, j + 1 :] -= np.outer(off, upper[j, j + 1 :])
    return codes


@pytest.mark.parametrize("form", ["i4g32", "i4g64", "i6g32"])
def test_it_is_gptq(form: str) -> None:
    weights = np.random.default_rng(0).normal(size=(48, 192)).astype(np.float32)
    inputs = related(512, 192)
    start = quantize(weights, WEIGHT_FORMATS[form]).weight
    assert isinstance(start, Integers)
    got = round_successively(weights, start, dependence(inputs))
    expected = usual_gptq(weights.astype(np.float64), inputs.astype(np.float64), start)
    assert np.array_equal(got.scale, start.scale)
    assert (got.codes != start.codes).mean() > 0.05
    # a row that float32 rounds the other way once goes on differently
    same = (got.codes == expected).all(axis=1)
    assert same.mean() > 0.8


def test_products_lose_less() -> None:
    weights = np.random.default_rng(0).normal(size=(48, 192)).astype(np.float32)
    inputs, others = np.split(related(2048, 192), 2)
    start = quantize(weights, WEIGHT_FORMATS["i4g32"]).weight
    assert isinstance(start, Integers)
    made = round_successively(weights, start, dependence(inputs))

    def loss(of: Integers) -> float:
        return float(np.square(others @ (of.dequantize() - weights).T).mean())

    assert loss(made) < 0.7 * loss(start)


def test_scaled_columns_are_of_inputs_that_are_so_much_smaller() -> None:
    inputs = related(512, 96)
    scales = np.exp2(np.random.default_rng(0).integers(-2, 3, 96)).astype(np.float32)
    one, other = dependence(inputs / scales), dependence(inputs, scales)
    assert np.array_equal(one.order, other.order)
    assert np.array_equal(one.upper, other.upper)


def test_columns_that_are_never_used() -> None:
    inputs = related(64, 96)
    inputs[:, 7] = 0.0
    weights = np.random.default_rng(0).normal(size=(16, 96)).astype(np.float32)
    start = quantize(weights, WEIGHT_FORMATS["i4g32"]).weight
    assert isinstance(start, Integers)
    made = round_successively(weights, start, dependence(inputs))
    assert np.array_equal(made.codes[:, 7], start.codes[:, 7])
    still = round_successively(weights, start, dependence(np.zeros_like(inputs)))
    assert np.array_equal(still.codes, start.codes)


def test_inputs_are_the_same_however_few_fit_into_memory(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny_checkpoint("qwen3_moe")
    path = export(
        Recipe(model=str(source), scheme="8da8w", verify=False), output=tmp_path / "x.edge"
    )
    with Program.open(path) as program:
        parts = {weight.tensor: (weight.name,) for weight in program.plan.weights}
        ids = np.array(tokenizer_of(program).encode(TEXT), np.int32)
    with reading(path, parts, ids, backend="native") as text:
        names = [name for read in text.values.values() for name in read.parameters]
        whole = WholeInputs(text)
        expected = {name: whole.of(name) for name in names if whole.has(name)}
        monkeypatch.setattr(inputs_module, "_KEPT", 0)
        few = WholeInputs(text)
        for name, rows in expected.items():
            assert rows.shape[0] == len(text.ids)
            assert np.array_equal(few.of(name), rows)
        for name in names:
            read = next(read for read in text.values.values() if name in read.parameters)
            assert (name in expected) == (name in read.linears)
    assert not whole.has("lm_head.weight")


@pytest.mark.parametrize("size", [1, 255, 256, 257, 1700])
def test_the_factor_of_a_matrix(size: int) -> None:
    inputs = related(size + 3, size) if size > 3 else np.ones((4, size), np.float32)
    square = inputs.T @ inputs
    square[np.diag_indices(size)] += DAMPING * np.diag(square).mean()
    expected = np.linalg.cholesky(square.astype(np.float64))
    factorize(square)
    off = np.abs(np.tril(square) - expected) / np.diag(expected)[:, None]
    assert off.max() < 1e-5


def test_a_matrix_that_has_no_factor() -> None:
    with pytest.raises(np.linalg.LinAlgError):
        factorize(-np.eye(300, dtype=np.float32))


def test_it_takes_little_memory_and_gives_it_back() -> None:
    inputs = related(64, 1024)
    weights = np.random.default_rng(0).normal(size=(64, 1024)).astype(np.float32)
    start = quantize(weights, WEIGHT_FORMATS["i4g32"]).weight
    assert isinstance(start, Integers)
    square = 4 * 1024**2
    gc.collect()
    gc.disable()  # what only the collector finds may stay for long: it does not count bytes
    tracemalloc.start()
    try:
        how = dependence(inputs)
        _, most = tracemalloc.get_traced_memory()
        assert most < 2 * square
        before = tracemalloc.get_traced_memory()[0]
        made = round_successively(weights, start, how)
        assert tracemalloc.get_traced_memory()[0] - before < 1.5 * made.codes.nbytes
    finally:
        tracemalloc.stop()
        gc.enable()
