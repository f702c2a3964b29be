"""The type of a model family, and the names that GGUF files give to what families share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_llm.llm.config import ConfigReader
from edge_llm.llm.decoder import DecoderConfig

Config = TypeVar("Config", bound=DecoderConfig)


# The names that GGUF gives to the parts of ``models.layers.Block``.
GGUF_BLOCK = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
# The same for ``models.experts.SparseMLP``; experts are stacked there, too.
GGUF_EXPERTS = {
    "ffn_gate_inp.weight": "mlp.gate.weight",
    "ffn_gate_exps.weight": "mlp.experts.gate_proj",
    "ffn_up_exps.weight": "mlp.experts.up_proj",
    "ffn_down_exps.weight": "mlp.experts.down_proj",
}
# An expert that all tokens share.
GGUF_SHARED = {
    "ffn_gate_inp_shexp.weight": "mlp.shared_expert_gate.weight",
    "ffn_gate_shexp.weight": "mlp.shared_expert.gate_proj.weight",
    "ffn_up_shexp.weight": "mlp.shared_expert.up_proj.weight",
    "ffn_down_shexp.weight": "mlp.shared_expert.down_proj.weight",
}
# GGUF's key, behind "ARCHITECTURE.", of each config key that most decoders have.
GGUF_KEYS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "num_attention_heads": "attention.head_count",
    "num_hidden_layers": "block_count",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "head_dim": "attention.key_length",
    "num_key_value_heads": "attention.head_count_kv",
    "vocab_size": "vocab_size",
}
GGUF_WINDOW = {"sliding_window": "attention.sliding_window"}
# A list of which layers have it, true and false; some files hold a number, which is another key's.
GGUF_SLIDING = {"layer_types": "attention.sliding_window_pattern"}


@dataclass(frozen=True, slots=True)
class Stacked:
    """How a tensor of Hugging Face checkpoints [experts, ...] holds several parameters: ``parts``
    are their names in place of its own; their rows lie one part behind the other, or, if
    ``interleaved``, in turn; the matrices are stored ``transposed``, or as they are. ``owner`` is
    what has the parameters in a layer, where it is not what has the tensor."""

    parts: tuple[str, ...]
    interleaved: bool = False
    transposed: bool = False
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """How the rows (axis 0) or columns (1) of a stored tensor follow one another: a parameter's are
    those at ``index``, int64, one after the other."""

    axis: int
    index: NDArray[np.int64]


def _as_stored(config: Any, name: str) -> Order | None:
    return None


def _all_used(config: Any, name: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Family(Generic[Config]):
    """One decoder architecture; its PyTorch module is in ``models`` under the same name.

    Attributes:
        config: the family's own config, whose ``model_type`` is that of Hugging Face's configs.
        read: takes the facts from a config, and records what cannot be honoured.
        wrapper: the ``model_type`` of configs that hold this family's as ``text_config``, beside
            those of other parts, which are left out.
        defaults: values of keys that published configs leave out, for sizes that others must state.
        harmless: keys that may have any value, beside ``config.HARMLESS_KEYS``.
        leftovers: names of checkpoint tensors that carry nothing (``re.fullmatch``).
        unused: takes the config and the name of a parameter, and tells whether checkpoints may
            have it although the model of that config does not.
        less_one: names of parameters of which Hugging Face checkpoints hold the value less 1
            (``re.fullmatch``).
        stacked: names of tensors within a layer of Hugging Face checkpoints that hold parameters
            of all its experts, or several, and how.
        gguf_architecture: ``general.architecture`` in GGUF files; None where they have no name for
            this family. Of two families with the same name, a file is of the first that knows all
            its keys.
        gguf_variants: other names there -> the values of config keys that they stand for.
        gguf_keys: config key -> GGUF key behind "ARCHITECTURE.".
        gguf_harmless: GGUF keys behind "ARCHITECTURE." that may have any value.
        squeezed: names of parameters [n, k] that Hugging Face checkpoints hold as [n, 1, k]
            (``re.fullmatch``).
        gguf_names: GGUF name -> parameter name of what stands outside of layers under a name of the
            family's own.
        gguf_layer_names: GGUF name within ``blk.N.`` -> parameter name within ``model.layers.N.``.
        gguf_joined: GGUF names within a layer whose rows, one tensor's after the other's, are those
            of one parameter, whose name within a layer is the value.
        gguf_vectors: GGUF names within a layer that are matrices there and vectors here.
        gguf_interleaved: GGUF names within a layer whose rows are stored for the interleaved
            rotary convention, and are permuted back to the half-split one.
        gguf_parts: GGUF name within a layer -> parameter names within it, whose rows lie in that
            tensor one after the other, of each expert if it is a stack.
        gguf_order: takes the config and a GGUF name within a layer, and gives the order of a tensor
            that is stored in another one than the parameter's.
        gguf_values: GGUF name within a layer -> what makes the parameter's numbers of those that
            are stored, float32 both.
        gguf_found: takes the values of the config keys and the shapes of the tensors by their
            names, and gives the values that follow from which there are.
        gguf_ropes: takes the keys behind "ARCHITECTURE.", of which it removes those of ropes, and
            the divisors in the file's table of rotary frequencies, None without; gives
            ``rope_parameters``, where the usual translation does not fit.
        gguf_implied: takes the values of the config keys and gives those that GGUF files leave to
            their reader; they stand in for None, and for what has another value in each layer;
            those of ``rope_parameters`` are added.
    """

    config: type[Config]
    read: Callable[[ConfigReader], Config]
    gguf_architecture: str | None = None
    gguf_variants: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    gguf_keys: Mapping[str, str] = field(default_factory=lambda: GGUF_KEYS)
    gguf_harmless: frozenset[str] = frozenset()
    gguf_names: Mapping[str, str] = field(default_factory=dict)
    gguf_layer_names: Mapping[str, str] = field(default_factory=dict)
    gguf_joined: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    gguf_vectors: frozenset[str] = frozenset()
    gguf_interleaved: frozenset[str] = frozenset()
    gguf_parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    gguf_order: Callable[[Any, str], Order | None] = _as_stored
    gguf_values: Mapping[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = field(
        default_factory=dict
    )
    gguf_found: Callable[
        [Mapping[str, object], Mapping[str, tuple[int, ...]]], Mapping[str, object]
    ] = lambda values, shapes: {}
    gguf_ropes: (
        Callable[[dict[str, object], NDArray[np.float32] | None], Mapping[str, object]] | None
    ) = None
    wrapper: str | None = None
    defaults: Mapping[str, object] = field(default_factory=dict)
    harmless: frozenset[str] = frozenset()
    leftovers: re.Pattern[str] | None = None
    unused: Callable[[Any, str], bool] = _all_used
    less_one: re.Pattern[str] | None = None
    squeezed: re.Pattern[str] | None = None
    stacked: Mapping[str, Stacked] = field(default_factory=dict)
    gguf_implied: Callable[[Mapping[str, object]], Mapping[str, object]] = lambda values: {}

    @property
    def gguf_architectures(self) -> tuple[str, ...]:
        """Return all names that GGUF files have for this family."""
        return (*filter(None, (self.gguf_architecture,)), *self.gguf_variants)

    @property
    def name(self) -> str:
        """The family's ``model_type``."""
        return self.config.model_type
