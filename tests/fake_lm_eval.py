"""As much of lm-evaluation-harness as its models see: a base class, and a registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class Hook:
    """Keeps what a model says it has found."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, Any, Any]] = []

    def add_partial(self, name: str, arguments: Any, found: Any) -> None:
        self.kept.append((name, arguments, found))


class LM:
    """The base class of models."""

    def __init__(self) -> None:
        self.cache_hook = Hook()


@dataclass
class Request:
    """A request of a task."""

    args: tuple[Any, ...]


@dataclass
class Registry:
    """The models that were registered, by their names."""

    models: dict[str, type] = field(default_factory=dict)

    def modules(self) -> dict[str, ModuleType]:
        """Return the modules of the harness, by their names."""

        def register_model(name: str) -> Callable[[type], type]:
            return lambda kind: self.models.setdefault(name, kind)

        modules = {name: ModuleType(name) for name in ("lm_eval", "lm_eval.api")}
        modules["lm_eval"].__spec__ = ModuleSpec("lm_eval", None)
        for name, content in (
            ("model", {"LM": LM}),
            ("registry", {"register_model": register_model}),
        ):
            modules[f"lm_eval.api.{name}"] = module = ModuleType(name)
            vars(module).update(content)
        return modules
