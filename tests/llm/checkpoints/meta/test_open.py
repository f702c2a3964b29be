"""Meta's folders against the Hugging Face checkpoints that they were made from."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stored_tensors import tensor_of

from edge_llm.errors import CheckpointError, ConfigError
from edge_llm.llm.checkpoints.meta.torch_file import read_torch_file
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.checkpoints.source import TokenizerDirectory
from edge_llm.llm.models.tensors import as_tensor
from edge_llm.llm.rope import Llama3Scaling

Factory = Callable[..., Path]
# The tiny llama's, at the length that Meta's code has as a constant.
SCALED = {
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 10_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
}
PLAIN = {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("tied", [False, True])
def test_same_model_as_its_source(
    dtype: str, tied: bool, tiny_checkpoint: Factory, make_meta: Factory
) -> None:
    folder = tiny_checkpoint("llama", dtype=dtype, tie_word_embeddings=tied, **SCALED)
    source, made = open_checkpoint(folder), open_checkpoint(make_meta(folder))
    assert (made.config, made.shapes) == (source.config, source.shapes)
    for name in source.shapes:
        got = tensor_of(made, name)
        assert got.dtype == getattr(torch, dtype)
        assert torch.equal(got, tensor_of(source, name)), name


@pytest.mark.parametrize("axis", [0, 1])
def test_shards_are_joined(axis: int, tiny_checkpoint: Factory, make_meta: Factory) -> None:
    folder = tiny_checkpoint("llama", **SCALED)
    source = open_checkpoint(folder)
    made = open_checkpoint(make_meta(folder, 2, embedding_axis=axis))
    assert (made.config, made.shapes) == (source.config, source.shapes)
    for name in source.shapes:
        assert torch.equal(tensor_of(made, name), tensor_of(source, name)), name


def test_an_equal_head_is_the_embedding(tiny_checkpoint: Factory, make_meta: Factory) -> None:
    """Llama 3.2's files store the shared table twice."""

    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors["output.weight"] = tensors["tok_embeddings.weight"].clone()

    made = open_checkpoint(make_meta(tiny_checkpoint("llama"), 2, edit=edit))
    assert made.config.tie_word_embeddings
    assert "lm_head.weight" not in made.shapes


def test_documents(tiny_checkpoint: Factory, make_meta: Factory) -> None:
    folder = make_meta(tiny_checkpoint("llama"), 2)
    (folder / "tokenizer.model").write_bytes(b"")
    made = open_checkpoint(folder)
    assert made.name == "meta"
    assert made.tokenizer == TokenizerDirectory(folder)
    assert [path.name for path in made.sources] == [
        "params.json",
        "tokenizer.model",
        "consolidated.00.pth",
        "consolidated.01.pth",
    ]
    assert made.generation.stop_ids == ()
    # The rope's factor and the context are those of params.json.
    assert made.notes == ("stop ids: none are known for a vocabulary of 288",)


def generation(folder: Path, **changes: Any) -> tuple[int, str]:
    """The context and the notes after changes to params.json; None removes a key."""
    params = json.loads((folder / "params.json").read_text()) | changes
    params = {key: value for key, value in params.items() if value is not None}
    (folder / "params.json").write_text(json.dumps(params))
    made = open_checkpoint(folder)
    return made.config.max_position_embeddings, "\n".join(made.notes)


def test_context_and_factor_follow_the_generation(
    tiny_checkpoint: Factory, make_meta: Factory
) -> None:
    folder = make_meta(tiny_checkpoint("llama"))
    context, notes = generation(folder, max_seq_len=None)
    assert context == 131072
    assert "context: 131072, that of Llama 3.1 and later" in notes
    assert generation(folder, use_scaled_rope=None, rope_scaling_factor=None)[0] == 4096
    assert generation(folder, rope_theta=1e6)[0] == 16384
    assert generation(folder, max_seq_len=100)[0] == 100
    folder_message = "rope_scaling_factor: missing, and dim and n_layers are those of no published"
    with pytest.raises(ConfigError, match=folder_message):
        generation(folder, use_scaled_rope=True)


@pytest.mark.parametrize(
    ("vocab", "stops"), [(128256, (128001, 128008, 128009)), (32000, (2,)), (32016, (2,))]
)
def test_stop_ids_of_known_vocabularies(
    vocab: int, stops: tuple[int, ...], tiny_checkpoint: Factory, make_meta: Factory
) -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    folder = tiny_checkpoint("llama", vocab_size=vocab, **sizes, **heads, **PLAIN)
    made = open_checkpoint(make_meta(folder, vocab_size=-1))
    assert (made.config.vocab_size, made.generation.stop_ids) == (vocab, stops)


