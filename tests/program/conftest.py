"""A program that uses every operator once or more, small enough to write in a millisecond."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_llm.program.container import TensorSpec
from edge_llm.program.documents import (
    Documents,
    GenerationDefaults,
    ModelFacts,
    TokenizerFacts,
)
from edge_llm.program.formats import WEIGHT_FORMATS
from edge_llm.program.pack import packed_bytes
from edge_llm.program.plan import INPUTS, Instruction, Plan, State, Value, Weight, matrix
from edge_llm.program.writer import ProgramWriter

VOCAB, DIM, CONTEXT, HEADS, HEAD_DIM, FFN = 96, 64, 128, 4, 16, 64


class PlanBuilder:
    def __init__(self) -> None:
        self.values = [*INPUTS]
        self.weights: list[Weight] = []
        self.instructions: list[Instruction] = []

    def weight(self, name: str, fmt: str, *shape: int, tensor: str | None = None) -> int:
        self.weights.append(Weight(name, tensor or name, WEIGHT_FORMATS[fmt], shape))
        return len(self.weights) - 1

    def op(
        self,
        op: str,
        inputs: tuple[int, ...],
        *outputs: Value,
        weights: tuple[int, ...] = (),
        state: int = -1,
        **attributes: int | float,
    ) -> int:
        first = len(self.values)
        self.values += outputs
        numbers = tuple(range(first, first + len(outputs)))
        self.instructions.append(Instruction(op, inputs, numbers, weights, state, attributes))
        return first


def make_plan() -> Plan:
    b = PlanBuilder()
    hidden = matrix("T", DIM)
    table = b.weight("embed", "i8", VOCAB, DIM, tensor="head")
    x = b.op("embedding", (0,), hidden, weights=(table,))
    norm = b.weight("norm", "raw_f32", DIM)
    h = b.op("rms_norm", (x,), hidden, weights=(norm,), size=DIM, eps=1e-5)
    width = (HEADS + 2 * 2) * HEAD_DIM
    qkv_weight = b.weight("qkv", "i4g32", width, DIM)
    qkv_bias = b.weight("qkv.bias", "raw_f32", width)
    qkv = b.op("linear", (h,), matrix("T", width), weights=(qkv_weight, qkv_bias))
    kv = matrix("T", 2 * HEAD_DIM)
    q = b.op("split", (qkv,), hidden, kv, kv)
    cos = b.weight("cos", "raw_f32", CONTEXT, HEAD_DIM // 2)
    sin = b.weight("sin", "raw_f32", CONTEXT, HEAD_DIM // 2)
    rope = {"weights": (cos, sin), "head_dim": HEAD_DIM}
    qr = b.op("rope", (q, 1), hidden, heads=HEADS, **rope)  # type: ignore[arg-type]
    kr = b.op("rope", (q + 1, 1), kv, heads=2, **rope)  # type: ignore[arg-type]
    a = b.op(
        "attention",
        (qr, kr, q + 2, 1, 2),
        hidden,
        state=0,
        heads=HEADS,
        kv_heads=2,
        head_dim=HEAD_DIM,
        scale=0.25,
        softcap=0.0,
        bidirectional=0,
    )
    x = b.op("add", (x, a), hidden)
    up = b.op("linear", (x,), matrix("T", FFN), weights=(b.weight("up", "f16", FFN, DIM), -1))
    gated = b.op(
        "mul",
        (b.op("silu", (up,), matrix("T", FFN)), b.op("gelu", (up,), matrix("T", FFN))),
        matrix("T", FFN),
    )
    x = b.op("scale", (gated,), hidden, factor=0.5)
    r = b.op("select_rows", (x, 3), matrix("R", DIM))
    head = b.weight("head", "i8", VOCAB, DIM)
    logits = b.op("linear", (r,), matrix("R", VOCAB), weights=(head, -1))
    output = b.op("softcap", (logits,), matrix("R", VOCAB), cap=30.0)
    return Plan.causal_lm(
        context=CONTEXT,
        vocab=VOCAB,
        values=tuple(b.values),
        weights=tuple(b.weights),
        states=(State.kv("kv", 2, HEAD_DIM, HEAD_DIM),),
        instructions=tuple(b.instructions),
        output=output,
    )


def make_documents(**changes: Any) -> Documents:
    model = ModelFacts("tiny-β", "test", 12345, 1, DIM, VOCAB, CONTEXT, 4 * CONTEXT)
    values: dict[str, Any] = {
        "model": model,
        "tokenizer": TokenizerFacts(VOCAB - 6, 1, 2, True),
        "generation": GenerationDefaults((2, 3), temperature=0.7, top_k=20, top_p=0.9),
        "chat_template": "{{ 'ünï' }}\n{% for m in messages %}\\ud800{% endfor %}",
        "recipe": {"quant": "8da4w", "nested": {"list": [1, 2.5, None, True, "x"]}},
        "report": {"rows": []},
        "provenance": {"made_by": "test"},
    }
    return Documents(**(values | changes))


def make_tensors(plan: Plan) -> dict[TensorSpec, np.ndarray[Any, Any]]:
    random = np.random.default_rng(0)
    tensors: dict[TensorSpec, np.ndarray[Any, Any]] = {}
    for weight in plan.weights:
        if weight.format.is_panel:
            size = packed_bytes(weight.format, *weight.shape)
            tensors[TensorSpec(weight.tensor, "U8", (size,))] = random.integers(
                0, 255, size, np.uint8
            )
        else:
            tensors[TensorSpec(weight.tensor, "F32", weight.shape)] = random.standard_normal(
                weight.shape, np.float32
            )
    tokenizer = np.frombuffer(b'{"version":"1.0"}', np.uint8)
    tensors[TensorSpec("tokenizer.json", "U8", (tokenizer.size,))] = tokenizer
    ids = random.integers(0, VOCAB, (2, 5), np.int32)
    for name in ("golden.tokens", "golden.next", "golden.top_ids"):
        tensors[TensorSpec(name, "I32", (2, 5))] = ids
    tensors[TensorSpec("golden.top_logits", "F32", (2, 5))] = ids.astype(np.float32)
    return tensors


@dataclass(frozen=True)
class Parts:
    """Everything a program file is made of."""

    plan: Plan
    documents: Documents
    tensors: dict[TensorSpec, np.ndarray[Any, Any]]

    def write(self, path: Path) -> Path:
        with ProgramWriter(path, self.plan, self.documents, list(self.tensors)) as writer:
            for spec, data in self.tensors.items():
                writer.write(spec.name, data)
            return writer.finish(self.documents)


@pytest.fixture
def parts() -> Parts:
    plan = make_plan()
    return Parts(plan, make_documents(), make_tensors(plan))


@pytest.fixture
def program_path(parts: Parts, tmp_path: Path) -> Path:
    return parts.write(tmp_path / "tiny.edge")
