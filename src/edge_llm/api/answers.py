"""From a chat to the jobs of its answers: what is rendered, how it is read, what may be sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edge_llm.api.chat import ChatCall, NamedTool, ThinkingOptions
from edge_llm.api.fitting import fitted
from edge_llm.api.prompts import jobs_of
from edge_llm.api.tools import template_form
from edge_llm.errors import RequestError, TemplateError
from edge_llm.parsed import Tool
from edge_llm.runner.context import Context
from edge_llm.runner.engine.constraints import Constraint
from edge_llm.runner.generation.loop import Job
from edge_llm.runner.guidance.combined import Either, Headed
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.runner.guidance.guide import Guide
from edge_llm.runner.guidance.matcher import GrammarConstraint, Guided
from edge_llm.runner.guidance.phases import Thinking, Triggered
from edge_llm.runner.sampling import SamplingParams
from edge_llm.tokenizers.chat.messages import Message, checked_messages

if TYPE_CHECKING:
    from edge_llm.tokenizers.chat.template import ChatTemplate
    from edge_llm.tokenizers.output.syntax import OutputSyntax, ReasoningSyntax, WritingSyntax
    from edge_llm.tokenizers.tokenizer import Tokenizer

Maker = Callable[[], Guided]

_TAIL = 64  # ids at the end of a prompt in which the head of a thinking block is looked for


def syntax_of(template: ChatTemplate, tokenizer: Tokenizer) -> OutputSyntax:
    """Return how the answers to chats are to be read. Calls that the template does not know are
    written as `plain_tools` tells the model to."""
    from edge_llm.tokenizers.chat.plain_tools import SYNTAX
    from edge_llm.tokenizers.output.table import TOOL_SYNTAXES, output_syntax_of

    syntax = output_syntax_of(template.source, tokenizer.added_texts)
    if syntax.tools is None and not template.takes_tools:
        return replace(syntax, tools=TOOL_SYNTAXES[SYNTAX])
    return syntax


class Answers:
    """What the chats of one model share."""

    def __init__(
        self, tokenizer: Tokenizer, template: ChatTemplate, context: Context, guide: Guide
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._context = context
        self._guide = guide

    @cached_property
    def syntax(self) -> OutputSyntax:
        """How answers are to be read."""
        return syntax_of(self._template, self._tokenizer)

    def jobs(self, call: ChatCall, params: SamplingParams, n: int | None) -> list[Job]:
        """Return the jobs of ``n`` answers (None: one) to a chat.

        Raises:
            RequestError: an option that this model cannot honour, or ``n`` is not 1 to 128.
            TemplateError, ContextLengthError, TokenizerError: as `encode_chat`.
        """
        call = replace(call, thinking=self._thinking_of(call))
        tools = _offered(call)
        continues = call.continue_final_message or (
            not call.add_generation_prompt and _is_begun(call.messages)
        )
        thinking = self._thinking_variables(call.thinking)

        def written(messages: Sequence[Message], token_limit: int | None) -> list[int]:
            return self._encode(
                messages,
                token_limit,
                tools=template_form(tools) or None,
                add_generation_prompt=call.add_generation_prompt,
                continue_final_message=continues,
                **{**thinking, **call.template_variables},
            )

        context = self._context if call.cut else replace(self._context, policy="error")
        ids, report = fitted(call.messages, written, context, params.max_tokens)
        thought, begun = self._begun(call.messages) if continues else (False, "")
        opened = thought or self._thinking_is_open(ids)
        constraint = self._constraint_maker(call, tools, opened=opened, begun=begun)
        parsed = params.skip_special_tokens and (self.syntax.reasoning is not None or tools)
        must_call = bool(tools) and call.tool_choice != "auto"
        return [
            replace(
                job,
                parser=self.syntax.parser(tools=tools, thinking=opened, calls_only=must_call)
                if parsed
                else None,
                constraint=constraint() if constraint is not None else None,
            )
            for job in jobs_of(
                self._tokenizer, [ids], params, n, answers=not continues, report=report
            )
        ]

    def encode(
        self, messages: Sequence[Message], /, *, tools: Sequence[Message] | None, **options: Any
    ) -> list[int]:
        """Return the token ids of a conversation; see `edge_llm.tokenizers.chat.encode`."""
        return self._encode(messages, self._context.tokens, tools=tools, **options)

    def _encode(
        self,
        messages: Sequence[Message],
        token_limit: int | None,
        /,
        *,
        tools: Sequence[Message] | None,
        **options: Any,
    ) -> list[int]:
        from edge_llm.tokenizers.chat.encode import encode_chat
        from edge_llm.tokenizers.chat.history import history_of
        from edge_llm.tokenizers.chat.plain_tools import told_in_text

        history = history_of(self._template.source)
        messages = history.prepared(checked_messages(messages))
        writer = None
        if not self._template.takes_tools:
            messages = told_in_text(messages, tools or (), system=history.system)
            tools = None
        elif not history.calls:
            writer = self._call_writer(messages)
        return encode_chat(
            self._tokenizer,
            self._template,
            messages,
            token_limit,
            tools=tools,
            calls=writer,
            **options,
        )

    def _call_writer(self, messages: Sequence[Message]) -> WritingSyntax | None:
        """Return what writes the calls of former turns, where the template does not; None where
        there are none, and nothing could.

        Raises:
            TemplateError: nothing can, and there are some.
        """
        from edge_llm.tokenizers.output.syntax import WritingSyntax

        syntax = self.syntax.tools
        if isinstance(syntax, WritingSyntax):
            return syntax
        if any(message.get("tool_calls") for message in messages):
            raise TemplateError(
                "the chat template leaves out the calls of former turns, and how its model writes "
                "them is not known"
            )
        return None

    def _begun(self, messages: Sequence[Message]) -> tuple[bool, str]:
        """Return whether the last message, which is to be continued, has not come to its content
        yet, and what it says."""
        from edge_llm.tokenizers.chat.conversation import with_reasoning
        from edge_llm.tokenizers.chat.history import history_of

        [last] = history_of(self._template.source).prepared(messages[-1:])
        content = last["content"] if isinstance(last["content"], str) else ""
        return bool(with_reasoning(last).get("reasoning_content")) and not content, content

    def _thinking_of(self, call: ChatCall) -> ThinkingOptions:
        """Return how to think. The variable of most templates is as good as the option where the
        model can be told; many clients send it to every model, and others it does not concern."""
        wanted, reasoning = call.template_variables.get("enable_thinking"), self.syntax.reasoning
        if reasoning is None or reasoning.variable is None or not isinstance(wanted, bool):
            return call.thinking
        if call.thinking.enabled is not None:
            return call.thinking
        return replace(call.thinking, enabled=wanted)

    def _thinking_variables(self, thinking: ThinkingOptions) -> dict[str, Any]:
        reasoning = self.syntax.reasoning
        if thinking == ThinkingOptions():
            return {}
        if reasoning is None:
            if thinking.enabled is not True and thinking.effort in (None, "none"):
                return {}  # it does not think anyway, in no more than any budget
            param = "reasoning_effort" if thinking.effort is not None else "enable_thinking"
            raise RequestError("the model's chat template knows no thinking", param=param)
        if thinking.enabled is None and thinking.effort is None:
            return {}
        return reasoning.variables(enabled=thinking.enabled, effort=thinking.effort)

    def _thinking_is_open(self, ids: Sequence[int]) -> bool:
        reasoning = self.syntax.reasoning
        if reasoning is None:
            return False
        end = self._tokenizer.decode(ids[-_TAIL:], skip_specials=False, continues=True)
        return reasoning.opened_by(end)

    def _constraint_maker(
        self, call: ChatCall, tools: Sequence[Tool], *, opened: bool, begun: str
    ) -> Callable[[], Constraint] | None:
        """Return what makes the constraint of each answer, None if anything may be sampled.
        Grammars are compiled here, so that it raises nothing later. ``begun``: what the answer
        has said already, which the content's grammar must allow."""
        body = self._body(call, tools, begun)
        reasoning, budget = self.syntax.reasoning, call.thinking.budget
        if reasoning is None or (body is None and budget is None):
            return body
        vocabulary, gap = self._guide.vocabulary, reasoning.gap.encode()
        close = self._marker(reasoning.close)
        opening = () if opened or begun else self._opening(call, reasoning)
        if not (opened or opening):
            return body
        return lambda: Thinking(
            vocabulary,
            close,
            budget=budget,
            then=body() if body else None,
            opening=opening,
            gap=gap,
        )

    def _opening(self, call: ChatCall, reasoning: ReasoningSyntax) -> Sequence[int]:
        """Return the tokens with which the model may open a thinking block, where the prompt has
        opened none; none if it is not to think."""
        enabled = call.thinking.enabled
        if enabled is None and reasoning.variable is not None:
            enabled = call.template_variables.get(reasoning.variable, reasoning.default)
        if enabled is False or call.thinking.effort == "none":
            return ()
        return self._ids_of(reasoning.open)

    def _body(self, call: ChatCall, tools: Sequence[Tool], begun: str) -> Maker | None:
        """Return what makes the constraint of what comes behind thinking."""
        content = None
        if call.grammar is not None:
            content = self._headed(self._maker(call.grammar, call.grammar_param, begun), begun)
        if not tools:
            return content
        chosen = call.tool_choice
        one = isinstance(chosen, NamedTool)
        first = 0
        if isinstance(chosen, NamedTool):
            first = [tool.name for tool in tools].index(chosen.name)
            tools = tools[first : first + 1]
        try:
            grammar = self.syntax.tool_grammar(
                tools, parallel=call.parallel_tool_calls and not one, token_id=self._token_id
            )
        except RequestError as exc:  # the place of a named one is that among all
            place = (exc.param or "").replace("tools[0]", f"tools[{first}]")
            raise RequestError(str(exc), param=place) from exc
        calls = self._maker(Grammar.lark(grammar.start, param="tools"), "tools")
        if chosen != "auto":
            return calls
        if content is not None:
            vocabulary = self._guide.vocabulary
            return lambda: Either(vocabulary, content(), calls())
        if grammar.after is None:
            return None
        after = self._maker(Grammar.lark(grammar.after, param="tools"), "tools")
        vocabulary, triggers = (
            self._guide.vocabulary,
            [self._marker(text) for text in grammar.triggers],
        )
        return lambda: Triggered(
            vocabulary,
            triggers,
            after,
            at_start=grammar.at_start,
            once=not call.parallel_tool_calls,
        )

    def _headed(self, content: Maker, begun: str) -> Maker:
        """Return the maker of a content's constraint with what stands before content."""
        if not self.syntax.content_head or begun:
            return content
        vocabulary, head = self._guide.vocabulary, self._ids_of(self.syntax.content_head)
        return lambda: Headed(vocabulary, head, content())

    def _ids_of(self, written: str) -> Sequence[int]:
        """Return the ids of a text with control tokens written out."""
        return self._tokenizer.encode(written, add_bos=False, specials=True, continues=True)

    def _maker(self, grammar: Grammar, param: str, begun: str = "") -> Maker:
        """Return what makes constraints of a grammar, ``begun`` being said already.

        Raises:
            RequestError: the grammar cannot be enforced, or does not allow ``begun``.
        """
        self._guide.check(grammar, param)

        def make() -> GrammarConstraint:
            constraint = self._guide.constraint(grammar, param)
            if begun:
                if not constraint.allows(begun.encode()):
                    raise RequestError(
                        f"{param} does not allow the message that is to be continued",
                        param="messages",
                    )
                constraint.feed(begun.encode())
            return constraint

        return make

    def _token_id(self, text: str) -> int | None:
        return self._tokenizer.added_ids.get(text)

    def _marker(self, text: str) -> int | bytes:
        """Return a control token's id, or the bytes of a text that is none."""
        found = self._token_id(text)
        return text.encode() if found is None else found


def _offered(call: ChatCall) -> Sequence[Tool]:
    """Return the tools that the model is told of.

    Raises:
        RequestError: the choice needs tools that are not there.
    """
    choice = call.tool_choice
    if choice == "none":
        return ()
    if choice != "auto" and not call.tools:
        raise RequestError(
            "tool_choice asks for a call and there are no tools", param="tool_choice"
        )
    names = [tool.name for tool in call.tools]
    if isinstance(choice, NamedTool) and choice.name not in names:
        raise RequestError(
            f"tool_choice is {choice.name!r:.80}, expected 'auto', 'none', 'required' or a tool's "
            f"name: {', '.join(names):.200}",
            param="tool_choice",
        )
    return call.tools


def _is_begun(messages: Sequence[Message]) -> bool:
    return bool(messages) and messages[-1].get("role") == "assistant"
