"""Checkpoints in GGUF files: weights, config and tokenizer in one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edge_llm.errors import CheckpointError
from edge_llm.llm.checkpoints.arrays import Array, to_float32
from edge_llm.llm.checkpoints.generation import generation_defaults, token_ids
from edge_llm.llm.checkpoints.gguf.config import (
    POOLING,
    RANKING_LABELS,
    ROPE_TABLES,
    gguf_config,
    gguf_family,
    predicting_layers,
)
from edge_llm.llm.checkpoints.gguf.model import GGUFModel, read_gguf_model
from edge_llm.llm.checkpoints.rows import half_split
from edge_llm.llm.checkpoints.source import (
    PREDICTING,
    Checkpoint,
    Retrieval,
    TokenizerMetadata,
    check_parameters,
    projection_name,
)
from edge_llm.llm.config import shorten
from edge_llm.llm.families.family import Family, Order
from edge_llm.llm.stacks import members
from edge_llm.program.documents import PoolingKind
from edge_llm.program.formats import WeightFormat
from edge_llm.program.integers import Integers, keeps_groups
from edge_llm.program.ops import MAX_EXPERTS

TENSOR_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
# What hidden states are multiplied with, in the order in which it is done.
DENSE_NAMES = ("dense_2.weight", "dense_3.weight")
TENSOR_NAMES |= {name: projection_name(number) for number, name in enumerate(DENSE_NAMES)}

STOP_KEYS = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))
# The keys above hold one id each, while some families end a turn with either of two tokens. Their
# type does not matter: some converters mark them as ordinary or as the user's.
STOP_TOKENS = (
    "<|im_end|>",
    "<|end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<turn|>",  # Gemma 4's, and what its calls end with
    "<|tool_response>",
)
# Of those that llama.cpp numbers; others are 0 (none), 2 (the first token) and 4 (a ranking head).
POOLING_KINDS: dict[int, PoolingKind] = {1: "mean", 3: "last"}
RANKING = 4
# What the authors' own files put in front of a text that asks, and of one that is searched, and
# GGUF files do not say.
TASKS = {"gemma-embedding": ("task: search result | query: ", "title: none | text: ")}
# Of a reranker: the rows of the head that its two answers have.
RANKING_HEAD, ANSWERS = "cls.output.weight", ["yes", "no"]
_ALIKE = 0.9  # the cosine of two roundings of one row, at least
_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
NO_TOKEN = 2**32 - 1
UNUSED_TOKEN = 5  # in tokenizer.ggml.token_type
SAMPLING = "general.sampling."
SAMPLING_KEYS = {
    "temperature": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "penalty_repeat",
}


def open_gguf(path: Path) -> Checkpoint:
    """Open and check a model given its file or any of its parts; tensors are decoded later, one
    at a time.

    Raises:
        CheckpointError: a damaged file, a missing part, or tensors that do not fit the metadata.
        ConfigError: metadata that cannot be honoured.
    """
    model = read_gguf_model(path)
    metadata, family = model.metadata, gguf_family(model)
    model.check_complete()
    config = gguf_config(model, family)
    judge = _judge(model, family)
    predicting = predicting_layers(model, config)
    left_out = {
        name
        for name in model.owners
        if (block := _BLOCK.fullmatch(name)) and int(block[1]) in predicting
    }
    if judge is not None:
        left_out.add(RANKING_HEAD)
    stored_names = [name for name in model.owners if name not in {*ROPE_TABLES, *left_out}]
    problems = [line for name in stored_names if (line := model.problem(name)) is not None]
    places = {
        name: place
        for name, place in _places(model, family, stored_names).items()
        if not family.unused(config, name)
    }
    orders = {
        name: order
        for name, place in places.items()
        if (block := _BLOCK.fullmatch(place.stored))
        and (order := family.gguf_order(config, block[2])) is not None
    }
    formats = {
        name: form
        for name, place in places.items()
        if (form := _integer_format(model, place)) is not None
        and (name not in orders or _can_be_ordered(form, orders[name]))
    }

    shapes = {name: _shape(model, family, place) for name, place in places.items()}

    def interleaved(name: str) -> int | None:
        """The head_dim of rows that are stored for the interleaved convention."""
        block = re.fullmatch(r"blk\.(\d+)\.(.+)", places[name].stored)
        if block is None or block[2] not in family.gguf_interleaved:
            return None
        shape = config.attention(int(block[1]))
        return None if shape is None else shape.head_dim

    def read(name: str) -> Array:
        values, head_dim = _decode(model, places[name]), interleaved(name)
        values = values.reshape(shapes.get(name, values.shape))
        if head_dim is not None:
            values = half_split(values, head_dim)
        if name in orders:
            values = values.take(orders[name].index, axis=orders[name].axis)
        block = _BLOCK.fullmatch(places[name].stored)
        change = family.gguf_values.get(block[2]) if block else None
        return values if change is None else change(to_float32(values))

    def integers(name: str) -> Integers:
        stored, *others = (model.integers(*part) for part in places[name].parts())
        stored, head_dim = stored.joined(others) if others else stored, interleaved(name)
        if places[name].shares > 1:
            stored = stored.rows(places[name].rows(stored.shape[0]))
        if name in orders:
            order = orders[name]
            stored = stored.columns(order.index) if order.axis else stored.rows(order.index)
        if head_dim is None:
            return stored
        return stored.rows(half_split(np.arange(stored.shape[0]), head_dim))

    generation, notes = generation_defaults(
        {name: metadata.get(f"{SAMPLING}{key}") for name, key in SAMPLING_KEYS.items()},
        _stop_ids(metadata, config.vocab_size),
        path.name,
    )
    if len(predicting):
        notes += (f"{path.name}: {PREDICTING} are left out",)
    unknown = [
        key
        for key in metadata
        if key.startswith(SAMPLING) and key.removeprefix(SAMPLING) not in SAMPLING_KEYS.values()
    ]
    notes += tuple(
        f"{path.name}: {key} {shorten(metadata[key])} is left out, which nothing here follows"
        for key in unknown
    )
    retrieval = judge or _retrieval(model, shapes)
    if model.architecture in TASKS and (retrieval is None or not retrieval.projection):
        notes += (
            f"{path.name}: without {' and '.join(DENSE_NAMES)}, so its vectors are not those of "
            "the model that it was made of",
        )
    license_ = metadata.get("general.license")
    return Checkpoint(
        name=model.name,
        config=config,
        shapes=check_parameters(
            config,
            shapes,
            str(path),
            problems,
            retrieval,
        ),
        read=read,
        generation=generation,
        notes=notes,
        tokenizer=TokenizerMetadata(
            {
                key: value
                for key, value in metadata.items()
                if key.startswith("tokenizer.") and not _is_no_token(key, value)
            }
        ),
        sources=tuple(part.path for part in model.parts),
        unread_config_keys=(),  # an unknown key of the architecture is an error
        license=license_ if isinstance(license_, str) else None,
        integer_formats=formats,
        integers=integers,
        stored_as={
            name: model.type_name(place.stored)
            for name, place in places.items()
            if model.problem(place.stored) is None
        },
        retrieval=retrieval,
    )


def _can_be_ordered(form: WeightFormat, order: Order) -> bool:
    return order.axis == 0 or keeps_groups(form, order.index)


class _Place(NamedTuple):
    """Where a parameter is: the name of a tensor, and which of its matrices, where it is a stack of
    experts; ``behind`` are tensors that hold the rows that follow. Of a tensor that several share
    it is the ``share``, from 0, of so many equal ``shares`` of the rows."""

    stored: str
    expert: int | None
    behind: tuple[str, ...] = ()
    share: int = 0
    shares: int = 1

    def parts(self) -> Iterator[tuple[str, int | None]]:
        """Yield name and expert of each tensor."""
        yield self.stored, self.expert
        for name in self.behind:
            yield name, None

    def rows(self, count: int) -> slice:
        """Return which of ``count`` stored rows are the parameter's."""
        size = count // self.shares
        return slice(self.share * size, (self.share + 1) * size)


