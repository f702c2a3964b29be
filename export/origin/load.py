"""Stage load: open the checkpoint and its tokenizer, settle the context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edge_llm import catalogue
from edge_llm.errors import CheckpointError, ConfigError
from edge_llm.export.origin.calibration import calibration_file, read_calibration
from edge_llm.export.origin.calibration_ids import Int32, calibration_ids
from edge_llm.export.origin.retrieval import embedding_facts, rerank_facts
from edge_llm.export.origin.sources import Sources
from edge_llm.export.origin.stops import more_stop_ids
from edge_llm.export.origin.template import read_chat_template
from edge_llm.export.recipes.recipe import DEFAULT_CONTEXT_LIMIT, Recipe
from edge_llm.llm.checkpoints.huggingface.adapters import with_adapters
from edge_llm.llm.checkpoints.huggingface.weightless import is_weightless, open_weightless
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.checkpoints.source import Checkpoint, TokenizerDirectory, TokenizerSource
from edge_llm.llm.registry import context_notes
from edge_llm.program.documents import (
    EmbeddingFacts,
    GenerationDefaults,
    RerankFacts,
    TokenizerFacts,
)
from edge_llm.tokenizers.readers.convert import TokenizerDocument, from_directory, from_gguf
from edge_llm.tokenizers.readers.folder import read_folder
from edge_llm.tokenizers.tables.build import Array, tables_of


@dataclass(frozen=True, slots=True)
class Loaded:
    """The facts that are known before any weight is read. ``name`` is the model's, ``tables`` the
    tensors that the tokenizer loads fast from, ``context`` the program's limit in tokens;
    ``sources`` are the files read, which ``checkpoint`` watches; ``notes`` says what was settled on
    the way. ``weightless``: there are no weights to read. ``embedding`` and ``rerank`` are what the
    program recommends for vectors and reranking, where the checkpoint says it. ``calibration`` are
    the token ids that the model reads for it, if the recipe has one."""

    name: str
    checkpoint: Checkpoint
    tokenizer: TokenizerDocument
    tables: Mapping[str, Array]
    context: int
    generation: GenerationDefaults
    sources: Sources
    notes: tuple[str, ...]
    weightless: bool
    embedding: EmbeddingFacts | None = None
    rerank: RerankFacts | None = None
    calibration: Int32 | None = None


def load(recipe: Recipe, *, weightless: bool = False) -> Loaded:
    """Opens ``recipe.model``: a path, a catalogue name or ``hf:…``.

    With ``weightless`` a folder may lack weights, and then its tokenizer: nothing can be read from
    what is returned.

    Raises:
        ConfigError: no model named, a context beyond the model's, a config that is not supported,
            a chat template that does not render.
        SourceError: a name that is unknown or not pulled.
        CheckpointError, TokenizerError: a source that is damaged or does not fit its family.
    """
    if not recipe.model:
        raise ConfigError("no model is named, expected a path, a name or hf:ORG/NAME")
    path = catalogue.resolve(recipe.model)
    sources = Sources(path)
    without = weightless and path.is_dir() and is_weightless(path)
    checkpoint = open_weightless(path) if without else open_checkpoint(path)
    if recipe.adapters:
        adapters = [(entry["path"], entry.get("weight", 1.0)) for entry in recipe.adapters]
        checkpoint = with_adapters(checkpoint, adapters)
    notes = list(checkpoint.notes)
    no_tokenizer = without and not any(path.glob("tokenizer*"))
    if no_tokenizer:
        notes.append("without tokenizer: its bytes are not counted")
        tokenizer, tables = _no_tokenizer(checkpoint.config.vocab_size), {}
    else:
        tokenizer = _tokenizer(checkpoint.tokenizer)
        tables = tables_of(tokenizer.json)
        notes.extend(tokenizer.notes)
        _check_rows(tokenizer.facts, checkpoint)
    sources.add(checkpoint.sources)
    if recipe.chat_template is not None:
        file = Path(recipe.chat_template).expanduser()
        notes.append(_template_note(file, tokenizer))
        tokenizer = replace(tokenizer, chat_template=read_chat_template(file, tokenizer))
        sources.add([file])
    calibration = None
    if recipe.calibration is not None:
        file = calibration_file(recipe.calibration)
        pieces = read_calibration(file)
        sources.add([file])
        if not no_tokenizer:
            calibration, note = calibration_ids(pieces, tokenizer)
            notes.append(note)
    trained = checkpoint.config.max_position_embeddings
    if recipe.context is not None and recipe.context > trained:
        raise ConfigError(f"context is {recipe.context}, the model's own is {trained}")
    context = recipe.context or min(trained, DEFAULT_CONTEXT_LIMIT)
    if context < trained:
        notes.append(f"context {context} of the model's {trained} tokens")
    notes += context_notes(checkpoint.config, context)
    embedding = embedding_facts(checkpoint, tokenizer)
    rerank, said = rerank_facts(checkpoint, tokenizer)
    notes += said
    name, stops = checkpoint.name, checkpoint.generation.stop_ids
    more, why = more_stop_ids(stops, tokenizer)
    generation = replace(checkpoint.generation, stop_ids=(*stops, *more))
    notes += why
    if not generation.stop_ids and not without:
        notes.append("stop ids: none are known, so answers end at their limit of tokens alone")
    if recipe.chat_template is None:
        notes += _own_templates(recipe, tokenizer)
    model = catalogue.identify(recipe.model)
    if model is not None:
        name, generation = model.name, replace(generation, **model.sampling)
    elif origin := catalogue.commit_of(path):  # the folder's own name is a commit's there
        name = origin["repository"].partition("/")[2]
    return Loaded(
        name,
        sources.guard(checkpoint),
        tokenizer,
        tables,
        context,
        generation,
        sources,
        tuple(notes),
        weightless=without,
        embedding=embedding,
        rerank=rerank,
        calibration=calibration,
    )


def _tokenizer(source: TokenizerSource) -> TokenizerDocument:
    if isinstance(source, TokenizerDirectory):
        return from_directory(source.path)
    return from_gguf(source.values)


def _check_rows(facts: TokenizerFacts, checkpoint: Checkpoint) -> None:
    """
    Raises:
        CheckpointError: tokens without a row in the embedding table.
    """
    rows = checkpoint.config.vocab_size
    if facts.size > rows:
        raise CheckpointError(
            f"the tokenizer of {checkpoint.name} has {facts.size} tokens, expected at most the "
            f"{rows} rows of its embedding table (vocab_size)",
            hint="the tokenizer belongs to another model, or the table was not made larger with it",
        )


def _own_templates(recipe: Recipe, tokenizer: TokenizerDocument) -> list[str]:
    """Return a note for each adapter that was trained with another chat template than the model's.

    Raises:
        TokenizerError: a file of its folder is damaged.
    """
    folders = [Path(entry["path"]).expanduser() for entry in recipe.adapters]
    return [
        f"adapter {folder.resolve().name} has a chat template of its own, which is not used: "
        "--chat-template gives one to the program"
        for folder in folders
        if read_folder(folder).chat_template not in (None, tokenizer.chat_template)
    ]


def _template_note(file: Path, tokenizer: TokenizerDocument) -> str:
    replaced = "which has none" if tokenizer.chat_template is None else "in place of its own"
    return f"chat template {file.name} given to the model, {replaced}"


def _no_tokenizer(vocab: int) -> TokenizerDocument:
    facts = TokenizerFacts(size=vocab, bos_id=None, eos_id=None, add_bos=False)
    return TokenizerDocument(b"{}", facts, None)
