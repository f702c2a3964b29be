"""OLMo 3 against transformers, from a tiny checkpoint to a program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures_checkpoints import YARN_ROPE
from parity import (
    check_at_once,
    check_bits,
    check_fp32_program,
    check_interleaved,
    check_quantized_program,
    check_token_by_token,
)
from stored_tensors import assert_same_model

from edge_llm.errors import ConfigError
from edge_llm.llm.blueprints import shipped
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.llm.registry import read_config
from edge_llm.llm.rope import Rope, YarnScaling

CASES: dict[str, dict[str, Any]] = {
    "untied": {},
    "tied": {"tie_word_embeddings": True, "rms_norm_eps": 1e-3},
    "biases": {"attention_bias": True, "num_key_value_heads": 4},
    "usual layers": {"layer_types": None, "num_hidden_layers": 5},
    "one rope": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 5_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5_000.0},
        }
    },
}
YARN = {
    "attention_factor": 1.2079441541679836,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "factor": 8.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "yarn",
}
# The published config of each model in configs/models, for tests/llm/test_model_catalogue.py.
PUBLISHED: dict[str, dict[str, Any]] = {
    "olmo3-7b": {
        "architectures": ["Olmo3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "eos_token_id": 100257,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 11008,
        "layer_types": [*["sliding_attention"] * 3, "full_attention"] * 8,
        "max_position_embeddings": 65536,
        "model_type": "olmo3",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
        "pad_token_id": 100277,
        "rms_norm_eps": 1e-06,
        "rope_scaling": YARN,
        "rope_theta": 500000,
        "sliding_window": 4096,
        "tie_word_embeddings": False,
        "use_cache": False,
        "vocab_size": 100278,
    }
}


@pytest.fixture(params=CASES)
def folder(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("olmo3", **CASES[request.param])


@pytest.mark.parametrize("check", [check_at_once, check_token_by_token, check_interleaved])
def test_eager(check: Callable[[Path], None], folder: Path) -> None:
    check(folder)


def test_fp32_program(folder: Path, tmp_path: Path) -> None:
    check_fp32_program(folder, tmp_path / "x.edge")


@pytest.mark.parametrize("folder", ["untied", "tied"], indirect=True)
def test_quantized_program(folder: Path, tmp_path: Path) -> None:
    check_quantized_program(folder, "8da4w", tmp_path / "x.edge")


@pytest.mark.parametrize("scheme", ["fp32", "8da4w"])
def test_tokens_depend_on_those_before_alone(
    scheme: str, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    check_bits(tiny_checkpoint("olmo3"), scheme, tmp_path / "x.edge")


def config_of(**changes: Any) -> DecoderConfig:
    return read_config(PUBLISHED["olmo3-7b"] | changes, "config.json")[0]


def test_both_forms_of_ropes_are_the_same() -> None:
    by_kind = config_of(
        rope_scaling=None,
        rope_parameters={
            "full_attention": YARN | {"rope_theta": 500_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 500_000.0},
        },
    )
    assert by_kind == config_of() == config_of(layer_types=None)
    near, far = (by_kind.attention(layer) for layer in (2, 3))  # type: ignore[misc]
    assert near.rope == Rope(500_000.0, 128)
    assert far.rope is not None
    assert isinstance(far.rope.scaling, YarnScaling)
    assert (near.window, far.window) == (4096, 0)


def test_an_edit_of_a_module_that_another_takes_parts_from_makes_its_plan_old(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = Path(shipped.importlib.resources.files("edge_llm") / "llm" / "models")  # type: ignore
    models = tmp_path / "llm" / "models"
    models.mkdir(parents=True)
    for file in source.glob("*.py"):
        (models / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(shipped.importlib.resources, "files", lambda name: tmp_path)
    before = {family: shipped.digest(family) for family in ("olmo2", "olmo3", "llama")}
    (models / "olmo2.py").write_bytes((models / "olmo2.py").read_bytes() + b"\n")
    changed = {family for family, old in before.items() if shipped.digest(family) != old}
    assert changed == {"olmo2", "olmo3"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mlp_bias": True}, "mlp_bias: got True, expected False"),
        ({"layer_types": ["linear_attention"] * 32}, "layer_types: got"),
        ({"rope_parameters": {"full_attention": YARN_ROPE, "x": {}}}, "rope_parameters.x: got {}"),
    ],
)
def test_what_it_cannot_honour(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config_of(**{"rope_scaling": None, **change})
    assert message in str(error.value)


ONE_THETA = {
    "full_attention": YARN_ROPE,
    "sliding_attention": {"rope_type": "default", "rope_theta": YARN_ROPE["rope_theta"]},
}


@pytest.mark.parametrize(
    "changes", [{}, {"layer_types": ["sliding_attention"] * 4}, {"tie_word_embeddings": True}]
)
def test_gguf_is_the_same_model(
    changes: dict[str, Any], tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    folder = tiny_checkpoint("olmo3", rope_parameters=ONE_THETA, **changes)
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder))
    assert_same_model(made, source)


def test_a_gguf_whose_windows_are_no_list_of_layers_is_refused(
    tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    def edit(writer: Any) -> None:
        writer.add_array("olmo2.attention.sliding_window_pattern", [True, False])

    folder = tiny_checkpoint("olmo2")
    with pytest.raises(ConfigError, match=r"layer_types: got \['sliding_attention', 'full_"):
        open_checkpoint(make_gguf(folder, edit=edit))
