"""llama.cpp's server, and the files that it and ours serve in comparisons of the two."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import llama_cpp_tools
from programs import FOLDER, SMOLLM2, checkpoint, run

from edge_llm import catalogue

HERE = Path(__file__).resolve().parent
_LOADED_SECONDS = 120.0


def files(model: str) -> tuple[Path, Path]:
    """Return our program of a model, and the GGUF file that llama.cpp serves; made on first use in
    build/bench/MODEL/served/.

    SmolLM2 is its public file (Q4_1) with llama.cpp, and the default program of that with us. A
    shape has random weights, llama.cpp's Q4_0 and our `8da4w` of one float16 file, Llama 3's
    tokenizer and SmolLM2's chat template.

    Raises:
        RuntimeError: with what failed.
    """
    folder = FOLDER / model / "served"
    folder.mkdir(parents=True, exist_ok=True)
    ours, public = folder / "8da4w.edge", Path(catalogue.pull(SMOLLM2))
    if model == SMOLLM2:
        if not ours.is_file():
            export(public, ours)
        return ours, public
    theirs = folder / "Q4_0.gguf"
    if not (ours.is_file() and theirs.is_file()):
        llama_cpp_tools.install()
        half = folder / "f16.gguf"
        vocabulary = llama_cpp_tools.FOLDER / "source/vendor/llama.cpp/models"
        write = [sys.executable, str(HERE / "write_gguf.py"), str(checkpoint(model)), str(half)]
        write += ["--tokenizer", str(vocabulary / "ggml-vocab-llama-bpe.gguf")]
        run([*write, "--template", str(public)])
        run([str(llama_cpp_tools.BIN / "llama-quantize"), str(half), str(theirs), "Q4_0"])
        export(half, ours)
        half.unlink()
    return ours, theirs


def export(source: Path, program: Path) -> None:
    command = [sys.executable, "-m", "edge_llm.cli.main", "export", "--model", str(source)]
    run([*command, "--set", "verify=false", "--output", str(program)])


@contextmanager
def llama_server(
    model: Path, threads: int, slots: int, context: int, *, avx2: bool = False
) -> Iterator[str]:
    """Run llama-server with so many slots of so many tokens each, and its defaults; give its
    address. ``avx2``: with kernels for AVX2 alone.

    Raises:
        RuntimeError: it cannot be built, ended, or loaded nothing in two minutes.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    binary = llama_cpp_tools.binaries(avx2=avx2) / "llama-server"
    command = [str(binary), "--model", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--threads", str(threads)]
    command += ["--parallel", str(slots), "--ctx-size", str(slots * context)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + _LOADED_SECONDS
        while not healthy(url):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"llama-server does not serve {model.name}")
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
