"""Models on offer, and services around them, without a socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge_llm.api.about import ModelFacts
from edge_llm.server.models.offer import Offer
from edge_llm.server.models.shelf import Shelf
from edge_llm.server.service import Service


def offered(model: Any, *, load: Callable[[], Any] | None = None, **facts: Any) -> Offer:
    """A model that is on offer, and not loaded."""
    return Offer(
        name=model.name,
        load=load or (lambda: model),
        describe=lambda: ModelFacts(model.name, model.digest, model.context, model.about),
        needs=lambda: model.memory,
        **facts,
    )


def serving(model: Any, *, max_choices: int = 128, **facts: Any) -> Service:
    """A service that takes requests for a model that is loaded."""
    offer = offered(model, **facts)
    offer.model, offer.state = model, "loaded"
    service = Service(Shelf([offer]), max_choices=max_choices)
    service.ready()
    return service
