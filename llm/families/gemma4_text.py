"""Gemma 4, its text models: Gemma 3's blocks, whose layers that see all before have wider heads,
and of which the last may read the keys and values of layers before them. Smaller models give each
layer a part of a second table of embeddings, larger ones make values of the keys, and one adds
experts to its MLPs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import numpy as np
from numpy.typing import NDArray

from edge_llm.llm.config import ConfigReader, is_integer, shorten
from edge_llm.llm.decoder import FULL, SLIDING, AttentionShape, CommonKeys, read_common, read_window
from edge_llm.llm.families.family import GGUF_KEYS, GGUF_SLIDING, GGUF_WINDOW, Family, Stacked
from edge_llm.llm.families.gemma2 import ACTIVATION, DEFAULT_HEAD_DIM, GGUF_SANDWICH, read_cap
from edge_llm.llm.rope import ProportionalScaling, Rope, read_ropes
from edge_llm.program.ops import MAX_EXPERTS, MAX_HEAD_DIM

DEFAULT_THETAS = {FULL: 1_000_000.0, SLIDING: 10_000.0}
DEFAULT_PATTERN = 6
DEFAULT_WINDOW = 512
DEFAULT_GLOBAL_HEAD_DIM = 512
DEFAULT_ROTATED = 0.25  # of the heads of layers that see all before
DEFAULT_PER_LAYER = 256
DEFAULT_VOCAB = 262_144
DEFAULT_SIZES = {
    "vocab_size": DEFAULT_VOCAB,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 30,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131_072,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemma4TextConfig:
    """Facts of a Gemma4TextConfig. ``sliding`` says which layers have a window, and
    ``sliding_window`` how long it is of each, 0 for none; ``rope_local`` and ``head_dim`` are those
    of layers with a window, ``rope_parameters`` and ``global_head_dim`` those of the others.
    ``double_wide`` says which MLPs have twice the ``intermediate_size``, and ``keys_are_values``
    which layers make their values of the keys' projection; ``num_experts`` is 0 without experts."""

    model_type: ClassVar[str] = "gemma4_text"

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_parameters: Rope
    rope_local: Rope
    tie_word_embeddings: bool
    final_logit_softcapping: float | None
    sliding_window: tuple[int, ...]
    sliding: tuple[bool, ...]
    global_head_dim: int
    num_global_key_value_heads: int
    num_kv_shared_layers: int
    keys_are_values: tuple[bool, ...]
    double_wide: tuple[bool, ...]
    hidden_size_per_layer_input: int | None
    vocab_size_per_layer_input: int
    num_experts: int
    top_k_experts: int
    moe_intermediate_size: int

    @property
    def first_reader(self) -> int:
        """The first layer that reads the keys and values of another; from it on all do."""
        return self.num_hidden_layers - self.num_kv_shared_layers

    def attention(self, layer: int) -> AttentionShape:
        """Return what the attention of ``layer`` computes."""
        slides, source = self.sliding[layer], None
        if layer >= self.first_reader:
            alike = (i for i in range(self.first_reader) if self.sliding[i] == slides)
            source = max(alike)
        return AttentionShape(
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads if slides else self.num_global_key_value_heads,
            head_dim=self.head_dim if slides else self.global_head_dim,
            rope=self.rope_local if slides else self.rope_parameters,
            window=self.sliding_window[layer],
            scale=1.0,
            source=source,
        )

    def layer_kind(self, layer: int) -> str:
        """Return what a layer consists of."""
        kinds = {
            "keys are values": self.keys_are_values[layer],
            "wide": self.double_wide[layer],
            "experts": self.num_experts > 0,
        }
        said = [kind for kind, holds in kinds.items() if holds]
        return ", ".join(["reads" if layer >= self.first_reader else "writes", *said])

    def derived(self) -> Mapping[str, int | float]:
        """Return the numbers that layers compute with and that follow from several fields."""
        numbers: dict[str, int | float] = {
            "hidden_size ** -0.5": self.hidden_size**-0.5,
            "4 * intermediate_size": 4 * self.intermediate_size,
        }
        width = self.hidden_size_per_layer_input
        if width is not None:
            numbers["hidden_size_per_layer_input ** 0.5"] = width**0.5
            numbers["num_hidden_layers * hidden_size_per_layer_input"] = (
                self.num_hidden_layers * width
            )
        return numbers