def _shape(model: GGUFModel, family: Family[Any], place: _Place) -> tuple[int, ...]:
    """Return the shape of a parameter."""
    shape = model.shape(place.stored)[0 if place.expert is None else 1 :]
    block = _BLOCK.fullmatch(place.stored)
    if block and block[2] in family.gguf_vectors:
        return (prod(shape),)
    rows = shape[0] // place.shares + sum(model.shape(name)[0] for name in place.behind)
    return (rows, *shape[1:])


def _integer_format(model: GGUFModel, place: _Place) -> WeightFormat | None:
    """Return the format in which a program can hold a parameter's own integers, if there is one."""
    formats = {model.integer_format(name) for name, _ in place.parts()}
    return formats.pop() if len(formats) == 1 else None


def _decode(model: GGUFModel, place: _Place) -> Array:
    parts = [model.decode(*part) for part in place.parts()]
    if len(parts) > 1:
        return np.concatenate([to_float32(part) for part in parts])
    return parts[0] if place.shares == 1 else parts[0][place.rows(len(parts[0]))]


def _places(model: GGUFModel, family: Family[Any], names: Collection[str]) -> dict[str, _Place]:
    """Return the place of each parameter in the tensors of these ``names``."""
    places = _joined(model, family, names)
    taken = {part for place in places.values() for part, _ in place.parts()}
    for stored in names:
        if stored in taken:
            continue
        sharing, shape = _parameter_names(stored, family), model.shape(stored)
        for share, name in enumerate(sharing):
            parts = [name]
            if name != stored and shape[0] <= MAX_EXPERTS:  # of a known layout
                parts = list(members(name, shape))
            for expert, part in enumerate(parts):
                # Of two tensors for one parameter, the second is left over.
                places[stored if part in places else part] = _Place(
                    stored, expert if part != name else None, (), share, len(sharing)
                )
    return places


