"""A plan from a model's sizes alone: enough of one for `program.cost`, with no weights, no graph
and no PyTorch. It holds the matrices, the states and the parameter count; a test compares its
costs with those of exported programs of every family.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

from edge_llm.errors import ExportError, SourceError
from edge_llm.program.cost import stored_bytes
from edge_llm.program.formats import RAW_F32, WeightFormat
from edge_llm.program.plan import (
    INPUTS,
    ROWS,
    TOKENS,
    Instruction,
    Plan,
    Rows,
    State,
    Weight,
    matrix,
)

# Of the files that exports make: room that headers keep, bytes of it for each layer, and bytes of
# tokenizer for each token.
_HEADER, _HEADER_LAYER, _TOKENIZER_TOKEN = 131_072, 12_750, 66


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a decoder of gated MLPs; of layers with ``experts`` (0: a layer has one MLP; empty:
    they all do) each token goes through ``chosen`` of them, of the width ``expert_ffn``, with
    biases if ``expert_bias``.
    ``parameters`` counts a tied table once, ``windows`` are
    tokens that each layer sees (0: all; empty: all in every layer), ``taps`` the rows that each
    layer's convolution sees (0: it attends; empty: they all do), ``delta`` the sizes of the fold
    behind it where there is one (ops.STATE_SIZES), ``gated`` says that queries come with a gate,
    ``fused_qkv`` that the checkpoint has q, k and v in one matrix."""

    vocab: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    rotary_dim: int
    tied: bool
    parameters: int
    windows: tuple[int, ...] = ()
    taps: tuple[int, ...] = ()
    experts: tuple[int, ...] = ()
    expert_ffn: int = 0
    expert_bias: bool = False
    chosen: int = 0
    delta: tuple[int, int, int, int] | None = None
    gated: bool = False
    fused_qkv: bool = False


