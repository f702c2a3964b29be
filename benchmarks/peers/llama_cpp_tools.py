"""llama.cpp's own tools, compiled from the sources in the sdist of llama-cpp-python.

    python benchmarks/peers/llama_cpp_tools.py

llama-quantize, llama-imatrix, llama-perplexity and llama-server go to
build/peers/llama-cpp-tools/build/bin, compiled for this very processor, without anything that
reaches for a network. Beside them is an interpreter whose `llama_cpp` is the sdist's, on the same
libraries. The first time takes 10 to 20 minutes with two idle cores; with
CMAKE_CXX_COMPILER_LAUNCHER=ccache in the environment later ones are shorter. `binaries` has the
tools with kernels for AVX2 too, as on processors without VNNI.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tarfile
import venv
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from programs import run
from registry import ENVIRONMENTS

PACKAGE = "llama-cpp-python==0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
# What its Python module imports, and the program that builds.
NEEDED = (
    "cmake==4.4.5",
    "diskcache==5.6.3",
    "jinja2==3.1.6",
    "numpy==2.4.6",
    "typing-extensions==4.16.0",
)
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON",  # the folder of the tools may be copied
    "-DBUILD_SHARED_LIBS=ON",
    "-DGGML_NATIVE=ON",
    "-DLLAMA_BUILD_TOOLS=ON",
    "-DLLAMA_BUILD_SERVER=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
)
TOOLS = ("llama-quantize", "llama-imatrix", "llama-perplexity", "llama-server")
# What llama.cpp takes without the processor's own features: AVX2, FMA, F16C and BMI2.
AVX2_OPTIONS = ("-DGGML_NATIVE=OFF",)

FOLDER = ENVIRONMENTS / "llama-cpp-tools"
BIN = FOLDER / "build" / "bin"
AVX2_BIN = FOLDER / "bin-avx2"
PYTHON = FOLDER / "env" / "bin" / "python"
CMAKE = PYTHON.with_name("cmake")
# What an interpreter needs to import `llama_cpp` on the libraries of the tools.
ENVIRONMENT = {"PYTHONPATH": str(FOLDER / "source"), "LLAMA_CPP_LIB_PATH": str(BIN)}


def install() -> None:
    """Build the tools and their interpreter, unless they are there.

    Raises:
        RuntimeError: the sdist is another file, or a step failed; with what it said last.
    """
    done = FOLDER / "installed.txt"
    wanted = "\n".join([PACKAGE, *NEEDED, *OPTIONS, *TOOLS, ""])
    if done.is_file() and done.read_text(encoding="utf-8") == wanted:
        return
    if not (FOLDER / "source").is_dir():
        unpack(download())
    if not PYTHON.is_file():
        venv.create(FOLDER / "env", with_pip=True)
    run([str(PYTHON), "-m", "pip", "install", "--quiet", *NEEDED])
    configure(FOLDER / "build")
    build(FOLDER / "build", *TOOLS)
    shutil.rmtree(AVX2_BIN, ignore_errors=True)  # of other sources
    done.write_text(wanted, encoding="utf-8")


def binaries(*, avx2: bool = False) -> Path:
    """Return the folder of the tools, installed; with ``avx2`` that of a copy of them whose kernels
    are for AVX2 and nothing newer, built in the first half minute.

    Raises:
        RuntimeError: as `install`.
    """
    install()
    if not avx2:
        return BIN
    folder = FOLDER / "build-avx2"
    if not AVX2_BIN.is_dir():
        configure(folder, *AVX2_OPTIONS)
        build(folder, "ggml-cpu")
        partial = FOLDER / "bin-avx2.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(BIN, partial, symlinks=True)
        kernels = (folder / "bin" / "libggml-cpu.so").resolve()
        shutil.copy2(kernels, partial / kernels.name)
        partial.rename(AVX2_BIN)
    return AVX2_BIN


def configure(folder: Path, *options: str) -> None:
    source = FOLDER / "source" / "vendor" / "llama.cpp"
    run([str(CMAKE), "-S", str(source), "-B", str(folder), *OPTIONS, *options])


def build(folder: Path, *targets: str) -> None:
    run([str(CMAKE), "--build", str(folder), "--parallel", "2", "--target", *targets])


def download() -> Path:
    """Return the sdist."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    name = f"{PACKAGE.replace('-', '_').replace('==', '-')}.tar.gz"
    archive = FOLDER / name
    if not archive.is_file():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
        run([*pip, "--no-binary", ":all:", "--dest", str(FOLDER), PACKAGE])
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise RuntimeError(f"{archive} has sha256 {digest}, expected {SHA256}")
    return archive


def unpack(archive: Path) -> None:
    partial = FOLDER / "source.partial"
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(partial, filter="data")
    (folder,) = partial.iterdir()
    folder.rename(FOLDER / "source")
    partial.rmdir()


if __name__ == "__main__":
    install()
    print(*(BIN / tool for tool in TOOLS), sep="\n")
