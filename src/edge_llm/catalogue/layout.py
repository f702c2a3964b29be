"""Which files of a model's repository an export reads, and whether a folder has all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

INDEX = "model.safetensors.index.json"
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_META_WEIGHTS = re.compile(r"consolidated\.\d+\.pth")
_GGUF_PART = re.compile(r"(.+)-\d{5}-of-(\d{5})\.gguf")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "*.tiktoken")
_BESIDE = ("*.json", "*.jinja", *_TOKENIZERS, "tokenizer*", "merges.txt", "README.md", "LICENSE*")
# Of the sentence-transformers library: what is made of hidden states.
_MODULE = re.compile(r"\d+_[A-Za-z]+/(config\.json|model\.safetensors)")
# They come last, so that a download that was interrupted lacks them.
_LAST = ("config.json", "params.json")


def wanted(names: Iterable[str]) -> list[str]:
    """Return the files to fetch of a repository that holds ``names``, in the order to do it.

    Other formats of the same weights are left out: ``.bin``, ``original/``, ``onnx/``, and
    ``consolidated*`` where there are safetensors of the usual names. Empty: there are no weights
    to read, or only GGUF files (see `gguf_files`).
    """
    names = list(names)
    top = [name for name in names if "/" not in name]
    weights = [name for name in top if _WEIGHTS.fullmatch(name)]
    if not weights and "params.json" in top:
        weights = [name for name in top if _META_WEIGHTS.fullmatch(name)]
    if not weights:
        return []
    beside = [name for name in names if _MODULE.fullmatch(name)]
    beside += [name for name in top if any(fnmatchcase(name, pattern) for pattern in _BESIDE)]
    return sorted({*weights, *beside}, key=lambda name: (name in _LAST, name in beside, name))


def gguf_files(names: Iterable[str]) -> list[str]:
    """Return the GGUF models of a repository, in folders too: the first part of each."""
    return sorted({gguf_parts(name)[0] for name in names if name.endswith(".gguf")})


def gguf_parts(name: str) -> list[str]:
    """Return all files of the GGUF model that the file ``name`` belongs to, by their names."""
    found = _GGUF_PART.fullmatch(name)
    if found is None:
        return [name]
    stem, count = found[1], int(found[2])
    return [f"{stem}-{part:05}-of-{count:05}.gguf" for part in range(1, count + 1)] or [name]


def find_checkpoint(folder: Path) -> Path | None:
    """Return what to export in a folder: the folder, if it holds a config, a tokenizer and all
    weights; else its GGUF model (the first of its parts), if it holds just one and all of it; else
    None: an interrupted download leaves a folder too."""
    try:
        names = {path.name for path in folder.iterdir() if path.is_file()}  # links to nowhere: not
        if _has_weights(folder, names):
            has_tokenizer = any(fnmatchcase(name, kind) for name in names for kind in _TOKENIZERS)
            return folder if has_tokenizer else None
        ggufs = gguf_files(str(path) for path in folder.rglob("*.gguf") if path.is_file())
    except OSError:
        return None
    return whole_gguf(Path(ggufs[0])) if len(ggufs) == 1 else None


def whole_gguf(path: Path) -> Path | None:
    """``path``, if the file is there with every other part of its model."""
    parts = [path.parent / name for name in gguf_parts(path.name)]
    return path if all(part.is_file() for part in parts) else None


def _has_weights(folder: Path, names: set[str]) -> bool:
    if "config.json" in names:
        needed = {"model.safetensors"}
        if INDEX in names:
            try:
                index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
                needed = set(index["weight_map"].values())
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                return False
        return bool(needed) and needed <= names
    return "params.json" in names and any(_META_WEIGHTS.fullmatch(name) for name in names)
