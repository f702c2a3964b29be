"""Reading the config keys that most decoders share into a ModelConfig."""

from __future__ import annotations

from collections.abc import Callable, Collection

from edge_llm.llm.config import (
    MAX_LAYERS,
    MAX_SIZE,
    ConfigReader,
    LongRopeScaling,
    ModelConfig,
    Rope,
    RopeScaling,
    YarnScaling,
    shorten,
)

FULL, SLIDING = "full_attention", "sliding_attention"


def read_decoder(
    reader: ConfigReader,
    family: str,
    *,
    rope: Rope,
    head_dim: int | None = None,
    norm_eps: float = 1e-6,
    tied: bool = False,
    biases: Collection[str] = (),
    window: int = 0,
    slides: Callable[[int], bool] | None = None,
) -> ModelConfig:
    """The keys that the configs of most decoders share, by their Hugging Face names.

    ``head_dim`` (None: hidden_size / num_attention_heads), ``norm_eps`` and ``tied`` are the
    family's defaults. ``biases`` are those of ``attention_bias`` and ``mlp_bias`` that the family
    can have. ``window`` is the sliding window of the layers that ``layer_types`` calls
    sliding, or, without that key, of those that ``slides`` picks; without ``slides`` every layer
    must be of one kind: sliding if there is a window.
    """
    dim = reader.integer("hidden_size")
    heads = reader.integer("num_attention_heads")
    kv_heads = reader.integer("num_key_value_heads", heads)
    head_dim = reader.integer("head_dim", max(1, dim // heads) if head_dim is None else head_dim)
    reader.neutral("hidden_act", "silu")
    for key in ("num_experts", "num_local_experts"):
        reader.neutral(key, 0)
    reader.require(
        heads % kv_heads == 0,
        f"num_attention_heads: got {heads}, expected a multiple of num_key_value_heads {kv_heads}",
    )
    reader.require(head_dim % 2 == 0, f"head_dim: got {head_dim}, expected an even number")
    for key in sorted({"attention_bias", "mlp_bias"} - set(biases)):
        reader.neutral(key, False)
    layers = reader.integer("num_hidden_layers", high=MAX_LAYERS)
    context = _context(reader, rope.scaling)
    return ModelConfig(
        family=family,
        vocab=reader.integer("vocab_size"),
        dim=dim,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=reader.integer("intermediate_size"),
        norm_eps=reader.positive("rms_norm_eps", norm_eps),
        context=context,
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        tied=reader.flag("tie_word_embeddings", tied),
        partial_rotary=_partial_rotary(reader, rope, head_dim),
        attention_bias=reader.flag("attention_bias", False),
        mlp_bias=reader.flag("mlp_bias", False),
        windows=_windows(reader, layers, context, window, slides),
    )


def _context(reader: ConfigReader, scaling: RopeScaling | None) -> int:
    """YaRN is added to a config by hand, often with the length it was trained with left as is."""
    context = reader.integer("max_position_embeddings")
    if isinstance(scaling, YarnScaling):
        context = max(context, int(min(MAX_SIZE, scaling.factor * scaling.original_context)))
    return context


def _partial_rotary(reader: ConfigReader, rope: Rope, head_dim: int) -> int:
    rotary_dim = int(head_dim * rope.fraction)
    reader.require(
        0 < rotary_dim <= head_dim and rotary_dim % 2 == 0,
        f"partial_rotary_factor: got {rope.fraction}, expected one that rotates an even number of "
        f"the {head_dim} columns of a head",
    )
    if isinstance(rope.scaling, LongRopeScaling):
        factors = {"short_factor": rope.scaling.short, "long_factor": rope.scaling.long}
        for key, values in factors.items():
            reader.require(
                len(values) == rotary_dim // 2,
                f"{key}: got {len(values)} numbers, expected {rotary_dim // 2}, one for each pair "
                "of rotated columns",
            )
    return 0 if rotary_dim == head_dim else rotary_dim


def read_window(reader: ConfigReader, default: int) -> int:
    """``sliding_window`` in tokens; 0 for ``null``, which says that there is none, while the
    ``default`` is for configs without the key."""
    if reader.absent("sliding_window"):
        return default
    return 0 if reader.get("sliding_window") is None else reader.integer("sliding_window")


def optional_window(reader: ConfigReader) -> tuple[int, Callable[[int], bool]]:
    """``window`` and ``slides`` of Qwen's configs: ``use_sliding_window`` turns on a window in the
    layers from ``max_window_layers`` on."""
    first = reader.integer("max_window_layers", 28, low=0)
    window = read_window(reader, 4096)
    return window if reader.flag("use_sliding_window", False) else 0, lambda layer: layer >= first


def _windows(
    reader: ConfigReader,
    layers: int,
    context: int,
    window: int,
    slides: Callable[[int], bool] | None,
) -> tuple[int, ...]:
    kinds = reader.get("layer_types")
    if slides is None:
        allowed: tuple[str, ...] = (SLIDING if window else FULL,)
        kinds = list(allowed) * layers if kinds is None else kinds
    else:
        allowed = (FULL, SLIDING) if window else (FULL,)
        if kinds is None:
            kinds = [SLIDING if window and slides(layer) else FULL for layer in range(layers)]
    if not isinstance(kinds, list) or len(kinds) != layers or any(k not in allowed for k in kinds):
        names = " or ".join(repr(name) for name in allowed)
        reader.problem(
            f"layer_types: got {shorten(kinds)}, expected {names} for each of {layers} layers"
            + ("" if window else ": no sliding_window is in use")
        )
        return ()
    if window >= context or SLIDING not in kinds:  # then every layer sees all before
        return ()
    return tuple(window if kind == SLIDING else 0 for kind in kinds)
