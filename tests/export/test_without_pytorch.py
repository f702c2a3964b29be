"""Programs made without PyTorch: the same bytes as with it."""

from __future__ import annotations

import filecmp
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fixtures_checkpoints import FAMILY_SIZES, write_tiny_checkpoint
from fixtures_meta import QuantizedFactory

import edge_llm
from edge_llm.catalogue.entries import Entry, list_models
from edge_llm.export.lowering.blueprints import needed
from edge_llm.export.pipeline import export
from edge_llm.export.recipes.file import load_recipe
from edge_llm.export.recipes.recipe import ROTATIONS, Recipe
from edge_llm.llm.registry import FAMILIES

Tiny = Callable[..., Path]

# Exports each (source, scheme, output, more of the recipe) of argument 1, where torch and torchao
# cannot be imported.
WITHOUT = """
import json, sys
sys.modules["torch"] = sys.modules["torchao"] = None
from edge_llm.errors import EdgeLLMError
from edge_llm.export.pipeline import make_program
from edge_llm.export.recipes.recipe import ROTATIONS, Recipe
for source, scheme, output, options in json.loads(sys.argv[1]):
    recipe = Recipe(model=source, scheme=scheme, gate=None, **options)
    try:
        print(json.dumps(make_program(recipe, output=output).verification))
    except EdgeLLMError as error:
        print(json.dumps([type(error).__name__, str(error), error.hint]))
"""


def export_without(tasks: Sequence[tuple[str, str, str, dict[str, Any]]]) -> list[object]:
    command = [sys.executable, "-W", "error", "-c", WITHOUT, json.dumps(tasks)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_same_bytes_with_and_without(
    tiny_checkpoint: Tiny,
    make_gguf: Callable[..., Path],
    make_quantized_meta: QuantizedFactory,
    tmp_path: Path,
) -> None:
    quantized = make_quantized_meta(lora={"rank": 16}, spinquant=True)  # which transformers has not
    sources = {"quantized_llama": quantized.folder}
    sources |= {family: tiny_checkpoint(family) for family in FAMILIES if family not in sources}
    plain: dict[str, Any] = {}
    tasks = [(source, "8da4w", plain) for source in sources.values()]
    tasks += [(make_gguf(sources[family]), "8da4w", plain) for family in ("llama", "qwen3")]
    tasks += [(sources["qwen2"], scheme, plain) for scheme in ("8da8w", "fp16", "bf16", "fp32")]
    tasks += [(sources["qwen2"], "8da4w", {"rotate": rotate}) for rotate in ROTATIONS]
    outputs = [tmp_path / f"{index}.edge" for index in range(len(tasks))]
    said = export_without(
        [
            (str(source), scheme, str(output), options)
            for (source, scheme, options), output in zip(tasks, outputs, strict=True)
        ]
    )
    assert said == [{"skipped": "not compared with eager PyTorch, which is not installed"}] * len(
        tasks
    )
    for (source, scheme, options), output in zip(tasks, outputs, strict=True):
        recipe = Recipe(model=str(source), scheme=scheme, gate=None, **options)
        beside = export(recipe, output=tmp_path / "with.edge")
        assert beside.read_bytes() == output.read_bytes(), (source, scheme, options)


def _smallest(family: str) -> Entry:
    entries = [entry for entry in list_models() if entry.family == family]
    return min(entries, key=lambda entry: entry.parameters)


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", sorted(FAMILIES.keys() & {entry.family for entry in list_models()})
)
def test_the_sizes_of_the_catalogue(
    family: str, tmp_path: Path, make_gguf: Callable[..., Path]
) -> None:
    """The true widths and vocabulary of the smallest model of a family, a few of its layers."""
    config = {
        **_smallest(family).config,
        "num_hidden_layers": {"smollm3": 4, "gemma3_text": 6, "lfm2": 3, "olmo3": 4}.get(family, 2),
        "max_position_embeddings": 4096,
    }
    if family == "lfm2":
        config |= {"layer_types": None, "head_dim": 64}
    config |= {key: 8 for key in ("num_experts", "num_local_experts") if key in config}
    if family == "gemma3_text":
        config |= {"rope_parameters": None, "sliding_window_pattern": 6}
    elif family == "exaone4":
        config |= {"layer_types": ["full_attention"] * 2}
    elif family not in ("olmo3", "gpt_oss"):  # which have YaRN
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": 10_000.0}
    if family == "qwen3_5_text":
        config |= {key: FAMILY_SIZES[family][key] for key in ("layer_types", "rope_parameters")}
        config |= {"num_hidden_layers": 4}
    widths = {key: value for key, value in config.items() if key.endswith("intermediate_size")}
    config |= {**needed(family, config), **widths}
    if "mlp_only_layers" in config:  # of GGUF files every layer has experts
        config["mlp_only_layers"] = []
    if family == "granitemoehybrid":
        config |= {"mamba_d_head": "auto", "mamba_d_state": 128, "intermediate_size": 512}
    folder = tmp_path / "model"
    folder.mkdir()
    write_tiny_checkpoint(folder, family, dtype="bfloat16", **config)
    sources = [folder]
    if family != "olmo3":  # whose ropes have two bases here, and one in GGUF
        sources.append(make_gguf(folder, "Q8_0", name="model"))
    outputs = [tmp_path / f"{index}.edge" for index in range(len(sources))]
    export_without([(str(s), "8da4w", str(o), {}) for s, o in zip(sources, outputs, strict=True)])
    for source, output in zip(sources, outputs, strict=True):
        beside = export(
            Recipe(model=str(source), scheme="8da4w", gate=None), output=tmp_path / "with.edge"
        )
        assert filecmp.cmp(beside, output, shallow=False), source


def test_what_must_be_traced_asks_for_the_extra(
    tiny_checkpoint: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny_checkpoint("qwen3")
    from edge_llm.llm.blueprints import shipped

    monkeypatch.setattr(shipped, "structure", lambda config: "of tomorrow")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(edge_llm.MissingDependencyError, match="tracing a qwen3 model") as caught:
        export(load_recipe("8da4w", model=str(source)), output=tmp_path / "x.edge")
    assert "pip install 'torch==" in (caught.value.hint or "")