def read(reader: ConfigReader) -> Gemma4TextConfig:
    """Read a Gemma4TextConfig."""
    return Gemma4TextConfig(**read_facts(reader))


def read_facts(reader: ConfigReader) -> dict[str, Any]:
    """Read the fields of a Gemma4TextConfig."""
    head_dim = reader.integer("head_dim", DEFAULT_HEAD_DIM, high=MAX_HEAD_DIM)
    global_dim, global_heads = _read_global(reader)
    ropes = _read_ropes(reader, {SLIDING: head_dim, FULL: global_dim})
    common = read_common(
        reader,
        head_dim=DEFAULT_HEAD_DIM,
        rope=ropes[FULL],
        activation=ACTIVATION,
        tied=True,
        experts=True,
    )
    reader.neutral("hidden_activation", ACTIVATION)
    if reader.get("use_bidirectional_attention") != "vision":  # that of tokens of images alone
        reader.neutral("use_bidirectional_attention", None)
    layers, heads = common["num_hidden_layers"], common["num_attention_heads"]
    reader.require(
        heads % global_heads == 0,
        f"num_global_key_value_heads: got {global_heads}, expected a divisor of "
        f"num_attention_heads {heads}",
    )
    sliding = _read_kinds(reader, layers)
    window = read_window(reader, DEFAULT_WINDOW)
    if window >= common["max_position_embeddings"]:
        window = 0  # then every layer sees all before
    shared = reader.integer("num_kv_shared_layers", 0, low=0, high=layers)
    first = layers - shared
    reader.require(
        set(sliding[first:]) <= set(sliding[:first]),
        f"num_kv_shared_layers: got {shared}, expected a layer of each kind before the last "
        f"{shared} of {layers}",
    )
    wide = reader.flag("use_double_wide_mlp", False)
    alike = reader.flag("attention_k_eq_v", False)
    return dict(
        **common,
        rope_local=ropes[SLIDING],
        final_logit_softcapping=read_cap(reader, "final_logit_softcapping", None),
        sliding_window=tuple(window if slides else 0 for slides in sliding),
        sliding=sliding,
        global_head_dim=global_dim,
        num_global_key_value_heads=global_heads,
        num_kv_shared_layers=shared,
        keys_are_values=tuple(
            alike and not slides and layer < first for layer, slides in enumerate(sliding)
        ),
        double_wide=tuple(wide and layer >= first for layer in range(layers)),
        **_read_per_layer(reader, common),
        **_read_experts(reader),
    )


def _read_global(reader: ConfigReader) -> tuple[int, int]:
    """Return width and number of the key heads of layers that see all before: as published, or as
    transformers saves them, by layer."""
    heads = reader.integer("num_attention_heads")
    kv_heads = reader.integer("num_key_value_heads", heads)
    dim = reader.integer("global_head_dim", DEFAULT_GLOBAL_HEAD_DIM, high=MAX_HEAD_DIM)
    if reader.flag("attention_k_eq_v", False):
        kv_heads = reader.integer("num_global_key_value_heads", kv_heads)
    else:
        reader.get("num_global_key_value_heads")  # without effect
    by_layer = reader.get("per_layer_config")
    if by_layer is None:
        return dim, kv_heads
    layers = reader.integer("num_hidden_layers")
    kinds = _read_kinds(reader, layers)
    full = {str(layer) for layer in range(len(kinds)) if not kinds[layer]}
    values = list(by_layer.values()) if isinstance(by_layer, Mapping) else []
    alike = all(isinstance(value, Mapping) and value == values[0] for value in values)
    if not isinstance(by_layer, Mapping) or set(by_layer) != full or not alike or not values:
        reader.problem(
            f"per_layer_config: got {shorten(by_layer)}, expected the same of each layer that is "
            "no sliding_attention, and nothing else"
        )
        return dim, kv_heads
    inner = ConfigReader(values[0], "per_layer_config")
    dim = inner.integer("head_dim", dim, high=MAX_HEAD_DIM)
    kv_heads = inner.integer("num_key_value_heads", kv_heads)
    reader.absorb(inner, "per_layer_config")
    return dim, kv_heads


