"""A Hugging Face folder as a float16 GGUF without a tokenizer, as llama.cpp's converter lays it out
(tests/fixtures_gguf.py), tensor by tensor.

python write_gguf.py FOLDER OUT.gguf
"""

from __future__ import annotations

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


def main() -> None:
    folder, path = Path(sys.argv[1]), Path(sys.argv[2])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "rope_parameters" not in config:
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": config["rope_theta"]}
    writer = gguf.GGUFWriter(path, architecture(config))
    add_metadata(writer, config)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    # Twice, since all shapes stand before the numbers, which need not fit in memory.
    for name, values in tensors(folder, config):
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, values in tensors(folder, config):
        writer.write_tensor_data(values)
    writer.close()


def tensors(folder: Path, config: dict[str, Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield GGUF's tensors by name; the matrices of a layer's experts are one."""
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
                yield stored, values.astype(np.float32 if single else np.float16)


def expert_of(name: str) -> int:
    found = EXPERT.fullmatch(name)
    return -1 if found is None else int(found[2])


if __name__ == "__main__":
    main()
