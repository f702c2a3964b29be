"""Program files as models on offer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path

from edge_llm.api.loading import facts_of, load_with, memory_needed, name_of
from edge_llm.errors import ConfigError, EdgeLLMError
from edge_llm.runner.config import RunnerConfig
from edge_llm.server.models.offer import LATEST, Offer, choices_of, with_adapter


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
        ConfigError: two programs have the same names, an adapter has one that means the model
            without any to some clients, nothing has a name of ``pinned``, or one of
            several cannot be loaded with its options, as far as its header tells.
    """
    if len(programs) > 1:  # one alone is loaded at once, and says it itself
        _check(programs)
    if any(LATEST in program.config.adapters for program in programs):
        raise ConfigError(
            f"an adapter has the name {LATEST}, which means the model itself to clients of "
            "Ollama's API",
            hint="--adapter NAME=PATH gives it another",
        )
    titles = [name_of(program.path) for program in programs]
    count = Counter(titles)
    offers: list[Offer] = []
    for program, title in zip(programs, titles, strict=True):
        stem = program.path.stem
        name = title if count[title] == 1 else stem
        own = aliases if not offers else ()
        offers.append(
            Offer(
                name=name,
                aliases=(*own, stem),
                adapters=tuple(program.config.adapters),
                load=partial(load_with, program.path, program.config, name=name),
                describe=partial(facts_of, program.path, program.config),
                needs=partial(memory_needed, program.path, program.config),
                pinned=not set(pinned).isdisjoint((name, *own, stem)),
                usual=keep,
            )
        )
    names = Counter(
        with_adapter(name, choice.adapter)
        for offer in offers
        for choice in choices_of(offer)
        for name in offer.names
    )
    if twice := [name for name, n in names.items() if n > 1]:
        raise ConfigError(f"two of the models have the name {twice[0]}")
    if unknown := set(pinned) - {name for offer in offers for name in offer.names}:
        raise ConfigError(
            f"{min(unknown)} is to be pinned, and is none of the models: {', '.join(names)}"
        )
    return offers


def _check(programs: Sequence[ServedProgram]) -> None:
    for program in programs:
        try:
            memory_needed(program.path, program.config)
        except EdgeLLMError as exc:
            raise ConfigError(
                f"{program.path.stem} cannot be served: {exc}", hint=exc.hint
            ) from exc
