"""LFM2 against transformers, from a tiny checkpoint to a program, and the same models in GGUF."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import (
    assert_parity,
    check_at_once,
    check_bits,
    check_fp32_program,
    check_interleaved,
    check_quantized_program,
    check_token_by_token,
    eager,
    prompt,
    reference,
    running,
)
from stored_tensors import assert_same_model

import edge_llm
from edge_llm.errors import CheckpointError, ConfigError
from edge_llm.export.recipes.file import load_recipe
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.llm.registry import read_config
from edge_llm.program.file import Program
from edge_llm.program.plan import Group
from edge_llm.runner.backends.native import groups as groups_of
from edge_llm.runner.config import RunnerConfig
from edge_llm.runner.engine.memory import block_counts
from edge_llm.runner.evaluation.trace import trace

# GGUF has no head_dim of its own, and the width that the weights have.
USUAL = {"head_dim": 16, "tie_word_embeddings": True}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"tie_word_embeddings": True, "norm_eps": 1e-2},
    "biased": {"conv_bias": True, "block_auto_adjust_ff_dim": False},
    "usual": USUAL,
    "indices": {
        "layer_types": None,
        "full_attn_idxs": [0, 3],
        "conv_L_cache": 3,
        "block_ffn_dim_multiplier": 1.7,
        "rope_parameters": {"rope_type": "default", "rope_theta": 900.0},
    },
    "attention": {"layer_types": ["full_attention"] * 5},
}
LFM2: dict[str, Any] = {
    "architectures": ["Lfm2ForCausalLM"],
    "block_auto_adjust_ff_dim": True,
    "block_dim": 1024,
    "block_ff_dim": 6656,
    "block_ffn_dim_multiplier": 1.0,
    "block_mlp_init_scale": 1.0,
    "block_multiple_of": 256,
    "block_norm_eps": 1e-05,
    "block_out_init_scale": 1.0,
    "block_use_swiglu": True,
    "block_use_xavier_init": True,
    "bos_token_id": 1,
    "conv_L_cache": 3,
    "conv_bias": False,
    "conv_dim": 1024,
    "conv_dim_out": 1024,
    "conv_use_xavier_init": True,
    "eos_token_id": 7,
    "full_attn_idxs": [2, 5, 8, 10, 12, 14],
    "hidden_size": 1024,
    "initializer_range": 0.02,
    "max_position_embeddings": 128000,
    "model_type": "lfm2",
    "norm_eps": 1e-05,
    "num_attention_heads": 16,
    "num_heads": 16,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pad_token_id": 0,
    "rope_theta": 1000000.0,
    "tie_embedding": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_pos_enc": True,
    "vocab_size": 65536,
}
_LARGER = LFM2 | {"block_ff_dim": 12288, "hidden_size": 2048, "num_attention_heads": 32}
ATTENDING = {2, 5, 9, 13, 17, 21, 24, 27}
# The parts of the published configs that decide shapes and computation, for
# tests/llm/test_model_catalogue.py.
PUBLISHED: dict[str, dict[str, Any]] = {
    "lfm2-350m": LFM2,
    "lfm2-700m": LFM2 | {"block_ff_dim": 10240, "hidden_size": 1536, "num_attention_heads": 24},
    "lfm2-1.2b": _LARGER,
    "lfm2-2.6b": _LARGER
    | {
        "block_auto_adjust_ff_dim": False,
        "block_ff_dim": 10752,
        "full_attn_idxs": None,
        "layer_types": ["full_attention" if i in ATTENDING else "conv" for i in range(30)],
        "num_hidden_layers": 30,
    },
    # In the form of transformers 5.
    "lfm2.5-1.2b": {
        **{key: _LARGER[key] for key in _LARGER if key not in ("block_ff_dim", "rope_theta")},
        "intermediate_size": 12288,
        "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
    },
}


@pytest.fixture(params=CASES)
def folder(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("lfm2", **CASES[request.param])


@pytest.mark.parametrize("check", [check_at_once, check_token_by_token, check_interleaved])
def test_eager(check: Callable[[Path], None], folder: Path) -> None:
    check(folder)


def test_fp32_program(folder: Path, tmp_path: Path) -> None:
    check_fp32_program(folder, tmp_path / "x.edge")


@pytest.mark.parametrize("folder", ["plain", "biased"], indirect=True)
def test_quantized_program(folder: Path, tmp_path: Path) -> None:
    check_quantized_program(folder, "8da4w", tmp_path / "x.edge")


def test_more_than_three_blocks(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny_checkpoint("lfm2")
    recipe = load_recipe("fp32", ["verify=false", "context=256"], model=str(folder))
    tokens = prompt(230, 5)
    (expected,) = reference(folder, 256, tokens)
    every = torch.arange(len(tokens))
    model = eager(folder, 256)
    assert_parity(model(tokens, every, torch.zeros_like(tokens), every), expected)
    with Program.open(edge_llm.export(recipe, output=tmp_path / "x.edge")) as program:
        assert program.plan.groups == (Group("rows", 4, (0, 2, 3)), Group("kv", 0, (1, 4)))
        with running(program) as step:
            parts = [(0, 63), (63, 64), (64, 66), (66, 130), (130, 131), (131, 230)]
            got = [step((0, begin, tokens[begin:end])) for begin, end in parts]
    assert_parity(torch.cat(got), expected)


@pytest.mark.parametrize("scheme", ["fp32", "8da4w"])
def test_tokens_depend_on_those_before_alone(
    scheme: str, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    check_bits(tiny_checkpoint("lfm2"), scheme, tmp_path / "x.edge")


@pytest.mark.parametrize("speculation", ["off", "ngram", "auto"])
def test_rows_are_computed_again_to_the_same_bits(
    speculation: str,
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sequences that give way to others, come back, and find parts of their blocks."""
    monkeypatch.setattr("edge_llm.runner.engine.scheduler.RESERVE_TOKENS", 0)
    recipe = load_recipe("8da4w", ["gate=off"], model=str(tiny_checkpoint("lfm2")))
    path = edge_llm.export(recipe, output=tmp_path / "x.edge")
    tokens = prompt(200, 7).tolist()
    params = edge_llm.SamplingParams(
        temperature=0.3,
        seed=5,
        max_tokens=60,
        ignore_eos=True,
        top_logprobs=2,
        speculation="off",
    )
    prompts = [tokens[:90], tokens[:140], [*tokens[:90], *tokens[:40]], tokens[20:160]]
    with edge_llm.load(path, threads=1, max_sequences=1) as llm:
        expected = [llm.generate(ids, params) for ids in prompts]
        plan, dtype = llm.program.plan, llm.program.documents.model.kv_dtype
    budget = 7 * sum(group.block_bytes for group in groups_of(plan, dtype))
    params = replace(params, speculation=speculation)
    with edge_llm.load(path, threads=1, max_sequences=3, step_tokens=32, kv_budget=budget) as llm:
        for _ in range(2):
            streams = [llm.stream(ids, params) for ids in prompts]
            for stream, one in zip(streams, expected, strict=True):
                pieces = list(stream)
                ids = tuple(token for piece in pieces for token in piece.token_ids)
                logprobs = tuple(item for piece in pieces for item in piece.logprobs or ())
                assert (ids, logprobs) == (one.token_ids, one.logprobs)
        assert llm.stats().preemptions > 0


