"""Checkpoints in Hugging Face's folder layout: config.json and safetensors, whole or sharded."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_llm.llm.checkpoints.arrays import Array, to_float32
from edge_llm.llm.checkpoints.detached import detached, same_values
from edge_llm.llm.checkpoints.files import read_json_object, read_text
from edge_llm.llm.checkpoints.generation import generation_defaults, token_ids
from edge_llm.llm.checkpoints.huggingface.retrieval import DENSE_WEIGHT, read_retrieval
from edge_llm.llm.checkpoints.huggingface.stacks import pieces_of
from edge_llm.llm.checkpoints.huggingface.tensors import (
    INDEX,
    Tensors,
    open_tensor_file,
    open_tensors,
)
from edge_llm.llm.checkpoints.prequantized.open import NONE, read_quantized
from edge_llm.llm.checkpoints.source import (
    HEAD,
    PREDICTING,
    TABLE,
    Checkpoint,
    Shape,
    TokenizerDirectory,
    check_parameters,
    projection_name,
)
from edge_llm.llm.config import shorten
from edge_llm.llm.registry import (
    FAMILIES,
    parameter_shapes,
    read_config,
    shared_parameters,
)
from edge_llm.program.documents import GenerationDefaults

DTYPES = ("F32", "F16", "BF16")
# Those that tokenizers/readers/convert.py reads.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
)
ADAPTER = "adapter_config.json"
# Tensors that a checkpoint with a layer that predicts further tokens has in every format, and the
# key that tells its family so.
PREDICTOR = {
    f"mtp.{name}.weight" for name in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden")
}
PREDICTS = "mtp_weights"
TIKTOKEN_FILES = "*.tiktoken"
# What transformers 4 and 5 put before the names of a text model that is a part of another, and 4
# before that of its head.
_PART = re.compile(r"(language_model\.model|model\.language_model)\.|language_model\.(?=lm_head)")


def open_huggingface(path: Path) -> Checkpoint:
    """Open and check a folder; tensors are read later, one at a time.

    Raises:
        CheckpointError: a file that is missing or damaged, or tensors that do not fit the config.
        ConfigError: a config that cannot be honoured.
    """
    config_path = path / "config.json"
    values = read_json_object(config_path)
    settings = values.pop("quantization_config", None)
    config, unread = read_config(values, str(config_path))

    retrieval = read_retrieval(path)
    tensors = _with_projection(_whole_names(open_tensors(path)), retrieval.matrices)
    inner = values.get("text_config")
    text = inner if isinstance(inner, dict) else values
    if tensors.entries.keys() >= PREDICTOR:
        text[PREDICTS] = True
        config, unread = read_config(values, str(config_path))
    problems = list(tensors.problems)
    quantized = NONE
    if settings is not None:
        expected = parameter_shapes(config)
        quantized = read_quantized(settings, tensors, expected, problems, str(config_path))
    shapes: dict[str, Shape] = _plain_shapes(tensors, quantized.pieces, problems)
    shapes |= {name: matrix.shape for name, matrix in quantized.matrices.items()}
    family = FAMILIES[config.model_type]
    pieces = pieces_of(shapes, family.stacked)
    whole = {piece.stored for piece in pieces.values()}
    shapes = {name: shape for name, shape in shapes.items() if name not in whole}
    shapes |= {name: piece.shape for name, piece in pieces.items()}
    predicts = bool(getattr(config, PREDICTS, False))
    if predicts and any(
        name.startswith("mtp.") and name not in shapes for name in parameter_shapes(config)
    ):
        predicts = text[PREDICTS] = False
        config, unread = read_config(values, str(config_path))
    leftovers, less_one, squeezed = family.leftovers, family.less_one, family.squeezed
    shapes = {
        name: shape
        for name, shape in shapes.items()
        if (leftovers is None or not leftovers.fullmatch(name)) and not family.unused(config, name)
    }

    if squeezed is not None:
        shapes |= {
            name: (shape[0], shape[2])
            for name, shape in shapes.items()
            if squeezed.fullmatch(name) and len(shape) == 3 and shape[1] == 1
        }

    def read(name: str) -> Array:
        if name in pieces:
            return pieces[name].read(tensors.view(pieces[name].stored))
        matrix = quantized.matrices.get(name)
        values = tensors.view(name) if matrix is None else matrix.values()
        values = values.reshape(shapes.get(name, values.shape))
        if less_one is None or not less_one.fullmatch(name):
            return values
        return to_float32(detached(values)) + np.float32(1.0)

    notes = [*tensors.notes, *quantized.notes(), *retrieval.notes]
    if predicts:
        notes.append(f"mtp.*: {PREDICTING} are the draft method")
    elif any(name.startswith(("mtp.", "model.mtp.")) for name in tensors.entries):
        notes.append(f"mtp.*: {PREDICTING} are left out")
    if values.get("model_type") == family.wrapper:
        notes.append(f"config: the text model of a {family.wrapper} model, without its other parts")
    said = retrieval.retrieval
    headless = not config.tie_word_embeddings and HEAD not in shapes and TABLE in shapes
    if headless and said is not None and said.pooling is not None:
        values["tie_word_embeddings"] = True  # its vectors need no head
        config, unread = read_config(values, str(config_path))
        notes.append(
            f"{HEAD} is missing, as in other models for vectors: answers, which they are not for, "
            f"would be made with {TABLE}"
        )
    for name, source in shared_parameters(config).items():
        if name in shapes and source in shapes:
            # Some writers store the shared table under both names; what differs is no shared one.
            if same_values(read(name), read(source)):
                del shapes[name]
            else:
                values["tie_word_embeddings"] = False
                config, unread = read_config(values, str(config_path))
                notes.append(
                    f"config: tie_word_embeddings is true, but the stored {name} differs from "
                    f"{source}: the stored one is used"
                )
    if (path / ADAPTER).is_file():
        notes.append(f"{ADAPTER} beside the model: its adapter is not merged, --adapter does that")
    generation_path = path / "generation_config.json"
    generation, remarks = _generation(generation_path, values, config.vocab_size)
    names = ("config.json", "generation_config.json", INDEX, "README.md", *TOKENIZER_FILES)
    return Checkpoint(
        name=path.resolve().name,
        config=config,
        shapes=check_parameters(config, shapes, str(path), problems, said),
        read=read,
        generation=generation,
        tokenizer=TokenizerDirectory(path),
        sources=(
            *(path / name for name in names if (path / name).is_file()),
            *sorted(path.glob(TIKTOKEN_FILES)),
            *retrieval.sources,
            *tensors.paths,
        ),
        unread_config_keys=unread,
        license=_license(path / "README.md"),
        integer_formats=quantized.formats,
        integers=quantized.integers,
        inexact=quantized.inexact,
        stored_as={
            **{name: entry.dtype for name, entry in tensors.entries.items() if name in shapes},
            **{name: tensors.entries[piece.stored].dtype for name, piece in pieces.items()},
            **quantized.stored_as(),
        },
        retrieval=retrieval.retrieval,
        notes=(*notes, *remarks),
    )


def _whole_names(tensors: Tensors) -> Tensors:
    """Return tensors by the names of a text model with a head, where they were saved without one,
    or as a part of a model of several."""
    if any(map(_PART.match, tensors.entries)):
        entries = {inner_name(name): entry for name, entry in tensors.entries.items()}
        return replace(tensors, entries=entries)
    if TABLE.removeprefix("model.") not in tensors.entries:
        return tensors
    entries = {
        name if name == HEAD else f"model.{name}": entry for name, entry in tensors.entries.items()
    }
    return replace(tensors, entries=entries)


def _with_projection(tensors: Tensors, files: Sequence[Path]) -> Tensors:
    """Return tensors with the matrices of a projection beside them, one of each file."""
    entries = dict(tensors.entries)
    for number, file in enumerate(files):
        entries |= {
            projection_name(number) if name == DENSE_WEIGHT else f"{file.parent.name}.{name}": entry
            for name, entry in open_tensor_file(file).entries.items()
        }
    return replace(tensors, entries=entries)


def inner_name(name: str) -> str:
    """Return the name that a tensor has in a text model alone."""
    part = _PART.match(name)
    return name if part is None else ("model." if part[1] else "") + name[part.end() :]


def _plain_shapes(
    tensors: Tensors, pieces: Collection[str], problems: list[str]
) -> dict[str, Shape]:
    """Return the shapes of the tensors that are parameters themselves; ``problems`` gets a line for
    each of another dtype."""
    shapes: dict[str, Shape] = {}
    for name, entry in tensors.entries.items():
        if name not in pieces:
            shapes[name] = entry.shape
            if entry.dtype not in DTYPES:
                expected = ", ".join(DTYPES)
                problems.append(
                    f"dtype: {shorten(name)}: got {entry.dtype}, expected one of {expected}"
                )
    return shapes


def _generation(
    path: Path, config: Mapping[str, object], vocab: int
) -> tuple[GenerationDefaults, tuple[str, ...]]:
    """Return what generation_config.json says, with the config's eos ids where it names none; and
    what is to be said about it."""
    values = read_json_object(path) if path.is_file() else {}
    stop_ids = token_ids(values.get("eos_token_id"), vocab, f"{path}: eos_token_id")
    stop_ids = stop_ids or token_ids(config.get("eos_token_id"), vocab, "config eos_token_id")
    return generation_defaults(values, stop_ids, path.name)


def _license(path: Path) -> str | None:
    """Return the ``license`` of a model card's front matter."""
    if not path.is_file():
        return None
    front = re.match(r"---\n(.*?)\n---", read_text(path), flags=re.DOTALL)
    found = front and re.search(r"^license:\s*([\w.-]+)\s*$", front[1], flags=re.MULTILINE)
    return found[1] if found else None
