"""The packed layouts, element by element, against formulas that share no code with pack.py."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_llm.errors import ConfigError, ExportError, ProgramError
from edge_llm.program import pack
from edge_llm.program.formats import WEIGHT_FORMATS

INT4 = ("i4g32", "i4g64", "i4g128")
FLOATS = ("f32", "f16", "bf16")


def random_int4(
    n: int, k: int, group: int, seed: int = 0
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    q = rng.integers(-8, 8, (n, k), dtype=np.int8)
    half = rng.uniform(-0.1, 0.1, (n, k // group)).astype(np.float16)
    return q, half.astype(np.float32)


def random_int8(n: int, k: int, seed: int = 0) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    q = rng.integers(-127, 128, (n, k), dtype=np.int8)
    return q, rng.uniform(1e-3, 1e-2, n).astype(np.float32)


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize(("n", "k"), [(16, 128), (21, 256), (1, 384)])
def test_int4_layout(n: int, k: int, group: int) -> None:
    q, scales = random_int4(n, k, group)
    data = pack.pack_int4(q, scales, group).tobytes()

    group_bytes = group // 32 * 256 + 32
    panel_bytes = k // group * group_bytes + 64
    panels = (n + 15) // 16
    assert (
        len(data) == panels * panel_bytes == pack.packed_bytes(WEIGHT_FORMATS[f"i4g{group}"], n, k)
    )
    for row in range(panels * 16):
        panel, lane = divmod(row, 16)
        for column in range(k):
            at = panel * panel_bytes + column // group * group_bytes
            block, inside = divmod(column % group, 32)
            c, eighth = divmod(inside, 8)
            high, i = divmod(eighth, 4)
            at += block * 256 + c * 64 + lane // 8 * 32 + lane % 8 * 4 + i
            nibble = data[at] >> 4 if high else data[at] & 15
            assert nibble - 8 == (q[row, column] if row < n else 0)
        for g in range(k // group):
            at = panel * panel_bytes + (g + 1) * group_bytes - 32 + lane * 2
            assert struct.unpack_from("<e", data, at)[0] == (scales[row, g] if row < n else 0)
        constant = sum(
            float(scales[row, g]) * int(q[row, g * group : (g + 1) * group].sum(dtype=np.int64))
            for g in range(k // group if row < n else 0)
        )
        stored = struct.unpack_from("<f", data, (panel + 1) * panel_bytes - 64 + lane * 4)[0]
        assert stored == pytest.approx(constant, rel=1e-7, abs=1e-12)


@pytest.mark.parametrize(("n", "k"), [(16, 32), (21, 100), (3, 7)])
def test_int8_layout(n: int, k: int) -> None:
    q, scales = random_int8(n, k)
    data = pack.pack_int8(q, scales).tobytes()

    depth = (k + 31) // 32 * 32
    panel_bytes = depth * 16 + 128
    panels = (n + 15) // 16
    assert len(data) == panels * panel_bytes == pack.packed_bytes(WEIGHT_FORMATS["i8"], n, k)
    for row in range(panels * 16):
        panel, lane = divmod(row, 16)
        start = panel * panel_bytes
        for column in range(depth):
            at = start + column // 4 * 64 + lane * 4 + column % 4
            value = struct.unpack_from("<b", data, at)[0]
            assert value == (q[row, column] if row < n and column < k else 0)
        scale, constant = (
            struct.unpack_from("<f", data, start + depth * 16 + part + lane * 4)[0]
            for part in (0, 64)
        )
        assert scale == (scales[row] if row < n else 0)
        total = int(q[row].sum(dtype=np.int64)) if row < n else 0
        assert constant == (np.float32(float(scales[row]) * total) if row < n else 0)


@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize(("n", "k"), [(16, 32), (21, 40), (2, 5)])
def test_float_layout(fmt: str, n: int, k: int) -> None:
    size = 4 if fmt == "f32" else 2
    weight = np.random.default_rng(1).standard_normal((n, k)).astype(np.float32)
    data = pack.pack_float(weight, WEIGHT_FORMATS[fmt]).tobytes()

    depth = (k + 31) // 32 * 32
    panels = (n + 15) // 16
    assert len(data) == panels * depth * 16 * size == pack.packed_bytes(WEIGHT_FORMATS[fmt], n, k)
    for row in range(panels * 16):
        panel, lane = divmod(row, 16)
        for column in range(depth):
            at = ((panel * depth + column) * 16 + lane) * size
            if fmt == "bf16":
                bits = struct.unpack_from("<H", data, at)[0]
                stored = struct.unpack("<f", struct.pack("<I", bits << 16))[0]
            else:
                stored = struct.unpack_from("<f" if fmt == "f32" else "<e", data, at)[0]
            exact = float(weight[row, column]) if row < n and column < k else 0.0
            unit = {"f32": 0.0, "f16": 2**-11, "bf16": 2**-8}[fmt]
            assert abs(stored - exact) <= unit * abs(exact)


@pytest.mark.parametrize("n", [1, 16, 33])
def test_round_trips(n: int) -> None:
    for fmt in INT4:
        group = pack.format_group(fmt)
        q, scales = random_int4(n, 256, group)
        data = pack.pack_int4(q, scales, group)
        unpacked = pack.unpack(data, WEIGHT_FORMATS[fmt], n, 256)
        np.testing.assert_array_equal(unpacked.q, q)
        np.testing.assert_array_equal(unpacked.scales, scales)
        expected = q.astype(np.float32) * np.repeat(scales, group, axis=1)
        np.testing.assert_array_equal(pack.dequantize(data, WEIGHT_FORMATS[fmt], n, 256), expected)
    q, scales = random_int8(n, 100)
    data = pack.pack_int8(q, scales[:, None])
    unpacked = pack.unpack(data, WEIGHT_FORMATS["i8"], n, 100)
    np.testing.assert_array_equal(unpacked.q, q)
    np.testing.assert_array_equal(unpacked.scales, scales[:, None])
    expected = q.astype(np.float32) * scales[:, None]
    np.testing.assert_array_equal(pack.dequantize(data, WEIGHT_FORMATS["i8"], n, 100), expected)
    weight = np.random.default_rng(2).standard_normal((n, 37)).astype(np.float32)
    values = pack.unpack(
        pack.pack_float(weight, WEIGHT_FORMATS["f32"]), WEIGHT_FORMATS["f32"], n, 37
    ).values
    np.testing.assert_array_equal(values, weight)


def test_float_rounding_is_to_nearest_even() -> None:
    # Halfway between neighbours of the stored type: the even one wins, up and down.
    halves = {"f16": 2.0**-11, "bf16": 2.0**-8}
    for fmt, half in halves.items():
        weight = np.array([[1 + half, 1 + 3 * half, -(1 + half), 1 + half * 1.01]], np.float32)
        stored = pack.dequantize(
            pack.pack_float(weight, WEIGHT_FORMATS[fmt]), WEIGHT_FORMATS[fmt], 1, 4
        )
        np.testing.assert_array_equal(stored, [[1, 1 + 4 * half, -1, 1 + 2 * half]])
    tiny = np.array([[2.0**-24, 2.0**-25, 3 * 2.0**-25]], np.float32)  # fp16 subnormals
    stored = pack.dequantize(
        pack.pack_float(tiny, WEIGHT_FORMATS["f16"]), WEIGHT_FORMATS["f16"], 1, 3
    )
    np.testing.assert_array_equal(stored, [[2.0**-24, 0, 2.0**-23]])


def test_formats_and_groups() -> None:
    groups = {"f32": 0, "f16": 0, "bf16": 0, "i8": 0, "i4g32": 32, "i4g64": 64, "i4g128": 128}
    assert {fmt: pack.format_group(fmt) for fmt in groups} == groups


@pytest.mark.parametrize(
    ("fmt", "n", "k", "message"),
    [
        ("raw_f32", 16, 64, "raw"),
        ("i4g64", 16, 96, "divisible by 64"),
        ("f32", 0, 64, "positive"),
        ("i8", 16, -1, "positive"),
        ("i8", 16, 2**20, "takes K up to"),
    ],
)
def test_impossible_layouts(fmt: str, n: int, k: int, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        pack.packed_bytes(WEIGHT_FORMATS[fmt], n, k)


def test_refused_integer_values() -> None:
    q, scales = random_int4(4, 64, 32)
    with pytest.raises(ExportError, match="not fp16"):
        pack.pack_int4(q, scales + np.float32(1e-6), 32)
    with pytest.raises(ExportError, match="not fp16"):
        pack.pack_int4(q, np.full_like(scales, 1e6), 32)
    with pytest.raises(ExportError, match="finite"):
        pack.pack_int4(q, scales * np.float32("nan"), 32)
    with pytest.raises(ExportError, match=r"scales have shape \[4, 1\], expected \[4, 2\]"):
        pack.pack_int4(q, scales[:, :1], 32)
    with pytest.raises(ExportError, match=r"expected \[-8, 7\]"):
        pack.pack_int4(q * np.int8(2), scales, 32)
    with pytest.raises(ExportError, match=r"int16 .*expected int8"):
        pack.pack_int4(q.astype(np.int16), scales, 32)  # type: ignore[arg-type]
    with pytest.raises(ExportError, match=r"expected int8 \[N, K\]"):
        pack.pack_int8(q[0], scales[:1, 0])
    with pytest.raises(ExportError, match="-128"):
        pack.pack_int8(np.full((1, 4), -128, np.int8), np.ones(1, np.float32))


def test_refused_float_values() -> None:
    for value in (np.inf, -np.inf, np.nan):
        with pytest.raises(ExportError, match="not finite"):
            pack.pack_float(np.full((2, 3), value, np.float32), WEIGHT_FORMATS["f32"])
    with pytest.raises(ConfigError, match=r"f16 cannot hold .* 70000"):
        pack.pack_float(np.full((2, 3), 70000, np.float32), WEIGHT_FORMATS["f16"])
    with pytest.raises(ConfigError, match="bf16 cannot hold"):
        pack.pack_float(np.full((2, 3), np.finfo(np.float32).max), WEIGHT_FORMATS["bf16"])
    with pytest.raises(ProgramError, match="expected f32, f16 or bf16"):
        pack.pack_float(np.ones((2, 3), np.float32), WEIGHT_FORMATS["i8"])


def test_unpack_checks_the_byte_count() -> None:
    data = pack.pack_float(np.ones((2, 3), np.float32), WEIGHT_FORMATS["f16"])
    for wrong in (data[:-1], data.view(np.int8), data.reshape(1, -1)):
        with pytest.raises(ProgramError, match="expected uint8"):
            pack.unpack(wrong, WEIGHT_FORMATS["f16"], 2, 3)  # type: ignore[arg-type]
