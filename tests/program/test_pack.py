"""The packed layouts, element by element, against formulas that share no code with pack.py."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from random_weights import random_integers

from edge_llm.errors import ConfigError, ExportError, ProgramError
from edge_llm.program import pack
from edge_llm.program.formats import LEVELS, WEIGHT_FORMATS
from edge_llm.program.integers import Integers

GROUPED = tuple(name for name, form in WEIGHT_FORMATS.items() if form.group)
INTEGERS = (*GROUPED, "i8")
FLOATS = ("f32", "f16", "bf16")
# By scale and minimum: bytes of a frame's header, groups of a frame, bytes behind the codes of a
# group; of i6, whose groups have 16 columns, apart.
FRAMES = {
    ("f16", "none"): (0, 1, 32),
    ("f16", "f16"): (0, 1, 64),
    ("f16", "zero"): (32, 2, 32),
    ("e8m0", "none"): (32, 2, 0),
    ("q8", "q8"): (64, 8, 32),
    ("s8", "none"): (32 + 8 * 16, 8, 0),
}
FRAMES_OF_16 = (32 + 16 * 16, 16, 0)
OFFSETS = {"i4": 8, "i5": 16, "i6": 32, "u4": 0, "u5": 0}


def random(name: str, n: int, k: int, seed: int = 0) -> Integers:
    return random_integers(WEIGHT_FORMATS[name], n, k, np.random.default_rng(seed))


def field_at(codes: bytes, bits: int, column: int, lane: int) -> int:
    """The stored field of a row of a panel, given the codes of its group."""
    step, i = divmod(column, 4)
    at = lane // 8 * 32 + lane % 8 * 4 + i
    if bits == 8:
        return codes[step * 64 + at]
    pair = codes[step // 2 * 64 + at]
    low = pair >> 4 if step % 2 else pair & 15
    if bits == 4:
        return low
    vector, place = divmod(step, 8 // (bits - 4))
    plane = codes[len(codes) * 4 // bits + vector * 64 + at]
    return low | (plane >> place * (bits - 4) & (1 << bits - 4) - 1) << 4


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize("n", [16, 21, 1])
@pytest.mark.parametrize("groups", [1, 2, 5])
def test_grouped_layout(name: str, n: int, groups: int) -> None:
    form = WEIGHT_FORMATS[name]
    header, together, tail = FRAMES[form.scale, form.minimum]
    if form.group == 16:
        header, together, tail = FRAMES_OF_16
    if form.has_factors:
        groups *= together
    k = groups * form.group
    weight = random(name, n, k)
    data = pack.pack_integers(weight).tobytes()
    codes = form.group * 16 * form.bits // 8

    def begin(g: int) -> int:
        """Where the codes of a group begin in their panel."""
        return (g // together + 1) * header + g * (codes + tail)

    panel_bytes = -(-groups // together) * header + groups * (codes + tail) + 64
    panels = (n + 15) // 16
    assert len(data) == panels * panel_bytes == pack.packed_bytes(form, n, k)
    for row in range(panels * 16):
        panel, lane = divmod(row, 16)
        start, there = panel * panel_bytes, row < n
        for column in range(k):
            at = start + begin(column // form.group)
            field = field_at(data[at : at + codes], form.bits, column % form.group, lane)
            if form.code in LEVELS:
                value = LEVELS[form.code][field]
            elif form.code == "i8":
                value = field - 256 * (field > 127)
            else:
                value = field - OFFSETS[form.code]
            if there or form.code != "nl4":  # which has no level 0
                assert value == (weight.codes[row, column] if there else 0)
        for g in range(groups):
            end = start + begin(g) + codes
            frame = start + begin(g // together * together) - header
            found: dict[str, float] = {}
            factors: tuple[float, ...] = ()
            if form.scale == "q8":
                found = {"scale": data[end + lane], "minimum": data[end + 16 + lane]}
                factors = struct.unpack_from("<e", data, frame + lane * 2)
                factors += struct.unpack_from("<e", data, frame + 32 + lane * 2)
            elif form.scale == "s8":
                at = frame + 32 + g % together * 16 + lane
                found = {"scale": struct.unpack_from("<b", data, at)[0]}
                factors = struct.unpack_from("<e", data, frame + lane * 2)
            elif form.scale == "e8m0":
                found = {"scale": data[frame + g % together * 16 + lane]}
            else:
                found = {"scale": struct.unpack_from("<e", data, end + lane * 2)[0]}
            for array, value in zip((weight.factor, weight.minimum_factor), factors, strict=False):
                assert array is not None
                assert value == (array[row, g // together] if there else 0)
            if form.minimum == "f16":
                found["minimum"] = struct.unpack_from("<e", data, end + 32 + lane * 2)[0]
            elif form.minimum == "zero":
                found["minimum"] = data[frame + g % together * 16 + lane]
            for name_, value in found.items():
                assert value == (getattr(weight, name_)[row, g] if there else 0)
        stored = struct.unpack_from("<f", data, start + panel_bytes - 64 + lane * 4)[0]
        assert stored == (weight.constants()[row] if there else 0)


def test_bits_of_a_weight() -> None:
    """A large matrix, without its row constants."""
    n, k = 160, 4096
    bits = {
        name: (pack.packed_bytes(WEIGHT_FORMATS[name], n, k) - n * 4) * 8 / (n * k)
        for name in GROUPED
    }
    assert bits["i4g32"] == 4.5
    assert bits["u4g32m"] == 5
    assert bits["u4g32k"] == 4.625
    assert [bits[f"u4g{group}z"] for group in (32, 64, 128)] == [4.75, 4.375, 4.1875]
    # Those of the sources are 8.5, 4.25, 4.5, 4.25, 5.5, 6, 5.5 and 6.5625.
    assert (bits["i8g32"], bits["e2m1g32"]) == (8.5, 4.25)
    assert (bits["nl4g32"], bits["nl4g32k"]) == (4.5, 4.3125)
    assert (bits["i5g32"], bits["u5g32m"], bits["u5g32k"]) == (5.5, 6, 5.625)
    assert (bits["i6g16k"], bits["i6g32"]) == (6.5625, 6.5)


@pytest.mark.parametrize(("n", "k"), [(16, 32), (21, 100), (3, 7)])
def test_int8_layout(n: int, k: int) -> None:
    weight = random("i8", n, k)
    q, scales = weight.codes, weight.scale[:, 0]
    data = pack.pack_integers(weight).tobytes()

    depth = (k + 31) // 32 * 32
    panel_bytes = depth * 16 + 128
    panels = (n + 15) // 16
    assert len(data) == panels * panel_bytes == pack.packed_bytes(weight.format, n, k)
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
@pytest.mark.parametrize("name", INTEGERS)
def test_integers_round_trip(name: str, n: int) -> None:
    for k in (256, 768):
        weight = random(name, n, k)
        data = pack.pack_integers(weight)
        got = pack.unpack_integers(data, weight.format, n, k)
        for field in ("codes", "scale", "minimum", "factor", "minimum_factor"):
            np.testing.assert_array_equal(getattr(got, field), getattr(weight, field))
        values = pack.dequantize(data, weight.format, n, k)
        np.testing.assert_array_equal(values, weight.dequantize())


def test_floats_round_trip() -> None:
    weight = np.random.default_rng(2).standard_normal((33, 37)).astype(np.float32)
    form = WEIGHT_FORMATS["f32"]
    values = pack.unpack_floats(pack.pack_float(weight, form), form, 33, 37)
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


@pytest.mark.parametrize(
    ("name", "n", "k", "message"),
    [
        ("raw_f32", 16, 64, "has panels"),
        ("i4g64", 16, 96, "divisible by 64"),
        ("u4g64z", 16, 96, "divisible by 64"),
        ("u4g32k", 16, 128, "divisible by 256"),
        ("f32", 0, 64, "positive"),
        ("i8", 16, -1, "positive"),
        ("i8", 16, 2**20, "takes K up to"),
    ],
)
def test_impossible_layouts(name: str, n: int, k: int, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        pack.packed_bytes(WEIGHT_FORMATS[name], n, k)


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
            pack.unpack_floats(wrong, WEIGHT_FORMATS["f16"], 2, 3)  # type: ignore[arg-type]
