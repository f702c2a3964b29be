"""The plan of a toy Llama, line by line, and graphs that a plan cannot express."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from edge_llm.errors import ExportError, UnsupportedOperatorError
from edge_llm.export.lowering.lowered import Lowered
from edge_llm.export.lowering.trace import trace
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.program.check import check_plan
from edge_llm.program.plan import Plan, State

Lower = Callable[..., Lowered]

LLAMA = """
%4[T,64] = embedding(%0; model.embed_tokens.weight:i6g32[80,64])
%5[T,64] = rms_norm(%4; model.layers.0.input_layernorm.weight:raw_f32[64]) eps=1e-05 size=64
%6[T,64] = linear(%5; model.layers.0.self_attn.q_proj.weight:i4g32[64,64], -)
%7[T,32] = linear(%5; model.layers.0.self_attn.k_proj.weight:i4g32[32,64], -)
%8[T,32] = linear(%5; model.layers.0.self_attn.v_proj.weight:i8[32,64], -)
%9[T,64] = rope(%6 %1; cos:raw_f32[48,8], sin:raw_f32[48,8]) head_dim=16 heads=4
%10[T,32] = rope(%7 %1; cos:raw_f32[48,8], sin:raw_f32[48,8]) head_dim=16 heads=2
%11[T,64] = attention(%9 %10 %8 %1 %2; ) state=0 \
bidirectional=0 head_dim=16 heads=4 kv_heads=2 scale=0.25 softcap=0.0
%12[T,64] = linear(%11; model.layers.0.self_attn.o_proj.weight:i4g32[64,64], -)
%13[T,64] = add(%4 %12; )
%14[T,64] = rms_norm(%13; model.layers.0.post_attention_layernorm.weight:raw_f32[64]) \
eps=1e-05 size=64
%15[T,96] = linear(%14; model.layers.0.mlp.gate_proj.weight:i4g32[96,64], -)
%16[T,96] = silu(%15; )
%17[T,96] = linear(%14; model.layers.0.mlp.up_proj.weight:i4g32[96,64], -)
%18[T,96] = mul(%16 %17; )
%19[T,64] = linear(%18; model.layers.0.mlp.down_proj.weight:i4g32[64,96], -)
%20[T,64] = add(%13 %19; )
%21[R,64] = select_rows(%20 %3; )
%22[R,64] = rms_norm(%21; model.norm.weight:raw_f32[64]) eps=1e-05 size=64
%23[R,80] = linear(%22; lm_head.weight:i6g32[80,64], -)
"""


def describe(plan: Plan) -> str:
    lines = []
    for instruction in plan.instructions:
        outputs = ", ".join(
            f"%{number}[{plan.values[number].rows},{plan.values[number].width}]"
            for number in instruction.outputs
        )
        inputs = " ".join(f"%{number}" for number in instruction.inputs)
        weights = ", ".join(
            "-" if index < 0 else _weight(plan, index) for index in instruction.weights
        )
        attributes = [f"{name}={value}" for name, value in sorted(instruction.attributes.items())]
        state = [f"state={instruction.state}"] if instruction.state >= 0 else []
        lines.append(
            " ".join([f"{outputs} = {instruction.op}({inputs}; {weights})", *state, *attributes])
        )
    return "\n".join(lines)


def _weight(plan: Plan, index: int) -> str:
    weight = plan.weights[index]
    return f"{weight.name}:{weight.format.name}[{','.join(map(str, weight.shape))}]"


def test_the_plan_of_a_llama(toy_config: Callable[..., DecoderConfig], lowered_toy: Lower) -> None:
    plan = lowered_toy(toy_config(), Recipe()).plan
    check_plan(plan)
    assert describe(plan) == LLAMA.replace("\\\n", "").strip()
    assert plan.states == (State.kv("model.layers.0.self_attn.attend", 2, 16, 16),)
    assert (plan.context, plan.vocab, plan.output) == (48, 80, 23)


def test_every_instruction_knows_its_source(
    toy_config: Callable[..., DecoderConfig], lowered_toy: Lower
) -> None:
    plan = lowered_toy(toy_config(), Recipe(scheme="fp32")).plan
    for instruction in plan.instructions:
        assert "llm/models/layers.py:" in instruction.source
        assert "site-packages" not in instruction.source
    sources = {i.op: i.source for i in plan.instructions}
    assert sources["silu"].startswith("model.layers.0.mlp (")


def test_all_schemes_give_the_same_instructions(
    toy_config: Callable[..., DecoderConfig], lowered_toy: Lower
) -> None:
    config = toy_config("qwen2", num_hidden_layers=2)
    reference = lowered_toy(config, Recipe(scheme="fp32")).plan
    for scheme in ("8da4w", "8da8w", "fp16", "bf16"):
        plan = lowered_toy(config, Recipe(scheme=scheme)).plan
        assert plan.instructions == reference.instructions
        assert plan.values == reference.values


def test_norms_of_heads_run_over_the_head(
    toy_config: Callable[..., DecoderConfig], lowered_toy: Lower
) -> None:
    plan = lowered_toy(toy_config("qwen3", head_dim=32), Recipe(scheme="fp32")).plan
    sizes = [i.attributes["size"] for i in plan.instructions if i.op == "rms_norm"]
    assert sizes == [64, 32, 32, 64, 64]


class Toy(nn.Module):
    """The graph contract around one function of the hidden state [T, 8]."""

    def __init__(self, middle: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        with torch.device("meta"):
            self.embed = nn.Embedding(16, 8)
            self.lm_head = nn.Linear(8, 16, bias=False)
        self.middle = middle

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        rows: torch.Tensor,
    ) -> Any:
        return self.lm_head(self.middle(self.embed(tokens))[rows])


class Halves(nn.Module):
    """A fused projection whose halves are multiplied."""

    def __init__(self) -> None:
        super().__init__()
        with torch.device("meta"):
            self.fused = nn.Linear(8, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.fused(x).split([8, 8], dim=-1)
        return left * right


@pytest.mark.parametrize(
    ("middle", "ops"),
    [
        (lambda x: x * 0.5, ["scale"]),
        (lambda x: functional.gelu(x, approximate="tanh"), ["gelu"]),
        (lambda x: x.view(-1, 2, 4).reshape(-1, 8).flatten(1), []),
        (Halves(), ["linear", "split", "mul"]),
    ],
    ids=["scale", "gelu", "views vanish", "split"],
)
def test_single_operators(
    middle: Callable[[torch.Tensor], torch.Tensor], ops: list[str], lowered_toy: Lower
) -> None:
    plan = lowered_toy(Toy(middle), Recipe(scheme="fp32")).plan
    check_plan(plan)
    names = [instruction.op for instruction in plan.instructions]
    assert names == ["embedding", *ops, "select_rows", "linear"]


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        (torch.relu, r"no operator for aten\.relu\.default \(relu\), at export/test_lower\.py:\d+"),
        (functional.gelu, r"aten\.gelu.* is supported only with the tanh approximation"),
        (lambda x: x + x[:, :1], "no operator for aten.slice"),
        (lambda x: torch.add(x, x, alpha=2), "only of two values of the same shape"),
        (lambda x: x + x.narrow(1, 2, 4).repeat(1, 2), "only of one of equal runs of columns"),
        (lambda x: x[:, torch.zeros(8, dtype=torch.int64, device="meta")], "no operator for aten"),
        (lambda x: x.view(-1).view(-1, 8), "only with T or R as the first dimension"),
    ],
    ids=["unknown", "exact gelu", "slice", "alpha", "narrow", "index", "rows mixed"],
)
def test_unsupported_operators_are_named(
    middle: Callable[[torch.Tensor], torch.Tensor], message: str, lowered_toy: Lower
) -> None:
    with pytest.raises(UnsupportedOperatorError, match=message) as caught:
        lowered_toy(Toy(middle), Recipe(scheme="fp32"))
    assert "aten.linear.default" in (caught.value.hint or "")
    assert "edge.attention.default" in (caught.value.hint or "")


def test_a_gate_by_sigmoid(lowered_toy: Lower) -> None:
    plan = lowered_toy(Toy(lambda x: x * torch.sigmoid(x)), Recipe(scheme="fp32")).plan
    assert [op.op for op in plan.instructions][1:3] == ["sigmoid", "mul"]


def test_an_operator_that_the_backend_lacks(lowered_toy: Lower) -> None:
    from edge_llm.export.lowering.lower import lower

    model = Toy(functional.silu)
    with pytest.raises(UnsupportedOperatorError, match=r"aten\.silu"):
        lower(
            trace(model),
            context=8,
            operators=frozenset({"embedding", "select_rows", "linear"}),
        )


def test_a_model_that_cannot_be_traced() -> None:
    with pytest.raises(ExportError, match=r"torch\.export could not trace Toy"):
        trace(Toy(lambda x: x if bool(x.sum() > 0) else -x))
