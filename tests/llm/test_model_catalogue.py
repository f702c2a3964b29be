"""configs/models: every entry parses, and its facts are those of its public config."""

from __future__ import annotations

import math
import runpy
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_llm.llm.registry import FAMILIES, parameter_shapes, read_config

ENTRIES = sorted(
    (entry for entry in (files("edge_llm") / "configs" / "models").iterdir()),
    key=lambda entry: entry.name,
)
KEYS = {
    "name",
    "source",
    "family",
    "licence",
    "licence_url",
    "gated",
    "context",
    "parameters",
    "download_bytes",
    "stop_ids",
    "recipe",
    "config",
}
Sizes = tuple[int, int, int, int, int, int, int]


def published(family: str, sizes: Sizes, **others: Any) -> dict[str, Any]:
    """``sizes``: width, layers, heads, heads of keys and values, ffn, vocabulary, context."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    names += ("intermediate_size", "vocab_size", "max_position_embeddings")
    return {
        "model_type": family,
        **dict(zip(names, sizes, strict=True)),
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        **others,
    }


def llama3(sizes: Sizes, factor: float = 8.0, **others: Any) -> dict[str, Any]:
    scaling = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    off = {"attention_bias": False, "mlp_bias": False, "pretraining_tp": 1}
    return published("llama", sizes, rope_theta=5e5, rope_scaling=scaling, **off, **others)


def qwen2(sizes: Sizes, tied: bool = False, theta: float = 1e6) -> dict[str, Any]:
    window = {"sliding_window": 131072, "max_window_layers": 28, "use_sliding_window": False}
    return published("qwen2", sizes, tie_word_embeddings=tied, rope_theta=theta, **window)


def qwen3(sizes: Sizes, tied: bool = False) -> dict[str, Any]:
    return published(
        "qwen3",
        sizes,
        tie_word_embeddings=tied,
        rope_theta=1000000,
        rope_scaling=None,
        head_dim=128,
        attention_bias=False,
        sliding_window=None,
        max_window_layers=28,
        use_sliding_window=False,
    )


def phi3(sizes: Sizes, window: int, rotated: int | None, **others: Any) -> dict[str, Any]:
    """``rotated``: columns of a head that turn, half of which have a longrope factor each."""
    scaling = None
    if rotated is not None:
        half = rotated // 2
        scaling = {"type": "longrope", "short_factor": [1.0] * half, "long_factor": [2.0] * half}
    return published(
        "phi3",
        sizes,
        rope_theta=10000.0,
        rope_scaling=scaling,
        original_max_position_embeddings=4096,
        sliding_window=window,
        attention_bias=False,
        attention_dropout=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        auto_map={"AutoConfig": "configuration_phi3.Phi3Config"},
        **others,
    )


def smollm2(sizes: Sizes, theta: float) -> dict[str, Any]:
    return published(
        "llama",
        sizes,
        tie_word_embeddings=True,
        rope_theta=theta,
        rope_scaling=None,
        rope_interleaved=False,
        is_llama_config=True,
    )


_LLAMA_8B: Sizes = (4096, 32, 32, 8, 14336, 128256, 131072)
_LLAMA_70B: Sizes = (8192, 80, 64, 8, 28672, 128256, 131072)
# The parts of the published config.json files that decide shapes and computation. A family with a
# test file of its own has them there.
PUBLISHED = {
    "deepseek-r1-distill-llama-70b": llama3(_LLAMA_70B),
    "deepseek-r1-distill-llama-8b": llama3(_LLAMA_8B),
    "deepseek-r1-distill-qwen-1.5b": qwen2((1536, 28, 12, 2, 8960, 151936, 131072), theta=1e4),
    "deepseek-r1-distill-qwen-14b": qwen2((5120, 48, 40, 8, 13824, 152064, 131072)),
    "deepseek-r1-distill-qwen-32b": qwen2((5120, 64, 40, 8, 27648, 152064, 131072)),
    "deepseek-r1-distill-qwen-7b": qwen2((3584, 28, 28, 4, 18944, 152064, 131072), theta=1e4),
    "llama2-7b": published("llama", (4096, 32, 32, 32, 11008, 32000, 4096), rope_scaling=None),
    "llama3.1-8b": llama3(_LLAMA_8B),
    "llama3.2-1b": llama3(
        (2048, 16, 32, 8, 8192, 128256, 131072), 32.0, head_dim=64, tie_word_embeddings=True
    ),
    "llama3.2-3b": llama3(
        (3072, 28, 24, 8, 8192, 128256, 131072), 32.0, head_dim=128, tie_word_embeddings=True
    ),
    "llama3.3-70b": llama3(_LLAMA_70B),
    "mistral-7b": published(
        "mistral",
        (4096, 32, 32, 8, 14336, 32768, 32768),
        rope_theta=1000000.0,
        sliding_window=None,
        attention_dropout=0.0,
    ),
    "phi-3-mini-128k": phi3((3072, 32, 32, 32, 8192, 32064, 131072), 262144, 96),
    "phi-3-mini-4k": phi3((3072, 32, 32, 32, 8192, 32064, 4096), 2047, None),
    "phi-3.5-mini": phi3((3072, 32, 32, 32, 8192, 32064, 131072), 262144, 96),
    "phi-4-mini": phi3(
        (3072, 32, 24, 8, 8192, 200064, 131072),
        262144,
        96,
        tie_word_embeddings=True,
        partial_rotary_factor=0.75,
        full_attn_mod=1,
        interpolate_factor=1,
        lm_head_bias=False,
        mlp_bias=False,
    ),
    "qwen2.5-0.5b": qwen2((896, 24, 14, 2, 4864, 151936, 32768), tied=True),
    "qwen2.5-1.5b": qwen2((1536, 28, 12, 2, 8960, 151936, 32768), tied=True),
    "qwen2.5-14b": qwen2((5120, 48, 40, 8, 13824, 152064, 32768)),
    "qwen2.5-32b": qwen2((5120, 64, 40, 8, 27648, 152064, 32768)),
    "qwen2.5-3b": qwen2((2048, 36, 16, 2, 11008, 151936, 32768), tied=True),
    "qwen2.5-72b": qwen2((8192, 80, 64, 8, 29568, 152064, 32768)),
    "qwen2.5-7b": qwen2((3584, 28, 28, 4, 18944, 152064, 32768)),
    "qwen3-0.6b": qwen3((1024, 28, 16, 8, 3072, 151936, 40960), tied=True),
    "qwen3-1.7b": qwen3((2048, 28, 16, 8, 6144, 151936, 40960), tied=True),
    "qwen3-14b": qwen3((5120, 40, 40, 8, 17408, 151936, 40960)),
    "qwen3-32b": qwen3((5120, 64, 64, 8, 25600, 151936, 40960)),
    "qwen3-4b": qwen3((2560, 36, 32, 8, 9728, 151936, 40960), tied=True),
    "qwen3-8b": qwen3((4096, 36, 32, 8, 12288, 151936, 40960)),
    "qwen3-embedding-0.6b": qwen3((1024, 28, 16, 8, 3072, 151669, 32768), tied=True),
    "qwen3-embedding-4b": qwen3((2560, 36, 32, 8, 9728, 151665, 40960), tied=True),
    "qwen3-reranker-0.6b": qwen3((1024, 28, 16, 8, 3072, 151669, 40960), tied=True),
    "qwen3-reranker-4b": qwen3((2560, 36, 32, 8, 9728, 151669, 40960), tied=True),
    "smollm2-1.7b": smollm2((2048, 24, 32, 32, 8192, 49152, 8192), 130000),
    "smollm2-135m": smollm2((576, 30, 9, 3, 1536, 49152, 8192), 100000),
    "smollm2-360m": smollm2((960, 32, 15, 5, 2560, 49152, 8192), 100000),
    "smollm3-3b": published(
        "smollm3",
        (2048, 36, 16, 4, 11008, 128256, 65536),
        tie_word_embeddings=True,
        rope_theta=5000000.0,
        rope_scaling=None,
        attention_bias=False,
        mlp_bias=False,
        layer_types=["full_attention"] * 36,
        no_rope_layer_interval=4,
        no_rope_layers=[1, 1, 1, 0] * 9,
        sliding_window=None,
        use_sliding_window=False,
        max_window_layers=28,
    ),
}
for _path in sorted(Path(__file__).parent.glob("test_*.py")):
    if _path != Path(__file__) and "\nPUBLISHED" in _path.read_text(encoding="utf-8"):
        PUBLISHED |= runpy.run_path(str(_path))["PUBLISHED"]
# Their repositories store the table that embedding and head share twice.
STORED_TWICE = {"qwen3-0.6b", "qwen3-1.7b"}
FOUR_BITS = {"gpt-oss-20b"}  # whose experts are published so
FLOAT32 = {"embeddinggemma-300m": 2 * 3072 * 768}  # and so many numbers behind the model
WITH_EYES = {"gemma3-4b", "ministral3-3b", "ministral3-8b", "ministral3-14b"}
WITH_EYES |= {name for name in PUBLISHED if name.startswith(("qwen3.5-", "gemma4-"))}


# A family with a test file of its own may have its configs there.
COVERED = {config.get("text_config", config)["model_type"] for config in PUBLISHED.values()}


def test_there_is_a_published_config_for_each() -> None:
    names = {
        entry.name.removesuffix(".yaml") for entry in ENTRIES if _load(entry)["family"] in COVERED
    }
    assert names == set(PUBLISHED)


def _load(entry: Any) -> dict[str, Any]:
    facts: dict[str, Any] = yaml.safe_load(entry.read_text(encoding="utf-8"))
    return facts


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_facts(entry: Any) -> None:
    facts = _load(entry)
    assert entry.name == f"{facts['name']}.yaml"
    assert set(facts) - {"package", "sampling", "aliases"} == KEYS
    assert facts["source"].startswith("hf:")
    assert facts["family"] in FAMILIES
    assert facts["licence_url"].startswith("https://")
    assert isinstance(facts["gated"], bool)
    assert (files("edge_llm") / "configs" / "recipes" / f"{facts['recipe']}.yaml").is_file()
    assert facts["stop_ids"]
    if "package" in facts:
        package = facts["package"]
        assert set(package) == {"name", "version", "file", "sha256", "bytes"}
        assert len(bytes.fromhex(package["sha256"])) == 32
        assert isinstance(package["version"], str)
        assert package["bytes"] > 0
    else:
        bits = 4 if facts["name"] in FOUR_BITS else 16
        assert 8 * facts["download_bytes"] >= bits * facts["parameters"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_facts_follow_from_the_config(name: str) -> None:
    known = {facts["name"]: facts for facts in map(_load, ENTRIES)}
    assert name in known, f"PUBLISHED has {name}, and no file of configs/models has that name"
    facts = known[name]
    config, unread = read_config(PUBLISHED[name], name)
    assert unread == ()
    assert config.model_type == facts["family"]
    assert config.max_position_embeddings == facts["context"]
    # What the planner reads says the same.
    layers = range(config.num_hidden_layers)
    sizes = {
        "model_type": config.model_type,
        "max_position_embeddings": config.max_position_embeddings,
    }
    stated, unread = read_config(facts["config"] | sizes, name)
    assert unread == ()
    shapes = parameter_shapes(config)
    assert parameter_shapes(stated) == shapes
    windows = [
        [None if shape is None else shape.window for shape in map(found.attention, layers)]
        for found in (stated, config)
    ]
    assert windows[0] == windows[1]
    parameters = sum(math.prod(shape) for shape in shapes.values())
    assert parameters == facts["parameters"]
    assert all(0 <= id_ < config.vocab_size for id_ in facts["stop_ids"])
    if "package" not in facts and name not in FOUR_BITS:
        # Two bytes for each parameter, and headers of some 100 bytes a tensor.
        besides = config.vocab_size * config.hidden_size if name in STORED_TWICE else 0
        besides += FLOAT32.get(name, 0)
        size = 4 if name in FLOAT32 else 2
        more = facts["download_bytes"] - size * (parameters + besides)
        assert 0 <= more <= (3e9 if name in WITH_EYES else 200 * len(shapes))
