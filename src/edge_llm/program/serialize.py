"""Plan and documents to and from the strings of a program file's metadata.

Decoding is strict: every key is known, every type exact, every count bounded. It checks form only;
what the numbers mean together is `check.py`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from edge_llm.errors import ProgramError
from edge_llm.program.check import MAX_COUNT
from edge_llm.program.container import PREFIX
from edge_llm.program.documents import (
    POOLING_KINDS,
    Documents,
    EmbeddingFacts,
    GenerationDefaults,
    Json,
    ModelFacts,
    RerankFacts,
    TokenizerFacts,
)
from edge_llm.program.formats import (
    ACTIVATIONS,
    CODES,
    LAYOUTS,
    MINIMA,
    SCALES,
    WeightFormat,
)
from edge_llm.program.ops import KV_DTYPES, OPS, STATE_KINDS, STATE_SIZES
from edge_llm.program.plan import (
    DTYPES,
    SIGNATURES,
    Attribute,
    Dim,
    Instruction,
    Method,
    Plan,
    State,
    Value,
    Weight,
)
from edge_llm.program.strict import (
    as_bool,
    as_choice,
    as_float,
    as_int,
    as_list,
    as_object,
    as_str,
    dump_json,
    fields,
    parse_json,
)

# More than any model needs, few enough that a hostile file cannot cost much.
MAX_STOP_IDS = 64
MAX_METHODS = 16
MAX_TEMPLATE = 256 * 1024


def plan_to_text(plan: Plan) -> str:
    """The JSON text of a plan."""
    return dump_json(
        {
            "context": plan.context,
            "vocab": plan.vocab,
            "weights": [_weight_record(weight) for weight in plan.weights],
            "states": [_state_record(state) for state in plan.states],
            "methods": {name: asdict(method) for name, method in plan.methods.items()},
        }
    )


def plan_from_text(text: str) -> Plan:
    """Decodes `plan_to_text`.

    Raises:
        ProgramError: the text is not a plan; the message names the field.
    """
    record = fields(
        parse_json(text, "plan"),
        "plan",
        ("context", "vocab", "weights", "states", "methods"),
    )
    return Plan(
        context=as_int(record["context"], "plan.context"),
        vocab=as_int(record["vocab"], "plan.vocab"),
        weights=as_list(record["weights"], "plan.weights", _weight, limit=MAX_COUNT),
        states=as_list(record["states"], "plan.states", _state, limit=MAX_COUNT),
        methods=_methods(record["methods"]),
    )


def documents_to_metadata(documents: Documents) -> dict[str, str]:
    """The metadata entries of everything but the plan and the digests."""
    metadata = {
        PREFIX + "model": dump_json(asdict(documents.model)),
        PREFIX + "tokenizer": dump_json(asdict(documents.tokenizer)),
        PREFIX + "generation": dump_json(asdict(documents.generation)),
        PREFIX + "recipe": dump_json(documents.recipe),
        PREFIX + "report": dump_json(documents.report),
        PREFIX + "provenance": dump_json(documents.provenance),
    }
    for name, facts in (("embedding", documents.embedding), ("rerank", documents.rerank)):
        if facts is not None:
            metadata[PREFIX + name] = dump_json(asdict(facts))
    if documents.chat_template is not None:
        metadata[PREFIX + "chat_template"] = documents.chat_template
    return metadata


def documents_from_metadata(metadata: Mapping[str, str]) -> Documents:
    """Decodes `documents_to_metadata`.

    Raises:
        ProgramError: a document is missing or malformed; the message names the field.
    """
    template = metadata.get(PREFIX + "chat_template")
    if template is not None:
        template = as_str(template, "chat_template", limit=MAX_TEMPLATE)
    return Documents(
        model=_model(_document(metadata, "model")),
        tokenizer=_tokenizer(_document(metadata, "tokenizer")),
        generation=_generation(_document(metadata, "generation")),
        chat_template=template,
        embedding=_embedding(metadata),
        rerank=_rerank(metadata),
        recipe=_document(metadata, "recipe"),
        report=_document(metadata, "report"),
        provenance=_document(metadata, "provenance"),
    )


def _document(metadata: Mapping[str, str], name: str) -> Json:
    text = metadata.get(PREFIX + name)
    if text is None:
        raise ProgramError(f"the metadata lacks {PREFIX}{name}")
    return as_object(parse_json(text, name), name)


def _methods(value: Any) -> dict[str, Method]:
    record = as_object(value, "plan.methods")
    if len(record) > MAX_METHODS:
        raise ProgramError(
            f"plan.methods: {len(record)} entries, at most {MAX_METHODS} are allowed"
        )
    return {
        as_str(name, "plan.methods"): _method(method, f"plan.methods[{name!r:.64}]")
        for name, method in record.items()
    }


def _method(value: Any, path: str) -> Method:
    record = fields(value, path, ("signature", "inputs", "values", "instructions", "outputs"))
    return Method(
        signature=as_choice(record["signature"], f"{path}.signature", SIGNATURES),
        inputs=as_list(record["inputs"], f"{path}.inputs", as_int, limit=16),
        values=as_list(record["values"], f"{path}.values", _value, limit=MAX_COUNT),
        instructions=as_list(
            record["instructions"], f"{path}.instructions", _instruction, limit=MAX_COUNT
        ),
        outputs=as_list(record["outputs"], f"{path}.outputs", as_int, limit=16),
    )


def _value(value: Any, path: str) -> Value:
    record = fields(value, path, ("dims", "dtype"))
    return Value(
        dims=as_list(record["dims"], f"{path}.dims", _dim, limit=4),
        dtype=as_choice(record["dtype"], f"{path}.dtype", DTYPES),
    )


def _dim(value: Any, path: str) -> Dim:
    if isinstance(value, str):
        return as_str(value, path, limit=16)
    return as_int(value, path)


def _weight_record(weight: Weight) -> Json:
    record = asdict(weight)
    if weight.activations == "token":
        del record["activations"]
    return record


def _weight(value: Any, path: str) -> Weight:
    # Files of before 2.4 do not have it.
    chosen = {"activations": "token", **as_object(value, path)}
    record = fields(chosen, path, ("name", "tensor", "format", "shape", "activations"))
    return Weight(
        name=as_str(record["name"], f"{path}.name"),
        tensor=as_str(record["tensor"], f"{path}.tensor"),
        format=_format(record["format"], f"{path}.format"),
        shape=as_list(record["shape"], f"{path}.shape", as_int, limit=4),
        activations=as_choice(record["activations"], f"{path}.activations", ACTIVATIONS),
    )


def _format(value: Any, path: str) -> WeightFormat:
    record = fields(value, path, ("code", "group", "scale", "minimum", "layout"))
    return WeightFormat(
        code=as_choice(record["code"], f"{path}.code", CODES),
        group=as_int(record["group"], f"{path}.group"),
        scale=as_choice(record["scale"], f"{path}.scale", SCALES),
        minimum=as_choice(record["minimum"], f"{path}.minimum", MINIMA),
        layout=as_choice(record["layout"], f"{path}.layout", LAYOUTS),
    )


def _state_record(state: State) -> Json:
    return {"name": state.name, **state.sizes, "window": state.window, "kind": state.kind}


def _state(value: Any, path: str) -> State:
    kind = as_choice(as_object(value, path).get("kind"), f"{path}.kind", STATE_KINDS)
    sizes = STATE_SIZES[kind]
    record = fields(value, path, ("name", *sizes, "window", "kind"))
    return State(
        name=as_str(record["name"], f"{path}.name"),
        kind=kind,
        sizes={size: as_int(record[size], f"{path}.{size}") for size in sizes},
        window=as_int(record["window"], f"{path}.window"),
    )


def _instruction(value: Any, path: str) -> Instruction:
    record = fields(
        value, path, ("op", "inputs", "outputs", "weights", "state", "attributes", "source")
    )
    op = as_str(record["op"], f"{path}.op")
    if op not in OPS:
        raise ProgramError(f"{path}.op: unknown operator {op!r}")
    return Instruction(
        op=op,
        inputs=as_list(record["inputs"], f"{path}.inputs", as_int, limit=16),
        outputs=as_list(record["outputs"], f"{path}.outputs", as_int, limit=16),
        weights=as_list(record["weights"], f"{path}.weights", as_int, limit=16),
        state=as_int(record["state"], f"{path}.state"),
        attributes=_attributes(op, record["attributes"], f"{path}.attributes"),
        source=as_str(record["source"], f"{path}.source"),
    )


def _attributes(op: str, value: Any, path: str) -> dict[str, Attribute]:
    kinds = {attribute.name: attribute.kind for attribute in OPS[op].attributes}
    defaults = {a.name: a.default for a in OPS[op].attributes if a.default is not None}
    if isinstance(value, dict):
        value = defaults | value
    record = fields(value, path, tuple(kinds))
    return {
        name: as_int(record[name], f"{path}.{name}")
        if kind == "int"
        else as_float(record[name], f"{path}.{name}")
        for name, kind in kinds.items()
    }


def _model(record: Json) -> ModelFacts:
    counts = ("layers", "dim", "vocab", "context", "trained_context")
    fields(record, "model", ("name", "family", "parameters", "kv_dtype", *counts))
    return ModelFacts(
        name=as_str(record["name"], "model.name", limit=256),
        family=as_str(record["family"], "model.family", limit=256),
        parameters=as_int(record["parameters"], "model.parameters", 0, 2**63 - 1),
        kv_dtype=as_choice(record["kv_dtype"], "model.kv_dtype", tuple(KV_DTYPES)),
        **{name: as_int(record[name], f"model.{name}", 0) for name in counts},
    )


def _tokenizer(record: Json) -> TokenizerFacts:
    fields(record, "tokenizer", ("size", "bos_id", "eos_id", "add_bos"))

    def optional_id(name: str) -> int | None:
        value = record[name]
        return None if value is None else as_int(value, f"tokenizer.{name}", 0)

    return TokenizerFacts(
        size=as_int(record["size"], "tokenizer.size", 1),
        bos_id=optional_id("bos_id"),
        eos_id=optional_id("eos_id"),
        add_bos=as_bool(record["add_bos"], "tokenizer.add_bos"),
    )


def _embedding(metadata: Mapping[str, str]) -> EmbeddingFacts | None:
    if PREFIX + "embedding" not in metadata:
        return None
    record = _document(metadata, "embedding")
    fields(record, "embedding", ("pooling", "end_id", "query", "document"))
    end_id = record["end_id"]
    return EmbeddingFacts(
        pooling=as_choice(record["pooling"], "embedding.pooling", POOLING_KINDS),
        end_id=None if end_id is None else as_int(end_id, "embedding.end_id", 0),
        query=as_str(record["query"], "embedding.query"),
        document=as_str(record["document"], "embedding.document"),
    )


def _rerank(metadata: Mapping[str, str]) -> RerankFacts | None:
    if PREFIX + "rerank" not in metadata:
        return None
    record = _document(metadata, "rerank")
    fields(record, "rerank", ("template", "instruction", "yes_id", "no_id"))
    return RerankFacts(
        template=as_str(record["template"], "rerank.template"),
        instruction=as_str(record["instruction"], "rerank.instruction"),
        yes_id=as_int(record["yes_id"], "rerank.yes_id", 0),
        no_id=as_int(record["no_id"], "rerank.no_id", 0),
    )


def _generation(record: Json) -> GenerationDefaults:
    numbers = ("temperature", "top_p", "min_p", "repetition_penalty")
    fields(record, "generation", ("stop_ids", "top_k", *numbers))
    return GenerationDefaults(
        stop_ids=as_list(
            record["stop_ids"],
            "generation.stop_ids",
            lambda value, path: as_int(value, path, 0),
            limit=MAX_STOP_IDS,
        ),
        top_k=as_int(record["top_k"], "generation.top_k", 0),
        **{name: as_float(record[name], f"generation.{name}") for name in numbers},
    )
