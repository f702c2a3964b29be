"""The offer of a repository on Hugging Face: which of its files to take, and on which terms."""

from __future__ import annotations

from collections.abc import Mapping

from edge_llm.catalogue.layout import gguf_files, gguf_parts, wanted
from edge_llm.catalogue.sources import HubSource
from edge_llm.errors import SourceError

SITE = "https://huggingface.co"
_LISTED = 40  # files named in an error


def advice(source: HubSource) -> str:
    """Say how to get the model where `fetch` cannot."""
    lines = []
    if source.entry is not None and source.entry.gated:
        lines.append(gate(source))
    revision = f" --revision {source.revision}" if source.revision else ""
    file = f" {source.file}" if source.file else ""
    lines.append(
        f"Without network: on another machine, `hf download {source.repository}{file}{revision} "
        "--local-dir DIR`; copy DIR here; pass its path as --model."
    )
    return "\n".join(lines)


def choose(source: HubSource, sizes: Mapping[str, int]) -> list[str]:
    """Return the files to fetch, the last of which make it whole.

    Args:
        source: the repository, or one file of it.
        sizes: all of its files, with their bytes.

    Raises:
        SourceError: nothing of it can be read, or several models can; the hint lists them.
    """
    ggufs = gguf_files(sizes)
    if source.file is not None:
        parts = gguf_parts(source.file)
        for name in (source.file, *parts):
            if name not in sizes:
                hint = _listing(source, sizes, ggufs)
                raise SourceError(f"{source.repository} has no file {name}", hint=hint)
        return parts
    names = wanted(sizes)
    if names:
        return names
    if len(ggufs) == 1:
        return gguf_parts(ggufs[0])
    if ggufs:
        raise SourceError(
            f"{source.repository} has {len(ggufs)} GGUF models: name the one to use",
            hint=_listing(source, sizes, ggufs),
        )
    others = sorted(name for name in sizes if name.endswith((".bin", ".pt", ".pth", ".onnx")))
    got = f"; it has {', '.join(others[:4])}" if others else ""
    raise SourceError(f"{source.repository} has neither safetensors nor GGUF weights{got}")


def gate(source: HubSource) -> str:
    entry = source.entry
    licence = f" ({entry.licence}, {entry.licence_url})" if entry is not None else ""
    return (
        f"It is gated: accept its licence{licence} at {SITE}/{source.repository} and log in "
        "(`hf auth login`, or HF_TOKEN)."
    )


def _listing(source: HubSource, sizes: Mapping[str, int], names: list[str]) -> str:
    if not names:
        return "It has no GGUF files."
    revision = f"@{source.revision}" if source.revision else ""
    lines = [
        f"  hf:{source.repository}/{name}{revision}  ({_model_bytes(sizes, name) / 1e9:.2f} GB)"
        for name in names[:_LISTED]
    ]
    more = [f"  and {len(names) - _LISTED} more"] if len(names) > _LISTED else []
    return "\n".join(["One of:", *lines, *more])


def _model_bytes(sizes: Mapping[str, int], name: str) -> int:
    return sum(sizes.get(part, 0) for part in gguf_parts(name))