def _read_kinds(reader: ConfigReader, layers: int) -> tuple[bool, ...]:
    """Return which layers have a window; the last one never has."""
    kinds = reader.get("layer_types")
    if kinds is None:
        kinds = [FULL if (i + 1) % DEFAULT_PATTERN == 0 else SLIDING for i in range(layers)]
    if (
        not isinstance(kinds, list)
        or len(kinds) != layers
        or any(k not in (FULL, SLIDING) for k in kinds)
    ):
        reader.problem(
            f"layer_types: got {shorten(kinds)}, expected {FULL!r} or {SLIDING!r} for each of "
            f"{layers} layers"
        )
        return (False,) * layers
    return (*(kind == SLIDING for kind in kinds[:-1]), False)


def _read_ropes(reader: ConfigReader, head_dims: Mapping[str, int]) -> dict[str, Rope]:
    ropes = read_ropes(reader, head_dims, DEFAULT_THETAS)
    if ropes is not None:
        return ropes
    reader.neutral("rope_parameters", None)
    rotated = int(DEFAULT_ROTATED * head_dims[FULL] / 2)
    return {
        FULL: Rope(DEFAULT_THETAS[FULL], head_dims[FULL], ProportionalScaling(rotated, 1.0)),
        SLIDING: Rope(DEFAULT_THETAS[SLIDING], head_dims[SLIDING]),
    }


class _PerLayer(TypedDict):
    hidden_size_per_layer_input: int | None
    vocab_size_per_layer_input: int


def _read_per_layer(reader: ConfigReader, common: CommonKeys) -> _PerLayer:
    """Return the facts of the second table of embeddings."""
    key = "hidden_size_per_layer_input"
    width: int | None = DEFAULT_PER_LAYER
    if not reader.absent(key):
        width = None if reader.get(key) is None else reader.integer(key, low=0) or None
    rows = reader.integer("vocab_size_per_layer_input", DEFAULT_VOCAB)
    if width is None:
        return {
            "hidden_size_per_layer_input": None,
            "vocab_size_per_layer_input": common["vocab_size"],
        }
    reader.require(
        rows >= common["vocab_size"],
        f"vocab_size_per_layer_input: got {rows}, expected at least vocab_size "
        f"{common['vocab_size']}",
    )
    return {"hidden_size_per_layer_input": width, "vocab_size_per_layer_input": rows}


class _Experts(TypedDict):
    num_experts: int
    top_k_experts: int
    moe_intermediate_size: int


def _read_experts(reader: ConfigReader) -> _Experts:
    names = ("num_experts", "top_k_experts", "moe_intermediate_size")
    if not reader.flag("enable_moe_block", False):
        for name in names:
            reader.get(name)
        return {"num_experts": 0, "top_k_experts": 0, "moe_intermediate_size": 0}
    experts = reader.integer("num_experts", high=MAX_EXPERTS)
    return {
        "num_experts": experts,
        "top_k_experts": reader.integer("top_k_experts", high=experts),
        "moe_intermediate_size": reader.integer("moe_intermediate_size"),
    }


def _unused(config: Gemma4TextConfig, name: str) -> bool:
    """Tell whether a parameter is of the keys and values of a layer that has none, as published
    checkpoints hold them."""
    found = _KEYS_AND_VALUES.fullmatch(name)
    return found is not None and config.first_reader <= int(found[1]) < config.num_hidden_layers


def _implied(values: Mapping[str, object]) -> Mapping[str, object]:
    """Return what GGUF files say of each layer, and what follows from it."""
    widths = values["intermediate_size"]
    implied: dict[str, object] = {"enable_moe_block": bool(values["num_experts"])}
    if isinstance(widths, list) and all(map(is_integer, widths)) and widths:
        implied["intermediate_size"] = min(widths)
        implied["use_double_wide_mlp"] = True  # which layers those are, the shapes tell
    return implied


def _found(
    values: Mapping[str, object], shapes: Mapping[str, tuple[int, ...]]
) -> Mapping[str, object]:
    """Return what tensors say: the rows of the second table, the heads of either kind of layer, and
    whether values are made of keys."""
    found: dict[str, object] = {}
    table = shapes.get("per_layer_token_embd.weight")
    if table:
        found["vocab_size_per_layer_input"] = table[0]
    kinds = values["layer_types"]
    if not isinstance(kinds, list):
        return found
    for kind, heads, dim in (
        (SLIDING, "num_key_value_heads", "head_dim"),
        (FULL, "num_global_key_value_heads", "global_head_dim"),
    ):
        width = values[dim]
        keys = [shapes.get(f"blk.{i}.attn_k.weight") for i, k in enumerate(kinds) if k == kind]
        stored = next((shape for shape in keys if shape), None)
        if stored and is_integer(width) and width > 0:
            found[heads] = stored[0] // width
    if SLIDING not in kinds:
        found["num_key_value_heads"] = found.get("num_global_key_value_heads")
    full = [
        i for i, kind in enumerate(kinds) if kind == FULL and f"blk.{i}.attn_k.weight" in shapes
    ]
    found["attention_k_eq_v"] = bool(full) and f"blk.{full[0]}.attn_v.weight" not in shapes
    return found


