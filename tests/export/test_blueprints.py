"""The plans that ship as data: what PyTorch traces, for any sizes."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_llm import extras
from edge_llm.errors import ExportError, MissingDependencyError
from edge_llm.export.backends.registry import get_backend
from edge_llm.export.lowering.blueprints import blueprints_of, needed
from edge_llm.export.lowering.trace import traced_plan
from edge_llm.llm.blueprints import shipped
from edge_llm.llm.blueprints.blueprint import draw
from edge_llm.llm.blueprints.quantities import structure
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.llm.registry import FAMILIES, read_config, require_module
from edge_llm.program.plan import Plan

OPERATORS = get_backend("native").operators


def traced(config: DecoderConfig, context: int) -> Plan:
    return traced_plan(config, context, OPERATORS)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_ships_is_what_is_drawn_now(family: str) -> None:
    text = shipped.to_text(family, blueprints_of(family))
    assert shipped.file_of(family).read_text(encoding="utf-8") == text, "run: make plans"


@st.composite
def configs(draw: st.DrawFn) -> tuple[dict[str, object], int]:
    kv_heads, groups, half = draw(st.tuples(*[st.integers(1, 3)] * 3))
    heads = kv_heads * groups
    layers = draw(st.integers(1, 6))
    values: dict[str, object] = {
        "model_type": draw(st.sampled_from(sorted(FAMILIES))),
        "vocab_size": draw(st.integers(8, 50)),
        "hidden_size": draw(st.integers(1, 6)) * heads * 2,
        "intermediate_size": draw(st.integers(2, 40)),  # two thirds of 1 are none
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 8 * half,
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-5])),
        "max_position_embeddings": draw(st.integers(1, 40)),
        "tie_word_embeddings": draw(st.booleans()),
    }
    family = str(values["model_type"])
    values |= needed(family, values)
    if family.startswith("granite"):
        names = ("embedding", "attention", "residual")
        multipliers = st.sampled_from([1, 0.25, 12.0])
        values |= {f"{name}_multiplier": draw(multipliers) for name in names}
        values["logits_scaling"] = draw(st.sampled_from([1.0, 8.0, 7]))
        values["shared_intermediate_size"] = draw(st.integers(2, 40))
    if family == "granitemoehybrid":
        values |= {"mamba_n_heads": heads, "mamba_d_state": draw(st.integers(1, 9))}
        values["position_embedding_type"] = draw(st.sampled_from([None, "rope"]))
        values["layer_types"] = draw(
            st.lists(st.sampled_from(["mamba", "attention"]), min_size=layers, max_size=layers)
        )
        if draw(st.booleans()):
            values["num_local_experts"] = 0
    if family in ("llama", "olmo2", "qwen3", "smollm3", "granite"):
        values["attention_bias"] = draw(st.booleans())
    if family == "quantized_llama":
        values["intermediate_size"] = draw(st.sampled_from([64, 128, 448]))
        values["hadamard"] = draw(st.booleans())
        values["adapter_scale"] = draw(st.sampled_from([None, 2.0]))
    if family == "phi3":
        values["partial_rotary_factor"] = draw(st.sampled_from([0.5, 1.0]))
    if family in ("mistral", "phi3"):
        values["sliding_window"] = draw(st.sampled_from([None, 3]))
    if family == "smollm3":
        values["no_rope_layers"] = draw(
            st.lists(st.integers(0, 1), min_size=layers, max_size=layers)
        )
    return values, draw(st.integers(1, 40))


@given(configs())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_blueprint_gives_the_plan_that_tracing_gives(case: tuple[dict[str, object], int]) -> None:
    values, context = case
    config, _ = read_config(values, "config")
    blueprint = shipped.blueprint_of(config)
    assert blueprint is not None
    assert blueprint.plan(config, context) == traced(config, context)


def qwen3(**changed: object) -> DecoderConfig:
    values = {
        "model_type": "qwen3",
        "vocab_size": 101,
        "hidden_size": 48,
        "intermediate_size": 75,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "max_position_embeddings": 37,
    }
    return read_config(values | changed, "config")[0]


def test_an_edited_module_is_traced_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shipped.blueprint_of(qwen3()) is not None
    shipped._read.cache_clear()
    monkeypatch.setattr(shipped, "digest", lambda family: "another")
    try:
        assert shipped.blueprint_of(qwen3()) is None
    finally:
        shipped._read.cache_clear()


@pytest.mark.parametrize("stale", [True, False])
def test_an_edited_module_is_named_where_it_cannot_be_traced(
    stale: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if stale:
        monkeypatch.setattr(shipped, "digest", lambda family: "another")
    monkeypatch.setattr(extras, "_missing", lambda name: ["torch"])
    with pytest.raises(
        MissingDependencyError, match=r"tracing a qwen3 model .* needs torch"
    ) as got:
        require_module(qwen3())
    assert ("`make plans` draws it again" in str(got.value)) is stale


def test_a_number_that_no_size_explains_is_refused() -> None:
    config = qwen3()
    plan = traced(qwen3(intermediate_size=76), 37)
    with pytest.raises(ExportError, match="76 in layer 0 follows from no size"):
        draw(config, 37, plan, {})


def test_layers_of_one_kind_that_differ_are_refused() -> None:
    plan = traced(qwen3(sliding_window=5, use_sliding_window=True, max_window_layers=1), 37)
    kept = draw(qwen3(), 37, plan, {})  # windows are the layers' own
    assert kept == draw(qwen3(), 37, traced(qwen3(), 37), {})
    method = plan.language_model
    step = method.instructions[-5]
    object.__setattr__(step, "attributes", {**step.attributes, "extra": 0.5})
    with pytest.raises(ExportError, match="layer 2 is unlike the other layers"):
        draw(qwen3(), 37, plan, {})


def test_a_structure_that_was_not_drawn_has_no_blueprint(monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads(shipped.file_of("qwen3").read_text(encoding="utf-8"))
    assert structure(qwen3(tie_word_embeddings=True)) in document
    monkeypatch.setattr(shipped, "structure", lambda config: "of tomorrow")
    assert shipped.blueprint_of(qwen3()) is None
