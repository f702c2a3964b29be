"""Models on Hugging Face, through its own client and its own cache."""

from __future__ import annotations

import json
from pathlib import Path

from edge_llm.catalogue.entries import Entry
from edge_llm.errors import MissingDependencyError, SourceError

# What an export reads. Some repositories also hold the weights in other formats.
_WANTED = ("*.json", "*.safetensors", "*.jinja", "tokenizer*", "LICENSE*")
_UNWANTED = ("original/*", "onnx/*")


def advice(entry: Entry) -> str:
    """How to get the model where `fetch` cannot."""
    lines = []
    if entry.gated:
        lines.append(
            f"It is gated: accept its licence ({entry.licence}, {entry.licence_url}) at "
            f"https://huggingface.co/{entry.repository} and log in (`hf auth login`, or HF_TOKEN)."
        )
    lines.append(
        f"Without network: on another machine, `hf download {entry.repository} --local-dir DIR`; "
        "copy DIR here; pass its path as --model."
    )
    return "\n".join(lines)


def cached(entry: Entry) -> Path | None:
    """The model's folder in the cache of ``huggingface_hub``, if it is whole; no network."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        return None
    try:
        folder = Path(snapshot_download(entry.repository, local_files_only=True))
    except OSError:  # what the client raises for "not here" is one
        return None
    return folder if _is_whole(folder) else None


def fetch(entry: Entry) -> Path:
    """Download into the cache of ``huggingface_hub``, which shows its own progress.

    Raises:
        MissingDependencyError: the client is not installed.
        SourceError: no network, or the model is gated or gone; the hint says what to do.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
    except ImportError as exc:
        raise MissingDependencyError(
            f"fetching {entry.name} needs huggingface_hub",
            hint="pip install huggingface_hub\n" + advice(entry),
        ) from exc
    try:
        folder = snapshot_download(
            entry.repository, allow_patterns=list(_WANTED), ignore_patterns=list(_UNWANTED)
        )
    except GatedRepoError as exc:
        raise SourceError(
            f"Hugging Face does not let you have {entry.repository} yet", hint=advice(entry)
        ) from exc
    except RepositoryNotFoundError as exc:
        raise SourceError(
            f"Hugging Face has no {entry.repository}, or does not show it to you",
            hint=advice(entry),
        ) from exc
    except OSError as exc:  # the client's errors of network and of HTTP are all of this kind
        raise SourceError(
            f"cannot fetch {entry.name} from Hugging Face: {_first_line(exc)}", hint=advice(entry)
        ) from exc
    return Path(folder)


def _is_whole(folder: Path) -> bool:
    """Whether a snapshot has a config, a tokenizer and all weights: an interrupted download
    leaves a folder too."""
    index = folder / "model.safetensors.index.json"
    weights = {"model.safetensors"}
    if index.is_file():
        try:
            weights = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
    return all((folder / name).is_file() for name in {"config.json", "tokenizer.json", *weights})


def _first_line(exc: Exception) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]
