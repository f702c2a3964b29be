"""A Hugging Face folder as a GGUF of floats, as llama.cpp's converter lays it out
(tests/fixtures_gguf.py), tensor by tensor.

    python write_gguf.py FOLDER OUT.gguf [--type f16|f32] [--tokenizer OTHER.gguf]
                         [--template OTHER.gguf]

The tokenizer is that of another GGUF file, and so is the chat template, if it is not the same
file's; without one, there is none.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from fixtures_gguf import add_metadata, architecture, converted, parted, rope_tables, tensor_names

EXPERT = re.compile(r"(.+\.experts)\.(\d+)\.(.+)")
# What llama.cpp has in float32, beside vectors.
SINGLE = re.compile(r".+\.((ffn_gate_inp|shortconv\.conv|ssm_conv1d)\.weight|bias)|rope_.+")


TYPES = {
    "f16": (np.float16, gguf.LlamaFileType.MOSTLY_F16),
    "f32": (np.float32, gguf.LlamaFileType.ALL_F32),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("path", type=Path)
    parser.add_argument("--type", choices=TYPES, default="f16", help="of matrices")
    parser.add_argument("--tokenizer", type=Path, metavar="OTHER.gguf")
    parser.add_argument("--template", type=Path, metavar="OTHER.gguf")
    options = parser.parse_args()
    folder: Path = options.folder
    dtype, file_type = TYPES[options.type]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "rope_parameters" not in config:
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": config["rope_theta"]}
    writer = gguf.GGUFWriter(options.path, architecture(config))
    add_metadata(writer, config)
    writer.add_file_type(file_type)
    writer.add_vocab_size(config["vocab_size"])
    if options.tokenizer is None:
        writer.add_tokenizer_model("none")
    else:
        copy_tokenizer(options.tokenizer, writer)
    if options.template is not None:
        fields = gguf.GGUFReader(options.template).fields
        writer.add_chat_template(fields[gguf.Keys.Tokenizer.CHAT_TEMPLATE].contents())
    # Twice, since all shapes stand before the numbers, which need not fit in memory.
    for name, values in tensors(folder, config, dtype):
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, values in tensors(folder, config, dtype):
        writer.write_tensor_data(values)
    writer.close()


def copy_tokenizer(source: Path, writer: gguf.GGUFWriter) -> None:
    """Add what another file says of its tokenizer, chat template included."""
    for name, field in gguf.GGUFReader(source).fields.items():
        if name.startswith("tokenizer."):
            of = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], of)


def tensors(
    folder: Path, config: dict[str, Any], dtype: type[np.floating[Any]]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield GGUF's tensors by name, matrices in ``dtype``; those of a layer's experts are one."""
    yield from rope_tables(config).items()
    names = tensor_names(config)
    with ExitStack() as stack:
        owners: dict[str, Any] = {}
        for file in sorted(folder.glob("*.safetensors")):
            opened = stack.enter_context(safe_open(file, "pt"))
            owners |= dict.fromkeys(opened.keys(), opened)
        experts: dict[str, list[str]] = {}
        for name in sorted(owners, key=expert_of):
            experts.setdefault(EXPERT.sub(r"\1.\3", name), []).append(name)
        for name, members in experts.items():
            read = [owners[member].get_tensor(member).to(torch.float32) for member in members]
            whole = read[0] if members == [name] else torch.stack(read)
            for part, tensor in parted({name: whole}, config).items():
                stored, values = converted(part, tensor.numpy(), config, names)
                single = values.ndim == 1 or SINGLE.fullmatch(stored)
                yield stored, values.astype(np.float32 if single else dtype)


def expert_of(name: str) -> int:
    found = EXPERT.fullmatch(name)
    return -1 if found is None else int(found[2])


if __name__ == "__main__":
    main()
