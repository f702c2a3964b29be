"""Types of values that several dialects have in their requests."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from edge_llm.errors import RequestError
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.server.errors import invalid


class Part(BaseModel):
    """An object in a request. Types are strict; fields that nobody names are kept by name, for
    `validation.py` to ignore or to refuse."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


def _finite(value: Any) -> Any:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, float) and not math.isfinite(item):
            raise PydanticCustomError("finite_number", "NaN or an infinity inside")
        if isinstance(item, dict | list):
            waiting.extend(item.values() if isinstance(item, dict) else item)
    return value


# Any JSON object. Python's parser takes NaN and infinities, which JSON does not have.
JsonObject = Annotated[dict[str, Any], AfterValidator(_finite)]


def refused(*harmless: Any) -> AfterValidator:
    """Return the validator of an option that would change the answer and is not supported: any
    value is refused by the option's name but null and the ``harmless`` ones, which ask for
    nothing."""

    def check(value: Any) -> Any:
        if value is not None and value not in harmless:
            raise PydanticCustomError("unsupported_parameter", "is not supported")
        return value

    return AfterValidator(check)


def schema_grammar(schema: dict[str, Any], path: str) -> Grammar:
    """Return the grammar of a JSON schema that a request has at ``path``.

    Raises:
        ApiError: 400, naming the place and the keyword that cannot be enforced.
    """
    try:
        return Grammar.json_schema(schema, param=path)
    except RequestError as exc:
        raise invalid(f"Invalid '{path}': {exc}.", path, "unsupported_value") from exc
