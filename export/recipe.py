"""Recipe: what an export should make. The same fields in YAML, on the command line, in Python."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import yaml

from edge_llm.errors import ConfigError
from edge_llm.llm.config import shorten
from edge_llm.program.check import MAX_CONTEXT
from edge_llm.program.formats import WEIGHT_FORMATS, WeightFormat
from edge_llm.program.ops import KV_DTYPES

Kind = Literal["linear", "embedding", "head"]

# Names of the formats that weights can be quantized or rounded to.
FORMATS = tuple(
    name for name, form in WEIGHT_FORMATS.items() if form.is_panel and form.minimum == "none"
)
# Format per kind of layer; "i4" stands for i4g32, i4g64 or i4g128 by the group size.
SCHEMES: Mapping[str, Mapping[Kind, str]] = MappingProxyType(
    {
        "8da4w": {"linear": "i4", "embedding": "i8", "head": "i8"},
        "8da8w": {"linear": "i8", "embedding": "i8", "head": "i8"},
        "fp16": {"linear": "f16", "embedding": "f16", "head": "f16"},
        "bf16": {"linear": "bf16", "embedding": "bf16", "head": "bf16"},
        "fp32": {"linear": "f32", "embedding": "f32", "head": "f32"},
    }
)
# Weights that a scheme treats apart where they are quantized here: pattern of names -> format.
# v_proj is 3 % of the weights of a small model, and 29 % of what it loses in int4.
EXCEPTIONS: Mapping[str, Mapping[str, str]] = MappingProxyType({"8da4w": {"*.v_proj.weight": "i8"}})
GROUP_SIZES = (32, 64, 128)
DEFAULT_GROUP_SIZE = 32
SCALE_RULES = ("affine", "signed", "hqq")
DEFAULT_CONTEXT_LIMIT = 8192
MAX_CHARACTERS = 2**15  # of a YAML file, whose parser takes half a second for that


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
    ``scale_rule`` of int4 groups: "affine" is max|w| / 7.5, "signed" puts the element of largest
    magnitude on -8, "hqq" (the default) refines the better of the two. Four-bit weights that the
    checkpoint itself holds are taken over in their own format, unless ``requantize``.
    ``context`` None: the model's own, at most 8192. ``kv_dtype`` None: f16, f32 under the scheme
    fp32.
    ``adapters`` are LoRA folders to merge, each a mapping of ``path`` and, if not 1, ``weight``.
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
    scale_rule: str = "hqq"
    requantize: bool = False
    context: int | None = None
    kv_dtype: str | None = None
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
        if problems:
            raise ConfigError("recipe: " + "; ".join(problems))

    def _has_groups(self) -> bool:
        return "i4" in SCHEMES[self.scheme].values()

    def format_for(self, name: str, kind: Kind, stored: WeightFormat | None = None) -> WeightFormat:
        """Return the format of parameter ``name``.

        ``stored`` is that of the four-bit integers which the checkpoint itself holds for it. They
        are taken over where four bits are wanted: the scheme's exceptions are for weights that are
        quantized here.
        """
        own = _first_match(self.overrides, name) or getattr(self, kind)
        chosen = own or SCHEMES[self.scheme][kind]
        if chosen == "i4":
            chosen = f"i4g{self.group_size or DEFAULT_GROUP_SIZE}"
        if stored is not None and WEIGHT_FORMATS[chosen].is_four_bit:
            return stored
        exception = None if own else _first_match(EXCEPTIONS.get(self.scheme, {}), name)
        return WEIGHT_FORMATS[exception or chosen]

    def kv_format(self) -> str:
        """The dtype of the KV cache (a key of KV_DTYPES)."""
        return self.kv_dtype or ("f32" if self.scheme == "fp32" else "f16")

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, for the program file."""
        return dataclasses.asdict(self) | {
            "overrides": dict(self.overrides),
            "adapters": [dict(entry) for entry in self.adapters],
        }


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
        "scale_rule": _one_of(SCALE_RULES),
        "requantize": (lambda value: isinstance(value, bool), "true or false"),
        "context": (
            lambda value: value is None or (type(value) is int and 0 < value <= MAX_CONTEXT),
            "a number of tokens above 0, or nothing",
        ),
        "kv_dtype": _one_of(tuple(KV_DTYPES), or_none=True),
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


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in _recipes_folder().iterdir()
        if entry.name.endswith(".yaml")
    )


