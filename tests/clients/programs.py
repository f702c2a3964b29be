"""Exports the programs that the tests of clients run on: ``programs.py real|scripted OUTPUT``.

``real`` is SmolLM2-135M-Instruct, 8da4w. ``scripted`` is Qwen3's tokenizer and chat template around
a few random weights, which nothing reads.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import edge_llm
from edge_llm.export.recipes.file import load_recipe

sys.path.insert(0, str(Path(__file__).parents[1]))

from fixtures_assets import QWEN3, asset_folder, fetch_smollm2
from fixtures_checkpoints import write_tiny_checkpoint

END_IDS = [151645, 151643]  # <|im_end|>, <|endoftext|>
SIZES = {
    "vocab_size": 151_936,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 32_768,
    "tie_word_embeddings": True,
    "eos_token_id": END_IDS[0],
}


def export_real(output: Path) -> None:
    edge_llm.export(load_recipe("8da4w", model=str(fetch_smollm2())), output=output)


def export_scripted(output: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "scripted"
        folder.mkdir()
        write_tiny_checkpoint(folder, "qwen3", **SIZES)
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": END_IDS}))
        for file in asset_folder(QWEN3).iterdir():
            if file.name.startswith("tokenizer"):
                shutil.copy(file, folder / file.name)
        recipe = edge_llm.Recipe(
            model=str(folder), scheme="fp32", context=32_768, gate=None, verify=False
        )
        edge_llm.export(recipe, output=output)


if __name__ == "__main__":
    {"real": export_real, "scripted": export_scripted}[sys.argv[1]](Path(sys.argv[2]))
