"""The token ids of a conversation, in which nobody can type a control token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from edge_llm.tokenizers.chat.continuation import (
    check_continued,
    cut_at_mark,
    with_end_marked,
)
from edge_llm.tokenizers.chat.conversation import plain, plain_list, with_reasoning
from edge_llm.tokenizers.chat.mask import Finder, Mask
from edge_llm.tokenizers.chat.template import ChatTemplate, Message
from edge_llm.tokenizers.output.syntax import WritingSyntax
from edge_llm.tokenizers.tokenizer import Tokenizer


class _Controls(NamedTuple):
    """The part that conversations of one template and tokenizer share: the tokenizer with the
    template's control tokens, and what is hidden of theirs in the conversation."""

    owner: Tokenizer
    marks: tuple[str, ...]
    tokenizer: Tokenizer
    finder: Finder
    answers: Finder


_prepared: WeakKeyDictionary[ChatTemplate, _Controls] = WeakKeyDictionary()


def encode_chat(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    messages: Sequence[Message],
    token_limit: int | None = None,
    /,
    *,
    tools: Sequence[Message] | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    calls: WritingSyntax | None = None,
    **kwargs: Any,
) -> list[int]:
    """Return the token ids of a rendered conversation.

    Control tokens are the tokenizer's special tokens, and every added token that the template
    writes, also where a file does not call it special, but for white space. The ids are those of
    ``transformers``, but for the text of a control token that is part of the conversation and not
    of the template: it stays plain text, so that nobody can end a turn or begin one by typing it.
    (In what the assistant has said, texts that the template itself looks for there are left to it:
    a ``</think>``, say.) BOS is there if the template writes it.

    Args:
        token_limit: refuse, while it is written, a prompt that has more tokens in any case; one
            that is not refused may still have more.
        calls: writes the calls of former turns behind what their messages say, where the template
            does not; its marks are control tokens.

    Raises:
        ContextLengthError: the prompt cannot be encoded in ``token_limit`` tokens.
        TemplateError: see `ChatTemplate.render`.
        TokenizerError: text that is not Unicode or too long.
    """
    controls = _controls_of(tokenizer, template, calls.marks if calls else ())
    plain_messages = [with_reasoning(message) for message in plain_list("messages", messages)]
    plain_tools = None if tools is None else plain_list("tools", tools)
    variables = {name: plain(value) for name, value in kwargs.items()}
    mask = Mask(
        controls.finder,
        controls.answers,
        [plain_messages, plain_tools, list(variables.values())],
        template.source,
        template.names,
    )
    view = controls.tokenizer
    hidden = mask.hide_messages(plain_messages)
    if calls is not None:
        hidden = [_with_calls(message, calls) for message in hidden]
    if continue_final_message:
        check_continued(plain_messages)
        hidden = with_end_marked(hidden, mask.end)
    text = template.render_within(
        view.length,
        token_limit,
        hidden,
        mask.hide(plain_tools),
        add_generation_prompt and not continue_final_message,
        {name: mask.hide(value) for name, value in variables.items()},
    )
    if continue_final_message:
        text = cut_at_mark(text, mask.end)
    ids, marks = view.encode_marked(text, token_limit)
    if not mask.used:
        return ids
    # What stands between two special tokens of the template is encoded on its own in any case,
    # so a stretch with hidden text can be encoded again without touching its neighbours.
    result: list[int] = []
    begin = start = 0
    for at, place, end in [*marks, (len(ids), len(text), len(text))]:
        piece = text[start:place]
        shown = mask.show(piece)
        result += (
            ids[begin:at]
            if shown == piece
            else view.encode(shown, add_bos=False, continues=start > 0)
        )
        result += ids[at : at + 1]
        begin, start = at + 1, end
    return result


def _with_calls(message: Mapping[Any, Any], syntax: WritingSyntax) -> dict[Any, Any]:
    """Return a message with its calls in its content."""
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    given = message.get("tool_calls")
    if not given:
        return rest
    calls = []
    for call in given:
        function = call.get("function", call)
        arguments = function.get("arguments") or {}
        known = arguments if isinstance(arguments, Mapping) else {"arguments": arguments}
        calls.append((str(function.get("name")), known))
    return {**rest, "content": f"{rest.get('content') or ''}{syntax.written(calls)}"}


def _controls_of(tokenizer: Tokenizer, template: ChatTemplate, marks: tuple[str, ...]) -> _Controls:
    """Return what is prepared once for a tokenizer and a template, and for marks that are written
    with it."""
    known = _prepared.get(template)
    if known is not None and known.owner is tokenizer and known.marks == marks:
        return known
    written = frozenset(
        text
        for text in tokenizer.added_texts
        # White space is nobody's mark: Gemma adds tokens for lines and runs of spaces.
        if (text in template.source or text in marks) and text.replace("▁", " ").strip()
    )
    specials = tokenizer.special_texts.keys()
    others = written - specials
    changed = others or tokenizer.has_normalized_specials
    view = tokenizer.with_specials(others) if changed else tokenizer
    sought = {text for text in others if any(text in constant for constant in template.sought)}
    finder = Finder(view.special_texts)
    answers = Finder(view.special_texts.keys() - sought) if sought else finder
    known = _prepared[template] = _Controls(tokenizer, marks, view, finder, answers)
    return known
