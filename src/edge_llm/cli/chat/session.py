"""The state of a conversation: the model, the messages, and how answers are sampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_llm.cli.chat import settings, transcript
from edge_llm.cli.chat.repetition import LoopDetector
from edge_llm.cli.chat.transcript import Message
from edge_llm.errors import ContextLengthError, EdgeLLMError, RequestError

if TYPE_CHECKING:
    from edge_llm.api import LLM
    from edge_llm.cli.chat.rendering.writers import Writer
    from edge_llm.runner.engine.statistics import RequestStatistics
    from edge_llm.runner.sampling import SamplingParams

Load = Callable[[str], "LLM"]


@dataclass(slots=True)
class Turn:
    """An answer and how it ended: ``reason`` is "stop", "length", "tool_calls", "interrupted" or
    "loop". An answer that was cut off here has no figures."""

    text: str = ""
    thinking: str = ""
    reason: str = "interrupted"
    stats: RequestStatistics | None = None


class Session:
    """A conversation with a model. Each change is made whole or, where it raises, not at all."""

    def __init__(self, llm: LLM, load: Load, overrides: dict[str, Any], system: str | None) -> None:
        """Begin a conversation.

        Args:
            llm: the model; the session closes it.
            load: opens another model by name.
            overrides: sampling parameters that differ from the model's own.
            system: a system message.

        Raises:
            RequestError: a parameter out of range.
            TemplateError: the model has no chat template.
        """
        llm.require_chat_template()
        llm.default_params(**overrides)
        self.llm = llm
        self._load = load
        self.overrides = overrides
        self.adapter = next(iter(llm.adapters), None)
        self.think: bool | None = None
        self.stops_loops = True
        self.messages: list[Message] = []
        self.last: Turn | None = None
        self.set_system(system)

    @property
    def params(self) -> SamplingParams:
        """The sampling of answers: the model's own way, and what was set."""
        return self.llm.default_params(**self.overrides)

    @property
    def system(self) -> str | None:
        """The system message."""
        first = self.messages[0] if self.messages else None
        return first["content"] if first is not None and first["role"] == "system" else None

    def set_system(self, text: str | None) -> None:
        """Set the system message, or remove it, and forget the rest."""
        self.messages = [] if text is None else [{"role": "system", "content": text}]

    def reset(self) -> None:
        """Forget all but the system message."""
        self.set_system(self.system)

    def set(self, name: str, value: Any) -> None:
        """Set a sampling parameter; None makes it the model's own again.

        Raises:
            RequestError: with what else is set it cannot be honoured.
        """
        changed = {key: item for key, item in self.overrides.items() if key != name}
        if value is not None:
            changed[name] = value
        self.llm.default_params(**changed)
        self.overrides = changed

    def set_think(self, think: bool | None) -> None:
        """Set whether the model thinks; None leaves it to the model.

        Raises:
            RequestError: this model cannot be told.
        """
        about = self.llm.about
        if think and not about.thinking:
            raise RequestError(f"{self.llm.name} does not think")
        if think is False and about.thinking and not about.thinking_switch:
            raise RequestError(
                f"the thinking of {self.llm.name} cannot be turned off",
                hint="edge-llm chat --hide-thinking does not show it",
            )
        self.think = think

    def set_adapter(self, name: str | None) -> None:
        """Let another adapter answer from now on; None: the model itself.

        Raises:
            RequestError: no adapter of that name is loaded.
        """
        if name is not None and name not in self.llm.adapters:
            there = ", ".join(self.llm.adapters) or "none is loaded"
            raise RequestError(f"there is no adapter {name:.40}, expected none or one of: {there}")
        self.adapter = name

    def switch(self, name: str) -> None:
        """Go on with another model.

        Raises:
            EdgeLLMError: it cannot be loaded, has no chat template, or cannot be told what is set.
        """
        llm = self._load(name)
        try:
            llm.require_chat_template()
            llm.default_params(**self.overrides)
        except BaseException:
            llm.close()
            raise
        self.llm.close()
        self.llm, self.adapter = llm, None
        if self.think is not None:
            try:
                self.set_think(self.think)
            except RequestError:
                self.think = None

    def ask(self, text: str, writer: Writer) -> Turn:
        """Answer a message.

        Raises:
            EdgeLLMError: it cannot be answered.
        """
        return self._answer([*self.messages, {"role": "user", "content": text}], writer)

    def retry(self, writer: Writer) -> Turn:
        """Answer the last message again.

        Raises:
            EdgeLLMError: there is none, or it cannot be answered.
        """
        return self._answer(self.messages[: self._last_asked() + 1], writer)

    def undo(self) -> str:
        """Forget the last message and its answer. Return the message.

        Raises:
            RequestError: there is none.
        """
        place = self._last_asked()
        asked: str = self.messages[place]["content"]
        self.messages = self.messages[:place]
        return asked

    def load_messages(self, messages: list[Message]) -> None:
        """Go on with another conversation.

        Raises:
            EdgeLLMError: the model's template refuses it, or the context cannot hold it.
        """
        try:
            tokens = self._count(messages)
        except ContextLengthError as exc:  # it was not even counted to the end
            tokens = exc.prompt_tokens
        most = self.llm.program.plan.context
        if tokens >= self.llm.context:
            raise RequestError(
                f"the conversation has {tokens} tokens or more, and the context {self.llm.context}",
                hint=f"edge-llm chat --context {most} has more" if most > tokens else None,
            )
        self.messages = messages

    def used(self) -> int | None:
        """Return how many tokens of the context the conversation has; None if its template counts
        no conversation like it."""
        try:
            return self._count(self.messages)
        except EdgeLLMError:
            return None

    def save(self, name: str) -> str:
        """Write the conversation into a file. Return what was done.

        Raises:
            RequestError: it cannot be written.
        """
        path = transcript.path_of(name)
        replaces = path.exists()
        size = transcript.write(path, self.messages)
        done = "replaced" if replaces else "saved"
        return f"{done} {path}: {len(self.messages)} messages, {size} bytes"

    def shown_settings(self) -> list[tuple[str, str, str]]:
        """Return name, present value and meaning of each setting; a star behind what was set."""
        from edge_llm.runner.sampling import PARAMETERS

        params = self.params
        think = "-" if self.think is None else settings.shown(self.think)
        rows = [
            ("think", think, "think before the answer (on, off)"),
            ("loops", "stop" if self.stops_loops else "ignore", "what to do with a loop"),
        ]
        for name in settings.names():
            value = settings.shown(getattr(params, name))
            star = "*" if name in self.overrides else ""
            rows.append((name + star, value, PARAMETERS[name].meaning))
        return rows

    def _last_asked(self) -> int:
        for place in range(len(self.messages))[::-1]:
            if self.messages[place]["role"] == "user":
                return place
        raise RequestError("nothing was asked yet")

    def _count(self, messages: list[Message]) -> int:
        """Return the tokens of a conversation. Raises as `LLM.encode_chat`."""
        if not messages:
            return 0
        waits = messages[-1]["role"] != "assistant"
        return len(self.llm.encode_chat(messages, add_generation_prompt=waits))

    def _answer(self, asked: list[Message], writer: Writer) -> Turn:
        turn = Turn()
        heard, thought = LoopDetector(), LoopDetector()
        pieces = self.llm.chat(
            asked,
            self.params,
            stream=True,
            enable_thinking=self.think,
            adapter=self.adapter,
        )
        try:
            writer.wait()
            for piece in pieces:
                turn.thinking += piece.reasoning
                turn.text += piece.text
                writer.thinking(piece.reasoning)
                writer.text(piece.text)
                if piece.finish_reason is not None:
                    turn.reason, turn.stats = piece.finish_reason, piece.stats
                elif self.stops_loops and (heard.push(piece.text) or thought.push(piece.reasoning)):
                    turn.reason = "loop"
                    break
        except KeyboardInterrupt:
            pass
        finally:
            pieces.close()  # cancels the sequence; its blocks come back
            writer.end()
        self.last = turn
        if turn.reason == "interrupted" and not (turn.text or turn.thinking):
            return turn  # nothing was said: the message is not part of the conversation
        answer: Message = {"role": "assistant", "content": turn.text}
        if turn.thinking:
            answer["reasoning_content"] = turn.thinking
        self.messages = [*asked, answer]
        return turn
