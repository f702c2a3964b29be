"""Names of models as Ollama has them, with a tag behind a colon."""

from __future__ import annotations

from edge_llm.server.errors import ApiError
from edge_llm.server.service import Model, Service

LATEST = ":latest"


def tagged(name: str) -> str:
    """Return the name of a model with a tag: some clients add the usual one where there is none,
    and look for that among the names they were told."""
    return name if ":" in name else name + LATEST


def model_of(service: Service, name: str | None) -> Model:
    """Return the model by one of its names, with or without the usual tag.

    Raises:
        ApiError: as `Service.model`.
    """
    try:
        return service.model(name or None)
    except ApiError as error:
        if error.status != 404 or name is None or not name.endswith(LATEST):
            raise
        return service.model(name.removesuffix(LATEST))
