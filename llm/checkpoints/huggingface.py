"""Checkpoints in Hugging Face's folder layout: config.json and safetensors, whole or sharded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from edge_llm.errors import CheckpointError, ConfigError
from edge_llm.llm.checkpoints.files import read_json_object, read_text
from edge_llm.llm.checkpoints.generation import generation_defaults, token_ids
from edge_llm.llm.checkpoints.source import (
    Checkpoint,
    Shape,
    TokenizerDirectory,
    check_parameters,
)
from edge_llm.llm.config import shorten
from edge_llm.llm.registry import FAMILIES, build_model, read_config, tied_parameters
from edge_llm.program.documents import GenerationDefaults

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = ("F32", "F16", "BF16")
# Those that tokenizers/convert.py reads.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


def open_huggingface(path: Path) -> Checkpoint:
    """Opens and checks a folder; tensors are read later, one at a time.

    Raises:
        CheckpointError: a file that is missing or damaged, or tensors that do not fit the config.
        ConfigError: a config that cannot be honoured.
    """
    config_path = path / "config.json"
    values = read_json_object(config_path)
    _refuse_quantized(values, config_path)
    config, unread = read_config(values, str(config_path))

    files = _tensor_files(path)
    shapes, problems = _tensor_shapes(files)
    pattern = FAMILIES[config.family].leftovers
    shapes = {
        name: shape
        for name, shape in shapes.items()
        if pattern is None or not pattern.fullmatch(name)
    }

    def read(name: str) -> torch.Tensor:
        return _read_tensor(files[name], name)

    if config.tied:
        # Some writers store the shared table under both names.
        tied = tied_parameters(build_model(config, context=1, kv_dtype=torch.float32))
        for name, source in tied.items():
            if name in shapes and source in shapes:
                if not torch.equal(read(name), read(source)):
                    problems.append(f"tied: {name} differs from {source}, expected the same values")
                del shapes[name]
    generation_path = path / "generation_config.json"
    names = ("config.json", "generation_config.json", INDEX, "README.md", *TOKENIZER_FILES)
    tensor_paths = sorted(set(files.values()))
    return Checkpoint(
        name=path.resolve().name,
        config=config,
        shapes=check_parameters(config, shapes, str(path), problems),
        read=read,
        generation=_generation(generation_path, values, config.vocab),
        tokenizer=TokenizerDirectory(path),
        sources=(*(path / name for name in names if (path / name).is_file()), *tensor_paths),
        unread_config_keys=unread,
        license=_license(path / "README.md"),
    )


def _refuse_quantized(values: Mapping[str, object], where: Path) -> None:
    quantization = values.get("quantization_config")
    if quantization is None:
        return
    method = quantization.get("quant_method") if isinstance(quantization, Mapping) else quantization
    raise ConfigError(
        f"{where}: quantization_config: got a checkpoint quantized with {shorten(method)}, "
        f"expected {', '.join(DTYPES)} weights",
        hint="use the original checkpoint: export quantizes it itself",
    )


def _tensor_files(path: Path) -> dict[str, Path]:
    """Tensor name -> the file that holds it."""
    if (path / INDEX).is_file():
        weight_map = read_json_object(path / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{path / INDEX} has no weight_map")
        for name, file in weight_map.items():
            # A plain name: an index must not lead out of its folder.
            if not isinstance(file, str) or not re.fullmatch(r"[\w.-]+\.safetensors", file):
                raise CheckpointError(
                    f"{path / INDEX}: {shorten(name)}: got file {shorten(file)}, "
                    "expected the name of a .safetensors file beside the index"
                )
        shards = {file: path / file for file in sorted(set(weight_map.values()))}
        missing = [str(shard) for shard in shards.values() if not shard.is_file()]
        if missing:
            raise CheckpointError(f"{path / INDEX} names files that are missing: {missing}")
        return {name: shards[file] for name, file in weight_map.items()}
    if (path / WHOLE).is_file():
        with _open(path / WHOLE) as file:
            return dict.fromkeys(file.keys(), path / WHOLE)
    pickled = sorted(entry.name for entry in path.glob("*") if entry.suffix in (".bin", ".pth"))
    got = f"; got {', '.join(pickled)}, which is never unpickled" if pickled else ""
    raise CheckpointError(f"{path} has no weights: expected {WHOLE} or {INDEX}{got}")


def _tensor_shapes(files: Mapping[str, Path]) -> tuple[dict[str, Shape], list[str]]:
    """Shapes from the headers, and a line for each tensor that cannot be used."""
    shapes: dict[str, Shape] = {}
    problems: list[str] = []
    holdings: dict[Path, list[str]] = {}
    for name, path in files.items():
        holdings.setdefault(path, []).append(name)
    for path, names in holdings.items():
        with _open(path) as file:
            there = set(file.keys())
            for name in names:
                label = shorten(name)
                if name not in there:
                    problems.append(f"missing: {label} in {path.name}, where the index puts it")
                    continue
                view = file.get_slice(name)
                shapes[name] = tuple(view.get_shape())
                dtype = view.get_dtype()
                if dtype not in DTYPES:
                    expected = ", ".join(DTYPES)
                    problems.append(f"dtype: {label}: got {dtype}, expected one of {expected}")
    return shapes, problems


def _read_tensor(path: Path, name: str) -> torch.Tensor:
    with _open(path) as file:
        try:
            tensor: torch.Tensor = file.get_tensor(name)
        except SafetensorError as exc:
            raise CheckpointError(f"{path}: {name} cannot be read: {exc}") from exc
    return tensor


def _open(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as exc:
        raise CheckpointError(f"{path} is not a safetensors file: {exc}") from exc


def _generation(path: Path, config: Mapping[str, object], vocab: int) -> GenerationDefaults:
    """generation_config.json where there is one; the config's eos ids where it names none."""
    values = read_json_object(path) if path.is_file() else {}
    stop_ids = token_ids(values.get("eos_token_id"), vocab, f"{path}: eos_token_id")
    stop_ids = stop_ids or token_ids(config.get("eos_token_id"), vocab, "config eos_token_id")
    return generation_defaults(values, stop_ids, str(path))


def _license(path: Path) -> str | None:
    """The ``license`` of a model card's front matter."""
    if not path.is_file():
        return None
    front = re.match(r"---\n(.*?)\n---", read_text(path), flags=re.DOTALL)
    found = front and re.search(r"^license:\s*([\w.-]+)\s*$", front[1], flags=re.MULTILINE)
    return found[1] if found else None