def shape_of_published(config: Mapping[str, Any], parameters: int) -> Shape:
    """Return the sizes in a published config.json (the catalogue's ``config``). A
    ``sliding_window`` is that of every layer; where ``full_attn_idxs`` or
    ``full_attention_interval`` says which layers attend, the others convolve.

    Raises:
        SourceError: a key is missing.
    """
    try:
        dim, heads = config["hidden_size"], config["num_attention_heads"]
        layers = config["num_hidden_layers"]
        head_dim = config.get("head_dim", dim // heads)
        window = config.get("sliding_window")
        attending = config.get("full_attn_idxs", range(layers))
        taps = tuple(0 if layer in attending else config["conv_L_cache"] for layer in range(layers))
        delta = None
        if interval := config.get("full_attention_interval"):
            taps = tuple(
                config["linear_conv_kernel_dim"] if (layer + 1) % interval else 0
                for layer in range(layers)
            )
            delta = (
                config["linear_num_key_heads"],
                config["linear_num_value_heads"],
                config["linear_key_head_dim"],
                config["linear_value_head_dim"],
            )
        return Shape(
            vocab=config["vocab_size"],
            dim=dim,
            layers=layers,
            heads=heads,
            kv_heads=config["num_key_value_heads"],
            head_dim=head_dim,
            ffn=config["intermediate_size"],
            rotary_dim=int(head_dim * config.get("partial_rotary_factor", 1.0)),
            tied=config["tie_word_embeddings"],
            parameters=parameters,
            windows=() if window is None else (window,) * layers,
            taps=taps,
            delta=delta,
            gated=config.get("attn_output_gate", False),
            fused_qkv=config.get("fused_qkv", False),
        )
    except KeyError as exc:
        raise SourceError(f"the catalogue's config lacks {exc}") from exc


Kind = Literal["linear", "embedding", "head", "router"]
Formats = Callable[[str, Kind], WeightFormat]  # (parameter name, its kind) -> its format


def sketch(shape: Shape, formats: Formats, *, context: int) -> Plan:
    """The plan of ``shape``, of which `program.cost` gives the same figures as of the exported one.

    Raises:
        ExportError: a matrix that no int4 group divides.
    """
    values = [*INPUTS]
    weights: list[Weight] = []
    instructions: list[Instruction] = []
    matrices = 0

    def emit(op: str, number: int, width: int, rows: Rows, state: int = -1, **facts: int) -> None:
        values.append(matrix(rows, width))
        used = () if state >= 0 else tuple(range(number, len(weights)))  # those made last
        outputs = (len(values) - 1,)
        instructions.append(Instruction(op, (TOKENS,), outputs, used, state, dict(facts)))

    def biases(name: str, *dims: int) -> None:
        nonlocal matrices
        matrices += prod(dims)
        weights.append(Weight(name, name, RAW_F32, dims))

    def weight(name: str, kind: Kind, *dims: int) -> int:
        nonlocal matrices
        wanted = formats(name, kind)
        fitted = wanted.fitting(dims[-1])
        if fitted is None:
            raise ExportError(
                f"{name} has {dims[-1]} columns, which no group of {wanted.name} divides"
            )
        matrices += prod(dims)
        weights.append(Weight(name, name, fitted, dims))
        return len(weights) - 1

    table = weight("model.embed_tokens.weight", "embedding", shape.vocab, shape.dim)
    emit("embedding", table, shape.dim, "T")
    q_size, kv_size = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    reading = (
        [("self_attn.qkv_proj", q_size + 2 * kv_size, shape.dim)]
        if shape.fused_qkv
        else [
            ("self_attn.q_proj", q_size * (1 + shape.gated), shape.dim),
            ("self_attn.k_proj", kv_size, shape.dim),
            ("self_attn.v_proj", kv_size, shape.dim),
        ]
    )
    attending = (*reading, ("self_attn.o_proj", shape.dim, q_size))
    convolving: tuple[tuple[str, int, int], ...] = (
        ("conv.in_proj", 3 * shape.dim, shape.dim),
        ("conv.out_proj", shape.dim, shape.dim),
    )
    dense = (
        ("mlp.gate_proj", shape.ffn, shape.dim),
        ("mlp.up_proj", shape.ffn, shape.dim),
        ("mlp.down_proj", shape.dim, shape.ffn),
    )
    ffn = shape.expert_ffn
    convolved = shape.dim
    if shape.delta is not None:
        key_heads, heads, k_dim, v_dim = shape.delta
        convolved = 2 * key_heads * k_dim + heads * v_dim
        convolving = (
            ("linear_attn.in_proj_qkv", convolved, shape.dim),
            ("linear_attn.in_proj_z", heads * v_dim, shape.dim),
            ("linear_attn.in_proj_a", heads, shape.dim),
            ("linear_attn.in_proj_b", heads, shape.dim),
            ("linear_attn.out_proj", shape.dim, heads * v_dim),
        )
    states: list[State] = []
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        taps = shape.taps[layer] if shape.taps else 0
        count = shape.experts[layer] if shape.experts else 0
        for name, n, k in (*(convolving if taps else attending), *(() if count else dense)):
            emit("linear", weight(f"{prefix}{name}.weight", "linear", n, k), n, "T")
        if count:
            emit(
                "linear", weight(f"{prefix}mlp.gate.weight", "router", count, shape.dim), count, "T"
            )
            first = weight(f"{prefix}mlp.experts.gate_proj", "linear", count, ffn, shape.dim)
            weight(f"{prefix}mlp.experts.up_proj", "linear", count, ffn, shape.dim)
            weight(f"{prefix}mlp.experts.down_proj", "linear", count, shape.dim, ffn)
            for name, n in (("gate", ffn), ("up", ffn), ("down", shape.dim)):
                if shape.expert_bias:
                    biases(f"{prefix}mlp.experts.{name}_proj_bias", count, n)
            emit("experts", first, shape.dim, "T", experts=count, chosen=shape.chosen)
        if taps:
            emit("causal_conv", -1, convolved, "T", state=len(states), taps=taps)
            states.append(State.rows(f"layers.{layer}", convolved, taps))
            if shape.delta is not None:
                emit("gated_delta", -1, heads * v_dim, "T", state=len(states))
                states.append(State.fold(f"layers.{layer}.delta", *shape.delta))
            continue
        window = shape.windows[layer] if shape.windows else 0
        emit(
            "attention",
            -1,
            q_size,
            "T",
            state=len(states),
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
        )
        states.append(
            State.kv(f"layers.{layer}", shape.kv_heads, shape.head_dim, shape.head_dim, window)
        )
    head = weight("lm_head.weight", "head", shape.vocab, shape.dim)
    emit("linear", head, shape.vocab, "R")
    if shape.tied:
        matrices -= shape.vocab * shape.dim
        if weights[head].format == weights[table].format:
            weights[head] = replace(weights[head], tensor=weights[table].tensor)
    # Norms and biases: whatever the parameters are beyond the matrices.
    weights.append(Weight("vectors", "vectors", RAW_F32, (shape.parameters - matrices,)))
    emit("rms_norm", len(weights) - 1, shape.dim, "T")
    for name in ("cos", "sin"):
        weights.append(Weight(name, name, RAW_F32, (context, shape.rotary_dim // 2)))
    return Plan.causal_lm(
        context=context,
        vocab=shape.vocab,
        values=tuple(values),
        weights=tuple(weights),
        states=tuple(states),
        instructions=tuple(instructions),
        output=ROWS,
    )


def file_bytes(plan: Plan) -> int:
    """Return about the size of the program file: its weights to the byte, header and tokenizer as
    they usually are."""
    layers = sum(state.kind != "fold" for state in plan.states)  # which have another one
    return stored_bytes(plan) + _HEADER + layers * _HEADER_LAYER + plan.vocab * _TOKENIZER_TOKEN
