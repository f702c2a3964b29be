"""The place where the commands of a page run: a folder with what they name, and its own store."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from shell_blocks import Line

from edge_llm import catalogue
from edge_llm.errors import SourceError

# Programs whose effect is known; what else stands in a page is checked and not run.
RUN = frozenset(
    [
        "cat",
        "cp",
        "curl",
        "echo",
        "edge-llm",
        "head",
        "ls",
        "mkdir",
        "openssl",
        "printf",
        "rm",
        "tail",
        "wc",
    ]
)
PORT = "8017"
MOST_SECONDS = 120


def runs_here(line: Line) -> bool:
    """Tell whether a line needs nothing but our programs and what the folder has."""
    return line.skipped is None and all(
        words[0] in RUN and not _fetches(words) for words in line.commands()
    )


def _fetches(words: list[str]) -> bool:
    """Tell whether a command would fetch a model."""
    if words[0] != "edge-llm":
        return False
    if any(word.startswith(("hf:", "https:")) for word in words):
        return True
    return words[1:2] in (["export"], ["pull"]) and any(_is_published(word) for word in words[2:])


def _is_published(word: str) -> bool:
    try:
        return bool(catalogue.find(word))
    except SourceError:
        return False


class Sandbox:
    """A folder to run commands in. It has a checkpoint by several names, a GGUF file, an adapter, a
    text and, in its store, programs by the names that the pages use."""

    def __init__(self, folder: Path, checkpoint: Path, program: Path, gguf: Path) -> None:
        self._folder = folder / "work"
        self._port = _free_port()
        self._server: subprocess.Popen[bytes] | None = None
        scripts = folder / "bin"
        scripts.mkdir()
        command = scripts / "edge-llm"
        start = "import sys; from edge_llm.cli.main import main; sys.exit(main())"
        command.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{start}' \"$@\"\n")
        command.chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if _is_kept(name)}
        self._environment = {
            **kept,
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            "EDGE_LLM_HOME": str(folder / "store"),
            "EDGE_LLM_PORT": str(self._port),
            "HF_HUB_OFFLINE": "1",  # nothing is fetched, whatever a page says
        }
        for name in ("path/to/checkpoint", "my-finetune", "DIR"):
            shutil.copytree(checkpoint, self._folder / name)
        shutil.copyfile(gguf, self._folder / "model.gguf")
        _write_adapter(self._folder / "my-lora", checkpoint)
        (folder / "home").mkdir()
        # so that an HTTP error is one of the command
        (folder / "home" / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
        text = "The quick brown fox jumps over the lazy dog. " * 200
        for name in ("FILE", "text.txt", "articles.txt"):
            (self._folder / name).write_text(text, encoding="utf-8")
        (self._folder / "notes.txt").write_text(text[:400], encoding="utf-8")
        store = folder / "store" / "programs"
        store.mkdir(parents=True)
        published = [f"smollm2-135m-{scheme}" for scheme in ("8da4w", "8da8w", "fp32")]
        for name in ("NAME", "my-model", *published):
            shutil.copyfile(program, store / f"{name}.edge")
        self._command(f"edge-llm default {published[0]}")

    def run(self, line: Line) -> None:
        """Run a line of a page. A server goes on in the background, once it answers, until the next
        one, or the end."""
        text = line.text.replace(PORT, str(self._port))
        if re.match(r"([A-Z_]+=\S+ +)*edge-llm serve(?! --help)", text):
            self._serve(text)
            return
        done = self._command(text)
        place = f"{line.page}:{line.number}: {line.text}"
        assert done.returncode == 0, f"{place}\n{done.stdout}\n{done.stderr}"

    def close(self) -> None:
        """End the server, if one runs."""
        if self._server is not None:
            self._server.terminate()
            self._server.communicate(timeout=MOST_SECONDS)
            self._server = None

    def _command(self, text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", text],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=MOST_SECONDS,
            check=False,
        )

    def _serve(self, text: str) -> None:
        self.close()
        self._server = subprocess.Popen(
            ["sh", "-c", f"exec {text}"],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for _ in range(MOST_SECONDS * 10):
            if self._server.poll() is not None:
                assert self._server.stderr is not None
                raise AssertionError(f"{text}\n{self._server.stderr.read().decode()}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=10):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise AssertionError(f"{text}: no answer")


def _is_kept(name: str) -> bool:
    if name in ("EDGE_LLM_NATIVE", "EDGE_LLM_ISA"):
        return True
    return not name.startswith(("EDGE_LLM", "HF_", "XDG_"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write_adapter(folder: Path, checkpoint: Path) -> None:
    """Write a LoRA adapter of rank 2 for the first layer's queries, as PEFT does."""
    import numpy as np
    from safetensors.numpy import save_file

    sizes = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    hidden = sizes["hidden_size"]
    heads = sizes["num_attention_heads"]
    rows = heads * (sizes.get("head_dim") or hidden // heads)
    folder.mkdir()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "my-finetune",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    random = np.random.default_rng(0)
    tensors = {
        f"{prefix}.lora_A.weight": random.normal(size=(2, hidden)).astype(np.float32),
        f"{prefix}.lora_B.weight": random.normal(size=(rows, 2)).astype(np.float32) * 0.01,
    }
    save_file(tensors, folder / "adapter_model.safetensors")
