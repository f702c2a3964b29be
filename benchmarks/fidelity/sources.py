"""What is compared: one float checkpoint, the files that each side makes of it, and a text.

Everything is made on first use and kept in build/bench/quality/.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import llama_cpp_tools
from gguf import GGUFReader
from programs import FOLDER, ROOT, SMOLLM2, run

sys.path.insert(0, str(ROOT / "tests"))

import edge_llm
from edge_llm import catalogue
from edge_llm.export.origin.calibration import (
    BUILTIN,
    as_plain_text,
    calibration_file,
    read_calibration,
)
from edge_llm.export.recipes.file import load_recipe

WORK = FOLDER / "quality"
PEERS = ROOT / "benchmarks" / "peers"
THREADS = 2
_EVEN = "edge_llm.export.weights.calibration.even"


def own_file() -> Path:
    """Return SmolLM2 as its public file has it."""
    return Path(catalogue.pull(SMOLLM2))


def checkpoint() -> Path:
    """Return the float checkpoint: SmolLM2 with its channels scaled, a Hugging Face folder."""
    folder = WORK / "scrambled"
    if not folder.is_dir():
        partial = folder.with_name("scrambled.partial")
        script = str(ROOT / "benchmarks" / "scrambled_checkpoint.py")
        run([sys.executable, script, str(own_file()), str(partial)])
        partial.rename(folder)
    return folder


def floats() -> Path:
    """Return the float checkpoint as a GGUF file of float32."""
    path = WORK / "F32.gguf"
    if not path.is_file():
        partial = path.with_suffix(".partial")
        command = [sys.executable, str(PEERS / "write_gguf.py"), str(checkpoint()), str(partial)]
        run([*command, "--type", "f32", "--tokenizer", str(own_file())])
        partial.rename(path)
    return path


def importance() -> Path:
    """Return llama.cpp's importance matrix, made of the text that our calibration reads."""
    path = WORK / "imatrix.gguf"
    if not path.is_file():
        partial = path.with_name("imatrix.partial.gguf")
        text = WORK / "calibration.txt"
        pieces = read_calibration(calibration_file(BUILTIN))
        text.write_text(as_plain_text(pieces), encoding="utf-8")
        command = [str(llama_cpp_tools.BIN / "llama-imatrix"), "--model", str(floats())]
        command += ["--file", str(text), "--output", str(partial)]
        run([*command, "--ctx-size", "512", "--no-ppl", "--threads", str(THREADS)])
        partial.rename(path)
    return path


def quantized(kind: str, *, imatrix: bool = False) -> Path:
    """Return the float checkpoint as llama.cpp's quantizer makes it; ``kind`` as it calls it."""
    path = WORK / f"{kind}{'-imatrix' if imatrix else ''}.gguf"
    if not path.is_file():
        partial = path.with_suffix(".partial")
        command = [str(llama_cpp_tools.BIN / "llama-quantize")]
        if imatrix:
            command += ["--imatrix", str(importance())]
        run([*command, str(floats()), str(partial), kind, str(THREADS)])
        partial.rename(path)
    return path


def exported(model: Path, name: str, options: dict[str, Any]) -> Path:
    """Return a program made anew of ``model``; without a scheme among the options, of 8da4w.
    ``evened=False``, which no recipe has, leaves the factors between linears where they are."""
    settings = {"scheme": "8da4w", "verify": False, **options}
    left = nullcontext() if settings.pop("evened", True) else patch(_EVEN, return_value={})
    recipe = load_recipe(settings["scheme"], model=str(model), **settings)
    with left:
        return edge_llm.export(recipe, output=WORK / f"{name}.edge")


def text() -> str:
    """Return articles of the English Wikipedia."""
    from fixtures_assets import fetch_wikipedia

    articles: str = fetch_wikipedia().read_text(encoding="utf-8")
    return articles


def gguf_bits(path: Path) -> float:
    """Return the bits per weight of a GGUF file, as the report of an export counts them: all
    tensors over all elements."""
    tensors = GGUFReader(path).tensors
    size = sum(int(tensor.n_bytes) for tensor in tensors)
    return 8 * size / sum(int(tensor.n_elements) for tensor in tensors)
