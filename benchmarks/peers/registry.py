"""The peers: how each is installed, how its files are made, and which script times them."""

from __future__ import annotations

import json
import shutil
import sys
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from programs import FOLDER, ROOT, checkpoint, run

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = ROOT / "build" / "peers"
CONTEXT = 2304  # tokens: 2,048 of prompt, and room to decode after them
Prepare = Callable[[Path, str, Path], None]


@dataclass(frozen=True, slots=True)
class Peer:
    """An engine of someone else's.

    ``packages`` go into an environment of its own, with ``pip_options``; ``unwanted`` ones are
    taken out again; ``environment`` is the installer's. ``prepare(python, model, folder)`` makes in
    ``folder`` the files that ``variants`` names, each with its title; ``files`` is the peer whose
    files it takes, if not its own. ``script`` times one.
    """

    name: str
    packages: tuple[str, ...]
    variants: Mapping[str, str]
    script: str
    prepare: Prepare
    pip_options: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    files: str = ""

    @property
    def python(self) -> Path:
        return ENVIRONMENTS / self.name / "bin" / "python"

    def folder(self, model: str) -> Path:
        return FOLDER / model / (self.files or self.name)

    def install(self) -> None:
        """Make the environment; one that is complete is left alone.

        Raises:
            RuntimeError: with what its installer said last.
        """
        done = ENVIRONMENTS / f"{self.name}.txt"
        settings = [f"{name}={value}" for name, value in self.environment.items()]
        wanted = "\n".join([*self.packages, *self.pip_options, *settings, ""])
        if self.python.exists() and done.exists() and done.read_text() == wanted:
            return
        venv.create(ENVIRONMENTS / self.name, with_pip=True)
        pip = [str(self.python), "-m", "pip"]
        run([*pip, "install", "--quiet", *self.pip_options, *self.packages], self.environment)
        if self.unwanted:
            run([*pip, "uninstall", "--quiet", "--yes", *self.unwanted])
        done.write_text(wanted)

    def make(self, model: str) -> None:
        """Make this peer's files of a model; those that are there are left alone.

        Raises:
            RuntimeError: with what failed.
        """
        folder = self.folder(model)
        if folder.exists():
            return
        if not self.python.exists():
            raise RuntimeError("not installed")
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        self.prepare(self.python, model, partial)
        for variant in self.variants:
            if not (partial / variant).exists():
                raise RuntimeError(f"its converter wrote no {variant}")
        partial.rename(folder)


def prepare_llama_cpp(python: Path, model: str, folder: Path) -> None:
    half = folder / "f16.gguf"
    run([sys.executable, str(HERE / "write_gguf.py"), str(checkpoint(model)), str(half)])
    for variant in ("q4_0", "q4_k_m"):
        target = str(folder / f"{variant}.gguf")
        run([str(python), str(HERE / "quantize_llama_cpp.py"), str(half), target, variant])
    half.unlink()


def prepare_onnxruntime(python: Path, model: str, folder: Path) -> None:
    build = [str(python), "-m", "onnxruntime_genai.models.builder"]
    build += ["-i", str(checkpoint(model)), "-o", str(folder / "int4"), "-c", str(folder / "cache")]
    build += ["-p", "int4", "-e", "cpu"]
    run([*build, "--extra_options", "int4_accuracy_level=4", "int4_block_size=32"])


def prepare_openvino(python: Path, model: str, folder: Path) -> None:
    source = checkpoint(model)
    width = json.loads((source / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    export = [str(python.with_name("optimum-cli")), "export", "openvino", "--model", str(source)]
    export += ["--task", "text-generation-with-past", "--weight-format", "int4", "--sym"]
    run([*export, "--group-size", "128" if width % 128 == 0 else "64", str(folder / "int4")])


def prepare_executorch(python: Path, model: str, folder: Path) -> None:
    script = str(HERE / "export_executorch.py")
    run([str(python), script, str(checkpoint(model)), str(folder / "model.pte"), str(CONTEXT)])


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "llama-cpp",
            ("llama-cpp-python==0.3.36",),
            {"q4_0.gguf": "llama.cpp Q4_0", "q4_k_m.gguf": "llama.cpp Q4_K_M"},
            "time_llama_cpp.py",
            prepare_llama_cpp,
            # compiled for this very processor, and never taken from another's
            ("--no-binary=llama-cpp-python", "--no-cache-dir"),
        ),
        Peer(
            "onnxruntime-genai",
            (
                "onnxruntime-genai==0.18.0",
                "onnx==1.23.2",
                "onnx-ir==1.1.0",
                "torch==2.13.0",
                "transformers==5.23.0",
            ),
            {"int4": "ONNX Runtime GenAI int4"},
            "time_onnxruntime.py",
            prepare_onnxruntime,
        ),
        Peer(
            "openvino-genai",
            ("openvino-genai==2026.4.1.0", "optimum-intel[openvino]==2.2.0", "torch==2.13.0"),
            {"int4": "OpenVINO GenAI int4"},
            "time_openvino.py",
            prepare_openvino,
            unwanted=("torchvision",),  # one built for CUDA breaks the exporter
        ),
        Peer(
            "executorch",
            ("executorch==1.5.1", "safetensors>=0.5", "torch==2.13.0", "torchao==0.18.0"),
            {"model.pte": "ExecuTorch 8da4w"},
            "time_executorch.py",
            prepare_executorch,
        ),
    )
}
JUDGE = "llama.cpp Q4_0"
# The judge as on processors without VNNI.
AVX2_JUDGE = replace(
    PEERS["llama-cpp"],
    name="llama-cpp-avx2",
    files="llama-cpp",
    environment={
        "CMAKE_ARGS": "-DGGML_NATIVE=OFF -DGGML_SSE42=ON -DGGML_AVX=ON -DGGML_AVX2=ON"
        " -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON"
    },
)
