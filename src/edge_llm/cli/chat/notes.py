"""The notes that follow an answer: why it ended, and its speed."""

from __future__ import annotations

from edge_llm.cli.chat.session import Session, Turn
from edge_llm.errors import ContextLengthError, EdgeLLMError

_NEARLY = 0.9  # of the context


def about_turn(session: Session, turn: Turn) -> str | None:
    """Return what a person has to know of an answer: that it is not whole and why, or that the
    context is nearly full; None if there is nothing."""
    match turn.reason:
        case "interrupted" if not (turn.text or turn.thinking):
            return "(stopped before the answer began; the message was taken back)"
        case "interrupted":
            return "(stopped)"
        case "loop":
            return (
                "(stopped: the answer repeats itself. /retry asks again; /set repetition_penalty "
                "1.1 or /set dry_multiplier 0.8 may help; /set loops ignore lets it go on)"
            )
    stats = turn.stats
    if stats is None:
        return None
    used, context = stats.prompt_tokens + stats.completion_tokens, session.llm.context
    if turn.reason == "length":
        most = session.params.max_tokens
        if most is not None and stats.completion_tokens >= most:
            return (
                f"(cut at max_tokens, {most}: /set max_tokens {max(2 * most, 16)} allows more, "
                "then /retry)"
            )
        return f"(cut: the context of {context} tokens is full. {_room(session)})"
    if used >= _NEARLY * context:
        return f"({used} of the context's {context} tokens are used. {_room(session)})"
    return None


def about_error(session: Session, error: EdgeLLMError) -> str:
    """Return an error in words for the conversation, in which nothing has changed."""
    hint = error.hint
    if isinstance(error, ContextLengthError):
        hint = f"nothing was sent or forgotten; {_room(session, alone=session.used() == 0)}"
    return f"error: {error}" + (f"\nhint: {hint}" if hint else "")


def _room(session: Session, *, alone: bool = False) -> str:
    """Return what makes room; ``alone``: there is nothing to forget."""
    most = session.llm.program.plan.context
    ways = ["a shorter message fits" if alone else "/undo and /reset make room"]
    if most > session.llm.context:
        ways.append(f"edge-llm chat --context {most} has more")
    return ", ".join(ways)