def test_convolutions_alone(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """transformers cannot run such a model; the eager module can."""
    folder = tiny_checkpoint("lfm2", layer_types=["conv"] * 5)
    recipe = load_recipe("fp32", ["context=256"], model=str(folder))
    with Program.open(edge_llm.export(recipe, output=tmp_path / "x.edge")) as program:
        assert program.plan.groups == (Group("rows", 4, (0, 1, 2, 3, 4)),)
        assert not any("rope" in weight.name for weight in program.plan.weights)


@pytest.mark.parametrize("folder", ["usual"], indirect=True)
def test_gguf_is_the_same_model(folder: Path, make_gguf: Callable[..., Path]) -> None:
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder))
    assert_same_model(made, source)


def config_of(**changes: Any) -> DecoderConfig:
    return read_config(LFM2 | changes, "config.json")[0]


@pytest.mark.parametrize(
    ("changes", "width"),
    [
        ({}, 4608),
        ({"block_auto_adjust_ff_dim": False}, 6656),
        ({"block_multiple_of": 1}, 4437),
        ({"block_ffn_dim_multiplier": 1.5, "block_multiple_of": 1}, 6655),
        ({"block_ff_dim": None, "intermediate_size": 384}, 256),
        ({"intermediate_size": 384}, 4608),
    ],
)
def test_the_width_of_the_weights(changes: dict[str, Any], width: int) -> None:
    assert config_of(**changes).intermediate_size == width


