"""Gemma 4 against transformers, from a tiny checkpoint to a program, and in GGUF."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import (
    check_at_once,
    check_bits,
    check_fp32_program,
    check_interleaved,
    check_quantized_program,
    check_token_by_token,
    prompt,
)
from safetensors.torch import load_file, save_file
from stored_tensors import tensor_of

from edge_llm.errors import ConfigError
from edge_llm.export.pipeline import export
from edge_llm.export.recipes.file import load_recipe
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.families.gemma4_text import Gemma4TextConfig
from edge_llm.llm.registry import read_config
from edge_llm.program import cost
from edge_llm.program.file import Program
from edge_llm.program.plan import layer_of
from edge_llm.runner.backends.registry import block_tables, open_executor
from edge_llm.runner.executor import Batch, Limits, Segment, StepResult


def published(
    sizes: tuple[int, int, int, int, int], every: int, window: int, context: int, **others: Any
) -> dict[str, Any]:
    """``sizes``: width, layers, heads, heads of keys and values, ffn. Of ``every`` so many layers
    the last has no ``window``."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    layers = range(1, sizes[1] + 1)
    text = {
        **dict(zip((*names, "intermediate_size"), sizes, strict=True)),
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attention_k_eq_v": False,
        "bos_token_id": 2,
        "dtype": "bfloat16",
        "enable_moe_block": False,
        "eos_token_id": 1,
        "final_logit_softcapping": 30.0,
        "global_head_dim": 512,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size_per_layer_input": 0,
        "initializer_range": 0.02,
        "layer_types": ["sliding_attention" if n % every else "full_attention" for n in layers],
        "max_position_embeddings": context,
        "model_type": "gemma4_text",
        "moe_intermediate_size": None,
        "num_experts": None,
        "num_global_key_value_heads": None,
        "num_kv_shared_layers": 0,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-06,
        "rope_parameters": {
            "full_attention": {
                "partial_rotary_factor": 0.25,
                "rope_theta": 1000000.0,
                "rope_type": "proportional",
            },
            "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
        },
        "sliding_window": window,
        "tie_word_embeddings": True,
        "top_k_experts": None,
        "use_bidirectional_attention": None,
        "use_cache": True,
        "use_double_wide_mlp": False,
        "vocab_size": 262144,
        "vocab_size_per_layer_input": 262144,
    }
    return {
        "architectures": ["Gemma4ForConditionalGeneration"],
        "eos_token_id": [1, 106],
        "model_type": "gemma4",
        "text_config": text | others,
        "tie_word_embeddings": True,
        "vision_config": {"model_type": "gemma4_vision"},
    }


