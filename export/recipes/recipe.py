"""Recipe: what an export should make. The same fields in YAML, on the command line, in Python."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edge_llm.errors import ConfigError
from edge_llm.export.recipes.schemes import (
    DEFAULT_ACTIVATIONS,
    DEFAULT_GROUP_SIZE,
    EXCEPTIONS,
    FORMATS,
    GROUP_SIZES,
    SCHEME_ACTIVATIONS,
    SCHEMES,
    Kind,
)
from edge_llm.llm.config import shorten
from edge_llm.program.check import MAX_CONTEXT
from edge_llm.program.formats import ACTIVATIONS, WEIGHT_FORMATS, Activations, WeightFormat
from edge_llm.program.ops import KV_DTYPES

SCALE_RULES = ("affine", "signed", "hqq")
ROTATIONS = ("values", "all")
DEFAULT_CONTEXT_LIMIT = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """When an export is too bad to keep. KL divergences are means over positions, in nats.

    ``max_kl`` and ``min_top1`` (near ties count as agreement, see metrics.py) compare the program
    with eager PyTorch that holds the same quantized numbers, and ``max_excess_kl`` bounds by how
    much more than that model the program may lose to the unquantized checkpoint: they catch a
    wrong export. ``max_quality_kl`` is the whole loss: it catches a scheme that the model does not
    stand.
    """

    max_kl: float = 0.1
    min_top1: float = 0.8
    max_excess_kl: float = 0.02
    max_quality_kl: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One export.

    ``model`` is a path or a catalogue name. ``group_size`` None: 32 where the scheme has groups.
    ``linear``, ``embedding``, ``head`` replace the scheme's format of that kind, and its
    exceptions (8da4w: v_proj in int8); ``overrides`` maps patterns of parameter names
    (``*layers.0.*``) to formats, the first match wins.
    ``activations``: what is multiplied with integers is rounded to int8 with one scale and zero
    point a "token", or with a scale for each "group" of 32 columns. None: "group" where the
    weights lose little, which are integers of the checkpoint, unless it was trained otherwise, and
    all under the schemes but 8da4w; else "token".
    ``scale_rule`` of int4 groups: "affine" is max|w| / 7.5, "signed" puts the element of largest
    magnitude on -8, "hqq" (the default) refines the better of the two. Integers that the checkpoint
    itself holds are taken over in their own format, unless ``requantize``.
    ``rotate`` "values" folds orthogonal matrices into what makes and reads the values of attention,
    so that their channels are of like size, and "all" one into what writes and reads the residual
    stream too; None: neither (quantization.md).
    ``context`` None: the model's own, at most 8192. ``kv_dtype`` None: f16, f32 under the scheme
    fp32.
    ``adapters`` are LoRA folders to merge, each a mapping of ``path`` and, if not 1, ``weight``.
    ``calibration`` is a text in UTF-8, JSON lines of conversations (``.jsonl``, ``.json``), or
    "builtin": the model reads its beginning, factors move
    between linears, and errors in columns of int4 and int6 groups then count as much as what they
    are multiplied with (quantization.md). ``bits`` is how many each weight of a calibrated program
    has at most, on average: an export finds the formats of linears that lose least under it, of
    those that the recipe does not name.
    ``chat_template`` is a Jinja file to use in place of the source's, or where that has none.
    ``gate`` None accepts any result; without ``verify`` nothing is compared and the file holds no
    golden record.

    Raises:
        ConfigError: values that are unknown or contradict each other, all of them listed.
    """

    model: str = ""
    scheme: str = "8da4w"
    group_size: int | None = None
    linear: str | None = None
    embedding: str | None = None
    head: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    activations: str | None = None
    scale_rule: str = "hqq"
    requantize: bool = False
    rotate: str | None = None
    context: int | None = None
    kv_dtype: str | None = None
    calibration: str | None = None
    bits: float | None = None
    chat_template: str | None = None
    adapters: Sequence[Mapping[str, Any]] = ()
    backend: str = "native"
    gate: Gate | None = field(default_factory=Gate)
    verify: bool = True

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {shorten(value)}, expected {expected}"
            for name, (accepts, expected) in _FIELDS.items()
            if not accepts(value := getattr(self, name))
        ]
        known = isinstance(self.scheme, str) and self.scheme in SCHEMES
        if known and self.group_size is not None and not self._has_groups():
            problems.append(
                f"group_size is {self.group_size}, but scheme {self.scheme} has no groups: "
                "leave it out, or use 8da4w"
            )
        if known and self.activations is not None and not self._has_integers():
            problems.append(
                f"activations is {shorten(self.activations)}, but scheme {self.scheme} rounds "
                "none: leave it out, or use 8da4w or 8da8w"
            )
        if self.calibration is not None and self.scale_rule != "hqq":
            problems.append(
                f"calibration acts on scale_rule hqq alone, which is {shorten(self.scale_rule)}"
            )
        if known and self.calibration is not None and not self._has_groups():
            problems.append(
                f"calibration is {shorten(self.calibration)}, but scheme {self.scheme} has no "
                "groups: leave it out, or use 8da4w"
            )
        if self.bits is not None and self.calibration is None:
            problems.append(
                f"bits is {shorten(self.bits)}, but without a calibration nothing tells where they "
                "count: add one (--calibrate), or leave it out"
            )
        if known and self.bits is not None and not self._has_groups():
            problems.append(
                f"bits is {shorten(self.bits)}, but scheme {self.scheme} has no formats to choose "
                "from: leave it out, or use 8da4w"
            )
        if problems:
            raise ConfigError("recipe: " + "; ".join(problems))

    def _has_groups(self) -> bool:
        return "i4" in SCHEMES[self.scheme].values()

    def _has_integers(self) -> bool:
        named = (self.linear, self.head, *self.overrides.values())
        formats = (*SCHEMES[self.scheme].values(), *(name for name in named if name is not None))
        return any(
            name not in WEIGHT_FORMATS or not WEIGHT_FORMATS[name].is_float for name in formats
        )

    def rounding(self, *, taken_over: bool, trained: Activations | None) -> Activations:
        """Return how what is multiplied with a matrix of integers is rounded: one that is
        ``taken_over`` from a checkpoint, which was ``trained`` with a rounding of its own if it
        says so, or one that is quantized here."""
        named = next((way for way in ACTIVATIONS if way == self.activations), None)
        if named is not None:
            return named
        if taken_over:
            return trained or DEFAULT_ACTIVATIONS
        return SCHEME_ACTIVATIONS.get(self.scheme, DEFAULT_ACTIVATIONS)

    def format_for(self, name: str, kind: Kind, stored: WeightFormat | None = None) -> WeightFormat:
        """Return the format of parameter ``name``.

        ``stored`` is that of the integers which the checkpoint itself holds for it. They are taken
        over under every scheme of integers; in place of a format that the recipe names, where they
        have as many bits. The scheme's exceptions are for weights that are quantized here.
        """
        own = _first_match(self.overrides, name) or getattr(self, kind, None)
        chosen = own or SCHEMES[self.scheme][kind]
        if chosen == "i4":
            chosen = f"i4g{self.group_size or DEFAULT_GROUP_SIZE}"
        wanted = WEIGHT_FORMATS[chosen]
        if (
            stored is not None
            and not wanted.is_float
            and (own is None or wanted.bits == stored.bits)
        ):
            return stored
        exception = None if own else _first_match(EXCEPTIONS.get(self.scheme, {}), name)
        return WEIGHT_FORMATS[exception or chosen]

    def names(self, name: str) -> bool:
        """Tell whether the recipe itself, not its scheme, says the format of a linear."""
        return self.linear is not None or _first_match(self.overrides, name) is not None

    def kv_format(self) -> str:
        """The dtype of the KV cache (a key of KV_DTYPES)."""
        return self.kv_dtype or ("f32" if self.scheme == "fp32" else "f16")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, for the program file: of paths their last names alone,
        so that nothing in a program says where it was made."""
        return (
            dataclasses.asdict(self)
            | {
                "model": _last_name(self.model),
                "overrides": dict(self.overrides),
                "adapters": [
                    {**entry, "path": _last_name(str(entry["path"]))} for entry in self.adapters
                ],
            }
            | {
                name: None if (path := getattr(self, name)) is None else _last_name(str(path))
                for name in ("calibration", "chat_template")
            }
        )


def _last_name(source: str) -> str:
    path = Path(source).expanduser()
    return path.resolve().name if path.exists() else source


def _first_match(patterns: Mapping[str, str], name: str) -> str | None:
    return next((value for key, value in patterns.items() if fnmatchcase(name, key)), None)


def _one_of(names: Sequence[object], *, or_none: bool = False) -> tuple[Callable[[Any], bool], str]:
    expected = "one of " + ", ".join(str(name) for name in names)
    # `type` too, since True == 1 and 32.0 == 32
    accepted = {(type(name), name) for name in names}
    return (
        lambda value: (
            (or_none and value is None)
            or (isinstance(value, int | str) and (type(value), value) in accepted)
        ),
        expected + (", or nothing" if or_none else ""),
    )


def _is_gate(value: Any) -> bool:
    return value is None or isinstance(value, Gate)


def _is_adapters(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(entry, Mapping)
        and isinstance(entry.get("path"), str)
        and set(entry) <= {"path", "weight"}
        and type(entry.get("weight", 1.0)) in (int, float)
        and abs(entry.get("weight", 1.0)) <= sys.float_info.max
        for entry in value
    )


def _is_overrides(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(pattern, str) and isinstance(chosen, str) and chosen in FORMATS
        for pattern, chosen in value.items()
    )


_FORMAT = _one_of(FORMATS, or_none=True)
_FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = MappingProxyType(
    {
        "model": (lambda value: isinstance(value, str), "a path or a catalogue name"),
        "scheme": _one_of(tuple(SCHEMES)),
        "group_size": _one_of(GROUP_SIZES, or_none=True),
        "linear": _FORMAT,
        "embedding": _FORMAT,
        "head": _FORMAT,
        "overrides": (
            _is_overrides,
            f"name patterns with formats, {_one_of(FORMATS)[1]}",
        ),
        "activations": _one_of(ACTIVATIONS, or_none=True),
        "scale_rule": _one_of(SCALE_RULES),
        "rotate": _one_of(ROTATIONS, or_none=True),
        "requantize": (lambda value: isinstance(value, bool), "true or false"),
        "context": (
            lambda value: value is None or (type(value) is int and 0 < value <= MAX_CONTEXT),
            f"1 to {MAX_CONTEXT} tokens, or nothing",
        ),
        "kv_dtype": _one_of(tuple(KV_DTYPES), or_none=True),
        "calibration": (
            lambda value: value is None or (isinstance(value, str) and value != ""),
            "the path of a text, or nothing",
        ),
        "bits": (
            lambda value: value is None or (type(value) in (int, float) and 0 < value <= 32),
            "bits per weight, above 0 and at most 32, or nothing",
        ),
        "chat_template": (
            lambda value: value is None or (isinstance(value, str) and value != ""),
            "the path of a Jinja file, or nothing",
        ),
        "backend": (lambda value: isinstance(value, str), "the name of a backend"),
        "gate": (_is_gate, "limits (max_kl, min_top1, max_excess_kl, max_quality_kl) or off"),
        "adapters": (_is_adapters, "a list of mappings with path and, if not 1, weight"),
        "verify": (lambda value: isinstance(value, bool), "true or false"),
    }
)
