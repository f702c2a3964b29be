"""The facts that others ask of any decoder's config, and the config keys that most share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypedDict, runtime_checkable

from edge_llm.llm.config import MAX_LAYERS, MAX_SIZE, ConfigReader, shorten
from edge_llm.llm.rope import DEFAULT_THETA, Rope, RopeScaling, YarnScaling, read_rope

FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """The facts of one layer's attention. ``window`` is the number of tokens that a token sees,
    its own included (0: all before); ``scale`` multiplies the products of queries and keys (None:
    head_dim ** -0.5), which ``softcap`` then keeps below it (0: as they are); without ``rope``
    there is no rotation. ``query_rope`` is that of the queries, where it is not that of the keys.
    ``source`` is the layer before whose keys and values it reads, None where it has its own. What
    is ``bidirectional`` sees as much of what follows, too.
    """

    heads: int
    kv_heads: int
    head_dim: int
    rope: Rope | None
    window: int = 0
    scale: float | None = None
    softcap: float = 0.0
    query_rope: Rope | None = None
    source: int | None = None
    bidirectional: bool = False


class DecoderConfig(Protocol):
    """The facts that export, planner and reports ask of the config of any family, by the names that
    Hugging Face gives to them. Sizes are numbers of elements, ``max_position_embeddings`` is the
    longest context in tokens; with ``tie_word_embeddings`` the head uses the embedding table."""

    model_type: ClassVar[str]

    @property
    def vocab_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def max_position_embeddings(self) -> int: ...
    @property
    def rms_norm_eps(self) -> float: ...
    @property
    def tie_word_embeddings(self) -> bool: ...

    def attention(self, layer: int) -> AttentionShape | None:
        """Return what the attention of ``layer`` computes; None where the layer has none."""
        ...


@runtime_checkable
class MixedConfig(Protocol):
    """The config of a family whose layers differ in more than their attention."""

    def layer_kind(self, layer: int) -> str:
        """Return what a layer consists of, in a word or two: "sparse" or "dense"."""
        ...


@runtime_checkable
class Deriving(Protocol):
    """The config of a family whose layers compute with numbers that follow from several fields."""

    def derived(self) -> Mapping[str, int | float]:
        """Return these numbers by names that say what they are."""
        ...


@dataclass(frozen=True, slots=True)
class DeltaShape:
    """The facts of a gated delta rule: heads of queries and keys, those of values, of which each
    key head has as many, and the columns of either kind."""

    key_heads: int
    heads: int
    k_dim: int
    v_dim: int


@dataclass(frozen=True, slots=True)
class StateSpaceShape:
    """The facts of a state space behind a convolution of ``taps``: heads of queries and keys, those
    of values, of which each key head has as many, the columns of either kind, and from where to
    where the step of a token can be."""

    key_heads: int
    heads: int
    k_dim: int
    v_dim: int
    taps: int
    least_step: float
    most_step: float


def ropes_of(config: DecoderConfig) -> tuple[Rope, ...]:
    """Return the different rotary embeddings of a decoder's layers, in the order of the layers."""
    shapes = (config.attention(layer) for layer in range(config.num_hidden_layers))
    attentions = (shape for shape in shapes if shape is not None)
    ropes = (rope for shape in attentions for rope in (shape.rope, shape.query_rope))
    return tuple(dict.fromkeys(rope for rope in ropes if rope is not None))


_BIASES = frozenset({"attention_bias", "mlp_bias"})


class CommonKeys(TypedDict):
    """The fields that the config of every family has so far."""

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
    tie_word_embeddings: bool


