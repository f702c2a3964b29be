"""The models that benchmarks run: their checkpoints and our program files, made on first use in
build/bench/MODEL/ (checkpoint/, 8da4w.edge)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_llm.program.summary import summary_of

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "bench"
SMOLLM2 = "smollm2-135m"
# name -> title; all but the small model have random weights of the true shape
MODELS = {
    "llama3.2-1b": "Llama-3.2-1B shape",
    "qwen3-0.6b": "Qwen3-0.6B shape",
    SMOLLM2: "SmolLM2-135M",
    "phi4-mini": "Phi-4-mini shape",
    "gemma3-1b": "Gemma-3-1B shape",
    "qwen3-30b-a3b": "Qwen3-30B-A3B shape, 8 of 48 layers",
    "gpt-oss-20b": "gpt-oss-20b shape, 4 of 24 layers",
    "lfm2-350m": "LFM2-350M shape",
    "qwen3.5-0.8b": "Qwen3.5-0.8B shape",
}


def checkpoint(model: str) -> Path:
    """Return the Hugging Face folder that every engine's file is made from."""
    folder = FOLDER / model / "checkpoint"
    if not (folder / "config.json").is_file():
        print(f"writing the checkpoint of {model}", file=sys.stderr)
        partial = folder.with_name("checkpoint.partial")
        if model == SMOLLM2:
            write_smollm2(partial)
        else:
            writer = Path(__file__).with_name("random_checkpoint.py")
            run([sys.executable, str(writer), model, str(partial)])
        partial.rename(folder)
    return folder


def program(model: str, kv_dtype: str = "f16") -> Path:
    """Return our file of the default recipe."""
    path = FOLDER / model / ("8da4w.edge" if kv_dtype == "f16" else f"8da4w-kv-{kv_dtype}.edge")
    if not path.is_file() or summary_of(path).older_format is not None:
        source = checkpoint(model)
        print(f"exporting {path.name} of {model}", file=sys.stderr)
        export = [sys.executable, "-m", "edge_llm.cli.main", "export", "--model", str(source)]
        run([*export, "--kv-dtype", kv_dtype, "--output", str(path)])
    return path


def write_smollm2(folder: Path) -> None:
    """Write SmolLM2's weights as the public GGUF holds them, dequantized to float32, with a
    tokenizer of bytes: what is timed are token ids."""
    from random_checkpoint import write_tokenizer
    from safetensors.numpy import save_file

    from edge_llm import catalogue
    from edge_llm.llm.checkpoints.arrays import to_float32
    from edge_llm.llm.checkpoints.detached import detached
    from edge_llm.llm.checkpoints.open import open_checkpoint

    source = open_checkpoint(catalogue.pull(SMOLLM2))
    facts = source.config
    attention = facts.attention(0)
    assert attention is not None
    assert attention.rope is not None
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: to_float32(detached(source.tensor(name))) for name in source.shapes}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": facts.vocab_size,
        "hidden_size": facts.hidden_size,
        "intermediate_size": facts.intermediate_size,
        "num_hidden_layers": facts.num_hidden_layers,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "head_dim": attention.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": facts.rms_norm_eps,
        "max_position_embeddings": facts.max_position_embeddings,
        "rope_theta": attention.rope.theta,
        "tie_word_embeddings": facts.tie_word_embeddings,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    write_tokenizer(folder)


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Return the command's output.

    Raises:
        RuntimeError: it failed; the message is the end of what it printed.
    """
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode != 0:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise RuntimeError("\n".join(lines[-12:]) or f"exit status {done.returncode}")
    return done.stdout