def _gguf_ropes(
    given: dict[str, object], divisors: NDArray[np.float32] | None
) -> Mapping[str, object]:
    """Return the ropes of either kind of layer. The divisors are those of the layers that see all
    before: 1 of pairs that rotate, and of others so large that they do not."""
    full: dict[str, object] = {"rope_type": "default", "rope_theta": given.pop(_THETA, None)}
    if divisors is not None:
        still = divisors >= 1e20
        full["rope_type"] = "proportional"
        pairs = int((divisors == 1.0).sum())
        if pairs and divisors[:pairs].max() == 1.0 and still[pairs:].all():
            full["partial_rotary_factor"] = pairs / len(divisors)
        else:
            full["divisors"] = divisors.tolist()  # which nothing supports
    local = {"rope_type": "default", "rope_theta": given.pop(f"{_THETA}_swa", None)}
    return {FULL: full, SLIDING: local}


_THETA = "rope.freq_base"
_KEYS_AND_VALUES = re.compile(r"model\.layers\.(\d+)\.self_attn\.(k_proj|v_proj|k_norm)\.weight")
# The other parts of the models that see and hear.
OTHER_PARTS = r"(model\.)?(vision_tower|audio_tower|embed_vision|embed_audio)\..*"

GEMMA4_TEXT = Family(
    config=Gemma4TextConfig,
    read=read,
    wrapper="gemma4",
    defaults=DEFAULT_SIZES,
    harmless=frozenset({"_sliding_window_pattern", "cache_implementation"}),
    leftovers=re.compile(OTHER_PARTS),
    unused=_unused,
    stacked={
        "experts.gate_up_proj": Stacked(("gate_proj", "up_proj")),
        "experts.down_proj": Stacked(("down_proj",)),
    },
    gguf_architecture="gemma4",
    gguf_keys=GGUF_KEYS
    | GGUF_WINDOW
    | GGUF_SLIDING
    | {
        "head_dim": "attention.key_length_swa",
        "global_head_dim": "attention.key_length",
        "num_kv_shared_layers": "attention.shared_kv_layers",
        "hidden_size_per_layer_input": "embedding_length_per_layer_input",
        "final_logit_softcapping": "final_logit_softcapping",
        "num_experts": "expert_count",
        "top_k_experts": "expert_used_count",
        "moe_intermediate_size": "expert_feed_forward_length",
    },
    gguf_names={
        "per_layer_token_embd.weight": "model.embed_tokens_per_layer.weight",
        "per_layer_model_proj.weight": "model.per_layer_model_projection.weight",
        "per_layer_proj_norm.weight": "model.per_layer_projection_norm.weight",
    },
    gguf_layer_names=GGUF_SANDWICH
    | {
        "attn_q_norm.weight": "self_attn.q_norm.weight",
        "attn_k_norm.weight": "self_attn.k_norm.weight",
        "layer_output_scale.weight": "layer_scalar",
        "inp_gate.weight": "per_layer_input_gate.weight",
        "proj.weight": "per_layer_projection.weight",
        "post_norm.weight": "post_per_layer_input_norm.weight",
        "ffn_gate_inp.weight": "router.proj.weight",
        "ffn_gate_inp.scale": "router.scale",
        "ffn_down_exps.scale": "router.per_expert_scale",
        "ffn_gate_exps.weight": "experts.gate_proj",
        "ffn_up_exps.weight": "experts.up_proj",
        "ffn_down_exps.weight": "experts.down_proj",
        "pre_ffw_norm_2.weight": "pre_feedforward_layernorm_2.weight",
        "post_ffw_norm_1.weight": "post_feedforward_layernorm_1.weight",
        "post_ffw_norm_2.weight": "post_feedforward_layernorm_2.weight",
    },
    gguf_parts={"ffn_gate_up_exps.weight": ("experts.gate_proj", "experts.up_proj")},
    gguf_implied=_implied,
    gguf_found=_found,
    gguf_ropes=_gguf_ropes,
)
