"""The sampling parameters, each declared once: its type, range, default and meaning.

The fields of `SamplingParams` are the table. `PARAMETERS` is the same table for those who read it:
the checks below, keyword arguments of the Python API, options of the command line, the schema of
the HTTP server, and the tests that hold the core's struct and a program's recommendations to it.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, Literal, TypedDict

from edge_llm.errors import RequestError
from edge_llm.near import near

MAX_CHOICES = 128
MAX_TOP_LOGPROBS = 20
MAX_STOP_CHARACTERS = 2**16  # of all stop strings of a request together
MAX_BREAKER_CHARACTERS = 2**12  # likewise
INT32_MAX = 2**31 - 1


class UnsetNumber(float):
    """The neutral value of a parameter that nobody has given: `SamplingParams.filled` puts what the
    program's authors recommend in its place."""

    def __repr__(self) -> str:
        return "the model's own"


class UnsetInteger(int):
    """The same as `UnsetNumber`, for a whole number."""

    def __repr__(self) -> str:
        return "the model's own"


Kind = Literal["integer", "number", "boolean", "name", "strings", "ids", "biases"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One sampling parameter.

    Attributes:
        kind: the type of its value; "name" is one of ``choices``, "biases" maps ids to numbers
            within the range.
        part: who gives it its meaning: the "sampler" of the backends, the "engine", or the "text"
            of the generation loop.
        default: what is taken where none is given; where it is None, None can also be given, and
            means what ``meaning`` says.
        low, high: the range, both included unless ``above`` says that ``low`` is not.
        same: values that clients send for another one (-1 for "off").
        aliases: other names for it, of HTTP and of the Python API's keyword arguments.
        cli: the command line has an option for it.
        rare: its help is in a group of its own.
        most: entries of a list that a request may have.
        http: requests may set it by its name; where False, routes have ways of their own.
        recommended: programs say what their authors recommend, which is taken where none is given;
            ``default`` where a program says nothing.
    """

    name: str = ""
    kind: Kind
    meaning: str
    part: Literal["sampler", "engine", "text"]
    default: Any = None
    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    choices: tuple[str, ...] = ()
    same: Mapping[Any, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    cli: bool = True
    rare: bool = False
    most: int = 0
    http: bool = True
    recommended: bool = False

    def check(self, value: Any) -> Any:
        """Return ``value`` as `SamplingParams` keeps it.

        Raises:
            RequestError: it has the wrong type or is out of range.
        """
        if value is None and self.default is None:
            return None
        if isinstance(value, UnsetNumber | UnsetInteger):
            return value
        match self.kind:
            case "integer" | "number":
                return self._number(value, whole=self.kind == "integer")
            case "boolean":
                if not isinstance(value, bool):
                    raise self._wrong_type(value, "True or False")
                return value
            case "name":
                if not isinstance(value, str) or value not in self.choices:
                    raise self._wrong_type(value, f"one of {', '.join(self.choices)}")
                return value
            case "strings":
                return self._strings(value)
            case "ids":
                if isinstance(value, str | bytes) or not isinstance(value, Collection):
                    raise self._wrong_type(value, "a sequence of token ids")
                return tuple(self._number(item, whole=True) for item in value)
            case "biases":
                return self._biases(value)

    def _number(self, value: Any, *, whole: bool) -> Any:
        expected = "a whole number" if whole else "a number"
        if isinstance(value, bool) or not isinstance(value, Real):
            raise self._wrong_type(value, expected)
        if isinstance(value, Integral):
            value = int(value)
        else:
            try:
                value = float(value)
            except OverflowError:  # a fraction larger than any float
                value = math.inf if value > 0 else -math.inf
            if whole:
                if not value.is_integer():  # nor are NaN and infinities
                    raise self._wrong_type(value, expected)
                value = int(value)
        value = self.same.get(value, value)
        inside = self.low < value if self.above else self.low <= value
        if not (inside and value <= self.high):  # also for NaN
            low = f"above {self.low}, at most" if self.above else f"{self.low} to"
            raise RequestError(
                f"{self.name} is {_shown(value)}, expected {low} {self.high}", param=self.name
            )
        return value if whole else float(value)

    def _strings(self, value: Any) -> tuple[str, ...]:
        if isinstance(value, str):
            value = (value,)
        if isinstance(value, bytes) or not isinstance(value, Sequence):
            raise self._wrong_type(value, "a string or a sequence of strings")
        characters = 0
        for item in value:
            if not isinstance(item, str):
                raise self._wrong_type(item, "strings alone")
            if not item:
                raise RequestError(f"a {self.name} string must not be empty", param=self.name)
            characters += len(item)
        if characters > self.high:
            raise RequestError(
                f"the {self.name} strings have {characters} characters together, expected at most "
                f"{self.high}",
                param=self.name,
            )
        return tuple(value)

    def _biases(self, value: Any) -> Mapping[int, float]:
        if not isinstance(value, Mapping):
            raise self._wrong_type(value, "a mapping of token ids to numbers")
        for key in value:
            whole = isinstance(key, Integral) and not isinstance(key, bool)
            if not (whole and 0 <= key <= INT32_MAX):
                raise self._wrong_type(key, "token ids as keys")
        return {int(key): self._number(bias, whole=False) for key, bias in value.items()}

    def _wrong_type(self, value: Any, expected: str) -> RequestError:
        return RequestError(
            f"{self.name}: got {_shown(value)}, expected {expected}", param=self.name
        )


def _declare(default: Any, kind: Kind, meaning: str, **rules: Any) -> Any:
    """Return a field of `SamplingParams` with its declaration."""
    rules.setdefault("part", "sampler")
    parameter = Parameter(kind=kind, meaning=meaning, default=default, **rules)
    if parameter.recommended:
        default = UnsetInteger(default) if kind == "integer" else UnsetNumber(default)
    if kind == "biases":
        return field(default_factory=dict, metadata={"parameter": parameter})
    return field(default=default, metadata={"parameter": parameter})


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """The way in which one request samples.

    What is left out of temperature, top_k, top_p, min_p and repetition_penalty is the model's own:
    the program has the values that its authors recommend (`LLM.default_params`).

    The steps, in this order: biases; repetition, presence and frequency penalties; DRY; what may
    follow at all. Then the likeliest token where the temperature is 0, else temperature, top_k,
    typical_p, min_p, top_p and XTC, each over what the one before left, and one draw. DRY ("don't
    repeat yourself") is github.com/oobabooga/textgen/pull/5677, XTC ("exclude top choices") pull
    6335 there, typical_p is locally typical sampling (Meister et al., arXiv 2202.00666).

    Raises:
        RequestError: a value of the wrong type or out of range; ``param`` names the field.
    """

    temperature: float = _declare(
        1.0, "number", "0 takes the likeliest token", low=0, high=2, recommended=True
    )
    top_k: int = _declare(
        0,
        "integer",
        "keep the K likeliest tokens; 0: all",
        low=0,
        high=INT32_MAX,
        same={-1: 0},
        recommended=True,
    )
    top_p: float = _declare(
        1.0,
        "number",
        "keep the likeliest tokens of this total probability",
        low=0,
        high=1,
        recommended=True,
    )
    min_p: float = _declare(
        0.0,
        "number",
        "drop tokens below this share of the likeliest one's probability",
        low=0,
        high=1,
        recommended=True,
    )
    typical_p: float = _declare(
        1.0,
        "number",
        "keep the tokens whose surprise is nearest to the expected one, of this total probability",
        low=0,
        high=1,
        rare=True,
    )
    repetition_penalty: float = _declare(
        1.0,
        "number",
        "above 1, tokens already seen become less likely",
        low=0,
        high=10,
        above=True,
        aliases=("repeat_penalty",),
        recommended=True,
    )
    presence_penalty: float = _declare(
        0.0, "number", "above 0, tokens of the answer become less likely", low=-2, high=2
    )
    frequency_penalty: float = _declare(
        0.0,
        "number",
        "above 0, tokens of the answer become less likely each time they come",
        low=-2,
        high=2,
    )
    dry_multiplier: float = _declare(
        0.0,
        "number",
        "DRY: what goes on with a repetition of n tokens loses this * base^(n - allowed length)",
        low=0,
        high=100,
        rare=True,
    )
    dry_base: float = _declare(
        1.75, "number", "the base of DRY's penalty (default: 1.75)", low=1, high=100, rare=True
    )
    dry_allowed_length: int = _declare(
        2,
        "integer",
        "repetitions of fewer tokens than this cost nothing (default: 2)",
        low=1,
        high=INT32_MAX,
        rare=True,
    )
    dry_penalty_last_n: int = _declare(
        -1,
        "integer",
        "how many of the last tokens DRY looks at; -1: all of prompt and answer",
        low=-1,
        high=INT32_MAX,
        rare=True,
    )
    dry_sequence_breakers: tuple[str, ...] = _declare(
        ("\n", ":", '"', "*"),
        "strings",
        "no repetition reaches across a token that has this text; may be repeated (default: end of "
        "line, colon, double quote, asterisk)",
        high=MAX_BREAKER_CHARACTERS,
        part="engine",
        most=32,
        rare=True,
    )
    xtc_probability: float = _declare(
        0.0,
        "number",
        "XTC: how often the likely tokens, but for the least likely of them, are excluded",
        low=0,
        high=1,
        rare=True,
    )
    xtc_threshold: float = _declare(
        0.1,
        "number",
        "the probability from which on a token is likely (default: 0.1)",
        low=0,
        high=1,
        rare=True,
    )
    logit_bias: Mapping[int, float] = _declare(
        {}, "biases", "what is added to the logits of some ids", low=-100, high=100, cli=False
    )
    seed: int | None = _declare(
        None,
        "integer",
        "the same seed gives the same text",
        low=-(2**63),
        high=2**64 - 1,
        part="engine",
    )
    max_tokens: int | None = _declare(
        None,
        "integer",
        "stop after this many tokens (default, and -1: at the context limit)",
        low=0,
        high=INT32_MAX,
        same={-1: INT32_MAX},
        part="engine",
        aliases=("max_completion_tokens", "n_predict"),
    )
    min_tokens: int = _declare(
        0,
        "integer",
        "nothing ends the answer before this many tokens",
        low=0,
        high=INT32_MAX,
        part="engine",
        rare=True,
    )
    stop: tuple[str, ...] = _declare(
        (),
        "strings",
        "end the text before this string; may be repeated",
        high=MAX_STOP_CHARACTERS,
        part="text",
        most=4,
        aliases=("stop_sequences",),
    )
    include_stop_str_in_output: bool = _declare(
        False, "boolean", "end the text after a stop string, not before it", part="text", cli=False
    )
    skip_special_tokens: bool = _declare(
        True, "boolean", "control tokens give no text", part="text", cli=False
    )
    stop_ids: tuple[int, ...] | None = _declare(
        None,
        "ids",
        "ids that end the answer (default: the program's own)",
        low=0,
        high=INT32_MAX,
        part="engine",
        cli=False,
        http=False,
    )
    stop_token_ids: tuple[int, ...] = _declare(
        (),
        "ids",
        "more ids that end the answer",
        low=0,
        high=INT32_MAX,
        part="engine",
        most=256,
        cli=False,
    )
    ignore_eos: bool = _declare(
        False, "boolean", "go on past the ids that end an answer of their own accord", part="engine"
    )
    speculation: str = _declare(
        "auto",
        "name",
        "propose tokens that may follow and check several at once, which changes no token; ngram: "
        "what followed the last tokens before; auto: as much of that as pays; draft: what the "
        "program's draft method predicts",
        choices=("auto", "off", "ngram", "draft"),
        part="engine",
    )
    top_logprobs: int | None = _declare(
        None,
        "integer",
        "log-probabilities of each token, and of so many of the likeliest at its place",
        low=0,
        high=MAX_TOP_LOGPROBS,
        cli=False,
        http=False,
    )
    prompt_logprobs: int | None = _declare(
        None,
        "integer",
        "likewise of the prompt's own tokens",
        low=0,
        high=MAX_TOP_LOGPROBS,
        part="engine",
        cli=False,
        http=False,
    )
    # logit_bias in the form that the core reads: prepared once a request, not at every token.
    bias_ids: array[int] = field(init=False, repr=False, compare=False)
    bias_values: array[float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, parameter in PARAMETERS.items():
            object.__setattr__(self, name, parameter.check(getattr(self, name)))
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise RequestError(
                f"min_tokens is {self.min_tokens}, expected at most max_tokens, {self.max_tokens}",
                param="min_tokens",
            )
        object.__setattr__(self, "bias_ids", array("i", self.logit_bias))
        object.__setattr__(self, "bias_values", array("f", self.logit_bias.values()))

    def filled(self, recommended: Mapping[str, float]) -> SamplingParams:
        """Return the parameters with what a program's authors recommend, by name, in place of what
        was left out."""
        unset: dict[str, Any] = {
            name: value
            for name, value in recommended.items()
            if isinstance(getattr(self, name), UnsetNumber | UnsetInteger)
        }
        return replace(self, **unset) if unset else self


class SamplingOptions(TypedDict, total=False):
    """The fields of `SamplingParams` as keyword arguments, for type checkers (a test holds both
    together)."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_penalty_last_n: int
    dry_sequence_breakers: str | Sequence[str]
    xtc_probability: float
    xtc_threshold: float
    logit_bias: Mapping[int, float]
    seed: int | None
    max_tokens: int | None
    min_tokens: int
    stop: str | Sequence[str]
    include_stop_str_in_output: bool
    skip_special_tokens: bool
    stop_ids: Sequence[int] | None
    stop_token_ids: Sequence[int]
    ignore_eos: bool
    speculation: str
    top_logprobs: int | None
    prompt_logprobs: int | None


PARAMETERS: Mapping[str, Parameter] = MappingProxyType(
    {
        declared.name: replace(declared.metadata["parameter"], name=declared.name)
        for declared in fields(SamplingParams)
        if declared.init
    }
)
# What a parameter may be called -> its name.
NAMES: Mapping[str, str] = MappingProxyType(
    {alias: name for name, item in PARAMETERS.items() for alias in (name, *item.aliases)}
)
SamplingParams.__doc__ = f"{SamplingParams.__doc__}\n    Fields:\n" + "".join(
    f"        {name}: {item.meaning}\n" for name, item in PARAMETERS.items()
)


def canonical(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``options`` under the names of `SamplingParams`.

    Raises:
        RequestError: an unknown name (the message has the nearest known one), or two names of
            one parameter.
    """
    named: dict[str, Any] = {}
    for given, value in options.items():
        name = NAMES.get(given)
        if name is None:
            meant = [NAMES[alias] for alias in near(given, NAMES)][:1]
            raise RequestError(
                f"there is no sampling parameter {_shown(given)}",
                param=given,
                hint=f"did you mean {meant[0]}?" if meant else f"known: {', '.join(PARAMETERS)}",
            )
        if name in named:
            others = [other for other in options if NAMES.get(other) == name]
            raise RequestError(
                f"{' and '.join(others)} are one parameter and cannot both be set", param=name
            )
        named[name] = value
    return named


def choices_of(params: SamplingParams, n: Any = 1) -> list[SamplingParams]:
    """Return the parameters of ``n`` answers to one prompt (1 to `MAX_CHOICES`). Answer i samples
    with ``seed + i``, so that the first one is what ``n`` = 1 gives.

    Raises:
        RequestError: no such number of answers.
    """
    count = _ANSWERS.check(n)
    if params.seed is None or count == 1:
        return [params] * count
    return [replace(params, seed=(params.seed + i) % 2**64) for i in range(count)]


_ANSWERS = Parameter(
    name="n", kind="integer", part="text", meaning="answers", default=1, low=1, high=MAX_CHOICES
)


def _shown(value: Any) -> str:
    """Return a short text for a value of any size in an error message."""
    if isinstance(value, int) and abs(value) > 2**64:
        return "a number of more than 64 bits"
    text = repr(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"
    return text if len(text) <= 40 else text[:37] + "..."
