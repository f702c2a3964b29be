"""The real small model, in float32 from its GGUF file."""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path

import torch
import yaml

from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.models.build import load_model

PROMPT = [504, 3575, 282, 4649, 314]  # "The capital of France is"
CONTINUATION = [7042, 30, 198, 198]  # " Paris.\n\n"


def test_continues_as_known(smollm2_gguf: Path) -> None:
    checkpoint = open_checkpoint(smollm2_gguf)
    model = load_model(checkpoint.config, checkpoint.tensor, context=16, kv_dtype=torch.float32)
    tokens, got = torch.tensor(PROMPT), []
    positions = torch.arange(len(PROMPT))
    for _ in CONTINUATION:
        last = torch.tensor([len(tokens) - 1])
        tokens = model(tokens, positions, torch.zeros_like(tokens), last).argmax(dim=-1)
        positions = positions[-1:] + 1
        got.append(int(tokens))
    assert got == CONTINUATION


def test_is_what_the_catalogue_says(smollm2_gguf: Path) -> None:
    entry = files("edge_llm") / "configs" / "models" / "smollm2-135m.yaml"
    facts = yaml.safe_load(entry.read_text(encoding="utf-8"))
    checkpoint = open_checkpoint(smollm2_gguf)
    assert checkpoint.config.model_type == facts["family"]
    assert checkpoint.config.max_position_embeddings == facts["context"]
    assert checkpoint.license == facts["licence"]
    assert set(facts["stop_ids"]) <= set(checkpoint.generation.stop_ids)
    shapes = checkpoint.shapes.values()
    assert sum(math.prod(shape) for shape in shapes) == facts["parameters"]
    assert smollm2_gguf.name == facts["package"]["file"].rpartition("/")[2]
    assert smollm2_gguf.stat().st_size == facts["package"]["bytes"]