def load_recipe(recipe: str | Path, settings: Sequence[str] = (), **fields: Any) -> Recipe:
    """Reads a recipe by name or YAML path; ``settings`` (``key=value``, values in YAML; nested as
    ``gate.max_kl=0.1`` or ``overrides.*lm_head*=f16``) and then ``fields`` take precedence.

    Raises:
        ConfigError: no such recipe, damaged YAML, an unknown key or value.
    """
    path: Traversable = Path(recipe)
    if Path(recipe).suffix not in (".yaml", ".yml"):
        path = _recipes_folder() / f"{recipe}.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise ConfigError(
            f"no recipe {str(recipe)!r}; recipes: {', '.join(recipe_names())}, or a YAML file"
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"recipe {path}: {exc}") from exc
    loaded = _parsed(text, f"recipe {path}")
    if not isinstance(loaded, dict):
        raise ConfigError(f"recipe {path}: expected a mapping of keys to values")
    document: dict[str, Any] = loaded
    for setting in settings:
        _apply(document, setting)
    return _from_document(document | fields, where=path.name)


def _parsed(text: str, where: str) -> Any:
    """YAML without aliases, by which a few lines stand for more than fits in memory.

    Raises:
        ConfigError: anything else.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{where}: {len(text)} characters, expected at most {MAX_CHARACTERS}")
    try:
        aliases = any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text))
        value = None if aliases else yaml.safe_load(text)
    except Exception as exc:  # values that do not fit their tag raise whatever Python does
        raise ConfigError(f"{where}: not YAML: {exc}") from exc
    if aliases:
        raise ConfigError(f"{where}: aliases (*name) are not supported")
    return value


def _recipes_folder() -> Traversable:
    return files("edge_llm") / "configs" / "recipes"


def _apply(document: dict[str, Any], setting: str) -> None:
    key, separator, text = setting.partition("=")
    if not separator:
        raise ConfigError(f"setting {setting!r}: expected key=value")
    value = _parsed(text, f"setting {setting!r}")
    key, _, inner = key.strip().partition(".")
    if inner:  # a pattern may hold further dots
        current = document.get(key)
        document[key] = (dict(current) if isinstance(current, dict) else {}) | {inner: value}
    else:
        document[key] = value


def _from_document(document: Mapping[str, Any], *, where: str) -> Recipe:
    names = [entry.name for entry in dataclasses.fields(Recipe)]
    unknown = [_named(key) for key in document if key not in names]
    values = dict(document)
    gate = values.get("gate")
    if gate is False:  # YAML reads `off` as false
        values["gate"] = None
    elif isinstance(gate, dict):
        limits = [entry.name for entry in dataclasses.fields(Gate)]
        unknown += [f"gate.{_named(key)}" for key in gate if key not in limits]
        names += [f"gate.{name}" for name in limits]
        numbers = {
            key: number for key, value in gate.items() if (number := _number(value)) is not None
        }
        if len(numbers) < len(gate):
            bad = ", ".join(_named(key) for key in gate if key not in numbers)
            raise ConfigError(f"recipe {where}: gate limits must be numbers: {bad}")
        values["gate"] = Gate(**numbers) if not unknown else None
    if unknown:
        raise ConfigError(
            f"recipe {where}: unknown {', '.join(unknown)}; valid keys: {', '.join(names)}"
        )
    return Recipe(**values)


def _number(value: Any) -> float | None:
    """A number, or None. Strings too, since YAML reads ``1e-3`` (no point) as one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (OverflowError, ValueError):
        return None


def _named(key: object) -> str:
    return key if isinstance(key, str) else shorten(key)
