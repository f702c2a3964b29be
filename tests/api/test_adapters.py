"""LoRA adapters beside a program, against peft on the transformers model."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("peft", reason="needs the peft package")
from peft_adapters import write_adapter
from safetensors.numpy import load_file, save_file

import edge_llm
from edge_llm.errors import CheckpointError, ConfigError, RequestError
from edge_llm.program.file import Program as ProgramFile

Program = Callable[..., Path]
IDS = [(7 * i) % 250 for i in range(1, 40)]

PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.75}

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("llama", {}, {}),
    "llama, one matrix": ("llama", {}, {"target_modules": ["v_proj"]}),
    "llama, some of a joined matrix": ("llama", {}, {"target_modules": ["q_proj", "v_proj"]}),
    "llama, rsLoRA of rank 9": ("llama", {}, {"use_rslora": True, "r": 9}),
    "llama, ranks by name": (
        "llama",
        {},
        {"rank_pattern": {"layers.1.self_attn.q_proj": 20}, "alpha_pattern": {"up_proj": 3}},
    ),
    "llama, table and head": (
        "llama",
        {},
        {"target_modules": ["embed_tokens", "lm_head", "v_proj"]},
    ),
    "llama, tied, a table": (
        "llama",
        {"tie_word_embeddings": True},
        {"target_modules": ["embed_tokens", "q_proj"]},
    ),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}, {}),
    "qwen3": ("qwen3", {}, {}),
    "gemma3": ("gemma3_text", {}, {}),
    "phi3": ("phi3", {"rope_parameters": PLAIN_ROPE}, {}),
    "experts": ("qwen3_moe", {}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_peft(case: str, tiny_program: Program, tmp_path: Path) -> None:
    family, base, config = CASES[case]
    written = write_adapter(tmp_path / "lora", family, base=base, **config)
    expected = written.logits(IDS)
    with edge_llm.load(
        tiny_program(family=family, **base), threads=2, adapters={"mine": written.folder}
    ) as llm:
        assert llm.adapters == ("mine",)
        got, plain = llm.logits(IDS, adapter="mine"), llm.logits(IDS)
    scale = np.abs(expected).max()
    assert np.abs(got - expected).max() < 1e-4 * scale
    assert np.abs(plain - expected).max() > 1e-2 * scale


def test_a_model_without_its_adapter_keeps_its_bits(tiny_program: Program, tmp_path: Path) -> None:
    for scheme in ("fp32", "8da4w"):
        program = tiny_program(scheme)
        written = write_adapter(
            tmp_path / scheme, target_modules=["embed_tokens", "lm_head", "q_proj", "up_proj"]
        )
        with edge_llm.load(program, threads=2) as llm:
            expected = llm.logits(IDS)
        with edge_llm.load(program, threads=2, adapters={"mine": written.folder}) as llm:
            assert llm.logits(IDS).tobytes() == expected.tobytes()
            assert llm.logits(IDS, adapter="mine").tobytes() != expected.tobytes()


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_backends_agree(backend: str, tiny_program: Program, tmp_path: Path) -> None:
    written = write_adapter(tmp_path / "lora", target_modules=["embed_tokens", "lm_head", "k_proj"])
    with edge_llm.load(tiny_program(), backend=backend, adapters={"mine": written.folder}) as llm:
        got = llm.logits(IDS, adapter="mine")
    expected = written.logits(IDS)
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()


def _distance(one: Any, other: Any) -> float:
    return float(np.sqrt(np.square(one - other).mean() / np.square(other).mean()))


def test_a_rounded_program_is_as_near_with_an_adapter(
    tiny_program: Program, tmp_path: Path
) -> None:
    """Its matrices were multiplied with factors before they were rounded: so must adapters be."""
    program = tiny_program("8da4w")
    with ProgramFile.open(program) as opened:
        factors = [name for name in opened.tensors if name.startswith("factors.")]
    assert any(".rows." in name for name in factors)
    assert any(".columns." in name for name in factors)
    written = write_adapter(tmp_path / "lora")
    with edge_llm.load(program, adapters={"mine": written.folder}) as llm:
        got, plain = llm.logits(IDS, adapter="mine"), llm.logits(IDS)
    with edge_llm.load(tiny_program(), adapters={"mine": written.folder}) as llm:
        exact, exact_plain = llm.logits(IDS, adapter="mine"), llm.logits(IDS)
    assert _distance(exact, exact_plain) > 0.3
    assert _distance(got, exact) < 1.5 * _distance(plain, exact_plain)


@pytest.mark.parametrize("scheme", ["fp32", "8da4w"])
def test_rows_depend_on_their_own_adapter_alone(
    scheme: str, tiny_program: Program, tmp_path: Path
) -> None:
    one = write_adapter(tmp_path / "one", seed=1, target_modules=["q_proj", "down_proj", "lm_head"])
    two = write_adapter(tmp_path / "two", seed=2, r=20, target_modules=["v_proj", "embed_tokens"])
    folders = {"one": one.folder, "two": two.folder}
    prompts = [IDS, IDS[3:], IDS[:9]]
    options: dict[str, Any] = {"max_tokens": 12, "temperature": 0.0, "ignore_eos": True}

    def tokens(llm: edge_llm.LLM, prompt: list[int], name: str | None) -> list[tuple[Any, ...]]:
        answer = llm.generate(prompt, adapter=name, top_logprobs=2, **options)
        assert answer.logprobs is not None
        return [(item.logprob, item.top) for item in answer.logprobs]

    alone: dict[tuple[str | None, int], Any] = {}
    for name in (None, "one", "two"):
        with edge_llm.load(tiny_program(scheme), threads=1, adapters=folders) as llm:
            for index, prompt in enumerate(prompts):
                alone[name, index] = tokens(llm, prompt, name)
    assert len({str(value) for value in alone.values()}) == 9
    with (
        edge_llm.load(tiny_program(scheme), threads=2, adapters=folders) as llm,
        ThreadPoolExecutor(9) as pool,
    ):
        found = {
            (name, index): pool.submit(tokens, llm, prompts[index], name) for name, index in alone
        }
        assert {key: value.result() for key, value in found.items()} == alone


def test_the_cache_of_one_adapter_is_not_anothers(tiny_program: Program, tmp_path: Path) -> None:
    one, two = (write_adapter(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    prompt = [(5 * i) % 250 for i in range(150)]
    folders = {"one": one.folder, "two": two.folder, "same": one.folder}
    with edge_llm.load(tiny_program(), adapters=folders) as llm:

        def cached(name: str | None) -> int:
            return llm.generate(prompt, adapter=name, max_tokens=1).stats.cached_tokens

        assert [cached(name) for name in (None, "one", "two")] == [0, 0, 0]
        assert [cached(name) for name in (None, "one", "two")] == [149, 149, 149]
        assert cached("same") == 149  # its numbers are the same, under another name


def test_vectors_and_scores_with_an_adapter(tiny_program: Program, tmp_path: Path) -> None:
    written = write_adapter(tmp_path / "lora")
    with edge_llm.load(tiny_program(), adapters={"mine": written.folder}) as llm:
        plain, mine = llm.embed("some text"), llm.embed("some text", adapter="mine")
        assert _distance(mine, plain) > 0.1
        assert llm.prompt_logprobs(IDS, adapter="mine") != llm.prompt_logprobs(IDS)
        messages = [{"role": "user", "content": "hello"}]
        answers = [
            llm.chat(messages, adapter=name, max_tokens=8, temperature=0.0).token_ids
            for name in (None, "mine")
        ]
        assert answers[0] != answers[1]
        with pytest.raises(RequestError, match=r"adapter is 'other', expected one .* mine"):
            llm.generate("x", adapter="other")
    with edge_llm.load(tiny_program()) as llm, pytest.raises(RequestError, match="none is loaded"):
        llm.logits(IDS, adapter="mine")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_numbers_keep_their_type(dtype: torch.dtype, tiny_program: Program, tmp_path: Path) -> None:
    written = write_adapter(tmp_path / "half", dtype=dtype)
    whole = write_adapter(tmp_path / "whole")
    with edge_llm.load(tiny_program(), adapters={"mine": written.folder}) as llm:
        got, memory = llm.logits(IDS, adapter="mine"), llm.memory
    with edge_llm.load(tiny_program(), adapters={"mine": whole.folder}) as llm:
        assert llm.memory > memory
    expected = written.logits(IDS)
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()


def test_base_weights_that_peft_stores_beside(tiny_program: Program, tmp_path: Path) -> None:
    modules = ["q_proj", "embed_tokens", "lm_head"]
    written = write_adapter(tmp_path / "lora", base_weights=True, target_modules=modules)
    for scheme in ("fp32", "8da4w"):
        edge_llm.load(tiny_program(scheme), adapters={"mine": written.folder}).close()
    path = written.folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = "base_model.model.model.embed_tokens.base_layer.weight"
    save_file({**tensors, name: tensors[name][::-1].copy()}, path)
    with pytest.raises(CheckpointError, match=r"are not those of model\.embed_tokens\.weight"):
        edge_llm.load(tiny_program(), adapters={"mine": written.folder})


def _edited(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


QUERY = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
SHAPES = (("A.weight", (4, 64)), ("B.weight", (64, 4)))


def test_what_does_not_fit_is_refused(tiny_program: Program, tmp_path: Path) -> None:
    program, count = tiny_program(), 0

    def refused(kind: type[Exception], message: str, **changes: Any) -> None:
        nonlocal count
        count += 1
        folder = tmp_path / str(count)
        write_adapter(folder, target_modules=["q_proj"])
        tensors = load_file(folder / "adapter_model.safetensors")
        edited = {name: value for name, value in changes.items() if name.startswith("base_model")}
        _edited(folder, **{name: value for name, value in changes.items() if name not in edited})
        tensors |= edited
        kept = {name: value for name, value in tensors.items() if value is not None}
        save_file(kept, folder / "adapter_model.safetensors")
        with pytest.raises(kind, match=message):
            edge_llm.load(program, adapters={"mine": folder})

    refused(ConfigError, "use_dora: got True", use_dora=True)
    refused(ConfigError, "modules_to_save", modules_to_save=["lm_head"])
    refused(ConfigError, "peft_type: got 'IA3', expected 'LORA'", peft_type="IA3")
    refused(CheckpointError, r"lora_A.weight': got \[4, 64\], expected \[5, 64\]", r=5)
    refused(CheckpointError, "got None", **{f"{QUERY}B.weight": None})
    wide = np.zeros((4, 65), np.float32)
    refused(CheckpointError, r"got \[4, 65\], expected \[4, 64\]", **{f"{QUERY}A.weight": wide})
    other = "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight"
    refused(CheckpointError, "unknown: 'model.layers.9", **{other: np.zeros((4, 64), np.float32)})
    other_name = QUERY.replace(".layers", ".language_model.layers")
    again = {f"{other_name}{end}": np.zeros(shape, np.float32) for end, shape in SHAPES}
    refused(CheckpointError, "adapt the same module", **again)
    alone = "base_model.model.model.norm.weight"
    refused(CheckpointError, "left over: ", **{alone: np.zeros(64, np.float32)})
    bad = np.full((4, 64), np.inf, np.float32)
    refused(CheckpointError, "not finite", **{f"{QUERY}A.weight": bad})
    whole = np.zeros((4, 64), np.int32)
    refused(CheckpointError, "got I32", **{f"{QUERY}A.weight": whole})
    refused(ConfigError, "lora_alpha: got -1", lora_alpha=-1)


def test_files_that_are_damaged_are_refused(tiny_program: Program, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "lora", target_modules=["q_proj"]).folder
    weights = folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    for data in (b"", whole[:7], whole[:200], whole[:-5], whole + b"x", b"\xff" * 64):
        weights.write_bytes(data)
        with pytest.raises(CheckpointError):
            edge_llm.load(tiny_program(), adapters={"mine": folder})
    weights.write_bytes(whole)
    (folder / "adapter_config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="not valid JSON"):
        edge_llm.load(tiny_program(), adapters={"mine": folder})
    with pytest.raises(CheckpointError, match="is not a folder"):
        edge_llm.load(tiny_program(), adapters={"mine": tmp_path / "none"})
    with pytest.raises(ConfigError, match="the name of an adapter is"):
        edge_llm.load(tiny_program(), adapters={"a:b": folder})
    with pytest.raises(ConfigError, match="adapters are of type str"):
        edge_llm.load(tiny_program(), adapters=str(folder))  # type: ignore[arg-type]


def test_sessions_are_kept_apart(tiny_program: Program, tmp_path: Path) -> None:
    one, two = (write_adapter(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    prompt = [(5 * i) % 250 for i in range(150)]
    found: dict[str, list[int]] = {}
    for folders in ({"a": one.folder}, {"b": two.folder, "c": one.folder}):
        with edge_llm.load(
            tiny_program(), adapters=folders, sessions=tmp_path / "sessions", threads=1
        ) as llm:
            for name in folders:
                answer = llm.generate(prompt, adapter=name, max_tokens=4, temperature=0.0)
                found[name] = [answer.stats.cached_tokens, *answer.token_ids]
    assert found["a"][0] == found["b"][0] == 0
    assert found["c"][0] > 100  # of another name before the restart
    assert found["c"][1:] == found["a"][1:] != found["b"][1:]


def test_speculation_changes_no_token(tiny_program: Program, tmp_path: Path) -> None:
    written = write_adapter(tmp_path / "lora")
    prompt = [*range(40), *range(40), *range(20)]
    with edge_llm.load(tiny_program(), adapters={"mine": written.folder}) as llm:
        answers = [
            llm.generate(
                prompt,
                adapter="mine",
                max_tokens=60,
                temperature=0.0,
                ignore_eos=True,
                speculation=speculation,
            )
            for speculation in ("off", "ngram")
        ]
    assert answers[1].stats.drafted_tokens > 0
    assert answers[0].token_ids == answers[1].token_ids
