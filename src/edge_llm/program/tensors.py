"""The tensors of a program file beside its weights, and the checks that each one is there as plan
and reader expect it: the tokenizer, the tables that stand for it, and the golden record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edge_llm.abi import BPE_PROBES
from edge_llm.errors import ProgramError
from edge_llm.program.container import TensorSpec
from edge_llm.program.cost import tensor_bytes
from edge_llm.program.plan import Plan

TOKENIZER = "tokenizer.json"
FACTORS = "factors."  # before the names of `factor_name`
MAX_TOKENIZER = 128 * 1024 * 1024  # bytes

# What lets a tokenizer load without its JSON: dtype and dimensions by name. All or none are there,
# but for the last.
TOKENIZER_TABLES: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        "tokenizer.skeleton": ("U8", 1),
        "tokenizer.units": ("I32", 1),
        "tokenizer.offsets": ("I32", 1),
        "tokenizer.texts": ("U8", 1),
        "tokenizer.merges": ("I32", 2),
        "tokenizer.words": ("I32", 1),
    }
)
_OPTIONAL_TABLES = {"tokenizer.words"}


@dataclass(frozen=True, slots=True)
class Golden:
    """The program's answers when it was exported. P prompts; -1 pads short rows at the end.

    ``tokens`` [P, n] int32: prompts. ``next`` [P, m] int32: their greedy continuations.
    ``top_ids`` [P, k] int32 and ``top_logits`` [P, k] float32: the likeliest ids at the last
    position of each prompt, best first. ``drafts`` [P, d] int32: what the draft method predicts
    behind each prompt and the first token of its continuation; None where there is no such method.
    """

    tokens: NDArray[np.int32]
    next: NDArray[np.int32]
    top_ids: NDArray[np.int32]
    top_logits: NDArray[np.float32]
    drafts: NDArray[np.int32] | None = None


GOLDEN: Mapping[str, str] = MappingProxyType(
    {
        "golden.tokens": "I32",
        "golden.next": "I32",
        "golden.top_ids": "I32",
        "golden.top_logits": "F32",
        "golden.drafts": "I32",
    }
)
_OPTIONAL_GOLDEN = {"golden.drafts"}


def factor_name(tensor: str, of: str) -> str:
    """Return the name of the float16 vector that the "rows", or "columns", of a linear's weight
    were multiplied with before it was rounded."""
    return f"{FACTORS}{of}.{tensor}"


def check_tensors(plan: Plan, tensors: Mapping[str, TensorSpec]) -> None:
    """Check that the stored tensors are the ones that plan and reader expect.

    Raises:
        ProgramError: a tensor is missing, or has another dtype or size.
    """
    for weight in plan.weights:
        panels = weight.format.is_panel
        size = (tensor_bytes(weight),) if panels else weight.shape
        _expect(tensors, TensorSpec(weight.tensor, "U8" if panels else "F32", size))
        if len(weight.shape) == 2:
            rows, columns = (factor_name(weight.tensor, of) for of in ("rows", "columns"))
            for name, count in zip((rows, columns), weight.shape, strict=True):
                if name in tensors:
                    _expect(tensors, TensorSpec(name, "U8", (2 * count,)))
    tokenizer = tensors.get(TOKENIZER)
    if tokenizer is None or tokenizer.dtype != "U8" or len(tokenizer.shape) != 1:
        raise ProgramError(f"tensor {TOKENIZER!r}: expected U8 bytes")
    if tokenizer.nbytes > MAX_TOKENIZER:
        raise ProgramError(f"tensor {TOKENIZER!r}: {tokenizer.nbytes} bytes are too many")
    _check_tables(tensors)
    present = [tensors[name] for name in GOLDEN if name in tensors]
    if present and GOLDEN.keys() - tensors.keys() - _OPTIONAL_GOLDEN:
        raise ProgramError("the golden record is incomplete")
    if "golden.drafts" in tensors and plan.draft is None:
        raise ProgramError("golden.drafts: the program has no draft method")
    for spec in present:
        if spec.dtype != GOLDEN[spec.name] or len(spec.shape) != 2:
            raise ProgramError(
                f"tensor {spec.name!r}: expected {GOLDEN[spec.name]}, two dimensions"
            )
        if spec.shape[0] != present[0].shape[0]:
            raise ProgramError(f"tensor {spec.name!r}: another number of prompts")
    if present and present[2].shape != present[3].shape:
        raise ProgramError("golden.top_ids and golden.top_logits differ in shape")


def _check_tables(tensors: Mapping[str, TensorSpec]) -> None:
    present = TOKENIZER_TABLES.keys() & tensors.keys()
    if present and (missing := TOKENIZER_TABLES.keys() - _OPTIONAL_TABLES - present):
        raise ProgramError(f"tensor {min(missing)!r} is missing beside {min(present)!r}")
    for name in sorted(present):
        spec, (dtype, dimensions) = tensors[name], TOKENIZER_TABLES[name]
        if spec.dtype != dtype or len(spec.shape) != dimensions:
            raise ProgramError(
                f"tensor {name!r} is {spec.dtype}{list(spec.shape)}, "
                f"expected {dtype}, dimensions: {dimensions}"
            )
        if spec.nbytes > MAX_TOKENIZER:
            raise ProgramError(f"tensor {name!r}: {spec.nbytes} bytes are too many")
    for name, columns in (("tokenizer.merges", 4), ("tokenizer.words", 1)):
        shape = tensors[name].shape if name in present else (BPE_PROBES + 1, columns)
        if shape[0] <= BPE_PROBES or shape[1:] not in ((), (columns,)):
            raise ProgramError(
                f"tensor {name!r} has shape {list(shape)}, "
                f"expected more than {BPE_PROBES} rows of {columns}"
            )


def _expect(tensors: Mapping[str, TensorSpec], expected: TensorSpec) -> None:
    got = tensors.get(expected.name)
    if got is None:
        raise ProgramError(f"tensor {expected.name!r} is missing")
    if got != expected:
        raise ProgramError(
            f"tensor {expected.name!r} is {got.dtype}{list(got.shape)}, "
            f"expected {expected.dtype}{list(expected.shape)}"
        )


def check_golden(golden: Golden, vocab: int) -> None:
    """Check the numbers of the golden record.

    Raises:
        ProgramError: an id outside the vocabulary, or a logit that is not finite.
    """
    for name, ids in (
        ("tokens", golden.tokens),
        ("next", golden.next),
        ("top_ids", golden.top_ids),
        ("drafts", golden.drafts),
    ):
        if ids is not None and (ids.min() < -1 or ids.max() >= vocab):
            raise ProgramError(f"golden.{name}: an id outside the vocabulary of {vocab}")
    if not np.isfinite(golden.top_logits).all():
        raise ProgramError("golden.top_logits: not finite")
