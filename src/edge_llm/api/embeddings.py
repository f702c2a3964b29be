"""From texts to vectors: what is asked for, as token ids, and what becomes of the pooled states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edge_llm.api.prompts import is_several, token_ids_of
from edge_llm.errors import ContextLengthError, ProgramError, RequestError
from edge_llm.program.documents import POOLING_KINDS, EmbeddingFacts, PoolingKind
from edge_llm.program.file import Program
from edge_llm.program.version import export_command
from edge_llm.runner.executor import Float32
from edge_llm.runner.generation.vectors import Float64, finished

if TYPE_CHECKING:  # the library behind it is imported when it is needed
    from edge_llm.tokenizers.tokenizer import Tokenizer

InputType = Literal["query", "document"]
_INPUT_TYPES = ("query", "document")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedCall:
    """Texts of which vectors are wanted.

    Attributes:
        texts: a text or its token ids, or a list of either.
        pooling: "last" (the state of the last token) or "mean" (of all); None takes what the
            program recommends.
        normalize: give every vector the length 1.
        dimensions: keep the first so many numbers only (before they are normalized); None keeps
            all. Only models trained for it (Matryoshka) lose little.
        input_type: put in front what the program recommends for a "query" or a "document".
        prompt: text that comes in front of every text.
        adapter: the name of an adapter that is loaded; None: the model itself.
    """

    texts: Any
    pooling: PoolingKind | None = None
    normalize: bool = True
    dimensions: int | None = None
    input_type: InputType | None = None
    prompt: str = ""
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class EmbedJob:
    """An `EmbedCall` that can run: the ids of each text, and what to make of the states."""

    ids: Sequence[Sequence[int]]
    pooling: PoolingKind
    normalize: bool
    dimensions: int
    adapter: str | None = None

    def finish(self, vectors: Iterable[Float64]) -> Float32:
        """Return pooled states as they were asked for, [n, dimensions] float32."""
        return finished(vectors, self.dimensions, normalize=self.normalize)


def embed_job(
    program: Program, tokenizer: Tokenizer, context: int, call: EmbedCall, *, name: str = "input"
) -> EmbedJob:
    """Check an `EmbedCall` and encode its texts, which errors call ``name``. Text never becomes
    control tokens; what a recommended end of text is comes behind texts, not behind token ids.

    Raises:
        ProgramError: the program has no method that gives hidden states.
        ContextLengthError: a text is longer than the context; ``param`` says which.
        RequestError: an empty text, or an argument that cannot be honoured.
        TokenizerError: a text is not Unicode (lone surrogates).
    """
    method = program.plan.embed
    if method is None:
        recipe = program.documents.recipe
        again = f"export the model again: `{export_command(recipe)}`"
        if recipe.get("rotate") == "all":
            again = "export the model without rotate=all, under which hidden states are others"
        raise ProgramError(
            f"{program.documents.model.name} was exported without the method `embed`", hint=again
        )
    facts = program.documents.embedding or EmbeddingFacts()
    pooling = facts.pooling if call.pooling is None else call.pooling
    _check_choice("pooling", pooling, POOLING_KINDS)
    width = method.values[method.outputs[0]].width
    dimensions = width if call.dimensions is None else call.dimensions
    if type(dimensions) is not int or not 1 <= dimensions <= width:
        raise RequestError(
            f"dimensions is {dimensions!r}, expected 1 to {width}", param="dimensions"
        )
    if not isinstance(call.prompt, str):
        raise RequestError(
            f"prompt is of type {type(call.prompt).__name__}, expected text", param="prompt"
        )
    prompt = call.prompt
    if call.input_type is not None:
        _check_choice("input_type", call.input_type, _INPUT_TYPES)
        prompt = (facts.query if call.input_type == "query" else facts.document) + prompt
    several = is_several(call.texts)
    texts = list(call.texts) if several else [call.texts]
    ids = []
    for index, text in enumerate(texts):
        place = f"{name}[{index}]" if several else name
        ids.append(_encode(tokenizer, facts, context, prompt, text, place))
    return EmbedJob(ids, pooling, bool(call.normalize), dimensions, call.adapter)


def _encode(
    tokenizer: Tokenizer, facts: EmbeddingFacts, context: int, prompt: str, text: Any, name: str
) -> list[int]:
    """Return the ids of a text that the request calls ``name``."""
    try:
        if isinstance(text, str):
            ids = tokenizer.encode(prompt + text, token_limit=context) if text else []
            if ids and facts.end_id is not None:
                ids.append(facts.end_id)
        elif prompt:
            raise RequestError(f"{name}: token ids take no prompt in front", param=name)
        else:
            ids = token_ids_of(text, context)
    except ContextLengthError as exc:
        raise too_long(context, exc.prompt_tokens, name, at_least=True) from exc
    if not ids:
        raise RequestError(f"{name} is empty, expected a text", param=name)
    if len(ids) > context:
        raise too_long(context, len(ids), name)
    return ids


def too_long(context: int, tokens: int, name: str, *, at_least: bool = False) -> ContextLengthError:
    """Return the error of a text that a request calls ``name``."""
    return ContextLengthError(context, tokens, param=name, at_least=at_least, what=name)


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise RequestError(
            f"{name} is {value!r}, expected one of: {', '.join(choices)}", param=name
        )