def _joined(model: GGUFModel, family: Family[Any], names: Collection[str]) -> dict[str, _Place]:
    """Return the places of parameters that are the rows of several tensors."""
    places: dict[str, _Place] = {}
    layers = {block[1] for name in names if (block := _BLOCK.fullmatch(name))}
    for layer, (group, inner) in product(sorted(layers), family.gguf_joined.items()):
        first, *others = parts = [f"blk.{layer}.{name}" for name in group]
        if all(part in names and len(model.shape(part)) == 2 for part in parts) and (
            len({model.shape(part)[1] for part in parts}) == 1
        ):
            places[f"model.layers.{layer}.{inner}"] = _Place(first, None, tuple(others))
    return places


def _retrieval(model: GGUFModel, shapes: Mapping[str, tuple[int, ...]]) -> Retrieval | None:
    """Return what llama.cpp's number for a pooling, and ``shapes`` of parameters say of vectors."""
    pooling = model.metadata.get(f"{model.architecture}.{POOLING}")
    kind = POOLING_KINDS.get(pooling) if isinstance(pooling, int) else None
    if kind is None:
        return None
    names = map(projection_name, range(len(DENSE_NAMES)))
    matrices = [shapes[name] for name in names if name in shapes]
    query, document = TASKS.get(model.architecture, ("", ""))
    return Retrieval(
        pooling=kind,
        query=query,
        document=document,
        projection=tuple((shape[0], shape[1]) for shape in matrices if len(shape) == 2),
    )


def _judge(model: GGUFModel, family: Family[Any]) -> Retrieval | None:
    """Return what a file says of a reranker that answers yes or no.

    llama.cpp keeps two rows of such a model's head, and the head itself nowhere: it is there where
    it is the embedding table.

    Raises:
        CheckpointError: it is not.
    """
    metadata, prefix = model.metadata, f"{model.architecture}."
    tokens = metadata.get("tokenizer.ggml.tokens")
    ranks = metadata.get(prefix + POOLING) == RANKING and RANKING_HEAD in model
    if (
        not ranks
        or metadata.get(prefix + RANKING_LABELS) != ANSWERS
        or not isinstance(tokens, list)
    ):
        return None
    if not set(ANSWERS) <= set(tokens):
        return None
    yes_no = tokens.index(ANSWERS[0]), tokens.index(ANSWERS[1])
    if "output.weight" not in model and not _is_tied(model, yes_no):
        raise CheckpointError(
            f"{model.path}: {RANKING_HEAD} holds two rows of a head that is nowhere in the file: "
            "they are not those of the embedding table",
            hint="export it from its Hugging Face folder",
        )
    return Retrieval(pooling=None, judges=True, yes_no=yes_no)


def _is_tied(model: GGUFModel, rows: tuple[int, int]) -> bool:
    """Return whether the rows of the ranking head are those of the embedding table."""
    table = "token_embd.weight"
    if table not in model or model.problem(table) or model.problem(RANKING_HEAD):
        return False
    shape = model.shape(table)
    if len(shape) != 2 or max(rows) >= shape[0]:
        return False
    if model.shape(RANKING_HEAD) != (len(rows), shape[1]):
        return False
    for place, row in enumerate(rows):
        kept, own = (
            to_float32(model.decode(name, at)).astype(np.float64)
            for name, at in ((RANKING_HEAD, place), (table, row))
        )
        norms = np.linalg.norm(kept) * np.linalg.norm(own)
        if not kept @ own >= _ALIKE * norms:
            return False
    return True


def _parameter_names(name: str, family: Family[Any]) -> list[str]:
    """Return the names in the module of what a tensor holds; an unknown name stays, and is left
    over."""
    block = re.fullmatch(r"blk\.(\d+)\.(.+)", name)
    if block is None:
        return [family.gguf_names.get(name, TENSOR_NAMES.get(name, name))]
    parts = family.gguf_parts.get(block[2])
    inner = family.gguf_layer_names.get(block[2])
    if parts is None:
        parts = () if inner is None else (inner,)
    return [f"model.layers.{block[1]}.{part}" for part in parts] or [name]


def _is_no_token(key: str, value: object) -> bool:
    """Return whether an id is llama.cpp's -1, which most files hold as an unsigned number."""
    return key.endswith("_token_id") and value in (NO_TOKEN, -1)


def _stop_ids(metadata: Mapping[str, object], vocab: int) -> tuple[int, ...]:
    ids: list[int] = []
    for key in STOP_KEYS:
        if not _is_no_token(key, metadata.get(key)):
            ids += token_ids(metadata.get(key), vocab, key)
    tokens, kinds = (metadata.get(f"tokenizer.ggml.{name}") for name in ("tokens", "token_type"))
    if isinstance(tokens, list) and isinstance(kinds, list):
        ids += [
            id_
            for id_, (token, kind) in enumerate(zip(tokens, kinds, strict=False))
            if kind != UNUSED_TOKEN and token in STOP_TOKENS and id_ < vocab
        ]
    return tuple(dict.fromkeys(ids))
