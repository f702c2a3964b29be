"""The grammars of one loaded model: compiled once, within bounds, and remembered."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_llm.errors import RequestError
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.runner.guidance.matcher import GrammarConstraint
from edge_llm.runner.guidance.reasons import reason_of
from edge_llm.runner.guidance.vocabulary import Vocabulary

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits

_STACK_BYTES = 256 * 1024 * 1024  # reserved, not used: chains of rules are walked recursively
_MOST_FORCED = 65_536  # bytes; all of them are known before the first token
_stack_size = threading.Lock()  # one setting of the process


class Guide:
    """Checks grammars and makes constraints of them. All methods may be called from any thread;
    they take as long as a grammar takes to compile, up to about a second, unless it is known."""

    def __init__(self, make: Callable[[], Vocabulary], *, kept: int = 128) -> None:
        """Take a model's vocabulary, which ``make`` makes when it is needed first, and remember
        ``kept`` grammars."""
        self._make = make
        self._vocabulary: Vocabulary | None = None
        self._making = threading.Lock()
        self._kept = kept
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's vocabulary."""
        if self._vocabulary is None:
            with self._making:
                if self._vocabulary is None:
                    self._vocabulary = self._make()
        return self._vocabulary

    def check(self, grammar: Grammar, param: str | None) -> None:
        """Compile a grammar, so that what cannot be enforced is known before anything runs.

        Raises:
            RequestError: with ``param``: the grammar has a mistake, is too complex, cannot be
                enforced, or allows no text at all.
        """
        self._matcher(grammar, param)

    def constraint(self, grammar: Grammar, param: str | None = None) -> GrammarConstraint:
        """Return a constraint that holds one answer to a grammar.

        Raises:
            RequestError: as `check`.
        """
        return GrammarConstraint(self._matcher(grammar, param), self.vocabulary)

    def _matcher(self, grammar: Grammar, param: str | None) -> LLMatcher:
        """Return a matcher of its own at the beginning of ``grammar``."""
        vocabulary = self.vocabulary
        with self._lock:
            known = self._compiled.get(grammar)
            if known is not None:
                self._compiled.move_to_end(grammar)
                return known.deep_copy()
        matcher = _compiled(vocabulary, grammar, param)
        with self._lock:
            self._compiled[grammar] = matcher
            while len(self._compiled) > self._kept:
                self._compiled.popitem(last=False)
            return matcher.deep_copy()


def _compiled(vocabulary: Vocabulary, grammar: Grammar, param: str | None) -> LLMatcher:
    """Return a matcher for copies to be made of. Raises as `Guide.check`."""
    from llguidance import LLMatcher

    compiled: list[LLMatcher] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            text = LLMatcher.grammar_from_lark(grammar.text)
            compiled.append(LLMatcher(vocabulary.library, text, log_level=0, limits=_limits()))
            if not compiled[0].is_error():  # the first mask tells whether there is any text at all
                GrammarConstraint(compiled[0], vocabulary).finished  # noqa: B018
        except BaseException as error:  # what the library raises where it panics is no Exception
            failed.append(error)

    with _stack_size:
        before = threading.stack_size(_STACK_BYTES)
        try:
            thread = threading.Thread(target=work, name="edge-llm-grammar", daemon=True)
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    if failed:
        reason = reason_of(failed[0])
        raise RequestError(f"the grammar cannot be used: {reason}", param=param) from failed[0]
    (matcher,) = compiled
    if matcher.is_error():
        raise RequestError(_reason(matcher.get_error()), param=param)
    if (forced := len(matcher.compute_ff_bytes())) > _MOST_FORCED:
        raise RequestError(
            f"the grammar begins with {forced} bytes that it leaves no choice about, expected up "
            f"to {_MOST_FORCED}",
            param=param,
        )
    if warnings := matcher.get_grammar_warnings():
        raise RequestError(f"the grammar cannot be enforced: {reason_of(warnings[0])}", param=param)
    return matcher


def _limits() -> LLParserLimits:
    """Return limits under which a grammar takes about a second and 100 MB at most."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=1_000_000,
        max_lexer_states=50_000,
        max_grammar_size=500_000,
        verbose_errors=False,  # errors are logged, and grammars are the client's own
    )


def _reason(error: str) -> str:
    """Return the library's reason, and what it is about."""
    _, marked, inner = error.partition("failed to compile JSON schema: ")
    if marked:
        return f"the JSON schema cannot be enforced: {reason_of(inner)}"
    return f"the grammar cannot be used: {reason_of(error)}"
