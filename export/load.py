"""Stage load: open the checkpoint and its tokenizer, settle the context."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edge_llm import catalogue
from edge_llm.errors import ConfigError
from edge_llm.export.recipe import DEFAULT_CONTEXT_LIMIT, Recipe
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.checkpoints.source import Checkpoint, TokenizerDirectory
from edge_llm.program.documents import GenerationDefaults
from edge_llm.tokenizers.convert import TokenizerDocument, from_directory, from_gguf


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is known before any weight is read. ``name`` is the model's, ``context`` the program's
    limit in tokens; ``notes`` says what was settled on the way."""

    name: str
    checkpoint: Checkpoint
    tokenizer: TokenizerDocument
    context: int
    generation: GenerationDefaults
    notes: tuple[str, ...]


def load(recipe: Recipe) -> Loaded:
    """Opens ``recipe.model``, a path or a catalogue name.

    Raises:
        ConfigError: no model named, a context beyond the model's, a config that is not supported.
        SourceError: a name that is unknown or not pulled.
        CheckpointError, TokenizerError: a source that is damaged or does not fit its family.
    """
    if not recipe.model:
        raise ConfigError("recipe: model is missing, expected a path or a catalogue name")
    path = catalogue.resolve(recipe.model)
    checkpoint = open_checkpoint(path)
    source = checkpoint.tokenizer
    if isinstance(source, TokenizerDirectory):
        tokenizer = from_directory(source.path)
    else:
        tokenizer = from_gguf(source.values)
    trained = checkpoint.config.context
    if recipe.context is not None and recipe.context > trained:
        raise ConfigError(f"recipe: context is {recipe.context}, the model's own is {trained}")
    context = recipe.context or min(trained, DEFAULT_CONTEXT_LIMIT)
    notes = list(checkpoint.notes)
    if context < trained:
        notes.append(f"context {context} of the model's {trained} tokens")
    name, generation = checkpoint.name, checkpoint.generation
    if not Path(recipe.model).expanduser().exists():  # a catalogue name
        entry = catalogue.find(recipe.model)
        name, generation = entry.name, replace(generation, **entry.sampling)
    return Loaded(name, checkpoint, tokenizer, context, generation, tuple(notes))
