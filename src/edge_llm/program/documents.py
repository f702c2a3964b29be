"""The JSON documents of a program file's metadata, beside the plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

# - last: the hidden state of the last token
# - mean: the mean of the hidden states of all tokens
PoolingKind = Literal["last", "mean"]
POOLING_KINDS: tuple[PoolingKind, ...] = get_args(PoolingKind)
# What a template of `RerankFacts` has, once each.
RERANK_FIELDS = ("{instruction}", "{query}", "{document}")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts of the checkpoint that users and clients ask for. ``context`` is the program's own
    limit in tokens, ``trained_context`` the checkpoint's. ``kv_dtype`` (a key of ops.KV_DTYPES) is
    the type of the KV cache that loading takes unless it is told another."""

    name: str
    family: str
    parameters: int
    layers: int
    dim: int
    vocab: int
    context: int
    trained_context: int
    kv_dtype: str = "f16"


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """``size``: ids at and above it have no token and are never sampled. ``bos_id`` is prepended
    to raw text when ``add_bos``; chat templates write their own. ``unk``, ``pad`` etc. live in the
    tokenizer file (tensor ``tokenizer.json``)."""

    size: int
    bos_id: int | None
    eos_id: int | None
    add_bos: bool


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """The recommendations of the checkpoint's authors; ``stop_ids`` end a turn."""

    stop_ids: tuple[int, ...]
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True, slots=True)
class EmbeddingFacts:
    """How texts become vectors, as the checkpoint's authors recommend.

    Attributes:
        pooling: which hidden states: the "last" token's, or the "mean" of all.
        end_id: a token that comes behind every text, if any.
        query, document: what comes in front of a text that asks, and of one that is searched.
    """

    pooling: PoolingKind = "mean"
    end_id: int | None = None
    query: str = ""
    document: str = ""


@dataclass(frozen=True, slots=True)
class RerankFacts:
    """How a language model judges whether a document answers a query: by the probability of one
    token against that of another.

    Attributes:
        template: the prompt, in which control tokens are written, with ``{instruction}``,
            ``{query}`` and ``{document}`` once each.
        instruction: what stands for ``{instruction}`` unless the caller has one.
        yes_id, no_id: the two tokens.
    """

    template: str
    instruction: str
    yes_id: int
    no_id: int


@dataclass(frozen=True, slots=True)
class Documents:
    """Everything in the metadata but the plan. ``embedding`` and ``rerank`` are there where the
    checkpoint says so. ``recipe``, ``report`` and ``provenance`` are for people and tools; the run
    time reads none of them."""

    model: ModelFacts
    tokenizer: TokenizerFacts
    generation: GenerationDefaults
    chat_template: str | None
    embedding: EmbeddingFacts | None = None
    rerank: RerankFacts | None = None
    recipe: Json = field(default_factory=dict)
    report: Json = field(default_factory=dict)
    provenance: Json = field(default_factory=dict)
