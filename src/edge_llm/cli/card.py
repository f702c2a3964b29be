"""The card of a program that is given to others: a README.md as Hugging Face reads it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from edge_llm.cli.console import human_bytes

if TYPE_CHECKING:
    from edge_llm.catalogue import Entry
    from edge_llm.program.file import Program

_REPOSITORY = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", flags=re.ASCII)
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,60}")


def licence_of(program: Program) -> str | None:
    """Return the licence that the checkpoint states, or the catalogue for it; None if neither does,
    or no name of a licence is there."""
    stated = program.documents.provenance.get("license")
    if stated is None and (entry := _entry_of(program)) is not None:
        stated = entry.licence
    return stated if isinstance(stated, str) and _LICENCE.fullmatch(stated) else None


def card(program: Program, file: str, sha256: str) -> str:
    """Return the card of a program.

    Args:
        program: what is described; what it says of itself is not trusted with more than text.
        file: the name that it is given away under.
        sha256: of that file, in hex.
    """
    documents = program.documents
    model, recipe = documents.model, documents.recipe
    scheme = _plain(recipe.get("scheme"))
    title = f"{_plain(model.name)}, {scheme}"
    parts = [
        _front_matter(program, scheme),
        f"# {title}",
        f"A program for edge-llm: a model that is quantized, compiled and complete in one file, "
        f"`{file}`, with its tokenizer and chat template. It runs on processors, without PyTorch.",
        _facts(program, file, sha256, scheme),
        "## Origin and licence",
        _origin(program),
        "## How to run it",
        _commands(program, file, sha256),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(program: Program, scheme: str) -> str:
    documents = program.documents
    if documents.rerank is not None:
        task = "text-ranking"
    elif documents.embedding is not None:
        task = "feature-extraction"
    else:
        task = "text-generation"
    fields: dict[str, Any] = {"library_name": "edge-llm", "pipeline_tag": task}
    licence, base = licence_of(program), _base_model(program)
    if licence is not None:
        fields["license"] = licence.lower()
    if base is not None:
        fields |= {"base_model": base, "base_model_relation": "quantized"}
    fields["tags"] = ["edge-llm", scheme]
    # JSON is YAML, whatever stands in the texts
    return "\n".join(
        ["---", *(f"{key}: {json.dumps(value)}" for key, value in fields.items()), "---"]
    )


def _facts(program: Program, file: str, sha256: str, scheme: str) -> str:
    from edge_llm.cli.inspect import activations_of

    model, report = program.documents.model, program.documents.report
    bits = report.get("bits_per_weight")
    group = program.documents.recipe.get("group_size")
    rows = [
        ("Family", _plain(model.family)),
        ("Parameters", f"{model.parameters / 1e6:.0f} M"),
        ("Scheme", f"{scheme}, groups of {group}" if isinstance(group, int) else scheme),
        ("Activations", activations_of(program.plan)),
        ("Bits a weight", f"{bits:.2f}" if isinstance(bits, float) else "not stated"),
        ("Context", f"{model.context} tokens (trained with {model.trained_context})"),
        ("KV cache", f"{model.kv_dtype}, unless it is loaded with another type"),
        ("Golden outputs", "stored" if program.golden is not None else "none"),
        ("File", f"`{file}`, {human_bytes(program.file_bytes)} ({program.file_bytes} bytes)"),
        ("SHA-256", f"`{sha256}`"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _origin(program: Program) -> str:
    provenance = program.documents.provenance
    lines = []
    base, licence = _base_model(program), licence_of(program)
    hub = provenance.get("hub")
    commit = hub.get("commit") if isinstance(hub, dict) else None
    if base is not None:
        at = f", commit `{_plain(commit)}`" if commit else ""
        lines.append(f"Made of [{base}](https://huggingface.co/{base}){at}.")
    lines.append(
        f"The licence of the weights is `{licence}`; it holds for this file too."
        if licence is not None
        else "The checkpoint states no licence: ask its authors before you use it or pass it on."
    )
    sources = provenance.get("sources")
    known = [
        f"- `{_plain(source['file'])}`: {source['bytes']} bytes, SHA-256 `{source['sha256']}`"
        for source in (sources if isinstance(sources, list) else [])
        if isinstance(source, dict)
        and isinstance(source.get("bytes"), int)
        and re.fullmatch(r"[0-9a-f]{64}", str(source.get("sha256")))
        and "file" in source
    ]
    if known:
        lines.append("\n".join(["The files of the checkpoint:", "", *known]))
    versions = provenance.get("versions")
    if isinstance(versions, dict) and versions:
        made = ", ".join(f"{_plain(name)} {_plain(value)}" for name, value in versions.items())
        lines.append(f"Exported with {made}.")
    return "\n\n".join(lines)


def _commands(program: Program, file: str, sha256: str) -> str:
    if program.documents.embedding is not None or program.documents.rerank is not None:
        use = f"edge-llm serve -m {file.removesuffix('.edge')}"
    else:
        use = f'edge-llm run -m {file.removesuffix(".edge")} "What is the capital of France?"'
    checked = "that it is whole"
    if program.golden is not None:
        checked += ", and that it computes on your machine what it computed where it was made"
    return "\n".join(
        [
            "From where this card lies (`HOST/PATH`), with a check of its digest:",
            "",
            "```",
            f"edge-llm pull 'https://HOST/PATH/{file}#sha256={sha256}'",
            use,
            "```",
            "",
            f"Or fetch `{file}` by other means, compare it with `sha256sum -c {file}.sha256`, and "
            f"name its path. `edge-llm verify {file}` checks {checked}.",
        ]
    )


def _base_model(program: Program) -> str | None:
    """Return the repository on Hugging Face that the program was made of, as far as it is known."""
    hub = program.documents.provenance.get("hub")
    found = hub.get("repository") if isinstance(hub, dict) else None
    if found is None and (entry := _entry_of(program)) is not None:
        found = entry.repository
    return found if isinstance(found, str) and _REPOSITORY.fullmatch(found) else None


def _entry_of(program: Program) -> Entry | None:
    """Return the entry of the catalogue that was exported; None where a path was."""
    from edge_llm import catalogue
    from edge_llm.errors import SourceError

    try:
        return catalogue.find(str(program.documents.recipe.get("model")))
    except SourceError:
        return None


def _plain(text: object) -> str:
    """Return a text of the file without what Markdown or a table takes for more than text."""
    return re.sub(r"[^\w .+/:@()-]", "_", str(text))[:120]
