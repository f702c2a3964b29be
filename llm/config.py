"""The strict reader that takes the facts of a checkpoint from its config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeGuard

from edge_llm.errors import ConfigError

# No public decoder comes near these; beyond them a config is damaged or hostile.
MAX_SIZE = 2**24
MAX_LAYERS = 1024
MIN_NUMBER, MAX_NUMBER = 1e-30, 1e30  # products of a few stay finite

# Keys of Hugging Face configs that change nothing at inference, whatever their value.
HARMLESS_KEYS = frozenset(
    {
        "_attn_implementation_autoset",
        "_name_or_path",
        "architectures",
        "attention_dropout",
        "auto_map",
        "bos_token_id",
        "chunk_size_feed_forward",
        "dtype",
        "eos_token_id",
        "id2label",
        "initializer_range",
        "is_decoder",
        "is_encoder_decoder",
        "is_llama_config",
        "label2id",
        "model_type",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "pretraining_tp",
        "problem_type",
        "return_dict",
        "torch_dtype",
        "transformers.js_config",
        "transformers_version",
        "unsloth_fixed",
        "use_cache",
    }
)


class ConfigReader:
    """Reads typed values from an untrusted mapping and collects every problem for one error.

    A faulty value is recorded and replaced by a placeholder, so that reading goes on;
    ``finish`` raises. ``null`` counts as absent, as in transformers."""

    def __init__(self, values: Mapping[str, object], where: str) -> None:
        self._values = values
        self._where = where
        self._used: set[str] = set()
        self._problems: list[str] = []

    def get(self, key: str) -> object | None:
        """Return the raw value, marked as read; None when absent."""
        self._used.add(key)
        return self._values.get(key)

    def absent(self, key: str) -> bool:
        """Return whether it is not there at all: for the few keys where ``null`` differs from the
        default."""
        return key not in self._values

    def problem(self, message: str) -> None:
        """Record one line of the final error, once: some keys are asked for twice."""
        if message not in self._problems:
            self._problems.append(message)

    def require(self, condition: bool, message: str) -> None:
        """Record a relation that does not hold; silent once placeholders are in play."""
        if not condition and not self._problems:
            self.problem(message)

    def integer(
        self, key: str, default: int | None = None, *, low: int = 1, high: int = MAX_SIZE
    ) -> int:
        """Return an integer within [low, high]; without a default it must be there."""
        value = self.get(key)
        if value is None and default is not None:
            return default
        if is_integer(value) and low <= value <= high:
            return value
        self._mismatch(key, f"an integer from {low} to {high}")
        return low

    def positive(self, key: str, default: float | None = None) -> float:
        """Return a number above zero; without a default it must be there."""
        value = self.get(key)
        if value is None and default is not None:
            return default
        if is_positive(value):
            return float(value)
        self._mismatch(key, f"a number from {MIN_NUMBER} to {MAX_NUMBER}")
        return 1.0

    def divisors(self, key: str) -> tuple[float, ...]:
        """Return a list of numbers above zero; it must be there."""
        value = self.get(key)
        if isinstance(value, list) and value and all(is_positive(item) for item in value):
            return tuple(float(item) for item in value)
        self._mismatch(key, f"a list of numbers from {MIN_NUMBER} to {MAX_NUMBER}")
        return ()

    def flag(self, key: str, default: bool) -> bool:
        """Return a boolean."""
        value = self.get(key)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        self._mismatch(key, "true or false")
        return default

    def neutral(self, key: str, expected: object) -> None:
        """Check a key that could change the computation: absent, or at the one value honoured."""
        value = self.get(key)
        if value is None:
            return
        if value != expected or isinstance(value, bool) != isinstance(expected, bool):
            self._mismatch(key, f"{expected!r}, the only value supported")

    def absorb(self, inner: ConfigReader, key: str) -> None:
        """Take over the problems of the object at ``key``, whose every key must have been read."""
        self._problems += [f"{key}.{problem}" for problem in inner._problems]
        for name in sorted(set(inner._values) - inner._used):
            self.problem(f"{key}.{name}: got {shorten(inner._values[name])}, a key not supported")

    def finish(self, harmless: Iterable[str] = ()) -> tuple[str, ...]:
        """Return the keys that nothing has read and that are not known to be harmless.

        Raises:
            ConfigError: listing every problem.
        """
        if self._problems:
            listing = "".join(f"\n  {problem}" for problem in self._problems)
            raise ConfigError(f"{self._where} cannot be honoured:{listing}")
        given = {key for key, value in self._values.items() if value is not None}
        return tuple(sorted(given - self._used - HARMLESS_KEYS - set(harmless)))

    def _mismatch(self, key: str, expected: str) -> None:
        value = self._values.get(key)
        got = "missing" if value is None else f"got {shorten(value)}"
        self.problem(f"{key}: {got}, expected {expected}")


def is_integer(value: object) -> TypeGuard[int]:
    """Return whether it is an int and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether it is an int or float and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_positive(value: object) -> TypeGuard[int | float]:
    """Return whether it is a number from ``MIN_NUMBER`` to ``MAX_NUMBER``, which NaN is not."""
    return is_number(value) and MIN_NUMBER <= value <= MAX_NUMBER


def shorten(value: object) -> str:
    """Return ``repr`` of an untrusted value, cut to a length fit for an error message."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # deep nesting; integers of too many digits
        return f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."