def test_both_ways_to_say_which_layers_attend() -> None:
    kinds = ["full_attention" if i in LFM2["full_attn_idxs"] else "conv" for i in range(16)]
    assert config_of(full_attn_idxs=None, layer_types=kinds) == config_of()
    assert config_of(layer_types=["conv"] * 16).attention(2) is None
    assert config_of(full_attn_idxs=None).attention(0) is not None


def test_a_convolution_of_another_shape(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    stored = load_file(tiny_checkpoint("lfm2") / "model.safetensors")
    name = "model.layers.0.conv.conv.weight"
    stored[name] = stored[name].transpose(0, 1).contiguous()
    save_file(stored, tmp_path / "model.safetensors")
    config = (tiny_checkpoint("lfm2") / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"conv\.conv\.weight.*\[1, 64, 4\]"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv_L_cache": 65}, "conv_L_cache: got 65, expected an integer from 1 to 64"),
        ({"layer_types": ["conv"]}, "layer_types: got ['conv'], expected 'full_attention' or"),
        ({"layer_types": ["mamba"] * 16}, "expected 'full_attention' or 'conv' for each of 16"),
        ({"full_attn_idxs": [-1]}, "full_attn_idxs: got [-1], expected a list of layers"),
        ({"full_attn_idxs": "all"}, "full_attn_idxs: got 'all', expected a list of layers"),
        ({"block_multiple_of": 0}, "block_multiple_of: got 0"),
        ({"block_ff_dim": 1}, "block_ff_dim: got 1, which block_ffn_dim_multiplier 1.0"),
        ({"block_ffn_dim_multiplier": 1e9}, "expected 1 to 16777216"),
        ({"attention_bias": True}, "attention_bias: got True, expected False"),
    ],
)
def test_what_it_cannot_honour(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config_of(**change)
    assert message in str(error.value)


@pytest.mark.parametrize("scheme", ["fp32", "8da4w"])
def test_every_instruction_is_that_of_the_oracle(
    scheme: str, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tiny_checkpoint("lfm2", conv_bias=True)
    recipe = load_recipe(scheme, ["verify=false"], model=str(folder))
    with Program.open(edge_llm.export(recipe, output=tmp_path / "x.edge")) as program:
        rows = trace(program, prompt(100, 1).tolist())
    assert [row.op for row in rows].count("causal_conv") == 3
    assert max(row.relative_error for row in rows) < 1e-5


def test_the_oracle_gives_the_same_logits(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = load_recipe("fp32", ["verify=false"], model=str(tiny_checkpoint("lfm2")))
    path = edge_llm.export(recipe, output=tmp_path / "x.edge")
    ids = prompt(150, 2).tolist()
    with edge_llm.load(path) as llm, edge_llm.load(path, backend="torch") as oracle:
        expected = llm.logits(ids)
        for chunk in (len(ids), 7):
            got = oracle.logits(ids, chunk=chunk)
            assert abs(got - expected).max() < 1e-4 * expected.std()


def test_what_a_sequence_may_hold(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """A context costs what attention keeps of it; convolutions keep a window and a step."""
    recipe = load_recipe("8da4w", ["gate=off"], model=str(tiny_checkpoint("lfm2")))
    path = edge_llm.export(recipe, output=tmp_path / "x.edge")
    with Program.open(path) as program:
        plan, dtype = program.plan, program.documents.model.kv_dtype
    rows, kv = groups_of(plan, dtype)
    assert (rows.window, kv.window) == (4, 0)
    assert (rows.block_bytes, kv.block_bytes) == (3 * 64 * 64 * 4, 2 * 2 * 64 * (24 + 32) * 2)
    config = RunnerConfig(max_sequences=2, step_tokens=64, kv_budget=3 * rows.block_bytes + 2**19)
    counts = block_counts(config, 64 * 40, 64, (rows, kv))
    assert 3 <= counts[0] <= 2 * 3  # a window and a step, of each sequence
    assert counts[0] * rows.block_bytes + counts[1] * kv.block_bytes <= config.kv_budget
