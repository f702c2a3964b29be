"""Checkpoints in Meta's own layout: params.json and consolidated.NN.pth, one file per shard.

params.json need not hold the context length nor the factor of the rope scaling, and never holds
stop ids: they are constants of the code that Meta published with each generation of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge_llm.errors import CheckpointError, ConfigError
from edge_llm.llm.checkpoints.arrays import FLOATS, Array, name_of
from edge_llm.llm.checkpoints.files import read_json_object
from edge_llm.llm.checkpoints.meta.quantized import (
    QuantizedMatrices,
    Settings,
    read_quantized,
    read_settings,
    shares_table,
    squeezed,
)
from edge_llm.llm.checkpoints.meta.shards import (
    EMBEDDING,
    HEAD,
    INTERLEAVED,
    INTERLEAVED_ADAPTORS,
    SHARDS,
    Shards,
    open_shards,
    parameter_name,
)
from edge_llm.llm.checkpoints.rows import half_split
from edge_llm.llm.checkpoints.source import (
    Checkpoint,
    TokenizerDirectory,
    check_parameters,
)
from edge_llm.llm.config import ConfigReader, shorten
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.llm.registry import parameter_shapes, read_config
from edge_llm.program.documents import GenerationDefaults

PARAMS = "params.json"
TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json")

# (dim, layers) of the published models with scaled rope -> factor
SCALED_ROPE = {
    (4096, 32): ("Llama 3.1 8B", 8.0),
    (8192, 80): ("Llama 3.1 or 3.3 70B", 8.0),
    (16384, 126): ("Llama 3.1 405B", 8.0),
    (2048, 16): ("Llama 3.2 1B", 32.0),
    (3072, 28): ("Llama 3.2 3B", 32.0),
}
LLAMA3_VOCAB = 128256
LLAMA3_STOPS = (128001, 128008, 128009)  # <|end_of_text|>, <|eom_id|>, <|eot_id|>
LLAMA2_VOCABS = (32000, 32016)  # the second is Code Llama's
LLAMA2_STOPS = (2,)  # </s>
CODE_LLAMA_THETA = 1e6


def is_meta_folder(path: Path) -> bool:
    """Return whether a folder is laid out as Meta's downloads are."""
    return (path / PARAMS).is_file() and any(path.glob(SHARDS))


def open_meta(path: Path) -> Checkpoint:
    """Open and check a folder; tensors are read later, one at a time.

    Raises:
        CheckpointError: a file that is missing or damaged, or tensors that do not fit params.json.
        ConfigError: params.json asks for what cannot be honoured.
    """
    values = read_json_object(path / PARAMS)
    tensors = open_shards(path)
    config, settings, notes = _config(values, tensors, path / PARAMS)
    shape = config.attention(0)
    assert shape is not None  # Llama's, as all of this format are
    problems = list(tensors.problems)
    quantized = QuantizedMatrices({}, frozenset())
    if settings is not None:
        tied = config.tie_word_embeddings
        quantized = read_quantized(tensors, settings, shape.head_dim, problems, tied=tied)
        notes += quantized.notes(settings)
    stored = {
        parameter_name(name): name
        for name in tensors.names()
        if name not in quantized.pieces and (name != HEAD or not config.tie_word_embeddings)
    }
    problems += [
        f"dtype: {name}: got {name_of(tensors.dtype(name))}, expected floats"
        for name in stored.values()
        if tensors.dtype(name) not in FLOATS
    ]
    shapes = {name: tensors.shape(old) for name, old in stored.items()}
    shapes |= {name: matrix.shape for name, matrix in quantized.matrices.items()}
    if settings is not None:
        for name, expected in parameter_shapes(config).items():
            if name in shapes and squeezed(shapes[name]) == squeezed(expected):
                shapes[name] = expected

    def read(name: str) -> Array:
        if name in quantized.matrices:
            return quantized.matrices[name].values()
        tensor = tensors.read(stored[name]).reshape(shapes[name])
        if stored[name].endswith((*INTERLEAVED, *INTERLEAVED_ADAPTORS)):
            return half_split(tensor, shape.head_dim)
        return tensor

    stops, stop_note = _stop_ids(config.vocab_size)
    names = (PARAMS, *TOKENIZER_FILES)
    return Checkpoint(
        name=path.resolve().name,
        config=config,
        shapes=check_parameters(config, shapes, str(path), problems),
        read=read,
        generation=GenerationDefaults(stop_ids=stops),
        tokenizer=TokenizerDirectory(path),
        sources=(
            *(path / name for name in names if (path / name).is_file()),
            *tensors.paths,
        ),
        unread_config_keys=(),  # an unknown key is an error
        license=None,
        integer_formats=quantized.formats,
        integers=quantized.integers,
        activations="token" if settings is not None else None,
        inexact=quantized.inexact,
        stored_as={
            **{name: name_of(tensors.dtype(old)) for name, old in stored.items()},
            **(quantized.stored_as(settings) if settings is not None else {}),
        },
        notes=(*notes, stop_note),
    )


