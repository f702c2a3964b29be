"""Metrics, the gate, and the streamed eager model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchao_tensor import torchao_tensor

from edge_llm.errors import ExportError, QualityGateError
from edge_llm.export.backends.registry import get_backend
from edge_llm.export.lowering.graph import plan_model
from edge_llm.export.meter import Meter, silent
from edge_llm.export.origin.load import load
from edge_llm.export.pipeline import export
from edge_llm.export.recipes.formats import Assignment
from edge_llm.export.recipes.recipe import Gate, Recipe
from edge_llm.export.verification.answers import golden_shapes
from edge_llm.export.verification.metrics import Comparison, compare_all, compare_logits
from edge_llm.export.verification.numbers import Rows, made, packed, unrounded
from edge_llm.export.verification.readback import ReadBack
from edge_llm.export.verification.streamed import StreamedLinear, streamed_model
from edge_llm.export.verification.threads import in_turn, on_all_cores
from edge_llm.export.verification.verify import Verification, check_gate, eager_logits
from edge_llm.export.weights.calibration import evened
from edge_llm.export.weights.parameters import Parameters, parameters_of
from edge_llm.export.weights.quantize import quantize
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.models.build import load_model
from edge_llm.program.file import Program
from edge_llm.program.formats import WEIGHT_FORMATS
from edge_llm.program.integers import Integers
from edge_llm.program.writer import ProgramWriter

GOOD = Comparison(64, 0.001, 0.01, 0.9999, 0.999, 0.7, 0.99, 0.01, 0.1)


def test_equal_logits() -> None:
    logits = np.random.default_rng(0).normal(size=(70, 11)).astype(np.float32)
    got = compare_logits(logits, logits.copy())
    assert got.positions == 70
    assert (got.kl, got.max_kl, got.top1, got.top1_margin, got.max_error) == (0, 0, 1, 0, 0)
    assert got.min_cosine == pytest.approx(1.0)


def test_figures_of_a_small_example() -> None:
    eager = np.log(np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]], np.float32))
    program = np.log(np.array([[0.25, 0.5, 0.25], [0.25, 0.5, 0.25]], np.float32))
    got = compare_logits(program, eager)
    assert got.kl == pytest.approx(0.25 * np.log(2) / 2, rel=1e-5)
    assert got.max_kl == pytest.approx(0.25 * np.log(2), rel=1e-5)
    assert got.top1 == got.top1_near == 0.5
    assert got.top1_margin == pytest.approx(np.log(2) / eager[0].std(ddof=1), rel=1e-5)
    assert got.max_error == got.top1_margin


def test_near_ties_count_as_agreement() -> None:
    eager = np.array([[0.0, 1.0, 1.01, -1.0], [0.0, 1.0, 2.0, -1.0]], np.float32)
    got = compare_logits(eager[:, [0, 2, 1, 3]], eager)
    assert (got.top1, got.top1_near) == (0.0, 0.5)


def verification(**changes: Comparison) -> Verification:
    return replace(Verification({}, GOOD, GOOD, GOOD), **changes)


def test_the_gate_lets_good_programs_pass() -> None:
    check_gate(verification(), Gate())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"same_numbers": replace(GOOD, kl=0.5)}, "KL to eager PyTorch is 0.5, at most 0.1"),
        ({"same_numbers": replace(GOOD, kl=float("nan"))}, "KL to eager PyTorch is nan"),
        (
            {"same_numbers": replace(GOOD, top1_near=0.25)},
            "top-1 agreement is 25.00%, at least 80.00%",
        ),
        ({"unquantized": replace(GOOD, kl=0.101)}, "exceeds that of eager PyTorch by 0.1, at most"),
        (
            {
                "unquantized": replace(GOOD, kl=3.0),
                "eager_unquantized": replace(GOOD, kl=3.0),
            },
            "KL to the unquantized checkpoint is 3, at most 1",
        ),
    ],
)
def test_the_gate_says_what_is_broken(changes: dict[str, Comparison], message: str) -> None:
    with pytest.raises(QualityGateError, match=message) as caught:
        check_gate(verification(**changes), Gate())
    assert "gate=off" in (caught.value.hint or "")


def test_golden_shapes_fit_short_contexts_and_small_vocabularies() -> None:
    assert golden_shapes(8192, 50000)["golden.next"] == ("I32", (5, 63))
    for context in (1, 2, 3):
        for _, (prompts, length) in golden_shapes(context, 4).values():
            assert prompts == 5
            assert 1 <= length <= 4


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_streamed_float_model_is_the_loaded_one(
    family: str, tiny_checkpoint: Callable[..., Path]
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint(family))
    texts = [list(range(5, 25)), list(range(40, 50))]
    loaded = load_model(
        checkpoint.config, checkpoint.tensor, context=64, kv_dtype=torch.float32, slots=2
    )
    parameters = parameters_of(checkpoint, Recipe(), tied={}, constants={})
    with on_all_cores() as each:
        streamed = streamed_model(
            checkpoint.config,
            unrounded(parameters),
            parameters.vector,
            context=64,
            slots=2,
            tokens=24,
            kv_dtype=torch.float32,
            each=each,
        )
        got = eager_logits(streamed, texts)
    expected = eager_logits(loaded, texts)
    assert float(np.abs(expected - got).max() / expected.std()) < 1e-5
    assert all(parameter.dim() == 1 for parameter in streamed.parameters())  # no matrix is kept


@pytest.mark.parametrize("form", ["i8", "i4g32", "i4g64", "i4g128"])
def test_streamed_products_are_torchaos(form: str) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(96, 256)).astype(np.float32)
    weight = quantize(values, WEIGHT_FORMATS[form]).weight
    assert isinstance(weight, Integers)
    parameters = Parameters(lambda name: values, "hqq", {}, lambda name: weight)
    opened = made(parameters, Assignment({"w": WEIGHT_FORMATS[form]}, {}, {"w": "token"}, ()))
    x = torch.from_numpy(random.normal(size=(5, 256)).astype(np.float32))
    expected = torch.nn.functional.linear(x, torchao_tensor(weight))
    assert torch.equal(StreamedLinear(opened, "w", None, in_turn)(x), expected)


def test_streamed_products_by_group_round_each_32_columns() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(16, 80)).astype(np.float32)
    weight = quantize(values, WEIGHT_FORMATS["i8"]).weight
    assert isinstance(weight, Integers)
    parameters = Parameters(lambda name: values, "hqq", {}, lambda name: weight)
    opened = made(parameters, Assignment({"w": WEIGHT_FORMATS["i8"]}, {}, {"w": "group"}, ()))
    x = random.normal(size=(5, 80)).astype(np.float32)
    x[:, :32] *= 1000  # which the others do not feel
    x[2, 64:] = 0
    rounded = np.zeros_like(x)
    for columns in (slice(0, 32), slice(32, 64), slice(64, 80)):
        scale = np.maximum(np.abs(x[:, columns]).max(axis=1, keepdims=True) / 127, 1e-38)
        rounded[:, columns] = np.rint(x[:, columns] / scale) * scale
    got = StreamedLinear(opened, "w", None, in_turn)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, rounded @ weight.dequantize().T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("scheme", "changes"),
    [
        ("8da4w", {}),
        ("8da4w", {"head": "i4g32"}),  # tied to an embedding of int8, whose values it shares
        ("8da8w", {}),
        ("8da8w", {"activations": "group"}),
        ("8da4w", {"activations": "group"}),
        ("fp16", {}),
    ],
)
def test_a_program_gives_back_the_numbers_it_was_made_of(
    scheme: str,
    changes: dict[str, str],
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    source = tiny_checkpoint("llama", tie_word_embeddings=True)
    recipe = Recipe(model=str(source), scheme=scheme, **changes)
    path = export(recipe, output=tmp_path / "a.edge")
    loaded = load(recipe)
    planned = plan_model(loaded, recipe, get_backend("native"), Meter(), silent)
    parameters = parameters_of(loaded.checkpoint, recipe, tied=planned.tied, constants={})
    parameters = evened(planned, recipe, parameters)
    again = made(parameters, planned.assignment)
    with Program.open(path) as program:
        stored = packed(program, planned)
        for name in planned.assignment.formats:
            n, k = again(name).shape
            assert (stored(name).shape, stored(name).activations) == (
                (n, k),
                again(name).activations,
            )
            some = np.random.default_rng(0).integers(0, n, size=37)
            for rows in (slice(0, n), slice(16, n - 1), some):
                assert np.array_equal(stored(name).rows(rows), again(name).rows(rows)), name


def test_threads_of_pytorch_are_as_before() -> None:
    before = torch.get_num_threads()
    seen = []
    with on_all_cores() as each:
        each(lambda rows: seen.append((rows.start, torch.get_num_threads())), [slice(3), slice(4)])
        assert torch.get_num_threads() == 1
    assert [threads for _, threads in seen] == [1, 1]
    assert torch.get_num_threads() == before


def test_comparing_pairs_together_is_comparing_each() -> None:
    one, two, three = np.random.default_rng(0).normal(size=(3, 9, 11)).astype(np.float32)
    pairs = (one, two), (two, three), (one, three)
    with on_all_cores() as each:
        assert compare_all(pairs, each) == [compare_logits(*pair) for pair in pairs]


@pytest.mark.parametrize("scheme", ["8da4w", "8da8w", "bf16", "fp32"])
def test_numbers_in_a_wrong_place_are_noticed(
    scheme: str,
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = Recipe(model=str(tiny_checkpoint("llama")), scheme=scheme, gate=None)
    export(recipe, output=tmp_path / "fine.edge")
    right = ProgramWriter.write

    def write(self: ProgramWriter, name: str, data: NDArray[np.uint8]) -> None:
        if "layers.1" in name and "down_proj" in name:
            half = data.size // 2
            data = np.concatenate((data[half:], data[:half]))
        right(self, name, data)

    monkeypatch.setattr(ProgramWriter, "write", write)
    with pytest.raises(
        ExportError, match=r"does not hold model\.layers\.1\.mlp\.down_proj\.weight"
    ):
        export(recipe, output=tmp_path / "wrong.edge")
    assert not (tmp_path / "wrong.edge").exists()


class _Values:
    """A matrix of numbers that are given."""

    activations = None

    def __init__(self, values: NDArray[np.float32]) -> None:
        self.values, self.shape = values, (values.shape[0], values.shape[1])

    def rows(self, rows: Rows) -> NDArray[np.float32]:
        return self.values[rows]


@pytest.mark.parametrize(("rounding", "refused"), [(2.0**-26, False), (2.0**-4, True)])
def test_noise_below_float32_says_nothing(rounding: float, refused: bool) -> None:
    """A few fp16 weights that were bfloat16 are rounded, by next to nothing: how much of that some
    products see is chance."""
    values = np.random.default_rng(1).standard_normal((48, 64)).astype(np.float32)
    stored = values.copy()
    stored[3, 5] += np.float32(rounding)
    back = ReadBack()
    back.stored(lambda name: _Values(stored))("w").rows(slice(0, 48))
    back.meant(lambda name: _Values(values))("w").rows(slice(0, 48))
    if refused:
        with pytest.raises(ExportError, match="the file does not hold w as it was made"):
            back.check(lambda name: 190.0)
    else:
        back.check(lambda name: 190.0)
