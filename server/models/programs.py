"""Program files as models on offer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path

from edge_llm.api.loading import facts_of, load_with, needs_of
from edge_llm.errors import ConfigError
from edge_llm.runner.config import RunnerConfig
from edge_llm.server.models.offer import Offer


@dataclass(frozen=True, slots=True)
class ServedProgram:
    """A program file, and how it is loaded."""

    path: Path
    config: RunnerConfig


def offers_of(
    programs: Sequence[ServedProgram],
    *,
    aliases: Sequence[str] = (),
    pinned: Collection[str] = (),
    keep: float = inf,
) -> list[Offer]:
    """Return the models of some programs. Each has its own name, or that of its file where others
    have the same one; it answers to both, the first to ``aliases`` too. ``pinned`` are names of
    models that are never unloaded; the others are, ``keep`` seconds after their last request.

    Raises:
        ConfigError: two programs have the same names, or nothing has a name of ``pinned``.
        ProgramError, CapacityError, NativeError: a program cannot be loaded, as far as its header
            tells.
    """
    needs = [needs_of(program.path, program.config) for program in programs]
    count = Counter(need.name for need in needs)
    offers: list[Offer] = []
    for program, need in zip(programs, needs, strict=True):
        stem = program.path.stem
        name = need.name if count[need.name] == 1 else stem
        own = aliases if not offers else ()
        offers.append(
            Offer(
                name=name,
                aliases=(*own, stem),
                load=partial(load_with, program.path, program.config, name=name),
                describe=partial(facts_of, program.path, program.config),
                bytes=need.bytes,
                pinned=not set(pinned).isdisjoint((name, *own, stem)),
                usual=keep,
            )
        )
    names = Counter(name for offer in offers for name in offer.names)
    if twice := [name for name, n in names.items() if n > 1]:
        raise ConfigError(f"two of the models have the name {twice[0]}")
    if unknown := set(pinned) - set(names):
        raise ConfigError(
            f"{min(unknown)} is to be pinned, and is none of the models: {', '.join(names)}"
        )
    return offers
