"""From what a caller wants continued to the jobs of the generation loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from operator import index
from typing import TYPE_CHECKING, Any, SupportsIndex

from edge_llm.errors import RequestError
from edge_llm.runner.generation import Job
from edge_llm.runner.sampling import SamplingOptions, SamplingParams, choices_of

if TYPE_CHECKING:
    from edge_llm.tokenizers.tokenizer import Tokenizer

Message = Mapping[str, Any]
Prompt = str | Iterable[int]
Prompts = list[str] | tuple[str, ...] | list[list[int]]


class ChatOptions(SamplingOptions, total=False):
    """Sampling options, and what goes to the chat template beside the messages."""

    tools: Sequence[Message] | None
    chat_template_kwargs: Mapping[str, Any] | None


def is_several(prompt: Prompt | Prompts) -> bool:
    """Return whether these are prompts and not one: a list of texts or of lists of ids."""
    return (
        isinstance(prompt, list | tuple)
        and len(prompt) > 0
        and not isinstance(prompt[0], SupportsIndex)
    )


def encode_prompt(tokenizer: Tokenizer, prompt: Any, context: int) -> list[int]:
    """Return the ids of a text (with BOS where the tokenizer wants one), or token ids as they are.
    Of an iterator at most ``context + 1`` are read: more never fit.

    Raises:
        RequestError: neither text nor whole numbers.
        TokenizerError: the text is not Unicode (lone surrogates).
    """
    if isinstance(prompt, str):
        return tokenizer.encode(prompt)
    if isinstance(prompt, bytes | bytearray) or not isinstance(prompt, Iterable):
        raise RequestError(
            f"a prompt is of type {type(prompt).__name__}, expected text or token ids",
            param="prompt",
        )
    sized = isinstance(prompt, Sequence) or hasattr(prompt, "__len__")
    try:
        return [index(token) for token in (prompt if sized else islice(prompt, context + 1))]
    except TypeError as exc:
        raise RequestError(f"a prompt of token ids: {exc}", param="prompt") from exc


def jobs_of(
    tokenizer: Tokenizer,
    prompts: Iterable[Sequence[int]],
    params: SamplingParams,
    n: int | None = None,
    *,
    answers: bool = False,
) -> list[Job]:
    """Return the jobs of ``n`` answers (None: one) to each prompt of token ids, prompt by prompt.

    Args:
        answers: the texts are ones of their own, not the rest of their prompts' (a space that only
            the beginning of a text has is left out).

    Raises:
        RequestError: ``n`` is not 1 to 128.
    """
    from edge_llm.tokenizers.stream import TextDecoder

    choices = choices_of(params, 1 if n is None else n)
    return [
        Job(ids, choice, TextDecoder(tokenizer, after=() if answers else ids))
        for ids in prompts
        for choice in choices
    ]
