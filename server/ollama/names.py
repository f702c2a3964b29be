"""Names of models as Ollama has them, with a tag behind a colon; and how long the models stay."""

from __future__ import annotations

from edge_llm.server.errors import ApiError
from edge_llm.server.models.duration import keep_seconds
from edge_llm.server.models.model import Model
from edge_llm.server.models.offer import LATEST, Choice
from edge_llm.server.service import Service

_TAG = f":{LATEST}"


def tagged(name: str) -> str:
    """Return the name of a model with a tag: some clients add the usual one where there is none,
    and look for that among the names they were told."""
    return name if ":" in name else name + _TAG


def choice_of(service: Service, name: str | None) -> Choice:
    """Return what is on offer by one of its names, with or without the usual tag.

    Raises:
        ApiError: 404, nothing is.
    """
    try:
        return service.shelf.find(name or None)
    except ApiError:
        if name is None or not name.endswith(_TAG):
            raise
        return service.shelf.find(name.removesuffix(_TAG))


async def model_of(
    service: Service, name: str | None, keep_alive: float | str | None = None
) -> Model:
    """Return the model by one of its names, loaded, and kept for as long as ``keep_alive`` says.

    Raises:
        ApiError: 404, there is none; or as `Service.loaded`.
    """
    keep = None if keep_alive is None else keep_seconds(keep_alive)
    return await service.loaded(choice_of(service, name), keep)
