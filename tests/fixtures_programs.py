"""The real small model, exported once a test run."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smollm2_8da4w(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct, 8da4w, the default recipe."""
    return _export(smollm2_gguf, "8da4w", tmp_path_factory)


@pytest.fixture(scope="session")
def smollm2_fp32(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct, fp32."""
    return _export(smollm2_gguf, "fp32", tmp_path_factory)


def _export(source: Path, quant: str, factory: pytest.TempPathFactory) -> Path:
    import edge_llm
    from edge_llm.export.recipe import load_recipe

    recipe = load_recipe(quant, model=str(source))
    return edge_llm.export(recipe, output=factory.mktemp("smollm2") / f"smollm2-{quant}.edge")