def unified(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config of the model whose parts have no encoders."""
    text = {
        key: value
        for key, value in config["text_config"].items()
        if "expert" not in key and "per_layer" not in key and "moe" not in key
    }
    return config | {
        "architectures": ["Gemma4UnifiedForConditionalGeneration"],
        "model_type": "gemma4_unified",
        "text_config": text | {"model_type": "gemma4_unified_text"},
        "vision_config": {"model_type": "gemma4_unified_vision"},
    }


# The published config of each model in configs/models, for tests/llm/test_model_catalogue.py.
LARGE_ONES = {"attention_k_eq_v": True, "use_bidirectional_attention": "vision"}
PUBLISHED: dict[str, dict[str, Any]] = {
    "gemma4-e2b": published(
        (1536, 35, 8, 1, 6144),
        5,
        512,
        131072,
        hidden_size_per_layer_input=256,
        num_kv_shared_layers=20,
        use_double_wide_mlp=True,
    ),
    "gemma4-e4b": published(
        (2560, 42, 8, 2, 10240),
        6,
        512,
        131072,
        hidden_size_per_layer_input=256,
        num_kv_shared_layers=18,
    ),
    "gemma4-26b-a4b": published(
        (2816, 30, 16, 8, 2112),
        6,
        1024,
        262144,
        enable_moe_block=True,
        num_experts=128,
        top_k_experts=8,
        moe_intermediate_size=704,
        num_global_key_value_heads=2,
        **LARGE_ONES,
    ),
    "gemma4-12b": unified(
        published(
            (3840, 48, 16, 8, 15360), 6, 1024, 262144, num_global_key_value_heads=1, **LARGE_ONES
        )
    ),
    "gemma4-31b": published(
        (5376, 60, 32, 16, 21504), 6, 1024, 262144, num_global_key_value_heads=4, **LARGE_ONES
    ),
}
LARGE: dict[str, Any] = {
    "hidden_size_per_layer_input": 0,
    "num_kv_shared_layers": 0,
    "use_double_wide_mlp": False,
    "attention_k_eq_v": True,
    "per_layer_config": {
        str(layer): {"head_dim": 24, "num_key_value_heads": 1} for layer in (1, 3, 5, 6)
    },
}
EXPERTS: dict[str, Any] = {
    "enable_moe_block": True,
    "num_experts": 12,
    "top_k_experts": 3,
    "moe_intermediate_size": 32,
}
CASES: dict[str, dict[str, Any]] = {
    "small": {},
    "narrow": {"use_double_wide_mlp": False, "final_logit_softcapping": None},
    "untied": {"tie_word_embeddings": False, "rms_norm_eps": 1e-2},
    "large": LARGE,
    "experts": LARGE | EXPERTS,
    "all": EXPERTS | {"attention_k_eq_v": True},
}


@pytest.fixture(params=[*CASES, "unified"])
def folder(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    if request.param == "unified":
        return tiny_checkpoint("gemma4_unified_text")
    return tiny_checkpoint("gemma4_text", **CASES[request.param])


@pytest.mark.parametrize("check", [check_at_once, check_token_by_token, check_interleaved])
def test_eager(check: Callable[[Path], None], folder: Path) -> None:
    check(folder)


def test_fp32_program(folder: Path, tmp_path: Path) -> None:
    check_fp32_program(folder, tmp_path / "x.edge")


@pytest.mark.parametrize("folder", ["small", "large", "experts"], indirect=True)
def test_quantized_program(folder: Path, tmp_path: Path) -> None:
    check_quantized_program(folder, "8da4w", tmp_path / "x.edge")


@pytest.mark.parametrize("folder", ["small", "large", "all"], indirect=True)
def test_tokens_depend_on_those_before_alone(folder: Path, tmp_path: Path) -> None:
    check_bits(folder, "8da4w", tmp_path / "x.edge")


def logits_of(program: Program, *steps: tuple[Segment, ...]) -> list[StepResult]:
    """Run steps of up to two sequences, with two threads, and return what each gave."""
    blocks = 4
    executor = open_executor(
        program,
        Limits(
            max_tokens=512,
            max_rows=512,
            max_sequences=2,
            blocks=(2 * blocks,) * len(program.plan.groups),
            kv_dtype=program.documents.model.kv_dtype,
            threads=2,
        ),
    )
    tables = block_tables(executor.limits.blocks, 2)
    try:
        return [
            executor.step(Batch.of(*segments, block_tables=tables, want_logits=True))
            for segments in steps
        ]
    finally:
        executor.close()


@pytest.mark.parametrize("folder", ["small", "experts", "all"], indirect=True)
def test_rows_that_nobody_wants_change_nothing(folder: Path, tmp_path: Path) -> None:
    """Layers that read the keys and values of others compute the wanted rows alone."""
    a, b = prompt(200, 5).numpy(), prompt(150, 6).numpy()
    recipe = load_recipe("8da4w", ["verify=false", "context=256"], model=str(folder))
    with Program.open(export(recipe, output=tmp_path / "x.edge")) as program:
        (every,) = logits_of(program, (Segment(a, [None] * 200), Segment(b, [None] * 150, 0, 1)))
        some = logits_of(
            program,
            (Segment(a[:90]), Segment(b[:33], [None] * 2, 0, 1)),
            (Segment(a[90:150], [None], 90), Segment(b[33:34], (), 33, 1)),
            (Segment(b[34:150], [None] * 5, 34, 1), Segment(a[150:], [None] * 9, 150, 0, 20)),
        )
    assert every.logits is not None
    wanted = [[200 + 31, 200 + 32], [149], [*range(345, 350), *range(191, 200)]]
    assert some[0].logits is not None
    for step, rows in zip(some, wanted, strict=True):
        assert step.logits is not None
        np.testing.assert_array_equal(step.logits, every.logits[rows])


def test_prompts_skip_layers_that_write_nothing(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = load_recipe("8da4w", ["verify=false"], model=str(tiny_checkpoint("gemma4_text")))
    with Program.open(export(recipe, output=tmp_path / "x.edge")) as program:
        plan = program.plan
    rows = {
        layer: {
            plan.values[op.outputs[0]].rows
            for op in plan.instructions
            if layer_of(plan, op) == layer
        }
        for layer in range(7)
    }
    assert [rows[layer] for layer in range(4)] == [{"T"}] * 4
    assert all("R" in rows[layer] for layer in (4, 5, 6))
    readers = [op for op in plan.instructions if op.op == "attend"]
    assert [plan.states[op.state].name.split(".")[2] for op in readers] == ["2", "3", "3"]
    assert len(plan.states) == 4  # what layers share costs no memory
    short, long = (cost.prefill_operations(plan, tokens) for tokens in (1, 101))
    whole = cost.prefill_operations(plan, 101, rows=101)
    assert long < 100 * short + short < whole


@pytest.mark.parametrize("folder", ["small"], indirect=True)
def test_hidden_states_are_those_of_every_token(folder: Path, tmp_path: Path) -> None:
    tokens = prompt(220, 8).numpy()  # enough that each worker takes rows of its own
    recipe = load_recipe("fp32", ["verify=false", "context=256"], model=str(folder))
    with Program.open(export(recipe, output=tmp_path / "x.edge")) as program:
        (whole,) = logits_of(program, (Segment(tokens, [None], 0, 0, 220),))
        parts = logits_of(
            program, (Segment(tokens[:40], (), 0, 0, 40),), (Segment(tokens[40:], (), 40, 0, 180),)
        )
    assert whole.hidden is not None
    np.testing.assert_array_equal(np.concatenate([part.hidden for part in parts]), whole.hidden)
    head = tensor_of(open_checkpoint(folder), "model.embed_tokens.weight").numpy()
    logits = 2.5 * np.tanh(whole.hidden @ head.T / 2.5)
    np.testing.assert_allclose(logits[-1:], whole.logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("quant", ["F32", "Q4_0"])
@pytest.mark.parametrize("folder", ["small", "narrow", "untied", "large", "experts"], indirect=True)
def test_gguf_is_the_same_model(folder: Path, quant: str, make_gguf: Callable[..., Path]) -> None:
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder, quant))
    assert made.config == source.config
    assert made.shapes == source.shapes
    for name in source.shapes:
        got, expected = tensor_of(made, name), tensor_of(source, name)
        if quant == "F32" or expected.dim() == 1:
            assert torch.equal(got, expected), name
        else:
            assert float((got - expected).abs().max()) < 0.1, name
        if name in made.integer_formats:
            stored = torch.from_numpy(made.integers(name).dequantize())
            assert torch.equal(stored, got), name


@pytest.mark.parametrize("token", ["<turn|>", "<|tool_response>"])
def test_what_ends_an_answer_in_gguf(
    token: str, tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint("gemma4_text"), folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / file).read_text(encoding="utf-8")
        (folder / file).write_text(text.replace("<|endoftext|>", token), encoding="utf-8")
    assert 256 in open_checkpoint(make_gguf(folder)).generation.stop_ids


@pytest.mark.parametrize("end", ["", "_swa"])
def test_gguf_whose_heads_rotate_in_part_is_refused(
    end: str, tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    def narrower(writer: Any) -> None:
        writer.kv_data[0][f"gemma4.rope.dimension_count{end}"].value //= 2

    path = make_gguf(tiny_checkpoint("gemma4_text"), "F32", edit=narrower)
    with pytest.raises(
        ConfigError, match=rf"gemma4\.rope\.dimension_count{end}: got \d+, expected"
    ):
        open_checkpoint(path)


def test_keys_and_values_that_nothing_reads_are_left_out(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint("gemma4_text"), folder)
    stored = load_file(folder / "model.safetensors")
    own = [name for name in stored if ".layers.3.self_attn." in name and "q_" not in name]
    extra = {name.replace(".3.", ".5."): stored[name].clone() for name in own if "o_" not in name}
    for name in ("model.vision_tower.a.weight", "model.embed_audio.b.weight"):
        extra[name] = torch.zeros(1)
    assert len(extra) == 5
    save_file({**stored, **extra}, folder / "model.safetensors")
    assert open_checkpoint(folder).shapes == open_checkpoint(tiny_checkpoint("gemma4_text")).shapes


CONFIG: dict[str, Any] = {
    "model_type": "gemma4_text",
    "layer_types": ["sliding_attention", "full_attention"] * 3,
    "num_hidden_layers": 6,
}


def config_of(**changes: Any) -> Gemma4TextConfig:
    config = read_config(CONFIG | changes, "config.json")[0]
    assert isinstance(config, Gemma4TextConfig)
    return config


def test_layers_read_the_last_of_their_kind_that_writes() -> None:
    shapes = [config_of(num_kv_shared_layers=3).attention(layer) for layer in range(6)]
    assert [shape.source for shape in shapes] == [None, None, None, 1, 2, 1]
    assert [shape.head_dim for shape in shapes] == [256, 512] * 3
    assert [shape.window for shape in shapes] == [512, 0] * 3
    assert {shape.scale for shape in shapes} == {1.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention: got 'all'"),
        ({"num_kv_shared_layers": 5}, "expected a layer of each kind before the last 5 of 6"),
        ({"num_kv_shared_layers": 7}, "num_kv_shared_layers: got 7"),
        ({"layer_types": ["full_attention"]}, "layer_types: got"),
        ({"vocab_size_per_layer_input": 9}, "vocab_size_per_layer_input: got 9"),
        ({"per_layer_config": {"0": {"head_dim": 64}}}, "per_layer_config: got"),
        ({"global_head_dim": 1024}, "global_head_dim: got 1024"),
        ({"attention_bias": True}, "attention_bias: got True"),
        ({"enable_moe_block": True}, "num_experts: missing"),
    ],
)
def test_what_it_cannot_honour(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config_of(**change)
    assert message in str(error.value)
