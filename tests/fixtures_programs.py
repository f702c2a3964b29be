"""Exported programs, each made once a test run: the real small model, and tiny random ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edge_llm.export.outcome import Outcome

TinyProgram = Callable[..., Path]


@pytest.fixture(scope="session")
def smollm2_8da4w(smollm2_8da4w_made: Outcome) -> Path:
    """SmolLM2-135M-Instruct, 8da4w, the default recipe."""
    return smollm2_8da4w_made.path


@pytest.fixture(scope="session")
def smollm2_8da4w_made(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The program of `smollm2_8da4w`, and what its export measured."""
    return _export(smollm2_gguf, "8da4w", tmp_path_factory)


@pytest.fixture(scope="session")
def smollm2_fp32(smollm2_fp32_made: Outcome) -> Path:
    """SmolLM2-135M-Instruct, fp32."""
    return smollm2_fp32_made.path


@pytest.fixture(scope="session")
def smollm2_fp32_made(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The program of `smollm2_fp32`, and what its export measured."""
    return _export(smollm2_gguf, "fp32", tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_program(
    tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> TinyProgram:
    """``tiny_program(scheme="fp32", family="llama", kv_dtype=None, activations=None, **checkpoint)
    -> path`` of an exported random model, not verified; equal arguments give the same file."""
    made: dict[str, Path] = {}

    def make(
        scheme: str = "fp32",
        family: str = "llama",
        kv_dtype: str | None = None,
        activations: str | None = None,
        **checkpoint: object,
    ) -> Path:
        import edge_llm

        key = repr((scheme, family, kv_dtype, activations, sorted(checkpoint.items())))
        if key not in made:
            source = tiny_checkpoint(family, **checkpoint)
            recipe = edge_llm.Recipe(
                model=str(source),
                scheme=scheme,
                kv_dtype=kv_dtype,
                activations=activations,
                gate=None,
                verify=False,
            )
            output = tmp_path_factory.mktemp("tiny") / "tiny.edge"
            made[key] = edge_llm.export(recipe, output=output)
        return made[key]

    return make


def _export(source: Path, quant: str, factory: pytest.TempPathFactory) -> Outcome:
    from edge_llm.export.pipeline import make_program
    from edge_llm.export.recipes.file import load_recipe

    recipe = load_recipe(quant, model=str(source))
    return make_program(recipe, output=factory.mktemp("smollm2") / f"smollm2-{quant}.edge")