def read_common(
    reader: ConfigReader,
    *,
    head_dim: int | None = None,
    norm_eps: float = 1e-6,
    eps_key: str = "rms_norm_eps",
    ffn: int | None = None,
    theta: float = DEFAULT_THETA,
    partial_rotary: bool = False,
    rope: Rope | None = None,
    activation: str = "silu",
    tied: bool = False,
    biases: Collection[str] = (),
    experts: bool = False,
) -> CommonKeys:
    """Read the keys that the configs of most decoders share, by their Hugging Face names.

    ``head_dim`` (None: hidden_size / num_attention_heads), ``norm_eps``, ``theta`` and ``tied`` are
    the family's defaults, ``eps_key`` is its name of the epsilon; ``partial_rotary`` as in
    `read_rope`, unless the family has read the ``rope`` itself, as it may the width ``ffn``;
    ``activation`` is the one value of ``hidden_act``. ``biases`` are those of ``attention_bias``
    and ``mlp_bias`` that the family reads itself; the others must be off. So must experts, unless
    the family reads those.

    Raises:
        ValueError: there are no such ``biases``.
    """
    if unknown := sorted(set(biases) - _BIASES):
        raise ValueError(f"biases: got {unknown}, expected some of {sorted(_BIASES)}")
    dim = reader.integer("hidden_size")
    heads = reader.integer("num_attention_heads")
    kv_heads = reader.integer("num_key_value_heads", heads)
    head_dim = reader.integer("head_dim", max(1, dim // heads) if head_dim is None else head_dim)
    reader.neutral("hidden_act", activation)
    if not experts:
        for key in ("num_experts", "num_local_experts"):
            reader.neutral(key, 0)
    reader.require(
        heads % kv_heads == 0,
        f"num_attention_heads: got {heads}, expected a multiple of num_key_value_heads {kv_heads}",
    )
    reader.require(head_dim % 2 == 0, f"head_dim: got {head_dim}, expected an even number")
    for key in sorted(_BIASES - set(biases)):
        reader.neutral(key, False)
    if rope is None:
        rope = read_rope(reader, head_dim, theta=theta, partial=partial_rotary)
    return CommonKeys(
        vocab_size=reader.integer("vocab_size"),
        hidden_size=dim,
        intermediate_size=reader.integer("intermediate_size") if ffn is None else ffn,
        num_hidden_layers=reader.integer("num_hidden_layers", high=MAX_LAYERS),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=_context(reader, rope.scaling),
        rms_norm_eps=reader.positive(eps_key, norm_eps),
        rope_parameters=rope,
        tie_word_embeddings=reader.flag("tie_word_embeddings", tied),
    )


def _context(reader: ConfigReader, scaling: RopeScaling | None) -> int:
    """YaRN is added to a config by hand, often with the length it was trained with left as is."""
    context = reader.integer("max_position_embeddings")
    if isinstance(scaling, YarnScaling):
        context = max(context, int(min(MAX_SIZE, scaling.factor * scaling.original_context)))
    return context


def read_window(reader: ConfigReader, default: int) -> int:
    """Return ``sliding_window`` in tokens; 0 for ``null``, which says that there is none, while the
    ``default`` is for configs without the key."""
    if reader.absent("sliding_window"):
        return default
    return 0 if reader.get("sliding_window") is None else reader.integer("sliding_window")


def optional_window(reader: ConfigReader) -> tuple[int, Callable[[int], bool]]:
    """Return ``window`` and ``slides`` of Qwen's configs: ``use_sliding_window`` turns on a window
    in the layers from ``max_window_layers`` on."""
    first = reader.integer("max_window_layers", 28, low=0)
    window = read_window(reader, 4096)
    return window if reader.flag("use_sliding_window", False) else 0, lambda layer: layer >= first


def read_windows(
    reader: ConfigReader,
    common: CommonKeys,
    window: int = 0,
    slides: Callable[[int], bool] | None = None,
) -> tuple[int, ...]:
    """Return the tokens that each layer sees, 0 for all before.

    ``window`` is that of the layers that ``layer_types`` calls sliding, or, without that key, of
    those that ``slides`` picks; without ``slides`` every layer must be of one kind: sliding if
    there is a window."""
    layers = common["num_hidden_layers"]
    everywhere = (0,) * layers
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
        return everywhere
    if window >= common["max_position_embeddings"]:  # then every layer sees all before
        return everywhere
    return tuple(window if kind == SLIDING else 0 for kind in kinds)


def read_sliding(
    reader: ConfigReader, common: CommonKeys, slides: Callable[[int], bool]
) -> tuple[bool, ...]:
    """Return which layers ``layer_types`` calls sliding, or ``slides`` picks without that key, also
    where their window is no shorter than the context; `read_windows` checks them."""
    layers, kinds = common["num_hidden_layers"], reader.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == layers:
        return tuple(kind == SLIDING for kind in kinds)
    return tuple(slides(layer) for layer in range(layers))