def _config(
    values: Mapping[str, object], tensors: Shards, where: Path
) -> tuple[DecoderConfig, Settings | None, list[str]]:
    """Return the facts of params.json, of the shapes of tensors, and of the published models; what
    it says of quantization; and notes."""
    for name in (EMBEDDING, "layers.0.feed_forward.w1.weight"):
        if name not in tensors or len(tensors.shape(name)) != 2:
            raise CheckpointError(f"{where.parent} has no matrix {name}")
    reader = ConfigReader(values, str(where))
    settings = read_settings(reader)
    if settings is not None and len(tensors.paths) > 1:
        raise CheckpointError(
            f"{where.parent} is quantized and has {len(tensors.paths)} shards, expected one"
        )
    dim, layers = reader.integer("dim"), reader.integer("n_layers")
    heads = reader.integer("n_heads")
    rows, ffn = tensors.shape(EMBEDDING)[0], tensors.shape("layers.0.feed_forward.w1.weight")[0]
    theta = reader.positive("rope_theta", 10_000.0)
    notes: list[str] = []
    scaled = reader.flag("use_scaled_rope", False)
    scaling = _scaled_rope(reader, dim, layers, notes) if scaled else {"rope_type": "default"}
    vocab = reader.get("vocab_size")
    if vocab not in (None, -1, rows):  # Llama 2 leaves it to its tokenizer
        reader.problem(f"vocab_size: got {shorten(vocab)}, expected the {rows} rows of {EMBEDDING}")
    _check_ffn(reader, dim, ffn)
    context = reader.get("max_seq_len")
    if context is None:
        context = _context(rows, theta, scaled, notes)
    config: dict[str, object] = {
        "model_type": "llama",
        "hidden_size": dim,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": reader.integer("n_kv_heads", heads),
        "max_position_embeddings": context,
        "rms_norm_eps": reader.positive("norm_eps", 1e-5),
        "vocab_size": rows,
        "rope_parameters": {"rope_theta": theta, **scaling},
        "tie_word_embeddings": HEAD not in tensors or shares_table(tensors),
    }
    if settings is not None and (settings.hadamard or settings.scale is not None):
        config |= {
            "model_type": "quantized_llama",
            "hadamard": settings.hadamard,
            "adapter_scale": settings.scale,
            "adapter_rank": settings.rank,
        }
    reader.get("max_batch_size")
    unknown = reader.finish()
    if unknown:
        listing = "".join(f"\n  {key}: a key not supported" for key in unknown)
        raise ConfigError(f"{where} cannot be honoured:{listing}")
    return read_config(config, str(where))[0], settings, notes


def _scaled_rope(
    reader: ConfigReader, dim: int, layers: int, notes: list[str]
) -> dict[str, object]:
    factor = reader.get("rope_scaling_factor")
    if factor is None:
        model = SCALED_ROPE.get((dim, layers))
        if model is None:
            reader.problem(
                "rope_scaling_factor: missing, and dim and n_layers are those of no published "
                "model with scaled rope: add it (8.0 in Llama 3.1, 32.0 in Llama 3.2)"
            )
            return {}
        name, factor = model
        notes.append(
            f"rope: scaled by {factor:g} as in {name}, which dim and n_layers are those of"
        )
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": reader.positive("high_freq_factor", 4.0),
        "original_max_position_embeddings": 8192,
    }


def _context(vocab: int, theta: float, scaled: bool, notes: list[str]) -> int:
    """Return the context length of the generation that the facts belong to."""
    if scaled:
        generation, context = "Llama 3.1 and later (scaled rope)", 131072
    elif vocab == LLAMA3_VOCAB:
        generation, context = "Llama 3 (its vocabulary, no scaled rope)", 8192
    elif theta == CODE_LLAMA_THETA:
        generation, context = "Code Llama (its rope_theta)", 16384
    else:
        generation, context = "Llama 2", 4096
    notes.append(f"context: {context}, that of {generation}; params.json does not state it")
    return context


def _check_ffn(reader: ConfigReader, dim: int, ffn: int) -> None:
    """Check Meta's rule for the width of the feed-forward layers, where its inputs are given."""
    multiple = reader.get("multiple_of")
    factor = reader.positive("ffn_dim_multiplier", 1.0)
    if multiple is None:
        return
    multiple = reader.integer("multiple_of")
    expected = -(-int(factor * int(2 * (4 * dim) / 3)) // multiple) * multiple
    reader.require(
        ffn == expected,
        f"multiple_of, ffn_dim_multiplier: they give a feed-forward width of {expected}, "
        f"the tensors have {ffn}",
    )


def _stop_ids(vocab: int) -> tuple[tuple[int, ...], str]:
    if vocab == LLAMA3_VOCAB:
        return LLAMA3_STOPS, f"stop ids: {LLAMA3_STOPS}, those of Llama 3 and later"
    if vocab in LLAMA2_VOCABS:
        return LLAMA2_STOPS, f"stop ids: {LLAMA2_STOPS}, those of Llama 2"
    return (), f"stop ids: none are known for a vocabulary of {vocab}"
