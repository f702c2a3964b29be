"""Random weights of every format, packed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_llm.program.formats import LEVELS, SUPER, WEIGHT_FORMATS, WeightFormat
from edge_llm.program.integers import CODE_RANGES, Integers
from edge_llm.program.pack import pack_float, pack_integers


def random_integers(
    form: WeightFormat,
    n: int,
    k: int,
    rng: np.random.Generator,
    *,
    scale: float = 0.1,
    which: str | None = None,
) -> Integers:
    """Return a matrix [n, k] whose scales are up to ``scale``; all of its codes, byte scales and
    byte minima at their "lowest" or "highest" value if ``which`` says so."""
    dtype, low, high = CODE_RANGES[form.code]

    def numbers(low: int, high: int, shape: tuple[int, int], dtype: Any) -> NDArray[Any]:
        if which is not None:
            return np.full(shape, {"lowest": low, "highest": high}[which], dtype)
        return rng.integers(low, high + 1, shape).astype(dtype)

    def halves(columns: int) -> NDArray[np.float16]:
        return rng.uniform(-scale, scale, (n, columns)).astype(np.float16)

    codes = numbers(low, high, (n, k), dtype)
    if form.code in LEVELS and which is None:
        codes = np.array(LEVELS[form.code], np.int8)[rng.integers(0, 16, (n, k))]
    groups = k // (form.group or k)
    if form.scale == "e8m0":
        return Integers(form, codes, rng.integers(116, 126, (n, groups)).astype(np.uint8))
    if form.scale == "s8":
        return Integers(
            form, codes, numbers(-128, 127, (n, groups), np.int8), factor=halves(k // SUPER)
        )
    if form.scale == "f32":
        return Integers(form, codes, rng.uniform(scale / 10, scale, (n, 1)).astype(np.float32))
    if form.scale == "q8":
        small = (numbers(0, 255, (n, groups), np.uint8) for _ in range(2))
        return Integers(form, codes, *small, halves(k // SUPER), halves(k // SUPER))
    if form.minimum == "f16":
        return Integers(form, codes, halves(groups), halves(groups))
    zeros = numbers(0, 16, (n, groups), np.uint8) if form.minimum == "zero" else None
    return Integers(form, codes, halves(groups), zeros)


def random_packed(
    name: str, n: int, k: int, rng: np.random.Generator, **options: Any
) -> NDArray[np.uint8]:
    """Return a weight [n, k] in the format of this name: `random_integers`, or normal floats."""
    form = WEIGHT_FORMATS[name]
    if form.is_float:
        return pack_float(rng.standard_normal((n, k)).astype(np.float32), form)
    return pack_integers(random_integers(form, n, k, rng, **options))
