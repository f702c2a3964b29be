"""The facts of a loaded model that clients ask for: what it is, and what it can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from edge_llm.program.file import Program

if TYPE_CHECKING:  # the library behind it is imported when it is needed
    from edge_llm.tokenizers.output.syntax import OutputSyntax


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAbout:
    """A loaded model.

    Attributes:
        family: the architecture, by its name here ("llama", "qwen3").
        parameters: how many.
        layers, width, vocab: its sizes.
        trained_context: what its authors say, in tokens.
        quantization: the recipe's scheme ("8da4w").
        file_bytes: the size of the program file.
        modified: when the file was written, in seconds since 1970.
        chat_template: the template's source, None if there is none.
        recommended: the sampling parameters that its authors recommend.
        tools: chats can offer tools.
        thinking: its answers can have a thinking block.
        thinking_switch: thinking can be turned off.
        efforts: the names of the efforts that its template knows.
        vectors: it gives embeddings.
        answers: it generates text.
    """

    family: str
    parameters: int
    layers: int
    width: int
    vocab: int
    trained_context: int
    quantization: str
    file_bytes: int
    modified: float
    chat_template: str | None = None
    recommended: Mapping[str, Any] = field(default_factory=dict)
    tools: bool = False
    thinking: bool = False
    thinking_switch: bool = False
    efforts: tuple[str, ...] = ()
    vectors: bool = False
    answers: bool = True


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model by its ``name``, the ``digest`` of its program (SHA-256, hex), its ``context`` in
    tokens, and the rest."""

    name: str
    digest: str
    context: int
    about: ModelAbout


def about_of(program: Program, syntax: OutputSyntax | None) -> ModelAbout:
    """Return the facts of a program; ``syntax`` is how the answers of its chats are read, None if
    it has no chat template."""
    documents = program.documents
    facts = documents.model
    if program.plan.bidirectional:
        syntax = None  # it writes nothing
    recommended = asdict(documents.generation)
    del recommended["stop_ids"]
    reasoning = syntax.reasoning if syntax is not None else None
    try:
        modified = program.path.stat().st_mtime
    except OSError:  # it is mapped, and may be gone by now
        modified = 0.0
    return ModelAbout(
        family=facts.family,
        parameters=facts.parameters,
        layers=facts.layers,
        width=facts.dim,
        vocab=facts.vocab,
        trained_context=facts.trained_context,
        quantization=str(documents.recipe.get("scheme", "unknown")),
        file_bytes=program.file_bytes,
        modified=modified,
        chat_template=documents.chat_template,
        recommended=recommended,
        tools=syntax is not None and syntax.tools is not None,
        thinking=reasoning is not None,
        thinking_switch=reasoning is not None
        and (reasoning.variable is not None or "none" in reasoning.efforts),
        efforts=reasoning.efforts if reasoning is not None else (),
        vectors=program.plan.embed is not None,
        answers=not program.plan.bidirectional,
    )
