"""Good inputs of every kind, to be damaged."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from fixtures_gguf import add_metadata, add_tensor, add_tokenizer, architecture, gguf_tensors
from fixtures_meta import meta_params, meta_tensors, write_quantized_meta
from fixtures_quantized import Array, Quantized, awq, choose, compressed, gptq, requantized_folder
from fuzz_texts import CHAT, COMPLETION, PIECES, RECIPE, TEMPLATES, write_tokenizers

Tiny = Callable[..., Path]

SMALL: dict[str, Any] = {
    "num_hidden_layers": 1,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": SMALL,
    "mistral": SMALL,
    "olmo2": SMALL,
    "phi3": SMALL | {"original_max_position_embeddings": 32},
    "qwen2": SMALL,
    "qwen3": SMALL | {"tie_word_embeddings": True},
    "smollm3": SMALL | {"num_hidden_layers": 2},
}
# A layer that sees everything, and one with a window: two groups of states.
TWO_GROUPS: dict[str, Any] = {
    "num_hidden_layers": 2,
    "use_sliding_window": True,
    "sliding_window": 3,
    "max_window_layers": 1,
}
QUANTS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16", "IQ4_NL")
SUPER_BLOCKS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS")


@pytest.fixture(scope="session")
def seeds(
    tiny_program: Tiny, tiny_checkpoint: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder SEEDS/TARGET/NAME of good files for every target of targets.py."""
    seeds = tmp_path_factory.mktemp("seeds")

    def new(target: str, name: str) -> Path:
        folder = seeds / target / name
        folder.mkdir(parents=True)
        return folder

    for scheme, family, kv_dtype, more in (
        ("8da4w", "llama", "f16", {}),
        ("fp16", "phi3", "i8", {}),
        ("8da8w", "qwen3", "f32", {}),
        ("fp16", "qwen2", "f16", TWO_GROUPS),
    ):
        program = tiny_program(scheme, family, kv_dtype, **(FAMILIES[family] | more))
        for target in ("program", "core"):
            shutil.copyfile(program, new(target, family) / "input.edge")

    checkpoints = {family: tiny_checkpoint(family, **sizes) for family, sizes in FAMILIES.items()}
    for family, checkpoint in checkpoints.items():
        for target in ("config", "safetensors"):
            _copy(checkpoint, new(target, family))
        _write_gguf(checkpoint, new("gguf", family) / "input.gguf", "F32")
    _copy(tiny_checkpoint("llama", shards=3, **SMALL), new("safetensors", "sharded"))
    _copy(checkpoints["llama"], new("tokenizer", "bytes"))
    _make_ggufs(tiny_checkpoint, checkpoints["llama"], new)
    _make_quantized(checkpoints["llama"], new)
    _make_meta(checkpoints["llama"], new("meta", "one"), 1)
    _make_meta(checkpoints["llama"], new("meta", "two"), 2)
    quantized = new("meta", "quantized")
    write_quantized_meta(checkpoints["llama"], quantized, lora={"rank": 4, "scale": 2.0})
    shutil.copyfile(checkpoints["llama"] / "tokenizer.json", quantized / "tokenizer.json")
    _make_adapter(checkpoints["qwen2"], new("adapter", "linear"))
    write_tokenizers(new)
    for name, text in TEMPLATES.items():
        (new("template", name) / "chat_template.jinja").write_text(text, encoding="utf-8")
    (new("request", "chat") / "chat.json").write_text(json.dumps(CHAT))
    (new("request", "completion") / "completion.json").write_text(json.dumps(COMPLETION))
    (new("recipe", "all") / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return seeds


@pytest.fixture
def scratch_in_memory() -> Iterator[Path]:
    """A folder on a file system in memory where there is one: a long run writes 10^5 files."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder) / "scratch"


def _copy(source: Path, target: Path) -> None:
    for file in source.iterdir():
        if file.is_file():
            shutil.copyfile(file, target / file.name)


def _write_gguf(
    checkpoint: Path, path: Path, quant: str, part: tuple[int, int] | None = None
) -> None:
    """One file, or part (index, count) of the model."""
    config = json.loads((checkpoint / "config.json").read_text())
    tensors = list(gguf_tensors(checkpoint, config).items())
    writer = gguf.GGUFWriter(path, architecture(config))
    index, count = part or (0, 1)
    if index == 0:
        add_metadata(writer, config)
        add_tokenizer(writer, checkpoint)
    if part is not None:
        writer.add_uint16("split.no", index)
        writer.add_uint16("split.count", count)
        writer.add_int32("split.tensors.count", len(tensors))
    for name, values in tensors[index::count]:
        add_tensor(writer, name, values, quant)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _make_ggufs(tiny: Tiny, llama: Path, new: Callable[[str, str], Path]) -> None:
    """Every type of blocks, a model in parts, and a SentencePiece vocabulary."""
    for quant in QUANTS:
        _write_gguf(llama, new("gguf", quant) / "input.gguf", quant)
    wide = SMALL | {"hidden_size": 256, "intermediate_size": 256, "vocab_size": 264}
    wide_checkpoint = tiny("qwen2", **wide)
    for quant in SUPER_BLOCKS:
        _write_gguf(wide_checkpoint, new("gguf", quant) / "input.gguf", quant)
    folder = new("gguf", "parts")
    for index in range(2):
        name = f"input-{index + 1:05d}-of-00002.gguf"
        _write_gguf(llama, folder / name, "F16", (index, 2))
    pieces = PIECES
    path = new("gguf", "sentencepiece") / "input.gguf"
    config = json.loads((llama / "config.json").read_text())
    writer = gguf.GGUFWriter(path, "llama")
    add_metadata(writer, config)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _, _ in pieces])
    writer.add_token_scores([score for _, score, _ in pieces])
    writer.add_token_types([kind for _, _, kind in pieces])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, values in gguf_tensors(llama, config).items():
        add_tensor(writer, name, values, "Q8_0")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _make_quantized(llama: Path, new: Callable[[str, str], Path]) -> None:
    """Write what each method writes; torchao's by hand, as its tensors are those of the
    checkpoint."""
    int4 = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
    methods: dict[str, tuple[dict[str, Any], Callable[[str, Quantized], dict[str, Array]]]] = {
        "gptq": ({"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True}, gptq),
        "awq": ({"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": False}, awq),
        "compressed": (
            {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
                "config_groups": {"group_0": {"targets": ["Linear"], "weights": int4}},
                "ignore": ["lm_head"],
            },
            compressed,
        ),
    }
    for method, (settings, layout) in methods.items():

        def encode(
            module: str, weight: Array, layout: Any = layout
        ) -> tuple[Quantized, dict[str, Array]]:
            made = choose(weight, 32)
            return made, layout(module, made)

        made = llama.parent / f"fuzz-{method}"
        requantized_folder(llama, made, settings, encode)
        _copy(made, new("quantized", method))
    _make_torchao(llama, new("quantized", "torchao"))


def _make_torchao(llama: Path, folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    _copy(llama, folder)
    tensors, metadata = load_file(llama / "model.safetensors"), {"format": "pt"}
    for name in [name for name in tensors if "_proj.weight" in name]:
        made = choose(tensors.pop(name).numpy(), 32)
        stem = f"{name.removesuffix('.weight')}._weight"
        tensors[f"{stem}_qdata"] = torch.from_numpy((made.q - 8).astype(np.int8))
        tensors[f"{stem}_scale"] = torch.from_numpy(made.scales)
        tensors[f"{stem}_zero_point"] = torch.from_numpy((made.zeros - 8).astype(np.int8))
        attributes = {"block_size": [1, 32], "target_dtype": {"_data": "int4"}}
        metadata[name] = json.dumps({"_type": "IntxUnpackedToInt8Tensor", "_data": attributes})
    save_file(tensors, folder / "model.safetensors", metadata=metadata)
    config = json.loads((folder / "config.json").read_text())
    settings = {"quantization_config": {"quant_method": "torchao", "quant_type": {}}}
    (folder / "config.json").write_text(json.dumps(config | settings))


def _make_meta(llama: Path, folder: Path, shards: int) -> None:
    import torch

    config = json.loads((llama / "config.json").read_text())
    tensors = meta_tensors(llama, config, 0)
    for index in range(shards):
        part = {
            name: tensor if axis is None else tensor.chunk(shards, axis)[index].clone()
            for name, (tensor, axis) in tensors.items()
        }
        torch.save(part, folder / f"consolidated.{index:02d}.pth")
    (folder / "params.json").write_text(json.dumps(meta_params(config)))
    shutil.copyfile(llama / "tokenizer.json", folder / "tokenizer.json")


def _make_adapter(checkpoint: Path, folder: Path) -> None:
    """Three matrices adapted, one of them with a rank and a scale of its own."""
    import torch
    from safetensors.torch import load_file, save_file

    _copy(checkpoint, folder)
    shapes = {
        name: tensor.shape for name, tensor in load_file(folder / "model.safetensors").items()
    }
    tensors = {}
    for inner, rank in (("self_attn.q_proj", 4), ("self_attn.o_proj", 4), ("mlp.down_proj", 2)):
        module = f"model.layers.0.{inner}"
        n, k = shapes[f"{module}.weight"]
        stem = f"base_model.model.{module}"
        tensors[f"{stem}.lora_A.weight"] = torch.full((rank, k), 0.01)
        tensors[f"{stem}.lora_B.weight"] = torch.full((n, rank), 0.02)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"mlp.down_proj": 2},
        "alpha_pattern": {"^model.layers.0.self_attn.q_proj": 3.5},
        "use_rslora": True,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "target_modules": ["q_proj", "o_proj", "down_proj"],
        "base_model_name_or_path": "some/where",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
