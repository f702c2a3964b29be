"""LoRA adapters named in a recipe end up in the program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import edge_llm
from edge_llm.cli.main import main
from edge_llm.errors import ConfigError
from edge_llm.export.origin.load import load
from edge_llm.export.recipes.file import load_recipe
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.models.build import load_model
from edge_llm.program.file import Program

Tiny = Callable[..., Path]
MODULE = "model.layers.0.mlp.down_proj"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """Rank 2 for one matrix of the tiny model."""
    folder = tmp_path / "lora=1"  # an equals sign of its own
    folder.mkdir()
    (folder / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["down_proj"]}'
    )
    random = torch.Generator().manual_seed(0)
    tensors = {
        f"base_model.model.{MODULE}.lora_A.weight": torch.randn(2, 96, generator=random),
        f"base_model.model.{MODULE}.lora_B.weight": torch.randn(64, 2, generator=random),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_a_recipe_with_adapters(tiny_checkpoint: Tiny, adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder, output = tiny_checkpoint("llama"), tmp_path / "x.edge"
    command = ["export", "-m", str(folder), "-q", "fp32", "-o", str(output)]
    assert main([*command, "--set", "verify=false", "--adapter", f"{adapter}=0.5"]) == 0
    with Program.open(output) as program:
        documents = program.documents
    assert documents.recipe["adapters"] == [{"path": adapter.name, "weight": 0.5}]
    files = [source["file"] for source in documents.provenance["sources"]]
    assert files[-2:] == ["adapter_config.json", "adapter_model.safetensors"]
    assert "adapter lora=1 merged with weight 0.5 into 1 matrices" in documents.report["notes"]

    checkpoint = open_checkpoint(folder)
    thin = load_file(adapter / "adapter_model.safetensors")
    a, b = (thin[f"base_model.model.{MODULE}.lora_{half}.weight"] for half in "AB")
    delta = {f"{MODULE}.weight": (0.5 * (4 / 2) * b @ a).numpy()}
    model = load_model(
        checkpoint.config,
        lambda name: checkpoint.tensor(name) + delta.get(name, np.float32(0)),
        context=32,
        kv_dtype=torch.float32,
    )
    tokens = torch.arange(30)
    with torch.no_grad():
        expected = model(tokens, tokens, torch.zeros_like(tokens), tokens)
    with edge_llm.load(output) as llm:
        got = torch.from_numpy(llm.logits(tokens.tolist()))
    assert float((got - expected).abs().max() / expected.std()) < 1e-4


def test_a_chat_template_of_the_adapter_is_said(
    tiny_checkpoint: Tiny, adapter: Path, tmp_path: Path
) -> None:
    def notes(**fields: Any) -> str:
        entry = {"path": str(adapter)}
        recipe = Recipe(model=str(tiny_checkpoint("llama")), adapters=(entry,), **fields)
        return "\n".join(load(recipe).notes)

    assert "chat template" not in notes()
    (adapter / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert "adapter lora=1 has a chat template of its own, which is not used" in notes()
    given = str(adapter / "chat_template.jinja")
    assert "chat template of its own" not in notes(chat_template=given)


def test_adapters_on_the_command_line(adapter: Path) -> None:
    from edge_llm.cli.export import _adapter

    assert _adapter(str(adapter)) == {"path": str(adapter)}  # a folder, not a weight
    assert _adapter(f"{adapter}=-2") == {"path": str(adapter), "weight": -2.0}
    assert _adapter("a/b=c") == {"path": "a/b=c"}


def test_adapters_in_yaml(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("adapters:\n  - path: a\n  - {path: b, weight: 0.25}\n")
    recipe = load_recipe(path)
    assert recipe.adapters == [{"path": "a"}, {"path": "b", "weight": 0.25}]
    assert recipe.to_json()["adapters"] == [{"path": "a"}, {"path": "b", "weight": 0.25}]


@pytest.mark.parametrize(
    "adapters",
    ["a", ["a"], [{"weight": 1.0}], [{"path": "a", "scale": 1}], [{"path": "a", "weight": True}]],
)
def test_adapters_of_another_form(adapters: Any) -> None:
    with pytest.raises(ConfigError, match=r"adapters is .*expected a list of mappings with path"):
        Recipe(adapters=adapters)
