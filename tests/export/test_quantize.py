"""The quantize stage against torchao's own primitives, and the numbers on paper."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch_quantize
from torchao.quantization import IntxUnpackedToInt8Tensor
from torchao.quantization.quant_primitives import MappingType, choose_qparams_affine
from torchao_tensor import torchao_tensor

from edge_llm.errors import ExportError
from edge_llm.export.weights import quantize as stage
from edge_llm.export.weights.prepared import FloatWeight, PreparedWeight, row_chunks
from edge_llm.program.formats import WEIGHT_FORMATS, WeightFormat
from edge_llm.program.integers import Integers


def random_matrix(n: int = 48, k: int = 256, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed)) * 0.05


def quantize(rows: torch.Tensor, form: WeightFormat, **options: str) -> PreparedWeight:
    return stage.quantize(rows.numpy(), form, **options).weight


def quantized(rows: torch.Tensor, name: str, scale_rule: str = "affine") -> Integers:
    weight = quantize(rows, WEIGHT_FORMATS[name], scale_rule=scale_rule)
    assert isinstance(weight, Integers)
    return weight


def values(weight: PreparedWeight) -> torch.Tensor:
    return torch.from_numpy(weight.dequantize())


def scales_of(weight: Integers) -> torch.Tensor:
    return torch.from_numpy(weight.scale).float()


@pytest.mark.parametrize("group", [32, 64, 128])
def test_int4_scales_are_torchaos_rounded_to_float16(group: int) -> None:
    rows = random_matrix()
    weight = quantized(rows, f"i4g{group}")
    scales, zeros = choose_qparams_affine(
        rows,
        MappingType.SYMMETRIC,
        (1, group),
        target_dtype=torch.int8,
        quant_min=-8,
        quant_max=7,
        zero_point_dtype=torch.int8,
        keepdim=True,
    )
    assert torch.equal(scales_of(weight), scales.half().float())
    assert not zeros.any()
    assert weight.format.group == group


@pytest.mark.parametrize("group", [32, 64, 128])
def test_int4_values_are_torchaos_for_the_same_scales(group: int) -> None:
    rows = random_matrix()
    weight = quantized(rows, f"i4g{group}")
    theirs = IntxUnpackedToInt8Tensor.from_hp(
        rows,
        (1, group),
        torch.int4,
        intx_choose_qparams_algorithm=None,
        custom_scale=scales_of(weight),
        custom_zero_point=torch.zeros(weight.scale.shape, dtype=torch.int8),
    )
    assert np.array_equal(weight.codes, theirs.qdata.numpy())
    assert torch.equal(values(weight), theirs.dequantize())
    assert torch.equal(torchao_tensor(weight).dequantize(), theirs.dequantize())


def test_signed_puts_the_largest_magnitude_on_minus_8() -> None:
    rows = random_matrix(k=64)
    weight = quantized(rows, "i4g32", "signed")
    grouped = rows.view(-1, 32)
    largest = grouped.abs().argmax(dim=1, keepdim=True)
    assert bool((torch.from_numpy(weight.codes).view(-1, 32).gather(1, largest) == -8).all())
    # the scale takes the sign that makes it so
    signs = torch.sign(grouped.gather(1, largest)).squeeze(1)
    assert torch.equal(torch.sign(scales_of(weight).view(-1)), -signs)


def test_int8_is_symmetric_around_127() -> None:
    rows = random_matrix()
    weight = quantized(rows, "i8")
    assert torch.equal(scales_of(weight), rows.abs().amax(dim=1, keepdim=True) / 127.0)
    assert int(abs(weight.codes).max()) == 127
    assert float((values(weight) - rows).abs().max()) <= float(weight.scale.max()) * 0.501


@pytest.mark.parametrize("weight_format", ["i4g32", "i8"])
def test_rows_of_zeros_and_of_the_smallest_numbers(weight_format: str) -> None:
    rows = torch.stack([torch.zeros(32), torch.full((32,), 1e-45), torch.full((32,), -1e-30)])
    for rule in ("affine", "signed", "hqq"):
        weight = quantized(rows, weight_format, rule)
        assert np.isfinite(weight.scale).all()
        assert float((values(weight) - rows).abs().max()) < 1e-6
        assert not weight.codes[0].any()


@pytest.mark.parametrize(
    ("weight_format", "dtype"),
    [("f16", torch.float16), ("bf16", torch.bfloat16), ("f32", torch.float32)],
)
def test_float_formats_round_once(weight_format: str, dtype: torch.dtype) -> None:
    rows = random_matrix()
    weight = quantize(rows, WEIGHT_FORMATS[weight_format])
    assert isinstance(weight, FloatWeight)
    assert torch.equal(values(weight), rows.to(dtype).float())


@pytest.mark.parametrize("weight_format", ["i4g32", "i8", "f16"])
def test_chunks_of_rows_give_the_same_numbers(weight_format: str) -> None:
    rows = random_matrix(n=80)
    whole = quantize(rows, WEIGHT_FORMATS[weight_format]).dequantize()
    parts = [
        quantize(rows[part], WEIGHT_FORMATS[weight_format]).dequantize()
        for part in row_chunks(80, 2**16)
    ]
    assert len(parts) == 3
    assert np.array_equal(np.concatenate(parts), whole)


def test_row_chunks_cover_the_rows_in_multiples() -> None:
    parts = list(row_chunks(100, 2**17, multiple=16))
    assert [(part.start, part.stop) for part in parts] == [
        (0, 16), (16, 32), (32, 48), (48, 64), (64, 80), (80, 96), (96, 100)
    ]  # fmt: skip


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("weight_format", ["i4g32", "i8", "f32"])
def test_values_that_are_not_finite_are_refused_by_name(value: float, weight_format: str) -> None:
    rows = random_matrix()
    rows[3, 5] = value
    with pytest.raises(ExportError, match=r"a\.weight holds values that are not finite"):
        quantize(rows, WEIGHT_FORMATS[weight_format], name="a.weight")


@pytest.mark.parametrize(
    ("weight_format", "value", "message"),
    [
        ("f16", 65520.0, "overflow f16"),
        ("bf16", 3.4e38, "overflow bf16"),
        ("i4g32", 1e6, "an int4 scale overflows float16"),
    ],
)
def test_values_beyond_the_format_are_refused(
    weight_format: str, value: float, message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        quantize(torch.full((1, 32), value), WEIGHT_FORMATS[weight_format])


def squared_error(rows: torch.Tensor, weight: Integers) -> torch.Tensor:
    """By row and group."""
    noise = (rows - values(weight)).double().square()
    return noise.view(rows.shape[0], -1, weight.format.group).sum(dim=2)


@pytest.mark.parametrize("group", [32, 64, 128])
def test_hqq_loses_no_more_than_either_start_in_any_group(group: int) -> None:
    heavy = torch.distributions.StudentT(3.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rows = heavy.sample((64, 256)) * 0.02  # type: ignore[no-untyped-call]
    errors = {
        rule: squared_error(rows, quantized(rows, f"i4g{group}", rule))
        for rule in ("affine", "signed", "hqq")
    }
    start = torch.minimum(errors["affine"], errors["signed"])
    assert bool((errors["hqq"] <= start * (1 + 1e-5)).all())
    assert float(errors["hqq"].sum()) < 0.97 * float(errors["signed"].sum())


def test_hqq_finds_weights_that_lie_on_a_grid() -> None:
    generator = torch.Generator().manual_seed(1)
    q = torch.randint(-7, 8, (40, 4, 32), generator=generator)
    q[:, :, 0] = 6  # the largest step is seldom used, so neither start is the grid's own
    q = q.clamp(-6, 6)
    scales = (torch.rand(40, 4, 1, generator=generator) * 0.01 + 0.01).half().float()
    rows = (q * scales).view(40, 128)
    found = quantized(rows, "i4g32", "hqq")
    signed = quantized(rows, "i4g32", "signed")
    assert squared_error(rows, found).sum() < 0.5 * squared_error(rows, signed).sum()


def test_hqq_is_the_alternation_on_paper() -> None:
    rows = random_matrix(n=1, k=32)
    weight = quantized(rows, "i4g32", "hqq")
    starts = [quantized(rows, "i4g32", rule) for rule in ("affine", "signed")]
    start = min(starts, key=lambda made: float(squared_error(rows, made).sum()))
    row, scale = rows[0].double().numpy(), float(start.scale[0, 0])
    for _ in range(20):
        q = np.clip(np.round(row / scale), -8, 7)
        scale = float(row @ q / (q @ q))
    assert float(weight.scale[0, 0]) == float(np.float16(scale))
    assert np.array_equal(weight.codes[0], np.clip(np.round(row / np.float16(scale)), -8, 7))


def test_hqq_of_a_group_does_not_depend_on_its_neighbours() -> None:
    rows = random_matrix(n=600, k=512)  # more than one block of weights
    whole = quantized(rows, "i4g32", "hqq")
    for index in (0, 7, 511, 599):
        alone = quantized(rows[index : index + 1], "i4g32", "hqq")
        assert np.array_equal(alone.scale[0], whole.scale[index])
        assert np.array_equal(alone.codes[0], whole.codes[index])


def test_formats_with_minima_are_never_made_here() -> None:
    with pytest.raises(ExportError, match="u4g32m is taken over from checkpoints"):
        quantize(random_matrix(), WEIGHT_FORMATS["u4g32m"])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 0.02, 3.0, 500.0])
def test_the_numbers_are_those_of_the_same_formulas_in_pytorch(seed: int, scale: float) -> None:
    rows = random_matrix(64, 256, seed) * 20 * scale
    rows[3] = 0.0
    rows[4, ::3] = -0.0
    rows[5, 7] *= 40.0
    rows[6] = rows[6].round()
    form = WEIGHT_FORMATS["i8"]
    same(quantized(rows, "i8"), torch_quantize.int8(rows, form))
    for name in ("i4g32", "i4g64", "i4g128", "i6g32"):
        for rule in ("affine", "signed", "hqq"):
            form = WEIGHT_FORMATS[name]
            same(quantized(rows, name, rule), torch_quantize.groups(rows, form, rule))


@pytest.mark.parametrize("name", ["i4g32", "i4g64", "i4g128", "i6g32"])
def test_columns_that_count_differently(name: str) -> None:
    rows = random_matrix(64, 256)
    rows[3] = 0.0
    columns = torch.rand(256, generator=torch.Generator().manual_seed(9)) ** 4 + 1e-3
    form = WEIGHT_FORMATS[name]
    made = stage.quantize(rows.numpy(), form, columns=columns.numpy())
    assert isinstance(made.weight, Integers)
    same(made.weight, torch_quantize.groups(rows, form, "hqq", columns))
    noise = (rows - values(made.weight)).double().square()
    assert made.noise == pytest.approx(float(noise.sum()), rel=1e-5)  # as all others are measured
    plain = (rows - values(quantize(rows, form))).double().square()
    counted, before = float((noise * columns).sum()), float((plain * columns).sum())
    assert counted < 0.9 * before


def same(ours: Integers, theirs: Integers) -> None:
    assert np.array_equal(ours.codes, theirs.codes)
    assert ours.scale.tobytes() == theirs.scale.tobytes()


@pytest.mark.parametrize("k", [1, 15, 16, 17, 100])
def test_int8_rows_of_any_length(k: int) -> None:
    rows = random_matrix(5, k, seed=k)
    same(quantized(rows, "i8"), torch_quantize.int8(rows, WEIGHT_FORMATS["i8"]))


def test_what_rounding_lost_is_measured() -> None:
    rows = random_matrix()
    for name in ("i4g32", "i4g128", "i6g32", "i8", "bf16"):
        made = stage.quantize(rows.numpy(), WEIGHT_FORMATS[name])
        noise = (rows - values(made.weight)).double().square().sum()
        assert made.signal == pytest.approx(float(rows.double().square().sum()), rel=1e-6)
        assert made.noise == pytest.approx(float(noise), rel=1e-5)


SCRIPT = """
import hashlib, sys
import os
import subprocess
import sys

import numpy as np
from edge_llm.export.weights.quantize import quantize
from edge_llm.program.formats import WEIGHT_FORMATS
rows = np.random.default_rng(3).standard_t(3, (40, 384)).astype(np.float32) * 0.02
rows[2] = 0.0
for name in ("i4g32", "i4g64", "i4g128", "i6g32", "i8"):
    for rule in ("affine", "signed", "hqq"):
        columns = np.linspace(0.1, 3, 384, dtype=np.float32) if rule == "hqq" else None
        made = quantize(rows, WEIGHT_FORMATS[name], scale_rule=rule, columns=columns)
        data = made.weight.codes.tobytes() + made.weight.scale.tobytes()
        print(name, rule, hashlib.sha256(data).hexdigest(), made.signal.hex(), made.noise.hex())
"""


def test_every_instruction_set_gives_the_same_bits() -> None:
    said = set()
    for isa in ("scalar", "avx2", "avx512vnni", "neon"):
        environment = os.environ | {"EDGE_LLM_ISA": isa}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            said.add(done.stdout)
        else:
            assert "does not support" in done.stderr or "expected one of" in done.stderr
    assert len(said) == 1