@pytest.mark.parametrize(
    ("dim", "layers", "factor", "name"),
    [(4096, 32, 8, "Llama 3.1 8B"), (2048, 16, 32, "Llama 3.2 1B"), (3072, 28, 32, "Llama 3.2 3B")],
)
def test_factors_of_published_models(
    dim: int, layers: int, factor: float, name: str, tmp_path: Path
) -> None:
    stored = torch.zeros(dim * dim, dtype=torch.float16)  # one storage for all

    def view(*shape: int) -> torch.Tensor:
        return stored[: math.prod(shape)].reshape(shape)

    tensors = {"tok_embeddings.weight": view(3, dim), "norm.weight": view(dim)}
    for layer in range(layers):
        tensors |= {
            f"layers.{layer}.attention.{part}.weight": view(dim, dim)
            for part in ("wq", "wk", "wv", "wo")
        }
        for part, shape in {"w1": (1, dim), "w2": (dim, 1), "w3": (1, dim)}.items():
            tensors[f"layers.{layer}.feed_forward.{part}.weight"] = view(*shape)
        for part in ("attention", "ffn"):
            tensors[f"layers.{layer}.{part}_norm.weight"] = view(dim)
    torch.save(tensors, tmp_path / "consolidated.00.pth")
    params = {"dim": dim, "n_layers": layers, "n_heads": 32, "use_scaled_rope": True}
    (tmp_path / "params.json").write_text(json.dumps(params))
    made = open_checkpoint(tmp_path)
    assert made.config.rope_parameters.scaling == Llama3Scaling(factor, 1.0, 4.0, 8192)
    assert made.config.max_position_embeddings == 131072
    note = f"rope: scaled by {factor} as in {name}, which dim and n_layers are those of"
    assert made.notes[0] == note


def test_feed_forward_width_by_the_rule(tiny_checkpoint: Factory, make_meta: Factory) -> None:
    source = tiny_checkpoint("llama", intermediate_size=256)
    folder = make_meta(source, multiple_of=64, ffn_dim_multiplier=1.3)  # 170 * 1.3 = 221
    assert open_checkpoint(folder).config.intermediate_size == 256
    with pytest.raises(ConfigError, match="a feed-forward width of 224, the tensors have 256"):
        generation(folder, multiple_of=32)


def test_early_tables_carry_nothing(tiny_checkpoint: Factory, make_meta: Factory) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors["rope.freqs"] = torch.ones(8)

    source = tiny_checkpoint("llama")
    made = open_checkpoint(make_meta(source, edit=edit))
    assert made.shapes == open_checkpoint(source).shapes


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "experts": ({"moe_args": {"num_experts": 8}}, ConfigError, "moe_args: a key not supported"),
    "vision": (
        {"vision_chunk_size": 448},
        ConfigError,
        "vision_chunk_size: a key not supported",
    ),
    "vocabulary": (
        {"vocab_size": 300},
        ConfigError,
        "vocab_size: got 300, expected the 288 rows of tok_embeddings.weight",
    ),
    "dim": ({"dim": "64"}, ConfigError, "dim: got '64', expected an integer"),
    "heads": ({"n_kv_heads": 3}, ConfigError, "expected a multiple of num_key_value_heads 3"),
    "layers": (
        {"n_layers": 3},
        CheckpointError,
        "missing: model.layers.2.input_layernorm.weight, expected [64]",
    ),
    "sizes": (
        {"dim": 32},
        CheckpointError,
        "shape: model.norm.weight: got [64], expected [32]",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, tiny_checkpoint: Factory, make_meta: Factory) -> None:
    params, kind, message = REFUSED[case]
    folder = make_meta(tiny_checkpoint("llama"), **params)
    with pytest.raises(kind) as error:
        open_checkpoint(folder)
    assert message in str(error.value)


def test_shards_that_do_not_fit(tiny_checkpoint: Factory, make_meta: Factory) -> None:
    folder = make_meta(tiny_checkpoint("llama"), 3)
    first, last = (folder / f"consolidated.{index:02d}.pth" for index in (0, 2))
    tensors = torch.load(last, weights_only=True)
    torch.save(tensors | {"norm.weight": tensors["norm.weight"] + 1}, last)
    with pytest.raises(CheckpointError, match=r"norm.weight differs in consolidated.02.pth"):
        open_checkpoint(folder)
    torch.save(tensors | {"norm.weight": torch.ones(3)}, last)
    with pytest.raises(CheckpointError, match=r"shard: norm.weight: got \[3\] float32 in"):
        open_checkpoint(folder)
    torch.save(tensors | {"more": torch.ones(3)}, last)
    with pytest.raises(CheckpointError, match="expected the same names"):
        open_checkpoint(folder)
    first.unlink()
    with pytest.raises(CheckpointError, match=r"but not consolidated.00.pth"):
        open_checkpoint(folder)


def test_other_pickles_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="is a pickle, which is never run"):
        open_checkpoint(path)


def test_tensors_as_torch_reads_them(tmp_path: Path) -> None:
    shared = torch.arange(24.0)
    tensors = {
        "matrix": shared[:12].reshape(3, 4),
        "rows": shared.reshape(6, 4)[2:4],
        "one row": shared.reshape(2, 3, 4)[:, 1:2, :1][:1],
        "number": torch.tensor(3.0, dtype=torch.bfloat16),
        "parameter": torch.nn.Parameter(torch.ones(2, dtype=torch.float16)),
    }
    path = tmp_path / "file.pth"
    module = torch.nn.Linear(3, 2)
    for content in (tensors, module.state_dict()):  # the second is an OrderedDict with attributes
        torch.save(content, path)
        expected = torch.load(path, weights_only=True)
        file = read_torch_file(path)
        assert file.tensors.keys() == expected.keys()
        for name, tensor in expected.items():
            got = as_tensor(file.tensor(name))
            assert got.dtype == tensor.dtype
            assert torch.equal(got, tensor)
