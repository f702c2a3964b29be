"""From what a caller wants continued to the jobs of the generation loop."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence, Sized
from itertools import islice
from operator import index
from typing import TYPE_CHECKING, Any, TypedDict

from edge_llm.api.tools import ToolLike
from edge_llm.errors import ContextLengthError, RequestError
from edge_llm.runner.context import Context, ContextReport
from edge_llm.runner.engine.processors import LogitsProcessor
from edge_llm.runner.generation.loop import Job
from edge_llm.runner.sampling import SamplingOptions, SamplingParams, choices_of

if TYPE_CHECKING:
    from edge_llm.tokenizers.tokenizer import Tokenizer

_MOST_TOKENS = 2**23  # of a prompt that may be cut; an iterator may have no end

Prompt = str | Iterable[int]
Prompts = list[str] | tuple[str, ...] | list[list[int]]


class FormOptions(TypedDict, total=False):
    """Options that hold an answer to a form, one at a time; see `edge_llm.api.formats`."""

    response_format: Any
    json_schema: Mapping[str, Any] | None
    regex: str | None
    choice: Sequence[str] | None
    grammar: str | None


class Options(SamplingOptions, FormOptions, total=False):
    """Options of a prompt: how to sample, the form of the answer, functions that change the
    logits, and the name of an adapter."""

    logits_processors: Sequence[LogitsProcessor]
    adapter: str | None


class ChatOptions(Options, total=False):
    """Options of a chat: those of a prompt, and those of `edge_llm.api.chat.ChatCall`."""

    tools: Sequence[ToolLike] | None
    tool_choice: str
    parallel_tool_calls: bool
    enable_thinking: bool | None
    reasoning_effort: str | None
    thinking_budget: int | None
    continue_final_message: bool
    chat_template_kwargs: Mapping[str, Any] | None


def is_several(prompt: Any) -> bool:
    """Return whether these are prompts and not one: a list of texts or of lists of ids."""
    if not isinstance(prompt, list | tuple) or not prompt:
        return False
    try:
        index(prompt[0])  # arrays and tensors have this method too, for those of one number
    except TypeError:
        return True
    return False


def encode_prompt(tokenizer: Tokenizer, prompt: Any, context: int) -> list[int]:
    """Return the ids of a text, or token ids as they are. Control tokens that are written in a
    text are those tokens; BOS comes first where the tokenizer wants one and the text does not begin
    with it. ``Tokenizer.encode`` gives the ids of a text that is all text.

    Raises:
        ContextLengthError: a text that cannot fit the context, however it is cut into tokens, or a
            list of more ids than that.
        RequestError: neither text nor whole numbers.
        TokenizerError: the text is not Unicode (lone surrogates).
    """
    if not isinstance(prompt, str):
        if isinstance(prompt, Sized) and len(prompt) > context:
            raise ContextLengthError(context, len(prompt), param="prompt")
        return token_ids_of(prompt, context)
    ids = tokenizer.encode(prompt, specials=True, token_limit=context)
    bos = tokenizer.facts.bos_id
    if tokenizer.facts.add_bos and ids[:2] == [bos, bos]:  # one was written, one is ours
        del ids[0]
    return ids


def token_ids_of(ids: Any, context: int) -> list[int]:
    """Return token ids as a list. Of an iterator at most ``context + 1`` are read: more never fit.

    Raises:
        RequestError: these are not whole numbers.
    """
    if isinstance(ids, str | bytes | bytearray) or not isinstance(ids, Iterable):
        if isinstance(ids, str):
            raise RequestError(
                "a prompt is of type str, expected token ids",
                param="prompt",
                hint="llm.tokenizer.encode(text) gives them",
            )
        raise RequestError(
            f"a prompt is of type {type(ids).__name__}, expected text or token ids", param="prompt"
        )
    sized = hasattr(ids, "__len__")
    try:
        return [_id(token) for token in (ids if sized else islice(ids, context + 1))]
    except TypeError as exc:
        raise RequestError(f"a prompt of token ids: {exc}", param="prompt") from exc


def _id(token: Any) -> int:
    if isinstance(token, bool):  # which is a whole number to Python alone
        raise TypeError("'bool' object cannot be interpreted as an integer")
    return index(token)


def checked_variables(variables: Any) -> dict[str, Any]:
    """Return ``chat_template_kwargs`` as keyword arguments.

    Raises:
        RequestError: they are not a mapping of names, or name what the call itself sets.
    """
    param = "chat_template_kwargs"
    if variables is None:
        return {}
    if not isinstance(variables, Mapping) or not all(isinstance(name, str) for name in variables):
        raise RequestError(f"{param}: expected a mapping of names to values", param=param)
    if taken := {"messages", "tools"} & variables.keys():
        raise RequestError(f"{param} cannot set {min(taken)}, which the call sets", param=param)
    return dict(variables)


def jobs_of(
    tokenizer: Tokenizer,
    prompts: Iterable[Sequence[int]],
    params: SamplingParams,
    n: int | None = None,
    *,
    answers: bool = False,
    report: ContextReport | None = None,
) -> list[Job]:
    """Return the jobs of ``n`` answers (None: one) to each prompt of token ids, prompt by prompt.

    Args:
        answers: the texts are ones of their own, not the rest of their prompts' (a space that only
            the beginning of a text has is left out).
        report: what was left out of the prompts.

    Raises:
        RequestError: ``n`` is not 1 to 128.
    """
    from edge_llm.tokenizers.stream import TextDecoder

    choices = choices_of(params, 1 if n is None else n)
    if params.dry_multiplier:
        # Servers get here in a thread and submit on their loop: what takes time is known by then.
        tokenizer.breakers.ids(params.dry_sequence_breakers)
    return [
        Job(ids, choice, TextDecoder(tokenizer, after=() if answers else ids), report=report)
        for ids in map(_compact, prompts)
        for choice in choices
    ]


def prompt_jobs(
    tokenizer: Tokenizer,
    prompts: Iterable[Any],
    context: Context,
    params: SamplingParams,
    n: int | None = None,
) -> list[Job]:
    """Return the jobs of ``n`` answers (None: one) to each text or list of ids, prompt by prompt;
    what is too long is cut where ``context`` says so.

    Raises:
        RequestError: ``n`` is not 1 to 128.
        ContextLengthError, RequestError, TokenizerError: as `encode_prompt`.
    """
    most = context.tokens if context.policy == "error" else _MOST_TOKENS
    jobs: list[Job] = []
    for prompt in prompts:
        whole = encode_prompt(tokenizer, prompt, most)
        if len(whole) > _MOST_TOKENS:
            raise ContextLengthError(context.tokens, len(whole), at_least=True, param="prompt")
        ids, report = context.cut(whole, params.max_tokens)
        jobs += jobs_of(tokenizer, [ids], params, n, report=report)
    return jobs


def _compact(ids: Sequence[int]) -> Sequence[int]:
    """Return the ids as an array, which each of many choices copies and checks in no time."""
    try:
        return array("i", ids)
    except (OverflowError, TypeError):  # the engine says what is wrong
        return ids
